"""`stepup guard render --managed`: the same holds as objects of the API, and the door that stays open."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.test_guard_render import (
    CONFIGURATION,
    HELD,
    HIDDEN,
    NOT_DRY,
    TRIED,
    rendered,
    request_for_a_certificate,
)
from tests.controlplane import ADMIN
from tests.controlplane.cluster import Finished
from tests.deployment import Deployment

WAIT_SECONDS = 20.0
SEALED = ("devs", "incident")


def tried(deployment: Deployment, name: str, groups: tuple[str, ...] = ("devs",)) -> Finished:
    command, body = TRIED[name]
    dry = () if name in NOT_DRY else ("--dry-run=server",)
    stdin = json.dumps(body) if body else None
    return deployment.cluster.kubectl(*command, *dry, user="mallory", groups=groups, stdin=stdin)


@pytest.fixture(scope="module")
def managed(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("managed")
    told = rendered(folder, "--group", SEALED[1], "--managed")
    assert "Still open" in told.stdout
    text = (folder / "kube-stepup-hold.yaml").read_text()
    deployment.cluster.kubectl("create", "-f", "-", stdin=request_for_a_certificate(), user=ADMIN, check=True)
    deployment.cluster.apply(text)
    dry = [name for name in TRIED if name not in HIDDEN | NOT_DRY]
    deadline = time.monotonic() + WAIT_SECONDS
    while not all(HELD in tried(deployment, name).stderr for name in dry):
        assert time.monotonic() < deadline, "the API server does not take the policies"
        time.sleep(0.2)
    yield deployment
    deployment.cluster.kubectl("delete", "csr/mallory", user=ADMIN, check=True)
    for one in yaml.safe_load_all(text):
        target = (one["kind"].lower(), one["metadata"]["name"], "--ignore-not-found")
        deployment.cluster.kubectl("delete", *target, user=ADMIN, check=True)


@pytest.mark.parametrize("name", [one for one in TRIED if one not in HIDDEN])
def test_a_cluster_admin_is_refused(managed: Deployment, name: str) -> None:
    refused = tried(managed, name)
    assert refused.returncode != 0, refused.stdout
    assert HELD in refused.stderr, refused.stderr


def test_the_sealed_identity_may(managed: Deployment) -> None:
    passed = tried(managed, "webhook configuration deleted", SEALED)
    assert passed.returncode == 0, passed.stderr


def test_what_stays_open_is_said_and_true(managed: Deployment) -> None:
    """No policy of the API is shown another: the hold itself can be deleted by whoever has the right, and then holds no more."""
    policy = "validatingadmissionpolicy/kube-stepup-hold-configuration"
    managed.cluster.kubectl("delete", policy, user="mallory", check=True)
    deadline = time.monotonic() + WAIT_SECONDS
    while tried(managed, "webhook configuration deleted").returncode != 0:
        assert time.monotonic() < deadline, "it holds all the same: the documents say otherwise"
        time.sleep(0.2)
    assert managed.cluster.kubectl("get", CONFIGURATION, user=ADMIN).returncode == 0
