"""The aggregated API behind a real kube-apiserver: discovery, explain, get, RBAC, enrolment, and who is believed."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request

import pytest

from tests.cluster.sites import Site
from tests.controlplane.cluster import ADMIN
from tests.deployment import LOOPBACK, Deployment
from tests.people import API, PYTHON, Person

STEPUP = (PYTHON, "-m", "webhook.cli.stepup")
DOCUMENT_SECONDS = 75.0  # the API server asks an APIService for its OpenAPI document once a minute


def detail(site: Site, operation: str = "delete", **fields: object) -> dict[str, object]:
    objects = [{"name": "web", "uid": site.get("deploy/web", "-o", "jsonpath={.metadata.uid}")}]
    return {"operation": operation, "group": "apps", "resource": "deployments", "namespace": site.prod, "objects": objects, **fields}  # fmt: skip


class TestDiscovery:
    def test_kubectl_lists_and_explains_the_resources(self, deployment: Deployment) -> None:
        listed = deployment.cluster.kubectl("api-resources", "--api-group=elevation.kube-stepup.io", "-o", "name")
        assert "elevationrequests.elevation.kube-stepup.io" in listed.stdout.split()
        deadline = time.monotonic() + DOCUMENT_SECONDS
        while True:
            explained = deployment.cluster.kubectl("explain", "elevationrequests.spec.details.scope")
            if "Object, Resource or Namespace" in explained.stdout:
                break
            assert time.monotonic() < deadline, explained.stderr
            time.sleep(1)

    def test_get_prints_columns_and_objects(self, site: Site, alice: Person) -> None:
        alice.prove(detail(site), reason="OPS-7")
        table = alice.kubectl("get", "elevationrequests", check=True).stdout.splitlines()
        assert table[0].split() == ["NAME", "PHASE", "FOR", "REASON", "LEFT", "AGE"]
        assert f"delete deployments/web -n {site.prod}" in table[1]
        name = table[1].split()[0]
        obj = json.loads(alice.kubectl("get", "elevationrequest", name, "-o", "json", check=True).stdout)
        assert (obj["kind"], obj["status"]["phase"]) == ("ElevationRequest", "Granted")
        assert "assertion" not in json.dumps(obj)

    def test_deleting_one_revokes_it_and_kubectl_does_not_wait_for_ever(self, site: Site, alice: Person) -> None:
        alice.prove(detail(site))
        name = alice.kubectl("get", "elevationrequests", "-o", "name", check=True).stdout.strip()
        alice.kubectl("delete", name, check=True)
        refused = alice.kubectl("delete", "deploy/web", "-n", site.prod)
        assert "your step-up was revoked" in refused.stderr


class TestWho:
    def test_people_see_their_own_alone(self, site: Site, alice: Person) -> None:
        alice.prove(detail(site))
        name = alice.kubectl("get", "elevationrequests", "-o", "name", check=True).stdout.strip().partition("/")[2]
        bob = Person(site.deployment)
        assert bob.kubectl("get", "elevationrequests").stdout == ""
        answer = bob.kubectl("get", "--raw", f"{API}/elevationrequests/{name}")
        assert "not found" in answer.stderr

    def test_rbac_says_who_issues_tickets(self, deployment: Deployment) -> None:
        nobody = Person(deployment, groups=("nobody",))
        answer, _ = nobody.create("enrollmenttickets", {"username": "eve"}, "EnrollmentTicket")
        assert "cannot create resource" in answer.stderr
        answer, _ = nobody.create("elevationrequests", {"details": []})
        assert "spec.details" in answer.stderr, "everybody may ask"

    def test_enrolment_needs_a_ticket_of_ones_own(self, deployment: Deployment) -> None:
        eve = Person(deployment)
        answer, _ = eve.create("authenticators", {"type": "totp"}, "Authenticator")
        assert "ticket" in answer.stderr
        operator = Person(deployment, "operator", ("system:masters",))
        _, ticket = operator.create("enrollmenttickets", {"username": "somebody-else"}, "EnrollmentTicket")
        answer, _ = eve.create(
            "authenticators", {"type": "totp", "ticket": ticket["status"]["ticket"]}, "Authenticator"
        )
        assert "that ticket is not yours" in answer.stderr

    def test_impersonation_cannot_enrol(self, deployment: Deployment) -> None:
        body = json.dumps({"kind": "Authenticator", "spec": {"type": "totp"}})
        arguments = ("create", "--raw", f"{API}/authenticators", "-f", "-", "--as", "victim")
        refused = deployment.cluster.kubectl(*arguments, user=ADMIN, stdin=body)
        assert "your credential has no id" in refused.stderr

    @pytest.mark.parametrize("path", [f"{API}/elevationrequests", "/livez", "/apis"])
    def test_identity_headers_are_believed_from_the_front_proxy_alone(self, deployment: Deployment, path: str) -> None:
        request = urllib.request.Request(
            f"https://{LOOPBACK}:{deployment.elevation_port}{path}", headers={"X-Remote-User": "alice"}
        )
        trusted = ssl.create_default_context(cafile=str(deployment.folder / "ca.crt"))
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5, context=trusted)
        with caught.value as refused:
            assert refused.code == 401

    def test_a_client_certificate_of_the_cluster_ca_is_not_the_front_proxys(self, deployment: Deployment) -> None:
        pair = deployment.cluster.client_certificate("alice")
        trusted = ssl.create_default_context(cafile=str(deployment.folder / "ca.crt"))
        trusted.load_cert_chain(pair.certificate_file, pair.key_file)
        request = urllib.request.Request(
            f"https://{LOOPBACK}:{deployment.elevation_port}{API}/elevationrequests", headers={"X-Remote-User": "alice"}
        )
        with pytest.raises((urllib.error.URLError, OSError)):
            urllib.request.urlopen(request, timeout=5, context=trusted)

    def test_a_wrong_common_name_of_the_right_ca_is_not_either(self, deployment: Deployment) -> None:
        pair = deployment.cluster.credentials.front_proxy_ca.client("impostor", "somebody-else")
        trusted = ssl.create_default_context(cafile=str(deployment.folder / "ca.crt"))
        trusted.load_cert_chain(pair.certificate_file, pair.key_file)
        request = urllib.request.Request(
            f"https://{LOOPBACK}:{deployment.elevation_port}{API}/elevationrequests", headers={"X-Remote-User": "alice"}
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5, context=trusted)
        with caught.value as refused:
            assert refused.code == 401


class TestAsked:
    def test_nothing_is_asked_where_no_policy_asks(self, site: Site, alice: Person) -> None:
        _, answer = alice.create("elevationrequests", {"details": [detail(site, namespace=site.staging)]})
        assert answer["status"]["phase"] == "NotRequired"

    def test_wrong_codes_are_answers_and_slow_the_next_try(self, site: Site, alice: Person) -> None:
        _, request = alice.create("elevationrequests", {"details": [detail(site)]})
        path = f"elevationrequests/{request['metadata']['name']}/answer"
        codes = [alice.create(path, {"code": "000000"}, "ChallengeAnswer")[1]["status"]["code"] for _ in range(5)]
        assert codes[:3] == ["wrong-code"] * 3
        assert "too-many-attempts" in codes
        right = {"factor": "recovery-code", "code": alice.recovery_codes[-1]}
        assert alice.create(path, right, "ChallengeAnswer")[1]["status"]["code"] == "too-many-attempts"
        unlocked = site.deployment.cluster.run([*STEPUP, "unlock", alice.name], user=ADMIN)
        assert f"{alice.name}: cleared" in unlocked.stdout, unlocked.stderr
        assert alice.create(path, right, "ChallengeAnswer")[1]["status"]["accepted"]

    def test_an_operator_revokes_all_of_a_person(self, site: Site, alice: Person) -> None:
        alice.prove(detail(site))
        revoked = site.deployment.cluster.run([*STEPUP, "revoke", "--user", alice.name], user=ADMIN)
        assert revoked.stdout.strip().endswith("revoked"), revoked.stderr
        assert "your step-up was revoked" in alice.kubectl("delete", "deploy/web", "-n", site.prod).stderr


def test_nothing_secret_is_in_any_log(deployment: Deployment, site: Site) -> None:
    person = Person(deployment).enrol()
    token = person.prove(detail(site))
    person.kubectl("delete", "deploy/web", "-n", site.prod, check=True)
    logs = deployment.logs()
    for secret in (person.secret, token, token.split(".")[2], *person.recovery_codes, deployment.path_secret):
        assert secret not in logs
