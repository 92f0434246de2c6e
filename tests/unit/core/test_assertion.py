"""Each way in which an assertion can be wrong has its own code."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import AUDIENCE, CREDENTIAL, ISSUER, UID, claims, deletion, detail, user
from webhook.core.assertion import CHECKS, AssertionClaims, Expected, check
from webhook.core.classify import classify
from webhook.core.policy import Policy
from webhook.core.request import UserInfo, decode
from webhook.core.requirement import Requirement

NOW = 1_800_000_000.0
EXPECTED = Expected(ISSUER, AUDIENCE, session_extra_key="example.com/session")
BASE = Requirement("production", "destroy")


def problem(
    changes: dict[str, Any] | None = None,
    requirement: Requirement = BASE,
    who: dict[str, Any] | None = None,
    now: float = NOW,
    body: bytes | None = None,
) -> str | None:
    request = decode(body or deletion())
    found = check(
        msgspec.convert(claims(NOW, **(changes or {})), AssertionClaims),
        requirement,
        classify(request)[0],
        msgspec.convert(who or user(), UserInfo),
        EXPECTED,
        now,
    )
    assert found is None or found.code in CHECKS
    return found.code if found else None


def require(**changes: Any) -> Requirement:
    return msgspec.structs.replace(BASE, **changes)


def test_a_fresh_assertion_of_this_person_for_this_object_satisfies() -> None:
    assert problem() is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "somebody"}, "wrong-issuer"),
        ({"aud": ["other-cluster"]}, "wrong-audience"),
        ({"aud": [AUDIENCE, "other-cluster"]}, "wrong-audience"),
        ({"aud": []}, "wrong-audience"),
        ({"sub": "bob"}, "wrong-subject"),
        ({"authorization_details": []}, "wrong-operation"),
        ({"authorization_details": [detail("exec")]}, "wrong-operation"),
        ({"authorization_details": [detail(type="urn:other")]}, "wrong-operation"),
        ({"authorization_details": [detail(namespace="staging")]}, "wrong-target"),
        ({"authorization_details": [detail(resource="statefulsets")]}, "wrong-target"),
        ({"authorization_details": [detail(group="")]}, "wrong-target"),
        ({"authorization_details": [detail(objects=[{"name": "api"}])]}, "wrong-target"),
        ({"authorization_details": [detail(objects=[])]}, "wrong-target"),
        ({"authorization_details": [detail(scope="Cluster")]}, "wrong-target"),
        ({"authorization_details": [detail(objects=[{"name": "web", "uid": "older"}])]}, "wrong-uid"),
        ({"authorization_details": [detail(objects=[{"name": "web", "uid": UID, "digest": "ffff"}])]}, "wrong-change"),
        ({"authorization_details": [detail(scope="Resource")]}, "scope-too-wide"),
        ({"authorization_details": [detail(scope="Namespace")]}, "scope-too-wide"),
        ({"cnf": {"credential_id": "X509SHA256=other"}}, "wrong-credential"),
        ({"cnf": {}}, "wrong-credential"),
        ({"nbf": int(NOW) + 60}, "not-yet-valid"),
        ({"iat": int(NOW) + 60}, "not-yet-valid"),
        ({"auth_time": int(NOW) + 60}, "not-yet-valid"),
        ({"exp": int(NOW)}, "expired"),
        ({"exp": int(NOW) - 1}, "expired"),
        ({"auth_time": int(NOW) - 301}, "authentication-too-old"),
        ({"acr": "aal1"}, "assurance-too-low"),
        ({"acr": "aal9"}, "assurance-too-low"),
    ],
)
def test_one_claim_wrong_has_its_own_code(changes: dict[str, Any], code: str) -> None:
    assert problem(changes) == code


def test_a_clock_that_is_a_little_ahead_is_forgiven_but_nothing_after_expiry() -> None:
    assert problem({"nbf": int(NOW) + 9, "iat": int(NOW) + 9, "auth_time": int(NOW) + 9}) is None
    assert problem(now=NOW + 299.9) is None
    assert problem(now=NOW + 300, requirement=require(max_age_seconds=900)) == "expired"


def test_age_is_that_of_the_authentication_not_of_the_token() -> None:
    late = {"auth_time": int(NOW) - 400, "iat": int(NOW), "exp": int(NOW) + 300}
    assert problem(late) == "authentication-too-old"
    assert problem(late, require(max_age_seconds=600)) is None


@pytest.mark.parametrize(
    ("asked", "given", "code"),
    [(True, {}, "not-phishing-resistant"), (True, {"phishing_resistant": True}, None), (False, {}, None)],
)
def test_what_could_be_phished_is_not_enough_where_that_is_asked(
    asked: bool, given: dict[str, Any], code: str | None
) -> None:
    assert problem(given, require(phishing_resistant=asked)) == code


@pytest.mark.parametrize(
    ("asked", "given", "enough"), [("aal1", "aal2", True), ("aal2", "aal2", True), ("aal3", "aal2", False)]
)
def test_assurance_is_ordered(asked: str, given: str, enough: bool) -> None:
    assert problem({"acr": given}, require(assurance=asked)) == (None if enough else "assurance-too-low")


@pytest.mark.parametrize(("scope", "code"), [("Object", "scope-too-wide"), ("Resource", None), ("Namespace", None)])
def test_a_wider_scope_does_where_the_policy_says_so(scope: str, code: str | None) -> None:
    wide = {"authorization_details": [detail(scope="Resource", objects=[])]}
    assert problem(wide, require(scope=scope, use="Window")) == code


def test_a_namespace_scope_covers_every_kind_in_it_and_nothing_without_one() -> None:
    wide = {"authorization_details": [detail(scope="Namespace", group="", resource="", objects=[])]}
    assert problem(wide, require(scope="Namespace", use="Window")) is None
    nowhere = {"authorization_details": [detail(scope="Namespace", group="", resource="", namespace="", objects=[])]}
    body = deletion(namespace=None)
    assert problem(nowhere, require(scope="Namespace", use="Window"), body=body) == "wrong-target"


def test_one_of_several_details_is_enough_and_the_closest_is_told() -> None:
    both = [detail("exec"), detail(objects=[{"name": "web", "uid": "older"}]), detail()]
    assert problem({"authorization_details": both}) is None
    assert problem({"authorization_details": both[:2]}) == "wrong-uid"


class TestBinding:
    def test_a_credential_without_id_is_bound_to_the_person_unless_the_policy_says_otherwise(self) -> None:
        who = user(credential=None)
        assert problem({"cnf": None}, who=who) is None
        assert problem({"cnf": None}, require(bind="Credential"), who=who) == "wrong-credential"
        assert problem(who=who) == "wrong-credential"

    def test_bound_to_the_user_any_credential_does(self) -> None:
        assert problem({"cnf": {"credential_id": "X509SHA256=other"}}, require(bind="User")) is None

    @pytest.mark.parametrize(("session", "code"), [("s1", None), ("s2", "wrong-session"), (None, "wrong-session")])
    def test_bound_to_the_session(self, session: str | None, code: str | None) -> None:
        who = user()
        if session:
            who["extra"]["example.com/session"] = [session]
        changes = {"cnf": {"credential_id": "JTI=renewed", "session_id": "s1"}}
        assert problem(changes, require(bind="Session"), who=who) == code

    def test_two_credential_ids_are_none(self) -> None:
        who = user()
        who["extra"]["authentication.kubernetes.io/credential-id"] = [CREDENTIAL, "X509SHA256=other"]
        assert problem(who=who) == "wrong-credential"


class TestReason:
    RULE = (
        Policy.parse(
            {
                "apiVersion": "kube-stepup.io/v1alpha1",
                "kind": "StepUpPolicy",
                "metadata": {"name": "p"},
                "spec": {
                    "rules": [{"name": "r", "operations": ["delete"], "require": {"reason": {"pattern": "OPS-[0-9]+"}}}]
                },
            }
        )
        .rules[0]
        .requirement
    )

    @pytest.mark.parametrize(
        ("reason", "code"),
        [("OPS-7", None), ("", "reason-missing"), ("  ", "reason-missing"), ("because", "reason-mismatch"), ("OPS-7 and more", "reason-mismatch")],
    )  # fmt: skip
    def test_a_reason_must_be_there_and_match_from_start_to_end(self, reason: str, code: str | None) -> None:
        assert problem({"reason": reason}, self.RULE) == code

    def test_a_missing_reason_is_an_empty_one(self) -> None:
        assert problem({"reason": None}, self.RULE) == "reason-missing"
        assert problem({"reason": None}) is None
