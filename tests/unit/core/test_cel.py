"""Conditions in CEL: the same answers as Kubernetes gives, errors at apply time, and bounds."""

from __future__ import annotations

import copy
import gc
import json
import time
from typing import Any

import msgspec
import pytest

from tests import cel_cases
from tests.builders import deployment, policy, review, user
from tests.cel_cases import CASES, NAMESPACE, REFUSED, VARIABLES, Case
from webhook.core.applicable import PolicyIndex, Subject, lazy_facts, subject_of
from webhook.core.cel import Activation, Condition, Conditions, Facts, NamespaceFacts
from webhook.core.classify import classify
from webhook.core.operation import DELETE, SCALE, Action, Target
from webhook.core.policy import Policy
from webhook.core.request import AdmissionRequest, decode
from webhook.errors import PolicyError

FIELD = "spec.rules[0].conditions[0].expression"
WEB = Target("apps", "deployments", "prod", "web", "u")
ANY_NAMESPACE = NamespaceFacts(NAMESPACE, {"env": "prod"}, {"example.com/note": "hello"})


def merged(base: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    found = dict(base) if isinstance(base, dict) else {}
    return {**found, **{key: merged(found.get(key), value) for key, value in patch.items()}}


def request(on: str) -> AdmissionRequest:
    gvr = {"update": ("apps", "deployments", "Deployment"), "create": ("", "configmaps", "ConfigMap")}
    group, resource, kind = gvr.get(on, gvr["create"])
    stamp = {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    old = merged(cel_cases.OLD if on == "update" else cel_cases.CONFIG, {"metadata": stamp})
    new = merged(old, cel_cases.CHANGES) if on == "update" else copy.deepcopy(old)
    options = {"update": "UpdateOptions", "create": "CreateOptions", "delete": "DeleteOptions"}[on]
    fields: dict[str, Any] = {
        "uid": "r",
        "kind": {"group": group, "version": "v1", "kind": kind},
        "resource": {"group": group, "version": "v1", "resource": resource},
        "requestKind": {"group": group, "version": "v1", "kind": kind},
        "requestResource": {"group": group, "version": "v1", "resource": resource},
        "name": old["metadata"]["name"],
        "namespace": NAMESPACE,
        "operation": on.upper(),
        "userInfo": user(),
        "object": None if on == "delete" else new,
        "oldObject": None if on == "create" else old,
        "dryRun": True,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]},
    }
    return decode(
        json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": fields}).encode()
    )


def facts(of: AdmissionRequest, namespace: NamespaceFacts | None = ANY_NAMESPACE) -> Facts:
    return Facts(of, lambda _: namespace)


def holds(expression: str, of: AdmissionRequest | None = None, action: Action | None = None) -> bool | str:
    """The answer; why there is none when there is none."""
    about = facts(of or request("update"))
    answer = Condition.compile(expression, FIELD).holds(Activation(about, action))
    return next(iter(about.failures)).problem if about.failures else answer


def refusal(expression: str) -> str:
    with pytest.raises(PolicyError) as caught:
        Condition.compile(expression, FIELD)
    assert caught.value.field == FIELD
    return caught.value.message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.expression)
def test_answers_as_kubernetes_does(case: Case) -> None:
    about = facts(request(case.on))
    variables = VARIABLES if "variables." in case.expression else ()
    answer = Conditions([case.expression], variables, "spec.rules[0]").hold(Activation(about))
    assert (not about.failures) == (case.answer != "error"), about.failures
    assert answer is (case.answer == "error" or case.answer)


@pytest.mark.parametrize("expression", REFUSED)
def test_refuses_what_kubernetes_refuses(expression: str) -> None:
    assert refusal(expression)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("object.spec.", "line 1, column 13: Syntax error"),
        ("object.x == 1 &&\n  foo == 1", "line 2, column 3: there is no variable foo; there are request, object"),
        ("object.x.isOdd()", "there is no function isOdd(), or not for these values"),
        ("object.x", "must be true or false (bool), not dyn"),
        ("object.x + 1", "must be true or false (bool), not int"),
        (" ", "must not be empty"),
        ("true || " * 128 + "true", "at most 1024 characters"),
        ("request.foo == 1", "request has no foo; it has kind, resource"),
        ("namespaceObject.spec == 1", "namespaceObject has no spec; it has metadata"),
        ("operation.verb == 'x'", "operation has no verb; it has class"),
        ("variables.x == 1", "not defined by an earlier entry of `variables`"),
        ("has(variables.x)", "the variable itself is always there"),
        ("object.x.all(i, v, i < v)", "two variables"),
        ("object.x.transformList(i, v, v) == []", "two variables"),
        ("object.x.sortBy(v, v.y) == []", "use sort()"),
        ("authorizer.group('').resource('pods').check('get').allowed()", "authorization checks"),
        ("google.protobuf.Timestamp{} == timestamp(0)", "google.protobuf.Timestamp{}"),
        ("'\ud800' == object.x", "not valid Unicode"),
        ("object.x" + ".y" * 120 + " == 1", "nested too deeply"),
        (
            "object.x.all(a, a.all(b, b.all(c, c.all(d, d.all(e, e == 1)))))",
            "more than 4 comprehensions",
        ),
    ],
)
def test_says_what_is_wrong_with_an_expression(expression: str, text: str) -> None:
    assert text in refusal(expression)


def test_what_an_action_does_can_be_read() -> None:
    scale = Action(SCALE, WEB, "", also=("restart",), replicas_from=3, replicas_to=0)
    assert holds("operation.class == 'scale' && operation.replicasTo == 0 && operation.replicasFrom == 3", action=scale)
    assert holds("operation.classes == ['scale', 'restart'] && operation.target.name == 'web'", action=scale)
    assert holds("operation.targets.size() == 1 && operation.targets[0].resource == 'deployments'", action=scale)
    unknown = Action(SCALE, WEB, "")
    assert holds("has(operation.replicasTo)", action=unknown) is False
    assert holds("operation.replicasTo > 5", action=unknown) == "no such key: replicasTo"


def test_what_cannot_be_evaluated_counts_as_true_and_is_noted() -> None:
    about = facts(request("update"))
    assert Condition.compile("object.nothing == 1", FIELD).holds(Activation(about), "production")
    (failure,) = about.failures
    assert (failure.policy, failure.field, failure.problem) == ("production", FIELD, "no such key: nothing")


def test_one_false_condition_is_enough_though_another_fails() -> None:
    about = facts(request("update"))
    conditions = Conditions(["object.nothing == 1", "object.spec.replicas == 5"], (), "spec.rules[0]")
    assert not conditions.hold(Activation(about))


def test_an_unknown_namespace_or_unknown_annotations_count_as_failure() -> None:
    about = facts(request("update"), None)
    assert Condition.compile("namespaceObject.metadata.labels.env == 'x'", FIELD).holds(Activation(about))
    assert "is not known" in next(iter(about.failures)).problem
    about = facts(request("update"), NamespaceFacts(NAMESPACE, {"env": "prod"}))
    assert not Condition.compile("namespaceObject.metadata.labels.env == 'x'", FIELD).holds(Activation(about))
    assert Condition.compile("has(namespaceObject.metadata.annotations)", FIELD).holds(Activation(about))
    assert "annotations" in next(iter(about.failures)).problem


@pytest.mark.parametrize("kind", ["Namespace", "Node"])
def test_what_is_in_no_namespace_has_no_namespace_object(kind: str) -> None:
    namespace = "web" if kind == "Namespace" else None
    assert holds("namespaceObject == null", decode(review("DELETE", kind=kind, namespace=namespace, old={})))


def test_named_expressions_are_evaluated_when_they_are_read_and_once() -> None:
    variables = [("list", "object.spec.template.spec.containers"), ("first", "variables.list[0].name")]
    conditions = Conditions(["variables.first == 'main' || variables.first == 'x'"], variables, "spec.rules[0]")
    about = facts(request("update"))
    assert conditions.hold(Activation(about))
    assert not about.failures


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ([("a-b", "1")], "spec.rules[0].variables[0].name"),
        ([("a", "1"), ("a", "2")], "spec.rules[0].variables[1].name"),
        ([("a", "variables.b"), ("b", "1")], "spec.rules[0].variables[0].expression"),
        ([(f"v{n}", "1") for n in range(17)], "spec.rules[0].variables"),
    ],
)
def test_named_expressions_are_checked(variables: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Conditions(["true"], variables, "spec.rules[0]")
    assert caught.value.field == field


def test_a_rule_has_at_most_sixteen_conditions() -> None:
    with pytest.raises(PolicyError, match="at most 16"):
        Conditions(["true"] * 17, (), "spec.rules[0]")


@pytest.mark.parametrize(
    "expression",
    [
        "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c >= 0)))",
        "object.l.map(a, object.l.map(b, object)).size() > 0 && object.l.exists(a, object.l.exists(b, object == 1 || a < 0))",
        "object.l.all(a, object == object)",
        "[1,2,3,4,5,6,7,8].all(a, object.s.replace('', object.s).size() > 0)",
        "lists.range(1000000).size() > 0",
        "object.l.map(a, object.s).join(object.s).size() > 0 && object.l.all(a, object.l.map(b, object.s).join().size() > 0)",
        "object.l.all(a, object.s.matches('^(x+x+)+y$') == false)",
    ],
)
def test_what_would_cost_too_much_is_given_up_and_counts_as_true(expression: str) -> None:
    new = {"apiVersion": "v1", "kind": "ConfigMap", "l": list(range(1000)), "s": "x" * 100_000}
    about = facts(decode(review("CREATE", kind="ConfigMap", new=new)))
    condition = Condition.compile(expression, FIELD)
    started = time.process_time()
    assert condition.holds(Activation(about))
    assert time.process_time() - started < 1
    (failure,) = about.failures
    assert "cost" in failure.problem or "more than" in failure.problem


def test_costs_of_all_conditions_of_a_request_count_together() -> None:
    about = facts(decode(review("CREATE", kind="ConfigMap", new={"l": list(range(3000))})))
    condition = Condition.compile("object.l.all(a, a >= 0)", FIELD)
    answers = [condition.holds(Activation(about)) for _ in range(10)]
    assert all(answers)
    assert len(about.failures) == 1


def test_only_fields_that_are_read_are_decoded() -> None:
    condition = Condition.compile(
        "object.metadata.labels['a'] == 'b' && has(object.spec.x) && oldObject == null", FIELD
    )
    assert condition.trees == {"object": {"metadata": {"labels": {"a": None}}, "spec": {"x": None}}, "oldObject": None}
    about = facts(decode(review("UPDATE", old=deployment(), new=deployment(labels={"a": "b", "c": "d"}))))
    assert about.object("object", condition.trees["object"]) == {"metadata": {"labels": {"a": "b"}}, "spec": {}}


@pytest.mark.parametrize(
    ("expression", "read"),
    [
        ("object == oldObject", {"object": None, "oldObject": None}),
        ("object.spec.l[0].x == 1", {"object": {"spec": {"l": None}}}),
        ("object.spec.l.all(o, o.x == 1) && object.spec.a.b == 1", {"object": {"spec": {"l": None, "a": {"b": None}}}}),
        ("object.?a.?b.orValue(1) == 1", {"object": {"a": {"b": None}}}),
        ("object[request.name] == 1", {"object": None, "request": {"name": None}}),
        ("object.a.b == 1 && object.a == 1", {"object": {"a": None}}),
        ("object.a == 1 && object.a.b == 1", {"object": {"a": None}}),
        ("(true ? object : oldObject).a == 1", {"object": None, "oldObject": None}),
        ("[object].all(object, object.a == 1)", {"object": None}),
    ],
)
def test_what_is_read_is_never_underestimated(expression: str, read: object) -> None:
    assert Condition.compile(expression, FIELD).trees == read


def test_two_rules_that_read_different_fields_share_one_decoded_object() -> None:
    about = facts(request("update"))
    for expression in ("object.spec.replicas == 0", "object.metadata.name == 'web'", "object.kind == 'Deployment'"):
        assert Condition.compile(expression, FIELD).holds(Activation(about))
    assert not about.failures


def test_no_reference_is_lost_and_nothing_leaks() -> None:
    condition = Condition.compile("object.n == null && ip(object.ip).family() == 4 && object.?n.hasValue()", FIELD)
    of = decode(review("CREATE", kind="ConfigMap", new={"n": None, "ip": "10.0.0.1"}))
    condition.holds(Activation(facts(of)))

    def ours() -> int:  # other tests' threads make objects of their own meanwhile
        gc.collect()
        return sum(str(type(one).__module__).startswith("webhook.") for one in gc.get_objects())

    before = ours()
    for _ in range(200):
        assert condition.holds(Activation(facts(of)))
    assert ours() - before < 50


def asked(policies: list[dict[str, Any]], body: bytes, *, planned: bool = False) -> list[str]:
    """Names of the rules that ask."""
    index = PolicyIndex()
    for one in policies:
        index.put_policy(Policy.parse(one))
    index.put_namespace("prod", {"env": "prod"}, {})
    of = decode(body)
    actions = classify(of)
    subject = Subject() if planned else msgspec.structs.replace(subject_of(of), facts=lazy_facts(of, index, actions))
    return [demand.requirement.rule for demand in index.applicable(of.user_info, actions, subject).demands]


def conditional(*conditions: str, **rule: Any) -> dict[str, Any]:
    expressions = [{"expression": one} for one in conditions]
    rules = [{"name": "r", "operations": ["scale", "delete"], "conditions": expressions, **rule}]
    return policy(rules=rules)


def test_a_rule_asks_only_when_its_conditions_hold() -> None:
    to_zero = review("UPDATE", old=deployment(), new=deployment(replicas=0))
    to_five = review("UPDATE", old=deployment(), new=deployment(replicas=5))
    policies = [conditional("operation.replicasTo < operation.replicasFrom", "request.userInfo.username == 'alice'")]
    assert asked(policies, to_zero) == ["r"]
    assert asked(policies, to_five) == []
    assert asked(policies, to_five, planned=True) == ["r"], "nothing is known when a step-up is planned"


def test_deleting_a_namespace_is_asked_whatever_conditions_say_of_objects() -> None:
    namespace = {"metadata": {"name": "prod", "labels": {"env": "prod"}}}
    body = review("DELETE", kind="Namespace", name="prod", namespace="prod", old=namespace)
    assert asked([conditional("oldObject.metadata.labels.tier == 'gold' || false")], body) == ["r"]
    assert asked([conditional("oldObject != null && oldObject.kind == 'Deployment'")], body) == ["r"]
    assert asked([conditional("request.userInfo.username == 'bob'")], body) == []


def test_a_request_without_conditions_makes_no_facts() -> None:
    of = decode(review("UPDATE", old=deployment(), new=deployment(replicas=0)))
    index = PolicyIndex()
    index.put_policy(Policy.parse(policy()))
    made = lazy_facts(of, index, classify(of))
    subject = msgspec.structs.replace(subject_of(of), facts=made)
    assert index.applicable(of.user_info, classify(of), subject).demands
    assert made.made is None


def test_a_policy_with_a_bad_condition_is_refused_with_its_field() -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.parse(conditional("true", "foo == 1"))
    assert caught.value.field == "spec.rules[0].conditions[1].expression"


def test_exempt_people_are_only_noted_when_the_rule_would_have_asked() -> None:
    of = decode(review("DELETE", old=deployment()))
    index = PolicyIndex()
    exempting = conditional("request.operation == 'CREATE'")
    exempting["spec"]["match"]["exempt"] = {"users": ["alice"]}
    index.put_policy(Policy.parse(exempting))
    index.put_namespace("prod", {"env": "prod"})
    actions = classify(of)
    subject = msgspec.structs.replace(subject_of(of), facts=lazy_facts(of, index, actions))
    assert index.applicable(of.user_info, actions, subject).exempted_by == ()
    assert actions[0].operation == DELETE
