"""Two people on a real API server: one asks, another agrees, and a kubectl that was told to wait goes through by itself."""

from __future__ import annotations

import json
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from tests.builders import policy
from tests.cluster.sites import workload
from tests.controlplane import ADMIN, ControlPlane, Finished, Programs
from tests.deployment import Deployment
from tests.people import Person

NAMESPACE = "prod"
SECONDS = 30.0
LEADERS = ("devs", "sre-leads")
URL_SECRET = "hook-secret-4711"
PATIENT = {"approvals": {"count": 1, "groups": ["sre-leads"]}, "hold": "5m"}


class Inbox:
    """A chat that takes notices as JSON."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self._server.server_port}/{URL_SECRET}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def about(self, text: str) -> list[dict[str, Any]]:
        return [one for one in self.received if text in one["title"] + one["message"]]


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    found = Inbox()
    yield found
    found.close()


@pytest.fixture(scope="module")
def deployment(programs: Programs, inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """An installation of its own: approvers and notices are settings of a whole cluster."""
    urls = tmp_path_factory.mktemp("notices") / "urls"
    urls.write_text(f"# where people are told\n{inbox.url}\n")
    overrides = {
        "elevation": {"approvals": {"minFactorAgeSeconds": 0}, "signingKeyPropagationSeconds": 0},
        "notices": {"urlsFile": str(urls), "maxPerMinute": 600},
        "breakGlass": {"users": ["erika"]},
    }
    with (
        ControlPlane(programs) as cluster,
        Deployment(cluster, overrides=overrides, values=("approvals.groups={sre-leads}",)) as running,
    ):
        labels = {"env": "prod"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
        cluster.apply(yaml.safe_dump(namespace))
        match = {"namespaceSelector": {"matchLabels": labels}, "exempt": {"users": ["admin"]}}
        running.apply_policy(policy("four-eyes", match=match, require=PATIENT))
        running.wait_guarded(NAMESPACE)
        yield running


@pytest.fixture
def alice(deployment: Deployment) -> Person:
    return Person(deployment).enrol()


@pytest.fixture
def bob(deployment: Deployment) -> Person:
    return Person(deployment, groups=LEADERS).enrol()


@pytest.fixture
def web(deployment: Deployment) -> str:
    """A Deployment of the test's own."""
    name = f"web-{secrets.token_hex(4)}"
    deployment.cluster.kubectl("apply", "-f", "-", user=ADMIN, stdin=workload(NAMESPACE, name), check=True)
    return name


@pytest.fixture
def at_once() -> Iterator[Callable[[Callable[[], Finished]], Future[Finished]]]:
    """Starts a command that somebody waits for."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def asked(person: Person, web: str, operation: str = "delete", **fields: Any) -> str:
    """A request that its requester has proven; its name."""
    detail = {
        "operation": operation,
        "group": "apps",
        "resource": "deployments",
        "namespace": NAMESPACE,
        "scope": "Object",
        "objects": [{"name": web, **fields}],
    }
    _, request = person.create("elevationrequests", {"details": [detail], "reason": "OPS-7"})
    name = str(request["metadata"]["name"])
    given = {"factor": "recovery-code", "code": person.recovery_codes.pop()}
    _, answer = person.create(f"elevationrequests/{name}/answer", given, "ChallengeAnswer")
    assert answer["status"]["phase"] == "AwaitingApproval"
    return name


def awaited(probe: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := probe()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
    return found


def the_request_of(approver: Person, requester: Person) -> Any:
    """What an approver is shown, once it is there."""

    def probe() -> Any:
        listed = json.loads(approver.elevate("approvals", "-o", "json", check=True).stdout)
        return next((one for one in listed if one["spec"]["requester"]["username"] == requester.name), None)

    return awaited(probe)


def exists(deployment: Deployment, web: str) -> bool:
    found = deployment.cluster.kubectl(
        "get", "deploy", web, "-n", NAMESPACE, "--ignore-not-found", "-o", "name", user=ADMIN
    )
    return bool(found.stdout.strip())


def field(deployment: Deployment, web: str, path: str) -> str:
    return deployment.cluster.kubectl(
        "get", "deploy", web, "-n", NAMESPACE, "-o", f"jsonpath={path}", user=ADMIN, check=True
    ).stdout


class TestTwoPeople:
    def test_a_delete_that_is_told_to_wait_passes_when_the_other_agrees(
        self, deployment: Deployment, alice: Person, bob: Person, web: str, at_once: Any
    ) -> None:
        assert "(Forbidden)" in alice.kubectl("delete", "deploy", web, "-n", NAMESPACE).stderr  # nothing is pending yet
        name = asked(alice, web)
        deletion = at_once(lambda: alice.kubectl("delete", "deploy", web, "-n", NAMESPACE))
        awaited(lambda: deployment.audit(lambda line: line.get("code") == "held" and line["user"] == alice.name))
        assert exists(deployment, web)
        approved = bob.elevate("approve", name, "--reason", "seen")
        assert f"{name} approved and granted" in approved.stdout, approved.stderr
        assert f"delete deployments.apps/{web} in prod" in approved.stderr
        passed = deletion.result(SECONDS * 2)
        assert (passed.returncode, exists(deployment, web)) == (0, False), passed.stderr
        (line,) = deployment.audit(
            lambda one: one["event"] == "decision" and one["user"] == alice.name and one["outcome"] == "allowed"
        )[:1]
        assert line["approvers"] == [bob.name]

    def test_a_wrapped_command_waits_and_goes_on_by_itself(
        self, deployment: Deployment, alice: Person, bob: Person, web: str, at_once: Any
    ) -> None:
        command = ("kubectl", "scale", f"deploy/{web}", "--replicas=0", "-n", NAMESPACE)
        scaling = at_once(lambda: alice.elevate("--reason", "OPS-9", "--", *command))
        request = the_request_of(bob, alice)
        (operation,) = request["spec"]["operations"]
        assert (operation["operation"], operation["change"]) == ("scale", "replicas 2 → 0")
        assert request["spec"]["reason"] == "OPS-9"
        bob.elevate("approve", request["metadata"]["name"], check=True)
        done = scaling.result(SECONDS * 2)
        assert (done.returncode, field(deployment, web, "{.spec.replicas}")) == (0, "0"), done.stderr
        assert "waits for 1 approval of sre-leads" in done.stderr

    def test_approval_of_one_image_lets_no_other_pass(
        self, deployment: Deployment, alice: Person, bob: Person, web: str, at_once: Any
    ) -> None:
        refused = alice.kubectl("set", "image", f"deploy/{web}", "c=nginx:2", "-n", NAMESPACE)
        line = next(line for line in refused.stderr.splitlines() if line.startswith("  kubectl elevate "))
        stepping_up = at_once(lambda: alice.elevate(*shlex.split(line)[2:]))
        request = the_request_of(bob, alice)
        (operation,) = request["spec"]["operations"]
        assert operation["change"] == "image c: nginx:1 → nginx:2"
        bob.elevate("approve", request["metadata"]["name"], check=True)
        assert stepping_up.result(SECONDS * 2).returncode == 0
        other = alice.kubectl("set", "image", f"deploy/{web}", "c=nginx:3", "-n", NAMESPACE)
        assert "your step-up is for another change of this object" in other.stderr
        alice.kubectl("set", "image", f"deploy/{web}", "c=nginx:2", "-n", NAMESPACE, check=True)
        assert field(deployment, web, "{.spec.template.spec.containers[0].image}") == "nginx:2"


class TestNeverTheRequester:
    def test_not_under_another_group_and_credential(self, deployment: Deployment, alice: Person, web: str) -> None:
        name = asked(alice, web)
        leader = Person(deployment, alice.name, LEADERS)  # another certificate, with another group in it
        leader.recovery_codes = alice.recovery_codes
        answer, _ = leader.create(
            f"elevationrequests/{name}/approve",
            {"factor": "recovery-code", "code": alice.recovery_codes[-1], "seen": "x"},
            "Approval",
        )
        assert "somebody else has to approve it" in answer.stderr
        assert "somebody else has to approve it" in leader.elevate("approve", name).stderr

    def test_not_by_impersonation(self, deployment: Deployment, alice: Person, bob: Person, web: str) -> None:
        name = asked(alice, web)
        body = json.dumps({"kind": "Approval", "spec": {"code": bob.code(), "seen": "x"}})
        path = f"/apis/elevation.kube-stepup.io/v1alpha1/elevationrequests/{name}/approve"
        as_bob = ("--as", bob.name, "--as-group", "sre-leads")
        refused = deployment.cluster.kubectl("create", "--raw", path, "-f", "-", *as_bob, user=ADMIN, stdin=body)
        assert "your credential has no id" in refused.stderr

    def test_without_the_role_nobody_even_sees_it(self, deployment: Deployment, alice: Person, web: str) -> None:
        name = asked(alice, web)
        assert (
            'cannot get resource "approvalrequests"'
            in Person(deployment, groups=("strangers",)).kubectl("get", "approvalrequests", name).stderr
        )


class TestNo:
    def test_withdrawn_it_cannot_be_approved(
        self, deployment: Deployment, alice: Person, bob: Person, web: str
    ) -> None:
        name = asked(alice, web)
        assert alice.elevate("withdraw", name, check=True).stdout == f"{name} withdrawn\n"
        assert "it does not wait for approval" in bob.elevate("approve", name).stderr
        assert "(Forbidden)" in alice.kubectl("delete", "deploy", web, "-n", NAMESPACE).stderr
        assert exists(deployment, web)

    def test_late_it_cannot_be_approved(self, deployment: Deployment, alice: Person, bob: Person, web: str) -> None:
        name = asked(alice, web)
        patch = json.dumps({"status": {"expiresAt": "2026-01-01T00:00:00Z"}})
        deployment.cluster.kubectl(
            "patch",
            f"elevations.kube-stepup.io/{name}",
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
            user=ADMIN,
            check=True,
        )
        assert "this request has lapsed" in bob.elevate("approve", name).stderr
        assert exists(deployment, web)

    def test_denied_the_waiting_command_says_by_whom_and_why(
        self, deployment: Deployment, alice: Person, bob: Person, web: str, at_once: Any
    ) -> None:
        deletion = at_once(lambda: alice.elevate("--", "kubectl", "delete", f"deploy/{web}", "-n", NAMESPACE))
        request = the_request_of(bob, alice)
        bob.elevate("deny", request["metadata"]["name"], "--reason", "not on a Friday", check=True)
        done = deletion.result(SECONDS * 2)
        assert done.returncode == 3
        assert f"was denied by {bob.name}: not on a Friday" in done.stderr
        assert exists(deployment, web)


class TestNotices:
    def test_people_are_told_with_the_command_to_run_and_no_secret_is_logged(
        self, deployment: Deployment, inbox: Inbox, alice: Person, bob: Person, web: str
    ) -> None:
        name = asked(alice, web)
        wanted = awaited(lambda: inbox.about(f"kubectl elevate approve {name}"))[0]
        assert f"{alice.name} asks for approval" in wanted["title"]
        assert f"delete deployments.apps/{web} in prod" in wanted["message"]
        bob.elevate("approve", name, check=True)
        awaited(lambda: inbox.about(f"{bob.name} approved a request of {alice.name}"))
        awaited(lambda: inbox.about(f"{alice.name} has a new authenticator"))
        assert URL_SECRET not in deployment.logs()
        assert "eyJ" not in json.dumps(inbox.received)

    def test_broken_glass_is_told_once(self, deployment: Deployment, inbox: Inbox, web: str) -> None:
        erika = Person(deployment, "erika")
        erika.kubectl("scale", f"deploy/{web}", "--replicas=1", "-n", NAMESPACE, check=True)
        erika.kubectl("delete", f"deploy/{web}", "-n", NAMESPACE, check=True)
        awaited(lambda: inbox.about("erika broke the glass"))
        assert len(inbox.about("erika broke the glass")) <= 2  # one from each admission replica
