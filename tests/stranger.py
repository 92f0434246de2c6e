"""A server that answers for our API group in place of kube-apiserver: what somebody who took the APIService over would run."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.controlplane import ControlPlane
from tests.controlplane.cluster import ADMIN

GROUP_VERSION = "kube-stepup.io/v1alpha1"
API_SERVICE = "v1alpha1.kube-stepup.io"
KINDS = {
    "stepuppolicies": "StepUpPolicy",
    "elevations": "Elevation",
    "signingkeys": "SigningKey",
    "stepupreports": "StepUpReport",
}
FAR_VERSION = "999999999"  # the true server never comes to it


class Stranger:
    """Lists are empty, and watches tell of the deletion of what is named; a `with` block takes the group over.

    Args:
        deleted: (resource, name) of what its watches say is deleted.
    """

    def __init__(self, cluster: ControlPlane, deleted: tuple[tuple[str, str], ...] = ()) -> None:
        self._cluster = cluster
        self._deleted = deleted
        self._lock = threading.Lock()
        self._asked: list[str] = []
        pair = cluster.serving_cert("127.0.0.1", "localhost", "stranger.default.svc")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate_file, pair.key_file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "stranger", "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": self._port}]},
        }
        self._cluster.kubectl("apply", "-f", "-", user="robot", stdin=json.dumps(service), check=True)
        patch = {
            "metadata": {"labels": {"kube-aggregator.kubernetes.io/automanaged": None}},
            "spec": {
                "service": {"namespace": "default", "name": "stranger", "port": self._port},
                "insecureSkipTLSVerify": True,
            },
        }
        arguments = ("patch", "apiservice", API_SERVICE, "--type=merge", "-p", json.dumps(patch))
        self._cluster.kubectl(*arguments, user="robot", check=True)
        self._cluster.kubectl(
            "wait", "--for=condition=Available", f"apiservice/{API_SERVICE}", "--timeout=30s", user=ADMIN, check=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.kubectl("delete", "apiservice", API_SERVICE, user="robot")
        self._server.shutdown()
        self._server.server_close()

    def asked(self, resource: str, *, watch: bool) -> int:
        """How often it was asked for a list, or a watch, of a kind."""
        with self._lock:
            return self._asked.count(f"{'watch' if watch else 'list'} {resource}")

    def answer(self, target: str) -> tuple[int, list[dict[str, Any]], bool]:
        """Status, JSON texts, and whether the connection stays open."""
        parts = urlsplit(target)
        rest = parts.path.removeprefix(f"/apis/{GROUP_VERSION}").strip("/")
        if not parts.path.startswith(f"/apis/{GROUP_VERSION}"):
            return 404, [{}], False
        if not rest:
            resources = [
                {"name": name, "namespaced": False, "kind": kind, "verbs": ["get", "list", "watch"]}
                for name, kind in KINDS.items()
            ]
            found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION}
            return 200, [{**found, "resources": resources}], False
        if rest not in KINDS:
            return 404, [{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}], False
        watch = bool(parse_qs(parts.query).get("watch"))
        with self._lock:
            self._asked.append(f"{'watch' if watch else 'list'} {rest}")
        if not watch:
            metadata = {"resourceVersion": FAR_VERSION}
            empty = {"apiVersion": GROUP_VERSION, "kind": f"{KINDS[rest]}List", "metadata": metadata, "items": []}
            return 200, [empty], False
        events = [
            {
                "type": "DELETED",
                "object": {"kind": KINDS[rest], "metadata": {"name": name, "resourceVersion": FAR_VERSION}},
            }
            for resource, name in self._deleted
            if resource == rest
        ]
        return 200, events, True


def _handler(stranger: Stranger) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, texts, stays = stranger.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            for text in texts:
                self.wfile.write(json.dumps(text).encode() + b"\n")
            self.wfile.flush()
            if stays:
                time.sleep(2)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
