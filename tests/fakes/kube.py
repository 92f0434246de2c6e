"""`KubeClient` in memory: resource versions, compare-and-swap, status subresources, selectors, watches.

It yields to the event loop in every call, so that concurrent writers really interleave.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import parse_qs, unquote

from webhook.adapters.ground import API_SERVICE
from webhook.adapters.kube import AnswerError, object_path
from webhook.core.canary import MANAGER_PREFIX, seen
from webhook.errors import ConflictError

STATUS = "/status"
DEFINITIONS = object_path("apiextensions.k8s.io", "v1", "customresourcedefinitions")
# Unless a test stores something else there: our API group as it should be.
SOUND_GROUND: dict[str, dict[str, Any]] = {
    API_SERVICE: {"metadata": {"name": "v1alpha1.kube-stepup.io"}, "spec": {}},
    **{
        f"{DEFINITIONS}/{kind}.kube-stepup.io": {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}}
        for kind in ("stepuppolicies", "signingkeys", "stepupconfigurations")
    },
}


class FakeKube:
    """One API server. `objects` is what is stored, by path; `calls` are the (method, path) of every call.

    Args:
        clock: seconds since the epoch, for `creationTimestamp`.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.dry_runs: list[tuple[str, str]] = []  # (path, field manager)
        self.canaries_come_back = True
        self._versions = itertools.count(1)
        self._watchers: list[tuple[str, asyncio.Queue[dict[str, Any]]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def close(self) -> None:
        return None

    async def get(self, path: str, *, accept: str = "", timeout_seconds: float = 10.0) -> dict[str, Any] | None:
        await self._called("GET", path)
        plain, _, query = path.partition("?")
        if plain in self.objects:
            return copy.deepcopy(self.objects[plain])
        if plain in SOUND_GROUND:
            return copy.deepcopy(SOUND_GROUND[plain])
        if query or any(self._collection(one) == plain for one in self.objects):
            return self._list(plain, query)
        return None

    async def create(self, path: str, body: dict[str, Any], *, timeout_seconds: float = 10.0) -> dict[str, Any]:
        await self._called("POST", path)
        obj = copy.deepcopy(body)
        metadata = obj.setdefault("metadata", {})
        where = f"{path}/{metadata['name']}"
        if where in self.objects:
            raise ConflictError(f"{where} exists")
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault(
            "creationTimestamp", datetime.fromtimestamp(int(self._clock()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        )
        metadata["generation"] = 1
        return self._store(where, obj, "ADDED")

    async def replace(self, path: str, body: dict[str, Any], *, timeout_seconds: float = 10.0) -> dict[str, Any]:
        await self._called("PUT", path)
        stored = self._checked(path, body.get("metadata", {}).get("resourceVersion"))
        where = path.removesuffix(STATUS)
        if path.endswith(STATUS):
            obj = {**copy.deepcopy(stored), "status": copy.deepcopy(body.get("status", {}))}
        else:
            obj = copy.deepcopy(body)
            for key in ("uid", "creationTimestamp", "generation"):
                obj["metadata"][key] = stored["metadata"][key]
        return self._store(where, obj, "MODIFIED")

    async def merge_patch(self, path: str, body: dict[str, Any], *, timeout_seconds: float = 10.0) -> dict[str, Any]:
        await self._called("PATCH", path)
        stored = self._checked(path, body.get("metadata", {}).get("resourceVersion"))
        patch = {"status": body.get("status", {})} if path.endswith(STATUS) else body
        return self._store(path.removesuffix(STATUS), _merged(stored, patch), "MODIFIED")

    async def warnings_of_dry_run(self, path: str, body: dict[str, Any], *, field_manager: str) -> list[str]:
        await self._called("DRY RUN", path)
        self._checked(path, None)
        self.dry_runs.append((path, field_manager))
        return [f'299 - "{seen(field_manager.removeprefix(MANAGER_PREFIX))}"'] if self.canaries_come_back else []

    async def delete(self, path: str, *, resource_version: str = "", timeout_seconds: float = 10.0) -> bool:
        await self._called("DELETE", path)
        if path not in self.objects:
            return False
        self._checked(path, resource_version or None)
        self._tell(path, "DELETED", self.objects.pop(path))
        return True

    async def pages(self, path: str, *, limit: int = 500, form: type | None = None) -> AsyncIterator[dict[str, Any]]:
        await self._called("GET", path)
        yield self._list(path, "")

    @asynccontextmanager
    async def watch(
        self, path: str, *, resource_version: str, timeout_seconds: int, stall_seconds: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        await self._called("WATCH", path)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for where, obj in self.objects.items():
            if self._collection(where) == path and int(obj["metadata"]["resourceVersion"]) > int(resource_version or 0):
                queue.put_nowait({"type": "ADDED", "object": copy.deepcopy(obj)})
        entry = (path, queue)
        self._watchers.append(entry)
        try:
            yield _lines(queue)
        finally:
            self._watchers.remove(entry)

    def _list(self, path: str, query: str) -> dict[str, Any]:
        selector = parse_qs(unquote(query)).get("labelSelector", [""])[0]
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair)
        items = [
            copy.deepcopy(obj)
            for where, obj in self.objects.items()
            if self._collection(where) == path and wanted.items() <= (obj["metadata"].get("labels") or {}).items()
        ]
        return {"kind": "List", "metadata": {"resourceVersion": str(next(self._versions))}, "items": items}

    def _checked(self, path: str, resource_version: str | None) -> dict[str, Any]:
        stored = self.objects.get(path.removesuffix(STATUS))
        if stored is None:
            raise AnswerError(404, "NotFound", "PUT", path)
        if resource_version and resource_version != stored["metadata"]["resourceVersion"]:
            raise ConflictError(f"{path} changed")
        return stored

    def _store(self, where: str, obj: dict[str, Any], event: str) -> dict[str, Any]:
        before = self.objects.get(where)
        if before is not None and before.get("spec") != obj.get("spec"):
            obj["metadata"]["generation"] = before["metadata"]["generation"] + 1
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[where] = obj
        self._tell(where, event, obj)
        return copy.deepcopy(obj)

    def _tell(self, where: str, event: str, obj: dict[str, Any]) -> None:
        for path, queue in self._watchers:
            if self._collection(where) == path:
                queue.put_nowait({"type": event, "object": copy.deepcopy(obj)})

    async def _called(self, method: str, path: str) -> None:
        self.calls.append((method, path))
        await asyncio.sleep(0)

    @staticmethod
    def _collection(where: str) -> str:
        return where.rsplit("/", 1)[0]


async def until(holds: Callable[[], bool]) -> None:
    """Let the event loop turn until something holds, and not a turn longer."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


async def _lines(queue: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[bytes]:
    while True:
        yield json.dumps(await queue.get()).encode()


def _merged(stored: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = copy.deepcopy(stored) if isinstance(stored, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found
