"""Runs the wrapped command as if we were not there; only its error output passes through our hands."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from typing import Any, Final

from webhook.cli.exits import FAILED, ElevateError
from webhook.cli.replay import Input

FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
PARTIAL_LINE_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 0.5
CHUNK_BYTES: Final = 64 * 1024
SIGNAL_BASE: Final = 128
NOT_FOUND: Final = 127


class Child:
    """One run of the command."""

    def __init__(self, command: Sequence[str], source: Input) -> None:
        self._command = list(command)
        self._source = source
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def write(data: bytes) -> None:
        """To our own error output, unchanged."""
        sys.stderr.flush()
        view = memoryview(data)
        while view:
            view = view[os.write(2, view) :]

    def run(self, line: Callable[[bytes], None], may_begin: Callable[[bytes], bool]) -> int:
        """Run it to its end; its exit code, 128+N if signal N ended it.

        Args:
            line: gets each line of its error output.
            may_begin: whether to wait a moment for the rest of a line that begins like this.

        Raises:
            ElevateError: there is no such program.
        """
        ours, theirs = self._error_output()
        stdin = self._source.open()
        before = {number: signal.signal(number, self._pass_on) for number in (*FORWARDED, *FROM_THE_TERMINAL)}
        resized = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(ours)) if os.isatty(ours) else None
        try:
            self._process = subprocess.Popen(self._command, stdin=stdin, stderr=theirs)  # noqa: S603 - what was typed
            os.close(theirs)
            self._pump(ours, line, may_begin)
            status = self._process.wait()
        except FileNotFoundError as error:
            os.close(theirs)
            raise ElevateError(f"{self._command[0]}: command not found", NOT_FOUND) from error
        except PermissionError as error:
            os.close(theirs)
            raise ElevateError(f"{self._command[0]}: cannot be run", FAILED) from error
        finally:
            os.close(ours)
            if stdin is not None:
                os.close(stdin)
            for number, handler in before.items():
                signal.signal(number, handler)
            if resized is not None:
                signal.signal(signal.SIGWINCH, resized)
        return SIGNAL_BASE - status if status < 0 else status

    def _pass_on(self, number: int, _: Any) -> None:
        """The terminal sends its signals to the command as well; those meant for us alone are passed on."""
        if number in FORWARDED and self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @staticmethod
    def _error_output() -> tuple[int, int]:
        """A pseudo-terminal where our error output is a terminal (so that colours and width stay), else a pipe."""
        if not os.isatty(2):
            return os.pipe()
        ours, theirs = os.openpty()
        tty.setraw(theirs)  # bytes pass unchanged; our own terminal does the rest
        _copy_size(ours)
        return ours, theirs

    def _pump(self, ours: int, line: Callable[[bytes], None], may_begin: Callable[[bytes], bool]) -> None:
        pending = b""
        while True:
            ready, _, _ = select.select([ours], [], [], PARTIAL_LINE_SECONDS if pending else IDLE_SECONDS)
            if not ready:
                if not pending and self._has_ended():
                    break  # what it left running in the background keeps our end open, and need not be waited for
                self.write(pending)
                pending = b""
                continue
            try:
                data = os.read(ours, CHUNK_BYTES)
            except OSError:
                data = b""  # a pseudo-terminal says so when its other end is closed
            if not data:
                break
            *whole, pending = (pending + data).split(b"\n")
            for one in whole:
                line(one + b"\n")
            if pending and not may_begin(pending):
                self.write(pending)
                pending = b""
        if pending:
            line(pending)


def _copy_size(descriptor: int) -> None:
    size = fcntl.ioctl(2, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)
