"""The chart and the controller on a real API server: install, run with the chart's rights, upgrade, uninstall.

Only the pods are missing; the controller runs as a process of this machine, under its own service account.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane import ADMIN, ControlPlane, KeyPair, Programs
from tests.controlplane.process import Program, Watchdog, free_ports
from tests.recording_webhook import RecordingWebhook

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "kube-stepup"
NAMESPACE = "kube-stepup"
CONFIGURATION = ("validatingwebhookconfiguration", "kube-stepup")
API_SERVICE = ("apiservice", "v1alpha1.elevation.kube-stepup.io")
SECONDS = 30.0
POLICY: dict[str, Any] = {
    "apiVersion": "kube-stepup.io/v1alpha1",
    "kind": "StepUpPolicy",
    "metadata": {"name": "production"},
    "spec": {
        "match": {"namespaceSelector": {"matchLabels": {"env": "prod"}}},
        "rules": [{"name": "destroy", "operations": ["delete"]}],
    },
}


class Installed:
    """The chart on a control plane, and replicas of the controller."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.port, *self._health_ports = free_ports(3)
        self._watchdog = Watchdog(None)
        self.replicas: list[Program] = []

    def helm(self, verb: str, *arguments: str) -> None:
        values = () if verb == "uninstall" else (str(CHART), "--set", "clusterName=test")
        self.plane.helm(verb, "kube-stepup", *values, "-n", NAMESPACE, *arguments, user=ADMIN, check=True)

    def start_controller(self) -> Program:
        number = len(self.replicas)
        config = yaml.safe_load(self.get("configmap", "kube-stepup", "-n", NAMESPACE)["data"]["config.yaml"])
        config["kubeconfig"] = str(self._kubeconfig())
        config["controller"] |= {
            "healthPort": self._health_ports[number],
            "syncSeconds": 1,
            "expiryIntervalSeconds": 1,
            "narrowDelaySeconds": 3,
            "recreateDelaySeconds": 2,
            "webhookUrl": f"https://127.0.0.1:{self.port}",
            "servingDnsNames": ["127.0.0.1"],
        }
        file = self.folder / f"controller-{number}.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "webhook", "controller", "--config", str(file)]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        program = Program(f"controller-{number}", command, self.folder, environment)
        program.start(self._watchdog)
        self.replicas.append(program)
        return program

    def stop(self, program: Program) -> None:
        program.stop(self._watchdog)

    def close(self) -> None:
        for program in self.replicas:
            self.stop(program)
        self._watchdog.close()

    def log(self) -> str:
        return "".join(program.log.read_text() for program in self.replicas)

    def get(self, *what: str) -> dict[str, Any]:
        found = self.plane.kubectl("get", *what, "-o", "json", "--ignore-not-found", user=ADMIN, check=True).stdout
        return dict(json.loads(found)) if found else {}

    def entries(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.get(*CONFIGURATION).get("webhooks") or []}

    def guarded(self) -> str:
        """The condition on namespaces of the entry that fails closed; empty while there is none."""
        entry = self.entries().get("guarded.kube-stepup.io") or {"matchConditions": []}
        found = [one["expression"] for one in entry["matchConditions"] if one["name"] == "guarded"]
        return str(found[0]) if found else ""

    def conditions(self, policy: str) -> dict[str, dict[str, Any]]:
        status = self.get("stepuppolicies.kube-stepup.io", policy).get("status") or {}
        return {one["type"]: one for one in status.get("conditions") or []}

    def serving_pair(self) -> KeyPair:
        arguments = ("secret", "kube-stepup-admission-cert", "-n", NAMESPACE)
        eventually(lambda: bool(self.get(*arguments)), self)
        template = "-o=go-template={{range $k, $v := .data}}{{$v | base64decode}}{{end}}"
        pem = self.plane.kubectl("get", *arguments, template, user=ADMIN, check=True).stdout
        both = self.folder / "serving.pem"
        both.write_text(pem[pem.index("-----BEGIN", pem.index("-----END")) :])  # without ca.crt, which comes first
        return KeyPair(both, both)

    def _kubeconfig(self) -> Path:
        mint = ("create", "token", "kube-stepup-controller", "-n", NAMESPACE, "--duration=2h")
        token = self.plane.kubectl(*mint, user=ADMIN, check=True).stdout.strip()
        found = yaml.safe_load(self.plane.admin_kubeconfig.read_text())
        found["users"] = [{"name": found["users"][0]["name"], "user": {"token": token}}]
        path = self.folder / "controller.kubeconfig"
        path.write_text(yaml.safe_dump(found))
        path.chmod(0o600)
        return path


def eventually(condition: Callable[[], bool], installed: Installed, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in time\n{installed.log()}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def installed(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with ControlPlane(programs) as plane:
        found = Installed(plane, tmp_path_factory.mktemp("controller"))
        plane.kubectl("create", "namespace", NAMESPACE, user=ADMIN, check=True)
        plane.kubectl("create", "namespace", "prod", user=ADMIN, check=True)
        plane.kubectl("create", "namespace", "staging", user=ADMIN, check=True)
        plane.kubectl("label", "namespace", "prod", "env=prod", user=ADMIN, check=True)
        try:
            found.helm("install")
            plane.kubectl("wait", "--for=condition=Established", "crd", "--all", user=ADMIN, check=True)
            found.start_controller()
            eventually(lambda: bool(found.entries()), found)
            yield found
        finally:
            found.close()


def test_without_policies_nothing_is_guarded_and_nothing_fails(installed: Installed) -> None:
    assert list(installed.entries()) == ["watchful.kube-stepup.io"]
    installed.plane.kubectl("create", "configmap", "no-policies", "-n", "prod", check=True)
    installed.plane.kubectl("delete", "configmap", "no-policies", "-n", "prod", check=True)


def test_the_api_server_trusts_the_certificate_that_the_controller_made(installed: Installed) -> None:
    pair = installed.serving_pair()
    with RecordingWebhook(pair, port=installed.port) as webhook:

        def asked() -> bool:
            installed.plane.kubectl("create", "configmap", "c", "-n", "prod", "--dry-run=server", check=True)
            return bool(webhook.take())

        eventually(asked, installed)
    bundle = installed.entries()["watchful.kube-stepup.io"]["clientConfig"]["caBundle"]
    eventually(lambda: installed.get(*API_SERVICE)["spec"].get("caBundle") == bundle, installed)


def test_a_policy_is_accepted_and_enforced(installed: Installed) -> None:
    with RecordingWebhook(installed.serving_pair(), port=installed.port):
        installed.plane.apply(yaml.safe_dump(POLICY))
        wait = ("wait", "--for=condition=Enforced", "sup/production", f"--timeout={SECONDS:.0f}s")
        installed.plane.kubectl(*wait, user=ADMIN, check=True)

    conditions = installed.conditions("production")
    assert conditions["Accepted"]["status"] == "True"
    assert conditions["Enforced"]["message"] == "Guarded: prod."
    assert '["prod"]' in installed.guarded()
    assert installed.entries()["guarded.kube-stepup.io"]["failurePolicy"] == "Fail"


def test_a_namespace_that_comes_under_the_policy_is_guarded_and_one_that_leaves_stays_so_for_a_while(
    installed: Installed,
) -> None:
    # The guard itself must let the label through: nobody answers here, so the guard on prod would refuse it there.
    installed.plane.kubectl("label", "namespace", "staging", "env=prod", user=ADMIN, check=True)
    eventually(lambda: '["prod", "staging"]' in installed.guarded(), installed)

    with RecordingWebhook(installed.serving_pair(), port=installed.port):
        installed.plane.kubectl("label", "namespace", "staging", "env-", user=ADMIN, check=True)
    time.sleep(1.5)
    assert '["prod", "staging"]' in installed.guarded()
    eventually(lambda: '["prod"]' in installed.guarded(), installed)


def test_a_change_of_the_configuration_by_hand_is_put_back(installed: Installed) -> None:
    before = installed.entries()
    patch = '[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]'
    installed.plane.kubectl("patch", *CONFIGURATION, "--type=json", "-p", patch, user=ADMIN, check=True)
    eventually(lambda: installed.entries() == before, installed)


@pytest.mark.parametrize(
    "arguments",
    [(), ("--set", "webhook.narrowDelaySeconds=31"), ("--force-conflicts",), ("--server-side=false",)],
)
def test_an_upgrade_never_takes_an_entry_away(installed: Installed, arguments: tuple[str, ...]) -> None:
    before = installed.get(*CONFIGURATION)
    installed.helm("upgrade", *arguments)
    after = installed.get(*CONFIGURATION)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["webhooks"] == before["webhooks"]
    assert installed.get(*API_SERVICE)["spec"]["caBundle"]


def test_applying_the_manifests_by_hand_takes_no_entry_away(installed: Installed) -> None:
    before = installed.get(*CONFIGURATION)
    arguments = ("template", "kube-stepup", str(CHART), "-n", NAMESPACE, "--set", "clusterName=test")
    manifests = installed.plane.helm(*arguments, user=ADMIN, check=True).stdout
    installed.plane.kubectl("apply", "-f", "-", user=ADMIN, stdin=manifests, check=True)
    after = installed.get(*CONFIGURATION)
    assert after["webhooks"] == before["webhooks"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_configuration_that_was_deleted_by_hand_comes_back_and_helm_still_knows_it(installed: Installed) -> None:
    before = installed.entries()
    installed.plane.kubectl("delete", *CONFIGURATION, user=ADMIN, check=True)
    eventually(lambda: installed.entries() == before, installed)

    role = installed.get("clusterrole", "kube-stepup-controller")
    owners = installed.get(*CONFIGURATION)["metadata"]["ownerReferences"]
    assert [(one["kind"], one["uid"]) for one in owners] == [("ClusterRole", role["metadata"]["uid"])]
    installed.helm("upgrade")
    assert installed.entries() == before


def test_an_elevation_whose_time_is_over_is_marked(installed: Installed) -> None:
    name = "elv-" + "b" * 20
    elevation = {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "Elevation",
        "metadata": {"name": name},
        "spec": {"user": {"username": "alice"}, "details": [{"operation": "delete", "scope": "Object"}]},
    }
    installed.plane.apply(yaml.safe_dump(elevation))
    status = json.dumps({"status": {"phase": "Granted", "expiresAt": "2026-01-01T00:00:00Z"}})
    installed.plane.kubectl(
        "patch", "elevations.kube-stepup.io", name, "--subresource=status", "--type=merge", "-p", status,
        user=ADMIN, check=True,
    )  # fmt: skip
    eventually(lambda: installed.get("elevations.kube-stepup.io", name)["status"]["phase"] == "Expired", installed)


def test_the_path_secret_survives_its_deletion(installed: Installed) -> None:
    secret = ("secret", "kube-stepup-webhook-path", "-n", NAMESPACE)
    before = installed.get(*secret)["data"]["path"]
    installed.plane.kubectl("delete", *secret, user=ADMIN, check=True)
    eventually(lambda: installed.get(*secret).get("data", {}).get("path") == before, installed)


def test_another_replica_takes_over_at_once_when_the_leader_stops(installed: Installed) -> None:
    second = installed.start_controller()
    lease = ("lease", "kube-stepup-controller", "-n", NAMESPACE)
    holder = installed.get(*lease)["spec"]["holderIdentity"]
    installed.stop(installed.replicas[0])
    eventually(lambda: installed.get(*lease)["spec"]["holderIdentity"] not in {"", holder}, installed, seconds=8)

    before = installed.entries()
    patch = '[{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 30}]'
    installed.plane.kubectl("patch", *CONFIGURATION, "--type=json", "-p", patch, user=ADMIN, check=True)
    eventually(lambda: installed.entries() == before, installed)
    assert second.running


@pytest.mark.parametrize(
    ("account", "verb", "resource", "allowed"),
    [
        ("controller", "get", "secrets/kube-stepup-ca", "yes"),
        ("controller", "get", "secrets/kube-stepup-signing-keys", "no"),
        ("controller", "list", "secrets", "no"),
        ("controller", "create", "signingkeys.kube-stepup.io", "no"),
        ("controller", "update", "validatingwebhookconfigurations.admissionregistration.k8s.io/other", "no"),
        ("admission", "get", "secrets", "no"),
        ("admission", "patch", "elevations.kube-stepup.io --subresource=status", "yes"),
        ("admission", "create", "events.events.k8s.io", "yes"),
        ("admission", "create", "elevations.kube-stepup.io", "no"),
        ("admission", "create", "signingkeys.kube-stepup.io", "no"),
        ("admission", "patch", "stepuppolicies.kube-stepup.io", "no"),
        ("admission", "update", "stepupreports.kube-stepup.io", "yes"),
        ("admission", "delete", "stepupreports.kube-stepup.io", "no"),
        ("admission", "get", "leases.coordination.k8s.io/kube-stepup-controller", "yes"),
        ("admission", "update", "leases.coordination.k8s.io/kube-stepup-controller", "no"),
        ("admission", "get", "apiservices.apiregistration.k8s.io/v1alpha1.kube-stepup.io", "yes"),
        ("admission", "get", "apiservices.apiregistration.k8s.io/v1.apps", "no"),
        ("controller", "update", "stepupreports.kube-stepup.io", "no"),
        ("controller", "patch", "stepuppolicies.kube-stepup.io", "no"),
        ("elevation", "create", "signingkeys.kube-stepup.io", "yes"),
        ("elevation", "get", "secrets", "yes"),
        ("elevation", "get", "secrets -n default", "no"),
        ("elevation", "get", "configmaps/extension-apiserver-authentication -n kube-system", "yes"),
        ("elevation", "patch", "stepuppolicies.kube-stepup.io", "no"),
    ],
)
def test_each_server_has_the_rights_that_it_needs_and_no_more(
    installed: Installed, account: str, verb: str, resource: str, allowed: str
) -> None:
    arguments = resource.split()
    if "-n" not in arguments:
        arguments += ["-n", NAMESPACE]
    who = f"--as=system:serviceaccount:{NAMESPACE}:kube-stepup-{account}"
    answer = installed.plane.kubectl("auth", "can-i", verb, *arguments, who, user=ADMIN)
    assert answer.stdout.strip() == allowed


def test_the_controller_was_never_refused_anything(installed: Installed) -> None:
    assert "Forbidden" not in installed.log()
    assert "step-crashed" not in installed.log()


def test_an_uninstall_ends_with_nothing_that_could_refuse_a_request(installed: Installed) -> None:
    # As the kubelet would: the controller's pods are told to stop when their Deployment goes.
    installed.helm("uninstall")
    time.sleep(1)
    for replica in installed.replicas:
        installed.stop(replica)
    time.sleep(3)

    assert installed.get(*CONFIGURATION) == {}
    assert installed.get(*API_SERVICE) == {}
    assert installed.get("stepuppolicies.kube-stepup.io", "production")["metadata"]["name"] == "production"
    installed.plane.kubectl("delete", "namespace", "prod", "staging", check=True)


def test_a_controller_that_outlives_an_uninstall_leaves_no_configuration_behind(installed: Installed) -> None:
    installed.helm("install")
    orphan = installed.start_controller() if len(installed.replicas) < 2 else _again(installed)
    eventually(lambda: bool(installed.entries()), installed)
    installed.helm("uninstall")
    time.sleep(6)
    assert orphan.running
    assert installed.get(*CONFIGURATION) == {}
    installed.stop(orphan)


def _again(installed: Installed) -> Program:
    """A first replica in a new life: the account was made anew, and so is its token."""
    installed.replicas.clear()
    return installed.start_controller()


def test_bad_settings_are_named_and_end_the_program(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("audience: test\ncontroller: {syncSeconds: 0}\n")
    command = [sys.executable, "-m", "webhook", "controller", "--config", str(file)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 2
    assert "controller.syncSeconds" in answer.stderr
