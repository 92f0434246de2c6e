"""The page at an https origin: what a link opens, and what nobody gets by it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.builders import policy
from tests.fakes.authenticator import UP, UV, Maker, SoftAuthenticator
from tests.fakes.elevation import Clock, Person, Server, Start, created, refused, wanted
from tests.fakes.kube import FakeKube, until
from webhook.adapters.kube import own_path

ORIGIN = "https://stepup.example.com"
JSON_TYPE = "application/json"
AuditLines = Callable[[], list[dict[str, Any]]]


class Browser:
    """A browser without a screen: cookies and what it sends by itself."""

    def __init__(self, server: Server) -> None:
        transport = httpx.ASGITransport(server.services.site.app(), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url=ORIGIN)
        self.base = ""

    async def post(self, action: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", **headers}
        return await self.client.post(self.base + action, json=body if body is not None else {}, headers=sent)

    async def open(self, url: str) -> httpx.Response:
        """Follow a link as the script of the page does."""
        parts = urlsplit(url)
        self.base = parts.path
        return await self.post("open", {"secret": parts.fragment})

    async def show(self) -> str:
        return (await self.client.get(self.base)).text

    async def options(self) -> dict[str, Any]:
        found = re.search(r"data-options='([^']*)'", await self.show())
        assert found
        options: dict[str, Any] = json.loads(html.unescape(found[1]))
        return options


@pytest.fixture
async def server(start: Start) -> Server:
    return await start(elevation={"page": {"origin": ORIGIN}})


@pytest.fixture
def browser(server: Server) -> Browser:
    return Browser(server)


@pytest.fixture
def bob(server: Server) -> Person:
    return server.person("bob", credential="X509SHA256=bob")


async def enrolled(bob: Person, browser: Browser, key: SoftAuthenticator, label: str = "key") -> dict[str, Any]:
    """Enrol a key on the page; the status of the confirmation."""
    spec = {"type": "webauthn", "name": label, "ticket": await bob.ticket()}
    started = created(await bob.post("authenticators", spec))
    name = started["metadata"]["name"]
    about = {"authenticator": name, "enrolmentSecret": started["status"]["enrolmentSecret"]}
    page = created(await bob.post("pages", about))
    assert (await browser.open(page["status"]["url"])).status_code == 200
    answer = await browser.post("register", {"credential": key.create(await browser.options())})
    assert answer.json() == {"accepted": True}, answer.text
    confirmed = created(await bob.post(f"authenticators/{name}/confirm", {"page": page["metadata"]["name"]}))
    return dict(confirmed["status"])


async def asked(bob: Person) -> tuple[str, str, str]:
    """Ask for an elevation; its name, its page and the link to it."""
    name = await bob.ask()
    page = created(await bob.post("pages", {"elevation": name}))
    return name, page["metadata"]["name"], page["status"]["url"]


async def claimed(person: Person, name: str, page: str) -> httpx.Response:
    return await person.post(f"elevationrequests/{name}/answer", {"factor": "webauthn", "page": page})


@pytest.fixture
async def key(bob: Person, browser: Browser) -> SoftAuthenticator:
    found = SoftAuthenticator(ORIGIN)
    assert len((await enrolled(bob, browser, found))["recoveryCodes"]) == 10
    return found


class TestTheWay:
    async def test_what_is_proven_on_the_page_is_claimed_by_the_terminal_and_phishing_resistant(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        shown = await browser.show()
        assert "bob" in shown
        assert "deployments.apps/web" in shown
        answer = await browser.post("answer", {"credential": key.get(await browser.options())})
        assert answer.json() == {"accepted": True}
        assert "assertion" not in answer.text
        assert (await bob.get(f"elevationrequests/{name}")).json()["status"]["phase"] == "Pending", (
            "nobody has claimed it"
        )
        status = created(await claimed(bob, name, page))["status"]
        assert status["accepted"]
        assert (await bob.server.kube.get(own_path("elevations", name)))["status"]["phishingResistant"] is True  # type: ignore[index]
        assert refused(await claimed(bob, name, page))[1] == "not-pending"

    async def test_it_is_as_old_as_the_touch_not_as_the_claim(
        self, bob: Person, browser: Browser, key: SoftAuthenticator, clock: Clock
    ) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        await browser.post("answer", {"credential": key.get(await browser.options())})
        touched = int(clock())
        clock.advance(60)
        created(await claimed(bob, name, page))
        stored = await bob.server.kube.get(own_path("elevations", name))
        assert stored is not None
        assert stored["status"]["authTime"].endswith("Z")
        from webhook.elevation.lifecycle import epoch_seconds

        assert epoch_seconds(stored["status"]["authTime"]) == touched

    async def test_a_policy_that_asks_for_it_is_met(
        self, bob: Person, browser: Browser, key: SoftAuthenticator, server: Server, kube: FakeKube
    ) -> None:
        await kube.create(own_path("stepuppolicies"), policy("strict", require={"phishingResistant": True}))
        await until(lambda: len(server.services.state.index.policies) == 2)
        answer = created(await bob.post("elevationrequests", {"details": [wanted()]}))
        assert answer["status"]["challenge"]["factors"] == ["webauthn"]
        assert answer["status"]["challenge"]["phishingResistant"] is True
        code = {"factor": "recovery-code", "code": "aaaa-bbbb-cccc-dddd"}
        name = answer["metadata"]["name"]
        assert created(await bob.post(f"elevationrequests/{name}/answer", code))["status"]["accepted"] is False

    async def test_a_code_that_is_right_is_too_weak_and_gives_nothing(
        self, bob: Person, browser: Browser, server: Server, kube: FakeKube
    ) -> None:
        codes = (await enrolled(bob, browser, SoftAuthenticator(ORIGIN)))["recoveryCodes"]
        await kube.create(own_path("stepuppolicies"), policy("strict", require={"phishingResistant": True}))
        await until(lambda: len(server.services.state.index.policies) == 2)
        name = await bob.ask()
        assert (await bob.answer(name, codes[0], "recovery-code"))["code"] == "factor-too-weak"


class TestTheLink:
    async def test_says_nothing_to_whoever_has_no_session(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        _, _, url = await asked(bob)
        stranger = Browser(bob.server)
        stranger.base = urlsplit(url).path
        shown = await stranger.show()
        assert "Opening" in shown
        assert "bob" not in shown
        assert "bob" not in url
        assert (await stranger.post("answer", {"credential": {}})).status_code == 410

    async def test_is_good_once(self, bob: Person, browser: Browser, key: SoftAuthenticator) -> None:
        _, _, url = await asked(bob)
        assert (await browser.open(url)).status_code == 200
        late = Browser(bob.server)
        answer = await late.open(url)
        assert (answer.status_code, answer.json()["code"]) == (410, "page-expired")

    @pytest.mark.parametrize("secret", ["", "guess", None, 1, ["x"]])
    async def test_needs_its_secret(self, bob: Person, browser: Browser, key: SoftAuthenticator, secret: Any) -> None:
        _, _, url = await asked(bob)
        browser.base = urlsplit(url).path
        assert (await browser.post("open", {"secret": secret})).status_code == 410

    async def test_lapses_with_the_request(
        self, bob: Person, browser: Browser, key: SoftAuthenticator, clock: Clock
    ) -> None:
        _, _, url = await asked(bob)
        await browser.open(url)
        clock.advance(301)
        assert "expired" in await browser.show()
        assert (await browser.post("answer", {"credential": {}})).json()["code"] == "page-expired"

    async def test_its_cookie_is_of_that_page_alone(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        _, page, url = await asked(bob)
        answer = await browser.open(url)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"__Host-stepup-{page}=")
        for attribute in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
            assert attribute in cookie
        _, _, other = await asked(bob)
        browser.base = urlsplit(other).path
        assert "Opening" in await browser.show()

    async def test_somebody_elses_path_with_ones_own_session(
        self, bob: Person, browser: Browser, key: SoftAuthenticator, server: Server
    ) -> None:
        _, page, url = await asked(bob)
        await browser.open(url)
        person, _, _ = urlsplit(url).path.removeprefix("/p/").partition("/")
        browser.base = f"/p/{person[:-4]}AAAA/{page}/"
        assert (await browser.post("answer", {"credential": {}})).status_code == 410


class TestOthers:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://stepup.example.com"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
        ],
    )
    async def test_another_site_cannot_act(
        self, bob: Person, browser: Browser, key: SoftAuthenticator, headers: dict[str, str]
    ) -> None:
        _, _, url = await asked(bob)
        await browser.open(url)
        answer = await browser.post("decline", {}, **headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong-origin")

    async def test_a_form_cannot_either(self, bob: Person, browser: Browser, key: SoftAuthenticator) -> None:
        _, _, url = await asked(bob)
        await browser.open(url)
        sent = {"Origin": ORIGIN, "Content-Type": "text/plain"}
        answer = await browser.client.post(browser.base + "decline", content=b"{}", headers=sent)
        assert answer.status_code == 400

    async def test_under_another_name_there_is_nothing(self, server: Server) -> None:
        transport = httpx.ASGITransport(server.services.site.app())
        async with httpx.AsyncClient(transport=transport, base_url="https://evil.example") as client:
            assert (await client.get(f"/p/v1.kek-1.{'A' * 60}/{'0' * 20}/")).status_code == 404

    async def test_identity_headers_mean_nothing_there(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        answer = await browser.client.get(
            "/apis/elevation.kube-stepup.io/v1alpha1/authenticators", headers={"X-Remote-User": "bob"}
        )
        assert answer.status_code == 404

    async def test_a_thief_with_another_credential_claims_nothing(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        await browser.post("answer", {"credential": key.get(await browser.options())})
        thief = bob.with_credential("X509SHA256=stolen")
        assert refused(await claimed(thief, name, page))[1] == "wrong-credential"
        mine = await thief.ask()
        assert created(await claimed(thief, mine, page))["status"]["code"] == "page-expired"

    async def test_what_was_proven_for_one_request_is_not_claimed_for_another(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        _, page, url = await asked(bob)
        other = await bob.ask()
        await browser.open(url)
        await browser.post("answer", {"credential": key.get(await browser.options())})
        assert created(await claimed(bob, other, page))["status"]["code"] == "page-expired"

    async def test_the_terminal_cannot_answer_for_the_browser(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        spec = {"factor": "webauthn", "page": page, "credential": key.get(await browser.options())}
        status = created(await bob.post(f"elevationrequests/{name}/answer", spec))["status"]
        assert (status["accepted"], status["code"]) == (False, "invalid")

    async def test_errors_tell_nothing(self, browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        async def crash(*_: Any) -> None:
            raise RuntimeError("internals")

        monkeypatch.setattr(server.services.site._actions, "open", crash)
        browser.base = f"/p/v1.kek-1.{'A' * 60}/{'0' * 20}/"
        answer = await browser.post("open", {"secret": "x"})
        assert (answer.status_code, "internals" in answer.text) == (500, False)


class TestDeclining:
    async def test_nothing_is_proven_any_more_and_the_request_is_gone(
        self, bob: Person, browser: Browser, key: SoftAuthenticator, audit_lines: AuditLines
    ) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        credential = key.get(await browser.options())
        assert (await browser.post("decline")).json() == {"declined": True}
        assert (await browser.post("answer", {"credential": credential})).json()["code"] == "page-declined"
        assert refused(await claimed(bob, name, page))[1] == "not-pending"
        assert [line["event"] for line in audit_lines()][-2:] == ["page-declined", "elevation-revoked"]

    async def test_also_what_was_proven_before(self, bob: Person, browser: Browser, key: SoftAuthenticator) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        await browser.post("answer", {"credential": key.get(await browser.options())})
        await browser.post("decline")
        assert refused(await claimed(bob, name, page))[1] == "not-pending"

    async def test_an_enrolment(self, bob: Person, browser: Browser) -> None:
        spec = {"type": "webauthn", "ticket": await bob.ticket()}
        started = created(await bob.post("authenticators", spec))
        name, secret = started["metadata"]["name"], started["status"]["enrolmentSecret"]
        page = created(await bob.post("pages", {"authenticator": name, "enrolmentSecret": secret}))
        await browser.open(page["status"]["url"])
        await browser.post("register", {"credential": SoftAuthenticator(ORIGIN).create(await browser.options())})
        await browser.post("decline")
        assert (await bob.get("authenticators")).json()["items"] == []
        answer = await bob.post(f"authenticators/{name}/confirm", {"page": page["metadata"]["name"]})
        assert refused(answer)[1] == "not-found"


class TestWrongAnswers:
    async def test_another_try_has_another_challenge(
        self, bob: Person, browser: Browser, key: SoftAuthenticator
    ) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        first = await browser.options()
        answer = (await browser.post("answer", {"credential": key.get(first, origin="https://evil.example")})).json()
        assert (answer["accepted"], answer["code"]) == (False, "wrong-passkey")
        assert answer["options"]["challenge"] != first["challenge"]
        again = (await browser.post("answer", {"credential": key.get(first)})).json()
        assert again["code"] == "wrong-passkey", "a challenge is good once"
        assert (await browser.post("answer", {"credential": key.get(again["options"])})).json() == {"accepted": True}
        assert created(await claimed(bob, name, page))["status"]["accepted"]

    @pytest.mark.parametrize(
        ("action", "body"),
        [
            ("answer", {}),
            ("answer", {"credential": 1}),
            ("register", {"credential": {}}),
            ("grant", {}),
            ("revoke", {"name": "elv-a"}),
        ],
    )
    async def test_what_the_page_does_not_do(
        self, bob: Person, browser: Browser, key: SoftAuthenticator, action: str, body: dict[str, Any]
    ) -> None:
        _, _, url = await asked(bob)
        await browser.open(url)
        assert (await browser.post(action, body)).status_code in {400, 404}


class TestHome:
    async def test_shows_ones_own_and_revokes(self, bob: Person, browser: Browser, key: SoftAuthenticator) -> None:
        name, page, url = await asked(bob)
        await browser.open(url)
        await browser.post("answer", {"credential": key.get(await browser.options())})
        created(await claimed(bob, name, page))
        home = created(await bob.post("pages", {}))
        await browser.open(home["status"]["url"])
        shown = await browser.show()
        for text in ("key", "stepup.example.com", "10 recovery codes", name, "deployments.apps/web"):
            assert text in shown
        assert (await browser.post("revoke", {"name": name})).json() == {"revoked": True}
        assert (await bob.get("elevationrequests")).json()["items"] == []
        assert (await browser.post("revoke", {"name": "elv-of-somebody-else"})).status_code == 404


class TestAttestation:
    @pytest.fixture
    def maker(self) -> Maker:
        return Maker()

    async def acr(
        self, start: Start, authenticator: SoftAuthenticator, roots: list[str], **webauthn: Any
    ) -> tuple[str, list[str]]:
        """What a proof by a key is worth where these makers are trusted."""
        settings = {"page": {"origin": ORIGIN}, "webauthn": {"attestationRoots": roots, **webauthn}}
        server = await start(elevation=settings)
        bob, browser = server.person("bob", credential="X509SHA256=bob"), Browser(server)
        await enrolled(bob, browser, authenticator)
        name, page, url = await asked(bob)
        await browser.open(url)
        await browser.post("answer", {"credential": authenticator.get(await browser.options())})
        created(await claimed(bob, name, page))
        status = (await bob.get(f"elevationrequests/{name}")).json()["status"]
        return status["acr"], status["amr"]

    async def test_of_a_trusted_maker_is_aal3(self, start: Start, maker: Maker) -> None:
        found = await self.acr(start, SoftAuthenticator(ORIGIN, maker=maker), [maker.root])
        assert found == ("aal3", ["hwk", "mfa", "user"])

    async def test_of_another_maker_is_none(self, start: Start, maker: Maker) -> None:
        found = await self.acr(start, SoftAuthenticator(ORIGIN, maker=Maker()), [maker.root])
        assert found == ("aal2", ["pop", "mfa", "user"])

    @pytest.mark.parametrize("other", [Maker(aaguid=bytes(16)), Maker(is_ca=True)])
    async def test_by_a_certificate_that_is_not_of_this_model(self, start: Start, other: Maker) -> None:
        assert (await self.acr(start, SoftAuthenticator(ORIGIN, maker=other), [other.root]))[0] == "aal2"

    async def test_of_a_key_that_can_be_copied(self, start: Start, maker: Maker) -> None:
        synced = SoftAuthenticator(ORIGIN, maker=maker, flags=UP | UV | 0x08)
        assert (await self.acr(start, synced, [maker.root]))[0] == "aal2"

    async def test_where_nobody_is_trusted(self, start: Start, maker: Maker) -> None:
        assert (await self.acr(start, SoftAuthenticator(ORIGIN, maker=maker), []))[0] == "aal2"

    async def test_where_it_is_required(self, start: Start, maker: Maker) -> None:
        settings = {
            "page": {"origin": ORIGIN},
            "webauthn": {"attestationRoots": [maker.root], "requireAttestation": True},
        }
        server = await start(elevation=settings)
        bob, browser = server.person("bob", credential="X509SHA256=bob"), Browser(server)
        spec = {"type": "webauthn", "ticket": await bob.ticket()}
        started = created(await bob.post("authenticators", spec))
        name, secret = started["metadata"]["name"], started["status"]["enrolmentSecret"]
        page = created(await bob.post("pages", {"authenticator": name, "enrolmentSecret": secret}))
        await browser.open(page["status"]["url"])
        options = await browser.options()
        assert options["attestation"] == "direct"
        answer = await browser.post("register", {"credential": SoftAuthenticator(ORIGIN).create(options)})
        assert answer.json()["code"] == "not-attested"
        again = answer.json()["options"]
        answer = await browser.post("register", {"credential": SoftAuthenticator(ORIGIN, maker=maker).create(again)})
        assert answer.json() == {"accepted": True}


async def test_whoever_has_a_resistant_factor_binds_another_with_it_alone(
    bob: Person, browser: Browser, server: Server
) -> None:
    codes = (await enrolled(bob, browser, SoftAuthenticator(ORIGIN)))["recoveryCodes"]
    own = wanted(
        operation="access",
        group="elevation.kube-stepup.io",
        resource="authenticators",
        namespace="",
        objects=[{"name": "new"}],
    )
    answer = created(await bob.post("elevationrequests", {"details": [own]}))
    assert answer["status"]["challenge"]["factors"] == ["webauthn"]
    assert (await bob.answer(answer["metadata"]["name"], codes[0], "recovery-code"))["code"] == "factor-too-weak"
