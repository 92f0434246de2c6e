"""Break-glass in the API server itself: it passes with both admission replicas dead, by credential alone, and is loud.

And, since both are settings of a whole installation, people who come by a proxy that impersonates them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.builders import policy
from tests.cluster.sites import workload
from tests.controlplane import ADMIN, ControlPlane, Programs
from tests.controlplane.cluster import Finished
from tests.deployment import Deployment
from tests.people import Person

REFUSED = "needs a step-up"
CLOSED = 'failed calling webhook "guarded.kube-stepup.io"'
INCIDENT = ("devs", "incident")
AS_ERIKA = ("--as=erika", *(f"--as-group={group}" for group in INCIDENT))
GLASS = {"breakGlass": {"groups": ["incident"]}, "impersonatingProxies": {"credentialExtraKeys": ["requesttokenid"]}}
EVENT_SECONDS = 20.0


@pytest.fixture(scope="module")
def deployment(programs: Programs) -> Iterator[Deployment]:
    """An installation of its own: break-glass people are a setting of the whole cluster."""
    with (
        ControlPlane(programs) as cluster,
        Deployment(cluster, overrides=GLASS, values=("breakGlass.groups={incident}",)) as running,
    ):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod", "labels": {"env": "prod"}}}
        cluster.apply(yaml.safe_dump(namespace))
        match = {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "exempt": {"groups": ["operators"]}}
        running.apply_policy(policy(match=match))
        running.wait_guarded("prod")
        yield running


@pytest.fixture
def web(deployment: Deployment) -> None:
    """A Deployment to delete, brought by somebody who breaks the glass for it."""
    erika(deployment).kubectl("apply", "--server-side", "-f", "-", stdin=workload("prod"), check=True)


@pytest.fixture
def dead(deployment: Deployment) -> Iterator[None]:
    deployment.kill("admission-0", "admission-1")
    yield
    deployment.start("admission-0", "admission-1")
    deployment.wait_ready()


def erika(deployment: Deployment) -> Person:
    return Person(deployment, "erika", INCIDENT)


def delete(person: Person, *flags: str) -> Any:
    return person.kubectl("delete", "deploy/web", "-n", "prod", "--wait=false", *flags)


def events(deployment: Deployment, about: str) -> list[dict[str, Any]]:
    found = deployment.cluster.kubectl("get", "events", "-n", "prod", "-o", "json", user=ADMIN, check=True)
    return [
        one for one in json.loads(found.stdout)["items"] if one["reason"] == "BreakGlass" and about in one["message"]
    ]


@pytest.mark.usefixtures("web", "dead")
class TestAdmissionIsDead:
    def test_a_break_glass_credential_passes_and_nobody_elses(self, deployment: Deployment) -> None:
        person = Person(deployment)
        assert CLOSED in delete(person).stderr
        assert CLOSED in delete(person, *AS_ERIKA).stderr, "a name by impersonation broke the glass"
        assert CLOSED in delete(person, f"--as={person.name}", *AS_ERIKA[1:]).stderr, "so did a group"
        assert CLOSED in delete(erika(deployment), *AS_ERIKA).stderr, "not even by the person in their own name"
        passed = delete(erika(deployment))
        assert passed.returncode == 0, passed.stderr

    def test_the_api_server_itself_warns_and_records(self, deployment: Deployment) -> None:
        passed = delete(erika(deployment))
        assert "erika holds a break-glass credential; the API server has recorded this request" in passed.stderr
        (line,) = deployment.cluster.audit_events(
            lambda one: one["verb"] == "delete" and one["user"]["username"] == "erika"
            and one["requestURI"].startswith("/apis/apps/v1/namespaces/prod/deployments/web")
            and one["responseStatus"]["code"] == 200
            and "failed-open" in str(one.get("annotations"))
        )[-1:]  # fmt: skip
        annotations = line["annotations"]
        skipped = [key for key, value in annotations.items() if value == "break-glass.kube-stepup.io"]
        assert any(key.startswith("failed-open.validating.webhook.admission.k8s.io/") for key in skipped), annotations
        assert "holds a break-glass credential" in annotations["validation.policy.admission.k8s.io/validation_failure"]

    def test_the_api_server_counts_what_passed_unseen(self, deployment: Deployment) -> None:
        metric = 'apiserver_admission_webhook_fail_open_count{name="break-glass.kube-stepup.io"'
        delete(erika(deployment))
        told = deployment.cluster.kubectl("get", "--raw", "/metrics", user=ADMIN, check=True).stdout
        assert [line for line in told.splitlines() if line.startswith(metric) and not line.endswith(" 0")]

    def test_our_own_policies_can_be_put_right(self, deployment: Deployment) -> None:
        annotate = ("annotate", "stepuppolicies.kube-stepup.io/production", "--overwrite", "example.com/seen=yes")
        assert CLOSED in Person(deployment).kubectl(*annotate).stderr
        passed = erika(deployment).kubectl(*annotate)
        assert passed.returncode == 0, passed.stderr


@pytest.mark.usefixtures("web")
class TestAdmissionIsUp:
    def test_it_passes_and_is_told_to_the_person_the_audit_and_the_namespace(self, deployment: Deployment) -> None:
        uid = deployment.cluster.kubectl(
            "get", "deploy/web", "-n", "prod", "-o", "jsonpath={.metadata.uid}", user=ADMIN
        ).stdout
        passed = delete(erika(deployment))
        assert passed.returncode == 0, passed.stderr
        assert "kube-stepup: you broke the glass of production; this is recorded" in passed.stderr

        (line,) = deployment.audit(
            lambda one: one.get("code") == "break-glass" and one["targets"][0].get("uid") == uid and one["operations"] == ["delete"]
        )[:1]  # fmt: skip
        assert (line["user"], line["outcome"], line["policies"]) == ("erika", "allowed", ["production"])
        assert line["credential_id"].startswith("X509SHA256=")
        recorded = deployment.cluster.audit_events(
            lambda one: (one.get("annotations") or {}).get("break-glass.kube-stepup.io/break-glass") == "production"
        )
        assert recorded
        deadline = time.monotonic() + EVENT_SECONDS
        while not (found := events(deployment, "delete deployments web")):
            assert time.monotonic() < deadline, "no Event: " + deployment.logs()[-2000:]
            time.sleep(0.1)
        assert found[0]["type"] == "Warning"
        assert found[0]["involvedObject"]["name"] == "web"
        assert "erika broke the glass of production" in found[0]["message"]

    def test_impersonation_is_asked_like_anybody(self, deployment: Deployment) -> None:
        assert REFUSED in delete(Person(deployment), *AS_ERIKA).stderr
        assert REFUSED in delete(erika(deployment), *AS_ERIKA).stderr
        assert REFUSED in delete(Person(deployment)).stderr

    def test_a_configuration_that_lets_others_break_the_glass_is_put_back(self, deployment: Deployment) -> None:
        entries = deployment.webhooks()
        wider = json.loads(json.dumps(entries).replace('\\"incident\\"', '\\"devs\\"'))
        assert wider != entries
        patch = json.dumps({"webhooks": wider})
        arguments = ("patch", "validatingwebhookconfiguration", "kube-stepup", "--type=merge", "-p", patch)
        deployment.cluster.kubectl(*arguments, user=ADMIN, check=True)
        deadline = time.monotonic() + EVENT_SECONDS
        while deployment.webhooks() != entries:
            assert time.monotonic() < deadline, "the configuration was not put back"
            time.sleep(0.1)


class Proxied(Person):
    """Somebody who has logged in at a proxy; it impersonates them, and names its session in an extra attribute."""

    def __init__(self, deployment: Deployment, session: str, groups: tuple[str, ...] = ("devs",)) -> None:
        super().__init__(deployment)
        self.person, self.session, self.proxied = "carol", session, groups

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = False) -> Finished:
        session = [f"--as-user-extra=requesttokenid={self.session}"] if self.session else []
        flags = [f"--as={self.person}", *(f"--as-group={group}" for group in self.proxied), *session]
        command, *rest = arguments
        return self.cluster.kubectl(command, *flags, *rest, user="proxy", stdin=stdin, check=check)


@pytest.mark.usefixtures("web")
class TestImpersonatingProxies:
    def test_an_exempt_group_passes_by_the_proxys_session_and_not_without_one(self, deployment: Deployment) -> None:
        assert REFUSED in delete(Proxied(deployment, "", ("devs", "operators"))).stderr
        passed = delete(Proxied(deployment, "token-1", ("devs", "operators")))
        assert passed.returncode == 0, passed.stderr
        (line,) = deployment.audit(lambda one: one.get("code") == "exempt" and one["user"] == "carol")[:1]
        assert line["credential_id"] == "PROXY=requesttokenid=token-1"

    def test_proof_is_bound_to_the_session(self, deployment: Deployment) -> None:
        carol = Proxied(deployment, "token-2")
        carol.name = carol.person
        carol.enrol()
        answer = carol.kubectl("get", "deploy/web", "-n", "prod", "-o", "jsonpath={.metadata.uid}", check=True)
        objects = [{"name": "web", "uid": answer.stdout}]
        carol.prove({"operation": "delete", "group": "apps", "resource": "deployments", "namespace": "prod", "scope": "Object", "objects": objects})  # fmt: skip
        other = delete(Proxied(deployment, "token-3"))
        assert "you stepped up with another credential" in other.stderr
        passed = delete(carol)
        assert passed.returncode == 0, passed.stderr

    def test_no_session_breaks_the_glass_of_the_api_server(self, deployment: Deployment) -> None:
        assert REFUSED in delete(Proxied(deployment, "X509SHA256=1", INCIDENT)).stderr
