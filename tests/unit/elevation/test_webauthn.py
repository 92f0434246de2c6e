"""Passkeys on the page that `kubectl elevate` serves on localhost: enrolled, used, and every wrong answer refused."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.fakes.authenticator import BE, BS, UP, UV, SoftAuthenticator
from tests.fakes.elevation import Clock, Person, Server, Start, created, refused, wanted

ORIGIN = "http://localhost:43210"
AuditLines = Callable[[], list[dict[str, Any]]]


def own(name: str = "new") -> dict[str, Any]:
    """A step-up for one's own factors."""
    return wanted(
        operation="access",
        group="elevation.kube-stepup.io",
        resource="authenticators",
        namespace="",
        objects=[{"name": name}],
    )


def options_of(document: str) -> dict[str, Any]:
    found = re.search(r"data-options='([^']*)'", document)
    assert found
    options: dict[str, Any] = json.loads(html.unescape(found[1]))
    return options


async def page(person: Person, origin: str = ORIGIN, **about: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Ask for a page on localhost; its name, what the browser is asked, and its status."""
    answer = created(await person.post("pages", {**about, "localOrigin": origin}))
    return answer["metadata"]["name"], options_of(answer["status"]["document"]["html"]), answer["status"]


def waiting(answer: httpx.Response) -> tuple[str, dict[str, str]]:
    """Name of an authenticator whose enrolment has begun, and what to say when its page is asked for."""
    started = created(answer)
    name, secret = started["metadata"]["name"], started["status"]["enrolmentSecret"]
    return name, {"authenticator": name, "enrolmentSecret": secret}


async def confirm(person: Person, name: str, **spec: Any) -> dict[str, Any]:
    return dict(created(await person.post(f"authenticators/{name}/confirm", spec))["status"])


async def enrol(person: Person, authenticator: SoftAuthenticator, label: str = "", **allowed: str) -> str:
    """Enrol a passkey; its name."""
    spec = {"type": "webauthn", "name": label, **allowed}
    name, mine = waiting(await person.post("authenticators", spec))
    about, options, _ = await page(person, authenticator.origin, **mine)
    status = await confirm(person, name, page=about, credential=authenticator.create(options))
    assert status["accepted"], status
    return str(name)


async def answer(person: Person, name: str, about: str, credential: dict[str, Any]) -> dict[str, Any]:
    spec = {"factor": "webauthn", "page": about, "credential": credential}
    return dict(created(await person.post(f"elevationrequests/{name}/answer", spec))["status"])


async def asked(person: Person) -> tuple[str, str, dict[str, Any]]:
    """Ask for an elevation and for its page."""
    name = await person.ask()
    about, options, _ = await page(person, elevation=name)
    return name, about, options


async def proven(person: Person, key: SoftAuthenticator, detail: dict[str, Any] | None = None) -> str:
    """Step up by a passkey, for a new factor unless it is for something else; the assertion."""
    name = await person.ask(detail or own())
    about, options, _ = await page(person, key.origin, elevation=name)
    status = await answer(person, name, about, key.get(options))
    assert status["accepted"], status
    return str(status["assertion"])


async def refused_to_add(person: Person, **allowed: str) -> str:
    return refused(await person.post("authenticators", {"type": "webauthn", **allowed}))[1]


@pytest.fixture
async def bob(server: Server) -> Person:
    """Somebody who has nothing but a passkey."""
    return server.person("bob", credential="X509SHA256=bob")


@pytest.fixture
async def key(bob: Person) -> SoftAuthenticator:
    """Bob's."""
    found = SoftAuthenticator(ORIGIN)
    await enrol(bob, found, "key", ticket=await bob.ticket())
    return found


class TestEnrolling:
    async def test_the_first_one_needs_a_ticket_and_gives_recovery_codes(self, bob: Person) -> None:
        assert refused(await bob.post("authenticators", {"type": "webauthn"}))[1] == "ticket-required"
        spec = {"type": "webauthn", "name": "YubiKey", "ticket": await bob.ticket()}
        name, mine = waiting(await bob.post("authenticators", spec))
        about, options, _ = await page(bob, **mine)
        assert options["authenticatorSelection"]["userVerification"] == "required"
        assert options["rp"] == {"id": "localhost", "name": "kube-stepup"}
        status = await confirm(bob, name, page=about, credential=SoftAuthenticator(ORIGIN).create(options))
        assert status["accepted"]
        assert len(status["recoveryCodes"]) == 10
        (shown,) = (await bob.get("authenticators")).json()["items"]
        assert (shown["spec"], shown["status"]["phase"]) == ({"type": "webauthn", "name": "YubiKey"}, "Confirmed")

    async def test_a_further_one_needs_a_step_up_with_the_first(self, bob: Person, key: SoftAuthenticator) -> None:
        assert await refused_to_add(bob) == "step-up-required"
        assert await refused_to_add(bob, ticket=await bob.ticket()) == "step-up-required"
        assertion = await proven(bob, key)
        await enrol(bob, SoftAuthenticator(ORIGIN), "spare", assertion=assertion)
        assert await refused_to_add(bob, assertion=assertion) == "step-up-required"

    async def test_a_step_up_for_something_else_is_none(self, alice: Person) -> None:
        _, assertion = await alice.step_up(reason="OPS-7")
        assert await refused_to_add(alice, assertion=assertion) == "step-up-required"
        _, assertion = await alice.step_up(own("totp-somebody"))
        assert await refused_to_add(alice, assertion=assertion) == "step-up-required"
        assert await refused_to_add(alice, assertion="nonsense") == "step-up-required"

    async def test_nor_is_one_of_another_credential_or_person_or_one_that_is_too_old_or_revoked(
        self, alice: Person, bob: Person, key: SoftAuthenticator, clock: Clock
    ) -> None:
        name, assertion = await alice.step_up(own())
        thief = alice.with_credential("X509SHA256=other")
        assert await refused_to_add(bob, assertion=assertion) == "step-up-required"
        assert await refused_to_add(thief, assertion=assertion) == "step-up-required"
        await alice.delete(f"elevationrequests/{name}")
        assert await refused_to_add(alice, assertion=assertion) == "step-up-required"
        _, assertion = await alice.step_up(own())
        clock.advance(301)
        assert await refused_to_add(alice, assertion=assertion) == "step-up-required"

    async def test_whoever_has_the_same_credential_is_not_faster(self, bob: Person) -> None:
        name, mine = waiting(await bob.post("authenticators", {"type": "webauthn", "ticket": await bob.ticket()}))
        for secret in ("", "guessed"):
            spec = {"authenticator": name, "enrolmentSecret": secret, "localOrigin": ORIGIN}
            assert refused(await bob.post("pages", spec))[1] == "not-found"
        assert mine["enrolmentSecret"] not in (await bob.get("authenticators")).text
        await page(bob, **mine)

    async def test_the_same_authenticator_is_not_bound_twice(self, bob: Person, key: SoftAuthenticator) -> None:
        spec = {"type": "webauthn", "assertion": await proven(bob, key)}
        second, mine = waiting(await bob.post("authenticators", spec))
        about, options, _ = await page(bob, **mine)
        assert [one["id"] for one in options["excludeCredentials"]] == [key.create(options)["id"]]
        status = await confirm(bob, second, page=about, credential=key.create(options))
        assert (status["accepted"], status["code"]) == (False, "already-enrolled")

    @pytest.mark.parametrize(
        ("flags", "rp_id", "changes"),
        [
            (UP, "", {}),
            (UV, "", {}),
            (UP | UV, "example.com", {}),
            (UP | UV, "", {"origin": "http://localhost:1"}),
            (UP | UV, "", {"origin": "https://localhost:43210"}),
            (UP | UV, "", {"type": "webauthn.get"}),
            (UP | UV, "", {"challenge": "AAAA"}),
            (UP | UV, "", {"crossOrigin": True}),
            (UP | UV, "", {"topOrigin": "https://example.com"}),
        ],
    )
    async def test_what_is_not_right_is_refused(
        self, bob: Person, flags: int, rp_id: str, changes: dict[str, Any]
    ) -> None:
        name, mine = waiting(await bob.post("authenticators", {"type": "webauthn", "ticket": await bob.ticket()}))
        about, options, _ = await page(bob, **mine)
        credential = SoftAuthenticator(ORIGIN, flags=flags, rp_id=rp_id).create(options, **changes)
        assert (await confirm(bob, name, page=about, credential=credential))["code"] == "wrong-passkey"
        assert (await bob.get("authenticators")).json()["items"][0]["status"]["phase"] == "Pending"


class TestSteppingUp:
    async def test_a_touch_is_a_proof(self, bob: Person, key: SoftAuthenticator) -> None:
        name, about, options = await asked(bob)
        assert options["userVerification"] == "required"
        status = await answer(bob, name, about, key.get(options))
        assert status["accepted"]
        shown = (await bob.get(f"elevationrequests/{name}")).json()["status"]
        assert (shown["factor"], shown["acr"], shown["amr"]) == ("webauthn", "aal2", ["pop", "mfa", "user"])

    async def test_the_page_shows_who_from_where_for_what_and_the_words_of_the_terminal(
        self, bob: Person, key: SoftAuthenticator
    ) -> None:
        name = await bob.ask(wanted(objects=[{"name": "<b>web"}]), reason="OPS-7 <i>")
        _, _, status = await page(bob, elevation=name)
        document = status["document"]["html"]
        for text in ("bob", "203.0.113.7", "&lt;b&gt;web", "prod", "OPS-7 &lt;i&gt;", status["words"]):
            assert text in document
        assert "<b>web" not in document

    async def test_a_passkey_that_is_synced_is_as_good(self, bob: Person) -> None:
        synced = SoftAuthenticator(ORIGIN, flags=UP | UV | BE | BS)
        await enrol(bob, synced, ticket=await bob.ticket())
        name, about, options = await asked(bob)
        synced.count = -1  # such a one always says 0
        assert (await answer(bob, name, about, synced.get(options)))["accepted"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"origin": "http://localhost:1"},
            {"origin": "http://127.0.0.1:43210"},
            {"type": "webauthn.create"},
            {"challenge": "AAAA"},
            {"crossOrigin": True},
            {"topOrigin": "https://example.com"},
        ],
    )
    async def test_client_data_that_is_not_right(
        self, bob: Person, key: SoftAuthenticator, changes: dict[str, Any]
    ) -> None:
        name, about, options = await asked(bob)
        assert (await answer(bob, name, about, key.get(options, **changes)))["code"] == "wrong-passkey"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("flags", UP),
            ("flags", UV),
            ("flags", UP | UV | BE),
            ("rp_id", "example.com"),
            ("handle", "c29tZWJvZHk"),
            ("credential_id", b"x" * 32),
        ],
    )
    async def test_an_authenticator_that_is_not_right(
        self, bob: Person, key: SoftAuthenticator, field: str, value: Any
    ) -> None:
        name, about, options = await asked(bob)
        setattr(key, field, value)
        assert (await answer(bob, name, about, key.get(options)))["code"] == "wrong-passkey"

    async def test_another_key_under_the_same_name(self, bob: Person, key: SoftAuthenticator) -> None:
        name, about, options = await asked(bob)
        forger = SoftAuthenticator(ORIGIN)
        forger.credential_id, forger.handle = key.credential_id, key.handle
        assert (await answer(bob, name, about, forger.get(options)))["code"] == "wrong-passkey"

    @pytest.mark.parametrize(
        "credential", [{}, {"id": 1}, {"id": "AAAA", "rawId": "AAAA", "type": "public-key", "response": {}}]
    )
    async def test_nonsense(self, bob: Person, key: SoftAuthenticator, credential: dict[str, Any]) -> None:
        name, about, _ = await asked(bob)
        assert (await answer(bob, name, about, credential))["code"] == "wrong-passkey"

    async def test_a_challenge_is_good_once(self, bob: Person, key: SoftAuthenticator) -> None:
        name, about, options = await asked(bob)
        wrong = key.get(options, origin="http://localhost:1")
        assert (await answer(bob, name, about, wrong))["code"] == "wrong-passkey"
        assert (await answer(bob, name, about, key.get(options)))["code"] == "wrong-passkey", (
            "its challenge was used up"
        )

    async def test_two_answers_at_once_on_two_replicas_are_one(
        self, bob: Person, key: SoftAuthenticator, start: Start
    ) -> None:
        other = bob.at(await start())
        name, about, options = await asked(bob)
        spec = {"factor": "webauthn", "page": about, "credential": key.get(options)}
        path = f"elevationrequests/{name}/answer"
        answers = await asyncio.gather(bob.post(path, spec), other.post(path, spec))
        accepted = [one for one in answers if one.status_code == 201 and one.json()["status"]["accepted"]]
        assert len(accepted) == 1

    async def test_a_few_tries_and_the_page_is_closed(self, bob: Person, key: SoftAuthenticator) -> None:
        name, about, options = await asked(bob)
        codes = [(await answer(bob, name, about, key.get(options, challenge="AAAA")))["code"] for _ in range(6)]
        assert codes == ["wrong-passkey"] * 5 + ["page-expired"]

    async def test_a_challenge_of_another_request_is_none(self, bob: Person, key: SoftAuthenticator) -> None:
        _, first, options = await asked(bob)
        other, second, _ = await asked(bob)
        credential = key.get(options)
        assert (await answer(bob, other, first, credential))["code"] == "page-expired"
        assert (await answer(bob, other, second, credential))["code"] == "wrong-passkey"

    async def test_nor_of_another_page_person_or_credential(
        self, bob: Person, key: SoftAuthenticator, alice: Person
    ) -> None:
        name, about, options = await asked(bob)
        theirs = await alice.ask()
        assert (await answer(alice, theirs, about, key.get(options)))["code"] == "page-expired"
        thief = bob.with_credential("X509SHA256=stolen")
        spec = {"factor": "webauthn", "page": about, "credential": key.get(options)}
        assert refused(await thief.post(f"elevationrequests/{name}/answer", spec))[1] == "wrong-credential"
        assert refused(await thief.post("pages", {"elevation": name, "localOrigin": ORIGIN}))[1] == "wrong-credential"
        mine = await thief.ask()
        assert (await answer(thief, mine, about, key.get(options)))["code"] == "page-expired"

    async def test_it_expires_with_its_request(self, bob: Person, key: SoftAuthenticator, clock: Clock) -> None:
        name, about, options = await asked(bob)
        clock.advance(301)
        spec = {"factor": "webauthn", "page": about, "credential": key.get(options)}
        assert refused(await bob.post(f"elevationrequests/{name}/answer", spec))[1] == "not-pending"


class TestCounter:
    async def test_one_that_goes_backwards_suspends_the_authenticator_loudly(
        self, bob: Person, key: SoftAuthenticator, audit_lines: AuditLines
    ) -> None:
        name, about, options = await asked(bob)
        key.count = 5
        assert (await answer(bob, name, about, key.get(options)))["accepted"]
        name, about, options = await asked(bob)
        key.count = 3  # a copy of it, that was used less often
        assert (await answer(bob, name, about, key.get(options)))["code"] == "authenticator-suspended"
        events = [line["event"] for line in audit_lines()]
        assert "authenticator-suspended" in events
        answered = created(await bob.post("elevationrequests", {"details": [wanted()]}))
        assert answered["status"]["challenge"]["factors"] == ["recovery-code"]

    async def test_the_genuine_one_is_suspended_as_well(self, bob: Person, key: SoftAuthenticator) -> None:
        requests = [await asked(bob) for _ in range(3)]
        codes = []
        for count, (name, about, options) in zip((5, 3, 6), requests, strict=True):
            key.count = count
            codes.append((await answer(bob, name, about, key.get(options))).get("code", "accepted"))
        assert codes == ["accepted", "authenticator-suspended", "authenticator-suspended"]


class TestRemoving:
    async def test_it_needs_a_step_up_for_that_very_one(self, alice: Person, clock: Clock) -> None:
        _, assertion = await alice.step_up(own())
        passkey = await enrol(alice, SoftAuthenticator(ORIGIN), "key", assertion=assertion)
        assert refused(await alice.delete(f"authenticators/{passkey}"))[1] == "step-up-required"
        wrong, _ = await alice.step_up(own())
        assert refused(await alice.delete(f"authenticators/{passkey}?elevation={wrong}"))[1] == "step-up-required"
        right, _ = await alice.step_up(own(passkey))
        assert (await alice.delete(f"authenticators/{passkey}?elevation={right}")).status_code == 200
        assert [one["spec"]["type"] for one in (await alice.get("authenticators")).json()["items"]] == ["totp"]

    async def test_the_last_one_goes_only_when_it_is_said(self, bob: Person, key: SoftAuthenticator) -> None:
        (only,) = [one["metadata"]["name"] for one in (await bob.get("authenticators")).json()["items"]]
        name = await bob.ask(own(only))
        about, options, _ = await page(bob, elevation=name)
        assert (await answer(bob, name, about, key.get(options)))["accepted"]
        assert refused(await bob.delete(f"authenticators/{only}?elevation={name}"))[1] == "last-authenticator"
        assert (await bob.delete(f"authenticators/{only}?elevation={name}&last=yes")).status_code == 200
        assert refused(await bob.post("authenticators", {"type": "webauthn"}))[1] == "ticket-required"


async def test_where_a_policy_asks_for_phishing_resistance_a_passkey_on_localhost_does_not_do(
    bob: Person, key: SoftAuthenticator, server: Server
) -> None:
    from tests.builders import policy
    from tests.fakes.kube import until
    from webhook.adapters.kube import own_path

    await server.kube.create(own_path("stepuppolicies"), policy("strict", require={"phishingResistant": True}))
    await until(lambda: len(server.services.state.index.policies) == 2)
    assert refused(await bob.post("elevationrequests", {"details": [wanted()]}))[1] == "factor-too-weak"
