"""StepUpPolicy: what is refused, by which field, and which requests a policy is about."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import deletion, deployment, policy, review, service_account, user
from webhook.core.applicable import Applicable, PolicyIndex, Subject, subject_of
from webhook.core.classify import classify
from webhook.core.policy import Policy
from webhook.core.request import UserInfo, decode
from webhook.core.requirement import merged
from webhook.errors import PolicyError


def rule(**fields: Any) -> dict[str, Any]:
    return {"name": "destroy", "operations": ["delete"], **fields}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"rules": []}, "spec.rules"),
        ({"rules": [rule(operations=[])]}, "spec.rules[0].operations"),
        ({"rules": [rule(operations=["delet"])]}, "spec.rules[0].operations[0]"),
        ({"rules": [rule(resources=[])]}, "spec.rules[0].resources"),
        ({"rules": [rule(), rule()]}, "spec.rules[1].name"),
        ({"rules": [rule(name="")]}, "spec.rules[0].name"),
        ({"rules": [{"name": "a"}]}, "spec.rules[0]"),
        ({"rules": [rule(require={"assurance": "aal4"})]}, "spec.rules[0].require.assurance"),
        ({"rules": [rule(require={"maxAge": "5 min"})]}, "spec.rules[0].require.maxAge"),
        ({"rules": [rule(require={"maxAge": "1s"})]}, "spec.rules[0].require.maxAge"),
        ({"rules": [rule(require={"maxAge": "25h"})]}, "spec.rules[0].require.maxAge"),
        ({"rules": [rule(require={"maxAge": 300})]}, "spec.rules[0].require.maxAge"),
        ({"rules": [rule(require={"use": "Twice"})]}, "spec.rules[0].require.use"),
        ({"rules": [rule(require={"scope": "Resource"})]}, "spec.rules[0].require.use"),
        ({"rules": [rule(require={"bind": "Host"})]}, "spec.rules[0].require.bind"),
        ({"rules": [rule(require={"reason": {"pattern": "("}})]}, "spec.rules[0].require.reason.pattern"),
        ({"rules": [rule(require={"reason": {"pattern": "a" * 257}})]}, "spec.rules[0].require.reason.pattern"),
        ({"rules": [rule(require={"reason": {"pattern": "(?=a)"}})]}, "spec.rules[0].require.reason.pattern"),
        ({"enforcement": "Maybe"}, "spec.enforcement"),
        ({"match": {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}}, "spec.match.namespaceSelector.matchExpressions[0].operator"),
        ({"match": {"objectSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}, "spec.match.objectSelector.matchExpressions[0].values"),
        ({"match": {"objectSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}}, "spec.match.objectSelector.matchExpressions[0].values"),
        ({"match": {"namespace": ["a"]}}, "spec.match"),
        ({"surprise": 1}, "spec"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_work_is_refused_by_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.parse(policy(**spec))
    assert caught.value.field == field
    assert caught.value.code == "bad-policy"


@pytest.mark.parametrize("change", [{"apiVersion": "v1"}, {"kind": "Policy"}, {"metadata": {}}, {"spec": None}])
def test_what_is_no_policy_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        Policy.parse({**policy(), **change})


def test_defaults_are_those_of_the_schema() -> None:
    requirement = Policy.parse(policy()).rules[0].requirement
    found = (requirement.assurance, requirement.max_age_seconds, requirement.use, requirement.scope, requirement.bind)
    assert found == ("aal2", 300, "Once", "Object", "")


def applicable(
    *policies: dict[str, Any], body: bytes | None = None, labels: dict[str, str] | None = None, known: bool = True
) -> Applicable:
    index = PolicyIndex()
    for one in policies:
        index.put_policy(Policy.parse(one))
    if known:
        index.put_namespace("prod", {"env": "prod"} if labels is None else labels)
    request = decode(deletion() if body is None else body)
    return index.applicable(request.user_info, classify(request), subject_of(request))


def asked(*policies: dict[str, Any], **fields: Any) -> bool:
    return bool(applicable(*policies, **fields).demands)


class TestMatch:
    def test_by_namespace_label(self) -> None:
        assert asked(policy())
        assert not asked(policy(), labels={"env": "staging"})

    def test_an_unknown_namespace_matches_on_doubt(self) -> None:
        assert asked(policy(), known=False)

    @pytest.mark.parametrize(
        ("globs", "expected"), [(["prod"], True), (["pr*"], True), (["x", "p?od"], True), (["staging"], False)]
    )
    def test_by_namespace_glob(self, globs: list[str], expected: bool) -> None:
        assert asked(policy(match={"namespaces": globs})) is expected

    def test_selector_and_glob_must_both_hold(self) -> None:
        match = {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "namespaces": ["shop"]}
        assert not asked(policy(match=match))

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ({"key": "env", "operator": "In", "values": ["prod"]}, True),
            ({"key": "env", "operator": "NotIn", "values": ["prod"]}, False),
            ({"key": "tier", "operator": "NotIn", "values": ["one"]}, True),
            ({"key": "env", "operator": "Exists"}, True),
            ({"key": "env", "operator": "DoesNotExist"}, False),
        ],
    )
    def test_by_expression(self, expression: dict[str, Any], expected: bool) -> None:
        assert asked(policy(match={"namespaceSelector": {"matchExpressions": [expression]}})) is expected

    def test_by_object_label_old_or_new(self) -> None:
        only = policy(match={"objectSelector": {"matchLabels": {"tier": "one"}}})
        guarded = deployment(labels={"tier": "one"})
        assert asked(only, body=deletion(old=guarded))
        assert not asked(only, body=deletion())
        assert asked(only, body=review("UPDATE", old=guarded, new=deployment(image="b")))
        assert asked(only, body=review("UPDATE", old=deployment(), new=deployment(image="b", labels={"tier": "one"})))

    def test_unknown_object_labels_match_on_doubt_and_say_so(self) -> None:
        body = review("CONNECT", kind="Pod", name="web-1", sub_resource="exec", new={"command": ["ls"]})
        found = applicable(policy(match={"objectSelector": {"matchLabels": {"tier": "one"}}}), body=body)
        assert found.demands
        assert found.unknown_labels

    def test_cluster_scoped_objects_belong_to_policies_that_name_no_namespace(self) -> None:
        cordon = {"metadata": {"name": "n1"}, "spec": {"unschedulable": True}}
        body = review("UPDATE", kind="Node", name="n1", namespace=None, old={"metadata": {"name": "n1"}}, new=cordon)
        assert not asked(policy(), body=body)
        assert asked(policy(match={}), body=body)

    @pytest.mark.parametrize("labels", [{"env": "prod"}, {}])
    def test_a_namespace_itself_is_guarded_by_what_guards_its_inside(self, labels: dict[str, str]) -> None:
        old = {"metadata": {"name": "shop", "uid": "n", "labels": labels}}
        body = review("DELETE", kind="Namespace", name="shop", namespace="shop", old=old)
        assert asked(policy(), body=body) is bool(labels)

    def test_a_namespace_takes_what_a_rule_on_one_kind_guards(self) -> None:
        only = policy(rules=[rule(resources=["apps/deployments"])])
        old = {"metadata": {"name": "prod", "labels": {"env": "prod"}}}
        assert asked(only, body=review("DELETE", kind="Namespace", name="prod", namespace="prod", old=old))

    @pytest.mark.parametrize(
        ("globs", "expected"),
        [
            (["*"], True),
            (["deployments"], True),
            (["apps/deployments"], True),
            (["apps/*"], True),
            (["deploy*"], True),
            (["extensions/deployments"], False),
            (["core/services", "services", "/services"], False),
            (["core/pods"], True),  # it takes its pods along,
        ],
    )
    def test_by_resource(self, globs: list[str], expected: bool) -> None:
        assert asked(policy(rules=[rule(resources=globs)])) is expected

    @pytest.mark.parametrize("glob", ["pods", "core/pods", "/pods", "core/*"])
    def test_the_core_group_has_a_name(self, glob: str) -> None:
        body = review("DELETE", kind="Pod", name="web-1", old={"metadata": {"name": "web-1"}})
        assert asked(policy(rules=[rule(resources=[glob])]), body=body)

    def test_a_rule_on_restarts_is_not_walked_around_by_a_new_template(self) -> None:
        only = policy(rules=[rule(operations=["restart"])])
        assert asked(only, body=review("UPDATE", old=deployment(), new=deployment(image="b")))
        assert not asked(only, body=review("UPDATE", old=deployment(), new=deployment(replicas=9)))


class TestPeople:
    @pytest.mark.parametrize(
        ("subjects", "expected"),
        [
            ({"groups": ["devs"]}, True),
            ({"users": ["al*"]}, True),
            ({"users": ["bob"], "groups": ["ops"]}, False),
            ({"serviceAccounts": ["*/*"]}, False),
            ({}, False),
        ],
    )
    def test_subjects(self, subjects: dict[str, Any], expected: bool) -> None:
        assert asked(policy(match={"namespaces": ["prod"], "subjects": subjects})) is expected

    @pytest.mark.parametrize("who", ["exempt", "breakGlass"])
    def test_exempt_and_break_glass_pass_with_a_credential(self, who: str) -> None:
        found = applicable(policy(match={"namespaces": ["prod"], who: {"groups": ["devs"]}}))
        assert not found.demands
        assert (found.exempted_by or found.broken_by) == ("production",)

    @pytest.mark.parametrize("who", ["exempt", "breakGlass"])
    def test_a_name_without_a_credential_is_impersonation_and_gets_no_privilege(self, who: str) -> None:
        body = deletion(who=user(credential=None))
        assert asked(policy(match={"namespaces": ["prod"], who: {"groups": ["devs"], "users": ["alice"]}}), body=body)

    def test_an_exempt_service_account_comes_with_its_own_token(self) -> None:
        exempt = policy(match={"namespaces": ["prod"], "exempt": {"serviceAccounts": ["argocd/controller"]}})
        assert not asked(exempt, body=deletion(who=service_account("argocd", "controller")))
        assert asked(exempt, body=deletion(who=service_account("argocd", "other")))
        assert asked(exempt, body=deletion(who=service_account("argocd", "controller", credential=None)))
        certificate = user("system:serviceaccount:argocd:controller", credential="X509SHA256=aa")
        assert asked(exempt, body=deletion(who=certificate))

    def test_a_service_account_named_as_a_user_still_needs_its_token(self) -> None:
        name = "system:serviceaccount:argocd:controller"
        exempt = policy(match={"namespaces": ["prod"], "exempt": {"users": [name]}})
        assert asked(exempt, body=deletion(who=user(name, credential="X509SHA256=aa")))

    def test_an_exemption_counts_for_its_own_policy_only(self) -> None:
        lenient = policy("lenient", match={"namespaces": ["prod"], "exempt": {"groups": ["devs"]}})
        found = applicable(lenient, policy("strict"))
        assert [demand.requirement.policy for demand in found.demands] == ["strict"]
        assert found.policies == ("lenient", "strict")


def test_every_matching_policy_and_rule_makes_its_own_demand() -> None:
    two_rules = policy("one", rules=[rule(), rule(name="all", operations=["delete", "exec"])])
    found = applicable(two_rules, policy("two"))
    assert [(d.requirement.policy, d.requirement.rule) for d in found.demands] == [("one", "destroy"), ("one", "all"), ("two", "everything")]  # fmt: skip


def test_the_challenge_is_merged_for_the_screen() -> None:
    strict = policy(
        "a", require={"assurance": "aal3", "maxAge": "1h", "use": "Window", "reason": {"pattern": "OPS-.*"}}
    )
    found = applicable(strict, policy("b", require={"maxAge": "30s", "reason": {"pattern": ".*ok"}}))
    challenge = merged(demand.requirement for demand in found.demands)
    assert (challenge.assurance, challenge.max_age_seconds, challenge.use) == ("aal3", 30, "Once")
    assert challenge.reason_patterns == ("OPS-.*", ".*ok")
    assert challenge.describe() == "aal3, at most 30s old, policies a, b"


def test_phishing_resistance_is_asked_for_by_one_policy_and_shown() -> None:
    found = applicable(policy("a"), policy("b", require={"phishingResistant": True, "maxAge": "1h"}))
    challenge = merged(demand.requirement for demand in found.demands)
    assert challenge.phishing_resistant
    assert challenge.to_dict()["phishingResistant"]
    assert challenge.describe() == "aal2, phishing-resistant, at most 5m old, policies a, b"


def test_a_guard_asks_for_the_rule_that_is_phishing_resistant_before_the_shorter_one() -> None:
    quick = rule(name="quick", require={"maxAge": "1m"})
    safe = rule(name="safe", operations=["exec"], require={"phishingResistant": True, "maxAge": "1h"})
    (asked,) = Policy.parse(policy(rules=[quick, safe])).guarding_requirements
    assert (asked.rule, asked.phishing_resistant) == ("safe", True)


class TestIndex:
    def index(self, *names: str) -> PolicyIndex:
        index = PolicyIndex()
        index.put_namespace("prod", {"env": "prod"})
        for name in names:
            index.put_policy(Policy.parse(policy(name)))
        return index

    def demands(self, index: PolicyIndex) -> int:
        request = decode(deletion())
        return len(index.applicable(request.user_info, classify(request), subject_of(request)).demands)

    def test_follows_policies_that_come_change_and_go(self) -> None:
        index = self.index("a", "b")
        assert self.demands(index) == 2
        index.put_policy(Policy.parse(policy("b", match={"namespaces": ["other"]})))
        assert self.demands(index) == 1
        index.remove_policy("a")
        assert self.demands(index) == 0

    def test_follows_the_labels_of_a_namespace(self) -> None:
        index = self.index("a")
        assert self.demands(index) == 1
        index.put_namespace("prod", {})
        assert self.demands(index) == 0
        index.put_namespace("prod", {"env": "prod"})
        assert self.demands(index) == 1
        index.remove_namespace("prod")
        assert self.demands(index) == 1, "an unknown namespace matches on doubt"

    def test_an_unknown_namespace_is_not_remembered_as_matching(self) -> None:
        index = self.index("a")
        index.remove_namespace("prod")
        assert self.demands(index) == 1
        index.put_namespace("prod", {"env": "dev"})
        assert self.demands(index) == 0


def test_planning_knows_no_labels_and_asks_on_doubt() -> None:
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    index.put_policy(
        Policy.parse(policy(match={"namespaces": ["prod"], "objectSelector": {"matchLabels": {"a": "b"}}}))
    )
    request = decode(deletion())
    found = index.applicable(msgspec.convert(user(), UserInfo), classify(request), Subject())
    assert found.unknown_labels
    assert len(found.demands) == 1
