"""What `stepup policy lint` finds: each mistake, where it is, and what looks like it but is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import policy
from webhook.core.lint import Finding, findings, findings_in

NAMESPACES: dict[str, dict[str, str]] = {"payments-eu": {"env": "prod"}, "shop": {}}
PROD = {"namespaceSelector": {"matchLabels": {"env": "prod"}}}


def rule(name: str = "a", *operations: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "operations": list(operations or ("delete",)), **fields}


def found(*rules: dict[str, Any], **match: Any) -> list[tuple[str, str]]:
    """Code and field of all findings."""
    return [(one.code, one.field) for one in full(*rules, **match)]


def full(*rules: dict[str, Any], **match: Any) -> list[Finding]:
    return findings(policy(match={**PROD, **match}, rules=list(rules or (rule(),))))


def conditions(*expressions: str, **variables: str) -> dict[str, Any]:
    named = [{"name": name, "expression": expression} for name, expression in variables.items()]
    return {"conditions": [{"expression": one} for one in expressions], "variables": named}


class TestWhatIsNoMistake:
    def test_an_ordinary_policy(self) -> None:
        assert found() == []

    def test_a_rule_for_each_class(self) -> None:
        classes = ("delete", "scale", "exec", "restart", "deploy", "drain", "access", "guard")
        assert found(*(rule(one, one) for one in classes)) == []


class TestResources:
    @pytest.mark.parametrize(
        ("operation", "resource"),
        [
            ("drain", "deployments"),
            ("drain", "clusters.example.com/*"),
            ("drain", "apps/*"),
            ("scale", "core/pods"),
            ("scale", "configmaps"),
            ("restart", "secrets"),
            ("exec", "core/configmaps"),
            ("deploy", "services"),
            ("deploy", "rbac.authorization.k8s.io/roles"),
            ("access", "deployments"),
            ("access", "example.com/things"),
        ],
    )
    def test_that_no_request_of_the_class_is_about(self, operation: str, resource: str) -> None:
        assert found(rule("a", operation, resources=[resource])) == [("matches-nothing", "spec.rules[0].resources[0]")]

    @pytest.mark.parametrize(
        ("operation", "resource"),
        [
            ("drain", "core/nodes"),
            ("drain", "pods"),
            ("drain", "*"),
            ("drain", "core/*"),
            ("scale", "argoproj.io/rollouts"),
            ("scale", "rollouts"),
            ("scale", "apps/*"),
            ("exec", "services"),
            ("delete", "core/configmaps"),
            ("restart", "/pods"),
            ("deploy", "example.com/things"),
            ("access", "core/secrets"),
            ("guard", "core/configmaps"),
        ],
    )
    def test_that_some_request_of_the_class_is_about(self, operation: str, resource: str) -> None:
        match = {"namespaceSelector": None, "objectSelector": {"matchLabels": {"a": "b"}}}
        assert found(rule("a", operation, resources=[resource]), **match) == []

    def test_one_of_several_that_is_for_nothing(self) -> None:
        assert found(rule("a", "scale", resources=["apps/deployments", "core/pods"])) == [
            ("matches-nothing", "spec.rules[0].resources[1]")
        ]

    def test_a_class_that_none_of_them_can_be(self) -> None:
        assert found(rule("a", "delete", "drain", resources=["apps/deployments"])) == [
            ("matches-nothing", "spec.rules[0].operations[1]")
        ]

    @pytest.mark.parametrize("resource", ["storageclasses", "rbac.authorization.k8s.io/clusterroles"])
    def test_that_are_in_no_namespace_while_the_policy_is_about_namespaces(self, resource: str) -> None:
        assert found(rule("a", "delete", resources=[resource])) == [("matches-nothing", "spec.rules[0].resources[0]")]

    @pytest.mark.parametrize("resource", ["core/namespaces", "core/nodes", "nodes"])
    def test_whose_end_takes_along_what_is_in_one(self, resource: str) -> None:
        assert found(rule("a", "delete", resources=[resource])) == []

    @pytest.mark.parametrize("resource", ["core/nodes", "nodes", "persistentvolumes"])
    def test_what_takes_along_what_is_in_namespaces_is_asked_about(self, resource: str) -> None:
        assert found(rule("a", "delete", resources=[resource])) == []
        assert found(rule("a", "access", resources=["core/nodes"])) != []


class TestSubjects:
    def test_that_are_nobody(self) -> None:
        assert found(subjects={}) == [("matches-nothing", "spec.match.subjects")]

    @pytest.mark.parametrize(
        ("subjects", "exempt"),
        [
            ({"users": ["alice"]}, {"users": ["alice", "bob"]}),
            ({"users": ["alice"]}, {"users": ["a*"]}),
            ({"groups": ["devs-*"]}, {"groups": ["devs-*"]}),
            ({"serviceAccounts": ["ci/deployer"]}, {"serviceAccounts": ["ci/*"]}),
            ({"users": ["alice"], "groups": ["devs"]}, {"users": ["alice"], "groups": ["dev?"]}),
        ],
    )
    def test_that_are_all_exempt(self, subjects: dict[str, Any], exempt: dict[str, Any]) -> None:
        assert found(subjects=subjects, exempt=exempt) == [("exempt-swallows", "spec.match.exempt")]

    @pytest.mark.parametrize(
        ("subjects", "exempt"),
        [
            ({"users": ["alice", "bob"]}, {"users": ["alice"]}),
            ({"users": ["a*"]}, {"users": ["alice"]}),
            ({"users": ["alice"]}, {"groups": ["alice"]}),
        ],
    )
    def test_of_whom_some_are_left(self, subjects: dict[str, Any], exempt: dict[str, Any]) -> None:
        assert found(subjects=subjects, exempt=exempt) == []

    def test_everybody_exempt_swallows_whatever_subjects_say(self) -> None:
        codes = {code for code, _ in found(subjects={"users": ["alice"]}, exempt={"groups": ["*"]})}
        assert codes == {"swallows-everybody", "exempt-swallows"}

    def test_break_glass_for_somebody_who_is_exempt(self) -> None:
        assert found(exempt={"groups": ["sre"]}, breakGlass={"groups": ["sre", "commanders"]}) == [
            ("exempt-hides-break-glass", "spec.match.breakGlass.groups")
        ]

    def test_a_rule_for_somebody_who_is_exempt(self) -> None:
        only = conditions("request.userInfo.username == 'robot' && request.operation == 'DELETE'")
        assert found(rule(**only), exempt={"users": ["rob*"]}) == [
            ("exempt-swallows", "spec.rules[0].conditions[0].expression")
        ]
        assert found(rule(**only), exempt={"users": ["alice"]}) == []


class TestConditions:
    @pytest.mark.parametrize(
        ("expressions", "code"),
        [
            (("1 == 2",), "matches-nothing"),
            (("[1, 2].all(x, x > 1)",), "matches-nothing"),
            (("true",), "constant-condition"),
            (("1 / 0 == 1",), "constant-condition"),
            (("request.operation == 'DELETE'", "request.operation == 'CREATE'"), "matches-nothing"),
            (("object.kind == 'A' && 'B' == object.kind",), "matches-nothing"),
            (("operation.class == 'scale'",), "matches-nothing"),
        ],
    )
    def test_that_are_always_the_same_or_never_all_true(self, expressions: tuple[str, ...], code: str) -> None:
        (one,) = found(rule(**conditions(*expressions)))
        assert one == (code, f"spec.rules[0].conditions[{len(expressions) - 1}].expression")

    def test_that_contradict_each_other_in_a_variable(self) -> None:
        fields = conditions("variables.who == 'a'", "variables.who == 'b'", who="request.userInfo.username")
        assert found(rule(**fields)) == [("matches-nothing", "spec.rules[0].conditions[1].expression")]

    @pytest.mark.parametrize(
        "expressions",
        [
            ("request.operation == 'DELETE'", "request.name == 'CREATE'"),
            ("request.operation == 'DELETE' || request.operation == 'CREATE'",),
            ("request.operation == 'DELETE'", "request.operation == 'DELETE'"),
            ("object.spec.replicas == 1", "object.spec.replicas == 1.0"),
            ("operation.class == 'delete'",),
            ("object.items.all(x, x == 1) && object.items.exists(x, x == 2)",),
        ],
    )
    def test_that_depend_on_the_request(self, expressions: tuple[str, ...]) -> None:
        assert found(rule(**conditions(*expressions))) == []


class TestTwoRules:
    @pytest.mark.parametrize(
        ("first", "second"),
        [("OPS-[0-9]+", "CHG-[0-9]+"), ("OPS-7.*", "OPS-8"), (r"a\.b.*", r"a\+b"), ("aab?c", "ax")],
    )
    def test_whose_reasons_no_reason_can_be(self, first: str, second: str) -> None:
        rules = [rule(name, require={"reason": {"pattern": one}}) for name, one in (("a", first), ("b", second))]
        assert found(*rules) == [("reasons-contradict", "spec.rules[1].require.reason.pattern")]

    @pytest.mark.parametrize(
        ("first", "second"),
        [("OPS-[0-9]+", "OPS-[0-9]+ .*"), ("OPS|CHG", "CHG"), ("[A-Z]+-1", "OPS-1"), ("(?i)ops", "OPS"), ("ab?", "a")],
    )
    def test_whose_reasons_may_be_the_same(self, first: str, second: str) -> None:
        rules = [rule(name, require={"reason": {"pattern": one}}) for name, one in (("a", first), ("b", second))]
        assert "reasons-contradict" not in {code for code, _ in found(*rules)}

    def test_that_never_meet_may_contradict_each_other(self) -> None:
        one = rule("a", "delete", require={"reason": {"pattern": "OPS"}})
        assert found(one, rule("b", "scale", require={"reason": {"pattern": "CHG"}})) == []
        elsewhere = rule("b", "delete", resources=["core/pods"], require={"reason": {"pattern": "CHG"}})
        assert found({**one, "resources": ["apps/deployments"]}, elsewhere) == []

    @pytest.mark.parametrize(
        ("stricter", "laxer"),
        [
            ({}, {}),
            ({"maxAge": "1m"}, {"maxAge": "5m"}),
            ({"assurance": "aal2"}, {"assurance": "aal1"}),
            ({"use": "Once"}, {"use": "Window"}),
            ({"use": "Window"}, {"use": "Window", "scope": "Resource"}),
            ({"reason": {"pattern": "A.*"}}, {"reason": {"required": True}}),
        ],
    )
    def test_of_which_one_asks_nothing_that_the_other_does_not(
        self, stricter: dict[str, Any], laxer: dict[str, Any]
    ) -> None:
        wide, narrow = rule("wide", "delete", "scale", require=stricter), rule("narrow", "scale", resources=["apps/*"], require=laxer)  # fmt: skip
        assert found(wide, narrow) == [("shadowed", "spec.rules[1]")]
        assert found(narrow, wide) == [("shadowed", "spec.rules[0]")]
        if stricter != laxer:
            assert found(rule("a", require=laxer), rule("b", resources=["apps/*"], require=stricter)) == []

    def test_that_are_the_same_are_told_once(self) -> None:
        assert found(rule("a"), rule("b")) == [("shadowed", "spec.rules[1]")]

    def test_a_binding_of_another_kind_is_no_shadow(self) -> None:
        assert found(rule("a"), rule("b", require={"bind": "User"})) == []

    def test_a_rule_with_conditions_shadows_only_one_with_the_same(self) -> None:
        only = conditions("request.name == 'a'")
        assert found(rule("a", **only), rule("b", require={"maxAge": "10m"})) == []
        assert found(rule("a", **only), rule("b")) == [("shadowed", "spec.rules[0]")]
        assert found(rule("a", **only), rule("b", **only)) == [("shadowed", "spec.rules[1]")]
        assert found(rule("a"), rule("b", **only)) == [("shadowed", "spec.rules[1]")]


class TestRequirements:
    def test_an_assurance_that_no_factor_gives(self) -> None:
        assert found(rule(require={"assurance": "aal3"})) == [("locks-out", "spec.rules[0].require.assurance")]

    def test_what_needs_a_setting_is_a_note(self) -> None:
        notes = full(rule(require={"bind": "Session", "maxAge": "2h"}))
        assert [(one.severity, one.code) for one in notes] == [
            ("note", "needs-session-key"),
            ("note", "beyond-lifetime"),
        ]

    def test_once_with_a_wider_scope_is_an_error(self) -> None:
        (one,) = full(rule(require={"scope": "Namespace"}))
        assert (one.severity, one.code, one.field) == ("error", "bad-policy", "spec.rules[0].require.use")


class TestNamespacesOfACluster:
    @pytest.mark.parametrize(
        ("match", "fields"),
        [
            ({"namespaces": ["payments-*", "shop"]}, []),
            ({"namespaces": ["payments-*", "gone-*"]}, ["spec.match.namespaces[1]"]),
            ({"namespaces": ["gone"]}, ["spec.match.namespaces[0]", "spec.match"]),
            (PROD, []),
            ({"namespaceSelector": {"matchLabels": {"env": "production"}}}, ["spec.match"]),
            ({"objectSelector": {"matchLabels": {"a": "b"}}}, []),
        ],
    )
    def test_that_are_named_and_not_there(self, match: dict[str, Any], fields: list[str]) -> None:
        told = findings_in(policy(match=match), NAMESPACES)
        assert [(one.code, one.field) for one in told] == [("no-such-namespace", field) for field in fields]

    def test_a_policy_that_cannot_be_read_says_nothing_of_them(self) -> None:
        assert findings_in(policy(rules=[]), NAMESPACES) == []
