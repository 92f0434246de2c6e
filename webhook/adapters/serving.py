"""uvicorn with TLS, set up the same way for every server of ours; certificates are reloaded while it runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn

from webhook.adapters.listening import BoundedServer
from webhook.errors import ConfigurationError

CERTIFICATE_CHECK_SECONDS: Final = 10.0

log = structlog.get_logger("serving")


def require_files(*names: str) -> None:
    """Refuse to start without the files of the serving certificate.

    Raises:
        ConfigurationError: naming the setting.
    """
    for field, name in zip(("tlsCertFile", "tlsKeyFile"), names, strict=True):
        if not name or not Path(name).is_file():
            raise ConfigurationError(f"needs the path of a PEM file, {name!r} is none", field=field)


async def reload_certificate(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    """Load the certificate again whenever its file changes; open connections keep the one that they have.

    A file that is half written, or does not fit its key, is left alone until it changes again.
    """
    loaded = _stamp(cert_file, key_file)
    while True:
        await asyncio.sleep(CERTIFICATE_CHECK_SECONDS)
        stamp = _stamp(cert_file, key_file)
        if stamp == loaded:
            continue
        try:
            context.load_cert_chain(cert_file, key_file)
        except (ssl.SSLError, OSError) as error:
            log.exception("certificate-not-loaded", code="bad-certificate", problem=type(error).__name__)
            continue
        loaded = stamp
        log.info("certificate-reloaded", file=cert_file)


class Beside(BoundedServer):
    """A server beside the main one, which alone hears signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the main server."""
        yield


async def serve(config: uvicorn.Config, *beside: Coroutine[Any, Any, None], max_connections: int) -> None:
    """Run a server until it is told to stop, with other work beside it.

    Raises:
        ConfigurationError: the port cannot be had.
    """
    server = BoundedServer(config, max_connections=max_connections)
    tasks = [asyncio.create_task(work) for work in beside]
    try:
        await server.serve()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _stamp(*names: str) -> tuple[tuple[int, int], ...]:
    found = []
    for name in names:
        try:
            status = Path(name).stat()
        except OSError:
            return ()
        found.append((status.st_mtime_ns, status.st_ino))
    return tuple(found)
