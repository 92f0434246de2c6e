"""A terminal's question is held for a while, until somebody has answered on the page: fewer questions, and no delay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from webhook.elevation.factors import StillWaitingError

WAIT_SECONDS: Final = 20.0  # well inside the API server's timeout of 60 s
LOOK_SECONDS: Final = 0.5
MAX_WAITING: Final = 200
MAX_WAITING_PER_PERSON: Final = 4

Found = TypeVar("Found")


class Waiting:
    """Holds questions, a bounded number in all and for each person; the rest are answered at once."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    async def until(self, username: str, look: Callable[[], Awaitable[Found | None]]) -> Found:
        """What ``look`` finds, once it finds something.

        Raises:
            StillWaitingError: nothing yet; ask again.
        """
        has_room = self._waiting.total() < MAX_WAITING and self._waiting[username] < MAX_WAITING_PER_PERSON
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (WAIT_SECONDS if has_room else 0)
        self._waiting[username] += 1
        try:
            while (found := await look()) is None:
                if loop.time() >= deadline:
                    raise StillWaitingError("nobody has answered on the page yet")
                await asyncio.sleep(LOOK_SECONDS)
            return found
        finally:
            self._waiting[username] -= 1
            if not self._waiting[username]:
                del self._waiting[username]
