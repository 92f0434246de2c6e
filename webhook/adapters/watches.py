"""One watched kind of object: list, watch, and a callback for each change, for ever.

``kubernetes.informer`` runs a thread per kind, keeps every object whole and waits for ever on a watch that went silent
without closing. This one runs on the event loop, hands objects on instead of keeping them, notices silence by the
bookmarks that stop coming, and never lets an answer without objects pass for "there are none" (docs/adr/0003).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from webhook.adapters.kube import AnswerError, KubeClient
from webhook.errors import StoreUnavailableError

HTTP_GONE = 410
SHORTEST_WATCH_SECONDS = 1.0  # one that ends sooner has failed
FIRST_LOOK_AGAIN_SECONDS = 5  # after something vanished; doubled each time, up to a whole watch
WATCH_SECONDS = 480  # the server ends the watch after this long; it then goes on from the same version
MAX_BACKOFF_SECONDS = 15.0
PAGE = 500
SMALL_PAGE = 50

log = structlog.get_logger("watch")


class _Event(msgspec.Struct):
    type: str
    object: dict[str, Any]


_plain = msgspec.json.Decoder(_Event)


def _event_of(form: type) -> Any:
    return msgspec.defstruct("_Event", [("type", str), ("object", form)])


class Sink(Protocol):
    """Where changes go. All calls come from the event loop, in order."""

    def put(self, obj: dict[str, Any]) -> None:
        """An object was added or changed."""

    def remove(self, name: str) -> None:
        """An object was deleted."""


class Believed(Protocol):
    """Whether the API server's answers about a kind come from where they should. Both may raise StoreUnavailableError."""

    async def look(self) -> bool:
        """Whether lists and watches that are opened now can be believed."""
        ...

    async def confirms(self, path: str, deleted: dict[str, Any]) -> bool:
        """Whether an object that a watch says is deleted really is; if not, it stays."""
        ...


class Watched:
    """Keeps a sink in step with one cluster-scoped kind.

    Args:
        path: collection path, without a query.
        sink: receives the changes.
        retain: an object that is missing from a later list, with no delete seen, stays (and is reported): a new list
            is what whoever took the API over, or emptied it, would send.
        stall_seconds: silence after which the watch is opened again.
        on_vanished: told the names that are gone though nobody is known to have deleted them (empty when all is well
            again).
        form: a msgspec type of what is read of each object; the rest is never decoded. None for all of it.
        ground: asked whether what answers can be believed; always, by default.
    """

    def __init__(
        self,
        kube: KubeClient,
        path: str,
        sink: Sink,
        *,
        retain: bool = False,
        stall_seconds: int = 90,
        on_vanished: Callable[[str, list[str]], None] | None = None,
        form: type | None = None,
        ground: Believed | None = None,
    ) -> None:
        self._kube = kube
        self.path = path
        self._sink = sink
        self._retain = retain
        self._stall_seconds = stall_seconds
        self._on_vanished = on_vanished
        self._ground = ground
        self._known: set[str] = set()
        self._vanished: set[str] = set()
        self._look_again_seconds = FIRST_LOOK_AGAIN_SECONDS
        self._resource_version = ""
        self._form = form
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Event if form is None else _event_of(form))
        self._synced = asyncio.Event()
        self.heard_at = 0.0  # monotonic; when the API server last said anything

    @property
    def synced(self) -> bool:
        """Whether the first list has been taken in."""
        return self._synced.is_set()

    @property
    def silent_seconds(self) -> float:
        """Seconds since the API server last said anything; grows while it cannot be reached."""
        return time.monotonic() - self.heard_at

    @property
    def lost(self) -> bool:
        """Whether the API server has been silent for longer than a watch that stalled takes to be opened again."""
        return self.synced and self.silent_seconds > self._stall_seconds + MAX_BACKOFF_SECONDS

    async def wait_synced(self) -> None:
        """Return once the first list has been taken in."""
        await self._synced.wait()

    async def run(self) -> None:
        """List and watch until cancelled; every failure is retried with a growing, jittered pause."""
        failures = 0
        while True:
            started = time.monotonic()
            problem = await self._attempt()
            if problem is None and time.monotonic() - started >= SHORTEST_WATCH_SECONDS:
                failures = 0
                continue
            failures += 1
            pause = min(MAX_BACKOFF_SECONDS, 0.25 * 2 ** min(failures, 6)) * random.uniform(0.5, 1.0)
            log.warning(
                "watch-interrupted",
                path=self.path,
                code=problem.code if problem else "watch-too-short",
                problem=problem.message if problem else "the watch ended at once",
                retry_seconds=round(pause, 1),
            )
            await asyncio.sleep(pause)

    async def _attempt(self) -> StoreUnavailableError | None:
        """One watch, after a list where one is due; None when it ended as watches do, also for an old version."""
        try:
            if not self._resource_version:
                await self._list()
            await self._follow()
        except StoreUnavailableError as error:
            if not isinstance(error, AnswerError) or error.status != HTTP_GONE:
                return error
            self._resource_version = ""
        return None

    async def _list(self) -> None:
        version = ""
        items: list[dict[str, Any]] = []
        seen: set[str] = set()
        # What is read in part is large: fewer at a time.
        limit = PAGE if self._form is None else SMALL_PAGE
        async for page in self._kube.pages(self.path, limit=limit, form=self._form):
            version = (page.get("metadata") or {}).get("resourceVersion") or "0"
            found = page.get("items") or []
            seen.update(item["metadata"]["name"] for item in found)
            if self._ground is not None:
                items += found
                continue
            for item in found:
                self._put(item)
        await self._require_ground()  # before anything is taken in
        for item in items:
            self._put(item)
        vanished = self._known - seen
        if self._retain:
            self._vanished = vanished
            self._tell_vanished()
        else:
            for name in sorted(vanished):
                self._remove(name)
        self._resource_version = version
        self.heard_at = time.monotonic()
        self._synced.set()

    async def _require_ground(self) -> None:
        if self._ground is not None and not await self._ground.look():
            self._resource_version = ""
            raise StoreUnavailableError("somebody else answers for this kind, or its definition is gone")

    def _watch_seconds(self) -> int:
        """How long the next watch may last: not long after something vanished.

        The list without it may have come from a stranger, with a version that the true server never comes to; a watch
        from there would stay silent for ever.
        """
        if not self._vanished or self._ground is None:
            self._look_again_seconds = FIRST_LOOK_AGAIN_SECONDS
            return WATCH_SECONDS
        seconds = self._look_again_seconds
        self._look_again_seconds = min(2 * seconds, WATCH_SECONDS)
        return seconds

    async def _follow(self) -> None:
        seconds = self._watch_seconds()
        async with self._kube.watch(
            self.path,
            resource_version=self._resource_version,
            timeout_seconds=seconds,
            stall_seconds=self._stall_seconds,
        ) as lines:
            await self._require_ground()  # whoever answers now is who answers for as long as this watch lasts
            self.heard_at = time.monotonic()
            async for line in lines:
                self.heard_at = time.monotonic()
                try:
                    event = self._read(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise StoreUnavailableError("a watch sent something that is not an event") from error
                await self._take(event)
        if seconds < WATCH_SECONDS:
            self._resource_version = ""

    def _read(self, line: bytes) -> _Event:
        event: _Event = self._decoder.decode(line)
        if self._form is None:
            return event
        # An error is a Status, whose code must not be skipped.
        return _plain.decode(line) if event.type == "ERROR" else _Event(event.type, msgspec.to_builtins(event.object))

    async def _take(self, event: _Event) -> None:
        if event.type == "ERROR":
            code = int(event.object.get("code") or 0)
            raise AnswerError(code, str(event.object.get("reason") or "Error"), "WATCH", self.path)
        metadata = event.object.get("metadata") or {}
        if event.type in {"ADDED", "MODIFIED"}:
            self._put(event.object)
            if metadata["name"] in self._vanished:
                self._vanished.discard(metadata["name"])
                self._tell_vanished()
        elif event.type == "DELETED":
            if self._ground is None or not self._retain or await self._ground.confirms(self.path, event.object):
                self._remove(metadata["name"])
            else:
                self._vanished.add(metadata["name"])
                self._tell_vanished()
        self._resource_version = metadata.get("resourceVersion") or self._resource_version

    def _put(self, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        self._known.add(metadata["name"])
        try:
            self._sink.put(obj)
        except Exception:
            # One object that cannot be read must not stop the others from being seen.
            log.exception("object-unreadable", path=self.path, name=metadata["name"])

    def _tell_vanished(self) -> None:
        if self._on_vanished is not None:
            self._on_vanished(self.path, sorted(self._vanished))

    def _remove(self, name: str) -> None:
        self._vanished.discard(name)
        self._known.discard(name)
        self._sink.remove(name)
