"""Starts and stops the programs, each in a process group of its own, and never leaves one behind."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.controlplane import watchdog

STOP_SECONDS = 5.0  # then SIGKILL: kube-apiserver would wait a minute for the watches of its clients
TAIL_BYTES = 4000  # of a log, in an error message
# Below Linux' range for outgoing connections (32768 up), which would take a port between choosing and using it.
PORTS = range(20000, 32000)


class ControlPlaneError(Exception):
    """The control plane does not do what it should; the message has the end of the log in question."""


class Watchdog:
    """The process of `watchdog.py`, which cleans up after us if we cannot."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is removed when we die without having called `close`."""
        command = [sys.executable, "-I", watchdog.__file__, *([str(folder)] if folder else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def add(self, pid: int) -> None:
        """From now on the process group `pid` dies with us."""
        self._write(f"+{pid}\n")

    def remove(self, pid: int) -> None:
        """The group has ended: its number may soon belong to somebody else."""
        self._write(f"-{pid}\n")

    def close(self) -> None:
        """Let it clean up and end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        if self._process.stdin is None:
            raise ControlPlaneError("the watchdog has no input")
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


class Program:
    """One program of the control plane, which can be started again after it was stopped."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.command = list(command)
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def crashed(self) -> bool:
        """Whether it has ended without having been stopped."""
        return self._process is not None and not self.running

    @property
    def pid(self) -> int:
        """Raises ControlPlaneError when it does not run."""
        if self._process is None or not self.running:
            raise ControlPlaneError(f"{self.name} is not running\n{self.log_tail()}")
        return self._process.pid

    def start(self, guard: Watchdog) -> None:
        """Start it; nothing happens when it runs already. Its output is appended to `log`."""
        if self.running:
            return
        if self._process is not None:
            guard.remove(self._process.pid)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard.add(self._process.pid)

    def stop(self, guard: Watchdog, number: int = signal.SIGTERM) -> None:
        """Signal its group and wait, with SIGKILL after STOP_SECONDS; nothing happens when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        family = watchdog.descendants(process.pid)
        watchdog.signal_group(process.pid, number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            watchdog.signal_group(process.pid, signal.SIGKILL)
            process.wait()
        watchdog.kill_all(family)
        guard.remove(process.pid)

    def log_tail(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return f"({self.log} does not exist)"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return f"--- end of {self.log}\n{log.read().decode(errors='replace')}"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now. Two callers rarely get the same, as the choice is random."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            return found
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    raise ControlPlaneError(f"no {count} free ports in {PORTS}")
