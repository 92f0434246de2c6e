"""A watch keeps its sink in step whatever the API server does, and never takes silence or emptiness for news."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog.testing

from tests.fakes.kube import FakeKube, until
from webhook.adapters import watches as module
from webhook.adapters.kube import AnswerError
from webhook.adapters.watches import MAX_BACKOFF_SECONDS, SHORTEST_WATCH_SECONDS, Watched
from webhook.errors import StoreUnavailableError

PATH = "/apis/kube-stepup.io/v1alpha1/stepuppolicies"


class Sink:
    """What arrived, and the objects that are there."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.objects: dict[str, dict[str, Any]] = {}

    def put(self, obj: dict[str, Any]) -> None:
        name = obj["metadata"]["name"]
        if "unreadable" in obj:
            raise ValueError("unreadable")
        self.log.append(f"put {name}")
        self.objects[name] = obj

    def remove(self, name: str) -> None:
        self.log.append(f"remove {name}")
        self.objects.pop(name, None)


def obj(name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **more}


def event(kind: str, thing: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode()


class Script:
    """An API server that does what is written: lists in turn (the last for ever), then what each watch sends.

    A watch that is an error fails to open; an error among its lines breaks it off; None among them leaves it open.
    """

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self._lists = lists
        self._watches = watches
        self.listed = 0
        self.watched_from: list[str] = []
        self.lived = 0.0  # seconds that each watch takes, on the test's clock
        self.done = asyncio.Event()

    async def pages(self, path: str, *, limit: int = 500, form: type | None = None) -> AsyncIterator[dict[str, Any]]:
        assert path == PATH
        self.listed += 1
        found = self._lists[min(self.listed, len(self._lists)) - 1]
        await asyncio.sleep(0)
        if isinstance(found, Exception):
            raise found
        for page in found:
            yield page

    @asynccontextmanager
    async def watch(
        self, path: str, *, resource_version: str, timeout_seconds: int, stall_seconds: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.watched_from.append(resource_version)
        await asyncio.sleep(0)
        if len(self.watched_from) > len(self._watches):
            self.done.set()
            await asyncio.Event().wait()
        lines = self._watches[len(self.watched_from) - 1]
        if isinstance(lines, Exception):
            raise lines
        yield self._lines(lines)

    async def _lines(self, lines: list[Any]) -> AsyncIterator[bytes]:
        for line in lines:
            if isinstance(line, Exception):
                raise line
            yield line
        module.time.advance(self.lived)  # type: ignore[attr-defined]


class Time:
    """`time` for the module, turned by hand, and by its pauses."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in no time."""
    made: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        made.append(seconds)
        module.time.advance(seconds)  # type: ignore[attr-defined]
        await real_sleep(0)

    fake = type("Asyncio", (), {"sleep": staticmethod(sleep), "Event": asyncio.Event})
    monkeypatch.setattr(module, "asyncio", fake)
    monkeypatch.setattr(module, "time", Time())
    return made


def page(*items: dict[str, Any], version: str = "10") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version}, "items": list(items)}


async def play(script: Script, sink: Sink, **options: Any) -> Watched:
    """Run until the script is at its end."""
    watched = Watched(script, PATH, sink, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(watched.run())
    done = asyncio.create_task(script.done.wait())
    await asyncio.wait([task, done], return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert script.done.is_set(), task
    task.cancel()
    return watched


class TestFollowing:
    async def test_what_is_there_then_what_changes(self, pauses: list[float]) -> None:
        sink = Sink()
        script = Script(
            [[page(obj("a"), version=""), page(obj("b"), version="10")]],
            [[event("ADDED", obj("c", 11)), event("MODIFIED", obj("a", 12)), event("DELETED", obj("b", 13))]],
        )
        watched = await play(script, sink)
        assert sink.log == ["put a", "put b", "put c", "put a", "remove b"]
        assert script.watched_from == ["10", "13"]
        assert watched.synced

    async def test_a_watch_goes_on_where_the_last_one_ended_without_a_new_list(self, pauses: list[float]) -> None:
        script = Script([[page()]], [[event("ADDED", obj("a", 11))], [event("BOOKMARK", obj("", 50))], []])
        await play(script, Sink())
        assert script.watched_from == ["10", "11", "50", "50"]
        assert script.listed == 1

    async def test_bookmarks_bring_nothing(self, pauses: list[float]) -> None:
        sink = Sink()
        await play(Script([[page()]], [[event("BOOKMARK", obj("x", 50))]]), sink)
        assert sink.log == []

    async def test_an_object_that_cannot_be_read_does_not_stop_the_others(self, pauses: list[float]) -> None:
        sink = Sink()
        script = Script([[page(obj("a", unreadable=True), obj("b"))]], [[event("ADDED", obj("c", 11, unreadable=True)), event("ADDED", obj("d", 12))]])  # fmt: skip
        with structlog.testing.capture_logs() as lines:
            await play(script, sink)
        assert sink.log == ["put b", "put d"]
        assert [line["name"] for line in lines if line["event"] == "object-unreadable"] == ["a", "c"]
        assert script.watched_from[-1] == "12"

    @pytest.mark.parametrize("answer", [{}, {"metadata": None, "items": None}, {"metadata": {}}])
    async def test_a_list_without_a_version_is_followed_from_the_start(
        self, pauses: list[float], answer: dict[str, Any]
    ) -> None:
        script = Script([[answer]], [[]])
        await play(script, Sink())
        assert script.watched_from[0] == "0"
        assert script.listed == 1

    async def test_with_a_real_store(self) -> None:
        kube, sink = FakeKube(), Sink()
        await kube.create(PATH, obj("a"))
        watched = Watched(kube, PATH, sink)  # type: ignore[arg-type]
        task = asyncio.create_task(watched.run())
        await watched.wait_synced()
        await kube.create(PATH, obj("b"))
        await kube.delete(f"{PATH}/a")
        await until(lambda: set(sink.objects) == {"b"})
        task.cancel()


class TestFailures:
    @pytest.mark.parametrize(
        "problem",
        [
            StoreUnavailableError("a watch broke off or went silent"),
            AnswerError(500, "InternalError", "WATCH", PATH),
            AnswerError(403, "Forbidden", "WATCH", PATH),
            AnswerError(429, "TooManyRequests", "WATCH", PATH),
        ],
    )
    async def test_each_is_tried_again_from_where_it_was(self, pauses: list[float], problem: Exception) -> None:
        sink = Sink()
        script = Script([[page()]], [problem, [event("ADDED", obj("a", 11)), problem], [event("ADDED", obj("b", 12))]])
        await play(script, sink)
        assert script.watched_from == ["10", "10", "11", "12"]
        assert sink.log == ["put a", "put b"]
        assert script.listed == 1

    async def test_pauses_grow_and_are_spread(self, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        bounds: list[tuple[float, float]] = []

        def uniform(low: float, high: float) -> float:
            bounds.append((low, high))
            return high

        monkeypatch.setattr(module.random, "uniform", uniform)
        await play(Script([[page()]], [StoreUnavailableError("x")] * 9), Sink())
        assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0] + [MAX_BACKOFF_SECONDS] * 4
        assert set(bounds) == {(0.5, 1.0)}

    async def test_a_list_that_fails_is_listed_again(self, pauses: list[float]) -> None:
        sink = Sink()
        script = Script([StoreUnavailableError("x"), [page(obj("a"))]], [[]])
        watched = await play(script, sink)
        assert (script.listed, sink.log, watched.synced) == (2, ["put a"], True)

    async def test_until_then_nothing_is_known(self, pauses: list[float]) -> None:
        watched = Watched(Script([StoreUnavailableError("x")], []), PATH, Sink())  # type: ignore[arg-type]
        task = asyncio.create_task(watched.run())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not watched.synced
        task.cancel()

    @pytest.mark.parametrize(
        "line", [b"", b"{", b"\xff", b"[]", b'{"type":"ADDED"}', b'{"type":1,"object":{}}', b'{"type":"ADDED","object":"\xff"}']
    )  # fmt: skip
    async def test_what_is_no_event_breaks_the_watch_off_and_not_the_process(
        self, pauses: list[float], line: bytes
    ) -> None:
        sink = Sink()
        await play(Script([[page()]], [[line], [event("ADDED", obj("a", 11))]]), sink)
        assert sink.log == ["put a"]
        assert len(pauses) >= 1

    async def test_an_error_event_is_a_failure(self, pauses: list[float]) -> None:
        error = event("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError"})
        script = Script([[page()]], [[error]])
        with structlog.testing.capture_logs() as lines:
            await play(script, Sink())
        assert "500 InternalError" in lines[0]["problem"]
        assert script.listed == 1

    async def test_a_watch_that_ends_at_once_is_not_opened_again_at_once(self, pauses: list[float]) -> None:
        """A server, or something before it, that closes every watch must not be asked in a loop."""
        await play(Script([[page()]], [[]] * 5), Sink())
        assert len(pauses) == 5
        assert pauses[-1] > pauses[0]

    async def test_one_that_lived_is(self, pauses: list[float]) -> None:
        script = Script([[page()]], [[]] * 5)
        script.lived = SHORTEST_WATCH_SECONDS
        await play(script, Sink())
        assert pauses == []

    async def test_and_pauses_are_short_again_afterwards(self, pauses: list[float]) -> None:
        script = Script([[page()]], [StoreUnavailableError("x")] * 4 + [[]] + [StoreUnavailableError("x")])
        script.lived = SHORTEST_WATCH_SECONDS
        await play(script, Sink())
        assert len(pauses) == 5
        assert pauses[4] <= 0.5 < pauses[3]


class TestTooOld:
    GONE = AnswerError(410, "Expired", "WATCH", PATH)
    EVENT = event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})

    @pytest.mark.parametrize("answer", [GONE, [EVENT]])
    async def test_a_version_that_is_too_old_is_listed_anew(self, pauses: list[float], answer: Any) -> None:
        sink = Sink()
        script = Script([[page(obj("a"))], [page(obj("b"), version="20")]], [answer])
        await play(script, sink)
        assert script.watched_from == ["10", "20"]
        assert sink.log == ["put a", "put b", "remove a"]

    async def test_one_that_is_always_too_old_is_not_listed_in_a_loop(self, pauses: list[float]) -> None:
        await play(Script([[page()]], [self.GONE] * 6), Sink())
        assert len(pauses) == 6
        assert pauses[-1] > 1.0


class TestVanished:
    """What a later list no longer has, with no delete seen."""

    LISTS = ([page(obj("a"), obj("b"))], [page(obj("b"))], [page(obj("a"), obj("b"))])

    async def vanish(self, sink: Sink, pauses: list[float], *, retain: bool) -> list[list[str]]:
        told: list[list[str]] = []

        def tell(path: str, names: list[str]) -> None:
            assert path == PATH
            told.append(names)

        await play(Script(list(self.LISTS), [TestTooOld.GONE, TestTooOld.GONE]), sink, retain=retain, on_vanished=tell)
        return told

    async def test_is_removed_by_default(self, pauses: list[float]) -> None:
        sink = Sink()
        assert await self.vanish(sink, pauses, retain=False) == []
        assert sink.log == ["put a", "put b", "put b", "remove a", "put a", "put b"]

    async def test_stays_and_is_told_where_it_is_retained(self, pauses: list[float]) -> None:
        sink = Sink()
        assert await self.vanish(sink, pauses, retain=True) == [[], ["a"], []]
        assert "remove a" not in sink.log
        assert set(sink.objects) == {"a", "b"}

    async def test_nobody_needs_to_be_told(self, pauses: list[float]) -> None:
        sink = Sink()
        await play(Script(list(self.LISTS), [TestTooOld.GONE]), sink, retain=True)
        assert set(sink.objects) == {"a", "b"}

    async def test_a_delete_that_was_seen_is_no_vanishing(self, pauses: list[float]) -> None:
        told: list[list[str]] = []
        script = Script(list(self.LISTS), [[event("DELETED", obj("a", 11))], TestTooOld.GONE])
        await play(script, Sink(), retain=True, on_vanished=lambda _, names: told.append(names))
        assert told == [[], []]


class TestSilence:
    async def test_grows_while_nothing_is_heard(self, pauses: list[float]) -> None:
        clock: Any = module.time
        watched = await play(Script([[page()]], [[event("BOOKMARK", obj("", 11))]]), Sink())
        heard = watched.heard_at
        clock.now = heard + 42
        assert watched.silent_seconds == 42

    def test_is_long_before_the_first_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = Watched(FakeKube(), PATH, Sink())  # type: ignore[arg-type]
        assert watched.silent_seconds == pytest.approx(time.monotonic(), abs=1)

    async def test_is_noticed_by_the_client(self, pauses: list[float]) -> None:
        asked: list[int] = []

        class Asked(Script):
            def watch(self, path: str, **options: Any) -> Any:
                asked.append(options["stall_seconds"])
                return super().watch(path, **options)

        await play(Asked([[page()]], [[]]), Sink(), stall_seconds=17)
        assert set(asked) == {17}
