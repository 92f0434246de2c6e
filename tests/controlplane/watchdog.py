"""Kills what a parent left behind: run as a program, reads `+PID` and `-PID` lines until its input ends.

The kernel closes the pipe however the parent dies, SIGKILL included, which no `finally` and no signal handler can
promise. (PR_SET_PDEATHSIG would not do: it fires when the *thread* that started the child ends.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

GRACE_SECONDS = 1.0  # enough to remove sockets and the like; nothing here is worth a graceful end
POLL_SECONDS = 0.05


def read_groups(lines: Iterable[str]) -> set[int]:
    """The process groups that are still to be killed when the input ends."""
    groups: set[int] = set()
    for line in lines:
        sign, number = line[:1], line[1:].strip()
        if sign == "+":
            groups.add(int(number))
        elif sign == "-":
            groups.discard(int(number))
    return groups


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group (0 only asks). Says whether the group still exists."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def descendants(pid: int) -> set[int]:
    """Everything below a process, also what made a session of its own (as a command that kwok runs for an exec)."""
    parents = {int(stat.parent.name): _parent(stat) for stat in Path("/proc").glob("[0-9]*/stat")}
    found: set[int] = set()
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown} - found
        found |= grown
    return found


def _parent(stat: Path) -> int:
    """The fourth field of proc(5)'s stat; the second, a name in brackets, may hold anything."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0  # it ended while we looked


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL for each that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_groups(groups: set[int]) -> None:
    """SIGTERM, then SIGKILL for those that do not go."""
    families = set().union(*(descendants(group) for group in groups))
    alive = {group for group in groups if signal_group(group, signal.SIGTERM)}
    deadline = time.monotonic() + GRACE_SECONDS
    while alive and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        alive = {group for group in alive if signal_group(group, 0)}
    for group in alive:
        signal_group(group, signal.SIGKILL)
    kill_all(families)


def main() -> None:
    """Wait for the parent to end, then clean up the process groups and the folder it named."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C is meant for the parent, which still needs us
    kill_groups(read_groups(sys.stdin))
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
