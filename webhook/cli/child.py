"""Runs the wrapped command as if we were not there; only its error output passes through our hands."""

from __future__ import annotations

import fcntl
import math
import os
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from webhook.cli.exits import FAILED, ElevateError
from webhook.cli.replay import Input

FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
PARTIAL_LINE_SECONDS: Final = 0.1
IDLE_SECONDS: Final = 0.5
# After the command has ended: how long for a moment without output, and at most, for what it left running in the background.
LAST_WORDS_SECONDS: Final = 0.05
LINGER_SECONDS: Final = 0.5
CHUNK_BYTES: Final = 64 * 1024
LINE_BYTES: Final = 256 * 1024  # more than a refusal that helm has put on one line; what is longer passes at once
SIGNAL_BASE: Final = 128
NOT_FOUND: Final = 127


class ErrorSink(Protocol):
    """Takes a command's error output."""

    def line(self, line: bytes) -> None:
        """Take one whole line, with its end."""

    def part(self, part: bytes) -> None:
        """Take what is no whole line, and cannot become one of interest."""

    def idle(self) -> None:
        """Nothing has come for a moment."""

    def may_begin(self, part: bytes) -> bool:
        """Whether to wait a moment for the rest of a line that begins like this."""


class Child:
    """One run of the command.

    Args:
        environment: of the command; ours when None.
    """

    def __init__(self, command: Sequence[str], source: Input, environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._source = source
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self.was_interrupted = False

    @staticmethod
    def write(data: bytes) -> None:
        """To our own error output, unchanged; to nowhere when nobody reads it any more."""
        if sys.stderr is not None:
            sys.stderr.flush()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(2, view) :]
        except BrokenPipeError:
            return

    def run(self, sink: ErrorSink) -> int:
        """Run it to its end; its exit code, 128+N if signal N ended it.

        Raises:
            ElevateError: there is no such program.
        """
        ours, theirs = self._error_output()
        stdin = self._source.open()
        # One that is ignored (nohup, a job in the background of a script) stays ignored, by the command as well.
        passed = [one for one in (*FORWARDED, *FROM_THE_TERMINAL) if signal.getsignal(one) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._pass_on) for number in passed}
        resized = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(ours)) if os.isatty(ours) else None
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what was typed
                self._command, stdin=stdin, stderr=theirs, env=self._environment
            )
            os.close(theirs)
            for number in self._early:
                self._process.send_signal(number)
            self._pump(ours, sink)
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
        self.was_interrupted = self.was_interrupted or status < 0
        return SIGNAL_BASE - status if status < 0 else status

    def _pass_on(self, number: int, _: Any) -> None:
        """The terminal sends its signals to the command as well; those meant for us alone are passed on."""
        self.was_interrupted = True
        if number in FROM_THE_TERMINAL and _has_the_terminal():
            return
        if self._process is None:
            self._early.append(number)
        elif self._process.poll() is None:
            self._process.send_signal(number)

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @staticmethod
    def _error_output() -> tuple[int, int]:
        """A pseudo-terminal where our error output is a terminal (so that colours and width stay), else a pipe."""
        _open_error_output()
        if not os.isatty(2):
            return os.pipe()
        ours, theirs = os.openpty()
        tty.setraw(theirs)  # bytes pass unchanged; our own terminal does the rest
        _copy_size(ours)
        return ours, theirs

    def _pump(self, ours: int, sink: ErrorSink) -> None:
        pending = b""
        give_up_at = math.inf
        while time.monotonic() < give_up_at:
            if give_up_at == math.inf and self._has_ended():
                # All that it said is there already; what it left running in the background need not be waited for.
                give_up_at = time.monotonic() + LINGER_SECONDS
            ready, _, _ = select.select([ours], [], [], self._patience(pending, give_up_at))
            if not ready:
                if give_up_at < math.inf:
                    break
                sink.idle()
                if pending:
                    sink.part(pending)
                    pending = b""
                continue
            data = self._read(ours)
            if not data:
                break
            *whole, pending = (pending + data).split(b"\n")
            for one in whole:
                sink.line(one + b"\n")
            if pending and (len(pending) > LINE_BYTES or not sink.may_begin(pending)):
                sink.part(pending)
                pending = b""
        if pending:
            sink.line(pending)

    @staticmethod
    def _patience(pending: bytes, give_up_at: float) -> float:
        if give_up_at < math.inf:
            return LAST_WORDS_SECONDS
        return PARTIAL_LINE_SECONDS if pending else IDLE_SECONDS

    @staticmethod
    def _read(ours: int) -> bytes:
        try:
            return os.read(ours, CHUNK_BYTES)
        except OSError:
            return b""  # a pseudo-terminal says so when its other end is closed


def _open_error_output() -> None:
    """Where ours is closed, nothing else may get its number: a pipe of ours would be written to in its place."""
    try:
        os.fstat(2)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != 2:
            os.dup2(nowhere, 2)
            os.close(nowhere)


def _has_the_terminal() -> bool:
    """Whether we are what the terminal's Ctrl-C goes to, and so the command, too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def _copy_size(descriptor: int) -> None:
    size = fcntl.ioctl(2, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)
