"""Who is exempt on a real API server: an account by its own bound token, and nobody who only wears its name."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.cluster.actors import Api
from tests.cluster.sites import Site
from tests.controlplane import ADMIN
from tests.people import Person

REFUSED = "needs a step-up"
ACCOUNT = "system:serviceaccount:argocd:controller"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:argocd")
SETUP = """\
{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: controller, namespace: argocd}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: argocd}}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/service-account-token
metadata: {name: legacy, namespace: argocd, annotations: {kubernetes.io/service-account.name: controller}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: argocd}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:serviceaccounts:argocd"}]
"""
TOKEN_SECONDS = 20.0


@pytest.fixture
def argocd(site: Site) -> Iterator[Site]:
    cluster = site.deployment.cluster
    # Another test's namespace of that name may still be on its way out.
    cluster.kubectl("wait", "--for=delete", "namespace/argocd", "--timeout=60s", user="robot")
    cluster.apply(SETUP, user="robot")
    yield site
    names = ("clusterrolebinding/argocd", "namespace/argocd")
    for name in names:
        site.deployment.cluster.kubectl("delete", name, "--wait=true", user="robot", check=True)


def minted(site: Site, account: str) -> str:
    """A bound token; minting one for an exempt account asks for proof, so somebody exempt does."""
    cluster = site.deployment.cluster
    return cluster.kubectl("create", "token", account, "-n", "argocd", user="robot", check=True).stdout.strip()


def delete(site: Site, token: str) -> None:
    with closing(Api(site.deployment.cluster, token=token)) as api:
        api.call("DELETE", f"/apis/apps/v1/namespaces/{site.prod}/deployments/web")


def test_an_account_is_exempt_by_its_own_token_and_by_nothing_else(argocd: Site) -> None:
    site = argocd
    for refused in (minted(site, "other"), legacy_token(site)):
        with pytest.raises(AssertionError, match=REFUSED):
            delete(site, refused)
    certificate = Person(site.deployment, ACCOUNT, ("devs", *GROUPS))
    command = ("delete", "deploy/web", "-n", site.prod)
    assert REFUSED in certificate.kubectl(*command).stderr
    as_account = (f"--as={ACCOUNT}", "--as-group=devs", *(f"--as-group={group}" for group in GROUPS), "--as-uid=u1")
    assert REFUSED in Person(site.deployment).kubectl(*command, *as_account).stderr
    delete(site, minted(site, "controller"))
    (line,) = site.deployment.audit(lambda one: one.get("code") == "exempt" and one["user"] == ACCOUNT)[-1:]
    assert line["credential_id"].startswith("JTI=")


def legacy_token(site: Site) -> str:
    """A token in a Secret, without an end and without an id."""
    deadline = time.monotonic() + TOKEN_SECONDS
    while True:
        found = site.deployment.cluster.kubectl("get", "secret/legacy", "-n", "argocd", "-o", "json", user=ADMIN)
        if token := (json.loads(found.stdout).get("data") or {}).get("token"):
            return base64.b64decode(token).decode()
        assert time.monotonic() < deadline, "kube-controller-manager makes no token"
        time.sleep(0.2)
