"""Approvals in an assertion, and Hold: what counts, what is compared, and who is told to wait."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import CREDENTIAL, UID, claims, deletion, deployment, detail, policy, review, service_account, user
from tests.unit.core.test_decision import NOW, candidate, decided
from webhook.core.assertion import AuthorizationDetail
from webhook.core.decision import Decision
from webhook.core.hold import Hold, Pending, hold_for
from webhook.core.policy import Policy
from webhook.core.refusal import audit_annotations, causes, message
from webhook.core.request import decode
from webhook.core.requirement import merged
from webhook.errors import PolicyError


def four_eyes(count: int = 1, *groups: str, **more: Any) -> dict[str, Any]:
    return policy(require={"approvals": {"count": count, "groups": list(groups)}, **more})


def approval(by: str = "bob", *groups: str, **changes: Any) -> dict[str, Any]:
    return {"by": by, "at": int(NOW), "rules": ["production/everything"], "groups": list(groups), **changes}


def with_approvals(*approvals: dict[str, Any], one: dict[str, Any] | None = None, **changes: Any) -> Decision:
    return decided(one or four_eyes(1, "sre-*"), candidates=(candidate(approvals=list(approvals), **changes),))


class TestCounting:
    def test_enough_approvals_pass(self) -> None:
        found = with_approvals(approval("bob", "sre-leads"))
        assert found.allowed
        assert audit_annotations(found)["approvers"] == "bob"

    @pytest.mark.parametrize(
        "approvals",
        [
            [],
            [approval("bob", "devs")],
            [approval("bob")],
            [approval("alice", "sre-leads")],
            [approval("Alice", "sre-leads")],
            [approval("alice-admin", "sre-leads", person="alice")],
            [approval("bob", "sre-leads", rules=["production/other"])],
            [approval("bob", "sre-leads", rules=["other/everything"])],
        ],
    )
    def test_what_does_not_count(self, approvals: list[dict[str, Any]]) -> None:
        found = with_approvals(*approvals)
        assert (found.allowed, found.code) == (False, "approvals-missing")
        assert "this needs 1 approval of sre-*, and none was given" in message(found)

    @pytest.mark.parametrize(
        ("approvals", "passes"),
        [
            ([approval("bob"), approval("carol")], True),
            ([approval("bob"), approval("bob")], False),
            ([approval("bob", person="b@x"), approval("bob2", person="B@x")], False),
            ([approval("bob"), approval("alice")], False),
        ],
    )
    def test_two_are_two_people(self, approvals: list[dict[str, Any]], passes: bool) -> None:
        assert with_approvals(*approvals, one=four_eyes(2)).allowed is passes

    def test_each_policy_is_a_demand_of_its_own(self) -> None:
        other = policy("audit", require={"approvals": {"groups": ["legal"]}})
        rules = ["production/everything", "audit/everything"]
        both = [approval("bob", "sre-leads", rules=rules), approval("dave", "legal", rules=rules)]
        for approvals, passes in ((both, True), (both[:1], False)):
            held = candidate(approvals=approvals)
            assert decided(four_eyes(1, "sre-*"), other, candidates=(held,)).allowed is passes

    def test_the_challenge_names_them(self) -> None:
        found = decided(four_eyes(2, "sre-leads"))
        assert {
            "reason": "insufficient_user_authentication",
            "field": "approvals",
            "message": "2 approvals of sre-leads",
        } in causes(found)
        assert "2 approvals of sre-leads" in message(found)

    def test_merged_for_the_screen_alone(self) -> None:
        specs = [
            four_eyes(1, "a"),
            policy("two", require={"approvals": {"count": 3, "groups": ["a"]}}),
            policy("three"),
        ]
        challenge = merged(rule.requirement for one in specs for rule in Policy.parse(one).rules)
        assert challenge.to_dict()["approvals"] == [{"count": 3, "groups": ["a"]}]


class TestChangeInWords:
    SCALE = review("UPDATE", old=deployment(replicas=3), new=deployment(replicas=0))

    def scaled(self, change: str, body: bytes = SCALE) -> Decision:
        shown = decided(four_eyes(1), body=body).unmet[0].action
        objects = [{"name": "web", "uid": UID, "digest": shown.change[:16], "change": change}]
        held = candidate(authorization_details=[detail("scale", objects=objects)], approvals=[approval()])
        return decided(four_eyes(1), body=body, candidates=(held,))

    def test_the_words_an_approver_read_are_those_of_what_is_done(self) -> None:
        assert self.scaled("replicas 3 → 0").allowed

    def test_other_words_do_not_pass_although_the_digest_fits(self) -> None:
        assert self.scaled("replicas 3 → 2").code == "wrong-change"

    def test_the_line_to_run_carries_them_where_somebody_must_approve(self) -> None:
        assert "--shows 'replicas 3 → 0'" in message(decided(four_eyes(1), body=self.SCALE))
        assert "--shows" not in message(decided(policy(), body=self.SCALE))

    def test_quotes_and_control_letters_do_not_get_into_it(self) -> None:
        body = review("UPDATE", old=deployment(), new=deployment(image="x'; rm -rf \"/\\\n"))
        (line,) = [line for line in message(decided(four_eyes(1), body=body)).splitlines() if "--shows" in line]
        assert "--shows 'image c: nginx:1 → x`; rm -rf `//'" in line

    def test_an_image_beside_other_changes_is_not_shown_as_an_image_alone(self) -> None:
        new = deployment(image="nginx:2")
        new["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh"]
        (demand,) = decided(four_eyes(1), body=review("UPDATE", old=deployment(), new=new)).unmet
        assert demand.action.shown == "image c: nginx:1 → nginx:2; other fields of the pod template"


class TestPolicy:
    @pytest.mark.parametrize(
        ("require", "field"),
        [
            ({"approvals": {"count": 0}}, "approvals.count"),
            ({"approvals": {"count": 6}}, "approvals.count"),
            ({"approvals": {"groups": [""]}}, "approvals.groups"),
            ({"hold": "9s"}, "hold"),
            ({"hold": "2h"}, "hold"),
            ({"hold": "soon"}, "hold"),
        ],
    )
    def test_refuses_what_cannot_be_meant(self, require: dict[str, Any], field: str) -> None:
        with pytest.raises(PolicyError) as caught:
            Policy.parse(policy(require=require))
        assert caught.value.field == f"spec.rules[0].require.{field}"

    def test_nobody_does_away_alone_with_what_takes_two(self) -> None:
        rules = [
            {"name": "strict", "operations": ["exec"], "require": {"maxAge": "1m"}},
            {
                "name": "agreed",
                "operations": ["delete"],
                "require": {"approvals": {"count": 2}, "reason": {"pattern": "OPS"}},
            },
        ]
        found = Policy.parse(policy(rules=rules)).guarding_requirements
        assert [one.rule for one in found] == ["strict", "agreed"]
        assert found[1].approvals is not None
        assert not found[1].reason_required


class TestHold:
    def pending(self, **changes: Any) -> Pending:
        details = (msgspec.convert(detail(), AuthorizationDetail),)
        fields = {
            "name": "elv-1",
            "username": "alice",
            "phase": "AwaitingApproval",
            "details": details,
            "credential_id": CREDENTIAL,
            "created_at": NOW - 10,
            "ends_at": NOW + 3600,
        }
        return Pending(**{**fields, **changes})

    def held(self, *pending: Pending, body: bytes | None = None, **require: Any) -> Hold | None:
        body = body or deletion()
        found = decided(four_eyes(1, **{"hold": "5m", **require}), body=body)
        return hold_for(found.unmet, decode(body).user_info, pending, NOW)

    def test_while_the_very_action_is_pending(self) -> None:
        assert self.held(self.pending()) == Hold(6, ("elv-1",), "AwaitingApproval")

    def test_never_without_one(self) -> None:
        assert self.held() is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"username": "eve"},
            {"credential_id": "X509SHA256=another"},
            {"ends_at": NOW},
            {"created_at": NOW - 300},
            {"details": (msgspec.convert(detail("scale"), AuthorizationDetail),)},
            {"details": (msgspec.convert(detail(objects=[{"name": "db"}]), AuthorizationDetail),)},
        ],
    )
    def test_not_for_another_person_credential_action_or_time(self, changes: dict[str, Any]) -> None:
        assert self.held(self.pending(**changes)) is None

    def test_not_where_the_policy_does_not_say_so(self) -> None:
        assert self.held(self.pending(), hold="") is None

    def test_not_unless_every_policy_does(self) -> None:
        found = decided(four_eyes(1, hold="5m"), policy("other"))
        assert hold_for(found.unmet, decode(deletion()).user_info, [self.pending()], NOW) is None

    def test_never_for_a_service_account(self) -> None:
        who = service_account("ci", "deployer")
        body = deletion(who=who)
        mine = self.pending(username=who["username"], credential_id="JTI=abc")
        assert self.held(mine, body=body) is None

    def test_any_credential_where_the_proof_is_for_the_person(self) -> None:
        body = deletion(who=user(credential="JTI=renewed"))
        assert self.held(self.pending(), body=body, bind="User") is not None

    @pytest.mark.parametrize(("age", "seconds"), [(0, 2), (3, 2), (50, 30), (200, 60), (299, 1)])
    def test_waits_longer_the_longer_it_took_and_never_past_the_end(self, age: int, seconds: int) -> None:
        found = self.held(self.pending(created_at=NOW - age))
        assert found is not None
        assert found.retry_seconds == seconds


def test_claims_without_approvals_are_read_as_before() -> None:
    assert candidate().claims.approvals == ()
    assert "approvals" not in claims(NOW)
