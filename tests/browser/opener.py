"""Stands in for a person's browser program (`BROWSER`): notes the link that it is to open, for the test's own browser."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    with Path(sys.argv[1]).open("a", encoding="utf-8") as links:
        links.write(sys.argv[2] + "\n")
