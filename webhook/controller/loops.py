"""A step that is taken again and again: at its interval, and early when it is woken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from webhook.errors import StoreUnavailableError

SETTLE_SECONDS: Final = 0.05  # changes come in bursts: one step for all of them
RETRY_SECONDS: Final = 1.0
STUCK_INTERVALS: Final = 10
MIN_STUCK_SECONDS: Final = 120.0

log = structlog.get_logger("loops")


class Loop:
    """Takes a step for ever; a step that fails is logged and taken again.

    Args:
        interval_seconds: the longest pause between two steps.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[None]], interval_seconds: float) -> None:
        self.name = name
        self._step = step
        self._interval_seconds = interval_seconds
        self._woken = asyncio.Event()
        self._tried_at: float | None = None
        self._failing_since: float | None = None

    def wake(self) -> None:
        """Take the next step now."""
        self._woken.set()

    @property
    def stuck(self) -> bool:
        """Whether a step has been under way for so long that it will not end."""
        if self._tried_at is None:
            return False
        return time.monotonic() - self._tried_at > max(MIN_STUCK_SECONDS, STUCK_INTERVALS * self._interval_seconds)

    @property
    def failing_seconds(self) -> float:
        """Seconds since steps began to fail; 0 while they succeed."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    async def run(self) -> None:
        """Take steps until cancelled."""
        try:
            while True:
                self._tried_at = time.monotonic()
                self._woken.clear()
                pause = self._interval_seconds if await self._try() else min(RETRY_SECONDS, self._interval_seconds)
                try:
                    await asyncio.wait_for(self._woken.wait(), pause)
                except TimeoutError:
                    continue
                await asyncio.sleep(SETTLE_SECONDS)
        finally:
            self._tried_at = None

    async def _try(self) -> bool:
        done = await self._attempt()
        if done:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = time.monotonic()
        return done

    async def _attempt(self) -> bool:
        try:
            await self._step()
        except StoreUnavailableError as error:
            log.warning("step-failed", step=self.name, code=error.code, problem=error.message)
            return False
        except Exception:
            # One loop that crashes must not stop the others: certificates go on being renewed.
            log.exception("step-crashed", step=self.name)
            return False
        return True
