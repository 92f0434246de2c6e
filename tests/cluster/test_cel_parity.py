"""The API server's own engine and ours, asked the same: every case as a ValidatingAdmissionPolicy on a real kube-apiserver.

A policy that only warns tells about all its expressions at once: what is false and what fails comes back as a warning each.
The requests are dry runs, and our side is given the objects that the API server answers with.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.cel_cases import CASES, CHANGES, CONFIG, NAMESPACE, OLD, REFUSED, VARIABLES, Answer, Case
from tests.controlplane import ADMIN, ControlPlane
from webhook.core.cel import Activation, Condition, Conditions, Facts, NamespaceFacts
from webhook.core.request import AdmissionRequest, decode
from webhook.errors import PolicyError

LABEL: Final = "kube-stepup.io/parity"
GROUP_SIZE: Final = 20
READY: Final = "ready"
NOTE: Final = {"example.com/note": "hello"}
RESOURCES: Final = {"update": ("apps", "deployments"), "create": ("", "configmaps"), "delete": ("", "configmaps")}
KINDS: Final = {"deployments": "Deployment", "configmaps": "ConfigMap"}
OPTIONS: Final = {"update": "UpdateOptions", "create": "CreateOptions", "delete": "DeleteOptions"}

DIFFERENCES: Final[dict[str, tuple[Answer, str]]] = {
    "quantity('1') == quantity('0.1n').add(quantity('1'))": (
        "error",
        "Kubernetes cannot compare with == what add() and sub() give; use compareTo()",
    ),
}
"""Expressions that still differ: the API server's answer, and why."""

LAXER: Final[dict[str, str]] = {
    "'%d'.format([1, 2]) == '1'": "what a format takes is checked when it is evaluated, not before",
    "'%d'.format(['a']) == 'a'": "the same; it fails then, and the rule applies",
}
"""Expressions that Kubernetes refuses and kube-stepup takes, with the reason."""

STRICTER: Final[dict[str, str]] = {
    "object.metadata.labels.all(k, v, k != v)": "comprehensions with two variables: the engine's parser has none",
    "object.metadata.labels.transformList(k, v, v).size() > 0": "comprehensions with two variables",
    "[2, 1].sortBy(x, x) == [1, 2]": "a macro that the engine's parser does not have",
    "authorizer.group('').resource('pods').check('get').allowed()": "would need a request to the API server",
    "google.protobuf.Timestamp{seconds: 1} == timestamp(1)": "messages cannot be had",
    "{true: 1}[true] == 1": "booleans as keys of maps",
    "has(variables.replicas)": "a variable is always there; the engine would lose it",
    "namespaceObject.status.phase == 'Active'": "of a namespace only its name, labels and annotations are watched",
}
"""Expressions that Kubernetes takes and kube-stepup refuses, or fails to evaluate, with the reason (docs/policy.md)."""


def groups() -> list[tuple[str, list[Case]]]:
    """The cases in groups that one request tells about, by name."""
    found = []
    for on in ("update", "create", "delete"):
        cases = [case for case in CASES if case.on == on]
        parts = itertools.batched(cases, GROUP_SIZE) if hasattr(itertools, "batched") else _batched(cases)
        found += [(f"{on}-{number}", list(part)) for number, part in enumerate(parts)]
    return found


def _batched(cases: list[Case]) -> Iterator[list[Case]]:
    for start in range(0, len(cases), GROUP_SIZE):
        yield cases[start : start + GROUP_SIZE]


def vap(name: str, on: str, expressions: list[str]) -> list[dict[str, Any]]:
    """A policy that warns ``N.`` for each expression that is false, and its binding."""
    group, resource = RESOURCES[on]
    validations = [{"expression": one, "message": f"no {number}."} for number, one in enumerate(expressions)]
    validations.append({"expression": "1 == 2", "message": READY})
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": [on.upper()]}
    matches = {
        "resourceRules": [rule],
        "objectSelector": {"matchLabels": {LABEL: name}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
    }
    variables = [{"name": one, "expression": expression} for one, expression in VARIABLES] if on == "update" else []
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": matches,
        "variables": variables,
        "validations": validations,
    }
    api = "admissionregistration.k8s.io/v1"
    binding = {"policyName": f"p-{name}", "validationActions": ["Warn"]}
    return [
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": f"p-{name}"}, "spec": spec},
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": f"p-{name}"},
            "spec": binding,
        },
    ]


def listed(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


class Server:
    """The control plane, with the policies and the objects in it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def ask(self, name: str) -> tuple[str, dict[str, Any] | None, dict[str, Any] | None]:
        """The warnings about a group, and the old and new object of the request."""
        on = name.partition("-")[0]
        label = {"metadata": {"labels": {LABEL: name}}}
        if on == "update":
            patch = json.dumps({**CHANGES, "metadata": {"labels": {**CHANGES["metadata"]["labels"], LABEL: name}}})
            arguments: tuple[str, ...] = ("patch", "deployment", "web", "--type=merge", "-p", patch, "-o", "json")
            old = self.get("deployment", "web")
        elif on == "create":
            arguments = ("create", "-f", "-", "-o", "json")
            old = None
        else:
            arguments = ("delete", "configmap", f"settings-{name}", "-o", "name")
            old = self.get("configmap", f"settings-{name}")
        config = copy.deepcopy(CONFIG)
        config["metadata"]["labels"].update(label["metadata"]["labels"])
        done = self.plane.kubectl(
            *arguments, "-n", NAMESPACE, "--dry-run=server", user=ADMIN, stdin=json.dumps(config), check=True
        )
        new = None if on == "delete" else json.loads(done.stdout)
        return done.stderr, old, new

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found = self.plane.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json", user=ADMIN, check=True)
        return dict(json.loads(found.stdout))


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[Server]:
    namespace = {"name": NAMESPACE, "labels": {"env": "prod"}, "annotations": NOTE}
    objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": namespace}, OLD]
    for name, _ in groups():
        if name.startswith("delete"):
            config = copy.deepcopy(CONFIG)
            config["metadata"].update(name=f"settings-{name}", labels={"app": "web", LABEL: name})
            objects.append(config)
    control_plane.apply(listed(objects))
    policies = [
        obj for name, cases in groups() for obj in vap(name, cases[0].on, [adapted(one, name) for one in cases])
    ]
    control_plane.apply(listed(policies))
    yield Server(control_plane)
    control_plane.kubectl("delete", "-f", "-", "--wait=false", user=ADMIN, stdin=listed(policies))
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false", user=ADMIN)


def adapted(case: Case, group: str) -> str:
    """The expression for objects whose name or labels tell the group."""
    expression = case.expression.replace("labels.size() == 4", "labels.size() == 5").replace(
        "map(k, k).size() == 4", "map(k, k).size() == 5"
    )
    expression = expression.replace(
        "object.metadata.labels.all(k, k.size() < 10)", "object.metadata.labels.all(k, k.size() < 30)"
    )
    return expression.replace("== 'settings'", f"== 'settings-{group}'") if group.startswith("delete") else expression


def answers(said: str, expressions: list[str]) -> list[Answer]:
    """What the warnings say of each expression."""
    found: list[Answer] = []
    for number, expression in enumerate(expressions):
        if f": no {number}." in said:
            found.append(False)
        else:
            # Long warnings are cut off, but not before the expression begins.
            found.append("error" if f"expression '{expression[:60]}" in said else True)
    return found


def our_request(on: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> AdmissionRequest:
    group, resource = RESOURCES[on]
    kind = {"group": group, "version": "v1", "kind": KINDS[resource]}
    gvr = {"group": group, "version": "v1", "resource": resource}
    fields = {
        "uid": "r",
        "kind": kind,
        "resource": gvr,
        "requestKind": kind,
        "requestResource": gvr,
        "name": ((new or old) or {})["metadata"]["name"],
        "namespace": NAMESPACE,
        "operation": on.upper(),
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "object": new,
        "oldObject": old,
        "dryRun": True,
        "options": {"kind": OPTIONS[on], "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]},
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": fields}
    return decode(json.dumps(review).encode())


def our_answer(expression: str, request: AdmissionRequest) -> Answer:
    facts = Facts(request, lambda name: NamespaceFacts(name, {"env": "prod"}, NOTE))
    variables = VARIABLES if "variables." in expression else ()
    answer = Conditions([expression], variables, "spec.rules[0]").hold(Activation(facts))
    return "error" if facts.failures else answer


@pytest.mark.parametrize("name", [name for name, _ in groups()])
def test_the_api_server_gives_the_same_answers(server: Server, name: str) -> None:
    cases = dict(groups())[name]
    expressions = [adapted(case, name) for case in cases]
    deadline = time.monotonic() + 30
    while True:
        said, old, new = server.ask(name)
        if READY in said or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    assert READY in said, "the policy does not come into force"
    theirs = dict(zip(expressions, answers(said, expressions), strict=True))
    request = our_request(cases[0].on, old, new)
    ours = {expression: our_answer(expression, request) for expression in expressions}
    differences = {one: theirs[one] for one in expressions if theirs[one] != ours[one]}
    known = {one: answer for one, (answer, _) in DIFFERENCES.items() if one in expressions}
    assert differences == known, said
    assert {one: ours[one] for one, case in zip(expressions, cases, strict=True) if ours[one] != case.answer} == {}


def test_the_api_server_refuses_and_takes_the_same_expressions(server: Server) -> None:
    expressions = [*REFUSED, *LAXER, *STRICTER]
    policies = [vap(f"taken-{number}", "update", [one])[0] for number, one in enumerate(expressions)]
    done = server.plane.kubectl("create", "--dry-run=server", "-f", "-", user=ADMIN, stdin=listed(policies))
    refused = {one for number, one in enumerate(expressions) if f'"p-taken-{number}" is invalid' in done.stderr}
    assert refused ^ {*REFUSED, *LAXER} == set(), done.stderr


@pytest.mark.parametrize("expression", STRICTER)
def test_what_cannot_be_had_is_refused_or_fails_and_so_applies(expression: str) -> None:
    facts = Facts(our_request("update", OLD, OLD), lambda name: NamespaceFacts(name, {}, {}))
    try:
        condition = Condition.compile(expression, "f")
    except PolicyError:
        return
    assert condition.holds(Activation(facts))
    assert facts.failures
