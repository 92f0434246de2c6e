"""An issuer that listens: its two documents over TLS, and tokens for jobs as GitHub Actions hands them out."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.issuer import Issuer

JOB_BEARER = "job-bearer"


class IssuerServer:
    """Serves an ``Issuer`` on this machine.

    Args:
        certificate, key: PEM files for ``localhost``.

    ``job`` are the claims of the job that asks for a token at ``/job`` with the bearer token ``JOB_BEARER``.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.issuer = Issuer(f"https://localhost:{self._server.server_port}")
        self.job: dict[str, str] = {}
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def job_url(self) -> str:
        """As ``ACTIONS_ID_TOKEN_REQUEST_URL`` has it."""
        return f"{self.issuer.url}/job?api-version=2.0"

    def __enter__(self) -> Self:
        """Start to listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


def _handler(server: IssuerServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            body = server.issuer.documents().get(asked.path)
            if asked.path == "/job" and self.headers.get("Authorization") == f"bearer {JOB_BEARER}":
                (audience,) = parse_qs(asked.query)["audience"]
                body = json.dumps({"value": server.issuer.token(aud=audience, **server.job)}).encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler
