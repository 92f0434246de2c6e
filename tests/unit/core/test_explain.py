"""An explanation says of each policy and rule what it fails on, and never comes to anything else than the decision does."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from tests.builders import deletion, deployment, pod, policy, review, service_account, user
from webhook.core.applicable import PolicyIndex, Subject, lazy_facts, subject_of
from webhook.core.cel import Condition
from webhook.core.classify import classify
from webhook.core.explain import explain
from webhook.core.explanation import Explanation, PolicySays
from webhook.core.guard import Guard, guarding_action
from webhook.core.operation import Action, Target
from webhook.core.policy import Policy
from webhook.core.request import UserInfo, decode

DELETE: dict[str, Any] = {"name": "destroy", "operations": ["delete"]}


def index_of(*policies: dict[str, Any]) -> PolicyIndex:
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    index.put_namespace("staging", {"env": "staging"})
    for one in policies:
        index.put_policy(Policy.parse(one))
    return index


def facts_of(index: PolicyIndex, body: bytes) -> tuple[UserInfo, tuple[Action, ...], Subject]:
    """As the admission webhook puts a review to the policies."""
    request = decode(body)
    actions = classify(request)
    weakened = Guard(index, "kube-stepup").weakened_by(request)
    if weakened:
        actions = (*actions, guarding_action(request))
    facts = lazy_facts(request, index, actions)
    return request.user_info, actions, msgspec.structs.replace(subject_of(request), weakened=weakened, facts=facts)


def explained(one: dict[str, Any], body: bytes | None = None) -> PolicySays:
    index = index_of(one)
    explanation = explain(index, *facts_of(index, body or deletion()))
    return explanation.actions[0].policies[0]


@pytest.mark.parametrize(
    ("spec", "verdict", "why"),
    [
        ({}, "applies", "it matches"),
        ({"match": {"namespaces": ["dev-*"]}}, "namespace", "it is not about the namespace prod"),
        ({"match": {"namespaceSelector": {"matchLabels": {"env": "dev"}}}}, "namespace", "the namespace prod"),
        ({"rules": [{"name": "shells", "operations": ["exec"]}]}, "class", "no rule of it is about delete"),
        ({"rules": [{**DELETE, "resources": ["services"]}]}, "resource", "about delete names apps/deployments"),
        ({"rules": [{**DELETE, "resources": ["pods"]}]}, "applies", "it is about what goes along"),
        ({"match": {"subjects": {"groups": ["sres"]}}}, "subject", "its subjects do not include alice"),
        ({"match": {"objectSelector": {"matchLabels": {"tier": "db"}}}}, "object", "does not select the object"),
        ({"rules": [{**DELETE, "conditions": [{"expression": "request.name == 'db'"}]}]}, "condition", "is false"),
        ({"match": {"exempt": {"users": ["alice"]}}}, "exempt", "it exempts alice"),
        ({"match": {"breakGlass": {"groups": ["devs"]}}}, "break-glass", "told loudly"),
    ],
)
def test_a_policy_says_what_it_fails_on_first(spec: dict[str, Any], verdict: str, why: str) -> None:
    says = explained(policy(**spec))
    assert says.verdict == verdict
    assert why in says.why


def test_each_rule_has_a_verdict_of_its_own() -> None:
    rules = [
        {"name": "shells", "operations": ["exec"]},
        {**DELETE, "name": "services", "resources": ["services"]},
        {**DELETE, "name": "others", "conditions": [{"expression": "request.name == 'db'"}]},
        {**DELETE, "name": "all", "conditions": [{"expression": "request.name == 'web'"}]},
    ]
    says = explained(policy(rules=rules))
    assert {one.rule: one.verdict for one in says.rules} == {
        "shells": "class",
        "services": "resource",
        "others": "condition",
        "all": "applies",
    }


def test_conditions_tell_which_is_false_which_cannot_be_evaluated_and_which_is_not_reached() -> None:
    texts = ["request.name == 'web'", "oldObject.spec.nothing == 1", "object != null", "true"]
    says = explained(policy(rules=[{**DELETE, "conditions": [{"expression": text} for text in texts]}]))
    (rule,) = says.rules
    assert [one.value for one in rule.conditions] == ["true", "unknown", "false", "not-reached"]
    assert rule.conditions[1].problem
    assert [one.expression for one in rule.conditions] == texts


def test_an_exemption_by_a_bare_name_is_noted_but_does_not_count() -> None:
    says = explained(policy(match={"exempt": {"users": ["alice"]}}), deletion(who=user(credential=None)))
    assert says.verdict == "applies"
    assert "only with a credential" in says.notes[0]


def test_what_nobody_knows_counts_as_matching_and_is_noted() -> None:
    index = index_of(policy(match={"objectSelector": {"matchLabels": {"tier": "db"}}}))
    index.put_policy(Policy.parse(policy("new", match={"namespaceSelector": {"matchLabels": {"env": "new"}}})))
    action = Action("exec", Target("", "pods", "unseen", "web-1"), "")
    says = explain(index, UserInfo(username="alice"), [action], Subject()).actions[0].policies
    assert [one.verdict for one in says] == ["applies", "applies"]
    assert "labels are not known" in says[0].notes[0]
    assert "labels of the namespace unseen are not known" in says[1].notes[0]


def test_a_condition_that_reads_what_is_not_told_is_unknown_and_its_rule_applies() -> None:
    conditions = [{"expression": "request.name == 'db'"}, {"expression": "object == null"}]
    index = index_of(policy(rules=[{**DELETE, "conditions": conditions}]))
    user_info, actions, subject = facts_of(index, deletion())

    def reads_no_name(one: Condition) -> bool:
        return "request" not in one.trees

    says = explain(index, user_info, actions, subject, can_be_known=reads_no_name).actions[0].policies[0]
    assert [one.value for one in says.rules[0].conditions] == ["unknown", "true"]
    assert says.verdict == "applies"


def test_who_weakens_a_policy_is_told_which() -> None:
    index = index_of(policy("production"), policy("other", match={"namespaces": ["elsewhere"]}))
    old, new = ({"metadata": {"name": "prod", "labels": labels}} for labels in ({"env": "prod"}, {}))
    body = review("UPDATE", kind="Namespace", name="prod", namespace=None, old=old, new=new)
    explanation = explain(index, *facts_of(index, body))
    guard = next(one for one in explanation.actions if one.action.operation == "guard")
    assert {one.policy: one.verdict for one in guard.policies} == {"production": "applies", "other": "not-weakened"}


class TestWhatAPersonIsTold:
    def told(self, *policies: dict[str, Any]) -> Explanation:
        index = index_of(*policies)
        return explain(index, *facts_of(index, deletion())).of_the_person()

    def test_nothing_of_policies_for_others_elsewhere_or_for_something_else(self) -> None:
        secret = [
            policy("a-subject", match={"subjects": {"users": ["ceo"]}}),
            policy("a-namespace", match={"namespaces": ["merger"]}),
            policy("a-class", rules=[{"name": "r", "operations": ["exec"]}]),
            policy("a-resource", rules=[{**DELETE, "resources": ["vaults"]}]),
            policy("an-object", match={"objectSelector": {"matchLabels": {"tier": "db"}}}),
        ]
        assert self.told(*secret).actions[0].policies == ()

    def test_rules_for_something_else_and_what_conditions_say_are_left_out(self) -> None:
        rules = [
            {"name": "shells", "operations": ["exec"]},
            {**DELETE, "conditions": [{"expression": "oldObject.metadata.labels['heir'] != 'bob'"}]},
        ]
        told = self.told(policy(rules=rules))
        assert [one.rule for one in told.actions[0].policies[0].rules] == ["destroy"]
        text = msgspec.json.encode(told.to_dict()).decode()
        assert "bob" not in text
        assert "heir" not in text
        assert "spec.rules[1].conditions[0].expression" in text

    def test_policies_that_would_ask_but_for_an_exemption_or_a_condition(self) -> None:
        told = self.told(
            policy("exempting", match={"exempt": {"users": ["alice"]}}),
            policy("conditional", rules=[{**DELETE, "conditions": [{"expression": "false"}]}]),
        )
        assert [one.verdict for one in told.actions[0].policies] == ["exempt", "condition"]


def test_the_json_form_says_what_a_rule_takes() -> None:
    index = index_of(policy(require={"assurance": "aal3", "maxAge": "2m"}))
    found = explain(index, *facts_of(index, deletion())).to_dict()
    (one,) = found["actions"]
    assert (one["operation"], one["resource"], one["name"]) == ("delete", "deployments", "web")
    requires = one["policies"][0]["rules"][0]["requires"]
    assert (requires["acr_values"], requires["max_age"]) == ("aal3", 120)


MATCHES: list[dict[str, Any]] = [
    {},
    {"namespaces": ["prod"]},
    {"namespaceSelector": {"matchLabels": {"env": "prod"}}},
    {"objectSelector": {"matchLabels": {"tier": "db"}}},
    {"subjects": {"groups": ["sres"]}},
    {"exempt": {"users": ["alice"]}},
    {"breakGlass": {"groups": ["devs"]}},
]
RULES: list[list[dict[str, Any]]] = [
    [{"name": "all", "operations": ["delete", "exec", "scale", "deploy", "restart", "drain", "access", "guard"]}],
    [{**DELETE, "resources": ["pods", "namespaces"]}, {"name": "d", "operations": ["drain", "restart"]}],
    [{**DELETE, "conditions": [{"expression": "request.name == 'web'"}, {"expression": "oldObject.spec.x == 1"}]}],
    [{**DELETE, "conditions": [{"expression": "operation.target.name == 'db'"}]}, {**DELETE, "name": "second"}],
]
REVIEWS = [
    deletion(),
    deletion(old=deployment(labels={"tier": "db"})),
    deletion(namespace="staging"),
    deletion(namespace="unseen", who=user("bob", "sres")),
    deletion(who=user(credential=None)),
    deletion(who=service_account("ci", "robot")),
    review("DELETE", kind="Node", name="n1", namespace=None, old={"metadata": {"name": "n1"}}),
    review("DELETE", kind="Namespace", name="prod", namespace="prod", old={"metadata": {"name": "prod"}}),
    review(
        "UPDATE",
        kind="Namespace",
        name="prod",
        namespace="prod",
        old={"metadata": {"name": "prod", "labels": {"env": "prod"}}},
        new={"metadata": {"name": "prod", "labels": {}}},
    ),
    review("CONNECT", kind="Pod", name="web-1", sub_resource="exec", new={"command": ["sh"]}),
    review("CREATE", kind="Pod", name="web-1", sub_resource="eviction", new={"metadata": {"name": "web-1"}}),
    review("UPDATE", old=deployment(), new=deployment(image="nginx:2", replicas=5)),
    review("DELETE", kind="Pod", name="web-1", old=pod()),
]


@pytest.mark.parametrize("body", REVIEWS)
@pytest.mark.parametrize(("match", "rules"), list(itertools.product(MATCHES, RULES)))
def test_the_explanation_demands_what_the_decision_demands(
    match: dict[str, Any], rules: list[dict[str, Any]], body: bytes
) -> None:
    index = index_of(policy("one", match=match, rules=rules), policy("two", enforcement="Warn"))
    applicable = index.applicable(*facts_of(index, body))
    explanation = explain(index, *facts_of(index, body))
    assert explanation.demands == applicable.demands
    policies = [one for action in explanation.actions for one in action.policies]
    assert {one.policy for one in policies if one.verdict == "exempt"} == set(applicable.exempted_by)
    assert {one.policy for one in policies if one.verdict == "break-glass"} == set(applicable.broken_by)
