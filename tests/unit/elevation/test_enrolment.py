"""Enrolment: nobody binds an authenticator to somebody else's name, and an operator can help without learning anything."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import pyotp
import pytest

from tests.fakes.elevation import NAMESPACE, OPERATOR, Clock, Person, Server, Start, created, refused
from tests.fakes.kube import FakeKube
from webhook.adapters.authenticator_store import PersonRecord, redeem_ticket
from webhook.adapters.elevation_cache import user_hash
from webhook.adapters.kube import object_path
from webhook.elevation.enrolment import UNCONFIRMED_SECONDS
from webhook.errors import StoreUnavailableError

SECRETS = object_path("", "v1", "secrets", namespace=NAMESPACE)
RECORD = f"{SECRETS}/authn-{user_hash('alice')}"
AuditLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def bob(server: Server) -> Person:
    """Somebody who has no authenticator."""
    return server.person("bob", credential="X509SHA256=bob")


@pytest.fixture
def operator(server: Server) -> Person:
    return server.person(OPERATOR, credential="X509SHA256=operator")


class TestWithATicket:
    async def test_the_secret_is_shown_once_and_works_in_an_app(self, bob: Person) -> None:
        started = created(await bob.begin(ticket=await bob.ticket()))
        status, name = started["status"], started["metadata"]["name"]
        assert (started["kind"], status["phase"], started["spec"]) == ("Authenticator", "Pending", {"type": "totp"})
        uri = urlparse(status["provisioningURI"])
        query = parse_qs(uri.query)
        assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("otpauth", "totp", "/kube-stepup:bob")
        assert (query["secret"], query["issuer"]) == ([status["secret"]], ["kube-stepup"])
        assert len(base64.b32decode(status["secret"])) == 20  # RFC 4226 section 4 R6
        shown = (await bob.get(f"authenticators/{name}")).text + (await bob.get("authenticators")).text
        assert status["secret"] not in shown
        assert "otpauth" not in shown

    async def test_the_first_code_ends_it_and_gives_ten_recovery_codes(self, bob: Person) -> None:
        started = created(await bob.begin(ticket=await bob.ticket()))
        bob.secret = started["status"]["secret"]
        status = await bob.confirm(started["metadata"]["name"], bob.code())
        assert status["accepted"]
        assert len(set(status["recoveryCodes"])) == 10
        assert all(len(code.replace("-", "")) == 16 for code in status["recoveryCodes"])
        (shown,) = (await bob.get("authenticators")).json()["items"]
        assert (shown["status"]["phase"], shown["status"]["recoveryCodesLeft"]) == ("Confirmed", 10)

    async def test_the_code_that_confirmed_it_is_used_up(self, bob: Person) -> None:
        started = created(await bob.begin(ticket=await bob.ticket()))
        bob.secret = started["status"]["secret"]
        await bob.confirm(started["metadata"]["name"], bob.code())
        assert (await bob.answer(await bob.ask(), bob.code()))["code"] == "code-already-used"

    async def test_a_ticket_is_good_once(self, bob: Person) -> None:
        ticket = await bob.ticket()
        created(await bob.begin(ticket=ticket))
        assert refused(await bob.begin(ticket=ticket)) == (403, "wrong-ticket", "")

    async def test_a_ticket_redeemed_twice_at_once_on_two_replicas_is_good_once(
        self, bob: Person, start: Start
    ) -> None:
        other = bob.at(await start())
        ticket = await bob.ticket()
        answers = await asyncio.gather(*(who.begin(ticket=ticket) for who in (bob, other) * 5))
        assert sorted(answer.status_code for answer in answers) == [201] + [403] * 9

    async def test_somebody_elses_ticket_is_refused_and_stays_good_for_its_owner(
        self, bob: Person, server: Server
    ) -> None:
        ticket = await bob.ticket()
        mallory = server.person("mallory", credential="X509SHA256=mallory")
        assert refused(await mallory.begin(ticket=ticket)) == (403, "wrong-ticket", "")
        created(await bob.begin(ticket=ticket))

    async def test_an_expired_ticket_is_refused(self, bob: Person, clock: Clock) -> None:
        ticket = await bob.ticket(60)
        clock.advance(60)
        assert refused(await bob.begin(ticket=ticket)) == (403, "wrong-ticket", "")

    async def test_a_ticket_is_good_until_it_expires(self, bob: Person, clock: Clock) -> None:
        ticket = await bob.ticket(60)
        clock.advance(59)
        created(await bob.begin(ticket=f"  {ticket.upper()}\n"))

    @pytest.mark.parametrize("ticket", ["x", "../authn", "a" * 32, "\u0000"])
    async def test_a_ticket_that_nobody_issued_is_refused(self, bob: Person, ticket: str) -> None:
        assert refused(await bob.begin(ticket=ticket)) == (403, "wrong-ticket", "")

    async def test_nothing_of_the_ticket_is_stored_in_the_clear(self, bob: Person, kube: FakeKube) -> None:
        ticket = await bob.ticket()
        found = kube.objects[f"{SECRETS}/authn-{user_hash('bob')}"]
        plain = str(found) + "".join(base64.b64decode(value).decode() for value in found["data"].values())
        assert ticket not in plain
        assert hashlib.sha256(ticket.encode()).hexdigest() not in plain

    async def test_a_ticket_that_a_reset_has_ended_binds_nothing(self, bob: Person, operator: Person) -> None:
        ticket = await bob.ticket()
        assert created(await operator.post("authenticatorresets", {"username": "bob"}))["status"]["removed"]
        assert refused(await bob.begin(ticket=ticket)) == (403, "wrong-ticket", "")


class TestWithoutATicket:
    async def test_it_is_refused_with_the_way_out(self, bob: Person) -> None:
        answer = await bob.begin()
        assert refused(answer) == (403, "ticket-required", "")
        assert "stepup ticket" in answer.json()["message"]

    async def test_trust_on_first_use_is_a_setting(self, start: Start) -> None:
        trusting = await start(elevation={"enrolmentTrustOnFirstUse": True})
        created(await trusting.person("bob", credential="X509SHA256=bob").begin())

    async def test_a_wrong_ticket_is_refused_also_where_none_is_needed(self, start: Start) -> None:
        trusting = await start(elevation={"enrolmentTrustOnFirstUse": True})
        answer = await trusting.person("bob", credential="X509SHA256=bob").begin(ticket="x")
        assert refused(answer) == (403, "wrong-ticket", "")

    async def test_trust_ends_with_the_first_authenticator(self, alice: Person, start: Start) -> None:
        trusting = await start(elevation={"enrolmentTrustOnFirstUse": True})
        assert refused(await alice.at(trusting).begin()) == (409, "already-enrolled", "")


class TestWho:
    @pytest.mark.parametrize("trust", [True, False])
    async def test_a_service_account_is_no_person(self, start: Start, trust: bool) -> None:
        server = await start(elevation={"enrolmentTrustOnFirstUse": trust})
        account = server.person("system:serviceaccount:prod:ci", credential="JTI=abc")
        ticket = await account.ticket()
        assert refused(await account.begin(ticket=ticket)) == (403, "not-a-person", "")
        assert refused(await account.begin()) == (403, "not-a-person", "")

    @pytest.mark.parametrize("trust", [True, False])
    async def test_whoever_impersonates_has_no_credential_and_is_refused(self, start: Start, trust: bool) -> None:
        server = await start(elevation={"enrolmentTrustOnFirstUse": trust})
        impersonator = server.person("bob", credential="")
        ticket = await impersonator.ticket()
        assert refused(await impersonator.begin(ticket=ticket)) == (403, "no-credential-id", "")
        assert refused(await impersonator.begin()) == (403, "no-credential-id", "")

    async def test_whoever_impersonates_cannot_confirm_either(self, bob: Person) -> None:
        name = created(await bob.begin(ticket=await bob.ticket()))["metadata"]["name"]
        answer = await bob.with_credential("").post(f"authenticators/{name}/confirm", {"code": "000000"})
        assert refused(answer) == (403, "no-credential-id", "")


class TestOneAuthenticator:
    async def test_a_second_one_is_refused_and_costs_no_ticket(self, alice: Person) -> None:
        ticket = await alice.ticket()
        assert refused(await alice.begin(ticket=ticket)) == (409, "already-enrolled", "")
        record = await alice.server.services.enrolment._store.read("alice")
        assert redeem_ticket(record, ticket, alice.server.clock())

    async def test_beginning_again_replaces_what_was_never_confirmed(self, bob: Person) -> None:
        first = created(await bob.begin(ticket=await bob.ticket()))
        second = created(await bob.begin(ticket=await bob.ticket()))
        (shown,) = (await bob.get("authenticators")).json()["items"]
        assert shown["metadata"]["name"] == second["metadata"]["name"]
        answer = await bob.post(f"authenticators/{first['metadata']['name']}/confirm", {"code": "000000"})
        assert refused(answer) == (404, "not-found", "")

    async def test_two_that_are_begun_before_either_is_confirmed_end_in_one(
        self, bob: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tickets = [await bob.ticket(), await bob.ticket()]
        enrolment = bob.server.services.enrolment
        started = created(await bob.begin(ticket=tickets[0]))
        bob.secret = started["status"]["secret"]
        before = await enrolment._store.read("bob")
        assert (await bob.confirm(started["metadata"]["name"], bob.code()))["accepted"]

        async def read_before(_: str) -> PersonRecord:
            return before

        monkeypatch.setattr(enrolment._store, "read", read_before)  # of one who has looked before it was confirmed
        assert refused(await bob.begin(ticket=tickets[1])) == (409, "already-enrolled", "")

    async def test_the_last_one_is_not_removed_by_accident(self, alice: Person) -> None:
        (shown,) = (await alice.get("authenticators")).json()["items"]
        answer = await alice.delete(f"authenticators/{shown['metadata']['name']}")
        assert refused(answer) == (409, "last-authenticator", "")
        assert "stepup reset" in answer.json()["message"]

    async def test_one_that_was_never_confirmed_can_be_removed(self, bob: Person) -> None:
        name = created(await bob.begin(ticket=await bob.ticket()))["metadata"]["name"]
        answer = await bob.delete(f"authenticators/{name}")
        assert (answer.status_code, answer.json()["status"]) == (200, "Success")
        assert (await bob.get("authenticators")).json()["items"] == []

    async def test_it_is_called_what_the_person_calls_it(self, bob: Person) -> None:
        started = created(await bob.begin(ticket=await bob.ticket(), name="my phone"))
        assert started["spec"] == {"type": "totp", "name": "my phone"}
        assert (await bob.get("authenticators")).json()["items"][0]["spec"]["name"] == "my phone"

    @pytest.mark.parametrize("name", ["a" * 65, "a\nb", "\x1b[2J"])
    async def test_but_not_anything(self, bob: Person, name: str) -> None:
        ticket = await bob.ticket()
        assert refused(await bob.begin(ticket=ticket, name=name)) == (422, "invalid", "spec.name")
        created(await bob.begin(ticket=ticket))

    @pytest.mark.parametrize("spec", [{"type": "sms"}, {"type": ""}])
    async def test_other_types_are_not_known(self, bob: Person, spec: dict[str, Any]) -> None:
        assert refused(await bob.begin(**spec)) == (422, "invalid", "spec.type")


class TestConfirmation:
    @pytest.fixture
    async def pending(self, bob: Person) -> str:
        started = created(await bob.begin(ticket=await bob.ticket()))
        bob.secret = started["status"]["secret"]
        return str(started["metadata"]["name"])

    async def test_a_wrong_code_is_an_answer_and_binds_nothing(self, bob: Person, pending: str) -> None:
        status = await bob.confirm(pending, bob.wrong_code())
        assert (status["accepted"], status["code"]) == (False, "wrong-code")
        assert "recoveryCodes" not in status
        assert refused(await bob.post("elevationrequests", {"details": [{"operation": "delete", "resource": "pods", "namespace": "prod", "objects": [{"name": "web"}]}]})) == (403, "not-enrolled", "")  # fmt: skip

    async def test_guessing_is_slowed_as_it_is_later(self, bob: Person, pending: str) -> None:
        statuses = [await bob.confirm(pending, bob.wrong_code()) for _ in range(4)]
        assert [status["code"] for status in statuses] == ["wrong-code"] * 3 + ["too-many-attempts"]
        assert statuses[-1]["retryAfterSeconds"] > 0
        assert (await bob.confirm(pending, bob.code()))["code"] == "too-many-attempts"

    async def test_it_lapses(self, bob: Person, pending: str, clock: Clock) -> None:
        clock.advance(UNCONFIRMED_SECONDS)
        assert refused(await bob.post(f"authenticators/{pending}/confirm", {"code": bob.code()})) == (404, "not-found", "")  # fmt: skip

    async def test_it_does_not_lapse_a_second_early(self, bob: Person, pending: str, clock: Clock) -> None:
        clock.advance(UNCONFIRMED_SECONDS - 1)
        assert (await bob.confirm(pending, bob.code()))["accepted"]

    async def test_it_cannot_be_confirmed_twice(self, bob: Person, pending: str, clock: Clock) -> None:
        await bob.confirm(pending, bob.code())
        clock.advance(30)
        assert refused(await bob.post(f"authenticators/{pending}/confirm", {"code": bob.code()})) == (404, "not-found", "")  # fmt: skip

    async def test_a_store_that_fails_confirms_nothing(
        self, bob: Person, pending: str, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def unavailable(*_: Any, **__: Any) -> dict[str, Any]:
            raise StoreUnavailableError("the Kubernetes API cannot be reached")

        with monkeypatch.context() as context:
            context.setattr(kube, "replace", unavailable)
            answer = await bob.post(f"authenticators/{pending}/confirm", {"code": bob.code()})
        assert refused(answer) == (503, "store-unavailable", "")
        assert (await bob.confirm(pending, bob.code()))["accepted"]


class TestOthersAuthenticators:
    @pytest.fixture
    async def hers(self, alice: Person) -> str:
        return str((await alice.get("authenticators")).json()["items"][0]["metadata"]["name"])

    async def test_do_not_exist(self, bob: Person, hers: str) -> None:
        assert refused(await bob.get(f"authenticators/{hers}")) == (404, "not-found", "")
        assert refused(await bob.delete(f"authenticators/{hers}")) == (404, "not-found", "")
        answer = await bob.post(f"authenticators/{hers}/confirm", {"code": "000000"})
        assert refused(answer) == (404, "not-found", "")
        assert (await bob.get("authenticators")).json()["items"] == []

    async def test_are_the_same_answer_as_none_at_all(self, bob: Person, hers: str) -> None:
        foreign, absent = await bob.get(f"authenticators/{hers}"), await bob.get("authenticators/totp-aaaaaaaa")
        assert foreign.json() == {**absent.json(), "message": foreign.json()["message"], "details": foreign.json()["details"]}  # fmt: skip
        assert foreign.json()["message"].replace(hers, "totp-aaaaaaaa") == absent.json()["message"]


class TestOperators:
    async def test_a_ticket_says_until_when(self, operator: Person) -> None:
        answer = created(await operator.post("enrollmenttickets", {"username": "bob", "ttlSeconds": 60}))
        assert answer["spec"] == {"username": "bob", "ttlSeconds": 60}
        assert answer["status"]["expiresAt"] == "2026-09-21T14:14:40Z"
        assert len(answer["status"]["ticket"]) == 32

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"username": ""}, "spec.username"),
            ({"username": "a\nb"}, "spec.username"),
            ({"username": "a" * 1025}, "spec.username"),
            ({"username": 1}, "spec.username"),
            ({}, "spec"),
            ({"username": "bob", "ttlSeconds": 59}, "spec.ttlSeconds"),
            ({"username": "bob", "ttlSeconds": 86401}, "spec.ttlSeconds"),
            ({"username": "bob", "ttlSeconds": "3600"}, "spec.ttlSeconds"),
            ({"username": "bob", "groups": []}, "spec"),
        ],
    )
    async def test_a_wrong_field_is_named(self, operator: Person, spec: dict[str, Any], field: str) -> None:
        assert refused(await operator.post("enrollmenttickets", spec)) == (422, "invalid", field)

    @pytest.mark.parametrize("resource", ["authenticatorunlocks", "authenticatorresets"])
    async def test_nobody_is_not_a_name(self, operator: Person, resource: str) -> None:
        assert refused(await operator.post(resource, {"username": ""})) == (422, "invalid", "spec.username")

    async def test_a_reset_removes_everything(self, alice: Person, operator: Person, kube: FakeKube) -> None:
        answer = created(await operator.post("authenticatorresets", {"username": "alice"}))
        assert answer["status"] == {"removed": True, "elevationsRevoked": 0}
        assert RECORD not in kube.objects
        assert refused(await alice.post("elevationrequests", {"details": [{"operation": "delete", "resource": "pods", "namespace": "prod", "objects": [{"name": "web"}]}]})) == (403, "not-enrolled", "")  # fmt: skip
        assert created(await operator.post("authenticatorresets", {"username": "alice"}))["status"] == {"removed": False, "elevationsRevoked": 0}  # fmt: skip

    async def test_a_reset_ends_what_was_proven_and_what_waits_for_an_answer(
        self, alice: Person, operator: Person, audit_lines: AuditLines
    ) -> None:
        granted, _ = await alice.step_up()
        waiting = await alice.ask()
        other = alice.server.person("carol", credential="X509SHA256=carol")
        await other.enrol()
        hers, _ = await other.step_up()
        answer = created(await operator.post("authenticatorresets", {"username": "alice"}))
        assert answer["status"] == {"removed": True, "elevationsRevoked": 2}
        for name in (granted, waiting):
            assert refused(await alice.get(f"elevationrequests/{name}"))[1] == "not-found"
        assert refused(await alice.post(f"elevationrequests/{waiting}/answer", {"code": "000000"}))[1] == "not-pending"
        assert (await other.get(f"elevationrequests/{hers}")).json()["status"]["phase"] == "Granted"
        lines = audit_lines()
        assert {line["assertion_id"] for line in lines if line["event"] == "elevation-revoked"} == {waiting, granted}
        (line,) = [line for line in lines if line["event"] == "authenticator-reset"]
        assert (line["owner"], line["elevations_revoked"], line["alarm"]) == ("alice", 2, True)

    async def test_after_a_reset_the_person_enrols_anew_and_the_old_secret_is_nothing(
        self, alice: Person, operator: Person, clock: Clock
    ) -> None:
        old, recovery = alice.secret, alice.recovery_codes[0]
        await operator.post("authenticatorresets", {"username": "alice"})
        await alice.enrol()
        name = await alice.ask()
        clock.advance(60)
        old_code = pyotp.TOTP(old).at(int(clock()))
        assert (await alice.answer(name, old_code))["code"] == "wrong-code"
        assert (await alice.answer(name, recovery, "recovery-code"))["code"] == "wrong-code"
        assert (await alice.answer(name, alice.code()))["accepted"]

    async def test_everything_is_audited_with_its_owner(
        self, alice: Person, operator: Person, audit_lines: AuditLines
    ) -> None:
        await operator.post("enrollmenttickets", {"username": "bob"})
        await operator.post("authenticatorunlocks", {"username": "alice"})
        await operator.post("authenticatorresets", {"username": "alice"})
        found = [(line["event"], line["user"], line["owner"]) for line in audit_lines()]
        assert found[-3:] == [
            ("enrolment-ticket-issued", OPERATOR, "bob"),
            ("attempts-cleared", OPERATOR, "alice"),
            ("authenticator-reset", OPERATOR, "alice"),
        ]


async def test_each_step_of_an_enrolment_is_audited(bob: Person, audit_lines: AuditLines) -> None:
    await bob.begin()
    await bob.begin(ticket="wrong")
    await bob.with_credential("").begin()
    started = created(await bob.begin(ticket=await bob.ticket()))
    bob.secret = started["status"]["secret"]
    await bob.confirm(started["metadata"]["name"], bob.wrong_code())
    await bob.confirm(started["metadata"]["name"], bob.code())
    found = [(line["event"], line.get("code", "")) for line in audit_lines() if line["user"] == "bob"]
    assert found == [
        ("enrolment-refused", "ticket-required"),
        ("enrolment-refused", "wrong-ticket"),
        ("enrolment-refused", "no-credential-id"),
        ("enrolment-started", ""),
        ("enrolment-refused", "wrong-code"),
        ("authenticator-enrolled", ""),
    ]


async def test_a_record_that_was_stored_under_another_name_is_not_believed(
    alice: Person, bob: Person, kube: FakeKube
) -> None:
    path = f"{SECRETS}/authn-{user_hash('bob')}"
    kube.objects[path] = {**kube.objects[RECORD], "metadata": {**kube.objects[RECORD]["metadata"], "name": path}}
    assert refused(await bob.get("authenticators")) == (500, "unreadable-secret", "")
