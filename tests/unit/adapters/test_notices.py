"""Notices: sent beside the work, bounded, tried again, and never with a URL in a log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from webhook.adapters.notices import MAX_LETTERS, QUEUE_LENGTH, TRIES, Notice, Notices, plain
from webhook.settings import NoticeSettings

SECRET = "hook-secret-4711"


class Outbox:
    """Takes notices, after so many failures."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error
        self.sent: list[tuple[list[str], Notice]] = []

    def __call__(self, urls: list[str], notice: Notice) -> bool:
        self.sent.append((urls, notice))
        if self.error is not None:
            raise self.error
        return len(self.sent) > self.failures


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Notices]:
    def notices(outbox: Outbox, text: str = f"# chat\n\njson://chat/{SECRET}\n", **more: Any) -> Notices:
        file = tmp_path / "urls"
        file.write_text(text)
        options = NoticeSettings(urls_file=str(file), max_per_minute=more.pop("max_per_minute", 600))
        return Notices(options, send=outbox, retry_seconds=0, **more)

    return notices


async def delivered(notices: Notices) -> None:
    work = asyncio.create_task(notices.run())
    await notices.drain()
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work


async def test_goes_to_every_url_of_the_file(make: Callable[..., Notices]) -> None:
    outbox = Outbox()
    notices = make(outbox)
    notices.tell("approval-wanted", "title", "one", "two")
    await delivered(notices)
    assert outbox.sent == [([f"json://chat/{SECRET}"], Notice("approval-wanted", "title", "one\ntwo"))]


async def test_is_tried_again_and_then_given_up(
    make: Callable[..., Notices], capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = Outbox(failures=1)
    notices = make(outbox)
    notices.tell("a", "t")
    await delivered(notices)
    assert len(outbox.sent) == 2
    outbox.failures = 99
    notices.tell("a", "t")
    await delivered(notices)
    assert len(outbox.sent) == 2 + TRIES
    assert "notice-undelivered" in capsys.readouterr().out


async def test_an_error_of_a_plugin_is_not_logged_with_its_words(
    make: Callable[..., Notices], capsys: pytest.CaptureFixture[str]
) -> None:
    notices = make(Outbox(error=ValueError(f"json://chat/{SECRET} is down")))
    notices.tell("a", "t")
    await delivered(notices)
    shown = capsys.readouterr().out
    assert "ValueError" in shown
    assert SECRET not in shown


async def test_a_flood_is_dropped_not_queued(make: Callable[..., Notices]) -> None:
    now = 0.0
    outbox = Outbox()
    notices = make(outbox, max_per_minute=3, clock=lambda: now)
    for _ in range(10):
        notices.tell("a", "t")
    now = 61.0
    notices.tell("later", "t")
    await delivered(notices)
    assert [notice.event for _, notice in outbox.sent] == ["a", "a", "a", "later"]


async def test_the_queue_has_an_end(make: Callable[..., Notices]) -> None:
    outbox = Outbox()
    notices = make(outbox)
    for _ in range(QUEUE_LENGTH + 50):
        notices.tell("a", "t")
    await delivered(notices)
    assert len(outbox.sent) == QUEUE_LENGTH


async def test_without_a_file_nobody_is_told() -> None:
    outbox = Outbox()
    notices = Notices(NoticeSettings(), send=outbox)
    notices.tell("a", "t")
    await delivered(notices)
    assert outbox.sent == []


async def test_a_file_that_is_gone_fails_nothing(make: Callable[..., Notices], tmp_path: Path) -> None:
    outbox = Outbox()
    notices = make(outbox)
    (tmp_path / "urls").unlink()
    notices.tell("a", "t")
    await delivered(notices)
    assert outbox.sent == []


async def test_is_not_longer_than_a_chat_takes(make: Callable[..., Notices]) -> None:
    outbox = Outbox()
    notices = make(outbox)
    notices.tell("a", "t" * 500, "x" * 5000)
    await delivered(notices)
    ((_, notice),) = outbox.sent
    assert (len(notice.title), len(notice.text)) == (200, MAX_LETTERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!channel> @here", "(!channel) @ here"),
        ("[click](http://x)", "(click)(http://x)"),
        ("a\nb\x1b[0m", "a b (0m"),
        ("*bold* `code` &amp;", "·bold·  code  +amp;"),
    ],
)
def test_what_people_wrote_is_no_markup(text: str, expected: str) -> None:
    assert plain(text) == expected
