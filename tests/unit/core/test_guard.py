"""What weakens a guard is asked for proof at the level of what it weakens; what makes it stricter is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import deletion, deployment, pod, policy, review, service_account, user
from webhook.core.applicable import PolicyIndex, Subject
from webhook.core.assertion import AuthorizationDetail, DetailObject
from webhook.core.guard import Guard, guarding_action
from webhook.core.planning import requirements_for
from webhook.core.policy import Policy
from webhook.core.request import AdmissionRequest, decode

CONTROLLER = "kube-system/generic-garbage-collector"


def guard(*policies: dict[str, Any]) -> Guard:
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    for one in policies or (policy(),):
        index.put_policy(Policy.parse(one))
    return Guard(index, "kube-stepup", [CONTROLLER])


def weakened(body: bytes, *policies: dict[str, Any]) -> list[str]:
    return [one.name for one in guard(*policies).weakened_by(decode(body))]


def relabelled(new: dict[str, str], old: dict[str, str], sub_resource: str = "") -> bytes:
    def namespace(labels: dict[str, str]) -> dict[str, Any]:
        return {"metadata": {"name": "prod", "labels": labels}}

    return review("UPDATE", kind="Namespace", name="prod", namespace="prod", new=namespace(new), old=namespace(old), sub_resource=sub_resource)  # fmt: skip


def own(operation: str, resource: str, name: str = "production", **fields: Any) -> bytes:
    body = json.loads(review(operation, name=name, namespace=None, **fields))
    body["request"]["resource"] = {"group": "kube-stepup.io", "version": "v1alpha1", "resource": resource}
    return json.dumps(body).encode()


class TestNamespace:
    @pytest.mark.parametrize("sub_resource", ["", "status", "finalize"])
    def test_relabelled_out_of_a_policy(self, sub_resource: str) -> None:
        assert weakened(relabelled({"env": "dev"}, {"env": "prod"}, sub_resource)) == ["production"]

    @pytest.mark.parametrize(
        ("new", "old"),
        [({"env": "prod"}, {"env": "dev"}), ({"env": "prod", "a": "b"}, {"env": "prod"}), ({}, {"a": "b"})],
    )
    def test_relabelled_into_it_or_beside_it(self, new: dict[str, str], old: dict[str, str]) -> None:
        assert weakened(relabelled(new, old)) == []

    def test_a_policy_that_only_warns_guards_nothing(self) -> None:
        assert weakened(relabelled({}, {"env": "prod"}), policy(enforcement="Warn")) == []

    def test_our_own_namespace_deleted(self) -> None:
        body = review(
            "DELETE",
            kind="Namespace",
            name="kube-stepup",
            namespace="kube-stepup",
            old={"metadata": {"name": "kube-stepup"}},
        )
        assert weakened(body) == ["production"]


class TestObject:
    SELECTING = policy(match={"namespaces": ["prod"], "objectSelector": {"matchLabels": {"tier": "one"}}})

    def test_relabelled_out_of_the_selector(self) -> None:
        body = review("UPDATE", old=deployment(labels={"tier": "one"}), new=deployment(labels={"tier": "two"}))
        assert weakened(body, self.SELECTING) == ["production"]

    def test_relabelled_together_with_a_new_template(self) -> None:
        old, new = deployment(labels={"tier": "one"}), deployment(labels={"tier": "two"}, image="nginx:2")
        assert weakened(review("UPDATE", old=old, new=new), self.SELECTING) == ["production"]

    def test_relabelled_into_it_or_elsewhere(self) -> None:
        into = review("UPDATE", old=deployment(), new=deployment(labels={"tier": "one"}))
        assert weakened(into, self.SELECTING) == []
        other = review("UPDATE", namespace="staging", old=deployment(labels={"tier": "one"}), new=deployment())
        assert weakened(other, self.SELECTING) == []


class TestPolicies:
    STRICTER = policy(rules=[*policy()["spec"]["rules"], {"name": "more", "operations": ["delete"]}])
    LAXER = policy(rules=[{"name": "less", "operations": ["scale"]}])
    EXEMPTING = policy(match={**policy()["spec"]["match"], "exempt": {"groups": ["devs"]}})

    @pytest.mark.parametrize("new", [LAXER, EXEMPTING, policy(enforcement="Audit"), policy(require={"maxAge": "1h"})])
    def test_made_laxer(self, new: dict[str, Any]) -> None:
        assert weakened(own("UPDATE", "stepuppolicies", new=new, old=policy())) == ["production"]

    @pytest.mark.parametrize("new", [STRICTER, policy(), policy(rules=[])])
    def test_made_stricter_left_alone_or_refused_anyhow(self, new: dict[str, Any]) -> None:
        assert weakened(own("UPDATE", "stepuppolicies", new=new, old=policy())) == []

    def test_deleted_also_as_part_of_a_collection(self) -> None:
        assert weakened(own("DELETE", "stepuppolicies", old=policy())) == ["production"]
        assert weakened(own("DELETE", "stepuppolicies", name="", old=policy())) == ["production"]

    def test_a_new_one_needs_nothing_nor_does_a_status(self) -> None:
        assert weakened(own("CREATE", "stepuppolicies", name="other", new=policy("other"))) == []
        assert weakened(own("UPDATE", "stepuppolicies", new=policy(), old=policy(), sub_resource="status")) == []


class TestOwnObjects:
    @pytest.mark.parametrize("resource", ["elevations", "signingkeys"])
    @pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
    def test_records_and_keys_are_nobodys_to_write(self, resource: str, operation: str) -> None:
        obj = {"metadata": {"name": "x"}}
        assert weakened(own(operation, resource, name="x", new=obj, old=obj)) == ["production"]

    @pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "Service"])
    def test_what_we_run_on(self, kind: str) -> None:
        old = {"metadata": {"name": "kube-stepup-admission"}}
        assert weakened(review("DELETE", kind=kind, namespace="kube-stepup", old=old)) == ["production"]
        assert weakened(review("DELETE", kind=kind, namespace="elsewhere", old=old)) == []

    def test_our_cluster_roles_and_pods_of_ours(self) -> None:
        labelled = {
            "metadata": {"name": "kube-stepup-controller", "labels": {"app.kubernetes.io/part-of": "kube-stepup"}}
        }
        body = json.loads(review("DELETE", name="kube-stepup-controller", namespace=None, old=labelled))
        body["request"]["resource"] = {
            "group": "rbac.authorization.k8s.io",
            "version": "v1",
            "resource": "clusterroles",
        }
        assert weakened(json.dumps(body).encode()) == ["production"]
        body["request"]["oldObject"] = {"metadata": {"name": "other"}}
        assert weakened(json.dumps(body).encode()) == []
        shell = review(
            "CONNECT", kind="Pod", name="p", namespace="kube-stepup", sub_resource="exec", new={"command": ["sh"]}
        )
        assert weakened(shell) == ["production"]

    def test_the_strictest_policy_says_how(self) -> None:
        strict = policy("strict", require={"assurance": "aal3"})
        body = own("DELETE", "signingkeys", old={"metadata": {"name": "x"}})
        assert weakened(body, policy(), strict) == ["strict"]
        (requirement,) = Policy.parse(strict).guarding_requirements
        assert (requirement.assurance, requirement.use, requirement.scope) == ("aal3", "Once", "Object")


class TestBorrowedAccounts:
    EXEMPTING = policy(match={"namespaces": ["prod"], "exempt": {"serviceAccounts": ["argocd/controller"]}})

    def token(self, namespace: str, name: str) -> bytes:
        body = json.loads(review("CREATE", name=name, namespace=namespace, sub_resource="token", new={"spec": {}}))
        body["request"]["resource"] = {"group": "", "version": "v1", "resource": "serviceaccounts"}
        return json.dumps(body).encode()

    def test_a_token_for_a_controller_or_an_exempt_account(self) -> None:
        assert weakened(self.token("kube-system", "generic-garbage-collector")) == ["production"]
        assert weakened(self.token("argocd", "controller"), self.EXEMPTING) == ["production"]
        assert weakened(self.token("argocd", "other"), self.EXEMPTING) == []

    def test_a_secret_that_becomes_one(self) -> None:
        metadata = {"name": "s", "annotations": {"kubernetes.io/service-account.name": "controller"}}
        body = json.loads(review("CREATE", kind="ConfigMap", name="s", namespace="argocd", new={"metadata": metadata, "type": "kubernetes.io/service-account-token"}))  # fmt: skip
        body["request"]["resource"]["resource"] = "secrets"
        assert weakened(json.dumps(body).encode(), self.EXEMPTING) == ["production"]

    def test_a_pod_or_a_workload_that_runs_as_it(self) -> None:
        runs_as = pod(serviceAccountName="controller")
        assert weakened(review("CREATE", kind="Pod", namespace="argocd", new=runs_as), self.EXEMPTING) == ["production"]
        workload = deployment()
        workload["spec"]["template"]["spec"]["serviceAccountName"] = "controller"
        assert weakened(review("CREATE", namespace="argocd", new=workload), self.EXEMPTING) == ["production"]
        assert weakened(review("CREATE", namespace="argocd", new=deployment()), self.EXEMPTING) == []

    def test_a_workload_that_already_runs_as_it_is_only_scaled(self) -> None:
        def workload(replicas: int) -> dict[str, Any]:
            found = deployment(replicas=replicas)
            found["spec"]["template"]["spec"]["serviceAccountName"] = "controller"
            return found

        body = review("UPDATE", namespace="argocd", new=workload(1), old=workload(2))
        assert weakened(body, self.EXEMPTING) == []

    @pytest.mark.parametrize("sub_resource", ["exec", "attach"])
    def test_a_shell_where_such_an_account_may_run(self, sub_resource: str) -> None:
        body = review(
            "CONNECT", kind="Pod", name="p", namespace="argocd", sub_resource=sub_resource, new={"command": ["cat"]}
        )
        assert weakened(body, self.EXEMPTING) == ["production"]
        assert weakened(body) == []

    @pytest.mark.parametrize(
        "exempt",
        [
            {"groups": ["system:serviceaccounts:argocd"]},
            {"users": ["system:serviceaccount:argocd:controller"]},
            {"users": ["system:serviceaccount:argocd:*"]},
        ],
    )
    def test_an_account_that_is_exempt_by_another_name(self, exempt: dict[str, Any]) -> None:
        exempting = policy(match={"namespaces": ["prod"], "exempt": exempt})
        assert weakened(self.token("argocd", "controller"), exempting) == ["production"]
        runs_as = pod(serviceAccountName="controller")
        assert weakened(review("CREATE", kind="Pod", namespace="argocd", new=runs_as), exempting) == ["production"]


class TestAsked:
    def demands(self, request: AdmissionRequest, *policies: dict[str, Any]) -> int:
        index = PolicyIndex()
        for one in policies or (policy(),):
            index.put_policy(Policy.parse(one))
        found = Guard(index, "kube-stepup").weakened_by(request)
        action = guarding_action(request)
        return len(index.applicable(request.user_info, [action], Subject(weakened=found)).demands)

    def test_everybody_is_asked_whomever_the_policy_is_about(self) -> None:
        about_ops = policy(
            match={"namespaceSelector": {"matchLabels": {"env": "prod"}}, "subjects": {"groups": ["ops"]}}
        )
        assert self.demands(decode(relabelled({}, {"env": "prod"})), about_ops) == 1

    def test_an_exempt_user_is_not(self) -> None:
        match = {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "exempt": {"users": ["alice"]}}
        assert self.demands(decode(relabelled({}, {"env": "prod"})), policy(match=match)) == 0

    def test_another_change_of_labels_is_another_change(self) -> None:
        first = guarding_action(decode(relabelled({}, {"env": "prod"})))
        second = guarding_action(decode(relabelled({"env": "dev"}, {"env": "prod"})))
        assert first.change != second.change


@pytest.mark.parametrize(
    ("group", "resource", "namespace", "name", "expected"),
    [
        ("", "namespaces", "", "prod", True),
        ("", "namespaces", "", "staging", False),
        ("kube-stepup.io", "stepuppolicies", "", "production", True),
        ("kube-stepup.io", "stepuppolicies", "", "other", False),
        ("kube-stepup.io", "signingkeys", "", "x", True),
        ("", "secrets", "kube-stepup", "x", True),
        ("", "serviceaccounts", "kube-system", "generic-garbage-collector", True),
        ("", "serviceaccounts", "prod", "default", False),
        ("apps", "deployments", "prod", "web", False),
    ],
)
def test_a_step_up_beforehand_knows_what_will_be_asked(
    group: str, resource: str, namespace: str, name: str, expected: bool
) -> None:
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    index.put_namespace("staging", {})
    index.put_policy(Policy.parse(policy()))
    detail = AuthorizationDetail(type="urn:kube-stepup:operation", operation="guard", scope="Object", group=group, resource=resource, namespace=namespace, objects=(DetailObject(name),))  # fmt: skip
    request = decode(deletion(who=user()))
    found = requirements_for(index, request.user_info, [detail], "kube-stepup", [CONTROLLER])
    assert bool(found) is expected


def test_a_service_account_is_asked_like_anybody() -> None:
    request = decode(deletion(who=service_account("ci", "deployer")))
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    index.put_policy(Policy.parse(policy()))
    detail = AuthorizationDetail(type="urn:kube-stepup:operation", operation="deploy", scope="Object", group="apps", resource="deployments", namespace="prod", objects=(DetailObject("web"),))  # fmt: skip
    assert requirements_for(index, request.user_info, [detail])
