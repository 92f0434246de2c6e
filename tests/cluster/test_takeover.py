"""Somebody takes our API group, or its definitions, away: the last known policies stay in force, it is said, and it heals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.builders import policy
from tests.cluster.sites import workload
from tests.controlplane import ControlPlane, Programs
from tests.controlplane.cluster import ADMIN
from tests.deployment import CHART, Deployment
from tests.people import Person
from tests.stranger import Stranger

REFUSED = "needs a step-up"
CLOSED = "failed calling webhook"
SECONDS = 60.0
CRD = CHART / "files" / "crds" / "stepuppolicies.yaml"
# A watch without a word is opened again after 10 s, so that the stranger is soon asked.
QUICK = {"admission": {"watchStallSeconds": 10, "reportSeconds": 1}}
MATCH = {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "exempt": {"users": ["robot"]}}

DEFAULT = {"namespaces": ["default"], "exempt": {"users": ["robot"]}}


def eventually(condition: Callable[[], bool], told: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def taken(programs: Programs) -> Iterator[Deployment]:
    with ControlPlane(programs) as cluster, Deployment(cluster, overrides=QUICK) as deployment:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod", "labels": {"env": "prod"}}}
        cluster.apply(yaml.safe_dump(namespace) + "---\n" + workload("prod"))
        deployment.apply_policy(policy(match=MATCH))
        yield deployment


def refusal(taken: Deployment, who: str = "mallory") -> str:
    return Person(taken, who).kubectl("delete", "deploy/web", "-n", "prod").stderr


def admission(taken: Deployment, sample: str) -> list[float]:
    return [taken.metrics(f"admission-{number}")[sample] for number in (0, 1)]


def sound(taken: Deployment) -> bool:
    return admission(taken, "kube_stepup_api_group_sound") == [1, 1]


def is_seen(taken: Deployment, name: str) -> bool:
    """Whether a policy that is new is judged by."""
    told = Person(taken, "mallory").kubectl("delete", "deploy/web", "-n", "default", "--dry-run=server").stderr
    return REFUSED in told and name in told


def test_another_server_answers_for_our_api_group(taken: Deployment) -> None:
    taken.cluster.apply(workload("default"), user="robot")
    with Stranger(taken.cluster, (("stepuppolicies", "production"),)) as stranger:
        eventually(lambda: admission(taken, "kube_stepup_api_group_sound") == [0, 0], taken.logs)
        eventually(
            lambda: stranger.asked("stepuppolicies", watch=True) + stranger.asked("stepuppolicies", watch=False) >= 4
        )
        assert '"code":"api-group-unsound"' in taken.logs()
        for _ in range(6):
            assert REFUSED in refusal(taken), "the last known policy is in force on either replica"
        assert REFUSED in Person(taken, "mallory").kubectl("label", "namespace", "prod", "env-").stderr
        assert len(taken.webhooks()) == 2, "the guard is where it was"
    eventually(lambda: sound(taken))
    taken.cluster.apply(yaml.safe_dump(policy("healed", match=DEFAULT)), user="robot")
    eventually(lambda: is_seen(taken, "healed"), taken.logs)
    taken.cluster.kubectl("wait", "--for=condition=Enforced", "sup/healed", "--timeout=60s", user=ADMIN, check=True)
    assert REFUSED in refusal(taken)


def test_a_server_of_ours_that_starts_meanwhile_refuses_rather_than_believes(taken: Deployment) -> None:
    before = taken.webhooks()
    with Stranger(taken.cluster) as stranger:
        taken.kill("admission-0", "admission-1", "controller")
        asked = stranger.asked("stepuppolicies", watch=False)
        taken.start("admission-0", "controller")
        eventually(lambda: stranger.asked("stepuppolicies", watch=False) >= asked + 2)
        assert taken.webhooks() == before, "a controller that knows no policies takes no guard off"
        ready = taken.metrics("admission-0")['kube_stepup_policies{state="in-force"}']
        assert ready == 0
        assert not taken._http_ok(taken.admission_ports[0]), "it is not ready, so no Service sends it anything"
    taken.start("admission-1")
    taken.wait_ready()
    eventually(lambda: admission(taken, 'kube_stepup_policies{state="in-force"}') == [2, 2])
    assert REFUSED in refusal(taken)


def test_the_definition_of_policies_is_deleted(taken: Deployment, tmp_path: Path) -> None:
    kept = taken.cluster.kubectl("get", "sup", "production", "-o", "json", user=ADMIN, check=True).stdout
    taken.cluster.kubectl("delete", "crd", "stepuppolicies.kube-stepup.io", "--timeout=60s", user="robot", check=True)
    vanished = 'kube_stepup_policies{state="vanished"}'
    eventually(lambda: admission(taken, "kube_stepup_api_group_sound") == [0, 0], taken.logs)
    assert admission(taken, 'kube_stepup_policies{state="in-force"}') == [2, 2]
    assert '"code":"api-group-unsound"' in taken.logs()
    for _ in range(4):
        assert REFUSED in refusal(taken)
    assert len(taken.webhooks()) == 2
    taken.cluster.apply(CRD.read_text(), user="robot")
    taken.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", user=ADMIN, check=True)
    taken.cluster.apply(yaml.safe_dump(policy(match=MATCH)), user="robot")
    eventually(lambda: sound(taken))
    eventually(lambda: admission(taken, vanished) == [1, 1], taken.logs)
    assert '"code":"vanished-without-delete"' in taken.logs()
    assert REFUSED in refusal(taken)
    assert json.loads(kept)["metadata"]["name"] == "production"


def test_a_policy_that_is_deleted_as_it_should_be_leaves_at_once(taken: Deployment) -> None:
    taken.cluster.apply(yaml.safe_dump(policy("short", match=DEFAULT)), user="robot")
    eventually(lambda: is_seen(taken, "short"))
    taken.cluster.kubectl("delete", "sup", "short", user="robot", check=True)
    eventually(lambda: not is_seen(taken, "short"), taken.logs)
    eventually(lambda: not is_seen(taken, "short"), taken.logs)
    assert '"code":"vanished-without-delete","kept":true,"kind":"stepuppolicies","names":["short"' not in taken.logs()
