"""Hold, over HTTP's answer: who is told to try again, and how often."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.builders import CREDENTIAL, Signer, deletion, detail, policy, review
from tests.fakes.kube import FakeKube
from tests.unit.admission.test_service import Replica
from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.kube import own_path
from webhook.admission.holds import MAX_PER_MINUTE
from webhook.core.policy import Policy


def waiting(phase: str = "AwaitingApproval", **changes: Any) -> dict[str, Any]:
    """A request of alice's that is not granted yet."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 5))
    spec = {"user": {"username": "alice"}, "credentialID": CREDENTIAL, "details": [detail()], **changes}
    return {
        "metadata": {"name": "elv-b", "creationTimestamp": created, "labels": {USER_LABEL: user_hash("alice")}},
        "spec": spec,
        "status": {"phase": phase} if phase else {},
    }


@pytest.fixture
def replica() -> Replica:
    found = Replica(FakeKube(), Signer())
    found.state.index.put_policy(Policy.parse(policy(require={"hold": "5m"})))
    return found


async def held(replica: Replica, body: bytes | None = None) -> bool:
    status = (await replica.ask(body or deletion()))["status"]
    assert status["code"] in {403, 429}
    assert ("retryAfterSeconds" in status["details"]) == (status["code"] == 429)
    return bool(status["code"] == 429)


@pytest.mark.parametrize("phase", ["", "Pending", "AwaitingApproval", "Approved"])
async def test_while_its_step_up_is_under_way(replica: Replica, phase: str) -> None:
    await replica.kube.create(own_path("elevations"), waiting(phase))
    answer = await replica.ask(deletion())
    status = answer["status"]
    assert (status["code"], status["reason"]) == (429, "TooManyRequests")
    assert 1 <= status["details"]["retryAfterSeconds"] <= 10
    assert "your request elv-b" in status["message"]
    assert answer["auditAnnotations"]["code"] == "held"


@pytest.mark.parametrize("phase", ["Denied", "Revoked", "Expired", "Used"])
async def test_not_when_it_has_ended(replica: Replica, phase: str) -> None:
    await replica.kube.create(own_path("elevations"), waiting(phase))
    assert not await held(replica)


async def test_not_once_it_was_withdrawn(replica: Replica) -> None:
    await replica.kube.create(own_path("elevations"), waiting())
    assert await held(replica)
    replica.state.elevations.put({**waiting("Revoked")})
    replica.kube.objects[f"{own_path('elevations')}/elv-b"]["status"]["phase"] = "Revoked"
    assert not await held(replica)


async def test_streams_are_not_held(replica: Replica) -> None:
    exec_detail = {**detail("exec"), "group": "", "resource": "pods", "objects": [{"name": "web-1"}]}
    await replica.kube.create(own_path("elevations"), waiting(details=[exec_detail]))
    body = review("CONNECT", kind="Pod", name="web-1", sub_resource="exec", new={"command": ["ls"]}, old=None)
    assert not await held(replica, body)


async def test_a_person_is_held_sixty_times_a_minute_and_then_refused(replica: Replica) -> None:
    await replica.kube.create(own_path("elevations"), waiting())
    answers = [await held(replica) for _ in range(MAX_PER_MINUTE + 5)]
    assert answers == [True] * MAX_PER_MINUTE + [False] * 5


async def test_what_is_pending_is_bounded_for_each_person(replica: Replica) -> None:
    for number in range(100):
        one = json.loads(json.dumps(waiting()))
        one["metadata"]["name"] = f"elv-{number}"
        replica.state.elevations.put(one)
    assert len(replica.state.elevations.pending) == 64
    for number in range(100):
        replica.state.elevations.remove(f"elv-{number}")
    assert len(replica.state.elevations.pending) == 0
