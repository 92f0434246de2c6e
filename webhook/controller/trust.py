"""What the certificate loop has learned and the other loops need: whom the API server must trust, and our path."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trust:
    """Shared by the loops of one leader; empty until the first step of the loop that fills it.

    Args:
        admission: PEM bundle that verifies the admission server.
        elevation: PEM bundle that verifies the elevation server.
        path_secret: last part of the webhook's path.
        changed: set whenever one of them changes.
    """

    admission: str = ""
    elevation: str = ""
    path_secret: str = field(default="", repr=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def learn(
        self, *, admission: str | None = None, elevation: str | None = None, path_secret: str | None = None
    ) -> None:
        """Take in what is not None, and tell those who wait if it is news."""
        before = (self.admission, self.elevation, self.path_secret)
        self.admission = self.admission if admission is None else admission
        self.elevation = self.elevation if elevation is None else elevation
        self.path_secret = self.path_secret if path_secret is None else path_secret
        if before != (self.admission, self.elevation, self.path_secret):
            self.changed.set()
