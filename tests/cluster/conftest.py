"""One deployment for all cluster tests that need no other, and a pair of namespaces for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import yaml

from tests.builders import policy
from tests.cluster.sites import Site, workload
from tests.controlplane import ControlPlane
from tests.controlplane.cluster import ADMIN
from tests.custom_resources import CONFIGURATION, DEFINITIONS, by_name
from tests.deployment import Deployment
from tests.people import Person


@pytest.fixture(scope="session")
def deployment(control_plane: ControlPlane) -> Iterator[Deployment]:
    """kube-stepup, installed, with the policy `production` on namespaces that have env=prod."""
    with Deployment(control_plane) as running:
        match = {
            "namespaceSelector": {"matchLabels": {"env": "prod"}},
            "exempt": {"users": ["robot", "admin"], "serviceAccounts": ["argocd/controller"]},
        }
        control_plane.apply(yaml.safe_dump_all(DEFINITIONS))
        names = [f"crd/{one['metadata']['name']}" for one in DEFINITIONS]
        control_plane.kubectl("wait", "--for=condition=Established", *names, user=ADMIN, check=True)
        control_plane.apply(yaml.safe_dump(CONFIGURATION))
        name = "stepupconfigurations.kube-stepup.io/default"
        control_plane.kubectl("wait", "--for=condition=Accepted", name, "--timeout=30s", user=ADMIN, check=True)
        running.apply_policy(policy(match=match))
        running.apply_policy(by_name(match))
        yield running


@pytest.fixture
def site(deployment: Deployment) -> Iterator[Site]:
    """Made anew for each test, and taken away afterwards without waiting."""
    cluster = deployment.cluster
    suffix = secrets.token_hex(3)
    found = Site(deployment, f"prod-{suffix}", f"staging-{suffix}")
    labels = {found.prod: {"env": "prod"}, found.staging: {"env": "staging"}}
    for name, label in labels.items():
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}}
        cluster.apply(yaml.safe_dump(namespace) + "---\n" + workload(name), user="robot")
    for name in labels:
        arguments = ("rollout", "status", "deploy/web", "-n", name, "--timeout=30s")
        cluster.kubectl(*arguments, user=ADMIN, check=True)
    yield found
    for name in labels:
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found", user="robot")


@pytest.fixture
def alice(deployment: Deployment) -> Person:
    """Somebody with an enrolled authenticator; another person in each test."""
    return Person(deployment).enrol()
