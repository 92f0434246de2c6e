"""Counts reach the cluster off the hot path, add up over replicas, and are kept while they cannot be stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.builders import policy
from tests.fakes.kube import FakeKube
from tests.unit.core.test_report import demand, refused
from webhook.adapters.kube import own_path
from webhook.admission.leader_watch import LeaderWatch
from webhook.admission.reporting import Reporting
from webhook.core.applicable import PolicyIndex
from webhook.core.policy import Policy
from webhook.errors import StoreUnavailableError

NOON = 1_764_000_000.0
DAY = own_path("stepupreports", "day-2025-11-24")
TOTALS = own_path("stepupreports", "totals")
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-stepup/leases/kube-stepup-controller"
CONDITION = {"type": "ControllerWorking", "status": "True", "reason": "R", "message": "m"}


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def replica(kube: FakeKube) -> Reporting:
    index = PolicyIndex()
    index.put_policy(Policy.parse({**policy(), "metadata": {"name": "production", "uid": "u1"}}))
    return Reporting(kube, index, 0.01, clock=lambda: NOON)  # type: ignore[arg-type]


def refusals(kube: FakeKube) -> tuple[int, int]:
    """Of the totals, and of the day."""
    totals = sum(one["refused"] for one in kube.objects[TOTALS]["policies"])
    return totals, sum(one["count"] for one in kube.objects[DAY]["lines"])


async def test_replicas_that_store_at_the_same_time_lose_nothing(kube: FakeKube) -> None:
    replicas = [replica(kube) for _ in range(4)]
    for number, one in enumerate(replicas, 1):
        for _ in range(number):
            one.note(refused(demand()), f"user-{number}")
    await asyncio.gather(*(one.flush() for one in replicas))
    assert refusals(kube) == (10, 10)
    assert kube.objects[TOTALS]["policies"][0]["uid"] == "u1"


async def test_nothing_is_written_when_nothing_was_counted(kube: FakeKube) -> None:
    await replica(kube).flush()
    assert kube.calls == []


async def test_noting_writes_nothing(kube: FakeKube) -> None:
    one = replica(kube)
    one.note(refused(demand()), "alice")
    assert kube.calls == []
    assert one.outcomes == {"step-up-required": 1}


async def test_what_cannot_be_stored_is_kept(kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replica(kube)
    one.note(refused(demand()), "alice")

    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as patched:
        patched.setattr(kube, "get", down)
        await one.flush()
    one.note(refused(demand()), "alice")
    await one.flush()
    await one.flush()
    assert refusals(kube) == (2, 2), "and it is stored once"


async def test_a_condition_is_stored_with_the_time_of_its_change(kube: FakeKube) -> None:
    one = replica(kube)
    one.tell(CONDITION)
    await one.flush()
    (stored,) = kube.objects[TOTALS]["conditions"]
    assert stored == {**CONDITION, "lastTransitionTime": "2025-11-24T16:00:00Z"}
    writes = len([method for method, _ in kube.calls if method != "GET"])
    one._clock = lambda: NOON + 99
    await one.flush()
    assert len([method for method, _ in kube.calls if method != "GET"]) == writes, "it is said already"
    one.tell({**CONDITION, "status": "False"})
    await one.flush()
    assert kube.objects[TOTALS]["conditions"][0]["lastTransitionTime"] == "2025-11-24T16:01:39Z"


class TestLeader:
    class World:
        def __init__(self) -> None:
            self.kube = FakeKube()
            self.seconds = 0.0
            self.told: list[str] = []
            self.watch = LeaderWatch(
                self.kube,  # type: ignore[arg-type]
                LEASE,
                check_seconds=1,
                silent_seconds=60,
                tell=lambda condition: self.told.append(condition["status"]),
                monotonic=lambda: self.seconds,
            )

        async def look(self, holder: str, renewed: int, seconds: float) -> None:
            self.kube.objects[LEASE] = {"spec": {"holderIdentity": holder, "renewTime": f"t{renewed}"}}
            self.seconds += seconds
            await self.watch.step()

    async def test_one_that_renews_is_seen_and_one_look_is_not_enough(self) -> None:
        world = self.World()
        await world.look("a", 1, 1)
        assert (world.watch.missing, world.told) == (None, [])
        await world.look("a", 2, 1)
        await world.look("a", 3, 1)
        assert (world.watch.missing, world.told) == (False, ["True"])

    async def test_one_that_stops_is_missed_once_and_seen_again(self) -> None:
        world = self.World()
        await world.look("a", 1, 1)
        await world.look("a", 2, 1)
        await world.look("a", 2, 59)
        assert world.watch.missing is False
        await world.look("a", 2, 2)
        await world.look("a", 2, 2)
        assert (world.watch.missing, world.told) == (True, ["True", "False"])
        await world.look("b", 3, 1)
        assert (world.watch.missing, world.told) == (False, ["True", "False", "True"])

    @pytest.mark.parametrize("lease", [None, {"spec": {"holderIdentity": "", "renewTime": "t9"}}])
    async def test_no_lease_or_one_that_was_given_up_has_no_leader(self, lease: dict[str, Any] | None) -> None:
        world = self.World()
        if lease is not None:
            world.kube.objects[LEASE] = lease
        world.seconds = 61
        await world.watch.step()
        assert world.watch.missing is True

    async def test_an_api_server_that_does_not_answer_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = self.World()

        async def down(*_: Any, **__: Any) -> None:
            raise StoreUnavailableError("down")

        monkeypatch.setattr(world.kube, "get", down)
        world.seconds = 1000
        await world.watch.step()
        assert (world.watch.missing, world.told) == (None, [])
