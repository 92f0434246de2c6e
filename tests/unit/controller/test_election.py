"""One leader at a time, however replicas come and go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.controller.election import Election
from webhook.errors import StoreUnavailableError

pytestmark = pytest.mark.anyio
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-stepup/leases/kube-stepup-controller"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    """Runs as fast as the test wants; sleeping stays real and short."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Replica:
    def __init__(self, kube: FakeKube, identity: str, clock: Clock) -> None:
        self.started = 0
        self.works = False
        self.election = Election(
            kube,  # type: ignore[arg-type]
            namespace="kube-stepup",
            name="kube-stepup-controller",
            identity=identity,
            retry_seconds=0.01,
            renew_deadline_seconds=10.0,
            monotonic=clock,
        )
        self.task = asyncio.create_task(self.election.run(self._lead))

    async def _lead(self) -> None:
        self.started += 1
        self.works = True
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def settle() -> None:
    await asyncio.sleep(0.1)


def holder(kube: FakeKube) -> str:
    return str(kube.objects[LEASE]["spec"]["holderIdentity"])


async def test_the_first_leads_and_the_second_waits() -> None:
    kube, clock = FakeKube(), Clock()
    one = Replica(kube, "one", clock)
    await settle()
    other = Replica(kube, "other", clock)
    await settle()
    assert (one.works, other.works) == (True, False)
    assert (one.election.leads, other.election.leads) == (True, False)
    assert holder(kube) == "one"
    await one.stop()
    await other.stop()


async def test_a_leader_that_stops_gives_the_lease_up_and_another_need_not_wait() -> None:
    kube, clock = FakeKube(), Clock()
    one = Replica(kube, "one", clock)
    await settle()
    other = Replica(kube, "other", clock)
    await one.stop()
    assert not one.works
    await settle()
    assert other.works
    assert kube.objects[LEASE]["spec"]["leaseTransitions"] == 2
    await other.stop()
    assert holder(kube) == ""


async def test_two_that_start_together_do_not_both_lead() -> None:
    kube, clock = FakeKube(), Clock()
    replicas = [Replica(kube, f"r{number}", clock) for number in range(5)]
    await settle()
    assert sum(one.works for one in replicas) == 1
    for one in replicas:
        await one.stop()


async def lease_of_another(kube: FakeKube) -> None:
    spec = {"holderIdentity": "another", "leaseDurationSeconds": 15, "leaseTransitions": 7}
    await kube.create(LEASE.rsplit("/", 1)[0], {"metadata": {"name": "kube-stepup-controller"}, "spec": spec})


async def test_a_lease_is_taken_only_when_its_holder_was_silent_for_all_of_it() -> None:
    kube, clock = FakeKube(), Clock()
    await lease_of_another(kube)
    one = Replica(kube, "one", clock)
    await settle()
    clock.seconds += 14
    await settle()
    assert not one.works
    clock.seconds += 1
    await settle()
    assert one.works
    assert kube.objects[LEASE]["spec"]["leaseTransitions"] == 8
    await one.stop()


async def test_a_holder_that_renews_keeps_the_lease() -> None:
    kube, clock = FakeKube(), Clock()
    await lease_of_another(kube)
    one = Replica(kube, "one", clock)
    for _ in range(3):
        await settle()
        clock.seconds += 10
        await kube.replace(LEASE, kube.objects[LEASE])
    await settle()
    assert not one.works
    await one.stop()


class Broken(FakeKube):
    """An API server that can be cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    async def get(self, path: str, **options: Any) -> dict[str, Any] | None:
        if self.cut:
            raise StoreUnavailableError("the Kubernetes API cannot be reached")
        return await super().get(path, **options)


async def test_a_leader_that_cannot_renew_stops_working_before_others_may_start() -> None:
    kube, clock = Broken(), Clock()
    one = Replica(kube, "one", clock)
    await settle()
    kube.cut = True
    clock.seconds += 9
    await settle()
    assert one.works
    clock.seconds += 1
    await settle()
    assert not one.works
    assert not one.election.leads
    kube.cut = False
    await settle()
    assert one.works
    assert one.started == 2
    await one.stop()


async def test_a_short_interruption_does_not_end_the_term() -> None:
    kube, clock = Broken(), Clock()
    one = Replica(kube, "one", clock)
    await settle()
    kube.cut = True
    await settle()
    kube.cut = False
    clock.seconds += 9
    await settle()
    assert one.started == 1
    await one.stop()


async def test_a_lease_that_somebody_took_is_not_taken_back() -> None:
    kube, clock = FakeKube(), Clock()
    one = Replica(kube, "one", clock)
    await settle()
    stored = kube.objects[LEASE]
    await kube.replace(LEASE, {**stored, "spec": {**stored["spec"], "holderIdentity": "another"}})
    clock.seconds += 10
    await settle()
    assert not one.works
    await one.stop()
    assert holder(kube) == "another"


async def test_work_that_fails_ends_the_election_and_gives_the_lease_up() -> None:
    kube = FakeKube()

    async def fail() -> None:
        raise ValueError("broken")

    election = Election(kube, namespace="kube-stepup", name="kube-stepup-controller", identity="one")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="broken"):
        await election.run(fail)
    assert holder(kube) == ""


async def test_work_that_ends_by_itself_is_a_fault() -> None:
    async def nothing() -> None:
        return

    kube = FakeKube()
    election = Election(kube, namespace="kube-stepup", name="kube-stepup-controller", identity="one")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="must not end"):
        await election.run(nothing)
