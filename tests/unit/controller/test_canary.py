"""Canaries and counts: what the leader sees of the API server and of admission, and what it says then."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.builders import policy
from tests.fakes.kube import FakeKube
from tests.unit.controller.test_loops import connecting
from webhook.adapters.kube import own_path
from webhook.controller.canary import ATTEMPTS, CONNECTIONS, FAILED, NOT_YET_SEEN, Canary, CanaryError, Sighting
from webhook.controller.counts import Counts
from webhook.controller.coverage import Area, Coverage, coverage_of
from webhook.controller.observed import Observed
from webhook.controller.policy_status import Applied, verdicts
from webhook.controller.webhooks import configuration_of, render
from webhook.errors import StoreUnavailableError
from webhook.settings import ControllerSettings, Settings

POLICIES = own_path("stepuppolicies")
PROD = Coverage(Area(frozenset({"prod"})), Area(frozenset({"prod"})))
NAMESPACES = {"prod": {"env": "prod"}}
NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


class World:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.sightings: list[Sighting] = []
        self.observed = Observed(self.kube, lambda: None)  # type: ignore[arg-type]
        self.canary = Canary(connecting(self.kube), self.observed, self.sightings.append, pause_seconds=0)
        self.canary.wanted = "abc"

    async def policy(self) -> None:
        self.observed.put_policy(await self.kube.create(POLICIES, policy()))


@pytest.fixture
async def world() -> World:
    found = World()
    await found.policy()
    return found


async def test_canaries_go_as_dry_runs_over_several_connections(world: World) -> None:
    await world.canary.step()
    assert world.sightings == [Sighting("abc")]
    assert world.kube.dry_runs == [(f"{POLICIES}/production/status", "kube-stepup-canary-abc")] * CONNECTIONS


async def test_one_that_nobody_was_asked_about_is_not_seen(world: World) -> None:
    world.kube.canaries_come_back = False
    with pytest.raises(CanaryError):
        await world.canary.step()
    assert [one.reason for one in world.sightings] == [NOT_YET_SEEN]
    assert len(world.kube.dry_runs) == ATTEMPTS


async def test_one_that_is_refused_has_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("failed calling webhook")

    monkeypatch.setattr(world.kube, "warnings_of_dry_run", down)
    with pytest.raises(CanaryError):
        await world.canary.step()
    assert [one.reason for one in world.sightings] == [FAILED]


async def test_a_policy_that_is_gone_vouches_for_nothing(world: World) -> None:
    world.kube.objects.clear()
    with pytest.raises(CanaryError):
        await world.canary.step()
    assert [one.reason for one in world.sightings] == [NOT_YET_SEEN]


async def test_without_a_policy_or_a_configuration_there_is_nothing_to_see(world: World) -> None:
    world.canary.wanted = ""
    await world.canary.step()
    empty = World()
    await empty.canary.step()
    assert world.kube.dry_runs == empty.kube.dry_runs == []


def enforced(world: World, applied: Applied | None, doubt: Sighting | None) -> tuple[str, str]:
    (known,) = world.observed.objects.values()
    found = verdicts(known, applied, NAMESPACES, ControllerSettings(), doubt)[1]
    return found.status, found.reason


async def test_enforced_follows_what_canaries_saw(world: World) -> None:
    covered = coverage_of(world.observed.policies.values(), NAMESPACES, excluded_namespaces=(), max_namespaces=100)
    applied = Applied(covered, world.observed.generations(), "abc")
    assert enforced(world, None, None) == ("False", "Pending")
    assert enforced(world, None, Sighting("abc", NOT_YET_SEEN, "x")) == ("False", NOT_YET_SEEN)
    assert enforced(world, applied, None) == ("True", "Guarded")
    assert enforced(world, applied, Sighting("abc", NOT_YET_SEEN, "x")) == ("False", NOT_YET_SEEN)
    assert enforced(world, applied, Sighting("abc", FAILED, "x")) == ("False", FAILED)
    newer = Sighting("def", NOT_YET_SEEN, "x")
    assert enforced(world, applied, newer) == ("True", "Guarded"), "the one before covers it, too"


def test_a_configuration_is_named_by_what_is_in_it() -> None:
    settings = Settings(audience="test")
    first, again = (render(PROD, settings, "CA", "p" * 43) for _ in range(2))
    other = render(Coverage(), settings, "CA", "p" * 43)
    assert configuration_of(first) == configuration_of(again)
    assert configuration_of(first) != configuration_of(other)
    assert len(configuration_of(first)) == 16
    own = render(PROD, settings.model_copy(update={"controller": ControllerSettings(own_service_accounts=("a/b",))}), "CA", "p" * 43)  # fmt: skip
    (ours,) = [one["expression"] for one in own[0]["matchConditions"] if one["name"] == "not-our-own"]
    assert "kube-stepup-canary-" in ours, "our own writes are left out, but not our canaries"


class TestCounts:
    async def counts(self, world: World, **totals: Any) -> Counts:
        if totals:
            stored = {"metadata": {"name": "totals"}, "policies": [{"policy": "production", **totals}]}
            world.kube.objects.pop(own_path("stepupreports", "totals"), None)
            await world.kube.create(own_path("stepupreports"), stored)
        found = Counts(world.kube, ControllerSettings(), world.observed, lambda: None, now=lambda: NOW)  # type: ignore[arg-type]
        await found.step()
        return found

    async def test_nothing_counted_is_zero_since_now(self, world: World) -> None:
        (known,) = world.observed.objects.values()
        found = (await self.counts(world)).of(known)
        assert found == {"matched": 0, "refused": 0, "wouldRefuse": 0, "countedSince": "2026-03-31T12:00:00Z"}

    async def test_the_totals_are_told_and_the_first_start_stays(self, world: World) -> None:
        (known,) = world.observed.objects.values()
        known.status = {"countedSince": "2026-01-01T00:00:00Z", "matched": 1}
        counts = await self.counts(
            world,
            uid=known.uid,
            since="2026-02-02T00:00:00Z",
            matched=5,
            refused=3,
            lastRefusedAt="2026-03-01T00:00:00Z",
        )
        found = counts.of(known)
        assert (found["matched"], found["refused"], found["countedSince"]) == (5, 3, "2026-01-01T00:00:00Z")
        assert found["lastRefusedAt"] == "2026-03-01T00:00:00Z"

    async def test_totals_that_began_anew_say_since_when(self, world: World) -> None:
        (known,) = world.observed.objects.values()
        known.status = {"countedSince": "2026-01-01T00:00:00Z", "matched": 9, "refused": 9}
        counts = await self.counts(world, uid=known.uid, since="2026-03-03T00:00:00Z", matched=1)
        assert counts.of(known)["countedSince"] == "2026-03-03T00:00:00Z"

    async def test_those_of_an_earlier_policy_of_the_name_do_not_count(self, world: World) -> None:
        (known,) = world.observed.objects.values()
        counts = await self.counts(world, uid="another", since="2026-03-03T00:00:00Z", matched=7)
        assert counts.of(known)["matched"] == 0

    async def test_days_that_are_long_over_are_deleted_and_no_others(self, world: World) -> None:
        for name in ("day-2026-02-28", "day-2026-03-01", "day-2026-03-31", "totals"):
            await world.kube.create(own_path("stepupreports"), {"metadata": {"name": name}})
        await self.counts(world)
        left = sorted(path.rpartition("/")[2] for path in world.kube.objects if "stepupreports" in path)
        assert left == ["day-2026-03-01", "day-2026-03-31", "totals"]
