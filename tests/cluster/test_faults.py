"""What happens when our own servers die: guarded requests fail closed, the rest goes on, and all recovers by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.builders import policy
from tests.cluster.sites import Site, workload
from tests.controlplane import ControlPlane
from tests.controlplane.cluster import ADMIN
from tests.deployment import Deployment
from tests.people import Person

REFUSED = "needs a step-up"
CLOSED = "failed calling webhook"


@pytest.fixture(autouse=True)
def everything_runs_again(deployment: Deployment) -> Iterator[None]:
    yield
    deployment.start(*deployment.programs)
    deployment.wait_ready()


def scale(person: Person, site: Site, replicas: int, namespace: str = ""):  # noqa: ANN201
    return person.kubectl("scale", "deploy/web", "-n", namespace or site.prod, f"--replicas={replicas}")


def detail(site: Site, operation: str) -> dict[str, object]:
    objects = [{"name": "web", "uid": site.get("deploy/web", "-o", "jsonpath={.metadata.uid}")}]
    return {"operation": operation, "group": "apps", "resource": "deployments", "namespace": site.prod, "scope": "Object", "objects": objects}  # fmt: skip


class TestElevationIsDead:
    def test_admission_decides_as_before(self, deployment: Deployment, site: Site, alice: Person) -> None:
        alice.prove(detail(site, "scale"))
        deployment.kill("elevation", "controller")
        assert scale(alice, site, 5).returncode == 0, "a proof that was given stays good"
        assert REFUSED in alice.kubectl("delete", "deploy/web", "-n", site.prod).stderr
        assert scale(alice, site, 5, site.staging).returncode == 0

    def test_stepping_up_says_what_is_down_and_works_again_afterwards(
        self, deployment: Deployment, site: Site, alice: Person
    ) -> None:
        deployment.kill("elevation")
        down = alice.elevate("delete", "deploy/web", "-n", site.prod)
        assert down.returncode == 5, down.stderr
        assert "elevation service" in down.stderr
        deployment.start("elevation")
        deployment.wait_ready()
        assert alice.elevate("delete", "deploy/web", "-n", site.prod).returncode == 0


@pytest.fixture
def guarded(site: Site) -> Site:
    """A site whose production namespace fails closed already."""
    site.deployment.wait_guarded(site.prod)
    return site


class TestAdmissionIsDead:
    def test_one_of_two_replicas_is_enough(self, deployment: Deployment, site: Site, alice: Person) -> None:
        deployment.kill("admission-0")
        for _ in range(4):
            assert REFUSED in alice.kubectl("delete", "deploy/web", "-n", site.prod).stderr
        alice.prove(detail(site, "delete"))
        assert alice.kubectl("delete", "deploy/web", "-n", site.prod).returncode == 0

    def test_guarded_requests_fail_closed_and_others_are_untouched(
        self, deployment: Deployment, guarded: Site, alice: Person
    ) -> None:
        site = guarded
        deployment.kill("admission-0", "admission-1")
        refused = alice.kubectl("delete", "deploy/web", "-n", site.prod)
        assert refused.returncode != 0
        assert CLOSED in refused.stderr
        assert site.get("deploy/web", "-o", "name")
        for command in (["delete", "deploy/web"], ["create", "configmap", "c"]):
            passed = alice.kubectl(*command, "-n", site.staging)
            assert passed.returncode == 0, passed.stderr
        assert alice.kubectl("get", "pods", "-n", site.prod).returncode == 0

    def test_a_namespace_that_is_not_guarded_can_be_deleted(
        self, deployment: Deployment, guarded: Site, alice: Person
    ) -> None:
        deployment.kill("admission-0", "admission-1")
        alice.kubectl("delete", "namespace", guarded.staging, "--timeout=60s", check=True)
        closed = alice.kubectl("delete", "namespace", guarded.prod, "--wait=false")
        assert CLOSED in closed.stderr

    def test_policies_keys_and_the_role_that_we_stand_on_fail_closed_as_well(
        self, deployment: Deployment, guarded: Site, alice: Person
    ) -> None:
        deployment.kill("admission-0", "admission-1")
        for target in ("stepuppolicies.kube-stepup.io/production", "clusterrole/kube-stepup-controller"):
            refused = alice.kubectl("delete", target)
            assert CLOSED in refused.stderr, refused.stdout
        assert guarded.get("stepuppolicies.kube-stepup.io/production", "-o", "name")

    def test_it_recovers_by_itself(self, deployment: Deployment, guarded: Site, alice: Person) -> None:
        site = guarded
        deployment.kill("admission-0", "admission-1")
        assert CLOSED in scale(alice, site, 0).stderr
        deployment.start("admission-0", "admission-1")
        deployment.wait_ready()
        assert REFUSED in scale(alice, site, 0).stderr
        alice.prove(detail(site, "scale"))
        assert scale(alice, site, 0).returncode == 0

    def test_controllers_go_on(self, deployment: Deployment, site: Site) -> None:
        deployment.kill("admission-0", "admission-1")
        before = site.pod()
        kubelet = Person(deployment, "system:node:n1", ("system:nodes",))
        kubelet.kubectl("delete", "pod", before, "-n", site.prod, "--grace-period=0", "--force")
        deadline = time.monotonic() + 20
        while len(site.get("pods", "-l", "app=web", "-o", "name").split()) < 2 or before in site.get(
            "pods", "-o", "name"
        ):
            assert time.monotonic() < deadline, "the ReplicaSet controller was kept from its work"
            time.sleep(0.2)


def test_one_proof_and_twenty_requests_at_the_same_time(site: Site, alice: Person) -> None:
    robot = Person(site.deployment, "robot")
    robot.kubectl("scale", "deploy/web", "-n", site.prod, "--replicas=0", check=True)
    alice.prove(detail(site, "scale"))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: scale(alice, site, number), range(1, 21)))
    passed = [number for number, answer in enumerate(answers, 1) if answer.returncode == 0]
    assert len(passed) == 1, [answer.stderr for answer in answers]
    assert site.get("deploy/web", "-o", "jsonpath={.spec.replicas}") == str(passed[0])
    for answer in answers:
        assert answer.returncode == 0 or "your step-up has been used" in answer.stderr


def test_the_api_server_starts_while_admission_is_dead(programs: object) -> None:
    """Also when it must write its own roles at the start, and a policy of ours asks about roles."""
    with ControlPlane() as cluster, Deployment(cluster) as deployment:
        rules = [{"name": "roles", "operations": ["delete"], "resources": ["rbac.authorization.k8s.io/*"]}]
        deployment.apply_policy(policy("roles", match={}, rules=rules))
        cluster.apply(workload("default"))
        refused = cluster.kubectl("delete", "clusterrole", "view")
        assert REFUSED in refused.stderr
        deployment.kill("admission-0", "admission-1")
        closed = cluster.kubectl("delete", "clusterrole", "edit")
        assert CLOSED in closed.stderr
        spoiled = {"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "system:basic-user"}, "rules": []}  # fmt: skip
        deployment.start("admission-0", "admission-1")
        deployment.wait_ready()
        replaced = cluster.kubectl("replace", "-f", "-", user=ADMIN, stdin=yaml.safe_dump(spoiled))
        assert replaced.returncode == 0, replaced.stderr
        deployment.kill("admission-0", "admission-1")
        cluster.restart("kube-apiserver")
        restored = cluster.kubectl("get", "clusterrole", "system:basic-user", "-o", "jsonpath={.rules}", user=ADMIN)
        assert "selfsubject" in restored.stdout, "the API server has not put its own role right"
