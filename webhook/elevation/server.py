"""Starts the elevation server: settings in, uvicorn over TLS with optional client certificates out."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any, Final

import uvicorn

from webhook.adapters.audit import configure
from webhook.adapters.bounded_http import KIB, BoundedHttpProtocol
from webhook.adapters.envelope import Envelope, read_keys
from webhook.adapters.kube import KubeClient
from webhook.adapters.metrics import Metrics
from webhook.adapters.serving import Beside, reload_certificate, require_files, serve
from webhook.elevation.app import Services, create_app
from webhook.elevation.front_proxy import FrontProxy, require_form
from webhook.elevation.http import PEER
from webhook.errors import ConfigurationError
from webhook.settings import Settings

KEEP_ALIVE_SECONDS: Final = 120  # the API server keeps idle connections for 90 s
MAX_CONNECTIONS: Final = 250  # people who step up at the same time; each may send a large head
GRACEFUL_SECONDS: Final = 5
PAGE_KEEP_ALIVE_SECONDS: Final = 15
PAGE_CONNECTIONS: Final = 512


class PeerCertificateProtocol(BoundedHttpProtocol):
    """uvicorn verifies a client certificate's chain but tells nobody whose it is: this one tells the application."""

    max_head_bytes = (
        256 * KIB
    )  # a header for each group, and one for each value of `extra`, of which some clusters have many
    max_headers = 4096

    _peer_certificate: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the certificate that the TLS handshake has verified."""
        super().connection_made(transport)
        tls: Any = transport.get_extra_info("ssl_object")
        self._peer_certificate = tls.getpeercert(binary_form=True) if tls is not None else None

    def on_message_begin(self) -> None:
        """Hand it to each request of the connection."""
        super().on_message_begin()
        scope: Any = self.scope
        scope[PEER] = self._peer_certificate


async def run(settings: Settings) -> None:
    """Serve until SIGTERM.

    Raises:
        ConfigurationError: a file is missing or the Kubernetes API is not configured.
    """
    configure(settings.log_level)
    require_files(settings.tls_cert_file, settings.tls_key_file)
    require_form(settings.elevation.request_header.config_map)
    kube = await KubeClient.connect(settings.kubeconfig)
    front_proxy = FrontProxy(kube, settings.elevation.request_header)
    secret = settings.elevation.encryption_key_secret
    envelope = Envelope(source=lambda create: read_keys(kube, settings.namespace, secret, create=create))
    services = Services(settings, kube, envelope, front_proxy)
    config = uvicorn.Config(
        create_app(services),
        host=settings.bind_address,
        port=settings.elevation.port,
        http=PeerCertificateProtocol,
        ws="none",
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    config.load()
    if config.ssl is None:
        raise ConfigurationError("no TLS", field="tlsCertFile")
    front_proxy.context = config.ssl
    metrics = Metrics(services.state.metrics)
    await serve(
        config,
        reload_certificate(config.ssl, settings.tls_cert_file, settings.tls_key_file),
        *([metrics.serve(settings.bind_address, settings.metrics_port)] if settings.metrics_port else []),
        *(_page(settings, services) if settings.elevation.page.origin else []),
        max_connections=MAX_CONNECTIONS,
    )


def _page(settings: Settings, services: Services) -> list[Coroutine[Any, Any, None]]:
    """The page for browsers, on a port of its own, where no client certificate is asked for."""
    config = uvicorn.Config(
        services.site.app(),
        host=settings.bind_address,
        port=settings.elevation.page.port,
        http=BoundedHttpProtocol,
        ws="none",
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        timeout_keep_alive=PAGE_KEEP_ALIVE_SECONDS,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        lifespan="off",
    )
    config.load()
    if config.ssl is None:
        raise ConfigurationError("no TLS", field="tlsCertFile")
    reload = reload_certificate(config.ssl, settings.tls_cert_file, settings.tls_key_file)
    return [Beside(config, max_connections=PAGE_CONNECTIONS).serve(), reload]
