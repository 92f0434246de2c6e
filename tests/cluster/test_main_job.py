"""The main job by every road: refused without proof, effect not happened, passed with proof; and what is left alone.

Everything is done by the real kubectl against a real kube-apiserver with its controller manager.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster.sites import Site
from tests.controlplane.cluster import ADMIN
from tests.people import Person

REFUSED = "needs a step-up"


def pods(site: Site, namespace: str) -> str:
    return site.get("pods", "-o", "jsonpath={.items[*].metadata.uid}", namespace=namespace)


def existence(site: Site, namespace: str) -> str:
    phase = site.deployment.cluster.kubectl("get", "ns", namespace, "-o", "jsonpath={.status.phase}", user=ADMIN)
    return phase.stdout


def eviction(namespace: str, pod: str) -> str:
    metadata = {"name": pod, "namespace": namespace}
    return json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})


def changed(probe: Callable[[], str], before: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while probe() == before:
        assert time.monotonic() < deadline, "the effect did not happen"
        time.sleep(0.1)


class TestStreams:
    def test_exec_runs_only_with_proof(self, site: Site, alice: Person) -> None:
        command = ["exec", "-n", site.prod, site.pod(), "--", "echo", "it ran"]
        refused = alice.kubectl(*command)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"kube-stepup: exec pods/{site.pod()} in {site.prod} {REFUSED}" in refused.stderr
        passed = alice.elevate("--", "kubectl", *command)
        assert (passed.returncode, passed.stdout) == (0, "it ran\n"), passed.stderr

    def test_proof_used_for_ls_does_not_let_sh_pass(self, site: Site, alice: Person) -> None:
        pod = site.pod()
        uid = site.get("pod", pod, "-o", "jsonpath={.metadata.uid}")
        objects = [{"name": pod, "uid": uid}]
        alice.prove({"operation": "exec", "group": "", "resource": "pods", "namespace": site.prod, "scope": "Object", "objects": objects})  # fmt: skip
        assert alice.kubectl("exec", "-n", site.prod, pod, "--", "ls", "/").returncode == 0
        refused = alice.kubectl("exec", "-n", site.prod, pod, "--", "sh", "-c", "echo hi")
        assert refused.returncode == 1
        assert "your step-up has been used" in refused.stderr

    @pytest.mark.parametrize("kind", ["attach", "port-forward"])
    def test_attach_and_port_forward(self, kind: str, site: Site, alice: Person) -> None:
        pod = site.pod()
        more = ["8080:80"] if kind == "port-forward" else []
        refused = (
            alice.kubectl(kind, "-n", site.prod, pod, *more) if kind == "attach" else forward(alice, site.prod, pod)
        )
        assert REFUSED in refused.stderr

    def test_the_pod_proxy_with_and_without_port(self, site: Site, alice: Person) -> None:
        for name in (site.pod(), f"{site.pod()}:8080", f"https:{site.pod()}:8443"):
            refused = alice.kubectl("get", "--raw", f"/api/v1/namespaces/{site.prod}/pods/{name}/proxy/")
            assert f"exec pods/{site.pod()} in {site.prod} {REFUSED}" in refused.stderr


def forward(person: Person, namespace: str, pod: str):  # noqa: ANN201
    """The API server is asked as soon as somebody connects; the raw request does the same without a client."""
    return person.kubectl(
        "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward", "-f", "/dev/null"
    )


class TestEviction:
    def test_an_eviction_is_a_deletion(self, site: Site, alice: Person) -> None:
        pod = site.pod()
        before = pods(site, site.prod)
        path = f"/api/v1/namespaces/{site.prod}/pods/{pod}/eviction"
        body = eviction(site.prod, pod)
        refused = alice.kubectl("create", "--raw", path, "-f", "-", stdin=body)
        assert f"kube-stepup: delete pods/{pod} in {site.prod} {REFUSED}" in refused.stderr
        assert pods(site, site.prod) == before
        passed = alice.elevate("--", "kubectl", "create", "--raw", path, "-f", "-", stdin=body)
        assert passed.returncode == 0, passed.stderr
        changed(lambda: pods(site, site.prod), before)

    def test_a_collection_is_refused_pod_by_pod(self, site: Site, alice: Person) -> None:
        before = pods(site, site.prod)
        refused = alice.kubectl("delete", "--raw", f"/api/v1/namespaces/{site.prod}/pods?labelSelector=app%3Dweb")
        assert REFUSED in refused.stderr
        assert pods(site, site.prod) == before


class TestLeftAlone:
    def test_an_exempt_user(self, site: Site) -> None:
        robot = Person(site.deployment, "robot")
        assert robot.kubectl("delete", "deploy/web", "-n", site.prod).returncode == 0

    def test_impersonating_an_exempt_user_is_not_being_one(self, site: Site) -> None:
        somebody = Person(site.deployment)
        refused = somebody.kubectl("delete", "deploy/web", "-n", site.prod, "--as", "robot", "--as-group", "devs")
        assert REFUSED in refused.stderr

    @pytest.mark.parametrize("account", ["generic-garbage-collector", "namespace-controller"])
    def test_a_certificate_in_a_controllers_name_is_a_person(self, site: Site, account: str) -> None:
        name = f"system:serviceaccount:kube-system:{account}"
        groups = ("devs", "system:serviceaccounts", "system:serviceaccounts:kube-system")
        refused = Person(site.deployment, name, groups).kubectl("delete", "deploy/web", "-n", site.prod)
        assert REFUSED in refused.stderr

    def test_the_cascade_of_an_allowed_deletion(self, site: Site, alice: Person) -> None:
        alice.elevate("--", "kubectl", "delete", "deploy/web", "-n", site.prod, check=True)
        deadline = time.monotonic() + 20
        while pods(site, site.prod) or site.get("replicasets", "-o", "name"):
            assert time.monotonic() < deadline, "the garbage collector was kept from its work"
            time.sleep(0.2)

    def test_a_namespace_empties_itself_once_its_deletion_is_allowed(self, site: Site, alice: Person) -> None:
        alice.elevate("--", "kubectl", "delete", "namespace", site.prod, "--wait=false", check=True)
        deadline = time.monotonic() + 30
        while existence(site, site.prod):
            assert time.monotonic() < deadline, "the namespace is stuck in Terminating"
            time.sleep(0.2)

    def test_a_rollout_of_the_controllers(self, site: Site) -> None:
        robot = Person(site.deployment, "robot")
        robot.kubectl("set", "image", "deploy/web", "c=nginx:9", "-n", site.prod, check=True)
        robot.kubectl("rollout", "status", "deploy/web", "-n", site.prod, "--timeout=30s", check=True)

    def test_labels_and_annotations_and_reading(self, site: Site) -> None:
        somebody = Person(site.deployment)
        for command in (["get", "pods"], ["label", "deploy/web", "a=b"], ["annotate", "deploy/web", "a=b"]):
            somebody.kubectl(*command, "-n", site.prod, check=True)


class TestProof:
    def test_for_image_a_does_not_let_image_b_pass(self, site: Site, alice: Person) -> None:
        alice.prove(self.detail(site, "deploy"))
        assert alice.kubectl("set", "image", "deploy/web", "c=nginx:a", "-n", site.prod).returncode == 0
        refused = alice.kubectl("set", "image", "deploy/web", "c=nginx:b", "-n", site.prod)
        assert "your step-up has been used" in refused.stderr

    def test_bound_to_its_change_from_the_start(self, site: Site, alice: Person) -> None:
        refused = alice.kubectl("set", "image", "deploy/web", "c=nginx:a", "-n", site.prod)
        words = refused.stderr.splitlines()[-1].split()
        alice.elevate(*words[2:], check=True)
        other = alice.kubectl("set", "image", "deploy/web", "c=nginx:b", "-n", site.prod)
        assert "your step-up is for another change" in other.stderr
        assert alice.kubectl("set", "image", "deploy/web", "c=nginx:a", "-n", site.prod).returncode == 0

    def test_is_this_persons_alone(self, site: Site, alice: Person) -> None:
        token = alice.prove(self.detail(site, "delete"))
        bob = Person(site.deployment)
        self.annotate(bob, site, token)
        refused = bob.kubectl("delete", "deploy/web", "-n", site.prod)
        assert "the step-up is another person's" in refused.stderr

    def test_is_this_credentials_alone(self, site: Site, alice: Person) -> None:
        alice.prove(self.detail(site, "delete"))
        other = str(site.deployment.cluster.another_kubeconfig(alice.name, alice.groups))
        refused = alice.kubectl("--kubeconfig", other, "delete", "deploy/web", "-n", site.prod)
        assert "you stepped up with another credential" in refused.stderr

    def test_forged_by_another_key(self, site: Site, alice: Person) -> None:
        from tests.builders import Signer, claims

        self.annotate(alice, site, Signer().sign(claims(sub=alice.name)))
        refused = alice.kubectl("delete", "deploy/web", "-n", site.prod)
        assert "signed by a key that this cluster does not know" in refused.stderr

    def test_as_an_annotation_is_found_on_the_old_object(self, site: Site, alice: Person) -> None:
        self.annotate(alice, site, alice.prove(self.detail(site, "delete")))
        assert alice.kubectl("delete", "deploy/web", "-n", site.prod).returncode == 0

    def test_a_dry_run_uses_nothing_up(self, site: Site, alice: Person) -> None:
        alice.prove(self.detail(site, "scale"))
        for replicas in (0, 1):
            dry = alice.kubectl("scale", "deploy/web", "-n", site.prod, f"--replicas={replicas}", "--dry-run=server")
            assert dry.returncode == 0, dry.stderr
        assert alice.kubectl("scale", "deploy/web", "-n", site.prod, "--replicas=5").returncode == 0

    def test_the_api_servers_own_audit_log_has_who_and_why(self, site: Site, alice: Person) -> None:
        alice.prove(self.detail(site, "delete"), reason="OPS-4711")
        alice.kubectl("delete", "deploy/web", "-n", site.prod, check=True)

        def entries() -> str:
            found = site.deployment.cluster.audit_events(
                lambda event: event["user"]["username"] == alice.name and event["verb"] == "delete"
            )
            return "".join(json.dumps(event.get("annotations", {})) for event in found)

        deadline = time.monotonic() + 10
        while "OPS-4711" not in entries():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert '"guarded.kube-stepup.io/amr"' in entries() or "amr" in entries()

    def detail(self, site: Site, operation: str) -> dict[str, object]:
        uid = site.get("deploy/web", "-o", "jsonpath={.metadata.uid}")
        objects = [{"name": "web", "uid": uid}]
        return {"operation": operation, "group": "apps", "resource": "deployments", "namespace": site.prod, "scope": "Object", "objects": objects}  # fmt: skip

    def annotate(self, person: Person, site: Site, token: str) -> None:
        person.kubectl("annotate", "deploy/web", "-n", site.prod, f"kube-stepup.io/assertion={token}", check=True)


def test_a_policy_that_cannot_work_is_refused_when_it_is_applied(site: Site, tmp_path: Path) -> None:
    bad = {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "StepUpPolicy",
        "metadata": {"name": "bad"},
        "spec": {"rules": [{"name": "a", "operations": ["delete"], "require": {"reason": {"pattern": "("}}}]},
    }
    refused = site.deployment.cluster.kubectl("apply", "-f", "-", user=ADMIN, stdin=yaml.safe_dump(bad))
    assert refused.returncode != 0
    assert "spec.rules[0].require.reason.pattern" in refused.stderr


def test_a_namespace_that_was_labelled_a_moment_ago_is_guarded(site: Site, alice: Person) -> None:
    cluster = site.deployment.cluster
    cluster.kubectl("label", "namespace", site.staging, "env=prod", "--overwrite", user=ADMIN, check=True)
    refused = alice.kubectl("delete", "deploy/web", "-n", site.staging)
    assert REFUSED in refused.stderr
