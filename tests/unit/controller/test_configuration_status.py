"""The condition of the StepUpConfiguration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.fakes.kube import FakeKube
from webhook.adapters.kube import own_path
from webhook.controller.configuration_status import ConfigurationStatus

STORED = own_path("stepupconfigurations", "default")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class World:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.woken = 0
        self.status = ConfigurationStatus(self.kube, self._wake, now=lambda: NOW)  # type: ignore[arg-type]

    def _wake(self) -> None:
        self.woken += 1

    async def store(self, name: str = "default", **spec: Any) -> None:
        body = {"metadata": {"name": name}, "spec": spec}
        self.status.put(await self.kube.create(own_path("stepupconfigurations"), body))

    def told(self) -> tuple[str, str, str]:
        (one,) = self.kube.objects[STORED]["status"]["conditions"]
        assert one["type"] == "Accepted"
        return one["status"], one["reason"], one["message"]

    def writes(self) -> int:
        return sum(method == "PATCH" for method, _ in self.kube.calls)


async def test_a_good_one_is_accepted_and_written_once() -> None:
    world = World()
    await world.store(deputies=[{"resource": "a/b"}])
    await world.status.step()
    await world.status.step()
    assert world.told()[:2] == ("True", "Valid")
    assert (world.writes(), world.woken) == (1, 1)


async def test_a_bad_one_is_not_and_the_field_is_named() -> None:
    world = World()
    await world.store(deputies=[{"resource": "a/b", "when": "nonsense("}])
    await world.status.step()
    status, reason, message = world.told()
    assert (status, reason) == ("False", "Invalid")
    assert "spec.deputies[0].when" in message


async def test_another_name_and_none_at_all_are_left_alone() -> None:
    world = World()
    await world.status.step()
    await world.store("other")
    await world.status.step()
    assert (world.writes(), world.woken) == (0, 0)


async def test_one_that_was_deleted_is_forgotten() -> None:
    world = World()
    await world.store()
    world.status.remove("default")
    await world.status.step()
    assert world.writes() == 0


async def test_one_that_goes_or_changes_meanwhile_is_no_error() -> None:
    world = World()
    await world.store()
    stored = dict(world.kube.objects[STORED])
    await world.kube.replace(STORED, {**stored, "spec": {"deadlyMetadata": []}})
    await world.status.step()
    assert "status" not in world.kube.objects[STORED]
    await world.kube.delete(STORED)
    await world.status.step()
