"""`kubectl_complete-elevate`: kubectl (1.26 and later) runs it to complete `kubectl elevate …`, with the words typed so far."""

from __future__ import annotations

import sys

from webhook.cli.elevate import run


def main() -> None:
    """Entry point."""
    sys.exit(run(["__complete", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
