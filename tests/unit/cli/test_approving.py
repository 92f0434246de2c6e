"""A second person agrees: what they are shown, and what the first one sees while they wait."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.desk import Desk
from webhook.cli import exits
from webhook.cli.refusals import Refusals

AWAITING = {"phase": "AwaitingApproval"}
GRANTED = {"phase": "Granted", "expiresAt": "2026-11-24T12:00:00Z"}
REQUEST: dict[str, Any] = {
    "metadata": {"name": "elv-2", "creationTimestamp": "2026-11-24T12:00:00Z"},
    "spec": {
        "requester": {"username": "alice\x1b[2J", "clientAddress": "203.0.113.7"},
        "reason": "OPS-7",
        "operations": [
            {"operation": "scale", "target": "deployments.apps/web in prod", "change": "replicas 3 → 0"},
            {"operation": "delete", "target": "deployments.apps/db in prod"},
        ],
    },
    "status": {
        "phase": "AwaitingApproval",
        "seen": "S33N",
        "expiresAt": "2026-11-24T13:00:00Z",
        "approvals": [{"policy": "production", "rule": "all", "count": 2, "groups": ["sre"], "given": ["carol"]}],
    },
}


class TestTheOneWhoAsks:
    def test_waits_and_goes_on_by_itself(self, desk: Desk) -> None:
        desk.prints("123456")
        desk.set(approvers=[AWAITING, GRANTED])
        result = desk.run("delete", "deploy/web", "-n", "prod")
        assert result.returncode == exits.OK
        assert "elv-1 waits for 1 approval" in result.stderr
        assert "stepped up until 2026-11-24T12:00:00Z" in result.stderr
        assert desk.state["looks"] == 2

    def test_is_told_who_denied_it_and_why(self, desk: Desk) -> None:
        desk.prints("123456")
        desk.set(approvers=[{"phase": "Denied", "deniedBy": "bob", "message": "not on a Friday"}])
        result = desk.run("delete", "deploy/web", "-n", "prod")
        assert result.returncode == exits.REFUSED
        assert "elv-1 was denied by bob: not on a Friday" in result.stderr

    @pytest.mark.parametrize(("phase", "text"), [("Expired", "has lapsed"), ("Revoked", "was withdrawn")])
    def test_is_told_how_else_it_ended(self, desk: Desk, phase: str, text: str) -> None:
        desk.prints("123456")
        desk.set(approvers=[{"phase": phase}])
        result = desk.run("delete", "deploy/web", "-n", "prod")
        assert (result.returncode, text in result.stderr) == (exits.REFUSED, True)

    def test_ctrl_c_leaves_it_open_and_says_how_to_go_on(self, desk: Desk) -> None:
        desk.set(approvers=[AWAITING])
        terminal = desk.at_terminal("delete", "deploy/web", "-n", "prod")
        terminal.wait_for("Code: ")
        terminal.type("123456\r")
        terminal.wait_for("Ctrl-C leaves it open")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == exits.INTERRUPTED
        assert "elv-1 stays open; the same command goes on with it" in terminal.shown
        assert "kubectl elevate withdraw elv-1" in terminal.shown
        assert "revoked" not in desk.state

    def test_gives_a_fresh_code_where_the_first_is_too_old_by_then(self, desk: Desk) -> None:
        desk.set(approvers=[{"phase": "Approved"}, GRANTED])
        terminal = desk.at_terminal("delete", "deploy/web", "-n", "prod")
        for _ in range(2):
            terminal.wait_for("Code: ")
            terminal.type("123456\r")
        assert terminal.end() == exits.OK
        assert "your own proof is too old by now" in terminal.shown

    def test_withdraws(self, desk: Desk) -> None:
        assert desk.run("withdraw", "elv-1").stdout == "elv-1 withdrawn\n"
        assert desk.state["revoked"] == ["elv-1"]


class TestTheOneWhoAgrees:
    def test_sees_everything_before_a_code_is_asked_for(self, desk: Desk) -> None:
        desk.set(approvalrequest=REQUEST)
        terminal = desk.at_terminal("approve", "elv-2", "--reason", "looked at it")
        terminal.wait_for("Code: ")
        for text in (
            "alice\N{REPLACEMENT CHARACTER}[2J from 203.0.113.7",
            "scale deployments.apps/web in prod: replicas 3 → 0",
            "delete deployments.apps/db in prod",
            "reason: OPS-7",
            "policy production, rule all: 2 approval(s) of sre; given by carol",
        ):
            assert text in terminal.shown
        terminal.type("123456\r")
        assert terminal.end() == exits.OK
        assert "elv-2 approved and granted" in terminal.shown
        answer = {"factor": "totp", "code": "123456", "seen": "S33N", "reason": "looked at it"}
        assert desk.state["answers"] == [answer]

    def test_lists(self, desk: Desk) -> None:
        assert desk.run("approvals").stdout == "Nothing waits for your approval\n"
        desk.set(approvalrequests=[REQUEST])
        shown = desk.run("approvals").stdout
        assert "scale deployments.apps/web in prod replicas 3 → 0; delete deployments.apps/db in prod" in shown
        assert json.loads(desk.run("approvals", "-o", "json").stdout)[0]["metadata"]["name"] == "elv-2"

    def test_denies_without_a_code(self, desk: Desk) -> None:
        assert desk.run("deny", "elv-2", "--reason", "no").stdout == "elv-2 denied\n"
        assert desk.state["answers"] == [{"reason": "no"}]

    @pytest.mark.parametrize("command", ["approve", "deny", "withdraw"])
    def test_a_name_is_a_name(self, desk: Desk, command: str) -> None:
        assert desk.run(command, "../pods").returncode == exits.USAGE


class TestWords:
    LINE = (
        "  kubectl elevate scale,deploy deployments.apps/web -n prod --change 0123456789abcdef,fedcba9876543210"
        " --shows 'replicas 3 → 0' --shows 'image c: a → b' --reason '…'\n"
    )
    HEAD = (
        'Error from server ({}): admission webhook "guarded.kube-stepup.io" denied the request: kube-stepup: scale and'
        " deploy deployments.apps/web in prod needs a step-up (aal2): you have not stepped up. Run:\n"
    )

    @pytest.mark.parametrize("reason", ["Forbidden", "TooManyRequests"])
    def test_are_taken_from_a_refusal_and_from_a_hold_that_ran_out(self, reason: str) -> None:
        found = Refusals(lambda _: None)
        for line in (self.HEAD.format(reason), self.LINE):
            found.line(line.encode())
        (one,) = found.wanted
        assert one.shows == ("replicas 3 → 0", "image c: a → b")

    def test_are_sent_beside_their_digests(self, desk: Desk) -> None:
        desk.prints("123456")
        desk.run(
            "scale,restart", "deploy/web", "-n", "prod", "--change", "0123456789abcdef,-", "--shows", "replicas 3 → 0"
        )
        scale, restart = desk.state["asked"][0]
        assert scale["objects"][0]["change"] == "replicas 3 → 0"
        assert "change" not in restart["objects"][0]

    def test_need_as_many_digests(self, desk: Desk) -> None:
        words = ("--change", "0123456789abcdef", "--shows", "a", "--shows", "b")
        assert desk.run("scale", "deploy/web", "-n", "prod", *words).returncode == exits.USAGE
