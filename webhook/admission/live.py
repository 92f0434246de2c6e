"""The live reads before a denial, and the write that uses a proof up: all that admission ever asks the API server."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
import structlog

from webhook.adapters.elevation_cache import USER_LABEL, ElevationCache, KnownElevation, read_elevation, user_hash
from webhook.adapters.kube import METADATA_ONLY, KubeClient, object_path, own_path
from webhook.core.assertion import REPEAT_SECONDS
from webhook.core.decision import Use
from webhook.core.operation import Target
from webhook.core.request import ObjectMeta
from webhook.errors import ConflictError, StepUpError, StoreUnavailableError

MAX_SWAP_ATTEMPTS = 8

log = structlog.get_logger("live")


class UsedUpError(StepUpError):
    """Another request used the proof first."""

    code = "used-up"


class Live:
    """Reads and writes that must not come from a cache.

    Args:
        read_seconds, write_seconds: deadlines of one read and of the whole write, both well inside the webhook's own.
    """

    def __init__(self, kube: KubeClient, cache: ElevationCache, *, read_seconds: float, write_seconds: float) -> None:
        self._kube = kube
        self._cache = cache
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}

    async def target(self, target: Target, version: str) -> ObjectMeta | None:
        """Metadata of the object that a request is about; None when it cannot be read, for whatever reason."""
        path = object_path(target.group, version, target.resource, namespace=target.namespace, name=target.name)
        try:
            obj = await self._kube.get(path, accept=METADATA_ONLY, timeout_seconds=self._read_seconds)
            return msgspec.convert((obj or {}).get("metadata"), ObjectMeta) if obj else None
        except (StoreUnavailableError, msgspec.ValidationError) as error:
            log.warning("target-unreadable", target=target.describe(), problem=str(error))
            return None

    async def namespace_labels(self, name: str) -> dict[str, str] | None:
        """Labels of a namespace; None when it cannot be read."""
        meta = await self.target(Target("", "namespaces", "", name), "v1")
        return None if meta is None else meta.labels or {}

    async def refresh(self, username: str) -> None:
        """Read the Elevations of a person into the cache, by a read that begins after this call.

        Calls that arrive while one read is under way share the next: a flood of refusals is one read at a time.

        Raises:
            StoreUnavailableError: they cannot be read.
        """
        running = self._refreshing.get(username)
        if running is None:
            await asyncio.shield(self._start(username))
            return
        waiting = self._waiting.get(username)
        if waiting is None:
            waiting = self._waiting[username] = asyncio.create_task(self._after(running, username))
        await asyncio.shield(waiting)

    def _start(self, username: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._read_elevations(username))
        self._refreshing[username] = task
        task.add_done_callback(lambda _: self._refreshing.pop(username, None))
        return task

    async def _after(self, running: asyncio.Task[None], username: str) -> None:
        await asyncio.wait([running])
        self._waiting.pop(username, None)
        await self._start(username)

    async def _read_elevations(self, username: str) -> None:
        query = urlencode({"labelSelector": f"{USER_LABEL}={user_hash(username)}"})
        page = await self._kube.get(f"{own_path('elevations')}?{query}", timeout_seconds=self._read_seconds)
        for item in (page or {}).get("items") or []:
            self._cache.put(item)

    async def spend(self, name: str, uses: tuple[Use, ...]) -> None:
        """Record uses of a `Once` proof, by compare-and-swap on its Elevation.

        Raises:
            UsedUpError: it was used for something else, or revoked, meanwhile.
            StoreUnavailableError: the write did not succeed in time; nothing may pass on it.
        """
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._spend(name, uses)
        except TimeoutError as error:
            raise StoreUnavailableError("the use of a step-up could not be recorded in time") from error

    async def _spend(self, name: str, uses: tuple[Use, ...]) -> None:
        known = self._cache.find(name)
        for _ in range(MAX_SWAP_ATTEMPTS):
            if known is None:
                known = await self._read(name)
            missing = _missing(known, uses)
            if not missing:
                return
            try:
                answer = await self._kube.merge_patch(
                    own_path("elevations", name, "status"), _patch(known, missing), timeout_seconds=self._write_seconds
                )
            except ConflictError:
                known = None
                continue
            self._cache.put(answer)
            return
        raise StoreUnavailableError("too many others write the same step-up")

    async def _read(self, name: str) -> KnownElevation:
        obj = await self._kube.get(own_path("elevations", name), timeout_seconds=self._read_seconds)
        known = read_elevation(obj) if obj else None
        if known is None:
            self._cache.remove(name)
            raise UsedUpError("the step-up is gone", code="revoked")
        self._cache.learn(known)
        return known


def _missing(known: KnownElevation, uses: tuple[Use, ...]) -> list[Use]:
    """The uses that are not recorded yet."""
    if known.record.revoked:
        raise UsedUpError("the step-up was revoked", code="revoked")
    recorded = {use.key: use for use in known.record.uses}
    missing: list[Use] = []
    for use in uses:
        before = recorded.get(use.key)
        if before is None:
            missing.append(use)
        elif before.digest != use.digest or time.time() - before.at > REPEAT_SECONDS:
            raise UsedUpError("the step-up has been used")
    return missing


def _patch(known: KnownElevation, missing: list[Use]) -> dict[str, Any]:
    uses = [*known.record.uses, *missing]
    return {
        "metadata": {"resourceVersion": known.record.resource_version},
        "status": {
            "phase": "Used",
            "uses": [{"key": use.key, "digest": use.digest, "at": _time(use.at)} for use in uses],
        },
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
