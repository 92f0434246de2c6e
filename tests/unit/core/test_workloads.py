"""Pipelines in a policy: which are refused, which are taken, and what an assertion of theirs is good for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import AUDIENCE, ISSUER, claims, deletion, policy, user
from webhook.core.assertion import AssertionClaims, Expected, check
from webhook.core.classify import classify
from webhook.core.policy import Policy
from webhook.core.request import UserInfo, decode
from webhook.core.requirement import Requirement
from webhook.core.workloads import CLUSTER, WorkloadIdentity, Workloads
from webhook.errors import PolicyError

GITHUB = "https://token.actions.githubusercontent.com"
NOW = 1_800_000_000.0
TOKEN = {
    "iss": GITHUB,
    "aud": "test-cluster",
    "sub": "repo:acme/shop:ref:refs/heads/main",
    "repository": "acme/shop",
    "ref": "refs/heads/main",
    "runner_environment": "github-hosted",
    "run_attempt": 1,
}


def entry(*expressions: str, **fields: Any) -> dict[str, Any]:
    conditions = [{"expression": one} for one in expressions or ("claims.repository == 'acme/shop'",)]
    return {"issuer": GITHUB, "conditions": conditions, **fields}


def of_accounts(*accounts: str, **fields: Any) -> dict[str, Any]:
    return {"serviceAccounts": list(accounts), **fields}


def requirement(*entries: dict[str, Any], require: dict[str, Any] | None = None) -> Requirement:
    rule = {"name": "destroy", "operations": ["delete"], "workloads": list(entries), "require": require or {}}
    return Policy.parse(policy(rules=[rule])).rules[0].requirement


def workloads(*entries: dict[str, Any]) -> Workloads:
    found = requirement(*entries).workloads
    assert found is not None
    return found


def pipeline(issuer: str = GITHUB, **changes: Any) -> WorkloadIdentity:
    said = {key: value for key, value in {**TOKEN, **changes}.items() if value is not None}
    return WorkloadIdentity(issuer=issuer, subject=str(said.get("sub")), claims=said)


def account(name: str = "ci/deployer") -> WorkloadIdentity:
    said = {"sub": f"system:serviceaccount:{name.replace('/', ':')}", "pod": {"name": "runner-1", "uid": "u"}}
    return WorkloadIdentity(issuer=CLUSTER, subject=said["sub"], claims=said, service_account=name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "field"),
    [
        ({}, "spec.rules[0].workloads[0]"),
        ({"conditions": [{"expression": "true"}]}, "spec.rules[0].workloads[0]"),
        ({**entry(), **of_accounts("ci/deployer")}, "spec.rules[0].workloads[0]"),
        (entry(issuer="http://issuer.example.com"), "spec.rules[0].workloads[0].issuer"),
        (entry(issuer="https://"), "spec.rules[0].workloads[0].issuer"),
        (entry(issuer="https://issuer.example.com?a=b"), "spec.rules[0].workloads[0].issuer"),
        (entry(issuer="https://me@issuer.example.com"), "spec.rules[0].workloads[0].issuer"),
        ({"issuer": GITHUB}, "spec.rules[0].workloads[0].conditions"),
        (of_accounts("deployer"), "spec.rules[0].workloads[0].serviceAccounts"),
        (of_accounts("ci/deployer", audience="a"), "spec.rules[0].workloads[0].audience"),
        (entry("claims.repository =="), "spec.rules[0].workloads[0].conditions[0].expression"),
        (entry("claims.repository"), "spec.rules[0].workloads[0].conditions[0].expression"),
        (entry("'acme/shop'"), "spec.rules[0].workloads[0].conditions[0].expression"),
        (entry("true", "object.metadata.name == 'web'"), "spec.rules[0].workloads[0].conditions[1].expression"),
        (entry("request.userInfo.username == 'ci'"), "spec.rules[0].workloads[0].conditions[0].expression"),
        (entry(*["true"] * 17), "spec.rules[0].workloads[0].conditions"),
        (entry(claims={}), "spec.rules[0].workloads[0]"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(found: dict[str, Any], field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        requirement(found)
    assert caught.value.field == field


def test_an_unknown_variable_is_named_with_the_one_that_there_is() -> None:
    with pytest.raises(PolicyError, match=r"no variable claim.repository; there is claims"):
        requirement(entry("claim.repository == 'acme/shop'"))


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ("claims.repository == 'acme/shop' && claims.ref == 'refs/heads/main'", True),
        ("claims.repository == 'acme/other'", False),
        ("claims.ref.startsWith('refs/tags/')", False),
        ("claims.runner_environment == 'github-hosted'", True),
        ("claims.run_attempt == 1", True),
        ("claims.environment == 'production'", False),  # no such claim: nothing is known of it
        ("!(claims.environment == 'development')", False),
        ("has(claims.environment)", False),
        ("!has(claims.environment)", True),
        ("claims.ref > 1", False),
        ("claims['repository'] in ['acme/shop', 'acme/web']", True),
    ],
)
def test_a_condition_takes_a_token_when_it_is_true_and_never_when_it_fails(condition: str, taken: bool) -> None:
    assert workloads(entry(condition)).accept(pipeline()) is taken


def test_all_conditions_of_one_entry_must_hold_and_one_entry_is_enough() -> None:
    main, shop = "claims.ref == 'refs/heads/main'", "claims.repository == 'acme/shop'"
    assert not workloads(entry(main, shop)).accept(pipeline(repository="acme/other"))
    assert workloads(entry(main, shop), entry("claims.repository == 'acme/other'")).accept(
        pipeline(repository="acme/other", ref="refs/heads/topic")
    )


def test_a_token_of_another_issuer_is_none_whatever_it_says() -> None:
    assert not workloads(entry()).accept(pipeline("https://issuer.example.com"))
    assert not workloads(entry()).accept(pipeline(GITHUB + "/"))


@pytest.mark.parametrize(
    ("audience", "taken"),
    [("test-cluster", True), (["test-cluster"], True), ("other", False), (["other"], False), (None, False)],
)
def test_an_entry_can_ask_for_an_audience(audience: Any, taken: bool) -> None:
    assert workloads(entry(audience="test-cluster")).accept(pipeline(aud=audience)) is taken


def test_a_service_account_is_taken_by_its_name_and_by_conditions_on_its_pod() -> None:
    found = workloads(of_accounts("ci/deployer", conditions=[{"expression": "claims.pod.name.startsWith('runner-')"}]))
    assert found.accept(account())
    assert not found.accept(account("ci/other"))
    assert not workloads(of_accounts("ci/deployer", conditions=[{"expression": "claims.pod.name == 'x'"}])).accept(
        account()
    )


def test_an_account_is_no_token_of_an_issuer_and_the_other_way_round() -> None:
    assert not workloads(entry("true")).accept(account())
    assert not workloads(of_accounts("ci/*")).accept(pipeline())
    assert not workloads(of_accounts("*/*")).accept(pipeline(CLUSTER))


def problem(required: Requirement, *, who: dict[str, Any] | None = None, now: float = NOW, **changes: Any) -> str:
    key = required.workloads.key if required.workloads else "production/destroy#0000000000000000"
    met = {"issuer": GITHUB, "subject": "repo:acme/shop", "met": [key]}
    given = claims(NOW, **{"acr": "workload", "amr": ["workload"], "workload": met, **changes})
    found = check(
        msgspec.convert(given, AssertionClaims),
        required,
        classify(decode(deletion()))[0],
        msgspec.convert(who or user(), UserInfo),
        Expected(ISSUER, AUDIENCE),
        now,
    )
    return found.code if found else ""


TAKING = requirement(entry())


def test_the_assertion_of_a_pipeline_meets_the_rule_that_took_it() -> None:
    assert problem(TAKING) == ""


def test_a_person_still_meets_a_rule_that_takes_pipelines() -> None:
    assert problem(TAKING, acr="aal2", amr=["otp"], workload=None) == ""


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"acr": "aal2"}, "workload-not-accepted"),
        ({"acr": "aal3"}, "workload-not-accepted"),
        ({"workload": None}, "workload-not-accepted"),
        ({"workload": {"issuer": GITHUB, "subject": "s", "met": []}}, "workload-not-accepted"),
        ({"workload": {"issuer": GITHUB, "subject": "s", "met": ["production/destroy"]}}, "workload-not-accepted"),
        ({"workload": {"issuer": GITHUB, "subject": "s", "met": ["other/destroy#1"]}}, "workload-not-accepted"),
        ({"cnf": {}}, "wrong-credential"),
        ({"cnf": {"credential_id": "JTI=other"}}, "wrong-credential"),
        ({"sub": "bob"}, "wrong-subject"),
        ({"auth_time": int(NOW) - 301}, "authentication-too-old"),
        ({"exp": int(NOW)}, "expired"),
    ],
)
def test_anything_else_is_no_proof(changes: dict[str, Any], code: str) -> None:
    assert problem(TAKING, **changes) == code


def test_a_rule_without_workloads_takes_none() -> None:
    assert problem(requirement()) == "workload-not-accepted"


def test_a_rule_that_says_something_else_now_does_not_take_what_was_exchanged_before() -> None:
    before = TAKING.workloads
    assert before is not None
    after = requirement(entry("claims.repository == 'acme/shop' && claims.environment == 'production'"))
    met = {"issuer": GITHUB, "subject": "s", "met": [before.key]}
    assert problem(after, workload=met) == "workload-not-accepted"
    assert problem(requirement(entry()), workload=met) == ""


@pytest.mark.parametrize("bind", ["User", "Session", "Credential"])
def test_it_is_bound_to_its_credential_whatever_the_rule_says_of_a_persons(bind: str) -> None:
    required = requirement(entry(), require={"bind": bind})
    assert problem(required) == ""
    assert problem(required, who=user(credential="JTI=other")) == "wrong-credential"
    nameless = user(credential=None)
    assert problem(required, who=nameless, cnf={}) == "wrong-credential"


def test_a_reason_is_asked_of_a_pipeline_too() -> None:
    required = requirement(entry(), require={"reason": {"pattern": "OPS-[0-9]+"}})
    assert problem(required, reason="OPS-7") == ""
    assert problem(required, reason="deploy") == "reason-mismatch"


def test_weakening_the_policy_takes_a_person_unless_a_guard_rule_names_the_pipeline() -> None:
    deploy = {"name": "roll-out", "operations": ["deploy"], "workloads": [entry()]}
    guard = {"name": "guard", "operations": ["guard"], "workloads": [entry()]}
    (without,) = Policy.parse(policy(rules=[deploy])).guarding_requirements
    (explicit,) = Policy.parse(policy(rules=[deploy, guard])).guarding_requirements
    assert without.workloads is None
    assert explicit.workloads is not None
