"""Raw operations: by verb and resource, for what has no class."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import deletion, deployment, policy, review
from webhook.core.applicable import PolicyIndex, subject_of
from webhook.core.assertion import DETAIL_TYPE, AuthorizationDetail, DetailObject
from webhook.core.lint import findings
from webhook.core.operation import Action
from webhook.core.planning import requirements_for
from webhook.core.policy import Policy
from webhook.core.raw import RawPattern, canonical, is_concrete
from webhook.core.request import AdmissionRequest, decode
from webhook.errors import PolicyError

DATABASE = {"metadata": {"name": "db", "namespace": "prod", "uid": "u"}, "spec": {"size": 3}}


def raw(*operations: str, **fields: Any) -> dict[str, Any]:
    return policy(rules=[{"name": "raw", "operations": list(operations), **fields}])


def index(*policies: dict[str, Any]) -> PolicyIndex:
    found = PolicyIndex()
    found.put_namespace("prod", {"env": "prod"})
    for one in policies:
        found.put_policy(Policy.parse(one))
    return found


def database(operation: str = "UPDATE", *, resource: str = "clusters", **fields: Any) -> AdmissionRequest:
    body = json.loads(review(operation, kind="Service", name="db", **fields))
    body["request"]["resource"] = {"group": "cnpg.io", "version": "v1", "resource": resource}
    return decode(json.dumps(body).encode())


def changed(**spec: Any) -> dict[str, Any]:
    return {**DATABASE, "spec": {**DATABASE["spec"], **spec}}


def actions(request: AdmissionRequest, *operations: str) -> list[str]:
    return [one.operation for one in index(raw(*operations)).actions_of(request)]


def only_raw(request: AdmissionRequest, *operations: str) -> Action:
    (found,) = [one for one in index(raw(*operations)).actions_of(request) if ":" in one.operation]
    return found


@pytest.mark.parametrize(
    ("pattern", "operation", "covered"),
    [
        ("update:cnpg.io/clusters", "update:cnpg.io/clusters", True),
        ("update:cnpg.io/clusters", "create:cnpg.io/clusters", False),
        ("*:cnpg.io/clusters", "connect:cnpg.io/clusters", True),
        ("update:cnpg.io/*", "update:cnpg.io/backups", True),
        ("update:*.io/clusters", "update:cnpg.io/clusters", True),
        ("update:*/*", "update:core/pods", True),
        ("update:core/pods", "update:core/pods/status", False),
        ("update:core/pods/status", "update:core/pods/status", True),
        ("update:core/pods/status", "update:core/pods", False),
        ("update:core/pods/*", "update:core/pods/status", True),
        ("update:core/pods/*", "update:core/pods", False),
        # A scale writes the spec of the object: whoever names the object means it.
        ("update:cnpg.io/clusters", "update:cnpg.io/clusters/scale", True),
        ("update:core/pods", "update:core/pods/ephemeralcontainers", True),
        ("create:core/pods", "create:core/pods/eviction", False),
    ],
)
def test_what_a_pattern_covers(pattern: str, operation: str, covered: bool) -> None:
    assert RawPattern.parse(pattern, "x").covers(operation) is covered


@pytest.mark.parametrize(
    "text",
    ["update:", "update:clusters", "patch:cnpg.io/clusters", "update:cnpg.io/", "update:a/b/c/d", "Update:a/b",
     "update:a/b\n", "update:a b/c", "update:" + "a" * 400 + "/b", ":a/b", "update:a/B", "delete:cnpg.io/clusters,x"],
)  # fmt: skip
def test_what_is_not_of_the_form_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(PolicyError) as error:
        Policy.parse(raw("delete", text))
    assert error.value.field == "spec.rules[0].operations[1]"
    assert "VERB:GROUP/RESOURCE" in error.value.message


def test_a_proof_is_for_one_operation_and_no_pattern() -> None:
    assert is_concrete("update:cnpg.io/clusters/status")
    assert not any(map(is_concrete, ["update:cnpg.io/*", "*:a/b", "update:a/b\n", "scale", "update:a/" + "b" * 400]))


class TestActions:
    def test_a_request_that_no_policy_names_has_none(self) -> None:
        assert actions(database(new=changed(size=4), old=DATABASE), "update:example.com/things") == []
        assert index(policy()).actions_of(database(new=changed(size=4), old=DATABASE)) == ()

    def test_are_named_as_they_are_and_not_as_the_pattern(self) -> None:
        assert actions(database(new=changed(size=4), old=DATABASE), "*:cnpg.io/*") == ["update:cnpg.io/clusters"]
        assert actions(database("CREATE", new=DATABASE), "*:*/*") == ["create:cnpg.io/clusters"]

    def test_come_beside_the_classes(self) -> None:
        request = decode(review("UPDATE", new=deployment(replicas=0), old=deployment(replicas=3)))
        assert actions(request, "update:apps/deployments") == ["scale", "update:apps/deployments"]

    def test_a_deletion_is_the_class_of_that_name(self) -> None:
        assert canonical("delete:cnpg.io/clusters") == "delete"
        assert canonical("delete:cnpg.io/clusters/status") == "delete:cnpg.io/clusters/status"
        assert actions(database("DELETE", old=DATABASE), "delete:cnpg.io/clusters") == ["delete"]

    @pytest.mark.parametrize(
        "metadata",
        [
            {"resourceVersion": "9", "generation": 3},
            {"managedFields": [{"manager": "x"}]},
            {"annotations": {"kube-stepup.io/assertion": "e30"}},
        ],
    )
    def test_what_changes_by_itself_is_no_change(self, metadata: dict[str, Any]) -> None:
        new = {**DATABASE, "metadata": {**DATABASE["metadata"], **metadata}}
        assert actions(database(new=new, old=DATABASE), "update:cnpg.io/clusters") == []

    @pytest.mark.parametrize(
        "change", [{"metadata": {**DATABASE["metadata"], "annotations": {"restart": "now"}}}, {"status": {"x": 1}},
                   {"data": {"a": "b"}}, {"metadata": {**DATABASE["metadata"], "finalizers": ["x"]}}]
    )  # fmt: skip
    def test_everything_else_is(self, change: dict[str, Any]) -> None:
        request = database(new={**DATABASE, **change}, old=DATABASE)
        assert "update:cnpg.io/clusters" in actions(request, "update:cnpg.io/clusters")

    def test_the_digest_is_of_the_change(self) -> None:
        def of(**fields: Any) -> str:
            return only_raw(
                database(old=DATABASE, **fields), "update:cnpg.io/clusters/*", "update:cnpg.io/clusters"
            ).change

        assert of(new=changed(size=4)) == of(new={**changed(size=4), "status": {"ready": 2}})
        assert of(new=changed(size=4)) != of(new=changed(size=5))
        status = [{**DATABASE, "status": {"phase": phase}} for phase in ("up", "down")]
        assert of(new=status[0], sub_resource="status") != of(new=status[1], sub_resource="status")

    def test_forgetting_the_policy_forgets_the_name(self) -> None:
        found = index(raw("update:cnpg.io/clusters"))
        request = database(new=changed(size=4), old=DATABASE)
        assert found.actions_of(request)
        found.remove_policy("production")
        assert found.actions_of(request) == ()


class TestDemands:
    def asked(self, request: AdmissionRequest, *operations: str, **fields: Any) -> list[str]:
        found = index(raw(*operations, **fields))
        demands = found.applicable(request.user_info, found.actions_of(request), subject_of(request)).demands
        return [one.action.operation for one in demands]

    def test_for_the_raw_operation(self) -> None:
        request = database(new=changed(size=4), old=DATABASE)
        assert self.asked(request, "update:cnpg.io/clusters") == ["update:cnpg.io/clusters"]
        # `resources` narrows classes; a raw operation names its own.
        assert self.asked(request, "update:cnpg.io/clusters", resources=["pods"]) == ["update:cnpg.io/clusters"]

    def test_for_every_road_to_the_end_of_what_may_not_be_deleted(self) -> None:
        owned = {
            **DATABASE,
            "metadata": {**DATABASE["metadata"], "ownerReferences": [{"uid": "x", "kind": "A", "name": "b"}]},
        }
        only = "delete:cnpg.io/clusters"
        assert self.asked(database("DELETE", old=DATABASE), only) == ["delete"]
        assert self.asked(database(new=owned, old=DATABASE), only) == ["delete"]
        assert self.asked(database("DELETE", old=DATABASE, resource="backups"), only) == []
        namespace = {"metadata": {"name": "prod", "labels": {"env": "prod"}}}
        whole = review("DELETE", kind="Namespace", name="prod", namespace="prod", old=namespace)
        assert self.asked(decode(whole), only) == ["delete"]

    def test_not_for_classes_that_it_does_not_name(self) -> None:
        assert self.asked(decode(deletion()), "update:apps/deployments", "create:*/*", "connect:*/*/*") == []

    def test_a_step_up_can_be_asked_for_beforehand(self) -> None:
        found = index(raw("update:cnpg.io/*"))
        user = decode(deletion()).user_info
        detail = AuthorizationDetail(
            type=DETAIL_TYPE, operation="update:cnpg.io/clusters", scope="Object", group="cnpg.io", resource="clusters",
            namespace="prod", objects=(DetailObject("db"),),
        )  # fmt: skip
        (requirement,) = requirements_for(found, user, [detail])
        assert requirement.rule == "raw"


def test_lint_tells_what_can_never_be_asked() -> None:
    rule = {
        "operations": ["update:core/events", "create:authentication.k8s.io/tokenreviews", "update:apps/deployments"]
    }
    never = [one.field for one in findings(raw(*rule["operations"])) if one.code == "never-asked"]
    assert never == ["spec.rules[0].operations[0]", "spec.rules[0].operations[1]"]
    hooks = findings(raw("*:admissionregistration.k8s.io/validatingwebhookconfigurations"))
    assert [one.code for one in hooks] == ["never-asked"]
    assert [one.code for one in findings(raw("update:a/b", resources=["pods"]))] == ["resources-unused"]
