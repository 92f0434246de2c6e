"""The last parts of the webhook's path that are accepted now: the one in force, the announced one and the one before.

They are files beside each other, as a mounted Secret shows them, and are read again while the server runs.
"""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import Final

import structlog

from webhook.errors import ConfigurationError

MIN_LETTERS: Final = 16
READ_SECONDS: Final = 10.0
OTHERS: Final = ("next", "previous")

log = structlog.get_logger("path-secrets")


class PathSecrets:
    """Accepted values.

    Args:
        file: the one in force; empty means that the path is ``/validate`` alone.

    Raises:
        ConfigurationError: the file cannot be read, or holds too little.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file) if file else None
        self._suffixes = self._read()

    def __repr__(self) -> str:
        return f"PathSecrets({len(self._suffixes)})"

    def accept(self, suffix: str) -> bool:
        """Whether what follows ``/validate`` is right; each accepted value is compared in constant time."""
        given, found = suffix.encode(), False
        for one in self._suffixes:  # all of them, so that the time taken tells nothing
            found |= hmac.compare_digest(given, one)
        return found

    async def run(self) -> None:
        """Read again and again until cancelled; what cannot be read leaves things as they are."""
        while True:
            await asyncio.sleep(READ_SECONDS)
            self.refresh()

    def refresh(self) -> None:
        """Read once more."""
        try:
            self._suffixes = self._read()
        except ConfigurationError as error:
            log.warning("path-secret-unreadable", code=error.code)

    def _read(self) -> tuple[bytes, ...]:
        if self._file is None:
            return (b"",)
        try:
            values = [self._file.read_text(encoding="ascii").strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError("cannot be read", field="admission.pathSecretFile") from error
        for name in OTHERS:
            other = self._file.with_name(name)
            if other != self._file and other.is_file():
                values.append(other.read_text(encoding="ascii").strip())
        if any(len(value) < MIN_LETTERS or "/" in value for value in values):
            raise ConfigurationError("needs at least 16 letters and no slash", field="admission.pathSecretFile")
        return tuple(b"/" + value.encode() for value in values)
