"""Starts the admission server: settings in, uvicorn over TLS out."""

from __future__ import annotations

from pathlib import Path

import uvicorn

from webhook.adapters.audit import configure
from webhook.adapters.kube import KubeClient
from webhook.adapters.serving import reload_certificate, require_files, serve
from webhook.admission.app import create_app
from webhook.errors import ConfigurationError
from webhook.settings import Settings

MIN_PATH_SECRET_LETTERS = 16


async def run(settings: Settings) -> None:
    """Serve until SIGTERM.

    Raises:
        ConfigurationError: a file is missing or the Kubernetes API is not configured.
    """
    configure(settings.log_level)
    require_files(settings.tls_cert_file, settings.tls_key_file)
    kube = await KubeClient.connect(settings.kubeconfig)
    options = settings.admission
    config = uvicorn.Config(
        create_app(settings, kube, _path_secret(options.path_secret_file)),
        host=settings.bind_address,
        port=options.port,
        http="httptools",
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
    await serve(config, reload_certificate(config.ssl, settings.tls_cert_file, settings.tls_key_file))


def _path_secret(file: str) -> str:
    if not file:
        return ""
    try:
        secret = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {file}", field="admission.pathSecretFile") from error
    if len(secret) < MIN_PATH_SECRET_LETTERS or "/" in secret:
        raise ConfigurationError("needs at least 16 letters and no slash", field="admission.pathSecretFile")
    return secret
