"""Starts the admission server: settings in, uvicorn over TLS out."""

from __future__ import annotations

from typing import Final

import uvicorn

from webhook.adapters.audit import configure
from webhook.adapters.bounded_http import BoundedHttpProtocol
from webhook.adapters.kube import KubeClient
from webhook.adapters.metrics import Metrics
from webhook.adapters.serving import reload_certificate, require_files, serve
from webhook.admission.app import create_app
from webhook.admission.path_secrets import PathSecrets
from webhook.errors import ConfigurationError
from webhook.settings import Settings

MAX_CONNECTIONS: Final = 1000  # each review in flight is one; an API server handles 200 writes at a time by default


async def run(settings: Settings) -> None:
    """Serve until SIGTERM.

    Raises:
        ConfigurationError: a file is missing or the Kubernetes API is not configured.
    """
    configure(settings.log_level)
    require_files(settings.tls_cert_file, settings.tls_key_file)
    kube = await KubeClient.connect(settings.kubeconfig)
    options = settings.admission
    path_secrets = PathSecrets(options.path_secret_file)
    metrics = Metrics()
    config = uvicorn.Config(
        create_app(settings, kube, path_secrets, metrics),
        host=settings.bind_address,
        port=options.port,
        http=BoundedHttpProtocol,
        ws="none",
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        timeout_keep_alive=options.keep_alive_seconds,
        timeout_graceful_shutdown=options.graceful_shutdown_seconds,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
    )
    config.load()
    if config.ssl is None:
        raise ConfigurationError("no TLS", field="tlsCertFile")
    await serve(
        config,
        reload_certificate(config.ssl, settings.tls_cert_file, settings.tls_key_file),
        path_secrets.run(),
        *([metrics.serve(settings.bind_address, settings.metrics_port)] if settings.metrics_port else []),
        max_connections=MAX_CONNECTIONS,
    )
