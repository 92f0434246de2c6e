"""Exit codes of `kubectl elevate`, and the errors that end it."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
WRONG_CODE: Final = 4
UNREACHABLE: Final = 5
INTERRUPTED: Final = 130

TABLE: Final = """\
Exit codes: 0 stepped up (or nothing asks for it) · 1 something else failed · 2 wrong usage, or no way to ask for a code ·
3 refused (not enrolled, a reason is missing …) · 4 wrong codes · 5 the elevation service cannot be reached ·
130 interrupted. With `-- COMMAND`, the command's own exit code, 128+N if signal N ended it."""


class ElevateError(Exception):
    """Ends the program.

    Args:
        message: for the person: what is wrong, and the way out.
        exit_code: one of the constants above.
        code: stable kebab-case code, where the service gave one.
    """

    def __init__(self, message: str, exit_code: int = FAILED, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code
