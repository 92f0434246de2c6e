"""What goes along when an object goes: the rules on it are asked, where it lies."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.builders import deployment, policy, review, user
from webhook.core.applicable import PolicyIndex, lazy_facts, subject_of
from webhook.core.assertion import DETAIL_TYPE, AuthorizationDetail, DetailObject
from webhook.core.planning import requirements_for
from webhook.core.policy import Policy
from webhook.core.request import decode

PODS = [{"name": "r", "operations": ["delete"], "resources": ["core/pods"]}]


def asked(body: bytes, rules: list[dict[str, Any]] | None = None, **match: Any) -> list[str]:
    """Operations that are asked proof of, by a policy on `prod`."""
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    index.put_namespace("staging", {})
    match = {"namespaces": ["prod"], **match}
    index.put_policy(Policy.parse(policy(match=match, rules=rules or PODS)))
    request = decode(body)
    actions = index.actions_of(request)
    subject = msgspec.structs.replace(subject_of(request), facts=lazy_facts(request, index, actions))
    return [one.action.operation for one in index.applicable(request.user_info, actions, subject).demands]


def deleted(group: str, resource: str, old: dict[str, Any], *, namespace: str | None = "prod", **options: Any) -> bytes:
    body = json.loads(review("DELETE", name=old["metadata"]["name"], namespace=namespace, old=old))
    body["request"]["resource"] = {"group": group, "version": "v1", "resource": resource}
    body["request"]["options"] = options or None
    return json.dumps(body).encode()


def named(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u"}, "spec": spec}


OWNERS = [
    ("apps", "deployments"), ("apps", "statefulsets"), ("apps", "daemonsets"), ("apps", "replicasets"),
    ("batch", "jobs"), ("batch", "cronjobs"), ("", "replicationcontrollers"),
]  # fmt: skip


class TestOwners:
    @pytest.mark.parametrize(("group", "resource"), OWNERS)
    def test_take_their_pods_along(self, group: str, resource: str) -> None:
        assert asked(deleted(group, resource, named("web"))) == ["delete"]
        assert asked(deleted(group, resource, named("web"), namespace="staging")) == []

    def test_what_owns_nothing_takes_nothing(self) -> None:
        assert asked(deleted("", "configmaps", named("web"))) == []

    @pytest.mark.parametrize("options", [{"propagationPolicy": "Orphan"}, {"orphanDependents": True}])
    def test_unless_what_they_own_is_left_alone(self, options: dict[str, Any]) -> None:
        assert asked(deleted("apps", "deployments", named("web"), **options)) == []

    @pytest.mark.parametrize("policy", ["Foreground", "Background", None])
    def test_in_whatever_order(self, policy: str | None) -> None:
        assert asked(deleted("apps", "deployments", named("web"), propagationPolicy=policy)) == ["delete"]

    def test_are_asked_once_by_a_rule_on_both(self) -> None:
        both = [{"name": "r", "operations": ["delete"]}]
        assert asked(deleted("apps", "deployments", named("web")), both) == ["delete"]

    def test_pods_are_told_by_the_labels_of_the_template(self) -> None:
        selector = {"matchLabels": {"app": "web"}}
        assert asked(deleted("apps", "deployments", deployment()), objectSelector=selector) == ["delete"]
        assert asked(deleted("apps", "deployments", deployment("api")), objectSelector=selector) == []
        job = {"spec": {"template": {"metadata": {"labels": {"app": "web"}}}}}
        assert asked(deleted("batch", "cronjobs", named("web", jobTemplate=job)), objectSelector=selector) == ["delete"]

    def test_are_judged_without_a_look_at_the_policies_of_other_namespaces(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index = PolicyIndex()
        index.put_namespace("prod", {})
        for name in ("prod", "other"):
            index.put_policy(Policy.parse(policy(name, match={"namespaces": [name]}, rules=PODS)))
        request = decode(deleted("apps", "deployments", deployment()))
        actions, subject = index.actions_of(request), subject_of(request)
        first = index.applicable(request.user_info, actions, subject)

        looked_at = []
        monkeypatch.setattr(Policy, "can_match_namespace", lambda one, *_: looked_at.append(one.name))
        rules_along = Policy.rules_along
        monkeypatch.setattr(Policy, "rules_along", lambda one, of: looked_at.append(one.name) or rules_along(one, of))
        assert index.applicable(request.user_info, actions, subject) == first
        assert looked_at == ["prod"]

    def test_with_labels_that_cannot_be_read_every_selector_matches(self) -> None:
        broken = named("web", template={"metadata": {"labels": ["a"]}})
        assert asked(deleted("apps", "deployments", broken), objectSelector={"matchLabels": {"app": "x"}}) == ["delete"]

    def test_conditions_are_on_the_owner(self) -> None:
        def rules(expression: str) -> list[dict[str, Any]]:
            return [{**PODS[0], "conditions": [{"expression": expression}]}]

        body = deleted("apps", "deployments", deployment())
        assert asked(body, rules("oldObject.metadata.name == 'web'")) == ["delete"]
        assert asked(body, rules("oldObject.metadata.name == 'api'")) == []
        assert asked(body, rules("oldObject.spec.nodeName == 'n1'")) == ["delete"]  # a Deployment has none: on doubt

    def test_an_owner_that_is_about_to_go(self) -> None:
        doomed = deployment(ownerReferences=[{"uid": "x", "kind": "ConfigMap", "name": "junk"}])
        assert asked(review("UPDATE", new=doomed, old=deployment())) == ["delete"]


class TestClusterScoped:
    def test_a_definition_takes_its_objects_wherever_they_are(self) -> None:
        body = deleted("apiextensions.k8s.io", "customresourcedefinitions", named("clusters.cnpg.io"), namespace=None)
        for resources, operations in ((["cnpg.io/clusters"], ["delete"]), (["clusters"], ["delete"]), (["pods"], [])):
            assert asked(body, [{**PODS[0], "resources": resources}]) == operations
        assert asked(body, [{"name": "r", "operations": ["delete:cnpg.io/clusters"]}]) == ["delete"]
        assert asked(body, [{"name": "r", "operations": ["scale"]}]) == []

    @pytest.mark.parametrize("operation", ["delete", "drain"])
    def test_a_node_takes_its_pods(self, operation: str) -> None:
        body = deleted("", "nodes", named("n1"), namespace=None)
        assert asked(body, [{**PODS[0], "operations": [operation]}]) == ["delete"]
        assert asked(body, [{**PODS[0], "operations": [operation], "resources": ["secrets"]}]) == []

    @pytest.mark.parametrize("operation", ["delete", "drain"])
    def test_a_taint_throws_them_out_and_a_cordon_does_not(self, operation: str) -> None:
        rules = [{**PODS[0], "operations": [operation]}]

        def updated(**spec: Any) -> bytes:
            return review("UPDATE", kind="Node", name="n1", namespace=None, new=named("n1", **spec), old=named("n1"))

        taint = {"key": "a", "effect": "NoExecute"}
        assert asked(updated(taints=[taint]), rules) == ["drain"]
        assert asked(updated(taints=[taint], unschedulable=True), rules) == ["drain"]
        assert asked(updated(unschedulable=True), rules) == []

    def test_a_volume_takes_the_data_of_its_claim(self) -> None:
        rules = [{**PODS[0], "resources": ["persistentvolumeclaims"]}]
        for namespace, operations in (("prod", ["delete"]), ("staging", []), ("unseen", [])):
            volume = named("v", claimRef={"namespace": namespace, "name": "data"})
            assert asked(deleted("", "persistentvolumes", volume, namespace=None), rules) == operations
        assert asked(deleted("", "persistentvolumes", named("v"), namespace=None), rules) == []

    def test_labels_and_conditions_on_what_nobody_sees_count_as_true(self) -> None:
        rules = [{**PODS[0], "conditions": [{"expression": "oldObject.metadata.name == 'web'"}]}]
        body = deleted("", "nodes", named("n1"), namespace=None)
        assert asked(body, rules, objectSelector={"matchLabels": {"tier": "one"}}) == ["delete"]


class TestAdoption:
    @pytest.mark.parametrize(("replicas", "kind"), [(0, "ReplicaSet"), (3, "ReplicaSet"), (0, "StatefulSet")])
    def test_a_workload_that_adopts_naked_pods_may_delete_them(self, replicas: int, kind: str) -> None:
        new = {**deployment(replicas=replicas), "kind": kind}
        assert "delete" in asked(review("CREATE", kind=kind, new=new))

    def test_one_that_is_ordinary_does_not(self) -> None:
        assert asked(review("CREATE", kind="StatefulSet", new=deployment(replicas=2))) == []
        assert asked(review("CREATE", new=deployment(replicas=2))) == []

    def test_a_job_with_a_selector_of_its_own(self) -> None:
        job = {**deployment(), "spec": {"manualSelector": True, "template": deployment()["spec"]["template"]}}
        assert asked(review("CREATE", kind="Job", new=job)) == ["delete"]


@pytest.mark.parametrize(
    ("group", "resource", "name"),
    [
        ("apps", "deployments", "web"),
        ("", "nodes", "n1"),
        ("", "persistentvolumes", "v"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "pods.example.com"),
    ],
)
def test_a_step_up_that_is_asked_for_beforehand_meets_the_same_policies(group: str, resource: str, name: str) -> None:
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    rules = [{"name": "r", "operations": ["delete"], "resources": ["pods", "persistentvolumeclaims"]}]
    index.put_policy(Policy.parse(policy(rules=rules)))
    namespace = "prod" if group == "apps" else ""
    detail = AuthorizationDetail(
        type=DETAIL_TYPE, operation="delete", scope="Object", group=group, resource=resource, namespace=namespace,
        objects=(DetailObject(name),),
    )  # fmt: skip
    who = decode(review(who=user())).user_info
    assert [one.rule for one in requirements_for(index, who, [detail])] == ["r"]
