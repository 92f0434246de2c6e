"""The CustomResourceDefinitions on a real API server: what they let through, and which field they blame for what they do not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane import ADMIN, ControlPlane
from webhook.core.configuration import Configuration
from webhook.core.operation import OPERATIONS
from webhook.core.policy import Policy
from webhook.errors import PolicyError

CRDS = Path(__file__).parents[2] / "charts" / "kube-stepup" / "files" / "crds"
TRUE = [{"expression": "true"}]
WORKLOADS = [
    {"issuer": "https://token.example.com", "audience": "prod", "conditions": [{"expression": "claims.ref == 'main'"}]},
    {"serviceAccounts": ["ci/deployer"]},
]
Object = dict[str, Any]
Edit = Callable[[Object], object]
POLICY: Object = {
    "apiVersion": "kube-stepup.io/v1alpha1",
    "kind": "StepUpPolicy",
    "metadata": {"name": "crd-test"},
    "spec": {
        "enforcement": "Warn",
        "match": {
            "namespaceSelector": {
                "matchLabels": {"env": "prod"},
                "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["gold"]},
                    {"key": "legacy", "operator": "DoesNotExist"},
                ],
            },
            "namespaces": ["payments-*", "shop"],
            "objectSelector": {"matchLabels": {"a": "b"}},
            "subjects": {"users": ["*@example.com"], "groups": ["devs"], "serviceAccounts": ["ci/*"]},
            "exempt": {"serviceAccounts": ["argocd/argocd-application-controller"]},
            "breakGlass": {"groups": ["incident-commanders"]},
        },
        "rules": [
            {"name": "destroy", "operations": ["delete"], "workloads": WORKLOADS},
            {
                "name": "release",
                "operations": ["deploy", "scale"],
                "resources": ["deployments", "apps/statefulsets", "core/pods", "batch/*", "*"],
                "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
                "conditions": [{"expression": "variables.replicas == 0"}, {"expression": "request.name != 'canary'"}],
                "require": {
                    "assurance": "aal3",
                    "maxAge": "1h30m",
                    "use": "Window",
                    "scope": "Namespace",
                    "bind": "User",
                    "reason": {"required": True, "pattern": "^OPS-[0-9]+"},
                },
            },
        ],
    },
}
ELEVATION: Object = {
    "apiVersion": "kube-stepup.io/v1alpha1",
    "kind": "Elevation",
    "metadata": {"name": "elv-" + "c" * 20},
    "spec": {
        "user": {"username": "alice", "groups": ["devs"]},
        "credentialID": "X509SHA256=ab",
        "details": [
            {
                "type": "urn:kube-stepup:operation",
                "operation": "delete",
                "group": "apps",
                "resource": "deployments",
                "namespace": "prod",
                "scope": "Object",
                "objects": [{"name": "web", "digest": "00ff"}],
            }
        ],
        "reason": "OPS-7",
        "workload": {
            "issuer": "https://i",
            "subject": "s",
            "met": ["p/r#0"],
            "claims": {"ref": "main"},
            "lifetimeSeconds": 9,
        },
    },
}
KEY: Object = {
    "apiVersion": "kube-stepup.io/v1alpha1",
    "kind": "SigningKey",
    "metadata": {"name": "es256-" + "0123456789" * 4},
    "spec": {
        "algorithm": "ES256",
        "notBefore": "2026-01-01T00:00:00Z",
        "publicKey": "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n",
    },
}


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    control_plane.apply("\n---\n".join(file.read_text() for file in sorted(CRDS.glob("*.yaml"))))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", user=ADMIN, check=True)
    return control_plane


def changed(base: Object, edit: Edit) -> Object:
    found = copy.deepcopy(base)
    edit(found)
    return found


def created(plane: ControlPlane, obj: Object) -> Object:
    arguments = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    return dict(json.loads(plane.kubectl(*arguments, user=ADMIN, stdin=json.dumps(obj), check=True).stdout))


def refusal(plane: ControlPlane, obj: Object) -> str:
    answer = plane.kubectl("create", "--dry-run=server", "-f", "-", user=ADMIN, stdin=json.dumps(obj))
    assert answer.returncode != 0, "it was let through"
    return answer.stderr


def require(obj: Object) -> Object:
    found: Object = obj["spec"]["rules"][1]["require"]
    return found


def expression(obj: Object, number: int) -> Object:
    found: Object = obj["spec"]["match"]["namespaceSelector"]["matchExpressions"][number]
    return found


@pytest.mark.parametrize("obj", [POLICY, ELEVATION, KEY], ids=lambda obj: obj["kind"])
def test_a_good_object_keeps_every_field(plane: ControlPlane, obj: Object) -> None:
    def kept(wanted: Any, found: Any) -> bool:
        if isinstance(wanted, dict):
            return all(kept(value, found.get(key)) for key, value in wanted.items())
        if isinstance(wanted, list):
            return len(wanted) == len(found) and all(map(kept, wanted, found))
        return bool(wanted == found)

    assert kept(obj, created(plane, obj))


def test_a_short_policy_gets_the_programs_defaults(plane: ControlPlane) -> None:
    short = {**POLICY, "spec": {"rules": [{"name": "r", "operations": ["delete"]}]}}
    found = created(plane, short)
    assert found["spec"] == {
        "enforcement": "Deny",
        "rules": [
            {
                "name": "r",
                "operations": ["delete"],
                "resources": ["*"],
                "require": {"assurance": "aal2", "maxAge": "5m", "use": "Once", "scope": "Object"},
            }
        ],
    }
    by_server, by_program = Policy.parse(found), Policy.parse(short)
    assert by_server.spec.rules == by_program.spec.rules
    assert by_server.enforcement == by_program.enforcement


def test_every_operation_that_the_program_knows_can_be_guarded_and_recorded(plane: ControlPlane) -> None:
    rules = [{"name": "all", "operations": list(OPERATIONS)}]
    assert created(plane, {**POLICY, "spec": {"rules": rules}})["spec"]["rules"][0]["operations"] == list(OPERATIONS)
    for operation in OPERATIONS:
        created(plane, changed(ELEVATION, lambda o, name=operation: o["spec"]["details"][0].update(operation=name)))


RAW = ("update:cnpg.io/clusters", "*:cnpg.io/*", "create:core/pods/*", "connect:core/pods/exec", "delete:*.io/c?")
BAD_RAW = ("update:clusters", "patch:cnpg.io/clusters", "update:a/b/c/d", "update:a/B", "update:a/b ", "delete:a/b,c")


def test_raw_operations_can_be_guarded_and_recorded_without_their_wildcards(plane: ControlPlane) -> None:
    found = created(plane, {**POLICY, "spec": {"rules": [{"name": "raw", "operations": list(RAW)}]}})
    assert [one.text for one in Policy.parse(found).rules[0].raw] == list(RAW)

    def record(operation: str) -> Object:
        return changed(ELEVATION, lambda o: o["spec"]["details"][0].update(operation=operation))

    created(plane, record("update:cnpg.io/clusters/status"))
    assert "spec.details[0].operation" in refusal(plane, record("update:cnpg.io/*"))


@pytest.mark.parametrize("text", BAD_RAW)
def test_the_program_refuses_the_same_raw_operations(text: str) -> None:
    with pytest.raises(PolicyError):
        Policy.parse({**POLICY, "spec": {"rules": [{"name": "raw", "operations": [text]}]}})


CONFIGURATION: Object = {
    "apiVersion": "kube-stepup.io/v1alpha1",
    "kind": "StepUpConfiguration",
    "metadata": {"name": "default"},
    "spec": {
        "deadlyMetadata": [{"key": "example.com/delete-*"}, {"key": "a", "class": "scale"}],
        "deputies": [
            {"resource": "argoproj.io/*"},
            {
                "resource": "core/secrets",
                "operation": "access",
                "verbs": ["delete"],
                "fields": ["type", "data.release"],
                "when": "object.type == 'x'",
            },
        ],
    },
}
BAD_CONFIGURATIONS: dict[str, tuple[Edit, str]] = {
    "another name": (lambda o: o["metadata"].update(name="other"), "metadata.name"),
    "key with a blank": (lambda o: o["spec"]["deadlyMetadata"][0].update(key="a b"), "spec.deadlyMetadata[0].key"),
    "class that guards": (lambda o: o["spec"]["deadlyMetadata"][0].update({"class": "guard"}), "spec.deadlyMetadata[0].class"),
    "resource without a group": (lambda o: o["spec"]["deputies"][0].update(resource="orders"), "spec.deputies[0].resource"),
    "operation that does not exist": (lambda o: o["spec"]["deputies"][0].update(operation="explode"), "spec.deputies[0].operation"),
    "verb that does not exist": (lambda o: o["spec"]["deputies"][0].update(verbs=["patch"]), "spec.deputies[0].verbs[0]"),
    "no verb": (lambda o: o["spec"]["deputies"][0].update(verbs=[]), "spec.deputies[0].verbs"),
    "path with an index": (lambda o: o["spec"]["deputies"][0].update(fields=["spec[0]"]), "spec.deputies[0].fields[0]"),
}  # fmt: skip


def test_a_configuration_means_the_same_to_the_program_once_it_is_stored(plane: ControlPlane) -> None:
    arguments = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-o", "json", "-f", "-")
    answer = plane.kubectl(*arguments, user=ADMIN, stdin=json.dumps(CONFIGURATION), check=True)
    found = json.loads(answer.stdout)
    assert Configuration.parse(found).spec == Configuration.parse(CONFIGURATION).spec


@pytest.mark.parametrize("case", BAD_CONFIGURATIONS)
def test_a_bad_configuration_is_refused_with_its_field_by_the_server_and_the_program(
    plane: ControlPlane, case: str
) -> None:
    edit, field = BAD_CONFIGURATIONS[case]
    bad = changed(CONFIGURATION, edit)
    assert field in refusal(plane, bad)
    with pytest.raises(PolicyError) as error:
        Configuration.parse(bad)
    assert error.value.field == field


BAD_POLICIES: dict[str, tuple[Edit, str, str]] = {
    "name of a variable": (
        lambda o: o["spec"]["rules"][1]["variables"][0].update(name="a-b"),
        "spec.rules[1].variables[0].name",
        "must be an identifier",
    ),
    "17 conditions": (
        lambda o: o["spec"]["rules"][1].update(conditions=[{"expression": "true"}] * 17),
        "spec.rules[1].conditions",
        "at most 16 items",
    ),
    "long condition": (
        lambda o: o["spec"]["rules"][1].update(conditions=[{"expression": "true || " * 200 + "true"}]),
        "spec.rules[1].conditions[0].expression",
        "1024",
    ),
    "condition without expression": (
        lambda o: o["spec"]["rules"][1].update(conditions=[{}]),
        "spec.rules[1].conditions[0].expression",
        "Required",
    ),
    "Once for more than one object": (
        lambda o: require(o).update(use="Once"),
        "spec.rules[1].require.scope",
        "Once is proof for one object",
    ),
    "no duration": (lambda o: require(o).update(maxAge="5 minutes"), "spec.rules[1].require.maxAge", "such as 30s"),
    "units in another order": (lambda o: require(o).update(maxAge="5s1h"), "spec.rules[1].require.maxAge", "such as"),
    "too short": (lambda o: require(o).update(maxAge="9s"), "spec.rules[1].require.maxAge", "from 10s to 24h"),
    "too long": (lambda o: require(o).update(maxAge="24h1s"), "spec.rules[1].require.maxAge", "from 10s to 24h"),
    "assurance": (lambda o: require(o).update(assurance="aal4"), "spec.rules[1].require.assurance", '"aal3"'),
    "use": (lambda o: require(o).update(use="Twice"), "spec.rules[1].require.use", '"Window"'),
    "bind": (lambda o: require(o).update(bind="Nobody"), "spec.rules[1].require.bind", '"Credential"'),
    "expression": (
        lambda o: require(o)["reason"].update(pattern="(open"),
        "spec.rules[1].require.reason.pattern",
        "RE2",
    ),
    "look-ahead": (
        lambda o: require(o)["reason"].update(pattern="(?=a)"),
        "spec.rules[1].require.reason.pattern",
        "RE2",
    ),
    "long expression": (
        lambda o: require(o)["reason"].update(pattern="a" * 257),
        "spec.rules[1].require.reason.pattern",
        "256",
    ),
    "two rules of a name": (lambda o: o["spec"]["rules"][1].update(name="destroy"), "spec.rules[1]", "Duplicate"),
    "name of a rule": (lambda o: o["spec"]["rules"][1].update(name="No_Label"), "spec.rules[1].name", "DNS label"),
    "no rules": (lambda o: o["spec"].update(rules=[]), "spec.rules", "at least 1"),
    "65 rules": (
        lambda o: o["spec"].update(rules=[{"name": f"r{n}", "operations": ["delete"]} for n in range(65)]),
        "spec.rules",
        "at most 64",
    ),
    "no spec": (lambda o: o.pop("spec"), "spec", "Required"),
    "no operation": (lambda o: o["spec"]["rules"][0].update(operations=[]), "spec.rules[0].operations", "at least 1"),
    "operation that does not exist": (
        lambda o: o["spec"]["rules"][0].update(operations=["explode"]),
        "spec.rules[0].operations[0]",
        "must be delete, scale, exec, restart",
    ),
    **{
        f"raw operation {text!r}": (
            lambda o, text=text: o["spec"]["rules"][0].update(operations=[text]),
            "spec.rules[0].operations[0]",
            "VERB:GROUP/RESOURCE[/SUBRESOURCE] such as update:cnpg.io/clusters",
        )
        for text in BAD_RAW
    },
    "kind instead of resource": (
        lambda o: o["spec"]["rules"][0].update(resources=["Deployment"]),
        "spec.rules[0].resources[0]",
        "plural resource name",
    ),
    "enforcement": (lambda o: o["spec"].update(enforcement="deny"), "spec.enforcement", '"Audit"'),
    "namespace": (lambda o: o["spec"]["match"].update(namespaces=["Prod"]), "spec.match.namespaces[0]", "payments-*"),
    "account without namespace": (
        lambda o: o["spec"]["match"]["exempt"].update(serviceAccounts=["argocd"]),
        "spec.match.exempt.serviceAccounts[0]",
        "namespace/name",
    ),
    "subjects without anybody": (lambda o: o["spec"]["match"].update(subjects={}), "spec.match.subjects", "at least 1"),
    "In without values": (
        lambda o: expression(o, 0).pop("values"),
        "spec.match.namespaceSelector.matchExpressions[0].values",
        "at least one value",
    ),
    "DoesNotExist with values": (
        lambda o: expression(o, 1).update(values=["x"]),
        "spec.match.namespaceSelector.matchExpressions[1].values",
        "take no values",
    ),
    "operator": (
        lambda o: expression(o, 0).update(operator="Equals"),
        "spec.match.namespaceSelector.matchExpressions[0].operator",
        '"NotIn"',
    ),
    "a workload that is nobody": (
        lambda o: o["spec"]["rules"][0].update(workloads=[{}]),
        "spec.rules[0].workloads[0]",
        "either an issuer or serviceAccounts",
    ),
    "an issuer in the clear": (
        lambda o: o["spec"]["rules"][0].update(workloads=[{"issuer": "http://a.example.com", "conditions": TRUE}]),
        "spec.rules[0].workloads[0].issuer",
        "https://",
    ),
    "everybody's pipelines": (
        lambda o: o["spec"]["rules"][0].update(workloads=[{"issuer": "https://a.example.com"}]),
        "spec.rules[0].workloads[0]",
        "which of the issuer's tokens",
    ),
    "field that does not exist": (lambda o: o["spec"].update(approvals=1), "spec.approvals", "unknown field"),
}


@pytest.mark.parametrize("case", BAD_POLICIES)
def test_a_bad_policy_is_refused_with_its_field_and_the_way_out(plane: ControlPlane, case: str) -> None:
    edit, field, text = BAD_POLICIES[case]
    said = refusal(plane, changed(POLICY, edit))
    assert field in said
    assert text in said


# What the schema of the API server knows better than a file: how names of rules and of resources are written.
ONLY_THE_SCHEMA = {"kind instead of resource", "name of a rule", "namespace", "account without namespace",
                   "subjects without anybody"}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD_POLICIES.keys() - ONLY_THE_SCHEMA))
def test_the_program_refuses_the_same_in_a_file(case: str) -> None:
    with pytest.raises(PolicyError):
        Policy.parse(changed(POLICY, BAD_POLICIES[case][0]))


BAD_OTHERS: dict[str, tuple[Object, Edit, str]] = {
    "name of an elevation": (ELEVATION, lambda o: o["metadata"].update(name="mine"), "metadata.name"),
    "elevation of nothing": (ELEVATION, lambda o: o["spec"].update(details=[]), "spec.details"),
    "elevation of nobody": (ELEVATION, lambda o: o["spec"]["user"].update(username=""), "spec.user.username"),
    "51 objects": (
        ELEVATION,
        lambda o: o["spec"]["details"][0].update(objects=[{"name": f"n{n}"} for n in range(51)]),
        "spec.details[0].objects",
    ),
    "name of a key": (KEY, lambda o: o["metadata"].update(name="mine"), "metadata.name"),
    "algorithm": (KEY, lambda o: o["spec"].update(algorithm="HS256"), "spec.algorithm"),
    "another algorithm than the name says": (KEY, lambda o: o["spec"].update(algorithm="EdDSA"), "spec.algorithm"),
    "private key": (
        KEY,
        lambda o: o["spec"].update(publicKey="-----BEGIN EC PRIVATE KEY-----\nx\n-----END EC PRIVATE KEY-----\n"),
        "spec.publicKey",
    ),
    "time": (KEY, lambda o: o["spec"].update(notBefore="yesterday"), "spec.notBefore"),
}


@pytest.mark.parametrize("case", BAD_OTHERS)
def test_a_bad_record_or_key_is_refused_with_its_field(plane: ControlPlane, case: str) -> None:
    base, edit, field = BAD_OTHERS[case]
    assert field in refusal(plane, changed(base, edit))


@pytest.mark.parametrize(
    ("base", "patch", "field"),
    [
        (ELEVATION, {"spec": {"reason": "another"}}, "spec: Invalid"),
        (ELEVATION, {"spec": {"user": {"username": "mallory"}}}, "spec: Invalid"),
        (KEY, {"spec": {"publicKey": KEY["spec"]["publicKey"].replace("MFkw", "AAAA")}}, "spec.publicKey"),
        (KEY, {"spec": {"algorithm": "EdDSA"}}, "spec.algorithm"),
    ],
)
def test_what_was_recorded_or_published_cannot_be_changed(
    plane: ControlPlane, base: Object, patch: Object, field: str
) -> None:
    plane.apply(json.dumps(base))
    kind, name = base["kind"].lower() + "s.kube-stepup.io", base["metadata"]["name"]
    try:
        answer = plane.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch), user=ADMIN)
        assert answer.returncode != 0
        assert field in answer.stderr
        assert "cannot be changed" in answer.stderr
    finally:
        plane.kubectl("delete", kind, name, user=ADMIN, check=True)


def test_the_status_of_an_elevation_is_written_by_itself_and_keeps_what_it_is_given(plane: ControlPlane) -> None:
    name = ELEVATION["metadata"]["name"]
    status = {
        "phase": "Granted",
        "requirement": {"acr_values": "aal2", "anything": [{"nested": True}]},
        "expiresAt": "2026-01-01T00:00:00.123456Z",
        "uses": [{"key": "ab", "digest": "cd", "at": "2026-01-01T00:00:00.123456Z"}],
    }
    plane.apply(json.dumps({**ELEVATION, "status": {"phase": "Used"}}))
    try:
        stored = plane.kubectl("get", "elevations.kube-stepup.io", name, "-o", "json", user=ADMIN, check=True).stdout
        assert "phase" not in (json.loads(stored).get("status") or {})
        patch = ("patch", "elevations.kube-stepup.io", name, "--subresource=status", "--type=merge", "-o", "json")
        written = plane.kubectl(*patch, "-p", json.dumps({"status": status}), user=ADMIN, check=True).stdout
        assert json.loads(written)["status"] == status
        selector = "--field-selector=status.phase=Granted,spec.user.username=alice"
        found = plane.kubectl("get", "elevations.kube-stepup.io", selector, user=ADMIN, check=True).stdout
        assert found.splitlines()[0].split() == ["NAME", "USER", "PHASE", "FACTOR", "REASON", "EXPIRES", "AGE"]
        assert name in found
    finally:
        plane.kubectl("delete", "elevations.kube-stepup.io", name, user=ADMIN, check=True)


def test_policies_are_shown_with_what_matters(plane: ControlPlane) -> None:
    plane.apply(json.dumps(POLICY))
    try:
        shown = plane.kubectl("get", "sup", user=ADMIN, check=True).stdout
    finally:
        plane.kubectl("delete", "sup", "crd-test", user=ADMIN, check=True)
    assert shown.splitlines()[0].split() == ["NAME", "ENFORCEMENT", "ACCEPTED", "ENFORCED", "MATCHED", "REFUSED", "AGE"]
    assert shown.splitlines()[1].split()[:2] == ["crd-test", "Warn"]


@pytest.mark.parametrize("name", ["stepuppolicies", "elevations", "signingkeys"])
def test_fields_are_explained(plane: ControlPlane, name: str) -> None:
    said = plane.kubectl("explain", f"{name}.kube-stepup.io.spec", user=ADMIN, check=True).stdout
    assert "FIELDS" in said


def test_a_definition_outlives_the_release_that_installed_it() -> None:
    for file in CRDS.glob("*.yaml"):
        metadata = yaml.safe_load(file.read_text())["metadata"]
        assert metadata["annotations"]["helm.sh/resource-policy"] == "keep"
