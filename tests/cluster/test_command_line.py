"""`kubectl elevate` as it is typed: the plugin found by kubectl, at a terminal, around kubectl and helm."""

from __future__ import annotations

import json
import os
import secrets
import select
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.sites import Site
from tests.people import Person

SECONDS = 30.0


class Terminal:
    """A command at a pseudo-terminal of its own."""

    def __init__(self, person: Person, command: list[str]) -> None:
        environment = person.cluster.environment(person.name, person.groups)
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        environment["TERM"] = "xterm"
        self.output = ""
        self._child, self._terminal = os.forkpty()
        if self._child == 0:
            os.execvpe(command[0], command, environment)

    def read_until(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + SECONDS
        while self.output.count(text) < times:
            ready, _, _ = select.select([self._terminal], [], [], 0.2)
            assert time.monotonic() < deadline, self.output
            if ready:
                self._read()

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        deadline = time.monotonic() + SECONDS
        while True:
            assert time.monotonic() < deadline, self.output
            ready, _, _ = select.select([self._terminal], [], [], 0.2)
            if ready and not self._read():
                break
        _, status = os.waitpid(self._child, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.output += data.decode(errors="replace")
        return bool(data)


def test_kubectl_finds_the_plugin_and_six_digits_are_enough(site: Site, alice: Person) -> None:
    terminal = Terminal(alice, ["kubectl", "elevate", "--", "kubectl", "delete", "deploy/web", "-n", site.prod])
    terminal.read_until("Code: ")
    terminal.type(alice.code() + "\r")
    assert terminal.end() == 0, terminal.output
    assert "••••••" in terminal.output
    assert alice.code() not in terminal.output
    assert 'deployment.apps "web" deleted' in terminal.output


def test_a_wrong_code_is_asked_again(site: Site, alice: Person) -> None:
    terminal = Terminal(alice, ["kubectl", "elevate", "delete", "deploy/web", "-n", site.prod])
    terminal.read_until("Code: ")
    terminal.type("000000\r")
    terminal.read_until("that code is wrong")
    terminal.read_until("Code: ", times=2)  # what is typed before a code is asked for is thrown away
    terminal.type(alice.code() + "\r")
    assert terminal.end() == 0, terminal.output


def test_an_interactive_shell_in_a_pod_keeps_its_terminal(site: Site, alice: Person) -> None:
    pod = site.pod()
    terminal = Terminal(alice, ["kubectl", "elevate", "--", "kubectl", "exec", "-it", "-n", site.prod, pod, "--", "sh"])
    terminal.read_until("Code: ")
    terminal.type(alice.code() + "\r")
    terminal.read_until("# ") if os.geteuid() == 0 else terminal.read_until("$ ")
    terminal.type("echo $((6*7)); [ -t 0 ] && echo is-a-''terminal\n")
    terminal.read_until("is-a-terminal\r\n")
    assert "42\r\n" in terminal.output
    terminal.type("exit\n")
    assert terminal.end() == 0, terminal.output


def test_giving_up_ends_with_130_and_deletes_nothing(site: Site, alice: Person) -> None:
    terminal = Terminal(alice, ["kubectl", "elevate", "--", "kubectl", "delete", "deploy/web", "-n", site.prod])
    terminal.read_until("Code: ")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert site.get("deploy/web", "-o", "name")


def test_two_targets_of_one_command_are_one_proof(site: Site, alice: Person) -> None:
    robot = Person(site.deployment, "robot")
    robot.kubectl("create", "configmap", "c", "-n", site.prod, check=True)
    passed = alice.elevate("--", "kubectl", "delete", "deploy/web", "configmap/c", "-n", site.prod)
    assert passed.returncode == 0, passed.stderr
    assert passed.stderr.count("(policy production)") == 2
    assert len(alice.kubectl("get", "elevationrequests", "-o", "name").stdout.split()) == 1


def test_standard_input_is_played_again(site: Site, alice: Person) -> None:
    manifest = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": site.prod}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}})  # fmt: skip
    passed = alice.elevate("--", "kubectl", "create", "-f", "-", stdin=manifest)
    assert passed.stdout.strip() == "pod/p created", passed.stderr


def test_helm_is_wrapped_like_kubectl(site: Site, alice: Person, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 0.1.0\n")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
    (tmp_path / "templates" / "pod.yaml").write_text(json.dumps(pod))
    helm = str(site.deployment.cluster.programs.path("helm"))
    passed = alice.elevate("--", helm, "upgrade", "--install", "shop", str(tmp_path), "-n", site.prod)
    assert "deploy pods/shop in" in passed.stderr
    assert passed.returncode == 0, passed.stderr
    assert site.get("pod/shop", "-o", "name") == "pod/shop"


@pytest.mark.parametrize("code", [0, 1, 42])
def test_a_command_that_nobody_refused_ends_as_it_ends(alice: Person, code: int) -> None:
    ended = alice.elevate("--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "out\n", "err\n")


def test_status_list_and_revoke(site: Site, alice: Person) -> None:
    assert "No elevations in force" in alice.elevate("status", check=True).stdout
    alice.elevate("delete", "deploy/web", "-n", site.prod, "--reason", "OPS-1", check=True)
    status = json.loads(alice.elevate("status", "-o", "json", check=True).stdout)
    assert status["enrolled"]
    (one,) = status["elevations"]
    assert one["spec"]["reason"] == "OPS-1"
    assert "OPS-1" in alice.elevate("list", check=True).stdout
    alice.elevate("revoke", "--all", check=True)
    assert "your step-up was revoked" in alice.kubectl("delete", "deploy/web", "-n", site.prod).stderr


def test_json_carries_the_assertion_for_programs(site: Site, alice: Person) -> None:
    answer = alice.elevate("scale", "deploy/web", "-n", site.prod, "-o", "json", check=True)
    result = json.loads(answer.stdout)
    assert result["required"]
    assert result["assertion"].count(".") == 2
    assert result["challenge"]["acr_values"] == "aal2"


def faked(pod: str, namespace: str) -> str:
    """A program in a container that prints a refusal in kubectl's own words, and fails."""
    return (
        'echo \'error: unable to upgrade connection: admission webhook "guarded.kube-stepup.io" denied the request: '
        f"kube-stepup: exec pods/{pod} in {namespace} needs a step-up (aal2, at most 5m old, policy production): no. Run:' >&2; "
        f"echo '  kubectl elevate exec pods/{pod} -n {namespace}' >&2; exit 1"
    )


def test_what_a_container_prints_asks_for_nothing(site: Site, alice: Person) -> None:
    own, other = site.pod(site.staging), site.pod()
    for target in ((other, site.prod), (own, site.staging)):
        run = alice.elevate("--", "kubectl", "exec", own, "-n", site.staging, "--", "sh", "-c", faked(*target))
        assert run.returncode != 0
        assert "which is not acted on" in run.stderr, run.stderr
    assert alice.kubectl("get", "elevationrequests", "-o", "name").stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        ["exec", "{pod}", "--", "true"],
        ["exec", "deploy/web", "--", "true"],
        ["run", "fresh", "--image=i", "--overrides", '{{"spec":{{"nodeName":"n1"}}}}'],
        ["debug", "{pod}", "--image=i"],
    ],
)
def test_real_refusals_of_what_shows_others_output_are_known(site: Site, alice: Person, command: list[str]) -> None:
    words = [word.format(pod=site.pod()) for word in command]
    passed = alice.elevate("--", "kubectl", "-n", site.prod, *words)
    assert passed.returncode == 0, passed.stderr
    assert f" in {site.prod} (policy production)" in passed.stderr


def test_explain_tells_the_rule_what_is_proven_and_what_is_not_asked(site: Site, alice: Person) -> None:
    before = alice.elevate("explain", "delete", "deploy/web", "-n", site.prod, check=True).stdout
    assert before.splitlines()[0] == f"delete deployments.apps/web in {site.prod}: needs a step-up"
    assert "rule everything: takes aal2, at most 5m old, good once, scope Object" in before
    assert "not proven: you have not stepped up" in before
    alice.elevate("delete", "deploy/web", "-n", site.prod, check=True)
    found = json.loads(
        alice.elevate("explain", "delete", "deploy/web", "-n", site.prod, "-o", "json", check=True).stdout
    )
    assert (found["required"], found["satisfied"]) == (True, True)
    free = alice.elevate("explain", "delete", "deploy/web", "-n", site.staging, check=True).stdout
    assert free == f"delete deployments.apps/web in {site.staging}: no step-up is needed\n"


def test_explain_is_for_people_whom_rbac_lets_elevate_and_about_themselves(site: Site, alice: Person) -> None:
    robot = Person(site.deployment, "robot").elevate("explain", "delete", "deploy/web", "-n", site.prod, check=True)
    assert "policy production: asks for nothing: it exempts robot" in robot.stdout
    answer, _ = alice.create("elevationreviews", {"details": [], "user": "robot"}, "ElevationReview")
    assert "spec" in answer.stderr


def test_a_used_proof_is_not_in_force(site: Site, alice: Person) -> None:
    alice.elevate("--", "kubectl", "delete", "deploy/web", "-n", site.prod, check=True)
    assert "No elevations in force" in alice.elevate("status", check=True).stdout
    assert "used up" in alice.elevate("list", check=True).stdout


def test_kubectl_completes_the_plugin_with_targets_of_the_cluster(site: Site, alice: Person) -> None:
    programs = os.pathsep.join([str(Path(sys.executable).parent), alice.cluster.environment(alice.name)["PATH"]])

    def completed(*words: str) -> list[str]:
        found = alice.run(["env", f"PATH={programs}", "kubectl", "__complete", "elevate", *words], check=True)
        return found.stdout.split()

    assert completed("re") == ["restart", "revoke", ":4"]
    assert completed("delete", "-n", site.prod, "deploy/w") == ["deploy/web", ":4"]
    assert "--scope" in completed("delete", "--sc")


def test_helm_whose_record_is_guarded_passes_once_everything_is_proven(
    site: Site, alice: Person, tmp_path: Path
) -> None:
    """As an upgrade of kube-stepup itself: helm's record, and the objects, are in its own namespace."""
    name = f"shop-{secrets.token_hex(3)}"
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: 0.1.0\n")
    for suffix in ("a", "b"):
        found = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{name}-{suffix}", "namespace": "kube-stepup"},
        }
        (tmp_path / "templates" / f"{suffix}.yaml").write_text(json.dumps(found))
    helm = str(site.deployment.cluster.programs.path("helm"))
    arguments = [helm, "upgrade", "--install", name, str(tmp_path), "-n", "kube-stepup"]
    refused = alice.elevate("--", *arguments)
    assert refused.returncode != 0
    assert "kubectl elevate guard -f FILE secret/RECORD" in refused.stderr, refused.stderr
    rendered = tmp_path / "all.yaml"
    rendered.write_text(alice.run([helm, "template", name, str(tmp_path), "-n", "kube-stepup"], check=True).stdout)
    first, second = (f"secret/sh.helm.release.v1.{name}.v{number}" for number in (1, 2))
    for records in ([first], [first, second]):
        alice.elevate("guard", "-f", str(rendered), *records, "-n", "kube-stepup", check=True)
        alice.elevate("guard", records[-1], "-n", "kube-stepup", check=True)  # it is written twice
        passed = alice.run(arguments)
        assert passed.returncode == 0, passed.stderr
        assert "STATUS: deployed" in passed.stdout
        assert "denied" not in passed.stderr, passed.stderr
