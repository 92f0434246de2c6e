"""Approvals: two people, and never one person twice, whichever name or credential they come under."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from tests.builders import UID, policy
from tests.fakes.elevation import Clock, Person, Server, Start, created, refused, wanted
from tests.fakes.kube import FakeKube
from webhook.adapters.kube import own_path

AuditLines = Callable[[], list[dict[str, Any]]]
ELEVATIONS = own_path("elevations")
POLICIES = own_path("stepuppolicies")
HOUR = 3600
FOUR_EYES = {"approvals": {"count": 1, "groups": ["sre-leads"]}}
SCALE = wanted(operation="scale", objects=[{"name": "web", "uid": UID, "digest": "a" * 16, "change": "replicas 3 → 0"}])
GROUPS = ("devs", "sre-leads")


async def enforce(kube: FakeKube, *policies: dict[str, Any]) -> None:
    for path in [path for path in kube.objects if path.startswith(POLICIES)]:
        await kube.delete(path)
    for one in policies:
        await kube.create(POLICIES, one)
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def four_eyes(kube: FakeKube, alice: Person) -> Person:
    """Alice, where a policy wants one of sre-leads to agree."""
    await enforce(kube, policy(require=FOUR_EYES))
    return alice


@pytest.fixture
async def bob(server: Server, clock: Clock) -> Person:
    """An approver, whose authenticator is old enough."""
    found = await server.person("bob", *GROUPS, credential="X509SHA256=bob").enrol()
    clock.advance(2 * HOUR)
    return found


async def waiting(person: Person, *details: dict[str, Any], reason: str = "OPS-7") -> str:
    """A request that its requester has proven; its name."""
    name = await person.ask(*(details or (SCALE,)), reason=reason)
    status = await person.answer(name, person.recovery_codes.pop(), "recovery-code")
    assert status["phase"] == "AwaitingApproval", status
    assert "assertion" not in status
    return name


async def shown(person: Person, name: str) -> dict[str, Any]:
    answer = await person.get(f"approvalrequests/{name}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def try_to_approve(person: Person, name: str, seen: str = "", **more: Any) -> Any:
    code = person.recovery_codes.pop() if person.recovery_codes else "000000"
    spec = {"factor": "recovery-code", "code": code, "seen": seen or "x", **more}
    return await person.post(f"elevationrequests/{name}/approve", spec)


async def approve(person: Person, name: str, **more: Any) -> dict[str, Any]:
    seen = (await shown(person, name))["status"]["seen"]
    return dict(created(await try_to_approve(person, name, seen, **more))["status"])


async def phase(person: Person, name: str) -> str:
    return str((await person.get(f"elevationrequests/{name}")).json()["status"]["phase"])


def claims_of(kube: FakeKube, name: str) -> dict[str, Any]:
    token = kube.objects[f"{ELEVATIONS}/{name}"]["status"]["assertion"]
    return dict(jwt.decode(token, options={"verify_signature": False}))


class TestTwoPeople:
    async def test_nothing_is_signed_until_the_other_agrees(
        self, four_eyes: Person, bob: Person, kube: FakeKube
    ) -> None:
        name = await waiting(four_eyes)
        assert "assertion" not in kube.objects[f"{ELEVATIONS}/{name}"]["status"]
        assert await approve(bob, name) == {"accepted": True, "phase": "Granted"}
        found = claims_of(kube, name)
        assert found["sub"] == "alice"
        (one,) = found["approvals"]
        assert (one["by"], one["rules"], one["groups"]) == ("bob", ["production/everything"], ["sre-leads"])

    async def test_the_approver_sees_exactly_what_it_is_for(self, four_eyes: Person, bob: Person) -> None:
        deploy = wanted(operation="deploy", objects=[{"name": "web", "uid": UID}])
        name = await waiting(four_eyes, SCALE, deploy, wanted())
        found = await shown(bob, name)
        assert found["spec"]["requester"]["username"] == "alice"
        assert found["spec"]["requester"]["clientAddress"] == "203.0.113.7"
        assert found["spec"]["reason"] == "OPS-7"
        lines = [(one["operation"], one["target"], one.get("change", "")) for one in found["spec"]["operations"]]
        assert lines == [
            ("scale", "deployments.apps/web in prod", "replicas 3 → 0"),
            ("deploy", "deployments.apps/web in prod", "any change"),
            ("delete", "deployments.apps/web in prod", ""),
        ]
        (rule,) = found["status"]["approvals"]
        assert rule == {"policy": "production", "rule": "everything", "count": 1, "groups": ["sre-leads"], "given": []}

    async def test_lists_what_one_can_approve_and_nothing_else(
        self, four_eyes: Person, bob: Person, server: Server
    ) -> None:
        name = await waiting(four_eyes)
        carol = server.person("carol", credential="X509SHA256=carol")
        lists = [(await one.get("approvalrequests")).json()["items"] for one in (bob, four_eyes, carol)]
        assert [[one["metadata"]["name"] for one in found] for found in lists] == [[name], [], []]

    async def test_each_group_is_a_demand_of_its_own(
        self, kube: FakeKube, alice: Person, bob: Person, server: Server, clock: Clock
    ) -> None:
        lawyers = {"approvals": {"count": 1, "groups": ["legal-*"]}}
        await enforce(kube, policy(require=FOUR_EYES), policy("audit", require=lawyers))
        dave = await server.person("dave", "legal-eu", credential="X509SHA256=dave").enrol()
        clock.advance(2 * HOUR)
        name = await waiting(alice)
        assert (await approve(bob, name))["phase"] == "AwaitingApproval"
        assert refused(await try_to_approve(bob, name, (await shown(bob, name))["status"]["seen"]))[:2] == (
            409,
            "already-approved",
        )
        assert (await approve(dave, name))["phase"] == "Granted"
        assert [one["by"] for one in claims_of(kube, name)["approvals"]] == ["bob", "dave"]

    async def test_a_count_is_of_different_people(
        self, kube: FakeKube, alice: Person, bob: Person, server: Server
    ) -> None:
        await enforce(kube, policy(require={"approvals": {"count": 2, "groups": ["sre-leads"]}}))
        name = await waiting(alice)
        assert (await approve(bob, name))["phase"] == "AwaitingApproval"
        seen = (await shown(bob, name))["status"]["seen"]
        for again in (bob, bob.with_credential("X509SHA256=another")):
            assert refused(await try_to_approve(again, name, seen))[1] == "already-approved"
        borrowed = server.person("erin", *GROUPS, credential="X509SHA256=bob")
        assert refused(await try_to_approve(borrowed, name, seen))[1] == "already-approved"

    async def test_two_approve_at_the_same_moment_and_both_count(
        self, kube: FakeKube, alice: Person, bob: Person, server: Server, clock: Clock
    ) -> None:
        await enforce(kube, policy(require={"approvals": {"count": 2}}))
        dave = await server.person("dave", credential="X509SHA256=dave").enrol()
        clock.advance(2 * HOUR)
        name = await waiting(alice)
        phases = {one["phase"] for one in await asyncio.gather(approve(bob, name), approve(dave, name))}
        assert phases == {"AwaitingApproval", "Granted"}
        assert {one["by"] for one in claims_of(kube, name)["approvals"]} == {"bob", "dave"}


class TestNeverTheRequester:
    async def test_not_under_another_group_or_credential(self, four_eyes: Person, server: Server) -> None:
        name = await waiting(four_eyes)
        leader = server.person("alice", *GROUPS)
        for one in (leader, leader.with_credential("X509SHA256=second")):
            assert refused(await try_to_approve(one, name))[:2] == (403, "own-request")
        assert refused(await leader.get(f"approvalrequests/{name}"))[1] == "own-request"

    async def test_not_under_another_name_by_the_same_credential(self, four_eyes: Person, server: Server) -> None:
        name = await waiting(four_eyes)
        other = server.person("alice-admin", *GROUPS, credential=four_eyes.credential)
        assert refused(await try_to_approve(other, name))[1] == "own-request"

    async def test_not_by_impersonation(self, four_eyes: Person, server: Server) -> None:
        name = await waiting(four_eyes)
        assert (
            refused(await try_to_approve(server.person("bob", *GROUPS, credential=""), name))[1] == "no-credential-id"
        )

    async def test_nor_by_a_service_account(self, four_eyes: Person, server: Server) -> None:
        name = await waiting(four_eyes)
        account = server.person("system:serviceaccount:a:b", *GROUPS, credential="JTI=1")
        assert refused(await try_to_approve(account, name))[1] == "not-a-person"

    async def test_two_accounts_of_one_person_are_found_where_the_cluster_can_tell(
        self, start: Start, kube: FakeKube, clock: Clock
    ) -> None:
        server = await start(elevation={"approvals": {"personKey": "email", "minFactorAgeSeconds": 0}})
        mail = {"X-Remote-Extra-Email": "alice@example.com"}
        alice = await server.person("alice", **mail).enrol()
        second = await server.person("alice-admin", *GROUPS, credential="X509SHA256=second", **{"X-Remote-Extra-Email": "Alice@example.com"}).enrol()  # fmt: skip
        nobody = await server.person("nobody", *GROUPS, credential="X509SHA256=nobody").enrol()
        bob = await server.person("bob", *GROUPS, credential="X509SHA256=bob", **{"X-Remote-Extra-Email": "bob@example.com"}).enrol()  # fmt: skip
        await enforce(kube, policy(require=FOUR_EYES))
        name = await waiting(alice)
        assert refused(await try_to_approve(second, name))[1] == "own-request"
        assert refused(await try_to_approve(nobody, name))[1] == "unknown-person"
        assert (await approve(bob, name))["phase"] == "Granted"


class TestApprovers:
    async def test_need_the_group(self, four_eyes: Person, server: Server) -> None:
        name = await waiting(four_eyes)
        assert (
            refused(await try_to_approve(server.person("carol", credential="X509SHA256=carol"), name))[1]
            == "not-an-approver"
        )

    async def test_need_a_factor_of_their_own_that_is_not_new(
        self, four_eyes: Person, server: Server, clock: Clock
    ) -> None:
        name = await waiting(four_eyes)
        carol = server.person("carol", *GROUPS, credential="X509SHA256=carol")
        seen = (await shown(carol, name))["status"]["seen"]
        assert refused(await try_to_approve(carol, name, seen))[1] == "not-enrolled"
        await carol.enrol()
        assert refused(await try_to_approve(carol, name, seen))[1] == "factor-too-new"
        assert await phase(four_eyes, name) == "AwaitingApproval"

    async def test_prove_who_they_are(self, four_eyes: Person, bob: Person) -> None:
        name = await waiting(four_eyes)
        seen = (await shown(bob, name))["status"]["seen"]
        spec = {"factor": "totp", "code": bob.wrong_code(), "seen": seen}
        status = created(await bob.post(f"elevationrequests/{name}/approve", spec))["status"]
        assert (status["accepted"], status["code"]) == (False, "wrong-code")
        assert await phase(four_eyes, name) == "AwaitingApproval"

    async def test_approve_what_they_were_shown(self, four_eyes: Person, bob: Person, kube: FakeKube) -> None:
        name = await waiting(four_eyes)
        seen = (await shown(bob, name))["status"]["seen"]
        await enforce(kube, policy(require=FOUR_EYES), policy("new", require={"approvals": {"count": 2}}))
        assert refused(await try_to_approve(bob, name, seen))[1] == "changed-since-shown"


class TestTime:
    async def test_a_late_approval_does_nothing(self, four_eyes: Person, bob: Person, clock: Clock) -> None:
        name = await waiting(four_eyes)
        seen = (await shown(bob, name))["status"]["seen"]
        clock.advance(HOUR + 1)
        assert refused(await try_to_approve(bob, name, seen))[:2] == (409, "not-awaiting-approval")
        assert await phase(four_eyes, name) == "Expired"

    async def test_a_proof_that_is_too_old_by_then_is_given_once_more(
        self, four_eyes: Person, bob: Person, clock: Clock, kube: FakeKube
    ) -> None:
        name = await waiting(four_eyes)
        clock.advance(HOUR / 2)
        assert (await approve(bob, name))["phase"] == "Approved"
        assert "assertion" not in kube.objects[f"{ELEVATIONS}/{name}"]["status"]
        status = await four_eyes.answer(name, four_eyes.recovery_codes.pop(), "recovery-code")
        assert status["assertion"]
        assert claims_of(kube, name)["auth_time"] == int(clock())

    async def test_max_age_counts_from_the_requesters_own_proof(
        self, four_eyes: Person, bob: Person, clock: Clock, kube: FakeKube
    ) -> None:
        proven_at = int(clock())
        name = await waiting(four_eyes)
        clock.advance(120)
        await approve(bob, name)
        found = claims_of(kube, name)
        assert (found["auth_time"], found["iat"], found["exp"]) == (proven_at, proven_at + 120, proven_at + 300)

    async def test_asked_again_it_goes_on_where_it_was(self, four_eyes: Person, bob: Person) -> None:
        name = await waiting(four_eyes)
        again = created(await four_eyes.post("elevationrequests", {"details": [SCALE], "reason": "OPS-7"}))
        assert (again["metadata"]["name"], again["status"]["phase"]) == (name, "AwaitingApproval")
        other = created(await four_eyes.post("elevationrequests", {"details": [SCALE], "reason": "OPS-8"}))
        assert other["metadata"]["name"] != name


class TestNo:
    async def test_withdrawn_an_approval_does_nothing(self, four_eyes: Person, bob: Person) -> None:
        name = await waiting(four_eyes)
        seen = (await shown(bob, name))["status"]["seen"]
        await four_eyes.delete(f"elevationrequests/{name}")
        assert refused(await try_to_approve(bob, name, seen))[:2] == (409, "not-awaiting-approval")

    async def test_denied_it_is_over(self, four_eyes: Person, bob: Person) -> None:
        name = await waiting(four_eyes)
        created(await bob.post(f"elevationrequests/{name}/deny", {"reason": "not on a Friday"}))
        status = (await four_eyes.get(f"elevationrequests/{name}")).json()["status"]
        assert (status["phase"], status["deniedBy"], status["message"]) == ("Denied", "bob", "not on a Friday")
        assert refused(await try_to_approve(bob, name))[1] == "not-awaiting-approval"

    async def test_nobody_denies_their_own_or_what_is_not_theirs_to_judge(
        self, four_eyes: Person, server: Server
    ) -> None:
        name = await waiting(four_eyes)
        carol = server.person("carol", credential="X509SHA256=carol")
        answers = [await one.post(f"elevationrequests/{name}/deny", {}) for one in (four_eyes, carol)]
        assert [refused(one)[1] for one in answers] == ["own-request", "not-an-approver"]

    async def test_what_waits_for_approval_has_an_end_in_number(self, start: Start, kube: FakeKube) -> None:
        server = await start(elevation={"maxPendingPerUser": 2})
        alice = await server.person("alice").enrol()
        await enforce(kube, policy(require=FOUR_EYES))
        for number in range(2):
            await waiting(alice, reason=f"OPS-{number}")
        answer = await alice.post("elevationrequests", {"details": [SCALE], "reason": "OPS-9"})
        assert refused(answer)[:2] == (429, "too-many-pending")


class TestForgery:
    async def test_an_approval_that_we_did_not_record_does_not_count(
        self, kube: FakeKube, alice: Person, bob: Person
    ) -> None:
        """Whoever may write the status of records (admission may) can neither add an approval nor move one."""
        await enforce(kube, policy(require={"approvals": {"count": 2}}))
        first, second = await waiting(alice, reason="OPS-1"), await waiting(alice, reason="OPS-2")
        await approve(bob, first)
        forged = {"by": "dave", "at": "2026-09-21T15:13:40Z", "sealed": "v1.kek-1.AAAA"}
        moved = kube.objects[f"{ELEVATIONS}/{first}"]["status"]["approvals"][0]
        kube.objects[f"{ELEVATIONS}/{second}"]["status"]["approvals"] = [forged, moved]
        (rule,) = (await shown(bob, second))["status"]["approvals"]
        assert rule["given"] == []

    async def test_a_proof_that_we_did_not_record_is_asked_for_again(
        self, four_eyes: Person, bob: Person, kube: FakeKube
    ) -> None:
        name = await waiting(four_eyes)
        kube.objects[f"{ELEVATIONS}/{name}"]["status"]["proof"] = "v1.kek-1.AAAA"
        assert (await approve(bob, name))["phase"] == "Approved"

    async def test_words_of_a_change_need_its_digest(self, alice: Person) -> None:
        vague = wanted(operation="scale", objects=[{"name": "web", "change": "replicas 3 → 2"}])
        answer = await alice.post("elevationrequests", {"details": [vague]})
        assert refused(answer) == (422, "invalid", "spec.details[0].objects[0].change")


async def test_who_approved_is_audited(four_eyes: Person, bob: Person, audit_lines: AuditLines) -> None:
    name = await waiting(four_eyes)
    await approve(bob, name, reason="looked at it")
    lines = {line["event"]: line for line in audit_lines() if line.get("assertion_id") == name}
    assert list(lines) == ["elevation-requested", "approval-wanted", "approval-given", "elevation-granted"]
    assert (lines["approval-given"]["user"], lines["approval-given"]["owner"]) == ("bob", "alice")
    assert lines["approval-given"]["why"] == "looked at it"
    assert (lines["elevation-granted"]["user"], lines["elevation-granted"]["approvers"]) == ("alice", ["bob"])
    assert "sealed" not in json.dumps(list(lines.values()))
