"""`examples/policies`: every suite passes offline, and a real API server gives the very same answers to the same requests.

The requests are typed by the real kubectl, as the users that the suites name. What needs time to pass (old proof, proof that
was used) is left to the offline run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.controlplane import Finished
from tests.controlplane.cluster import ADMIN
from tests.controlplane.process import ControlPlaneError
from tests.deployment import Deployment
from tests.people import Person
from webhook.cli.suites.document import Case, Proof
from webhook.cli.suites.review import request_of
from webhook.cli.suites.typed import Typed
from webhook.cli.suites.verdict import SuiteRun, detail_of, outcome_of, proven
from webhook.cli.suites.world import Kind, kind_of
from webhook.core.applicable import subject_of
from webhook.core.classify import classify
from webhook.core.decision import Decision, Question
from webhook.core.identity import service_account_username

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "policies").glob("*/suite.yaml"))
BUILT_IN = ("apps", "batch", "policy", "autoscaling", "")
QUIET = {"out-of-scope", "not-required"}
SETTLE_SECONDS = 10.0
STREAMS = ("exec", "attach", "port-forward")
MORE = {"delete": ["--wait=false"], "label": ["--overwrite"], "annotate": ["--overwrite"], "patch": ["--type=merge"]}


def can_be_replayed(proof: Proof | None) -> bool:
    """Whether a person can have this proof now: a code just given, not used yet."""
    return proof is None or msgspec.structs.replace(proof, scope="Object", operations=(), reason="") == Proof()


class Stage:
    """An example on the API server: its namespaces, users, objects and policies.

    The only change: the administrator who sets it up is exempt, so that it can be taken down again.
    """

    def __init__(self, deployment: Deployment, run: SuiteRun) -> None:
        self.deployment = deployment
        self.cluster = deployment.cluster
        self.run = run
        self._people: dict[str, Person] = {}
        self._tokens: dict[str, Path] = {}

    def set_up(self) -> None:
        for kind, one in self._kinds().items():
            self.cluster.apply(yaml.safe_dump(definition(kind, one)))
            name = f"crd/{kind.resource}.{kind.group}"
            self.cluster.kubectl("wait", "--for=condition=Established", name, user=ADMIN, check=True)
        for name, entry in self.run.suite.namespaces.items():
            metadata = {"name": name, "labels": entry.labels, "annotations": entry.annotations}
            self.cluster.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
            self.cluster.kubectl("wait", "--for=create", "sa/default", "-n", name, user=ADMIN, check=True)
        self.cluster.apply(yaml.safe_dump_all([*self.run.objects, *self._rights()]))
        for namespace in {one["metadata"]["namespace"] for one in self.run.objects if one["kind"] == "Pod"}:
            arguments = ("--for=condition=Ready", "pod", "--all", "-n", namespace)
            self.cluster.kubectl("wait", *arguments, user=ADMIN, check=True)
        for policy in self._policies():
            self.deployment.apply_policy(policy)

    def take_down(self) -> None:
        for policy in self._policies():
            name = policy["metadata"]["name"]
            self.cluster.kubectl("delete", "stepuppolicies.kube-stepup.io", name, user=ADMIN, check=True)
        made = [case.object for case in self.run.suite.cases if case.object is not None]
        text = yaml.safe_dump_all([*self.run.objects, *made, *self._rights()])
        self.cluster.kubectl("delete", "-f", "-", "--ignore-not-found", user=ADMIN, stdin=text)

    def answer(self, case: Case, decision: Decision) -> tuple[str, list[dict[str, Any]]]:
        """The outcome of the real request, and the audit lines about it."""
        person = self.person(case.user)
        if case.proof is not None:
            self._prove(case, person)
        before = len(self._lines(person))
        finished = self._send(case, person)
        refused = "needs a step-up" in finished.stderr
        # kubectl's exit code tells nothing of a stream, nor of a node that could not be cordoned.
        assert case.do.startswith((*STREAMS, "cordon")) or (finished.returncode != 0) == refused, finished.stderr
        lines = self._lines(person)[before:]
        deadline = time.monotonic() + SETTLE_SECONDS
        while not lines and decision.code not in QUIET and time.monotonic() < deadline:
            time.sleep(0.05)
            lines = self._lines(person)[before:]
        if refused:
            return "refuse", lines
        warned = "Warning: kube-stepup" in finished.stderr
        return ("warn" if warned and decision.code != "break-glass" else "allow"), lines

    def person(self, name: str) -> Person:
        if name not in self._people:
            entry = self.run.suite.users[name]
            account = entry.service_account
            username = entry.username or (service_account_username(account) if account else name)
            self._people[name] = Person(self.deployment, username, entry.groups)
            if account:
                self._tokens[name] = self._kubeconfig(account)
        return self._people[name]

    def _send(self, case: Case, person: Person) -> Finished:
        extra = ("--kubeconfig", str(self._tokens[case.user])) if case.user in self._tokens else ()
        if not case.do:
            verb = "delete" if case.object is None else "create" if case.old_object is None else "replace"
            return person.kubectl(verb, "-f", "-", *extra, stdin=json.dumps(case.object or case.old_object))
        typed = Typed(case.do, "")
        flags = [f"--{name}={value}" for name, value in typed.flags.items()]
        pod = f"/api/v1/namespaces/{typed.flags.get('namespace')}/pods/{typed.words[-1].rpartition('/')[2]}"
        if typed.words[0] == "evict":
            metadata = {"name": typed.words[-1], "namespace": typed.flags["namespace"]}
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
            return person.kubectl("create", "--raw", f"{pod}/eviction", "-f", "-", *extra, stdin=json.dumps(body))
        if typed.words[0] == "port-forward":
            pod = pod.rpartition("/")[0] + f"/{typed.words[1].rpartition('/')[2]}"
            return person.kubectl("create", "--raw", f"{pod}/portforward", "-f", "/dev/null", *extra)
        command = ["--", *typed.command] if typed.command else []
        return person.kubectl(*typed.words, *flags, *MORE.get(typed.words[0], []), *extra, *command)

    def _prove(self, case: Case, person: Person) -> None:
        """Step up as the case says; who asks with a reason that a policy does not take is told so, and has no proof."""
        assert case.proof is not None
        if not person.secret:
            person.enrol()
        request = request_of(case, self.run.world, self.run.file, "")
        question = Question(request.user_info, classify(request), subject_of(request))
        candidates, problems = proven(case.proof, request.user_info, self.run.world.index, 0)(question)
        details = [msgspec.to_builtins(detail_of(action, case.proof.scope)) for action in question.actions]
        for detail in details:
            detail.pop("type")
            detail["objects"] = [{"name": one["name"]} for one in detail.get("objects", ())]
        given = True
        try:
            person.prove(*details, reason=case.proof.reason)
        except ControlPlaneError:
            given = False
        assert given == bool(candidates), problems

    def _lines(self, person: Person) -> list[dict[str, Any]]:
        return self.deployment.audit(lambda line: line["event"] == "decision" and line["user"] == person.name)

    def _kinds(self) -> dict[Kind, dict[str, Any]]:
        return {
            kind_of(one): one
            for one in self.run.objects
            if (kind_of(one).group not in BUILT_IN and not kind_of(one).group.endswith(".k8s.io"))
            or kind_of(one).group.startswith("cluster.x-k8s.io")
        }  # fmt: skip

    def _rights(self) -> list[dict[str, Any]]:
        """Everybody may do everything, so that what is refused was not refused by RBAC; accounts are made."""
        subjects, accounts = [], []
        for name, entry in self.run.suite.users.items():
            namespace, _, account = entry.service_account.partition("/")
            if account:
                subjects.append({"kind": "ServiceAccount", "name": account, "namespace": namespace})
                metadata = {"name": account, "namespace": namespace}
                accounts.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
            else:
                group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User"}
                subjects.append({**group, "name": entry.username or name})
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"example-{self.run.name}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": subjects,
        }
        return [*accounts, binding]

    def _policies(self) -> list[dict[str, Any]]:
        found = [one for file in self.run.policy_files for one in yaml.safe_load_all(file.read_text())]
        for one in found:
            exempt = one["spec"].setdefault("match", {}).setdefault("exempt", {})
            exempt["users"] = [*exempt.get("users", ()), ADMIN]
        return found

    def _kubeconfig(self, account: str) -> Path:
        namespace, _, name = account.partition("/")
        token = self.cluster.kubectl("create", "token", name, "-n", namespace, user=ADMIN, check=True).stdout.strip()
        found = yaml.safe_load(self.cluster.admin_kubeconfig.read_text())
        found["users"] = [{"name": found["users"][0]["name"], "user": {"token": token}}]
        path = self.deployment.folder / f"{namespace}-{name}.kubeconfig"
        path.write_text(yaml.safe_dump(found))
        path.chmod(0o600)
        return path


def definition(kind: Kind, one: dict[str, Any]) -> dict[str, Any]:
    """A CustomResourceDefinition that takes anything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": one["apiVersion"].rpartition("/")[2],
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": kind.resource, "singular": one["kind"].lower(), "kind": one["kind"]}
    metadata: dict[str, Any] = {"name": f"{kind.resource}.{kind.group}"}
    if kind.group.endswith("k8s.io"):
        metadata["annotations"] = {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/78458"}
    scope = "Namespaced" if kind.namespaced else "Cluster"
    spec = {"group": kind.group, "scope": scope, "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }


@pytest.fixture(scope="module")
def alone(deployment: Deployment) -> Iterator[Deployment]:
    """The deployment without the policies of the other tests."""
    kind = "stepuppolicies.kube-stepup.io"
    found = json.loads(deployment.cluster.kubectl("get", kind, "-o", "json", user=ADMIN, check=True).stdout)["items"]
    before = [{**one, "metadata": {"name": one["metadata"]["name"]}} for one in found]
    names = [one["metadata"]["name"] for one in before]
    deployment.cluster.kubectl("delete", kind, *names, user=ADMIN, check=True)
    yield deployment
    namespaces = {name for suite in EXAMPLES for name in SuiteRun(suite).suite.namespaces} - {"kube-system"}
    arguments = (*sorted(namespaces), "--ignore-not-found", "--wait=false")
    deployment.cluster.kubectl("delete", "ns", *arguments, user=ADMIN)
    for one in before:
        deployment.apply_policy({key: value for key, value in one.items() if key != "status"})


@pytest.mark.parametrize("suite", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_api_server_answers_as_the_offline_run_does(suite: Path, alone: Deployment) -> None:
    run = SuiteRun(suite)
    assert [one for one in run.verdicts() if not one.passed] == []
    stage = Stage(alone, run)
    stage.set_up()
    try:
        cases = [case for case in run.suite.cases if can_be_replayed(case.proof)]
        # What one proof opens must not be open to the cases after it.
        for case in sorted(cases, key=lambda one: (one.proof is not None, one.expect.outcome != "refuse")):
            expected = run.decide(case, "", time.time())
            outcome, lines = stage.answer(case, expected)
            shown = f"{run.name}: {case.name}: {lines}"
            assert outcome == outcome_of(expected), shown
            check_lines(lines, expected, shown, proven=case.proof is not None)
    finally:
        stage.take_down()


def check_lines(lines: list[dict[str, Any]], expected: Decision, shown: str, *, proven: bool) -> None:
    """What admission wrote of the request is what the offline run says of it."""
    if expected.code in QUIET:
        assert lines == [], shown
        return
    assert lines, shown
    challenge = expected.challenge
    for line in lines:
        # Without a proof to judge, since none was given, the server has nothing to say about it.
        assert line["code"] == expected.code or (proven and line["code"] == "step-up-required"), shown
        assert line["operations"] == sorted({action.operation for action in expected.actions}), shown
        assert line["policies"] == list(expected.applicable.policies), shown
        assert line["requirement"] == (challenge.to_dict() if challenge else None), shown


def test_all_examples_are_here() -> None:
    assert {path.parent.name for path in EXAMPLES} == {
        "production", "databases", "clusters", "restarts", "shells", "deployments", "permissions", "nodes",
    }  # fmt: skip
