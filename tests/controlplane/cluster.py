"""`ControlPlane`: a Kubernetes of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.controlplane import commands
from tests.controlplane.commands import FILES, LOOPBACK, Credentials, Ports
from tests.controlplane.kubeconfig import Kubeconfigs
from tests.controlplane.pki import KeyPair
from tests.controlplane.process import ControlPlaneError
from tests.controlplane.programs import Programs
from tests.controlplane.shell import ADMIN, DEVELOPERS, Finished, Shell
from tests.controlplane.supervisor import Supervisor

__all__ = ["ADMIN", "DEVELOPERS", "NODE", "ControlPlane", "Finished"]

NODE = "n1"
NODE_USER = (f"system:node:{NODE}", ("system:nodes",))
CONTROLLERS_USER = ("system:kube-controller-manager", ())
ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kwok")
READY_SECONDS = 60.0
POLL_SECONDS = 0.05


class ControlPlane(Shell):
    """etcd, kube-apiserver, kube-controller-manager and kwok on free ports of 127.0.0.1, with the node `n1`.

    Pods need `nodeName: n1` (there is no scheduler) and run at once. `kubectl exec` runs its command on this machine,
    but never tells it that its input has ended, and whatever its status was, kubectl's is 1.
    """

    def __init__(
        self,
        programs: Programs | None = None,
        *,
        admission_control_config: Path | None = None,
        apiserver_arguments: Sequence[str] = (),
    ) -> None:
        """The last two apply whenever kube-apiserver starts, so both may be changed before a `restart`."""
        programs = programs or Programs()
        self._paths = programs.control_plane()
        self.admission_control_config = admission_control_config
        self.apiserver_arguments = list(apiserver_arguments)
        self.workdir = Path(tempfile.mkdtemp(prefix="kube-stepup-"))
        self._ports = Ports.choose()
        self.server = f"https://{LOOPBACK}:{self._ports.apiserver}"
        self.credentials = Credentials(self.workdir)
        authority = self.credentials.cluster_ca
        super().__init__(programs, self.workdir, Kubeconfigs(self.workdir, self.server, authority))
        self._supervisor: Supervisor | None = None
        self.seconds_to_ready = 0.0

    def __enter__(self) -> Self:
        """Start everything. Raises ControlPlaneError, with the logs, when it does not become ready."""
        started = time.monotonic()
        # A kubelet would restart these two as well; kube-apiserver and etcd are left as a test wants them.
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._home)}
        self._supervisor = Supervisor(self.workdir, environment, revived=ORDER[2:])
        try:
            self.start("etcd", wait=False)
            self.start("kube-apiserver")
            self.apply((FILES / "bootstrap.yaml").read_text())
            self.start("kube-controller-manager")
            self.start("kwok")
            self._wait_for("kwok", "--for=condition=Ready", f"node/{NODE}")
            self._wait_for("kube-controller-manager", "--for=create", "serviceaccount/default")
        except BaseException:
            self.close()
            raise
        self.seconds_to_ready = time.monotonic() - started
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything, whatever happened."""
        self.close()

    def close(self) -> None:
        """Stop everything at once and remove the folder: nothing in it is worth a graceful end."""
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None
        shutil.rmtree(self.workdir, ignore_errors=True)

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start one of ORDER with the current settings; with `wait`, until kube-apiserver is ready (again)."""
        supervisor = self._supervised()
        supervisor.start(name, self._command(name))
        if wait and name in ORDER[:2] and supervisor.runs("kube-apiserver"):
            self._wait_until_ready(supervisor)

    def stop(self, name: str) -> None:
        """Stop one of ORDER gracefully; nothing happens when it does not run."""
        self._supervised().stop(name)

    def kill(self, name: str) -> None:
        """Stop one of ORDER as a power cut would."""
        self._supervised().stop(name, signal.SIGKILL)

    def restart(self, name: str) -> None:
        """Kill and start one of ORDER, as a graceful end waits for watches. Address and stored objects stay."""
        self.kill(name)
        self.start(name)

    def log(self, name: str) -> str:
        """The end of what a program has logged."""
        return self._supervised().log_tail(name)

    def pids(self) -> dict[str, int]:
        """The process of each program that runs."""
        return self._supervised().pids()

    @property
    def ca_file(self) -> Path:
        """The CA of kube-apiserver's own certificate, and of client certificates."""
        return self.credentials.cluster_ca.files.certificate_file

    @property
    def ca_bundle(self) -> str:
        """Base64 of the CA of `serving_cert`, as webhook configurations and APIServices want it."""
        return base64.b64encode(self.credentials.serving_ca.certificate).decode()

    def serving_cert(self, *hosts: str) -> KeyPair:
        """A certificate for a server that kube-apiserver calls; for loopback and `localhost` unless `hosts` are given."""
        number = sum(1 for _ in self.workdir.glob("serving-[0-9]*.crt"))
        return self.credentials.serving_ca.server(f"serving-{number}", hosts or (LOOPBACK, "localhost"))

    def audit_events(self, matches: Callable[[dict[str, Any]], bool] = bool) -> list[dict[str, Any]]:
        """What the audit log holds so far, oldest first. Annotations of webhooks are in `annotations`."""
        log = self.workdir / "audit.log"
        lines: Iterable[str] = log.read_text().splitlines(keepends=True) if log.exists() else ()
        # The last line may be half written.
        return [event for event in map(json.loads, (line for line in lines if line.endswith("\n"))) if matches(event)]

    def _command(self, name: str) -> list[str]:
        program, folder = self._paths[name], self.workdir
        if name == "etcd":
            return commands.etcd(program, folder, self._ports)
        if name == "kube-apiserver":
            return commands.kube_apiserver(
                program,
                folder,
                self._ports,
                self.credentials,
                self.admission_control_config,
                self.apiserver_arguments,
            )
        if name == "kube-controller-manager":
            return commands.kube_controller_manager(program, self.kubeconfig(*CONTROLLERS_USER), self.credentials)
        return commands.kwok(program, folder, self._ports, self.kubeconfig(*NODE_USER), self.credentials)

    def _supervised(self) -> Supervisor:
        if self._supervisor is None:
            raise ControlPlaneError("the control plane is not running: use it in a `with` block")
        return self._supervisor

    def _is_ready(self) -> bool:
        pair = self.client_certificate(ADMIN)
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(pair.certificate_file, pair.key_file)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{self.server}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _wait_until_ready(self, supervisor: Supervisor) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            ended = [name for name in ORDER[:2] if not supervisor.runs(name)]
            if ended or time.monotonic() > deadline:
                state = f"{' and '.join(ended)} ended" if ended else f"not ready within {READY_SECONDS:.0f} s"
                logs = "\n".join(supervisor.log_tail(name) for name in ended or ["kube-apiserver"])
                raise ControlPlaneError(f"kube-apiserver cannot be reached: {state}\n{logs}")
            time.sleep(POLL_SECONDS)

    def _wait_for(self, doer: str, *condition: str) -> None:
        """Wait with `kubectl wait` for what one of the programs does."""
        finished = self.kubectl("wait", *condition, user=ADMIN)
        if finished.returncode != 0:
            raise ControlPlaneError(f"{doer} does not do its part: {finished.stderr}\n{self.log(doer)}")
