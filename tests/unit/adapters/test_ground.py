"""Whether our API group is ours: what is believed of lists, watches and deletions, and when again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.kube import DEFINITIONS, FakeKube
from webhook.adapters.ground import API_SERVICE, SETTLE_SECONDS, Ground
from webhook.adapters.health import Health
from webhook.adapters.kube import AnswerError, own_path
from webhook.adapters.metrics import Metrics, counter, gauges
from webhook.adapters.watches import Watched
from webhook.errors import StoreUnavailableError

POLICIES = own_path("stepuppolicies")
DEFINITION = f"{DEFINITIONS}/stepuppolicies.kube-stepup.io"
OLD = {"metadata": {"name": "p", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"}}


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ground(kube: FakeKube, clock: Clock) -> Ground:
    return Ground(kube, ("stepuppolicies",), monotonic=clock)  # type: ignore[arg-type]


def taken_over() -> dict[str, Any]:
    return {"metadata": {"name": "v1alpha1.kube-stepup.io"}, "spec": {"service": {"namespace": "x", "name": "y"}}}


class TestLook:
    async def test_all_is_well_from_the_first_look(self, ground: Ground) -> None:
        assert await ground.look()
        assert ground.problem == ""

    @pytest.mark.parametrize(
        ("path", "stored", "said"),
        [
            (API_SERVICE, taken_over(), "the API group kube-stepup.io is served by x/y"),
            (DEFINITION, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "is being deleted"),
        ],
    )
    async def test_what_is_wrong_is_told_and_believed_again_only_after_a_moment(
        self, kube: FakeKube, ground: Ground, clock: Clock, path: str, stored: dict[str, Any], said: str
    ) -> None:
        kube.objects[path] = stored
        assert not await ground.look()
        assert said in ground.problem
        del kube.objects[path]
        assert not await ground.look(), "the API server may still route by the old one"
        assert ground.problem == ""
        clock.seconds += SETTLE_SECONDS
        assert await ground.look()

    async def test_a_definition_that_is_gone_is_no_ground(self, kube: FakeKube, clock: Clock) -> None:
        ground = Ground(kube, ("nonsense",), monotonic=clock)  # type: ignore[arg-type]
        assert not await ground.look()
        assert "nonsense.kube-stepup.io is gone" in ground.problem


class TestDeletions:
    async def test_one_is_believed_when_the_object_is_gone(self, ground: Ground) -> None:
        assert await ground.confirms(POLICIES, OLD)

    async def test_and_when_another_has_its_name(self, kube: FakeKube, ground: Ground) -> None:
        await kube.create(POLICIES, {"metadata": {"name": "p"}})
        assert await ground.confirms(POLICIES, OLD)

    async def test_not_while_the_object_is_there(self, kube: FakeKube, ground: Ground) -> None:
        stored = await kube.create(POLICIES, {"metadata": {"name": "p"}})
        assert not await ground.confirms(POLICIES, stored)

    async def test_not_when_the_definition_is_younger_than_the_object(self, kube: FakeKube, ground: Ground) -> None:
        kube.objects[DEFINITION] = {"metadata": {"creationTimestamp": "2026-02-01T00:00:00Z"}}
        assert not await ground.confirms(POLICIES, OLD)

    async def test_not_while_somebody_else_answers(self, kube: FakeKube, ground: Ground) -> None:
        kube.objects[API_SERVICE] = taken_over()
        assert not await ground.confirms(POLICIES, OLD)

    @pytest.mark.parametrize("created", ["yesterday", "2026-01-01"])
    async def test_not_when_its_age_cannot_be_told(self, kube: FakeKube, ground: Ground, created: str) -> None:
        kube.objects[DEFINITION] = {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}}
        assert not await ground.confirms(POLICIES, {"metadata": {**OLD["metadata"], "creationTimestamp": created}})

    async def test_not_without_the_right_to_look_and_an_outage_is_asked_again(
        self, ground: Ground, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse(path: str) -> None:
            raise AnswerError(status, "no", "GET", path)

        monkeypatch.setattr(ground._kube, "get", refuse)
        status = 403
        assert not await ground.confirms(POLICIES, OLD)
        status = 500
        with pytest.raises(StoreUnavailableError):
            await ground.confirms(POLICIES, OLD)


class TestWatch:
    class Sink:
        def __init__(self) -> None:
            self.objects: set[str] = set()

        def put(self, obj: dict[str, Any]) -> None:
            self.objects.add(obj["metadata"]["name"])

        def remove(self, name: str) -> None:
            self.objects.discard(name)

    async def test_nothing_is_taken_in_from_a_stranger(self, kube: FakeKube, ground: Ground) -> None:
        sink = self.Sink()
        watched = Watched(kube, POLICIES, sink, retain=True, ground=ground)  # type: ignore[arg-type]
        kube.objects[API_SERVICE] = taken_over()
        await kube.create(POLICIES, {"metadata": {"name": "theirs"}})
        with pytest.raises(StoreUnavailableError):
            await watched._list()
        assert not watched.synced
        assert sink.objects == set()

    async def test_a_deletion_that_is_not_confirmed_leaves_it_in_force_until_it_is_there_again(
        self, kube: FakeKube, ground: Ground
    ) -> None:
        sink, told = self.Sink(), []
        await kube.create(POLICIES, {"metadata": {"name": "p"}})
        watched = Watched(
            kube, POLICIES, sink, retain=True, ground=ground, on_vanished=lambda _, names: told.append(names)
        )  # type: ignore[arg-type]
        await watched._list()

        async def see(kind: str) -> None:
            line = json.dumps({"type": kind, "object": kube.objects[f"{POLICIES}/p"]})
            await watched._take(watched._decoder.decode(line))

        kube.objects[DEFINITION] = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
        await see("DELETED")
        assert (sink.objects, told[-1]) == ({"p"}, ["p"])
        assert watched._watch_seconds() == 5
        assert watched._watch_seconds() == 10, "what vanished is looked for again, ever more rarely"
        await see("MODIFIED")
        assert told[-1] == []
        assert watched._watch_seconds() == 480


def test_a_page_is_made_of_plain_numbers() -> None:
    metrics = Metrics(lambda: [counter("drift", "Drift.", 3)])
    metrics.add(lambda: [gauges("policies", "Policies.", "state", {"in-force": 2})])
    page = metrics.page()
    assert "drift_total 3.0" in page
    assert 'policies{state="in-force"} 2.0' in page
    answer = Health({}, {"/metrics": metrics.page})._response(b"GET /metrics HTTP/1.1\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"drift_total" in answer
