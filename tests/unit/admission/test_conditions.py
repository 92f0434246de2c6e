"""Rules with conditions, from the bytes of a review to the answer: asked, not asked, and loud when a condition fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.builders import AUDIENCE, ISSUER, deletion, deployment, policy, review
from tests.fakes.kube import FakeKube
from webhook.adapters.cluster_state import ClusterState, NamespaceSink, PolicySink
from webhook.admission.live import Live
from webhook.admission.service import Admission
from webhook.core.assertion import Expected
from webhook.core.identity import Controllers


def conditional(*expressions: str, **spec: Any) -> dict[str, Any]:
    rule = {
        "name": "r",
        "operations": ["scale", "delete"],
        "variables": [{"name": "before", "expression": "oldObject.spec.replicas"}],
        "conditions": [{"expression": one} for one in expressions],
    }
    return policy(rules=[rule], **spec)


async def ask(body: bytes, *policies: dict[str, Any]) -> dict[str, Any]:
    kube = FakeKube()
    state = ClusterState(kube)  # type: ignore[arg-type]
    metadata = {"name": "prod", "labels": {"env": "prod"}, "annotations": {"example.com/freeze": "yes"}}
    NamespaceSink(state.index).put({"metadata": metadata})
    sink = PolicySink(state.index)
    for one in policies:
        sink.put(one)
    assert not sink.problems
    live = Live(kube, state.elevations, read_seconds=1.0, write_seconds=2.0)  # type: ignore[arg-type]
    admission = Admission(state, live, Controllers((), ()), Expected(ISSUER, AUDIENCE))
    answer: dict[str, Any] = json.loads(await admission.review(body))["response"]
    return answer


def scaled(to: int) -> bytes:
    return review("UPDATE", old=deployment(replicas=3), new=deployment(replicas=to))


@pytest.mark.parametrize(("replicas", "allowed"), [(0, False), (2, True), (5, True)])
async def test_only_what_the_condition_is_about_is_asked(replicas: int, allowed: bool) -> None:
    answer = await ask(scaled(replicas), conditional("operation.replicasTo == 0 && variables.before > 0"))
    assert answer["allowed"] is allowed


async def test_the_namespace_can_be_read_with_its_annotations() -> None:
    frozen = "namespaceObject.metadata.?annotations['example.com/freeze'].orValue('no') == 'yes'"
    assert not (await ask(deletion(), conditional(frozen)))["allowed"]
    assert (await ask(deletion(), conditional(f"!({frozen})")))["allowed"]


async def test_a_condition_that_fails_asks_and_is_logged() -> None:
    with capture_logs() as lines:
        answer = await ask(deletion(), conditional("object.metadata.name == 'web'"))
    assert not answer["allowed"]
    (line,) = [line for line in lines if line["event"] == "condition-failed"]
    assert line["policy"] == "production"
    assert line["field"] == "spec.rules[0].conditions[0].expression"


async def test_a_policy_with_a_condition_that_cannot_be_used_is_refused_when_it_is_applied() -> None:
    body = json.loads(review("CREATE", namespace=None, name="production", new=conditional("request.verb == 'x'")))
    own = {"group": "kube-stepup.io", "version": "v1alpha1"}
    body["request"].update(resource={**own, "resource": "stepuppolicies"}, kind={**own, "kind": "StepUpPolicy"})
    answer = await ask(json.dumps(body).encode())
    assert not answer["allowed"]
    assert "spec.rules[0].conditions[0].expression: request has no verb" in answer["status"]["message"]
    (cause,) = answer["status"]["details"]["causes"]
    assert cause["field"] == "spec.rules[0].conditions[0].expression"
