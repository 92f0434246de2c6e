"""`kubectl elevate -- COMMAND`: as if the command had been run by itself, but for the refusal."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.desk import SECONDS, Desk, Terminal
from webhook.cli import exits

REFUSE = """#!/bin/sh
echo run >> "$HOME/runs"
echo 'kube-stepup: delete deployments.apps/web in prod needs a step-up (aal2): no. Run:' >&2
echo '  kubectl elevate delete deployments.apps/web -n prod' >&2
"""


def runs(desk: Desk) -> int:
    return len((desk.folder / "runs").read_text().splitlines())


def test_one_proof_for_all_that_was_named_and_the_command_again(desk: Desk) -> None:
    desk.prints("123456")
    result = desk.run("--", "kubectl", "--context=c", "delete", "deploy/web", "deploy/api", "-n", "prod")
    assert result.returncode == exits.OK, result.stderr
    assert result.stdout == 'deployment.apps "web" deleted\ndeployment.apps "api" deleted\n'
    (details,) = desk.state["asked"]
    assert [one["objects"] for one in details] == [
        [{"name": "web", "uid": "uid-web"}],
        [{"name": "api", "uid": "uid-api"}],
    ]
    assert result.stderr == (
        "kube-stepup: delete deployments.apps/web in prod needs a step-up\n"
        "kube-stepup: delete deployments.apps/api in prod needs a step-up\n"
    )
    assert all(call[0] == "--context=c" for call in desk.state["calls"])


def test_a_refusal_that_is_not_solved_is_shown(desk: Desk) -> None:
    desk.prints("000000")
    result = desk.run("--", "kubectl", "delete", "deploy/web")
    assert result.returncode == exits.WRONG_CODE
    assert "  kubectl elevate delete deployments.apps/web -n default\n" in result.stderr


def test_a_command_that_fails_of_itself_is_run_once(desk: Desk) -> None:
    desk.prints("123456")
    command = desk.program("tool", '#!/bin/sh\necho run >> "$HOME/runs"\necho out\nprintf "no newline" >&2\nexit 9\n')
    result = desk.run("--", command)
    assert (result.returncode, result.stdout, result.stderr) == (9, "out\n", "no newline")
    assert runs(desk) == 1


def test_a_command_that_succeeds_is_not_asked_about(desk: Desk) -> None:
    command = desk.program("tool", REFUSE)
    result = desk.run("--", command)
    assert result.returncode == 0
    assert "needs a step-up (aal2)" in result.stderr
    assert runs(desk) == 1


def test_the_same_refusal_after_the_proof_ends_it(desk: Desk) -> None:
    desk.prints("123456")
    command = desk.program("tool", REFUSE + "exit 3\n")
    result = desk.run("--", command)
    assert result.returncode == 3
    assert "  kubectl elevate delete deployments.apps/web" in result.stderr
    assert runs(desk) == 2


def test_new_refusals_at_every_run_end_after_five_rounds(desk: Desk) -> None:
    desk.prints("123456")
    script = REFUSE.replace("deployments.apps/web", "deployments.apps/web-$n").replace("'", '"')
    command = desk.program(
        "tool",
        script.replace("echo 'kube", 'echo "kube').replace(
            "#!/bin/sh\n", '#!/bin/sh\nn=$(wc -l 2>/dev/null < "$HOME/runs")\n'
        )
        + "exit 4\n",
    )
    result = desk.run("--", command)
    assert result.returncode == 4
    assert runs(desk) == 6
    assert len(desk.state["asked"]) == 5
    assert "  kubectl elevate delete deployments.apps/web-5" in result.stderr, "the last refusal is shown"


def test_another_cluster_than_the_commands_is_noticed(desk: Desk) -> None:
    desk.prints("123456")
    desk.set(required=False)
    result = desk.run("--", desk.program("tool", REFUSE + "exit 3\n"))
    assert result.returncode == exits.REFUSED
    assert "--context" in result.stderr
    assert runs(desk) == 1


def test_a_stream_into_a_pod_can_only_ask_for_exec(desk: Desk) -> None:
    desk.prints("123456")
    desk.environment["KUBECTL_ELEVATE_KUBECTL"] = str(desk.programs / "real")
    (desk.programs / "kubectl").rename(desk.programs / "real")
    desk.program("kubectl", REFUSE + "exit 1\n")
    for words in (["exec"], ["-v", "6", "exec"]):
        assert desk.run("--", "kubectl", *words, "web", "--", "tool").returncode == 1
    assert "asked" not in desk.state


def test_an_unknown_command(desk: Desk) -> None:
    result = desk.run("--", "no-such-program")
    assert (result.returncode, "command not found" in result.stderr) == (127, True)
    assert desk.run("--").returncode == exits.USAGE


# -- standard input


def test_a_pipe_is_played_again(desk: Desk) -> None:
    desk.prints("123456")
    result = desk.run("--", "kubectl", "delete", "deploy/web", "-f", "-", text="x" * 200_000)
    assert result.returncode == exits.OK, result.stderr
    assert result.stdout.count("x" * 200_000) == 2


def test_a_file_is_wound_back_to_where_it_was(desk: Desk, tmp_path: Path) -> None:
    desk.prints("123456")
    file = tmp_path / "manifest"
    file.write_text("skipped|the rest")
    with file.open() as stdin:
        os.lseek(stdin.fileno(), len("skipped|"), os.SEEK_SET)
        result = desk.run("--", "kubectl", "delete", "deploy/web", "-f", "-", stdin=stdin)
    assert result.stdout.count("stdin='the rest'") == 2


def test_a_pipe_goes_on_live_where_it_had_got_to(desk: Desk) -> None:
    desk.prints("123456")
    script = (
        REFUSE + 'read one; echo "one=$one"; [ "$(wc -l < "$HOME/runs")" = 2 ] || exit 1\nread two; echo "two=$two"\n'
    )
    process = desk.start("--", desk.program("tool", script), stdin=subprocess.PIPE, bufsize=1)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("first\n")
    assert process.stdout.readline() == "one=first\n"
    assert process.stdout.readline() == "one=first\n"
    process.stdin.write("second\n")
    assert process.stdout.readline() == "two=second\n"
    process.stdin.close()
    assert process.wait(SECONDS) == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


def test_a_command_that_reads_nothing_ends_although_the_pipe_stays_open(desk: Desk) -> None:
    process = desk.start("--", "true", stdin=subprocess.PIPE)
    assert process.wait(SECONDS) == 0
    process.communicate()


def test_closed_input_is_closed_for_the_command(desk: Desk) -> None:
    script = f"{' '.join(desk.command('--'))} sh -c 'readlink /proc/self/fd/0 || echo closed' <&-"
    result = subprocess.run(["sh", "-c", script], env=desk.environment, capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("closed\n", 0)


def test_closed_error_output_changes_nothing_else(desk: Desk) -> None:
    script = f"{' '.join(desk.command('--'))} sh -c 'echo out; echo err >&2; exit 7' 2>&-"
    result = subprocess.run(["sh", "-c", script], env=desk.environment, capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("out\n", 7)


# -- error output


def test_error_output_passes_at_once_also_without_a_newline(desk: Desk) -> None:
    process = desk.start(
        "--", "sh", "-c", "printf 'Password: ' >&2; read x; printf 'Error' >&2; read x", stdin=subprocess.PIPE
    )
    assert process.stderr is not None
    assert os.read(process.stderr.fileno(), 100) == b"Password: "
    process.stdin.write("\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]
    assert os.read(process.stderr.fileno(), 100) == b"Error"
    process.communicate("\n", timeout=SECONDS)


def test_a_line_without_end_does_not_stay_in_memory(desk: Desk) -> None:
    script = "printf error >&2; head -c 30000000 /dev/zero | tr '\\0' x >&2"
    started = time.monotonic()
    result = desk.run("--", "sh", "-c", script)
    assert len(result.stderr) == 30_000_005
    assert time.monotonic() - started < 10


def test_bytes_are_passed_unchanged(desk: Desk) -> None:
    result = subprocess.run(
        desk.command("--", "sh", "-c", r"printf '\377\000\r\n\033[1m' >&2"),
        env=desk.environment,
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    assert result.stderr == b"\xff\x00\r\n\x1b[1m"


# -- the terminal


def test_the_command_has_a_terminal_where_we_have_one(desk: Desk) -> None:
    terminal = desk.at_terminal(
        "--", "sh", "-c", "for n in 0 1 2; do test -t $n && echo terminal $n; done; echo red >&2"
    )
    assert terminal.end() == 0
    assert "terminal 0\nterminal 1\nterminal 2\n" in terminal.shown
    assert "red\n" in terminal.shown


def test_a_refused_command_at_the_terminal(desk: Desk) -> None:
    terminal = desk.at_terminal("--", "kubectl", "delete", "deploy/web")
    terminal.wait_for("needs a step-up")
    terminal.wait_for("Code: ")
    terminal.type("123456\r")
    assert terminal.end() == 0
    assert 'deployment.apps "web" deleted' in terminal.shown
    assert "Forbidden" not in terminal.shown


def test_the_command_reads_what_is_typed(desk: Desk) -> None:
    terminal = desk.at_terminal("--", "sh", "-c", 'read line; echo "got $line"')
    terminal.type("hello\r")
    terminal.wait_for("got hello")
    assert terminal.end() == 0


def test_ctrl_c_goes_to_the_command(desk: Desk) -> None:
    terminal = desk.at_terminal(
        "--", "sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    )
    terminal.wait_for("ready")
    terminal.type("\x03")
    terminal.wait_for("caught")
    assert terminal.end() == 5


def test_ctrl_c_after_a_refusal_asks_nothing(desk: Desk) -> None:
    terminal = desk.at_terminal("--", desk.program("tool", REFUSE + "echo ready; sleep 20; exit 1\n"))
    terminal.wait_for("ready")
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert "Code" not in terminal.shown
    assert runs(desk) == 1


def test_ctrl_z_stops_both_and_both_go_on(desk: Desk) -> None:
    terminal = Terminal(["bash", "--norc", "-i"], desk.environment | {"PS1": "$ "})
    command = " ".join(desk.command("--"))
    terminal.type(f"{command} sh -c 'echo rea''dy; read x; echo do''ne'\r")
    terminal.wait_for("ready")
    terminal.type("\x1a")
    terminal.wait_for("Stopped")
    terminal.type("fg; echo code=$?\r")
    terminal.wait_for("\n")
    time.sleep(0.3)
    terminal.type("\r")
    terminal.wait_for("done")
    terminal.wait_for("code=0")
    terminal.type("exit\r")
    assert terminal.end() == 0


# -- exit codes and signals


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_exit_code_is_the_commands(desk: Desk, script: str, code: int) -> None:
    assert desk.run("--", "sh", "-c", script).returncode == code


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT]
)
def test_a_signal_for_us_alone_is_passed_on(
    signalled: Callable[[str, signal.Signals], tuple[int, str]], number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    code, output = signalled(f"trap 'echo caught; exit 5' {name}; echo ready; while :; do sleep 0.1; done", number)
    assert (code, output) == (5, "caught\n")


def test_a_signal_that_ends_the_command_is_in_our_exit_code(
    signalled: Callable[[str, signal.Signals], tuple[int, str]],
) -> None:
    assert signalled("echo ready; exec sleep 20", signal.SIGTERM)[0] == 143


def test_a_signal_that_is_ignored_stays_ignored(desk: Desk) -> None:
    process = desk.start(
        "--",
        "sh",
        "-c",
        "echo ready; sleep 1; echo survived",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGHUP)
    output, _ = process.communicate(timeout=SECONDS)
    assert (process.returncode, output) == (0, "survived\n")
