"""A replica that does not hear of new policies and revocations says so, and goes on deciding with what it knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.builders import AUDIENCE, Signer, deletion, policy
from tests.fakes.kube import FakeKube, until
from webhook.adapters import watches
from webhook.adapters.cluster_state import ClusterState
from webhook.adapters.kube import object_path, own_path
from webhook.admission.app import create_app
from webhook.admission.path_secrets import PathSecrets
from webhook.settings import Settings

STALL_SECONDS = 90
WATCHES = list(ClusterState(FakeKube())._watches)  # type: ignore[arg-type]


class Time:
    """`time`, as long as nobody turns it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Replica:
    """One admission replica with all that runs beside it."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube
        settings = Settings.model_validate({"audience": AUDIENCE, "admission": {"watchStallSeconds": STALL_SECONDS}})
        self.app = create_app(settings, kube, PathSecrets(""))  # type: ignore[arg-type]

    async def request(self, method: str, path: str, content: bytes = b"") -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="https://admission") as client:
            return await client.request(method, path, content=content)

    async def decision(self) -> dict[str, Any]:
        """What is answered to a deletion in a guarded namespace."""
        found: dict[str, Any] = json.loads((await self.request("POST", "/validate", deletion())).content)["response"]
        return found


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(watches, "time", found)
    return found


@pytest.fixture
async def replica(time: Time) -> AsyncIterator[Replica]:
    kube = FakeKube()
    await kube.create(object_path("", "v1", "namespaces"), {"metadata": {"name": "prod", "labels": {"env": "prod"}}})
    await kube.create(own_path("stepuppolicies"), policy())
    key = Signer().signing_key()
    await kube.create(own_path("signingkeys"), key)
    found = Replica(kube)
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def say(_: Any) -> None:
        return

    life = asyncio.create_task(found.app({"type": "lifespan", "asgi": {}}, told.get, say))  # type: ignore[arg-type]
    await told.put({"type": "lifespan.startup"})
    await until(lambda: len(kube._watchers) == len(WATCHES))
    yield found
    await told.put({"type": "lifespan.shutdown"})
    with suppress(asyncio.CancelledError):
        await life


async def test_it_is_ready_while_it_hears_now_and_then(replica: Replica, time: Time) -> None:
    time.now += STALL_SECONDS
    answer = await replica.request("GET", "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "waitingFor": []})


async def test_after_a_silence_longer_than_a_stall_it_is_not_and_says_what_it_lost(
    replica: Replica, time: Time
) -> None:
    time.now += STALL_SECONDS + watches.MAX_BACKOFF_SECONDS + 1
    answer = await replica.request("GET", "/readyz")
    assert answer.status_code == 503
    assert answer.json()["waitingFor"] == [f"{name}: nothing heard for 106 s" for name in WATCHES]
    assert (await replica.request("GET", "/livez")).status_code == 200, "a restart would lose what it knows"


async def test_it_goes_on_deciding_with_what_it_knows(replica: Replica, time: Time) -> None:
    before = await replica.decision()
    time.now += 24 * 3600
    after = await replica.decision()
    assert not before["allowed"]
    assert (after["allowed"], after["status"]["reason"]) == (before["allowed"], before["status"]["reason"])


async def test_it_is_ready_again_when_all_is_heard_of(replica: Replica, time: Time) -> None:
    time.now += 1000
    for path, queue in replica.kube._watchers:
        queue.put_nowait({"type": "BOOKMARK", "object": {"kind": path, "metadata": {"resourceVersion": "9999"}}})
    await until(lambda: all(queue.empty() for _, queue in replica.kube._watchers))
    await asyncio.sleep(0)
    assert (await replica.request("GET", "/readyz")).status_code == 200


async def test_one_that_is_still_silent_is_enough(replica: Replica, time: Time) -> None:
    time.now += 1000
    for path, queue in replica.kube._watchers[1:]:
        queue.put_nowait({"type": "BOOKMARK", "object": {"kind": path, "metadata": {"resourceVersion": "9999"}}})
    await until(lambda: all(queue.empty() for _, queue in replica.kube._watchers))
    await asyncio.sleep(0)
    answer = await replica.request("GET", "/readyz")
    assert (answer.status_code, len(answer.json()["waitingFor"])) == (503, 1)
