"""How the server starts: over TLS, with bounds on what somebody may send before anybody knows who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.builders import AUDIENCE
from tests.fakes.front_proxy import Authority
from tests.fakes.kube import FakeKube
from webhook.adapters.bounded_http import BoundedHttpProtocol
from webhook.admission import server as module
from webhook.admission.server import run
from webhook.settings import Settings


async def test_it_serves_with_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[uvicorn.Config] = []
    connections: list[int] = []

    async def connect(_: str) -> FakeKube:
        return FakeKube()

    async def serve(config: uvicorn.Config, *beside: Any, max_connections: int) -> None:
        configs.append(config)
        connections.append(max_connections)
        for one in beside:
            one.close()

    monkeypatch.setattr(module, "configure", lambda _: None)
    monkeypatch.setattr(module.KubeClient, "connect", connect)
    monkeypatch.setattr(module, "serve", serve)
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "tls.crt").write_text(Authority().serving(key))
    certificate, private = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    await run(Settings(audience=AUDIENCE, tls_cert_file=certificate, tls_key_file=private))
    (config,) = configs
    assert config.ssl is not None
    assert config.http is BoundedHttpProtocol
    assert connections == [1000]
