"""Who is believed to be kube-apiserver: by its CA, its common name and the time, as the ConfigMap says now."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.fakes.elevation import API, Clock, Server, refused
from tests.fakes.front_proxy import COMMON_NAME, CONFIG_MAP, FROM, UNTIL, Authority, config_map
from tests.fakes.kube import FakeKube
from webhook.elevation import front_proxy as module
from webhook.elevation.front_proxy import REMEMBERED, FrontProxy, require_form
from webhook.errors import ConfigurationError, StoreUnavailableError
from webhook.settings import RequestHeaderSettings

NOW = datetime(2026, 9, 21, tzinfo=UTC)
DAY = timedelta(days=1)


async def proxy(
    kube: FakeKube, *authorities: Authority, names: Any = (COMMON_NAME,), now: datetime = NOW, **settings: Any
) -> FrontProxy:
    """One that has read a ConfigMap with these CAs and names."""
    kube.objects[CONFIG_MAP] = config_map(*authorities, names=names)
    found = FrontProxy(kube, RequestHeaderSettings.model_validate(settings), now=lambda: now)  # type: ignore[arg-type]
    await found.refresh()
    return found


class TestBelieves:
    async def test_its_certificate(self, kube: FakeKube, authority: Authority) -> None:
        found = await proxy(kube, authority)
        assert found.ready
        assert found.believes(authority.issue())

    async def test_no_certificate_is_nobody(self, kube: FakeKube, authority: Authority) -> None:
        found = await proxy(kube, authority)
        assert not found.believes(None)
        assert not found.believes(b"")

    @pytest.mark.parametrize("der", [b"x", b"\x30\x03\x02\x01\x01", b"\x00" * 500])
    async def test_what_is_no_certificate(self, kube: FakeKube, authority: Authority, der: bytes) -> None:
        assert not (await proxy(kube, authority)).believes(der)

    async def test_a_certificate_that_was_changed(self, kube: FakeKube, authority: Authority) -> None:
        der = bytearray(authority.issue())
        der[-1] ^= 1
        assert not (await proxy(kube, authority)).believes(bytes(der))

    async def test_another_ca_of_the_same_name(self, kube: FakeKube, authority: Authority) -> None:
        assert not (await proxy(kube, authority)).believes(Authority().issue())

    @pytest.mark.parametrize(
        "names",
        [("alice",), ("Front-Proxy-Client",), (f"{COMMON_NAME}\x00.example.org",), (COMMON_NAME, "alice"), ("alice", COMMON_NAME)],
    )  # fmt: skip
    async def test_another_common_name_of_the_right_ca(
        self, kube: FakeKube, authority: Authority, names: Sequence[str]
    ) -> None:
        assert not (await proxy(kube, authority)).believes(authority.issue(*names))

    async def test_each_of_several_names(self, kube: FakeKube, authority: Authority) -> None:
        found = await proxy(kube, authority, names=["a", "b"])
        assert [found.believes(authority.issue(name)) for name in ("a", "b", "c")] == [True, True, False]

    @pytest.mark.parametrize("names", [[], "null", ""])
    async def test_any_name_where_the_list_is_empty_as_kubernetes_does(
        self, kube: FakeKube, authority: Authority, names: Any
    ) -> None:
        found = await proxy(kube, authority, names=names)
        assert found.believes(authority.issue("whoever"))
        assert not found.believes(Authority().issue("whoever"))

    @pytest.mark.parametrize(
        ("valid", "believed"),
        [
            ((FROM, NOW), True),
            ((FROM, NOW - timedelta(seconds=1)), False),
            ((NOW, UNTIL), True),
            ((NOW + timedelta(seconds=1), UNTIL), False),
        ],
    )
    async def test_only_while_it_is_valid(
        self, kube: FakeKube, authority: Authority, valid: tuple[datetime, datetime], believed: bool
    ) -> None:
        assert (await proxy(kube, authority)).believes(authority.issue(valid=valid)) is believed

    async def test_one_that_expires_on_an_open_connection(self, kube: FakeKube, authority: Authority) -> None:
        time = [NOW]
        kube.objects[CONFIG_MAP] = config_map(authority)
        found = FrontProxy(kube, RequestHeaderSettings(), now=lambda: time[0])  # type: ignore[arg-type]
        await found.refresh()
        certificate = authority.issue(valid=(FROM, NOW + DAY))
        assert found.believes(certificate)
        time[0] = NOW + 2 * DAY
        assert not found.believes(certificate)

    @pytest.mark.parametrize(
        ("usages", "believed"),
        [
            (None, True),
            ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH], True),
            ([ExtendedKeyUsageOID.SERVER_AUTH], False),
            ([ExtendedKeyUsageOID.EMAIL_PROTECTION], False),
        ],
    )
    async def test_a_certificate_for_clients(
        self,
        kube: FakeKube,
        authority: Authority,
        usages: Sequence[x509.ObjectIdentifier] | None,
        believed: bool,
    ) -> None:
        assert (await proxy(kube, authority)).believes(authority.issue(usages=usages)) is believed

    async def test_what_it_remembers_is_bounded(
        self, kube: FakeKube, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = await proxy(kube, authority)
        for number in range(3 * REMEMBERED):
            found.believes(number.to_bytes(4, "big"))
            assert len(found._answers) <= REMEMBERED
        assert found.believes(authority.issue())


class TestFollowsTheConfigMap:
    async def test_a_ca_that_was_taken_out_is_not_believed_any_more(self, kube: FakeKube, authority: Authority) -> None:
        other = Authority("new-ca")
        found = await proxy(kube, authority, other)
        certificates = [authority.issue(), other.issue()]
        assert [found.believes(one) for one in certificates] == [True, True]
        kube.objects[CONFIG_MAP] = config_map(other)
        await found.refresh()
        assert [found.believes(one) for one in certificates] == [False, True]

    async def test_a_name_that_was_taken_out_is_not_believed_any_more(
        self, kube: FakeKube, authority: Authority
    ) -> None:
        found = await proxy(kube, authority)
        certificate = authority.issue()
        assert found.believes(certificate)
        kube.objects[CONFIG_MAP] = config_map(authority, names=["another"])
        await found.refresh()
        assert not found.believes(certificate)

    @pytest.mark.parametrize(
        "data",
        [
            None,
            {},
            {"requestheader-client-ca-file": ""},
            {"requestheader-client-ca-file": "text"},
            {"requestheader-client-ca-file": "CA", "requestheader-allowed-names": "front-proxy-client"},
            {"requestheader-client-ca-file": "CA", "requestheader-allowed-names": '"front-proxy-client"'},
            {"requestheader-client-ca-file": "CA", "requestheader-allowed-names": "[1]"},
            {"requestheader-client-ca-file": "CA", "requestheader-allowed-names": "{}"},
        ],
    )
    async def test_one_that_cannot_be_read_changes_nothing(
        self, kube: FakeKube, authority: Authority, data: dict[str, str] | None
    ) -> None:
        found = await proxy(kube, authority)
        if data is None:
            del kube.objects[CONFIG_MAP]
        else:
            text = data.get("requestheader-client-ca-file", "").replace("CA", Authority().pem)
            kube.objects[CONFIG_MAP] = {"data": {**data, **({"requestheader-client-ca-file": text} if data else {})}}
        with pytest.raises(StoreUnavailableError):
            await found.refresh()
        assert found.believes(authority.issue())
        assert not found.believes(authority.issue("alice"))

    async def test_before_it_was_read_nobody_is_believed(self, kube: FakeKube, authority: Authority) -> None:
        found = FrontProxy(kube, RequestHeaderSettings())  # type: ignore[arg-type]
        assert not found.ready
        assert not found.believes(authority.issue())

    async def test_it_is_read_again_and_again_also_after_failures(
        self, kube: FakeKube, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        del kube.objects[CONFIG_MAP]
        pauses: list[float] = []
        real_sleep = asyncio.sleep

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                kube.objects[CONFIG_MAP] = config_map(authority)
            if len(pauses) == 4:
                del kube.objects[CONFIG_MAP]
            await real_sleep(0)

        found = FrontProxy(kube, RequestHeaderSettings())  # type: ignore[arg-type]
        monkeypatch.setattr(module, "asyncio", _Asyncio(sleep))
        task = asyncio.create_task(found.run())
        while len(pauses) < 6:
            await real_sleep(0)
        task.cancel()
        assert pauses[:6] == [1.0, 1.0, 30.0, 30.0, 30.0, 30.0]
        assert found.ready


class _Asyncio:
    def __init__(self, sleep: Any) -> None:
        self.sleep = sleep
        self.to_thread = asyncio.to_thread


class TestPins:
    @pytest.mark.parametrize("form", ["{}", "upper", "colons"])
    async def test_a_ca_that_is_not_pinned_is_not_believed(
        self, kube: FakeKube, authority: Authority, form: str
    ) -> None:
        pin = authority.fingerprint
        written = {"upper": pin.upper(), "colons": ":".join(pin[at : at + 2] for at in range(0, 64, 2))}.get(form, pin)
        planted = Authority("planted")
        with structlog.testing.capture_logs() as lines:
            found = await proxy(kube, authority, planted, caFingerprints=[written])
        assert found.believes(authority.issue())
        assert not found.believes(planted.issue())
        assert [line["code"] for line in lines if line["log_level"] == "error"] == ["unpinned-ca"]

    async def test_where_none_is_the_pinned_one_nobody_is_believed(self, kube: FakeKube, authority: Authority) -> None:
        found = await proxy(kube, Authority("planted"), caFingerprints=[authority.fingerprint])
        assert not found.ready


class TestCaFile:
    async def test_replaces_the_config_map(self, kube: FakeKube, authority: Authority, tmp_path: Path) -> None:
        file = tmp_path / "ca.crt"
        file.write_text(authority.pem)
        kube.calls.clear()
        found = await proxy(kube, Authority("other"), caFile=str(file), allowedNames=["a"])
        assert [found.believes(authority.issue(name)) for name in ("a", COMMON_NAME)] == [True, False]
        assert kube.calls == []

    @pytest.mark.parametrize("content", [None, b"\xff\xfe", b"text"])
    async def test_one_that_cannot_be_read_changes_nothing(
        self, kube: FakeKube, authority: Authority, tmp_path: Path, content: bytes | None
    ) -> None:
        file = tmp_path / "ca.crt"
        file.write_text(authority.pem)
        found = await proxy(kube, authority, caFile=str(file))
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        with pytest.raises(StoreUnavailableError):
            await found.refresh()
        assert found.believes(authority.issue())


async def test_believed_cas_are_what_the_server_asks_clients_for(kube: FakeKube, authority: Authority) -> None:
    planted = Authority("planted")
    kube.objects[CONFIG_MAP] = config_map(authority, planted)
    settings = RequestHeaderSettings(ca_fingerprints=(authority.fingerprint,))
    found = FrontProxy(kube, settings)  # type: ignore[arg-type]
    found.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await found.refresh()
    subjects = [dict(pair[0] for pair in one["subject"]) for one in found.context.get_ca_certs()]
    assert subjects == [{"commonName": "front-proxy-ca"}]
    kube.objects[CONFIG_MAP] = config_map(authority, names=["a"])
    await found.refresh()  # the same CA again is no error


@pytest.mark.parametrize("name", ["authentication", "a/b/c", ""])
def test_the_config_map_is_named_with_its_namespace(name: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        require_form(name)
    assert error.value.field == "elevation.requestHeader.configMap"


def test_the_default_config_map_has_the_right_form() -> None:
    require_form(RequestHeaderSettings().config_map)


class TestIdentityHeaders:
    """On any connection that is not the front proxy's they are an attack, whatever the path."""

    PATHS = (
        "/livez",
        "/readyz",
        "/apis",
        API,
        f"{API}/elevationrequests",
        f"{API}/authenticators",
        "/openapi/v3",
        "/",
        "/nothing/here",
    )

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize(
        "header",
        [
            "X-Remote-User",
            "x-remote-user",
            "X-REMOTE-GROUP",
            "X-Remote-Uid",
            "X-Remote-Extra-Scopes",
            "X-Remote-Anything",
        ],
    )
    async def test_without_a_certificate(self, server: Server, path: str, header: str) -> None:
        answer = await server.request("GET", path, [(header, "alice")])
        assert refused(answer) == (401, "unauthenticated", "")

    @pytest.mark.parametrize("what", ["another-ca", "another-name", "expired", "for-servers"])
    async def test_with_a_certificate_that_is_not_the_front_proxys(
        self, server: Server, authority: Authority, what: str
    ) -> None:
        certificate = {
            "another-ca": Authority().issue(),
            "another-name": authority.issue("alice"),
            "expired": authority.issue(valid=(FROM, NOW - DAY)),
            "for-servers": authority.issue(usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
        }[what]
        answer = await server.request(
            "GET", f"{API}/authenticators", [("X-Remote-User", "alice")], certificate=certificate
        )
        assert refused(answer) == (401, "unauthenticated", "")

    async def test_of_a_ca_that_is_not_believed_any_more(
        self, kube: FakeKube, authority: Authority, clock: Clock
    ) -> None:
        server = Server(kube, clock, authority)
        await server.services.front_proxy.refresh()
        alice = server.person()
        assert (await alice.get("authenticators")).status_code == 200
        kube.objects[CONFIG_MAP] = config_map(Authority("new-ca"))
        await server.services.front_proxy.refresh()
        assert refused(await alice.get("authenticators")) == (401, "unauthenticated", "")

    async def test_nobody_is_let_in_without_any(self, server: Server) -> None:
        for method, path in (
            ("GET", "elevationrequests"),
            ("GET", "elevationrequests/elv-a"),
            ("DELETE", "elevationrequests/elv-a"),
            ("POST", "elevationrequests/elv-a/revoke"),
            ("GET", "authenticators"),
            ("DELETE", "authenticators/totp-a"),
        ):
            answer = await server.request(method, f"{API}/{path}")
            assert refused(answer) == (401, "unauthenticated", "")
            assert "through the API server" in answer.json()["message"]

    async def test_the_front_proxy_itself_is_nobody(self, server: Server, authority: Authority) -> None:
        answer = await server.request("GET", f"{API}/authenticators", certificate=authority.issue())
        assert refused(answer) == (401, "unauthenticated", "")
