"""A task that runs beside a server for as long as the server does, and takes the process down when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, Self

import structlog

log = structlog.get_logger("background")


class Background:
    """Runs a coroutine while the context is open; if it ends by itself the process is asked to stop.

    A server whose watches died would decide by an ever older picture: better that it is started anew.
    """

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work)
        self._task.add_done_callback(_report)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def _report(task: asyncio.Task[None]) -> None:
    if task.cancelled():
        return
    log.critical("background-work-died", exc_info=task.exception())
    os.kill(os.getpid(), signal.SIGTERM)
