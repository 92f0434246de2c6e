"""The conditions of a policy: what they say, and when they are written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.controller.coverage import Area, Coverage
from webhook.controller.observed import Observed
from webhook.controller.policy_status import Applied, PolicyStatus
from webhook.settings import ControllerSettings

pytestmark = pytest.mark.anyio
COLLECTION = "/apis/kube-stepup.io/v1alpha1/stepuppolicies"
STORED = f"{COLLECTION}/p"
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
PROD = Coverage(Area(frozenset({"prod"})), Area(frozenset({"prod"})))
EVERYWHERE = Coverage(Area(every_namespace=True, cluster_scoped=True), Area(every_namespace=True, cluster_scoped=True))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World:
    def __init__(self, **options: Any) -> None:
        self.kube = FakeKube()
        self.now = NOW
        self.observed = Observed(self.kube, lambda: None)  # type: ignore[arg-type]
        for watch in self.observed.watches:
            watch._synced.set()
        self.observed.put_namespace("prod", {"env": "prod"})
        self.status = PolicyStatus(
            self.kube,  # type: ignore[arg-type]
            ControllerSettings(**options),
            self.observed,
            now=lambda: self.now,
        )

    async def policy(self, match: dict[str, Any] | None = None, **spec: Any) -> None:
        rules = [{"name": "r", "operations": ["exec"]}]
        body = {
            "apiVersion": "kube-stepup.io/v1alpha1",
            "kind": "StepUpPolicy",
            "metadata": {"name": "p"},
            "spec": {"match": {"namespaces": ["prod"]} if match is None else match, "rules": rules, **spec},
        }
        if STORED in self.kube.objects:
            stored = self.kube.objects[STORED]
            body["metadata"] = stored["metadata"]
            await self.kube.replace(STORED, {**body, "status": stored.get("status")})
        else:
            await self.kube.create(COLLECTION, body)
        self.see()

    def see(self) -> None:
        """What the watch would bring."""
        self.observed.put_policy(self.kube.objects[STORED])

    def applied(self, coverage: Coverage) -> None:
        self.status.applied = Applied(coverage, self.observed.generations())

    def conditions(self) -> dict[str, dict[str, Any]]:
        return {one["type"]: one for one in self.kube.objects[STORED]["status"]["conditions"]}

    def told(self) -> dict[str, tuple[str, str]]:
        return {name: (one["status"], one["reason"]) for name, one in self.conditions().items()}

    def writes(self) -> int:
        return sum(method == "PATCH" for method, _ in self.kube.calls)


async def test_a_good_policy_is_accepted_at_once_and_enforced_when_the_configuration_has_it() -> None:
    world = World()
    await world.policy()
    await world.status.step()
    assert world.told() == {"Accepted": ("True", "Valid"), "Enforced": ("False", "Pending")}

    world.applied(PROD)
    await world.status.step()
    assert world.told() == {"Accepted": ("True", "Valid"), "Enforced": ("True", "Guarded")}
    assert world.conditions()["Enforced"]["message"] == "Guarded: prod."
    assert world.kube.objects[STORED]["status"]["observedGeneration"] == 1


async def test_what_is_said_already_is_not_written_again() -> None:
    world = World()
    await world.policy()
    world.applied(PROD)
    await world.status.step()
    await world.status.step()
    world.see()
    await world.status.step()
    assert world.writes() == 1


async def test_a_new_generation_is_not_enforced_until_it_is_applied() -> None:
    world = World()
    await world.policy()
    world.applied(PROD)
    await world.status.step()
    await world.policy({"namespaces": ["prod", "staging"]})
    await world.status.step()
    assert world.told()["Enforced"] == ("False", "Pending")
    assert world.conditions()["Enforced"]["observedGeneration"] == 2


async def test_a_namespace_that_is_not_guarded_yet_makes_it_pending() -> None:
    world = World()
    await world.policy({"namespaces": ["prod", "new"]})
    world.applied(PROD)
    world.observed.put_namespace("new", {})
    await world.status.step()
    assert world.told()["Enforced"] == ("False", "Pending")


async def test_a_policy_that_cannot_be_read_says_why_and_that_the_one_before_stays() -> None:
    world = World()
    await world.policy()
    world.applied(PROD)
    await world.policy(enforcement="Nonsense")
    await world.status.step()
    accepted = world.conditions()["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert accepted["message"].startswith("spec.enforcement: must be one of Deny, Warn, Audit")
    assert accepted["message"].endswith("The generation before it stays in force.")
    assert world.told()["Enforced"] == ("False", "NotAccepted")
    assert world.observed.policies["p"].enforcement == "Deny"


async def test_a_policy_that_never_could_be_read_is_not_in_force() -> None:
    world = World()
    await world.policy(enforcement="Nonsense")
    await world.status.step()
    assert "stays in force" not in world.conditions()["Accepted"]["message"]
    assert world.observed.policies == {}


async def test_a_policy_made_anew_under_the_same_name_does_not_inherit_what_was_in_force() -> None:
    world = World()
    await world.policy()
    await world.kube.delete(STORED)
    await world.policy(enforcement="Nonsense")
    assert world.observed.policies == {}


@pytest.mark.parametrize(
    ("match", "coverage", "message"),
    [
        ({}, EVERYWHERE, "Guarded: all namespaces and cluster-scoped objects."),
        ({"namespaces": ["x"]}, Coverage(), "Guarded: no namespace fits at present."),
    ],
)
async def test_the_message_says_what_is_guarded(match: dict[str, Any], coverage: Coverage, message: str) -> None:
    world = World()
    await world.policy(match)
    world.applied(coverage)
    await world.status.step()
    assert world.conditions()["Enforced"]["message"] == message


async def test_the_message_names_a_few_of_many_namespaces() -> None:
    world = World()
    await world.policy({"namespaces": ["n*"]})
    for number in range(8):
        world.observed.put_namespace(f"n{number}", {})
    world.applied(EVERYWHERE)
    await world.status.step()
    assert world.conditions()["Enforced"]["message"] == "Guarded: n0, n1, n2, n3, n4 and 3 more namespaces."


@pytest.mark.parametrize("match", [{}, {"namespaces": ["kube-system", "prod"]}])
async def test_the_message_names_excluded_namespaces(match: dict[str, Any]) -> None:
    world = World()
    world.observed.put_namespace("kube-system", {})
    await world.policy(match)
    world.applied(EVERYWHERE)
    await world.status.step()
    assert world.conditions()["Enforced"]["message"].endswith(
        "Not guarded in an outage of kube-stepup (excluded): kube-system."
    )


@pytest.mark.parametrize("enforcement", ["Warn", "Audit"])
async def test_a_policy_that_never_refuses_is_observed(enforcement: str) -> None:
    world = World()
    await world.policy(enforcement=enforcement)
    world.applied(Coverage(Area(), PROD.matched))
    await world.status.step()
    assert world.told()["Enforced"] == ("True", "Observed")


async def test_a_configuration_that_is_managed_elsewhere_is_not_judged() -> None:
    world = World(manage_webhook_configuration=False)
    await world.policy()
    await world.status.step()
    assert world.told()["Enforced"] == ("Unknown", "NotManaged")


async def test_a_transition_time_changes_with_the_status_alone() -> None:
    world = World()
    await world.policy()
    await world.status.step()
    world.now = NOW.replace(hour=13)
    world.applied(PROD)
    await world.status.step()
    times = {name: one["lastTransitionTime"] for name, one in world.conditions().items()}
    assert times == {"Accepted": "2026-01-01T12:00:00Z", "Enforced": "2026-01-01T13:00:00Z"}


async def test_conditions_of_others_are_kept() -> None:
    world = World()
    await world.policy()
    world.kube.objects[STORED]["status"] = {"conditions": [{"type": "Reviewed", "status": "True"}]}
    world.see()
    await world.status.step()
    assert "Reviewed" in world.conditions()


async def test_a_policy_that_changed_or_went_meanwhile_is_left_to_the_watch() -> None:
    world = World()
    await world.policy()
    world.kube.objects[STORED]["metadata"]["resourceVersion"] = "999"
    await world.status.step()
    world.see()
    await world.kube.delete(STORED)
    await world.status.step()
    assert world.kube.objects == {}


async def test_nothing_is_said_before_everything_has_been_listed() -> None:
    world = World()
    await world.policy()
    world.observed.watches[1]._synced.clear()
    await world.status.step()
    assert world.writes() == 0


async def test_a_deleted_policy_is_forgotten() -> None:
    world = World()
    await world.policy()
    world.observed.remove_policy("p")
    await world.status.step()
    assert world.writes() == 0
