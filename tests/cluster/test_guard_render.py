"""`stepup guard render` on a real kube-apiserver that was started with its files: cluster-admins are held, our controller
works, the sealed identity may do everything; and what the same policies hold as objects of the API, and what not."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.builders import policy
from tests.cluster.sites import workload
from tests.controlplane import ADMIN, ControlPlane, Programs
from tests.controlplane.cluster import Finished
from tests.deployment import NAMESPACE, Deployment
from tests.people import ROOT

HELD = "held by kube-stepup: only the sealed break-glass identity may"
SEALED = ("incident",)
SEALED_USER = "sealed"
CREDENTIAL_EXTRA = "--as-user-extra=authentication.kubernetes.io/credential-id="
CONFIGURATION = "validatingwebhookconfiguration/kube-stepup"
WAIT_SECONDS = 30.0
MUTATING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "evil"},
    "webhooks": [
        {
            "name": "evil.example.com",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "rules": [{"apiGroups": ["kube-stepup.io"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}],
        }
    ],
}  # fmt: skip
MUTATION = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicy",
    "metadata": {"name": "evil"},
    "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["signingkeys"]}]},
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}],
    },
}  # fmt: skip
KEY = {"apiVersion": "kube-stepup.io/v1alpha1", "kind": "SigningKey", "metadata": {"name": "es256-" + "0" * 40}, "spec": {"algorithm": "ES256", "notBefore": "2026-01-01T00:00:00Z", "publicKey": "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"}}  # fmt: skip
BORROWER = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "kube-system"}, "spec": {"serviceAccountName": "replicaset-controller", "containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
RUNNER = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": {"serviceAccountName": "kube-stepup-controller", "containers": [{"name": "c", "image": "i"}]}}  # fmt: skip

# What a cluster-admin tries (the command, what is piped into it). All are dry runs: VAPs see those as well.
TRIED: dict[str, tuple[list[str], dict[str, object] | None]] = {
    "webhook configuration deleted": (["delete", CONFIGURATION], None),
    "webhook configuration emptied": (["patch", CONFIGURATION, "--type=merge", "-p", '{"webhooks":[]}'], None),
    "mutating webhook on our objects": (["create", "-f", "-"], MUTATING),
    "mutating policy on our objects": (["create", "-f", "-"], MUTATION),
    "admission policy deleted": (["delete", "validatingadmissionpolicy/kube-stepup-break-glass"], None),
    "binding deleted": (["delete", "validatingadmissionpolicybinding/kube-stepup-break-glass"], None),
    "definition deleted": (["delete", "crd/stepuppolicies.kube-stepup.io"], None),
    "our API taken over": (["label", "apiservice/v1alpha1.kube-stepup.io", "kube-aggregator.kubernetes.io/automanaged-"], None),
    "elevation's API deleted": (["delete", "apiservice/v1alpha1.elevation.kube-stepup.io"], None),
    "signing key published": (["create", "-f", "-"], KEY),
    "owner of the configuration deleted": (["delete", "clusterrole/kube-stepup-controller"], None),
    "namespace deleted": (["delete", "namespace", NAMESPACE], None),
    "token of our controller": (["create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/kube-stepup-controller/token?dryRun=All", "-f", "-"], {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}),
    "token of a controller of the cluster": (["create", "--raw", "/api/v1/namespaces/kube-system/serviceaccounts/replicaset-controller/token?dryRun=All", "-f", "-"], {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}),
    "pod as our controller": (["create", "-f", "-"], RUNNER),
    "pod as a controller of the cluster": (["create", "-f", "-"], BORROWER),
    "our secrets": (["delete", "secret/kube-stepup-webhook-path", "-n", NAMESPACE], None),
    "certificate for anybody approved": (["certificate", "approve", "mallory"], None),
}  # fmt: skip
NOT_DRY = {"token of our controller", "token of a controller of the cluster", "certificate for anybody approved"}
HIDDEN = {"mutating policy on our objects", "admission policy deleted", "binding deleted"}


def rendered(folder: Path, *arguments: str) -> Finished:
    command = [sys.executable, "-m", "webhook.cli.stepup", "guard", "render", "--output", str(folder), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return Finished(" ".join(command), answer.returncode, answer.stdout, answer.stderr).checked()


class Held:
    """An installation, and who tries what on it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.cluster = deployment.cluster

    def tried(self, name: str, *flags: str, user: str = "alice", groups: tuple[str, ...] | None = None) -> Finished:
        command, body = TRIED[name]
        dry = () if name in NOT_DRY else ("--dry-run=server",)
        stdin = json.dumps(body) if body else None
        return self.cluster.kubectl(*command, *dry, *flags, user=user, groups=groups, stdin=stdin)


@pytest.fixture(scope="module")
def held(programs: Programs) -> Iterator[Held]:
    """kube-apiserver with the files of `guard render`, rendered once kube-stepup is installed: as an operator would."""
    glass = {"breakGlass": {"groups": list(SEALED)}}  # so that our webhook lets the sealed identity pass as well
    values = (f"breakGlass.groups={{{SEALED[0]}}}",)
    with ControlPlane(programs) as cluster, Deployment(cluster, overrides=glass, values=values) as deployment:
        folder = cluster.workdir / "held"
        rendered(folder, "--group", SEALED[0], "--directory", str(folder))
        cluster.kubectl("create", "-f", "-", stdin=request_for_a_certificate(), user=ADMIN, check=True)
        deployment.kill("admission-0", "admission-1")
        cluster.admission_control_config = folder / "admission-configuration.yaml"
        cluster.apiserver_arguments = [f"--authorization-config={folder / 'authorization-configuration.yaml'}"]
        cluster.restart("kube-apiserver")
        bind(cluster)
        yield Held(deployment)


def bind(cluster: ControlPlane) -> None:
    """The sealed group has all rights that RBAC knows; system:masters are never refused and so never sealed."""
    arguments = ("create", "clusterrolebinding", "sealed", "--clusterrole=cluster-admin", f"--group={SEALED[0]}")
    cluster.kubectl(*arguments, user=ADMIN, check=True)


def request_for_a_certificate() -> str:
    """A CertificateSigningRequest in the sealed identity's name, for a key of somebody else's."""
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, SEALED[0]), x509.NameAttribute(NameOID.COMMON_NAME, "mallory")])  # fmt: skip
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())  # fmt: skip
    pem = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {"request": pem, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    return json.dumps({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "mallory"}, "spec": spec})  # fmt: skip


@pytest.mark.parametrize("name", TRIED)
def test_a_cluster_admin_is_refused_while_nothing_of_ours_answers(held: Held, name: str) -> None:
    refused = held.tried(name)
    assert refused.returncode != 0, refused.stdout
    assert HELD in refused.stderr, refused.stderr


@pytest.mark.parametrize("name", [one for one in TRIED if one not in NOT_DRY])
def test_the_sealed_identity_may(held: Held, name: str) -> None:
    passed = held.tried(name, user=SEALED_USER, groups=SEALED)
    assert passed.returncode == 0, passed.stderr


def test_members_of_system_masters_are_held_as_well(held: Held) -> None:
    assert HELD in held.tried("webhook configuration deleted", user=ADMIN).stderr


def test_impersonating_the_sealed_identity_is_not_being_it(held: Held) -> None:
    as_sealed = (f"--as={SEALED_USER}", f"--as-group={SEALED[0]}")
    assert HELD in held.tried("webhook configuration deleted", *as_sealed).stderr
    for forged in ("X509SHA256=00", "JTI=1"):
        refused = held.tried("webhook configuration deleted", *as_sealed, CREDENTIAL_EXTRA + forged)
        assert refused.returncode != 0
        assert "cannot impersonate" in refused.stderr, refused.stderr


def test_many_extras_at_once_do_not_hide_a_credential(held: Held) -> None:
    extras = [f"--as-user-extra=example.com/e{number}=x" for number in range(20)]
    refused = held.tried("webhook configuration deleted", "--as=x", *extras, CREDENTIAL_EXTRA + "X509SHA256=00")
    assert "cannot impersonate" in refused.stderr, refused.stderr


def test_nobody_plays_the_api_server_itself(held: Held) -> None:
    as_itself = ("--as=system:apiserver", "--as-group=system:masters", "--as-uid=1")
    refused = held.tried("definition deleted", *as_itself)
    assert "cannot impersonate" in refused.stderr, refused.stderr


def test_impersonation_without_a_credential_is_left_alone(held: Held) -> None:
    for count in (1, 20):
        extras = [f"--as-user-extra=example.com/e{number}=x" for number in range(count)]
        passed = held.cluster.kubectl("auth", "whoami", "--as=bob", "--as-group=devs", *extras)
        assert passed.returncode == 0, passed.stderr


def test_what_stays_open_is_said_and_true(held: Held) -> None:
    """No authorizer is asked about members of system:masters, so they can impersonate whom they like."""
    forged = (f"--as={SEALED_USER}", f"--as-group={SEALED[0]}", CREDENTIAL_EXTRA + "X509SHA256=00")
    assert held.tried("webhook configuration deleted", *forged, user=ADMIN).returncode == 0


def test_what_is_not_ours_is_left_alone(held: Held) -> None:
    other = {**MUTATING, "webhooks": [{**MUTATING["webhooks"][0], "rules": [{"apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]}]}  # type: ignore[index]  # fmt: skip
    for body in (other, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}):
        passed = held.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
        assert passed.returncode == 0, passed.stderr


def test_our_controller_and_our_servers_go_on(held: Held) -> None:
    """With the holds in force: entries are written for a new policy, keys published, conditions and records kept."""
    deployment = held.deployment
    deployment.start("admission-0", "admission-1")
    deployment.wait_ready()
    before = json.dumps(deployment.webhooks())
    held.cluster.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod", "labels": {"env": "prod"}}}))  # fmt: skip
    deployment.apply_policy(policy())
    deployment.wait_guarded("prod")
    assert json.dumps(deployment.webhooks()) != before
    deployment.kill("elevation", "controller")
    held.cluster.kubectl("delete", "signingkeys.kube-stepup.io", "--all", user=SEALED_USER, groups=SEALED, check=True)
    deployment.start("elevation", "controller")
    deployment.wait_ready()
    deadline = time.monotonic() + WAIT_SECONDS
    while not held.cluster.kubectl("get", "signingkeys.kube-stepup.io", "-o", "name", user=ADMIN).stdout:
        assert time.monotonic() < deadline, "elevation cannot publish its key"
        time.sleep(0.2)
    assert "held by" not in deployment.logs()


def test_the_clusters_controllers_work_in_our_namespace(held: Held) -> None:
    """An upgrade by the sealed identity: ReplicaSets, pods, and their end are the controllers' doing."""

    def sealed(*arguments: str, stdin: str | None = None) -> None:
        held.cluster.kubectl(*arguments, "-n", NAMESPACE, user=SEALED_USER, groups=SEALED, stdin=stdin, check=True)

    sealed("apply", "-f", "-", stdin=workload(NAMESPACE, "probe"))
    sealed("rollout", "status", "deploy/probe", "--timeout=30s")
    sealed("set", "image", "deploy/probe", "c=nginx:2")
    sealed("rollout", "status", "deploy/probe", "--timeout=30s")
    sealed("delete", "deploy/probe")
    sealed("wait", "--for=delete", "pod", "-l", "app=probe", "--timeout=30s")


def test_a_changed_file_is_read_without_a_restart(held: Held) -> None:
    """With the certificate pinned, another one in the same name is refused."""
    pair = held.cluster.client_certificate(SEALED_USER, SEALED)
    folder = held.cluster.workdir / "held"
    rendered(folder, "--certificate", str(pair.certificate_file), "--directory", str(folder))
    deadline = time.monotonic() + 70
    while held.tried("webhook configuration deleted", user="another", groups=SEALED).returncode == 0:
        assert time.monotonic() < deadline, "the files are not read anew"
        time.sleep(0.5)
    passed = held.tried("webhook configuration deleted", user=SEALED_USER, groups=SEALED)
    assert passed.returncode == 0, passed.stderr
