"""The decision: every demand met, `Once` used up by change, and what a refused person reads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import AUDIENCE, ISSUER, claims, deletion, deployment, detail, policy, review, service_account
from webhook.core.applicable import Applicable, PolicyIndex, subject_of
from webhook.core.assertion import AssertionClaims, Expected, Problem
from webhook.core.classify import classify
from webhook.core.decision import Candidate, Decision, Question, Record, Use, ask, decide
from webhook.core.identity import Controllers
from webhook.core.policy import Policy
from webhook.core.refusal import audit_annotations, causes, message, warning
from webhook.core.request import decode
from webhook.settings import ControllerIdentities

NOW = 1_800_000_000.0
EXPECTED = Expected(ISSUER, AUDIENCE)
IDENTITIES = ControllerIdentities()
CONTROLLERS = Controllers(IDENTITIES.service_accounts, IDENTITIES.certificate_users)
JTI = "elv-aaaaaaaaaaaaaaaaaaaa"


def candidate(record: dict[str, Any] | None = None, **changes: Any) -> Candidate:
    found = msgspec.convert(claims(NOW, **changes), AssertionClaims)
    return Candidate(found, Record(found.jti, **{"username": found.sub, **(record or {})}))


def decided(
    *policies: dict[str, Any],
    body: bytes | None = None,
    candidates: tuple[Candidate, ...] = (),
    rejected: tuple[Problem, ...] = (),
    now: float = NOW,
) -> Decision:
    index = PolicyIndex()
    index.put_namespace("prod", {"env": "prod"})
    for one in policies or (policy(),):
        index.put_policy(Policy.parse(one))
    request = decode(body or deletion())
    question = Question(request.user_info, classify(request), subject_of(request))
    first = ask(question, index, CONTROLLERS)
    if isinstance(first, Applicable):
        return decide(question, first, candidates, rejected, EXPECTED, now)
    return first


class TestWithoutProof:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (deletion(namespace="staging"), "not-required"),
            (review("CREATE", kind="ConfigMap", new={"metadata": {"name": "c"}}), "out-of-scope"),
            (deletion(who=service_account("kube-system", "generic-garbage-collector")), "controller"),
        ],
    )
    def test_what_nothing_asks_for_passes(self, body: bytes, code: str) -> None:
        index_policy = policy(match={"namespaces": ["prod"]})
        decision = decided(index_policy, body=body)
        assert (decision.allowed, decision.code) == (True, code)

    def test_a_guarded_request_is_refused(self) -> None:
        decision = decided()
        assert (decision.allowed, decision.code) == (False, "step-up-required")

    def test_break_glass_passes_and_is_told(self) -> None:
        decision = decided(policy(match={"namespaces": ["prod"], "breakGlass": {"groups": ["devs"]}}))
        assert (decision.allowed, decision.code) == (True, "break-glass")
        assert audit_annotations(decision)["break-glass"] == "production"

    def test_exempt_passes(self) -> None:
        decision = decided(policy(match={"namespaces": ["prod"], "exempt": {"users": ["alice"]}}))
        assert (decision.allowed, decision.code) == (True, "exempt")


class TestProof:
    def test_a_satisfying_assertion_passes_and_is_to_be_used_up(self) -> None:
        decision = decided(candidates=(candidate(),))
        assert (decision.allowed, decision.code) == (True, "step-up-satisfied")
        (uses,) = decision.uses.values()
        assert len(uses) == 1

    def test_a_window_uses_nothing_up(self) -> None:
        decision = decided(policy(require={"use": "Window"}), candidates=(candidate(),))
        assert decision.allowed
        assert decision.uses == {}

    def test_every_policy_must_be_met(self) -> None:
        picky = policy("picky", require={"reason": {"pattern": "INC-.*"}})
        decision = decided(policy(), picky, candidates=(candidate(),))
        assert (decision.allowed, decision.code) == (False, "reason-mismatch")
        assert [demand.requirement.policy for demand in decision.unmet] == ["picky"]

    def test_two_assertions_can_meet_two_policies(self) -> None:
        picky = policy("picky", require={"reason": {"pattern": "INC-.*"}})
        other = candidate(jti="elv-bbbbbbbbbbbbbbbbbbbb", reason="INC-1")
        decision = decided(policy(), picky, candidates=(candidate(), other))
        assert decision.allowed
        assert sorted(one.claims.jti for one in decision.satisfied) == [JTI, "elv-bbbbbbbbbbbbbbbbbbbb"]

    def test_every_effect_must_be_proven(self) -> None:
        body = review("UPDATE", old=deployment(), new=deployment(replicas=0, image="b"))
        scale_only = candidate(authorization_details=[detail("scale")])
        decision = decided(body=body, candidates=(scale_only,))
        assert not decision.allowed
        both = candidate(authorization_details=[detail("scale"), detail("deploy")])
        decision = decided(body=body, candidates=(both,))
        assert decision.allowed
        assert len(decision.uses[JTI]) == 2

    @pytest.mark.parametrize(
        ("record", "code"),
        [({"revoked": True}, "revoked"), ({"username": "bob"}, "unknown-elevation")],
    )
    def test_a_revoked_or_foreign_record_does_not_do(self, record: dict[str, Any], code: str) -> None:
        assert decided(candidates=(candidate(record),)).code == code

    def test_no_record_does_not_do(self) -> None:
        found = candidate()
        assert decided(candidates=(Candidate(found.claims, None),)).code == "unknown-elevation"

    def test_the_reason_that_came_closest_is_told(self) -> None:
        far = candidate(sub="bob", jti="elv-b")
        near = candidate(auth_time=int(NOW) - 720)
        decision = decided(candidates=(far, near), rejected=(Problem("bad-signature", "the signature is wrong"),))
        assert decision.code == "authentication-too-old"
        assert decision.message == "your step-up is 12 minutes old; this needs 5m"

    def test_a_token_that_cannot_be_read_is_told_when_nothing_came_closer(self) -> None:
        assert decided(rejected=(Problem("bad-signature", "the signature is wrong"),)).code == "bad-signature"


class TestOnce:
    def use(self, body: bytes, seconds_ago: float = 1.0) -> Use:
        (action,) = classify(decode(body))
        return Use(action.target.use_key(action.operation), action.change, NOW - seconds_ago)

    def test_the_same_change_passes_again_for_a_while_since_kubectl_repeats(self) -> None:
        used = candidate({"uses": (self.use(deletion(), 29),)})
        decision = decided(candidates=(used,))
        assert decision.allowed
        assert decision.uses == {}
        assert decided(candidates=(candidate({"uses": (self.use(deletion(), 31),)}),)).code == "used-up"

    def test_proof_for_image_a_does_not_let_image_b_pass(self) -> None:
        def to(image: str) -> bytes:
            return review("UPDATE", old=deployment(), new=deployment(image=image))

        used = candidate({"uses": (self.use(to("a")),)}, authorization_details=[detail("deploy")])
        assert decided(body=to("a"), candidates=(used,)).allowed
        assert decided(body=to("b"), candidates=(used,)).code == "used-up"

    def test_a_use_for_one_object_leaves_another_of_the_same_proof(self) -> None:
        objects = [{"name": "web"}, {"name": "api"}]
        used = candidate({"uses": (self.use(deletion()),)}, authorization_details=[detail(objects=objects)])
        other = deletion(name="api", old=deployment("api", uid="u-api"))
        assert decided(body=other, candidates=(used,)).allowed

    def test_an_object_made_again_is_another_object(self) -> None:
        used = candidate({"uses": (self.use(deletion()),)}, authorization_details=[detail(objects=[{"name": "web"}])])
        again = deletion(old=deployment(uid="another-uid"))
        decision = decided(body=again, candidates=(used,))
        assert decision.allowed
        assert decision.uses, "the new object has a use of its own"


class TestModes:
    @pytest.mark.parametrize("enforcement", ["Warn", "Audit"])
    def test_a_policy_that_does_not_deny_lets_pass_and_tells(self, enforcement: str) -> None:
        decision = decided(policy(enforcement=enforcement))
        assert (decision.allowed, decision.code) == (True, "would-deny")
        assert audit_annotations(decision)["would-deny"] == "production"
        text = warning(decision)
        assert text.startswith(
            "kube-stepup: delete deployments.apps/web in prod would need a step-up (aal2, at most 5m old, "
        )
        assert text.endswith("): policy production only warns; nothing is needed")
        assert "kubectl elevate" not in text

    def test_beside_one_that_denies_it_changes_nothing(self) -> None:
        decision = decided(policy("soft", enforcement="Warn"), policy("hard"))
        assert not decision.allowed
        assert [demand.requirement.policy for demand in decision.unmet] == ["hard"]


class TestRefusal:
    def test_the_text_has_what_why_and_the_line_to_run(self) -> None:
        assert message(decided()) == (
            "kube-stepup: delete deployments.apps/web in prod needs a step-up "
            "(aal2, at most 5m old, policy production): you have not stepped up. Run:\n"
            "  kubectl elevate delete deployments.apps/web -n prod"
        )

    def test_one_line_for_all_effects_with_the_changes_and_the_reason(self) -> None:
        body = review("UPDATE", old=deployment(), new=deployment(replicas=0, image="b"))
        decision = decided(policy(require={"reason": {"required": True}}), body=body)
        changes = {action.operation: action.change[:16] for action in decision.actions}
        line = message(decision).splitlines()[-1].strip()
        expected = f"--change {changes['scale']},{changes['deploy']} --reason '…'"
        assert line == f"kubectl elevate scale,deploy deployments.apps/web -n prod {expected}"

    def test_a_name_cannot_smuggle_words_into_the_line(self) -> None:
        evil = "web; rm -rf ~"
        line = message(decided(body=deletion(name=evil))).splitlines()[-1]
        assert line.strip() == f"kubectl elevate delete 'deployments.apps/{evil}' -n prod"

    def test_programs_find_the_challenge_in_the_terms_of_rfc_9470(self) -> None:
        found = {cause["field"]: cause["message"] for cause in causes(decided())}
        assert found == {
            "code": "step-up-required",
            "acr_values": "aal2",
            "max_age": "300",
            "policies": "production",
            "command": "kubectl elevate delete deployments.apps/web -n prod",
        }
        assert {cause["reason"] for cause in causes(decided())} == {"insufficient_user_authentication"}

    def test_the_audit_log_of_the_api_server_gets_who_proved_what(self) -> None:
        found = audit_annotations(decided(candidates=(candidate(),)))
        assert found == {
            "code": "step-up-satisfied",
            "operations": "delete",
            "policies": "production",
            "jti": JTI,
            "acr": "aal2",
            "amr": "otp",
            "reason": "OPS-7",
        }
