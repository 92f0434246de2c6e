"""`make demo`: the main job told one line at a time, by real commands against a real kube-apiserver, with their real output.

Exits 0 when everything went as it is told. `make demo KEEP=1` leaves it running to play with.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyotp

from tests.builders import Signer, claims
from tests.controlplane import ControlPlane, ControlPlaneError
from tests.controlplane.cluster import ADMIN
from tests.deployment import Deployment

POLICY = """\
apiVersion: kube-stepup.io/v1alpha1
kind: StepUpPolicy
metadata: {name: production}
spec:
  match: {namespaceSelector: {matchLabels: {env: prod}}}
  rules:
  - name: destroy
    operations: [delete, scale, exec]
    require: {assurance: aal2, maxAge: 15s, use: Once, reason: {pattern: "OPS-[0-9]+.*"}}
"""
BOLD, DIM, GREEN, RED, END = (
    ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else [""] * 5
)
SECRET = re.compile(r"^\s+((?:[A-Z2-7]{4} ?){8})\s*$", re.MULTILINE)
PERIOD_SECONDS = 30


class Story:
    """Tells and runs; ends the program when something is not as told."""

    def __init__(self, cluster: ControlPlane, deployment: Deployment) -> None:
        self.cluster = cluster
        self.deployment = deployment
        self.secret = ""
        self.last_step = 0
        self.environment = cluster.environment("alice") | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), cluster.environment("alice")["PATH"]]),
            "TERM": os.environ.get("TERM", "xterm"),
        }

    def tell(self, text: str) -> None:
        print(f"\n{BOLD}# {text}{END}", flush=True)

    def run(self, command: str, *, passes: bool, says: str = "") -> str:
        """Run what alice types, show it and its output, and insist on how it ends."""
        print(f"{GREEN}alice$ {END}{command}", flush=True)
        result = subprocess.run(
            ["bash", "-c", command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        output = result.stdout + result.stderr
        self._judge(command, output, result.returncode, passes=passes, says=says)
        return output

    def type(self, command: str, *, passes: bool, says: str = "", answer: Callable[[str], str | None]) -> str:
        """The same at a terminal, where somebody answers what is asked."""
        print(f"{GREEN}alice$ {END}{command}", flush=True)
        child, terminal = os.forkpty()
        if child == 0:
            os.execvpe("bash", ["bash", "-c", command], self.environment)
        output = ""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ready, _, _ = select.select([terminal], [], [], 0.2)
            if ready:
                try:
                    data = os.read(terminal, 65536)
                except OSError:
                    break
                output += data.decode(errors="replace")
            elif (typed := answer(output)) is not None:
                os.write(terminal, typed.encode() + b"\r")
        _, status = os.waitpid(child, 0)
        os.close(terminal)
        output = output.replace("\r\n", "\n")
        self._judge(command, output, os.waitstatus_to_exitcode(status), passes=passes, says=says)
        return output

    def phone(self) -> str:
        """The next code that alice's phone shows, waiting for one that was not used."""
        while int(time.time()) // PERIOD_SECONDS <= self.last_step - 1:
            time.sleep(0.2)
        step = max(self.last_step + 1, int(time.time()) // PERIOD_SECONDS - 1)
        self.last_step = step
        return pyotp.TOTP(self.secret).at(step * PERIOD_SECONDS)

    def code_when_asked(self, label: str = "Code: ") -> Callable[[str], str | None]:
        """Types a code once, when the prompt is there."""
        answered: list[bool] = []

        def answer(output: str) -> str | None:
            if answered or not output.rstrip(" ").endswith(label.rstrip(" ")):
                return None
            answered.append(True)
            return self.phone()

        return answer

    def enrol_when_asked(self) -> Callable[[str], str | None]:
        """Reads the secret as alice's phone reads the QR code, then types its first code."""

        def answer(output: str) -> str | None:
            found = SECRET.search(output.replace("\r", ""))
            if found is None or self.secret or not output.rstrip().endswith("First code of the app:"):
                return None
            self.secret = found.group(1).replace(" ", "")
            return self.phone()

        return answer

    def _judge(self, command: str, output: str, status: int, *, passes: bool, says: str) -> None:
        colour = "" if status == 0 else RED
        print("".join(f"{colour}{line}{END}\n" for line in output.splitlines()), end="", flush=True)
        if (status == 0) is not passes or says not in output:
            expected = "pass" if passes else "be refused"
            raise ControlPlaneError(
                f"the demo expected `{command}` to {expected} and to say {says!r}; it ended with {status}"
            )


def world(cluster: ControlPlane) -> None:
    """A prod and a staging namespace, each with three Deployments."""
    for namespace, env in (("prod", "prod"), ("staging", "staging")):
        cluster.apply(
            json.dumps(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"env": env}}}
            )
        )
        for name in ("web", "api", "db"):
            cluster.apply(json.dumps(deployment_of(name, namespace)))
    for namespace in ("prod", "staging"):
        cluster.kubectl(
            "wait",
            "--for=condition=Available",
            "deploy",
            "--all",
            "-n",
            namespace,
            "--timeout=40s",
            user=ADMIN,
            check=True,
        )


def deployment_of(name: str, namespace: str) -> dict[str, object]:
    """A Deployment of one pod on the fake node."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "nodeName": "n1",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": f"{name}:1"}],
        },
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def story(tell: Story) -> None:
    """The whole of it."""
    tell.tell(
        "The policy: in namespaces with env=prod, deleting, scaling and exec need fresh proof, not older than 15 s"
    )
    print(DIM + POLICY + END, end="", flush=True)
    tell.deployment.apply_policy(POLICY)

    tell.tell("Staging is not covered: nothing is asked, nothing is slower")
    tell.run("kubectl delete deploy/web -n staging", passes=True)

    tell.tell("Production is: refused, with the line to run")
    tell.run("kubectl delete deploy/web -n prod", passes=False, says="needs a step-up")

    tell.tell(
        "alice binds her authenticator app, once (this demo trusts the first use; normally an operator gives her a ticket)"
    )
    tell.type("kubectl elevate enroll", passes=True, says="Recovery codes", answer=tell.enrol_when_asked())

    tell.tell("She steps up: one command, six digits")
    tell.type(
        "kubectl elevate delete deploy/web -n prod --reason 'OPS-7 decommissioned'",
        passes=True,
        says="stepped up",
        answer=tell.code_when_asked(),
    )
    tell.run("kubectl delete deploy/web -n prod", passes=True, says="deleted")

    tell.tell("That proof was for this one object: another is refused …")
    tell.run("kubectl delete deploy/api -n prod", passes=False, says="your step-up is for something else")
    tell.tell("… and so is another object of the same name: the proof was for the one that is gone")
    tell.cluster.apply(json.dumps(deployment_of("web", "prod")))
    tell.run("kubectl delete deploy/web -n prod", passes=False, says="no longer there")

    tell.tell("A shell in production: the wrapper runs the command, sees the refusal, asks, and runs it again")
    tell.run("kubectl exec -n prod deploy/api -- echo hello", passes=False, says="needs a step-up")
    tell.type(
        "kubectl elevate --reason OPS-8 -- kubectl exec -n prod deploy/api -- echo hello from production",
        passes=True,
        says="hello from production",
        answer=tell.code_when_asked(),
    )

    tell.tell("Scaling to zero is scaling to zero, by whichever road")
    tell.run("kubectl scale deploy/db -n prod --replicas=0", passes=False, says="scale deployments.apps/db")
    tell.run(
        """kubectl patch deploy/db -n prod -p '{"spec":{"replicas":0}}'""",
        passes=False,
        says="scale deployments.apps/db",
    )
    tell.run("kubectl get deploy/db -n prod -o jsonpath='{.spec.replicas}{\"\\n\"}'", passes=True, says="1")

    forged_and_expired(tell)
    who_did_what(tell)


def forged_and_expired(tell: Story) -> None:
    """Two assertions that do not do."""
    tell.tell("A forged assertion: all claims are right, the signature is somebody else's")
    forged = Signer().sign(claims(aud=["test-cluster"]))
    tell.environment["FORGED"] = forged
    tell.run("kubectl annotate deploy/db -n prod kube-stepup.io/assertion=$FORGED", passes=True)
    tell.run("kubectl delete deploy/db -n prod", passes=False, says="signed by a key that this cluster does not know")

    tell.tell("A genuine one that is too old: stepped up, then waited 16 seconds where the policy allows 15")
    tell.type("kubectl elevate delete deploy/db -n prod --reason OPS-9", passes=True, answer=tell.code_when_asked())
    time.sleep(16)
    tell.run("kubectl delete deploy/db -n prod", passes=False, says="this needs 15s")


def who_did_what(tell: Story) -> None:
    """The audit lines of the servers."""
    tell.tell("Who did what, from the audit")
    for line in tell.deployment.audit(lambda one: one.get("user") == "alice"):
        when, event, outcome = line["time"][11:19], line["event"], line.get("outcome", "")
        targets = line.get("targets") or [
            {**target, **detail} for detail in line.get("details") or [] for target in detail["objects"]
        ]
        what = ", ".join(f"{one['operation']} {one['resource']}/{one['name']}" for one in targets)
        reason = line.get("reason") or " ".join(line.get("reasons") or [])
        factor = line.get("factor") or " ".join(line.get("factors") or [])
        words = [when, event, outcome, line.get("code", ""), what, factor, repr(reason) if reason else ""]
        print("  " + "  ".join(word for word in words if word), flush=True)


def main() -> int:
    """Run the demo; the exit code."""
    started = time.monotonic()
    keep = os.environ.get("KEEP", "") not in {"", "0"}
    print(
        f"{BOLD}# A Kubernetes control plane of our own: etcd, kube-apiserver, kube-controller-manager, kwok{END}",
        flush=True,
    )
    overrides = {"elevation": {"enrolmentTrustOnFirstUse": True}}
    try:
        with ControlPlane() as cluster:
            print(f"ready in {cluster.seconds_to_ready:.1f} s", flush=True)
            print(
                f"{BOLD}# kube-stepup on it: two admission replicas, the elevation server, the controller{END}",
                flush=True,
            )
            before = time.monotonic()
            with Deployment(cluster, overrides=overrides) as deployment:
                print(f"ready in {time.monotonic() - before:.1f} s", flush=True)
                world(cluster)
                story(Story(cluster, deployment))
                print(f"\n{BOLD}# All as told, in {time.monotonic() - started:.0f} s{END}", flush=True)
                if keep:
                    linger(cluster)
    except (ControlPlaneError, subprocess.TimeoutExpired) as error:
        print(f"{RED}{error}{END}", file=sys.stderr)
        return 1
    return 0


def linger(cluster: ControlPlane) -> None:
    """Stay until Ctrl-C."""
    paths = os.pathsep.join(
        [
            str(Path(sys.executable).parent),
            *dict.fromkeys(str(p.parent) for p in cluster.programs.control_plane().values()),
        ]
    )
    print("\nIt goes on running until Ctrl-C. In another shell:")
    print(f"  export KUBECONFIG={shlex.quote(str(cluster.kubeconfig()))} PATH={shlex.quote(paths)}:$PATH")
    print(f"As the administrator: kubectl --kubeconfig {cluster.admin_kubeconfig} …")
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    sys.exit(main())
