"""Command lines: ``kubectl elevate`` for people, ``stepup`` for operators. They start quickly: imports are late."""
