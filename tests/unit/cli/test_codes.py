"""Asking for a code: at the terminal, of a program, wrong ones, none."""

from __future__ import annotations

import signal
import time

import pytest

from tests.desk import Desk
from webhook.cli import exits
from webhook.cli.prompt import factor_of


def answers(desk: Desk) -> list[str]:
    return [one["code"] for one in desk.state.get("answers", [])]


def test_at_the_terminal_it_shows_as_bullets(desk: Desk) -> None:
    terminal = desk.at_terminal("delete", "deploy/web")
    terminal.wait_for("Code: ")
    terminal.type("123456\r")
    assert terminal.end() == exits.OK
    assert "••••••" in terminal.shown
    assert "123456" not in terminal.shown


def test_a_wrong_code_is_asked_for_again(desk: Desk) -> None:
    terminal = desk.at_terminal("delete", "deploy/web")
    terminal.wait_for("Code: ")
    terminal.type("000000\r")
    terminal.wait_for("that code is wrong")
    terminal.wait_for("Code: ")
    terminal.type("123456\r")
    assert terminal.end() == exits.OK
    assert answers(desk) == ["000000", "123456"]


def test_three_wrong_codes_are_enough(desk: Desk) -> None:
    terminal = desk.at_terminal("delete", "deploy/web")
    for code in ("000001", "000002", "000003"):
        terminal.wait_for("Code: ")
        terminal.type(f"{code}\r")
    assert terminal.end() == exits.WRONG_CODE
    assert len(answers(desk)) == 3


def test_what_can_be_no_code_is_not_tried(desk: Desk) -> None:
    """An empty line or a slip of the finger must not count as a wrong code."""
    desk.set(codes=["123 456"])
    terminal = desk.at_terminal("delete", "deploy/web")
    for typed in ("", "hello!", "12345"):
        terminal.wait_for("Code: ")
        terminal.type(f"{typed}\r")
        terminal.wait_for("that is not the digits")
    terminal.wait_for("Code: ")
    terminal.type("123 456\r")
    assert terminal.end() == exits.OK
    assert answers(desk) == ["123 456"]


def test_rubbing_out(desk: Desk) -> None:
    terminal = desk.at_terminal("delete", "deploy/web")
    terminal.wait_for("Code: ")
    terminal.type("999\x15ü\x7f12345\x7f56\r")
    assert terminal.end() == exits.OK
    assert answers(desk) == ["123456"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("arguments", [("delete", "deploy/web"), ("--", "kubectl", "delete", "deploy/web")])
def test_a_signal_at_the_prompt_puts_the_terminal_right(
    desk: Desk, number: signal.Signals, arguments: tuple[str, ...]
) -> None:
    terminal = desk.at_terminal(*arguments)
    terminal.wait_for("Code: ")
    assert not terminal.has_echo()
    terminal.process.send_signal(number)
    terminal.wait_for(f"ended by {number.name}")
    assert terminal.has_echo()
    assert terminal.end() == 128 + number
    assert answers(desk) == []


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_giving_up_puts_the_terminal_right(desk: Desk, key: str) -> None:
    terminal = desk.at_terminal("delete", "deploy/web")
    terminal.wait_for("Code: ")
    assert not terminal.has_echo()
    terminal.type(key)
    terminal.wait_for("given up")
    assert terminal.has_echo()
    assert terminal.end() == exits.INTERRUPTED
    assert answers(desk) == []


def test_a_short_wait_is_waited(desk: Desk) -> None:
    desk.set(refusals=[{"code": "too-many-attempts", "message": "wait 1 s", "retryAfterSeconds": 1}])
    terminal = desk.at_terminal("delete", "deploy/web")
    terminal.wait_for("Code: ")
    terminal.type("000000\r")
    terminal.wait_for("wait 1 s")
    said = time.monotonic()
    terminal.wait_for("Code: ")
    assert time.monotonic() - said > 0.8
    terminal.type("123456\r")
    assert terminal.end() == exits.OK


def test_a_long_wait_is_not(desk: Desk) -> None:
    desk.set(refusals=[{"code": "too-many-attempts", "message": "wait 300 s", "retryAfterSeconds": 300}])
    terminal = desk.at_terminal("delete", "deploy/web")
    terminal.wait_for("Code: ")
    terminal.type("000000\r")
    assert terminal.end() == exits.WRONG_CODE


def test_a_recovery_code_at_the_same_prompt(desk: Desk) -> None:
    desk.set(codes=["i2vj-glvb-cmuv-zubv"])
    desk.prints("i2vj-glvb-cmuv-zubv")
    assert desk.run("delete", "deploy/web").returncode == exits.OK
    assert desk.state["answers"][0]["factor"] == "recovery-code"


@pytest.mark.parametrize(
    ("code", "factor"),
    [
        ("123456", "totp"),
        ("123 456", "totp"),
        ("12345678", "totp"),
        ("i2vj-glvb-cmuv-zubv", "recovery-code"),
        ("I2VJ GLVB CMUV ZUBV", "recovery-code"),
        ("", ""),
        ("12345", ""),
        ("abcdef", ""),
        ("١٢٣٤٥٦", ""),
    ],
)
def test_a_factor_by_the_looks_of_its_code(code: str, factor: str) -> None:
    assert factor_of(code) == factor


def test_without_a_terminal_the_way_out_is_told(desk: Desk) -> None:
    result = desk.run("delete", "deploy/web")
    assert result.returncode == exits.USAGE
    assert "KUBECTL_ELEVATE_CODE_COMMAND" in result.stderr


def test_a_program_that_is_wrong_is_asked_once(desk: Desk) -> None:
    desk.prints("000000")
    assert desk.run("delete", "deploy/web").returncode == exits.WRONG_CODE
    assert answers(desk) == ["000000"]


@pytest.mark.parametrize("command", ["false", "true", "/nowhere", "'", "echo hello"])
def test_a_program_that_gives_no_code(desk: Desk, command: str) -> None:
    desk.environment["KUBECTL_ELEVATE_CODE_COMMAND"] = command
    result = desk.run("delete", "deploy/web")
    assert result.returncode == exits.USAGE
    assert answers(desk) == []
    assert "hello" not in result.stderr.replace("echo hello", "")


def test_a_program_can_talk_to_the_person_and_leaves_our_input_alone(desk: Desk) -> None:
    tool = desk.program("tool", "#!/bin/sh\necho 'Touch your key' >&2\ncat\necho 123456\n")
    desk.environment["KUBECTL_ELEVATE_CODE_COMMAND"] = tool
    result = desk.run("--", "kubectl", "delete", "deploy/web", "-f", "-", text="manifest")
    assert result.returncode == exits.OK, result.stderr
    assert "Touch your key" in result.stderr
    assert "stdin='manifest'" in result.stdout


def test_a_reason_that_is_demanded_is_asked_for(desk: Desk) -> None:
    desk.set(reason=True)
    terminal = desk.at_terminal("delete", "deploy/web", "--reason", "…")
    terminal.wait_for("asks for a reason")
    terminal.wait_for("Reason: ")
    terminal.type("OPS-7\r")
    terminal.wait_for("Code: ")
    terminal.type("123456\r")
    assert terminal.end() == exits.OK
    assert "OPS-7" in terminal.shown


def test_a_reason_that_is_demanded_where_nobody_can_be_asked(desk: Desk) -> None:
    desk.prints("123456")
    desk.set(reason=True)
    result = desk.run("delete", "deploy/web")
    assert (result.returncode, "--reason" in result.stderr) == (exits.REFUSED, True)
