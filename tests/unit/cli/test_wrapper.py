"""`kubectl elevate -- COMMAND`: as if the command had been run by itself, but for the refusal."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.desk import SECONDS, Desk, Terminal
from webhook.cli import exits
from webhook.cli.replay import MOST_BYTES, Input

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
        "kube-stepup: delete deployments.apps/web in prod (policy production)\n"
        "kube-stepup: delete deployments.apps/api in prod (policy production)\n"
    )
    assert all(call[0] == "--context=c" for call in desk.state["calls"])


def test_a_refusal_that_is_not_solved_is_shown(desk: Desk) -> None:
    desk.prints("000000")
    result = desk.run("--", "kubectl", "delete", "deploy/web")
    assert result.returncode == exits.WRONG_CODE
    assert "  kubectl elevate delete deployments.apps/web -n dev\n" in result.stderr


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


# -- what others print through the command


STREAM = "error: unable to upgrade connection: "


def refuse(operation: str, target: str, namespace: str, before: str = "Error from server (Forbidden): ") -> str:
    """A refusal, exactly as the real kubectl prints it."""
    return (
        f'{before}admission webhook "guarded.kube-stepup.io" denied the request: '
        f"kube-stepup: {operation} {target} in {namespace} needs a step-up (aal2, at most 5m old, policy production): "
        f"you have not stepped up. Run:\n  kubectl elevate {operation} {target} -n {namespace}\n"
    )


def relaying(desk: Desk, printed: str, code: int = 1) -> None:
    """A kubectl that prints to its error output, and asks the cluster as before when `kubectl elevate` itself calls it."""
    (desk.folder / "printed").write_text(printed)
    (desk.programs / "kubectl").rename(desk.programs / "real")
    desk.environment["KUBECTL_ELEVATE_KUBECTL"] = str(desk.programs / "real")
    text = f'#!/bin/sh\necho run >> "$HOME/runs"\ncat "$HOME/printed" >&2\nexit {code}\n'
    desk.program("kubectl", text)
    desk.program("oc", text)


EXEC = refuse("exec", "pods/web-1", "prod", STREAM)


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("kubectl exec web-1 -n prod -- tool", EXEC),
        ("kubectl exec -it deploy/web -c main -n prod -- sh", EXEC),
        ("kubectl -n prod exec pod/web-1 -- tool", 'Defaulted container "a" out of: a, b\n' + EXEC),
        ("kubectl attach web-1 --namespace=prod", EXEC),
        ("kubectl cp ./x prod/web-1:/x", EXEC),
        (
            "kubectl port-forward svc/web 8080:80 -n prod",
            refuse("exec", "pods/web-1", "prod", f"error: error upgrading connection: {STREAM[7:]}"),
        ),
        ("kubectl run web-1 --image=i -n prod -it --rm -- sh", refuse("deploy", "pods/web-1", "prod")),
        ("kubectl debug web-1 -n prod --image=i", EXEC),
        ("kubectl debug web-1 -n prod --copy-to=web-2", refuse("deploy", "pods/web-2", "prod")),
        ("kubectl debug node/n1 -n prod --image=i", refuse("exec", "pods/node-debugger-n1-x7k2p", "prod")),
        ("oc rsh -n prod web-1", EXEC),
    ],
)
def test_a_refusal_of_what_was_typed_is_acted_on(desk: Desk, command: str, printed: str) -> None:
    desk.prints("123456")
    relaying(desk, printed)
    result = desk.run("--", *command.split())
    assert len(desk.state.get("asked", [])) == 1, result.stderr
    assert runs(desk) == 2


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("kubectl exec web-1 -n prod -- tool", refuse("delete", "secrets/root", "prod")),
        ("kubectl exec web-1 -n prod -- tool", refuse("exec", "pods/db-0", "prod", STREAM)),
        ("kubectl exec web-1 -n prod -- tool", refuse("exec", "pods/web-1", "kube-system", STREAM)),
        ("kubectl exec web-1 -n prod -- tool", EXEC + "command terminated with exit code 1\n"),
        ("kubectl exec web-1 -n prod -- tool", EXEC + "half a line"),
        ("kubectl exec web-1 -n prod -- tool", EXEC + "error: it said: " + EXEC.partition("\n")[0] + "' and failed\n"),
        ("kubectl exec web-1 -n prod -- tool", EXEC.replace("\n", "\\n", 1)),
        ("kubectl exec web-1 -n prod -- tool", EXEC.replace("error: ", "")),
        (
            "kubectl exec web-1 -n prod -- tool",
            EXEC.replace("kubectl elevate exec pods", "kubectl elevate exec secrets"),
        ),
        ("kubectl -v 6 exec web-1 -n prod -- tool", refuse("delete", "deployments.apps/web", "prod")),
        ("timeout 9 kubectl exec web-1 -n prod -- tool", refuse("scale", "deployments.apps/web", "prod")),
        ("kubectl attach web-1 -n prod", refuse("delete", "pods/web-1", "prod")),
        ("kubectl logs web-1 -n prod", EXEC),
        ("kubectl get pods -n prod", EXEC),
        ("kubectl cp prod/web-1:/x .", refuse("exec", "pods/web-1", "staging")),
        ("kubectl run web-1 --image=i -n prod -i --rm -- tool", refuse("delete", "deployments.apps/web", "prod")),
        ("kubectl run web-1 --image=i -n prod -i --rm -- tool", refuse("delete", "pods/web-2", "prod")),
        ("kubectl debug web-1 -n prod --image=i", refuse("deploy", "pods/db-0", "prod")),
        ("kubectl debug node/n1 -n prod --image=i", refuse("exec", "pods/web-1", "prod")),
        ("oc rsh -n prod web-1", refuse("access", "rolebindings.rbac.authorization.k8s.io/me", "prod")),
        ("kubectl tail web -n prod", refuse("delete", "deployments.apps/web", "staging")),
        ("kubectl tail web -n prod", refuse("delete", "deployments.apps/web", "prod") + "and on it goes\n"),
        ("kubectl delete deploy/web -n prod", refuse("delete", "deployments.apps/web", "kube-system")),
        ("kubectl delete deploy/web -n prod", refuse("delete", "secrets/web", "prod")),
        ("kubectl delete deploy/web -n prod", refuse("delete", "deployments.apps/api", "prod")),
        ("helm test shop -n prod --logs", refuse("delete", "secrets/root", "prod") + "Error: 1 error occurred\n"),
    ],
)
def test_a_refusal_of_something_else_is_told_and_not_acted_on(desk: Desk, command: str, printed: str) -> None:
    """A program in a container, or who wrote the logs, prints what it likes."""
    desk.prints("123456")
    relaying(desk, printed)
    desk.program("helm", (desk.programs / "kubectl").read_text())
    result = desk.run("--", *command.split())
    assert result.returncode == 1
    assert printed.strip() in result.stderr, "what the command printed is shown all the same"
    assert "which is not acted on: " in result.stderr
    assert "asked" not in desk.state
    assert runs(desk) == 1


def test_helm_whose_own_record_is_guarded_is_not_led_into_a_half(desk: Desk) -> None:
    """It would be left pending, and helm would refuse to go on."""
    desk.prints("123456")
    record = refuse("guard", "secrets/sh.helm.release.v1.shop.v2", "kube-stepup", "Error: UPGRADE FAILED: create: ")
    (desk.folder / "printed").write_text(record)
    desk.program("helm", '#!/bin/sh\necho run >> "$HOME/runs"\ncat "$HOME/printed" >&2\nexit 1\n')
    result = desk.run("--", "helm", "upgrade", "shop", "./chart", "-n", "kube-stepup")
    assert result.returncode == 1
    assert result.stderr.startswith(record)
    assert "kubectl elevate guard -f FILE secret/RECORD" in result.stderr
    assert "asked" not in desk.state
    assert runs(desk) == 1


def test_a_debugging_pod_that_gets_another_name_at_each_try_is_asked_for_by_its_kind(desk: Desk) -> None:
    desk.prints("123456")
    relaying(desk, refuse("deploy", "pods/node-debugger-n1-x7k2p", "prod"))
    desk.run("--", "kubectl", "debug", "node/n1", "-n", "prod", "--image=i")
    (details,) = desk.state["asked"]
    assert [(one["scope"], one["resource"], one["namespace"]) for one in details] == [("Resource", "pods", "prod")]


def test_only_the_very_last_refusal_of_a_stream_counts(desk: Desk) -> None:
    desk.prints("123456")
    relaying(desk, refuse("exec", "pods/web-1", "dev") + EXEC)
    result = desk.run("--", "kubectl", "exec", "deploy/web", "-n", "prod", "--", "tool")
    (details,) = desk.state["asked"]
    assert [(one["namespace"], one["objects"]) for one in details] == [("prod", [{"name": "web-1"}])], result.stderr


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


def test_a_pipe_that_is_too_long_passes_once_and_the_person_runs_it_again(desk: Desk) -> None:
    desk.prints("123456")
    desk.environment |= {"TMPDIR": str(desk.folder / "tmp")}
    (desk.folder / "tmp").mkdir()
    command = desk.program("tool", REFUSE + "wc -c\nexit 3\n")
    result = desk.run("--", command, text="x" * (MOST_BYTES + 1))
    assert (result.returncode, result.stdout.strip()) == (3, str(MOST_BYTES + 1))
    assert runs(desk) == 1
    assert len(desk.state["asked"]) == 1, "the step-up is done, so that it passes when the person runs it again"
    assert result.stderr.endswith("run it once more yourself, it passes now\n")
    assert list((desk.folder / "tmp").iterdir()) == []


def test_what_is_kept_of_a_pipe_has_no_name_on_the_disk(desk: Desk) -> None:
    """So nothing is left of it, however the program ends."""
    desk.environment |= {"TMPDIR": str(desk.folder / "tmp")}
    (desk.folder / "tmp").mkdir()
    process = desk.start("--", "sh", "-c", "head -c 8000000 >/dev/null; echo ready; sleep 20", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("x" * 8_000_000)
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    open_files = [str(one.readlink()) for one in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert any(str(desk.folder / "tmp") in one and one.endswith("(deleted)") for one in open_files), open_files
    assert list((desk.folder / "tmp").iterdir()) == []
    process.kill()
    process.communicate()


def test_a_disk_that_is_full_cuts_nothing_off(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    source = Input(read_end)
    source.close()

    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    source._kept = Full()
    command = source.open()
    assert command is not None
    os.write(write_end, b"all of it")
    os.close(write_end)
    with os.fdopen(command, "rb") as stdin:
        assert stdin.read() == b"all of it"
    source.close()
    os.close(read_end)
    assert not source.can_be_replayed


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


def test_what_goes_on_in_the_background_is_not_waited_for(desk: Desk) -> None:
    """It holds our end of the error output open, and never falls silent."""
    script = "(while :; do echo noise; sleep 0.01; done) >&2 & echo $!; exit 6"
    process = desk.start("--", "sh", "-c", script)
    assert process.stdout is not None
    background = int(process.stdout.readline())
    try:
        assert process.wait(SECONDS) == 6
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(background, signal.SIGKILL)
        process.communicate()


def test_the_last_words_before_the_end_are_heard(desk: Desk) -> None:
    script = "sleep 3 & head -c 200000 /dev/zero | tr '\\0' x >&2; echo last >&2; exit 6"
    result = desk.run("--", "sh", "-c", script)
    assert (result.returncode, len(result.stderr)) == (6, 200_005)


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
    terminal.wait_for("delete deployments.apps/web in dev (policy production)")
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
    terminal = desk.at_terminal("--", desk.program("tool", REFUSE + "echo ready; exec sleep 20\n"))
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
