"""The watchdog of the control plane: what it kills when its parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.controlplane import watchdog
from tests.controlplane.process import ControlPlaneError, Program, Watchdog


def exists(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """Wait for a process to end."""
    deadline = time.monotonic() + 10
    while exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not exists(pid)


def test_it_remembers_the_groups_that_were_added_and_not_removed() -> None:
    assert watchdog.read_groups(["+1\n", "+22\n", "-1\n", "\n"]) == {22}


@pytest.mark.parametrize("command", [["sleep", "600"], ["sh", "-c", "trap '' TERM; sleep 600 & wait"]])
def test_closing_it_kills_the_group_even_if_it_ignores_sigterm(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen(command, start_new_session=True)
    guard = Watchdog(None)
    guard.add(child.pid)
    guard.close()
    assert child.wait(1) < 0


def test_a_group_that_was_removed_is_left_alone() -> None:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    guard = Watchdog(None)
    guard.add(child.pid)
    guard.remove(child.pid)
    guard.close()
    assert child.poll() is None
    child.kill()
    child.wait()


def test_a_process_in_a_session_of_its_own_below_a_program_dies_too(tmp_path: Path) -> None:
    guard = Watchdog(None)
    program = Program("shell", ["sh", "-c", "setsid sleep 600 & echo $!; wait"], tmp_path, {"PATH": "/usr/bin:/bin"})
    program.start(guard)
    while not program.log.read_text().strip():
        time.sleep(0.02)
    family = watchdog.descendants(program.pid)
    assert family
    program.stop(guard)
    guard.close()
    assert all(gone(pid) for pid in family)


PARENT = """
import subprocess, sys, time
from pathlib import Path
from tests.controlplane.process import Watchdog
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
guard = Watchdog(Path(sys.argv[1]))
guard.add(child.pid)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    repository = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(parent.pid, number)
        parent.wait()
    assert gone(child)
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()


def test_a_program_that_has_ended_shows_the_end_of_its_log(tmp_path: Path) -> None:
    guard = Watchdog(None)
    program = Program("short", ["sh", "-c", "echo out of luck; exit 1"], tmp_path, {"PATH": "/usr/bin:/bin"})
    program.start(guard)
    deadline = time.monotonic() + 10
    while program.running and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ControlPlaneError, match=r"short is not running\n[^\n]*\nout of luck"):
        _ = program.pid
    program.stop(guard)
    guard.close()
