"""One browser and one installation for all tests of the page."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import yaml

from tests.builders import policy
from tests.chromium import BrowserMissingError, Chromium, Tab
from tests.cluster.sites import Site, workload
from tests.controlplane import ControlPlane, Programs
from tests.controlplane.cluster import ADMIN
from tests.controlplane.process import free_ports
from tests.deployment import Deployment
from tests.people import Person

HOST = "stepup.test"  # a name that is nowhere but in the test's own browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    try:
        with Chromium.running(f"--host-resolver-rules=MAP {HOST} 127.0.0.1") as running:
            yield running
    except BrowserMissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def tab(chromium: Chromium) -> Iterator[Tab]:
    """A profile of its own, with a passkey that lives in this machine."""
    found = chromium.tab(ignore_https_errors=True)
    yield found
    found.context.close()


@pytest.fixture(scope="session")
def deployment(programs: Programs) -> Iterator[Deployment]:
    """kube-stepup with no ingress and no origin: pages are on localhost."""
    with ControlPlane(programs) as plane, Deployment(plane) as running:
        match = {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "exempt": {"users": ["robot"]}}
        running.apply_policy(policy(match=match))
        yield running


@pytest.fixture
def site(deployment: Deployment) -> Iterator[Site]:
    """A guarded namespace with something to delete."""
    cluster = deployment.cluster
    found = Site(deployment, f"prod-{secrets.token_hex(3)}", "")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": found.prod, "labels": {"env": "prod"}}}
    cluster.apply(yaml.safe_dump(namespace) + "---\n" + workload(found.prod), user="robot")
    yield found
    arguments = ("delete", "namespace", found.prod, "--wait=false", "--ignore-not-found")
    cluster.kubectl(*arguments, user=ADMIN)


@pytest.fixture
def bob(deployment: Deployment) -> Person:
    """Somebody who has no factor yet."""
    return Person(deployment)


@pytest.fixture(scope="session")
def page_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def with_origin(deployment: Deployment, page_port: int) -> Iterator[str]:
    """The same installation with an https origin for the page; the origin."""
    origin = f"https://{HOST}:{page_port}"
    deployment.restart_elevation(page={"origin": origin, "port": page_port})
    yield origin
    deployment.restart_elevation()
