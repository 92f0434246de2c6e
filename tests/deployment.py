"""kube-stepup installed on a `ControlPlane`: its servers as real processes, under service accounts of their own.

The chart's objects (CRDs, accounts, roles) are applied as Helm would render them; only the pods are replaced by
processes of this machine, so that what runs has exactly the rights that the chart gives.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.controlplane import ControlPlane
from tests.controlplane.cluster import ADMIN
from tests.controlplane.process import ControlPlaneError, Program, Watchdog, free_ports

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "kube-stepup"
NAMESPACE = "kube-stepup"
AUDIENCE = "test-cluster"
LOOPBACK = "127.0.0.1"
READY_SECONDS = 60.0
POLL_SECONDS = 0.05
WORKLOADS = frozenset({"Deployment", "PodDisruptionBudget", "Pod"})


class Deployment:
    """Two admission replicas behind a balancer, the elevation server behind an APIService, and the controller.

    Args:
        overrides: settings of the servers by section, as in their YAML file.
        values: further values of the chart, as `helm --set` takes them; settings come from `overrides` alone.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        *,
        overrides: Mapping[str, Any] | None = None,
        replicas: int = 2,
        values: tuple[str, ...] = (),
    ) -> None:
        self.cluster = cluster
        self.folder = cluster.workdir / f"deployment-{secrets.token_hex(4)}"
        self.folder.mkdir()
        self._overrides = dict(overrides or {})
        self._values = values
        self.path_secret = secrets.token_hex(32)
        ports = free_ports(2 * replicas + 4)
        self.admission_ports = ports[:replicas]
        self.elevation_port, self.balancer_port, *rest = ports[replicas:]
        self._free_ports = rest
        self._metrics_ports: dict[str, int] = {}
        self._watchdog: Watchdog | None = None
        self.programs: dict[str, Program] = {}

    def __enter__(self) -> Self:
        """Install everything and wait until it works. Raises ControlPlaneError, with logs, when it does not."""
        self._watchdog = Watchdog(None)  # the control plane removes the folder
        try:
            self._install()
            self._add(
                "balancer",
                [sys.executable, "-m", "tests.balancer", str(self.balancer_port), *map(str, self.admission_ports)],
            )
            for number, port in enumerate(self.admission_ports):
                self._add_server(
                    f"admission-{number}",
                    "admission",
                    {"admission": {"port": port, "pathSecretFile": str(self._secret_file)}},
                )
            self._add_server("elevation", "elevation", {"elevation": {"port": self.elevation_port}})
            self._add_server("controller", "controller", {})
            self.start(*self.programs)
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers and take away what would make the API server wait for them."""
        self.uninstall()
        self.close()

    def start(self, *names: str) -> None:
        """Start servers by name: admission-0, admission-1, elevation, controller, balancer."""
        for name in names:
            self.programs[name].start(self._guard())

    def restart_elevation(self, **settings: Any) -> None:
        """Start the elevation server anew, with these settings in its section, and wait until it answers."""
        self.stop("elevation")
        file = self.folder / "elevation.yaml"
        before = yaml.safe_load(file.read_text())
        kept = {key: before["elevation"][key] for key in ("port", "signingKeyPropagationSeconds")}
        file.write_text(yaml.safe_dump({**before, "elevation": {**kept, **settings}}))
        self.start("elevation")
        self.wait_ready()

    def kill(self, *names: str) -> None:
        """Stop servers as a power cut would."""
        for name in names:
            self.programs[name].stop(self._guard(), 9)

    def stop(self, *names: str) -> None:
        """Stop servers gracefully."""
        for name in names:
            self.programs[name].stop(self._guard())

    def close(self) -> None:
        """Kill everything at once."""
        for program in self.programs.values():
            if self._watchdog is not None:
                program.stop(self._watchdog, 9)
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

    def uninstall(self) -> None:
        """Remove the webhook configuration and the APIService, in the order that docs/operations.md gives."""
        self.stop("controller")
        for kind, name in (
            ("validatingwebhookconfiguration", "kube-stepup"),
            ("apiservice", "v1alpha1.elevation.kube-stepup.io"),
        ):
            self.cluster.kubectl("delete", kind, name, "--ignore-not-found", user=ADMIN)

    def wait_ready(self) -> None:
        """Until the servers are ready, the API server has the webhook, and the aggregated API answers."""
        for number, port in enumerate(self.admission_ports):
            if self.programs[f"admission-{number}"].running:
                self._wait(f"admission-{number}", lambda port=port: self._http_ok(port))  # type: ignore[misc]
        if self.programs["elevation"].running:
            self._wait("elevation", lambda: self._http_ok(self.elevation_port))
            self._wait("elevation", self._aggregated)
        if self.programs["controller"].running:
            self._wait("controller", lambda: bool(self.webhooks()))

    def webhooks(self) -> list[dict[str, Any]]:
        """The entries of the stored webhook configuration."""
        answer = self.cluster.kubectl("get", "validatingwebhookconfiguration", "kube-stepup", "-o", "json", user=ADMIN)
        return (json.loads(answer.stdout).get("webhooks") or []) if answer.returncode == 0 else []

    def apply_policy(self, manifest: str | dict[str, Any]) -> None:
        """Apply a StepUpPolicy and wait until the API server enforces it."""
        text = manifest if isinstance(manifest, str) else yaml.safe_dump(manifest)
        self.cluster.apply(text)
        for one in yaml.safe_load_all(text):
            if one["spec"].get("enforcement", "Deny") == "Deny":
                name = f"steppolicy/{one['metadata']['name']}".replace("steppolicy", "stepuppolicies.kube-stepup.io")
                self.cluster.kubectl("wait", "--for=condition=Enforced", name, "--timeout=30s", user=ADMIN, check=True)

    def wait_guarded(self, namespace: str) -> None:
        """Until requests in a namespace fail closed: a new one is judged at once, and guarded a moment later."""
        self._wait("controller", lambda: any(self._guards(entry, namespace) for entry in self.webhooks()))

    @staticmethod
    def _guards(entry: dict[str, Any], namespace: str) -> bool:
        return entry["failurePolicy"] == "Fail" and f'"{namespace}"' in str(entry["matchConditions"])

    def audit(self, matches: Callable[[dict[str, Any]], bool] = bool) -> list[dict[str, Any]]:
        """The audit lines of all servers, oldest first."""
        logs = [self.folder / f"{name}.log" for name in self.programs]
        texts = [text for log in logs if log.exists() for text in log.read_text().splitlines()]
        lines = [json.loads(text) for text in texts if text.startswith("{") and '"log":"audit"' in text]
        return [line for line in sorted(lines, key=lambda one: str(one["time"])) if matches(line)]

    def logs(self) -> str:
        """Everything that the servers wrote."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def metrics(self, name: str) -> dict[str, float]:
        """What a server tells Prometheus: each sample by its name and labels, as they are written."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._metrics_ports[name]}/metrics", timeout=5) as answer:
            rows = [row.rpartition(" ") for row in answer.read().decode().splitlines() if not row.startswith("#")]
        return {sample: float(value) for sample, _, value in rows}

    def settings(self, **sections: Any) -> dict[str, Any]:
        """Settings of a server, as its YAML file has them."""
        pair = self.cluster.serving_cert(LOOPBACK, "localhost", f"kube-stepup-elevation.{NAMESPACE}.svc")
        base: dict[str, Any] = {
            "audience": AUDIENCE,
            "namespace": NAMESPACE,
            "bindAddress": LOOPBACK,
            "tlsCertFile": str(pair.certificate_file),
            "tlsKeyFile": str(pair.key_file),
            "elevation": {"signingKeyPropagationSeconds": 0},
            "controller": {
                "manageCertificates": False,
                "caBundleFile": str(self._ca_file),
                "webhookUrl": f"https://{LOOPBACK}:{self.balancer_port}",
                "syncSeconds": 1,
                "narrowDelaySeconds": 1,
                "recreateDelaySeconds": 1,
                "ownerClusterRole": "kube-stepup-controller",
                "ownServiceAccounts": [f"{NAMESPACE}/{name}" for name in self._accounts],
                "excludedNamespaces": ["kube-system", "kube-node-lease", NAMESPACE],
            },
        }
        return _merged(_merged(base, sections), self._overrides)

    def _install(self) -> None:
        self._ca_file = self.folder / "ca.crt"
        self._ca_file.write_bytes(self.cluster.credentials.serving_ca.certificate)
        self._secret_file = self.folder / "path-secret"
        self._secret_file.write_text(self.path_secret)
        self.cluster.kubectl("create", "namespace", NAMESPACE, user=ADMIN)
        objects = [one for one in self._rendered() if one["kind"] not in WORKLOADS]
        self._accounts = sorted(one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount")
        crds = [one for one in objects if one["kind"] == "CustomResourceDefinition"]
        others = [one for one in objects if one not in crds and one["kind"] != "Namespace"]
        self.cluster.apply(yaml.safe_dump_all(crds))
        self.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", user=ADMIN, check=True)
        self.cluster.apply(yaml.safe_dump_all([*map(self._localised, others), self._path_secret_object()]))

    def _rendered(self) -> list[dict[str, Any]]:
        arguments = [
            "template",
            "kube-stepup",
            str(CHART),
            "--namespace",
            NAMESPACE,
            "--set",
            f"clusterName={AUDIENCE}",
            *(word for value in self._values for word in ("--set", value)),
        ]
        text = self.cluster.helm(*arguments, user=ADMIN, check=True).stdout
        return [one for one in yaml.safe_load_all(text) if one]

    def _localised(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Services of pods become names of this machine: the aggregation layer reaches loopback through them."""
        if obj["kind"] == "Service" and "elevation" in obj["metadata"]["name"]:
            ports = [{"port": self.elevation_port, "protocol": "TCP"}]
            obj["spec"] = {"type": "ExternalName", "externalName": "localhost", "ports": ports}
        if obj["kind"] == "APIService":
            obj["spec"]["service"]["port"] = self.elevation_port
        return obj

    def _path_secret_object(self) -> dict[str, Any]:
        metadata = {"name": "kube-stepup-webhook-path", "namespace": NAMESPACE}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"path": self.path_secret}}

    def _add_server(self, name: str, server: str, sections: dict[str, Any]) -> None:
        kubeconfig = self._kubeconfig(next(account for account in self._accounts if server in account))
        file = self.folder / f"{name}.yaml"
        port = self._metrics_ports[name] = self._free_ports.pop()
        file.write_text(yaml.safe_dump(self.settings(kubeconfig=str(kubeconfig), metricsPort=port, **sections)))
        self._add(name, [sys.executable, "-m", "webhook", server, "--config", str(file)])

    def _add(self, name: str, command: list[str]) -> None:
        passed = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            **passed,
        }
        self.programs[name] = Program(name, command, self.folder, environment)

    def _kubeconfig(self, account: str) -> Path:
        """A kubeconfig with a bound token of a service account, as a pod would have one."""
        arguments = ["create", "token", account, "-n", NAMESPACE, "--duration=24h"]
        token = self.cluster.kubectl(*arguments, user=ADMIN, check=True).stdout.strip()
        found = yaml.safe_load(self.cluster.admin_kubeconfig.read_text())
        found["users"] = [{"name": found["users"][0]["name"], "user": {"token": token}}]
        path = self.folder / f"{account}.kubeconfig"
        path.write_text(yaml.safe_dump(found))
        path.chmod(0o600)
        return path

    def _aggregated(self) -> bool:
        answer = self.cluster.kubectl("get", "--raw", "/apis/elevation.kube-stepup.io/v1alpha1", user=ADMIN)
        return answer.returncode == 0

    def _http_ok(self, port: int) -> bool:
        context = ssl.create_default_context(cafile=str(self._ca_file))
        try:
            with urllib.request.urlopen(f"https://{LOOPBACK}:{port}/readyz", timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if not self.programs[name].running or time.monotonic() > deadline:
                raise ControlPlaneError(f"{name} is not ready\n{self.programs[name].log_tail()}")
            time.sleep(POLL_SECONDS)

    def _guard(self) -> Watchdog:
        if self._watchdog is None:
            raise ControlPlaneError("the deployment is not running: use it in a `with` block")
        return self._watchdog


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        before = found.get(key)
        found[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return found
