"""Notices to people, through Apprise: chat, mail, pagers, whatever its URLs reach.

Sent beside the work, from a queue with an end: a notice never delays a request, never fails one, and never grants
anything. The URLs hold secrets, so that nothing of Apprise's own is logged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from webhook.settings import NoticeSettings

QUEUE_LENGTH: Final = 100
TRIES: Final = 3
SEND_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 2.0
MINUTE: Final = 60.0
MAX_LETTERS: Final = 1500
# What chats would take for markup or for a call to everybody.
_MARKUP: Final = str.maketrans({"<": "(", ">": ")", "&": "+", "`": " ", "[": "(", "]": ")", "*": "·"})

log = structlog.get_logger("notices")


class Notice(msgspec.Struct, frozen=True):
    """One notice.

    Args:
        event: kebab-case, such as ``approval-wanted``.
        title: one line.
        text: a few lines of plain text: what happened and the command to run. Never a secret, never a code.
    """

    event: str
    title: str
    text: str


def plain(text: str) -> str:
    """What people wrote, in a form that no chat takes for markup."""
    line = "".join(letter if letter.isprintable() else " " for letter in text.translate(_MARKUP))
    return line.replace("@here", "@ here").replace("@channel", "@ channel").replace("@everyone", "@ everyone")


class Notices:
    """A queue of notices and the task that sends them.

    Args:
        clock: seconds; only differences count.
        send: sends one notice to all URLs and says whether every one took it; Apprise by default.
    """

    def __init__(
        self,
        settings: NoticeSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        send: Callable[[list[str], Notice], bool] | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._file = Path(settings.urls_file) if settings.urls_file else None
        self._max_per_minute = settings.max_per_minute
        self._clock = clock
        self._send = send or _send_by_apprise
        self._retry_seconds = retry_seconds
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(QUEUE_LENGTH)
        self._sent: list[float] = []

    def tell(self, event: str, title: str, *lines: str) -> None:
        """Queue a notice; never waits, never fails. What there is no room for is dropped, and that is logged."""
        if self._file is None:
            return
        notice = Notice(event, title[:200], "\n".join(lines)[:MAX_LETTERS])
        now = self._clock()
        self._sent = [at for at in self._sent if now - at < MINUTE]
        if len(self._sent) >= self._max_per_minute:
            log.warning("notice-dropped", code="too-many-notices", notice=event)
            return
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            log.warning("notice-dropped", code="too-many-notices", notice=event)
            return
        self._sent.append(now)

    async def run(self) -> None:
        """Send what is queued, until cancelled."""
        while True:
            notice = await self._queue.get()
            try:
                await self._deliver(notice)
            finally:
                self._queue.task_done()

    async def drain(self) -> None:
        """Return when everything that was queued has been dealt with."""
        await self._queue.join()

    async def _deliver(self, notice: Notice) -> None:
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self._retry_seconds * attempt)
            if await self._attempt(notice):
                log.info("notice-sent", notice=notice.event)
                return
        log.error("notice-failed", code="notice-undelivered", notice=notice.event)

    async def _attempt(self, notice: Notice) -> bool:
        try:
            urls = _urls(self._file)
            if not urls:
                log.warning("notice-unsent", code="no-notice-urls", notice=notice.event)
                return True
            async with asyncio.timeout(SEND_SECONDS):
                return await asyncio.to_thread(self._send, urls, notice)
        except Exception as error:  # noqa: BLE001 - a plugin of somebody else's, whose error texts may hold a URL
            log.warning("notice-unsent", code="notice-undelivered", notice=notice.event, problem=type(error).__name__)
            return False


def _urls(file: Path | None) -> list[str]:
    if file is None:
        return []
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _send_by_apprise(urls: list[str], notice: Notice) -> bool:
    """Load Apprise when the first notice is sent: it has a hundred plugins, and most processes never need one."""
    import apprise

    for name in ("apprise", "requests", "urllib3"):
        quiet = logging.getLogger(name)  # they write URLs, with what is secret in them
        quiet.setLevel(logging.CRITICAL + 1)
        quiet.propagate = False
    sender: Any = apprise.Apprise(
        asset=apprise.AppriseAsset(app_id="kube-stepup", app_desc="kube-stepup", plugin_paths=[])
    )
    taken = [sender.add(url) for url in urls]
    sent = sender.notify(title=notice.title, body=notice.text, body_format=apprise.NotifyFormat.TEXT)
    return bool(sent) and all(taken)
