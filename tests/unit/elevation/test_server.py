"""How the server starts: what it needs, what it waits for, and how a client certificate reaches the application."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from uvicorn.server import ServerState

from tests.builders import AUDIENCE
from tests.fakes.elevation import Clock, Server
from tests.fakes.front_proxy import Authority
from tests.fakes.kube import FakeKube, until
from webhook.adapters.bounded_http import BoundedHttpProtocol
from webhook.elevation import server as module
from webhook.elevation.http import PEER
from webhook.elevation.server import PeerCertificateProtocol, run
from webhook.errors import ConfigurationError
from webhook.settings import Settings


class Tls:
    """The TLS half of a connection."""

    def __init__(self, certificate: bytes | None) -> None:
        self._certificate = certificate

    def getpeercert(self, *, binary_form: bool) -> bytes | None:
        assert binary_form
        return self._certificate


class Connection(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, tls: Tls | None) -> None:
        super().__init__({"ssl_object": tls} if tls else {})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        return None

    def resume_reading(self) -> None:
        return None

    def pause_reading(self) -> None:
        return None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        return None


class TestPeerCertificate:
    async def seen(self, tls: Tls | None, *requests: bytes) -> list[Any]:
        """What the application finds in the scope of each request of a connection."""
        scopes: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope.get(PEER, "absent"))
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        config = uvicorn.Config(app, http=PeerCertificateProtocol, ws="none", log_config=None)
        config.load()
        protocol = PeerCertificateProtocol(config, ServerState(), {})
        connection = Connection(tls)
        protocol.connection_made(connection)
        for request in requests:
            protocol.data_received(request)
            for _ in range(20):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        assert connection.written.count(b"HTTP/1.1 200 OK") == len(scopes)
        return scopes

    GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

    async def test_is_in_the_scope_of_each_request_of_the_connection(self) -> None:
        assert await self.seen(Tls(b"der"), self.GET, self.GET) == [b"der", b"der"]

    async def test_also_of_requests_that_come_in_one_piece(self) -> None:
        assert await self.seen(Tls(b"der"), self.GET + self.GET) == [b"der", b"der"]

    async def test_is_none_without_one_and_without_tls(self) -> None:
        assert await self.seen(Tls(None), self.GET) == [None]
        assert await self.seen(None, self.GET) == [None]

    async def test_cannot_be_set_by_a_header(self) -> None:
        forged = b"GET / HTTP/1.1\r\nHost: x\r\nstepup.peer_certificate: der\r\n\r\n"
        assert await self.seen(Tls(None), forged) == [None]

    def test_it_is_the_protocol_with_bounds_with_that_one_addition(self) -> None:
        assert issubclass(PeerCertificateProtocol, BoundedHttpProtocol)


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> Settings:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "tls.crt").write_text(authority.serving(key))
    return Settings(audience=AUDIENCE, tls_cert_file=str(tmp_path / "tls.crt"), tls_key_file=str(tmp_path / "tls.key"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, kube: FakeKube) -> list[uvicorn.Config]:
    """What would be served."""
    configs: list[uvicorn.Config] = []

    async def connect(_: str) -> FakeKube:
        return kube

    async def serve(config: uvicorn.Config, *beside: Any, max_connections: int) -> None:
        assert max_connections <= 1000
        configs.append(config)
        for one in beside:
            one.close()

    monkeypatch.setattr(module, "configure", lambda _: None)
    monkeypatch.setattr(module.KubeClient, "connect", connect)
    monkeypatch.setattr(module, "serve", serve)
    return configs


class TestStart:
    async def test_serves_tls_that_asks_for_a_client_certificate_and_believes_no_ca_yet(
        self, settings: Settings, started: list[uvicorn.Config]
    ) -> None:
        await run(settings)
        (config,) = started
        assert isinstance(config.ssl, ssl.SSLContext)
        assert config.ssl.verify_mode == ssl.CERT_OPTIONAL
        assert config.ssl.get_ca_certs() == []
        assert config.http is PeerCertificateProtocol
        assert not config.proxy_headers
        assert config.ws == "none"

    async def test_waits_for_no_key(self, settings: Settings, started: list[uvicorn.Config], kube: FakeKube) -> None:
        """While the discovery of an APIService fails, no namespace of the cluster finishes deleting."""
        kube.calls.clear()
        await run(settings)
        assert len(started) == 1
        assert kube.calls == []

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"tls_cert_file": ""}, "tlsCertFile"),
            ({"tls_key_file": "/nowhere/tls.key"}, "tlsKeyFile"),
            ({"elevation": {"requestHeader": {"configMap": "authentication"}}}, "elevation.requestHeader.configMap"),
        ],
    )
    async def test_says_which_setting_is_wrong(
        self, settings: Settings, started: list[uvicorn.Config], changes: dict[str, Any], field: str
    ) -> None:
        wrong = Settings.model_validate({**settings.model_dump(), **changes})
        with pytest.raises(ConfigurationError) as error:
            await run(wrong)
        assert error.value.field == field
        assert started == []

    async def test_never_without_tls(
        self, settings: Settings, started: list[uvicorn.Config], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uvicorn.Config, "load", lambda _: None)
        monkeypatch.setattr(uvicorn.Config, "ssl", None, raising=False)
        with pytest.raises(ConfigurationError) as error:
            await run(settings)
        assert error.value.field == "tlsCertFile"
        assert started == []


class TestLife:
    async def test_the_application_works_from_its_start_to_its_end(
        self, kube: FakeKube, clock: Clock, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[bool] = []

        async def leave(*_: object) -> None:
            closed.append(True)

        monkeypatch.setattr(FakeKube, "__aexit__", leave)
        server = Server(kube, clock, authority)
        told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        said: list[str] = []

        async def say(message: Any) -> None:
            said.append(message["type"])

        life = asyncio.create_task(server.app({"type": "lifespan", "asgi": {}}, told.get, say))
        await told.put({"type": "lifespan.startup"})
        await until(lambda: not server.services.waiting_for())
        assert (await server.request("GET", "/readyz")).status_code == 200
        await told.put({"type": "lifespan.shutdown"})
        await life
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert closed == [True]
