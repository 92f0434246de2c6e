"""The control plane itself: what the other cluster tests rely on."""

from __future__ import annotations

import hashlib
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.controlplane import ADMIN, ControlPlane, ControlPlaneError
from tests.controlplane.commands import CONTAINER_LOG_LINE

REPOSITORY = Path(__file__).parents[2]
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: n1
      terminationGracePeriodSeconds: 0
      containers: [{name: web, image: nginx, ports: [{containerPort: 80}]}]
"""


@pytest.fixture(scope="module")
def shop(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace with a deployment whose pods run."""
    control_plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
    control_plane.apply(WEB, user="alice")
    control_plane.kubectl("rollout", "status", "deployment/web", "-n", "shop", check=True)
    yield "shop"
    control_plane.kubectl("delete", "namespace", "shop", check=True)


def test_a_person_is_known_by_their_client_certificate_and_its_fingerprint(control_plane: ControlPlane) -> None:
    answer = control_plane.kubectl("auth", "whoami", "-o", "yaml", user="alice", check=True)
    user = yaml.safe_load(answer.stdout)["status"]["userInfo"]

    pem = control_plane.client_certificate("alice").certificate_file.read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    assert user["username"] == "alice"
    assert user["groups"] == ["devs", "system:authenticated"]
    credential = user["extra"]["authentication.kubernetes.io/credential-id"]
    assert credential == [f"X509SHA256={hashlib.sha256(der).hexdigest()}"]


def test_the_same_person_keeps_their_certificate_and_can_be_given_another(control_plane: ControlPlane) -> None:
    assert control_plane.kubeconfig("alice") == control_plane.kubeconfig("alice")
    assert control_plane.kubeconfig("alice") != control_plane.kubeconfig("alice", ["sre-leads"])
    assert control_plane.another_kubeconfig("alice") != control_plane.kubeconfig("alice")


def test_groups_that_are_given_replace_the_rights_of_developers(control_plane: ControlPlane) -> None:
    assert control_plane.kubectl("auth", "can-i", "delete", "pods", user="alice").stdout.strip() == "yes"
    assert control_plane.kubectl("auth", "can-i", "delete", "pods", user="eve", groups=()).stdout.strip() == "no"


def test_nothing_of_the_callers_cluster_leaks_in(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    answer = control_plane.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    assert answer.stdout == control_plane.server
    assert not {"HTTPS_PROXY", "KUBERNETES_SERVICE_HOST"} & set(control_plane.environment())


def test_a_deployments_pods_run(control_plane: ControlPlane, shop: str) -> None:
    phases = control_plane.kubectl("get", "pods", "-n", shop, "-o", "jsonpath={.items[*].status.phase}", check=True)
    assert phases.stdout == "Running Running"


def test_exec_gives_the_output_and_the_failure_of_a_real_command(control_plane: ControlPlane, shop: str) -> None:
    worked = control_plane.kubectl("exec", "deployment/web", "-n", shop, "--", "sh", "-c", "echo $((6 * 7))")
    assert (worked.returncode, worked.stdout) == (0, "42\n")

    failed = control_plane.kubectl("exec", "deployment/web", "-n", shop, "--", "sh", "-c", "echo no >&2; exit 3")
    assert failed.returncode != 0
    assert failed.stderr.startswith("no\n")


def test_exec_passes_its_input_on(control_plane: ControlPlane, shop: str) -> None:
    reader = ["head", "-n", "1"]  # kwok does not pass the end of the input on, so `cat` would wait for ever
    answer = control_plane.kubectl("exec", "-i", "deployment/web", "-n", shop, "--", *reader, stdin="hello\n")
    assert answer.stdout == "hello\n"


def test_logs_can_be_read(control_plane: ControlPlane, shop: str) -> None:
    assert control_plane.kubectl("logs", "deployment/web", "-n", shop).stdout == f"{CONTAINER_LOG_LINE}\n"


def test_a_deleted_namespace_goes_with_all_that_is_in_it(control_plane: ControlPlane) -> None:
    control_plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: short-lived}}")
    control_plane.apply(WEB.replace("shop", "short-lived"))
    control_plane.kubectl("rollout", "status", "deployment/web", "-n", "short-lived", check=True)
    control_plane.kubectl("delete", "namespace", "short-lived", check=True)
    assert "NotFound" in control_plane.kubectl("get", "namespace", "short-lived").stderr


def test_every_api_is_available_and_the_front_proxys_ca_is_published(control_plane: ControlPlane) -> None:
    available = "jsonpath={.items[*].status.conditions[?(@.type=='Available')].status}"
    states = control_plane.kubectl("get", "apiservices", "-o", available, check=True).stdout.split()
    assert set(states) == {"True"}

    published = control_plane.kubectl(
        "get", "configmap", "extension-apiserver-authentication", "-n", "kube-system", "-o", "yaml", check=True
    )
    data = yaml.safe_load(published.stdout)["data"]
    assert data["requestheader-client-ca-file"] == control_plane.credentials.front_proxy_ca.certificate.decode()
    assert data["requestheader-allowed-names"] == '["front-proxy-client"]'


def test_serving_certificates_are_trusted_through_the_ca_bundle(control_plane: ControlPlane) -> None:
    pair = control_plane.serving_cert("localhost", "127.0.0.1", "stepup.kube-stepup.svc")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate_file, pair.key_file)
    certificate = x509.load_pem_x509_certificate(pair.certificate_file.read_bytes())
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(control_plane.credentials.serving_ca.certificate)
    )
    assert control_plane.serving_cert() != pair


def test_the_audit_log_says_who_did_what(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "audited", user="mallory", groups=["devs"], check=True)
    control_plane.kubectl("delete", "configmap", "audited", user="mallory", groups=["devs"], check=True)
    events = control_plane.audit_events(lambda event: event["user"]["username"] == "mallory")
    writes = [event for event in events if event["verb"] in {"create", "delete"}]
    assert [(event["verb"], event["objectRef"]["name"]) for event in writes] == [
        ("create", "audited"),
        ("delete", "audited"),
    ]


def test_controllers_work_under_accounts_of_their_own(control_plane: ControlPlane, shop: str) -> None:
    names = {event["user"]["username"] for event in control_plane.audit_events()}
    assert "system:serviceaccount:kube-system:replicaset-controller" in names
    assert "system:node:n1" in names


def test_helm_installs(control_plane: ControlPlane, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: tiny, version: 0.1.0}")
    (chart / "templates" / "cm.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: from-helm}}")
    control_plane.helm("install", "tiny", str(chart), check=True)
    assert control_plane.kubectl("get", "configmap", "from-helm").returncode == 0
    control_plane.helm("uninstall", "tiny", check=True)


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver", "kube-controller-manager", "kwok"])
def test_each_program_can_be_restarted_and_nothing_is_lost(control_plane: ControlPlane, shop: str, name: str) -> None:
    before = control_plane.pids()[name]
    control_plane.restart(name)
    assert control_plane.pids()[name] != before
    assert control_plane.kubectl("get", "deployment", "web", "-n", shop, check=True).stdout


def test_while_the_api_server_is_stopped_kubectl_fails_and_afterwards_it_works(control_plane: ControlPlane) -> None:
    control_plane.stop("kube-apiserver")
    assert control_plane.kubectl("get", "nodes", user=ADMIN).returncode != 0
    control_plane.start("kube-apiserver")
    assert control_plane.kubectl("get", "nodes", user=ADMIN).returncode == 0


OWNER = """
import time
from collections.abc import Iterator
from tests.controlplane import ControlPlane
with ControlPlane(apiserver_arguments=["--feature-gates=AllAlpha=false"]) as control_plane:
    print(control_plane.workdir, *control_plane.pids().values(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_its_owner_is_killed(control_plane: ControlPlane, number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder, *pids = owner.stdout.readline().split()
        assert len(pids) == 4
        os.kill(owner.pid, number)
        owner.wait()
    deadline = time.monotonic() + 20
    left = [Path(folder), *(Path("/proc", pid) for pid in pids)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [path for path in left if path.exists()]
    assert left == []


def test_admission_control_files_apply_from_the_next_start(control_plane: ControlPlane, tmp_path: Path) -> None:
    manifests = tmp_path / "policies"
    manifests.mkdir()
    (manifests / "policy.yaml").write_text(STATIC_POLICY)
    configuration = tmp_path / "admission.yaml"
    configuration.write_text(ADMISSION.format(folder=manifests))
    control_plane.admission_control_config = configuration
    try:
        control_plane.restart("kube-apiserver")
        refused = control_plane.kubectl("create", "configmap", "forbidden", user=ADMIN)
        assert "not this name" in refused.stderr
    finally:
        control_plane.admission_control_config = None
        control_plane.restart("kube-apiserver")


ADMISSION = """\
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionPolicy
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ValidatingAdmissionPolicyConfiguration
    staticManifestsDir: {folder}
"""
STATIC_POLICY = """\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: names.static.k8s.io}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: "object.metadata.name != 'forbidden'", message: not this name}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: names-binding.static.k8s.io}
spec: {policyName: names.static.k8s.io, validationActions: [Deny]}
"""


def test_a_controller_manager_that_dies_is_started_again(control_plane: ControlPlane) -> None:
    before = control_plane.pids()["kube-controller-manager"]
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while control_plane.pids().get("kube-controller-manager", before) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert control_plane.pids()["kube-controller-manager"] != before


def test_what_a_test_has_stopped_stays_stopped(control_plane: ControlPlane) -> None:
    control_plane.stop("kwok")
    time.sleep(1.5)
    assert "kwok" not in control_plane.pids()
    control_plane.start("kwok")
    assert "kwok" in control_plane.pids()


def test_an_api_server_that_cannot_start_shows_its_log(control_plane: ControlPlane) -> None:
    control_plane.apiserver_arguments.append("--no-such-flag")
    try:
        with pytest.raises(ControlPlaneError, match=r"kube-apiserver ended\n(.|\n)*unknown flag: --no-such-flag"):
            control_plane.restart("kube-apiserver")
    finally:
        control_plane.apiserver_arguments.remove("--no-such-flag")
        control_plane.start("kube-apiserver")
