"""Serves one page on localhost, to one browser: what it gives is handed to the cluster by the person's own kubectl.

Other programs of this machine can reach the port, and other pages of the browser can try to: the link is good once, a cookie
holds what it opened, and nothing is taken from another origin or under another name (DNS rebinding).
"""

from __future__ import annotations

import errno
import hmac
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from webhook.cli.exits import USAGE, ElevateError

PORT_VARIABLE: Final = "KUBECTL_ELEVATE_PAGE_PORT"
MAX_BODY_BYTES: Final = 64 * 1024
REQUEST_SECONDS: Final = 10
PORT_TRIES: Final = 20
FAREWELL_SECONDS: Final = 2.0

JSON = dict[str, Any]
Act = Callable[[str, JSON], JSON]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    page: LocalPage

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no news for the terminal."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class LocalPage:
    """A port on localhost, and later the page that is served there.

    Raises:
        ElevateError: no port is free.
    """

    def __init__(self) -> None:
        self._servers = _bound()
        self.port = int(self._servers[0].server_address[1])
        self.origin = f"http://localhost:{self.port}"
        self._link = secrets.token_urlsafe(32)
        self._session = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._told = threading.Event()
        self._act: Act = lambda _, __: {}
        self.document: JSON = {}
        for server in self._servers:
            server.page = self

    @property
    def url(self) -> str:
        """The link; its secret is a fragment, which browsers keep to themselves."""
        return f"{self.origin}/#{self._link}"

    def serve(self, document: JSON, act: Act) -> None:
        """Begin to serve; ``act`` takes what the page does, one at a time, and gives what it is told."""
        self.document, self._act = document, act
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def end(self) -> None:
        """Called by ``act``: the answer that it gives is the last one."""
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Until it has ended, and the page has heard of it; False when the time is over first."""
        ended = self._ended.wait(seconds)
        if ended:
            self._told.wait(FAREWELL_SECONDS)
        return ended

    def close(self) -> None:
        """Free the port."""
        for server in self._servers:
            if self.document:
                server.shutdown()
            server.server_close()

    # What the handler asks

    def open(self, unverified_secret: str) -> str:
        """The session for the link's secret, once; empty for a wrong one."""
        with self._lock:
            if not self._link or not hmac.compare_digest(unverified_secret.encode(), self._link.encode()):
                return ""
            self._link, self._session = "", secrets.token_urlsafe(32)
            return self._session

    def is_session(self, unverified: str) -> bool:
        """Whether a cookie is that of the browser that opened the page."""
        return bool(self._session) and hmac.compare_digest(unverified.encode(), self._session.encode())

    def act(self, action: str, body: JSON) -> JSON:
        """Do what the page wants; nothing any more once it has ended."""
        with self._lock:
            if self._ended.is_set():
                raise ElevateError("this page has expired or was used already; ask again at your terminal")
            return self._act(action, body)

    def has_told(self) -> None:
        """The page has been sent an answer."""
        if self._ended.is_set():
            self._told.set()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    server_version = "kubectl-elevate"
    sys_version = ""

    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal is the person's."""

    def do_GET(self) -> None:
        page = self.server.page
        if not self._is_for_us():
            return
        asset = page.document["assets"].get(self.path)
        if asset is not None:
            self._send(200, asset["contentType"], asset["text"])
        elif self.path == "/":
            html = page.document["html"] if page.is_session(self._cookie()) else page.document["opening"]
            self._send(200, "text/html; charset=utf-8", html)
        else:
            self._send_json(404, {"message": "there is nothing here"})

    def do_POST(self) -> None:
        page = self.server.page
        if not self._is_for_us():
            return
        if (
            self.headers.get("Origin") != page.origin
            or self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin"
        ):
            self._send_json(403, {"message": "this was asked from another page"})
            return
        body = self._body()
        if body is None:
            self._send_json(400, {"message": "that is not what this page sends"})
        elif self.path == "/open":
            self._open(str(body.get("secret", "")))
        elif not page.is_session(self._cookie()):
            self._send_json(410, {"message": "this page is held by another browser; ask again at your terminal"})
        else:
            self._do(self.path.removeprefix("/"), body)

    def _open(self, unverified_secret: str) -> None:
        session = self.server.page.open(unverified_secret)
        if not session:
            text = "this link was opened already, perhaps by somebody else on this machine; ask again at your terminal"
            self._send_json(410, {"message": text})
            return
        cookie = f"{self._cookie_name()}={session}; Path=/; HttpOnly; SameSite=Strict"
        self._send_json(200, {}, {"Set-Cookie": cookie})

    def _do(self, action: str, body: JSON) -> None:
        try:
            self._send_json(200, self.server.page.act(action, body))
        except ElevateError as error:
            self._send_json(403, {"message": error.message})
        finally:
            self.server.page.has_told()

    def _is_for_us(self) -> bool:
        """By the name that we gave: a foreign name that leads here would be another site's."""
        if self.headers.get("Host") == f"localhost:{self.server.page.port}":
            return True
        self._send_json(421, {"message": "this is localhost"})
        return False

    def _body(self) -> JSON | None:
        try:
            length = int(self.headers.get("Content-Length", ""))
            if self.headers.get_content_type() != "application/json" or not 0 < length <= MAX_BODY_BYTES:
                return None
            found = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _cookie(self) -> str:
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        return cookies[self._cookie_name()].value if self._cookie_name() in cookies else ""

    def _cookie_name(self) -> str:
        return f"stepup-{self.server.page.port}"  # cookies know no ports

    def _send_json(self, status: int, body: JSON, headers: dict[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(body), headers)

    def _send(self, status: int, content_type: str, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {**self.server.page.document["headers"], **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _bound() -> list[_Server]:
    """The same port on both loopback addresses: `localhost` is either, and nobody else may listen on the other one."""
    wanted = _wanted_port()
    for _ in range(1 if wanted else PORT_TRIES):
        try:
            first = _Server(("127.0.0.1", wanted), _Handler)
        except OSError as error:
            raise ElevateError(f"port {wanted} of localhost is not free ({PORT_VARIABLE})", USAGE) from error
        try:
            return [first, _Server6(("::1", int(first.server_address[1])), _Handler)]
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return [first]  # this machine has no IPv6
            first.server_close()
    raise ElevateError("no port of localhost is free", USAGE)


def _wanted_port() -> int:
    text = os.environ.get(PORT_VARIABLE, "0")
    if not text.isdigit() or int(text) > 65535:
        raise ElevateError(f"{PORT_VARIABLE}: must be a port", USAGE)
    return int(text)
