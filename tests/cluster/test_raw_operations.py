"""Raw operations, the StepUpConfiguration, and custom resources, as people meet them on a real API server."""

from __future__ import annotations

import copy
import json
import re
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.cluster.sites import Site
from tests.controlplane.cluster import ADMIN
from tests.custom_resources import CONFIGURATION, definition
from tests.deployment import Deployment
from tests.people import Person
from tests.routes import CLUSTER

REFUSED = "needs a step-up"
CONFIGURATION_NAME = "stepupconfigurations.kube-stepup.io/default"
LEARNT_SECONDS = 15.0


@pytest.fixture
def database(site: Site) -> Site:
    text = json.dumps(CLUSTER).replace("{ns}", site.prod)
    Person(site.deployment, "robot").kubectl("create", "-f", "-", stdin=text, check=True)
    return site


def patch(person: Person, site: Site, **spec: Any) -> Any:
    body = json.dumps({"spec": spec})
    return person.kubectl("patch", "clusters.cnpg.io/db", "-n", site.prod, "--type=merge", "-p", body)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LEARNT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class TestProof:
    def test_can_be_given_beforehand_by_the_name_of_the_operation(self, database: Site, alice: Person) -> None:
        given = alice.elevate("update:cnpg.io/clusters", "cluster.cnpg.io/db", "-n", database.prod, "--reason", "OPS-7")
        assert given.returncode == 0, given.stderr
        assert "update:cnpg.io/clusters" in alice.elevate("list").stdout
        assert patch(alice, database, storage="2Gi").returncode == 0
        again = patch(alice, database, storage="3Gi")
        assert "your step-up has been used" in again.stderr

    def test_the_line_of_the_refusal_works_when_it_is_pasted(self, database: Site, alice: Person) -> None:
        refused = patch(alice, database, storage="2Gi")
        (line,) = re.findall(r"^  (kubectl elevate .*)$", refused.stderr, re.MULTILINE)
        assert line.startswith("kubectl elevate update:cnpg.io/clusters clusters.cnpg.io/db -n prod-")
        # A shell takes it as it is.
        python = shlex.quote(sys.executable)
        script = f'kubectl() {{ shift; {python} -m webhook.cli.elevate "$@"; }}; {line}'
        pasted = alice.run(["sh", "-c", script])
        assert pasted.returncode == 0, pasted.stderr
        other = patch(alice, database, storage="9Gi")
        assert "another change" in other.stderr, "proof for one change let another one pass"
        assert patch(alice, database, storage="2Gi").returncode == 0

    def test_is_for_no_other_operation(self, database: Site, alice: Person) -> None:
        assert alice.elevate("update:cnpg.io/clusters", "clusters.cnpg.io/db", "-n", database.prod).returncode == 0
        refused = alice.kubectl("delete", "clusters.cnpg.io/db", "-n", database.prod)
        assert "your step-up is for update:cnpg.io/clusters, not for delete" in refused.stderr

    def test_to_delete_by_a_raw_name_is_the_class(self, database: Site, alice: Person) -> None:
        given = alice.elevate("delete:cnpg.io/clusters", "clusters.cnpg.io/db", "-n", database.prod)
        assert given.returncode == 0, given.stderr
        assert alice.kubectl("delete", "clusters.cnpg.io/db", "-n", database.prod).returncode == 0

    @pytest.mark.parametrize(
        ("operation", "target", "text"),
        [
            ("update:cnpg.io/*", "clusters.cnpg.io/db", "update:cnpg.io/*"),
            ("update:cnpg.io/backups", "clusters.cnpg.io/db", "must be about the same group and resource"),
            ("raw", "clusters.cnpg.io/db", "VERB:GROUP/RESOURCE"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self, database: Site, alice: Person, operation: str, target: str, text: str
    ) -> None:
        refused = alice.elevate(operation, target, "-n", database.prod)
        assert refused.returncode in {2, 3}, refused.stderr
        assert text in refused.stderr


def test_what_the_condition_is_not_about_is_not_asked(site: Site) -> None:
    server = {"apiVersion": "example.com/v1", "kind": "Server", "metadata": {"name": "one", "namespace": site.prod}}
    person = Person(site.deployment)
    Person(site.deployment, "robot").kubectl("create", "-f", "-", stdin=json.dumps(server), check=True)
    person.kubectl("annotate", "servers.example.com/one", "note=x", "-n", site.prod, check=True)
    refused = person.kubectl("annotate", "servers.example.com/one", "example.com/restart=now", "-n", site.prod)
    assert "update:example.com/servers servers.example.com/one" in refused.stderr


def test_scale_paths_are_learnt_from_definitions_as_they_come(site: Site) -> None:
    group = f"{site.prod}.example.com"
    robot, person = Person(site.deployment, "robot"), Person(site.deployment)
    crd = definition(group, "farms", "Farm", replicas_path=".spec.machines")
    site.deployment.cluster.apply(yaml.safe_dump(crd))
    site.deployment.cluster.kubectl("wait", "--for=condition=Established", f"crd/farms.{group}", user=ADMIN, check=True)
    farm = {"apiVersion": f"{group}/v1", "kind": "Farm", "metadata": {"name": "a", "namespace": site.prod}}
    robot.kubectl("create", "-f", "-", stdin=json.dumps({**farm, "spec": {"machines": 3, "note": "a"}}), check=True)

    def changed(**spec: Any) -> Any:
        arguments = ("-n", site.prod, "--type=merge", "-p", json.dumps({"spec": spec}))
        return person.kubectl("patch", f"farms.{group}/a", *arguments, "--dry-run=server")

    until(lambda: REFUSED in changed(machines=0).stderr, "the path was not learnt")
    assert f"scale farms.{group}/a" in changed(machines=0).stderr
    assert changed(note="b").returncode == 0


class TestConfiguration:
    def test_a_wrong_one_is_refused_when_it_is_applied(self, site: Site) -> None:
        wrong = copy.deepcopy(CONFIGURATION)
        wrong["spec"]["deputies"].append({"resource": "a/b", "when": "object.spec +"})
        refused = Person(site.deployment).kubectl("apply", "-f", "-", stdin=json.dumps(wrong))
        assert refused.returncode != 0
        assert "spec.deputies[1].when" in refused.stderr

    def test_there_is_one_name(self, site: Site) -> None:
        other = {**CONFIGURATION, "metadata": {"name": "other"}}
        refused = Person(site.deployment).kubectl("create", "-f", "-", stdin=json.dumps(other))
        assert "metadata.name must be default" in refused.stderr

    def test_adding_is_free_and_works_at_once_taking_away_is_weakening(self, site: Site, alice: Person) -> None:
        key = f"example.com/{site.prod}"
        entry = {"key": key, "class": "restart"}
        patched = json.dumps([{"op": "add", "path": "/spec/deadlyMetadata/-", "value": entry}])
        added = alice.kubectl("patch", CONFIGURATION_NAME, "--type=json", "-p", patched)
        assert added.returncode == 0, added.stderr

        def annotated() -> str:
            return str(alice.kubectl("annotate", "deploy/web", f"{key}=x", "-n", site.prod, "--dry-run=server").stderr)

        until(lambda: "restart deployments.apps/web" in annotated(), "the entry was not learnt")
        position = len(json.loads(site.get(CONFIGURATION_NAME, "-o", "json"))["spec"]["deadlyMetadata"]) - 1
        removal = json.dumps([{"op": "remove", "path": f"/spec/deadlyMetadata/{position}"}])
        arguments = ("patch", CONFIGURATION_NAME, "--type=json", "-p", removal)
        assert "kube-stepup: guard stepupconfigurations.kube-stepup.io/default" in alice.kubectl(*arguments).stderr
        assert "kube-stepup: guard " in alice.kubectl("delete", CONFIGURATION_NAME).stderr
        passed = alice.elevate("--reason", "OPS-7", "--", "kubectl", *arguments)
        assert passed.returncode == 0, passed.stderr
        until(lambda: REFUSED not in annotated(), "the entry stayed in force")

    def test_its_status_says_whether_it_is_used(self, site: Site) -> None:
        found = json.loads(site.get(CONFIGURATION_NAME, "-o", "json"))
        (accepted,) = [one for one in found["status"]["conditions"] if one["type"] == "Accepted"]
        assert (accepted["status"], accepted["reason"]) == ("True", "Valid")


def test_in_an_outage_what_takes_guarded_objects_along_fails_closed(deployment: Deployment, site: Site) -> None:
    person = Person(deployment)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": site.prod}}
    cluster_role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": site.prod},
    }
    crd = definition(f"{site.prod}.example.com", "things", "Thing")
    robot = Person(deployment, "robot")
    for obj in (crd, node, cluster_role):
        robot.kubectl("create", "-f", "-", stdin=json.dumps(obj), check=True)
    try:
        deployment.kill("admission-0", "admission-1")
        for command in (
            ["delete", "crd", f"things.{site.prod}.example.com"],
            ["delete", "node", site.prod],
            ["taint", "node", site.prod, "gone=now:NoExecute"],
        ):
            assert "failed calling webhook" in person.kubectl(*command).stderr
        # What takes nothing along is as free as before.
        assert person.kubectl("delete", "clusterrole", site.prod).returncode == 0
    finally:
        deployment.start("admission-0", "admission-1")
        deployment.wait_ready()
    assert robot.kubectl("delete", "node", site.prod).returncode == 0
