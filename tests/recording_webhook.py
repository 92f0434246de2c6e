"""A webhook that allows everything and remembers what it was asked: shows what an API server sends, and what it does not."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.controlplane import KeyPair
from webhook.core.canary import MANAGER_PREFIX, seen


@dataclass(frozen=True)
class Asked:
    """One review, with the path and the timeout that tell which entry of the configuration sent it."""

    path: str
    timeout: str
    request: dict[str, Any]

    @property
    def user(self) -> str:
        """Who asks."""
        return str(self.request["userInfo"]["username"])

    @property
    def about(self) -> str:
        """`CREATE configmaps in prod`, for assertions that can be read."""
        request = self.request
        resource = "/".join(filter(None, (request["resource"]["resource"], request.get("subResource"))))
        where = f" in {request['namespace']}" if request.get("namespace") else ""
        return f"{request['operation']} {resource}{where}"


class RecordingWebhook:
    """Listens on 127.0.0.1 while a `with` block lasts, on a free port unless one is given."""

    def __init__(self, pair: KeyPair, *, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self._record))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate_file, pair.key_file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self) -> list[Asked]:
        """What was asked since the last call."""
        with self._lock:
            taken, self._asked = self._asked, []
        return taken

    def _record(self, asked: Asked) -> None:
        with self._lock:
            self._asked.append(asked)


def _handler(record: Callable[[Asked], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parts = urlsplit(self.path)
            record(Asked(parts.path, parse_qs(parts.query).get("timeout", [""])[0], review["request"]))
            answer: dict[str, Any] = {"uid": review["request"]["uid"], "allowed": True}
            manager = (review["request"].get("options") or {}).get("fieldManager", "")
            if manager.startswith(MANAGER_PREFIX):
                answer["warnings"] = [seen(manager.removeprefix(MANAGER_PREFIX))]
            body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
