"""The other commands: enroll, status, list, revoke, completion, and the operators'."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import segno

from tests.desk import Desk
from webhook.cli import exits

LIVE: dict[str, Any] = {
    "metadata": {"name": "elv-1"},
    "spec": {
        "details": [
            {"operation": "delete", "resource": "deployments", "namespace": "prod", "objects": [{"name": "web"}]}
        ]
    },
    "status": {"phase": "Granted", "expiresAt": "2099-01-01T00:00:00Z"},
}
USED_UP = {
    **LIVE,
    "metadata": {"name": "elv-3"},
    "status": {**LIVE["status"], "phase": "Used", "uses": 1, "usesLeft": 0},
}
HALF_USED = {**USED_UP, "metadata": {"name": "elv-4"}, "status": {**USED_UP["status"], "usesLeft": 1}}
AUTHENTICATORS = "/apis/elevation.kube-stepup.io/v1alpha1/authenticators"
OVER = {"metadata": {"name": "elv-2"}, "spec": {"details": []}, "status": {"phase": "Expired"}}


def stepup(desk: Desk, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "webhook.cli.stepup", *arguments],
        env=desk.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_enrolment_shows_a_qr_code_the_secret_and_the_recovery_codes(desk: Desk) -> None:
    terminal = desk.at_terminal("enroll", "--ticket", "T1")
    terminal.wait_for("ABCD EFGH")
    terminal.wait_for("First code of the app: ")
    terminal.type("000000\r")
    terminal.wait_for("wrong")
    terminal.wait_for("First code of the app: ")
    terminal.type("123456\r")
    assert terminal.end() == exits.OK
    assert all(f"code-{number}" in terminal.shown for number in range(10))
    rows = [line for line in terminal.shown.splitlines() if "█" in line]
    modules = segno.make("otpauth://totp/x:alice?secret=ABCDEFGH", error="m").symbol_size(border=4)[0]
    assert len(rows) == pytest.approx(modules / 2, abs=1)
    assert {len(row) for row in rows} == {modules}


def test_slips_at_enrolment_cost_no_ticket(desk: Desk) -> None:
    terminal = desk.at_terminal("enroll", "--ticket", "T1")
    for slip in ("000000", "111111", "222222", "333333"):
        terminal.wait_for("First code of the app: ")
        terminal.type(f"{slip}\r")
    terminal.wait_for("First code of the app: ")
    terminal.type("123456\r")
    assert terminal.end() == exits.OK
    assert len(desk.state["answers"]) == 5
    assert sum(call[:3] == ["create", "--raw", AUTHENTICATORS] for call in desk.state["calls"]) == 1


def test_slips_at_enrolment_are_bounded_and_the_secret_can_be_taken_up_again(desk: Desk) -> None:
    terminal = desk.at_terminal("enroll", "--ticket", "T1")
    for _ in range(8):
        terminal.wait_for("First code of the app: ")
        terminal.type("000000\r")
    assert terminal.end() == exits.WRONG_CODE
    assert "kubectl elevate enroll --resume" in terminal.shown
    assert desk.run("enroll", "--resume").returncode == exits.REFUSED
    desk.set(authenticators=[{"metadata": {"name": "totp-1"}, "status": {"phase": "Pending"}}])
    terminal = desk.at_terminal("enroll", "--resume")
    terminal.wait_for("First code of the app: ")
    terminal.type("123456\r")
    assert terminal.end() == exits.OK
    assert "code-9" in terminal.shown
    assert sum(call[:3] == ["create", "--raw", AUTHENTICATORS] for call in desk.state["calls"]) == 1
    assert desk.run("enroll", "--resume", "--ticket", "T2").returncode == exits.USAGE


def test_a_wait_of_an_hour_is_not_waited_for(desk: Desk) -> None:
    desk.set(refusals=[{"code": "too-many-attempts", "message": "too many wrong codes", "retryAfterSeconds": 3600}])
    terminal = desk.at_terminal("enroll", "--ticket", "T1")
    terminal.wait_for("First code of the app: ")
    terminal.type("000000\r")
    assert terminal.end() == exits.WRONG_CODE
    assert "too many wrong codes; the secret stays good" in terminal.shown


def test_enrolment_by_a_program(desk: Desk) -> None:
    desk.prints("123456")
    result = desk.run("enroll", "-o", "json")
    assert json.loads(result.stdout) == {"authenticator": "totp-1", "recoveryCodes": [f"code-{n}" for n in range(10)]}


def test_a_recovery_code_is_no_first_code(desk: Desk) -> None:
    desk.prints("i2vj-glvb-cmuv-zubv")
    assert desk.run("enroll").returncode == exits.USAGE


def test_status(desk: Desk) -> None:
    assert "Not enrolled" in desk.run("status").stdout
    authenticator = {
        "metadata": {"name": "totp-1"},
        "spec": {"type": "totp"},
        "status": {"phase": "Confirmed", "recoveryCodesLeft": 9},
    }
    desk.set(authenticators=[authenticator], elevationrequests=[LIVE, OVER])
    shown = desk.run("status").stdout
    assert "totp-1 (totp), 9 recovery codes left" in shown
    assert "1 elevation in force" in shown
    assert "elv-2" not in shown
    found = json.loads(desk.run("status", "-o", "json").stdout)
    assert (found["enrolled"], [one["metadata"]["name"] for one in found["elevations"]]) == (True, ["elv-1"])


def test_a_proof_that_is_used_up_is_not_in_force(desk: Desk) -> None:
    desk.set(elevationrequests=[USED_UP, HALF_USED])
    shown = desk.run("status").stdout
    assert "1 elevation in force" in shown
    assert "elv-3" not in shown
    assert "used up" in next(line for line in desk.run("list").stdout.splitlines() if "elv-3" in line)
    assert desk.run("revoke", "--all").stdout == "elv-4 revoked\n"


def test_list(desk: Desk) -> None:
    assert desk.run("list").stdout == "No elevations on record\n"
    desk.set(elevationrequests=[LIVE, OVER])
    shown = desk.run("list").stdout
    assert "delete deployments/web -n prod" in shown
    assert "elv-2" in shown
    assert len(json.loads(desk.run("list", "-o", "json").stdout)) == 2


def test_revoke(desk: Desk) -> None:
    assert desk.run("revoke").returncode == exits.USAGE
    desk.set(elevationrequests=[LIVE, OVER])
    assert desk.run("revoke", "--all").stdout == "elv-1 revoked\n"
    assert desk.run("revoke", "elv-9").stdout == "elv-9 revoked\n"
    assert desk.state["revoked"] == ["elv-1", "elv-9"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts_tell_how_kubectl_completes(desk: Desk, shell: str) -> None:
    shown = desk.run("completion", shell).stdout
    assert "_KUBECTL_ELEVATE_COMPLETE" in shown
    assert "kubectl_complete-elevate" in shown


def test_completion_of_an_unknown_shell(desk: Desk) -> None:
    assert desk.run("completion", "csh").returncode == exits.USAGE


def test_bash_completes(desk: Desk) -> None:
    desk.program("kubectl-elevate", f'#!/bin/sh\nexec "{sys.executable}" -m webhook.cli.elevate "$@"\n')
    (desk.folder / "completion").write_text(desk.run("completion", "bash").stdout)

    def completed(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in words)
        script = f""". {desk.folder}/completion; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}
            _kubectl_elevate_completion kubectl-elevate; printf '%s\\n' "${{COMPREPLY[@]}}\""""
        result = subprocess.run(
            ["bash", "-c", script], env=desk.environment, capture_output=True, text=True, check=True
        )
        assert result.stderr == ""
        return result.stdout.split()

    assert completed("kubectl-elevate", "re") == ["restart", "revoke"]
    assert "--reason" in completed("kubectl-elevate", "delete", "--re")
    assert completed("kubectl-elevate", "-n", "prod", "delete", "deploy/we") == [
        "deploy/web",
        "deploy/wet",
    ]
    assert ["__complete", "get", "-n", "prod", "deploy/we"] in desk.state["calls"]


def test_kubectls_own_completion_is_answered_in_its_form(desk: Desk) -> None:
    assert desk.run("__complete", "re").stdout == "restart\nrevoke\n:4\n"
    assert desk.run("__complete", "delete", "--context", "c", "deploy/w").stdout == "deploy/web\ndeploy/wet\n:4\n"
    assert desk.state["calls"][-1][0] == "--context=c"
    assert desk.run("__complete", "nothing-like-this").stdout == ":4\n"


def test_operators_commands(desk: Desk) -> None:
    result = stepup(desk, "ticket", "alice", "--ttl", "30m", "--kubectl=--context=c")
    assert (result.returncode, result.stdout) == (exits.OK, "T1\n")
    assert "kubectl elevate enroll --ticket T1" in result.stderr
    assert desk.state["answers"] == [{"username": "alice", "ttlSeconds": 1800}]
    assert desk.state["calls"][0][0] == "--context=c"
    assert stepup(desk, "unlock", "alice").stdout == "alice: cleared\n"
    assert stepup(desk, "reset", "alice").stdout == "alice: removed, 2 elevations revoked\n"
    assert stepup(desk, "revoke", "elv-1", "elv-2").stdout == "elv-1 revoked\nelv-2 revoked\n"
    assert stepup(desk, "revoke").returncode == exits.USAGE
    assert stepup(desk, "ticket", "alice", "--ttl", "soon").returncode == exits.USAGE


@pytest.mark.parametrize("flag", ["--contxt=c", "context=c", "--namespace=x"])
def test_a_flag_that_would_be_left_out_stops_an_operator(desk: Desk, flag: str) -> None:
    """Otherwise a slip of the finger resets somebody's authenticators in another cluster."""
    result = stepup(desk, "reset", "alice", f"--kubectl={flag}")
    assert result.returncode == exits.USAGE
    assert "calls" not in desk.state
