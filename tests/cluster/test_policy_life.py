"""A policy's life on a real API server: enforced once a canary has seen it, counted, reported, and said when all is not well."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.builders import policy
from tests.cluster.sites import workload
from tests.controlplane import ControlPlane, Programs
from tests.controlplane.cluster import ADMIN
from tests.deployment import Deployment
from tests.people import Person

REFUSED = "needs a step-up"
CONFIGURATION = ("validatingwebhookconfiguration", "kube-stepup")
QUICK = {
    "admission": {"reportSeconds": 1, "leaderCheckSeconds": 1, "leaderSilentSeconds": 6},
    "controller": {"canarySeconds": 1, "countsSeconds": 1},
}
SECONDS = 40.0


def eventually(condition: Callable[[], bool], what: str = "it did not happen in time") -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def life(programs: Programs) -> Iterator[Deployment]:
    with ControlPlane(programs) as cluster, Deployment(cluster, overrides=QUICK) as deployment:
        for name, env in (("prod", "prod"), ("dev", "dev")):
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"env": env}}}
            cluster.apply(yaml.safe_dump(namespace) + "---\n" + workload(name))
        deployment.apply_policy(policy(match={"namespaceSelector": {"matchLabels": {"env": "prod"}}}))
        yield deployment


@pytest.fixture(autouse=True)
def everything_runs_again(life: Deployment) -> Iterator[None]:
    yield
    life.start(*life.programs)
    life.wait_ready()


def stored(life: Deployment, name: str = "production") -> dict[str, Any]:
    text = life.cluster.kubectl("get", "sup", name, "-o", "json", user=ADMIN, check=True).stdout
    found: dict[str, Any] = json.loads(text).get("status") or {}
    return found


def enforced(life: Deployment, name: str = "production") -> tuple[str, str]:
    conditions = {one["type"]: one for one in stored(life, name).get("conditions") or []}
    found = conditions.get("Enforced") or {"status": "", "reason": ""}
    return found["status"], found["reason"]


def apply(life: Deployment, manifest: dict[str, Any], *arguments: str) -> Any:
    return life.cluster.kubectl("apply", "-f", "-", *arguments, user=ADMIN, stdin=yaml.safe_dump(manifest))


def refuse(life: Deployment, who: str, times: int) -> None:
    for _ in range(times):
        assert REFUSED in Person(life, who).kubectl("delete", "deploy/web", "-n", "prod").stderr


class TestEnforced:
    def test_it_is_not_said_before_a_canary_has_come_back(self, life: Deployment) -> None:
        life.kill("admission-0", "admission-1")
        eventually(lambda: enforced(life) == ("False", "CanaryFailed"))
        life.start("admission-0", "admission-1")
        eventually(lambda: enforced(life) == ("True", "Guarded"))

    def test_a_canary_is_a_dry_run_that_its_name_tells_in_the_audit_log(self, life: Deployment) -> None:
        def canary(event: dict[str, Any]) -> bool:
            return "fieldManager=kube-stepup-canary-" in event["requestURI"]

        eventually(lambda: bool(life.cluster.audit_events(canary)))
        assert all("dryRun=All" in event["requestURI"] for event in life.cluster.audit_events(canary))
        assert not life.audit(lambda line: "canary" in json.dumps(line)), "it is no decision"

    def test_a_stranger_who_writes_one_gains_nothing(self, life: Deployment) -> None:
        manager = "--field-manager=kube-stepup-canary-0000000000000000"
        refused = Person(life, "mallory").kubectl("delete", "deploy/web", "-n", "prod", "--dry-run=server")
        assert REFUSED in refused.stderr
        labelled = Person(life, "mallory").kubectl("label", "namespace", "prod", "env-", manager)
        assert REFUSED in labelled.stderr

    def test_drift_is_put_back_said_and_counted(self, life: Deployment) -> None:
        drift = "kube_stepup_webhook_configuration_drift_total"
        before = life.metrics("controller")[drift]
        life.cluster.kubectl("delete", *CONFIGURATION, user=ADMIN, check=True)
        eventually(lambda: life.metrics("controller")[drift] == before + 1)
        eventually(lambda: len(life.webhooks()) == 2)
        eventually(lambda: enforced(life) == ("True", "Guarded"))
        assert '"code":"configuration-drift"' in life.logs()


class TestCounts:
    def test_what_a_policy_refused_is_in_its_status_and_never_goes_back(self, life: Deployment) -> None:
        before = stored(life).get("refused", 0)
        refuse(life, "carol", 3)
        eventually(lambda: stored(life).get("refused", 0) >= before + 3)
        assert stored(life)["matched"] >= stored(life)["refused"]
        assert stored(life)["countedSince"] <= stored(life)["lastRefusedAt"]
        life.kill("admission-0", "admission-1", "controller")
        life.start("admission-0", "admission-1", "controller")
        life.wait_ready()
        assert stored(life)["refused"] >= before + 3
        refuse(life, "carol", 2)
        eventually(lambda: stored(life)["refused"] >= before + 5)
        shown = life.cluster.kubectl("get", "sup", "production", user=ADMIN, check=True).stdout
        assert shown.splitlines()[0].split()[4:6] == ["MATCHED", "REFUSED"]

    def test_the_report_names_who_how_often_and_by_which_rule(self, life: Deployment) -> None:
        rules = [{"name": "shrink", "operations": ["scale"]}]
        match = {"namespaces": ["dev"]}
        apply(life, policy("trial", enforcement="Audit", match=match, rules=rules)).checked()
        eventually(lambda: enforced(life, "trial") == ("True", "Observed"))
        refuse(life, "dave", 2)
        for replicas in (3, 4):
            Person(life, "dave").kubectl("scale", "deploy/web", "-n", "dev", f"--replicas={replicas}", check=True)

        def lines(*arguments: str) -> list[dict[str, Any]]:
            command = [sys.executable, "-m", "webhook.cli.stepup", "policy", "report", "-o", "json", *arguments]
            return list(
                json.loads(Person(life, "operator", ("system:masters",)).run(command, check=True).stdout)["lines"]
            )

        def told(*arguments: str) -> dict[tuple[str, ...], int]:
            found = lines("--user", "dave", *arguments)
            return {(one["policy"], one["rule"], one["operation"], one["outcome"]): one["count"] for one in found}

        expected = {
            ("production", "everything", "delete", "refused"): 2,
            ("trial", "shrink", "scale", "would-refuse"): 2,
        }
        eventually(lambda: told() == expected, f"{told()}")
        log = life.folder / "all.log"
        log.write_text(life.logs())
        assert told("--audit-log", str(log)) == expected
        assert all(one["first"] <= one["last"] for one in lines())
        assert told("--policy", "other") == {}


class TestAtApply:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"rules": [{"name": "r", "operations": ["destroy"]}]}, "spec.rules[0].operations[0]"),
            ({"surprise": True}, "surprise"),
            (
                {"rules": [{"name": "r", "operations": ["delete"], "conditions": [{"expression": "object."}]}]},
                "spec.rules[0].conditions[0]",
            ),
        ],
    )
    def test_what_cannot_work_is_refused_and_the_field_is_named(
        self, life: Deployment, changes: dict[str, Any], said: str
    ) -> None:
        refused = apply(life, policy("wrong", **changes))
        assert refused.returncode != 0
        assert said in refused.stderr

    @pytest.mark.parametrize(
        ("match", "code"),
        [
            ({"namespaceSelector": {"matchLabels": {"env": "prdo"}}}, "no-such-namespace"),
            ({}, "matches-everything"),
            ({"namespaces": ["dev"], "exempt": {"groups": ["system:authenticated"]}}, "swallows-everybody"),
        ],
    )
    def test_what_is_hardly_meant_is_a_warning(self, life: Deployment, match: dict[str, Any], code: str) -> None:
        answer = apply(life, policy("odd", match=match), "--dry-run=server")
        assert answer.returncode == 0, answer.stderr
        assert f"[{code}]" in answer.stderr
        assert "Warning: StepUpPolicy odd: " in answer.stderr

    def test_what_is_well_meant_passes_without_a_word(self, life: Deployment) -> None:
        answer = apply(life, policy("good"), "--dry-run=server")
        assert (answer.returncode, answer.stderr) == (0, "")


class TestNobodyLeads:
    def test_it_is_in_the_log_the_metrics_a_condition_and_a_warning_until_somebody_does(self, life: Deployment) -> None:
        def working() -> str:
            path = '-o=jsonpath={.conditions[?(@.type=="ControllerWorking")].status}'
            return life.cluster.kubectl("get", "stepupreports", "totals", path, user=ADMIN).stdout

        eventually(lambda: working() == "True")
        assert life.metrics("controller")["kube_stepup_leader"] == 1
        life.kill("controller")
        eventually(lambda: life.metrics("admission-0")["kube_stepup_leader_missing"] == 1)
        eventually(lambda: life.metrics("admission-1")["kube_stepup_leader_missing"] == 1)
        eventually(lambda: working() == "False")
        assert '"code":"no-leader"' in life.logs()
        assert "[no-leader]" in apply(life, policy("unled"), "--dry-run=server").stderr
        life.start("controller")
        eventually(lambda: life.metrics("admission-0")["kube_stepup_leader_missing"] == 0)
        eventually(lambda: working() == "True")


def test_every_server_tells_its_numbers(life: Deployment) -> None:
    for name in ("admission-0", "admission-1", "elevation"):
        found = life.metrics(name)
        assert found['kube_stepup_policies{state="in-force"}'] >= 1
        assert found["kube_stepup_api_group_sound"] == 1
        assert found['kube_stepup_watch_silent_seconds{watch="policies"}'] < 90
    controller = life.metrics("controller")
    assert controller['kube_stepup_policies{state="enforced"}'] >= 1
    assert controller["kube_stepup_canary_seen"] == 1
