"""Loops, health checks, and the leader and controller that put them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.adapters.health import Health
from webhook.controller import loops
from webhook.controller.leader import Leader
from webhook.controller.loops import Loop
from webhook.controller.server import Controller
from webhook.errors import StoreUnavailableError
from webhook.settings import ControllerSettings, Settings

pytestmark = pytest.mark.anyio
POLICIES = "/apis/kube-stepup.io/v1alpha1/stepuppolicies"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/kube-stepup"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Steps:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.taken = 0

    async def __call__(self) -> None:
        self.taken += 1
        if self.errors:
            raise self.errors.pop(0)


async def test_a_step_is_taken_at_once_and_at_its_interval() -> None:
    steps = Steps()
    task = asyncio.create_task(Loop("x", steps, 0.02).run())
    await until(lambda: steps.taken >= 3)
    await stop(task)


async def test_a_loop_that_is_woken_takes_one_step_for_a_burst_of_changes() -> None:
    steps = Steps()
    loop = Loop("x", steps, 60)
    task = asyncio.create_task(loop.run())
    await until(lambda: steps.taken == 1)
    for _ in range(10):
        loop.wake()
        await asyncio.sleep(0)
    await until(lambda: steps.taken == 2)
    await asyncio.sleep(3 * loops.SETTLE_SECONDS)
    assert steps.taken == 2
    await stop(task)


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), ValueError("a mistake")])
async def test_a_step_that_fails_is_taken_again_soon(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "RETRY_SECONDS", 0.01)
    steps = Steps(error)
    task = asyncio.create_task(Loop("x", steps, 60).run())
    await until(lambda: steps.taken == 2)
    await stop(task)


async def test_a_loop_is_stuck_when_a_step_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever() -> None:
        await asyncio.Event().wait()

    loop = Loop("x", for_ever, 1)
    assert not loop.stuck
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(0.01)
    assert not loop.stuck
    start = time.monotonic()
    monkeypatch.setattr(loops.time, "monotonic", lambda: start + 121)
    assert loop.stuck
    await stop(task)
    assert not loop.stuck


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        (b"GET /livez HTTP/1.1\r\n", b"200 OK", b"ok"),
        (b"GET /livez?verbose HTTP/1.1\r\n", b"200 OK", b"ok"),
        (b"HEAD /livez HTTP/1.1\r\n", b"200 OK", b""),
        (b"GET /readyz HTTP/1.1\r\n", b"503 Service Unavailable", b"not yet"),
        (b"GET /other HTTP/1.1\r\n", b"404 Not Found", b"not found"),
        (b"POST /livez HTTP/1.1\r\n", b"404 Not Found", b"not found"),
        (b"nonsense\r\n", b"404 Not Found", b"not found"),
    ],
)
def test_health_answers(line: bytes, status: bytes, body: bytes) -> None:
    answer = Health({"/livez": lambda: "", "/readyz": lambda: "not yet"})._response(line)
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert text == body


def connecting(kube: FakeKube) -> Callable[[], Awaitable[Any]]:
    async def connect() -> FakeKube:
        return kube

    return connect


def settings() -> Settings:
    return Settings(audience="test", controller=ControllerSettings(sync_seconds=1, expiry_interval_seconds=1))


async def new_policy(kube: FakeKube) -> None:
    spec = {"match": {"namespaces": ["prod"]}, "rules": [{"name": "r", "operations": ["delete"]}]}
    await kube.create(POLICIES, {"metadata": {"name": "p"}, "spec": spec})


def entries(kube: FakeKube) -> list[str]:
    return [one["name"] for one in kube.objects.get(CONFIGURATION, {}).get("webhooks") or []]


async def test_a_leader_brings_everything_about_from_an_empty_cluster() -> None:
    kube = FakeKube()
    await kube.create("/api/v1/namespaces", {"metadata": {"name": "prod"}})
    task = asyncio.create_task(Leader(kube, settings(), connecting(kube)).run())  # type: ignore[arg-type]
    await until(lambda: entries(kube) == ["watchful.kube-stepup.io"])
    await new_policy(kube)
    await until(lambda: entries(kube) == ["guarded.kube-stepup.io", "watchful.kube-stepup.io"])

    def enforced() -> bool:
        conditions = (kube.objects[f"{POLICIES}/p"].get("status") or {}).get("conditions") or []
        return {one["type"]: one["status"] for one in conditions} == {"Accepted": "True", "Enforced": "True"}

    await until(enforced)
    await kube.delete(f"{POLICIES}/p")
    await stop(task)


async def test_a_configuration_that_is_managed_elsewhere_is_not_touched() -> None:
    kube = FakeKube()
    chosen = settings().model_copy(update={"controller": ControllerSettings(manage_webhook_configuration=False)})
    task = asyncio.create_task(Leader(kube, chosen).run())  # type: ignore[arg-type]
    await until(lambda: any("secrets" in path for path in kube.objects))
    await new_policy(kube)
    await until(lambda: "status" in kube.objects[f"{POLICIES}/p"])
    assert CONFIGURATION not in kube.objects
    await stop(task)


async def test_a_controller_works_until_it_is_told_to_stop_and_is_ready_while_the_api_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kube, told = FakeKube(), asyncio.Event()
    controller = Controller(kube, settings())  # type: ignore[arg-type]
    assert controller._not_ready() == "the Kubernetes API does not answer"
    task = asyncio.create_task(controller.run(told))
    await until(lambda: bool(entries(kube)))
    assert (controller._not_ready(), controller._not_live()) == ("", "")
    start = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: start + 61)
        assert controller._not_ready() == "the Kubernetes API does not answer"
    told.set()
    await task
    assert controller._leader is None


async def test_a_leader_that_hangs_is_not_live() -> None:
    controller = Controller(FakeKube(), settings())  # type: ignore[arg-type]
    controller._leader = Leader(FakeKube(), settings())  # type: ignore[arg-type]
    assert controller._not_live() == ""
    controller._leader.loops[0]._tried_at = time.monotonic() - 1000
    assert controller._not_live() == "stuck: path-secret"
