"""Who is busy in a cluster: each actor writes with a credential of its own, again and again, until it is told to stop."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from tests.controlplane import ControlPlane

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
EXPECTED = frozenset({200, 201, 202, 404, 409})  # somebody was faster, or it is gone already
LEASES = "/apis/coordination.k8s.io/v1/namespaces"


class Api:
    """The API server, as one identity sees it: a client certificate or a token. For one thread."""

    def __init__(
        self, cluster: ControlPlane, user: str = "", groups: tuple[str, ...] | None = None, *, token: str = ""
    ) -> None:
        self._host = cluster.server.removeprefix("https://")
        self._context = ssl.create_default_context(cafile=str(cluster.ca_file))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        if not token:
            pair = cluster.client_certificate(user, groups)
            self._context.load_cert_chain(pair.certificate_file, pair.key_file)
        self._connection = self._connect()

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> dict[str, Any]:
        """One request.

        Raises:
            AssertionError: it was answered by what no busy cluster should see, a refusal above all.
        """
        text = json.dumps(body) if body is not None else None
        try:
            answer = self._sent(method, path, text, kind)
        except (http.client.HTTPException, OSError):  # a connection that was idle for too long
            self.close()
            self._connection = self._connect()
            answer = self._sent(method, path, text, kind)
        content = answer.read()
        assert answer.status in EXPECTED, f"{method} {path}: {answer.status} {content[:400]!r}"
        found: dict[str, Any] = json.loads(content)
        return found

    def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply of one object."""
        return self.call("PATCH", f"{path}?fieldManager=busy&force=true", body, APPLY)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, context=self._context, timeout=30)

    def _sent(self, method: str, path: str, text: str | None, kind: str) -> http.client.HTTPResponse:
        self._connection.request(method, path, text, {**self._headers, "Content-Type": kind})
        return self._connection.getresponse()


class Actors:
    """Threads that each do one thing every few moments, for as long as a `with` block lasts. What fails is kept."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._apis: list[Api] = []
        self.failures: list[str] = []
        self.rounds: dict[str, int] = {}

    def add(self, name: str, pause_seconds: float, api: Api, step: Callable[[Api, int], object]) -> None:
        """Have somebody do `step(api, 0)`, `step(api, 1)` … from when the block begins."""
        self._apis.append(api)
        self._threads.append(threading.Thread(target=self._run, args=(name, pause_seconds, api, step), daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        for api in self._apis:
            api.close()

    def _run(self, name: str, pause_seconds: float, api: Api, step: Callable[[Api, int], object]) -> None:
        number = 0
        while not self._over.is_set():
            try:
                step(api, number)
            except (AssertionError, OSError, http.client.HTTPException) as error:
                self.failures.append(f"{name}: {error}")
            number += 1
            self.rounds[name] = number
            self._over.wait(pause_seconds)


def lease(api: Api, namespace: str, name: str, holder: str) -> dict[str, Any]:
    """Renew a Lease, as leaders and kubelets do."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"holderIdentity": holder, "renewTime": now, "leaseDurationSeconds": 40},
    }
    path = f"{LEASES}/{namespace}/leases"
    stored = api.call("GET", f"{path}/{name}")
    if stored.get("kind") == "Status":
        return api.call("POST", path, body)
    return api.call("PUT", f"{path}/{name}", {**stored, "spec": body["spec"]})
