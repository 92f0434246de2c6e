"""Keeps the programs of one control plane: starts, stops and revives them, and lets none outlive its owner."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tests.controlplane.process import ControlPlaneError, Program, Watchdog

REVIVE_SECONDS = 0.5  # soon enough for a test to go on, slow enough not to spin when a program can never start


class Supervisor:
    """What a kubelet is for the programs of a real control plane. Its methods may be called from any thread."""

    def __init__(self, folder: Path, environment: Mapping[str, str], revived: Collection[str]) -> None:
        """`folder` takes the logs, and goes when we die; programs in `revived` are started again when they end."""
        self._folder = folder
        self._environment = environment
        self._revived = revived
        self._programs: dict[str, Program] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._watchdog = Watchdog(folder)
        self._thread = threading.Thread(target=self._revive, daemon=True, name="supervisor")
        self._thread.start()

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a program; nothing happens when it runs already."""
        with self._lock:
            if not self.runs(name):
                self._programs[name] = Program(name, command, self._folder, self._environment)
                self._programs[name].start(self._watchdog)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Stop a program, which then stays stopped; nothing happens when it does not run."""
        with self._lock:
            if name in self._programs:
                self._programs[name].stop(self._watchdog, number)

    def runs(self, name: str) -> bool:
        """Whether it was started and has not ended."""
        return name in self._programs and self._programs[name].running

    def pids(self) -> dict[str, int]:
        """The process of each program that runs."""
        found = {}
        with self._lock:
            for name, program in self._programs.items():
                with contextlib.suppress(ControlPlaneError):  # it does not run
                    found[name] = program.pid
        return found

    def log_tail(self, name: str) -> str:
        """The end of what it has logged. Raises ControlPlaneError when it never ran."""
        if name not in self._programs:
            raise ControlPlaneError(f"{name} was never started")
        return self._programs[name].log_tail()

    def close(self) -> None:
        """Kill everything."""
        self._closed.set()
        self._thread.join()
        for name in reversed(list(self._programs)):
            self.stop(name, signal.SIGKILL)
        self._watchdog.close()

    def _revive(self) -> None:
        """The controller manager, for one, ends when kube-apiserver goes away while it starts."""
        while not self._closed.wait(REVIVE_SECONDS):
            with self._lock:
                for name, program in self._programs.items():
                    if name in self._revived and program.crashed:
                        program.start(self._watchdog)
