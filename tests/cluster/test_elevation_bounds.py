"""Against real servers: what one may send before one is known, options that are not there, what a reset ends."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.sites import Site
from tests.cluster.test_elevation_api import detail
from tests.controlplane.cluster import ADMIN
from tests.deployment import LOOPBACK, NAMESPACE, Deployment
from tests.people import API, PYTHON, Person
from webhook.adapters.elevation_cache import user_hash

STEPUP = (PYTHON, "-m", "webhook.cli.stepup")
SERVERS = ("admission-0", "elevation")
MIB = 1024 * 1024
PATIENCE_SECONDS = 30.0


def connect(deployment: Deployment, server: str) -> ssl.SSLSocket:
    """TLS to a server itself, from somebody whom nobody knows."""
    port = deployment.elevation_port if server == "elevation" else deployment.admission_ports[0]
    context = ssl.create_default_context(cafile=str(deployment.folder / "ca.crt"))
    return context.wrap_socket(
        socket.create_connection((LOOPBACK, port), timeout=PATIENCE_SECONDS), server_hostname="localhost"
    )


def resident_bytes(deployment: Deployment, server: str) -> int:
    process = deployment.programs[server]._process
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.parametrize("server", SERVERS)
class TestHeads:
    def test_one_of_256_mib_is_refused_and_not_kept(self, deployment: Deployment, server: str) -> None:
        before = resident_bytes(deployment, server)
        with connect(deployment, server) as stranger:
            stranger.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
            with suppress(OSError):  # it may close before all is sent, or throw the rest away
                for _ in range(256):
                    stranger.sendall(b"a" * MIB)
        assert resident_bytes(deployment, server) - before < 16 * MIB

    def test_the_answer_says_so(self, deployment: Deployment, server: str) -> None:
        with connect(deployment, server) as stranger:
            limit = 256 if server == "elevation" else 64
            stranger.sendall(b"GET /livez HTTP/1.1\r\nX-Long: " + b"a" * (limit * 1024))
            assert stranger.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_a_connection_that_says_too_little_is_closed(deployment: Deployment) -> None:
    said = {"letter": b"G", "head": b"GET /livez HTTP/1.1\r\n"}
    connections = {(server, what): connect(deployment, server) for server in SERVERS for what in said}
    for (_, what), one in connections.items():
        one.sendall(said[what])
    for one in connections.values():
        with one, suppress(ConnectionError):
            assert one.recv(1) == b""


class TestOptions:
    def test_a_dry_run_does_nothing_and_says_that_there_is_none(self, site: Site, alice: Person) -> None:
        alice.prove(detail(site))
        name = alice.kubectl("get", "elevationrequests", "-o", "name", check=True).stdout.strip()
        refused = alice.kubectl("delete", name, "--dry-run=server")
        assert "dry-run-unsupported" in refused.stderr
        asked = json.dumps(
            {
                "apiVersion": "elevation.kube-stepup.io/v1alpha1",
                "kind": "ElevationRequest",
                "metadata": {"generateName": "x-"},
                "spec": {"details": [detail(site)]},
            }
        )
        refused = alice.kubectl("create", "--dry-run=server", "-f", "-", stdin=asked)
        assert "dry-run-unsupported" in refused.stderr
        assert alice.kubectl("get", "elevationrequests", "-o", "name", check=True).stdout.strip() == name
        alice.kubectl("delete", "deploy/web", "-n", site.prod, check=True)

    def test_a_selector_that_would_select_nothing_revokes_nothing(self, site: Site, alice: Person) -> None:
        alice.prove(detail(site))
        for arguments in (
            ("delete", "elevationrequests", "-l", "no=such"),
            ("get", "elevationrequests", "-l", "no=such"),
            ("delete", "elevationrequests", "--field-selector", "status.phase=Pending"),
        ):
            assert "selector-unsupported" in alice.kubectl(*arguments).stderr
        alice.kubectl("delete", "deploy/web", "-n", site.prod, check=True)

    def test_whoever_may_watch_is_told_that_there_is_nothing_to_watch(self, deployment: Deployment) -> None:
        refused = deployment.cluster.kubectl("get", "elevationrequests", "--watch-only", user=ADMIN)
        assert "watch-unsupported" in refused.stderr


class TestRecords:
    def test_recovery_codes_that_were_planted_are_not_believed_and_a_reset_mends_it(self, site: Site) -> None:
        victim = Person(site.deployment).enrol()
        name = f"authn-{user_hash(victim.name)}"
        stored = self.read(site, name)
        planted = {"username": victim.name, "recovery": ["0" * 64], "known": []}
        value = base64.b64encode(json.dumps(planted).encode()).decode()
        body = json.dumps({**stored, "data": {"record": value}})
        site.deployment.cluster.kubectl("replace", "-f", "-", user=ADMIN, stdin=body, check=True)
        answer, _ = victim.create("elevationrequests", {"details": [detail(site)]})
        assert "unreadable-secret" in answer.stderr
        site.deployment.cluster.run([*STEPUP, "reset", victim.name], user=ADMIN, check=True)
        victim.enrol()
        victim.prove(detail(site))

    def test_a_reset_ends_elevations_and_tickets(self, site: Site, alice: Person) -> None:
        operator = Person(site.deployment, "operator", ("system:masters",))
        _, ticket = operator.create("enrollmenttickets", {"username": alice.name}, "EnrollmentTicket")
        alice.prove(detail(site))
        done = site.deployment.cluster.run([*STEPUP, "reset", alice.name], user=ADMIN, check=True)
        assert done.stdout == f"{alice.name}: removed, 1 elevation revoked\n"
        assert "your step-up was revoked" in alice.kubectl("delete", "deploy/web", "-n", site.prod).stderr
        spec = {"type": "totp", "ticket": ticket["status"]["ticket"]}
        answer, _ = alice.create("authenticators", spec, "Authenticator")
        assert "wrong-ticket" in answer.stderr
        line = site.deployment.audit(lambda one: one["event"] == "authenticator-reset" and one["owner"] == alice.name)
        assert [one["alarm"] for one in line] == [True]

    @staticmethod
    def read(site: Site, name: str) -> Any:
        arguments = ("get", "secret", name, "-n", NAMESPACE, "-o", "json")
        return json.loads(site.deployment.cluster.kubectl(*arguments, user=ADMIN, check=True).stdout)


def test_elevation_answers_discovery_without_its_encryption_key_and_learns_a_newer_one(site: Site) -> None:
    """Last, since it takes the key away for a moment. An APIService that is down keeps every namespace from ending."""
    deployment, cluster = site.deployment, site.deployment.cluster
    person = Person(deployment).enrol()
    name = "kube-stepup-encryption-key"
    arguments = ("get", "secret", name, "-n", NAMESPACE, "-o", "json")
    key = json.loads(cluster.kubectl(*arguments, user=ADMIN, check=True).stdout)
    good = key["data"]
    try:
        store(site, key, {"kek-1": ""})
        deployment.kill("elevation")
        deployment.start("elevation")
        deployment._wait("elevation", deployment._aggregated)
        deployment._wait("elevation", lambda: "encryption-key-unavailable" in deployment.logs())
        answer, _ = person.create("elevationrequests", {"details": [detail(site)]})
        assert "store-unavailable" in answer.stderr
    finally:
        newer = base64.b64encode(b"n" * 32).decode()
        store(site, key, {**good, "kek-10": newer})
        deployment.wait_ready()
    person.prove(detail(site))
    assert json.loads(cluster.kubectl("get", "--raw", f"{API}", user=ADMIN, check=True).stdout)["resources"]
    sealed = TestRecords.read(site, f"authn-{user_hash(person.name)}")["data"]["record"]
    assert base64.b64decode(sealed).startswith(b"v1.kek-10.")


def store(site: Site, secret: dict[str, Any], data: dict[str, str]) -> None:
    metadata = {key: secret["metadata"][key] for key in ("name", "namespace", "labels")}
    body = {"apiVersion": "v1", "kind": "Secret", "type": secret["type"], "metadata": metadata, "data": data}
    site.deployment.cluster.kubectl("replace", "-f", "-", user=ADMIN, stdin=json.dumps(body), check=True)
