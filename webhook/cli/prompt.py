"""Asks the person, at their terminal, whatever standard input is; or a program of theirs, where there is no terminal.

`KUBECTL_ELEVATE_CODE_COMMAND` is a command that prints a code: a security key's (`ykman oath accounts code -s prod`) or a
password manager's. The code never appears on a command line or in the environment.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from webhook.cli.exits import INTERRUPTED, USAGE, ElevateError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

CODE_COMMAND: Final = "KUBECTL_ELEVATE_CODE_COMMAND"
CODE_COMMAND_SECONDS: Final = 120
MISTYPED: Final = 10
BULLET: Final = "•".encode()
_ENTER: Final = b"\r\n"
_ERASE: Final = b"\x7f\x08"
_ERASE_LINE: Final = b"\x15"  # Ctrl-U
_END: Final = b"\x03\x04"
_ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_SIGNAL_BASE: Final = 128


def is_automatic() -> bool:
    """Whether a program answers for the person: a wrong code is then not asked for again and again."""
    return bool(os.environ.get(CODE_COMMAND))


def ask_code(label: str = "Code") -> str:
    """A code, from the program that is set, else from the terminal.

    Raises:
        ElevateError: there is neither, or the person gave up.
    """
    command = os.environ.get(CODE_COMMAND)
    if command:
        return _from_command(command)
    with _terminal() as terminal:
        return _read(terminal, f"{label}: ", hidden=True)


def factor_of(code: str) -> str:
    """Which factor a code is of by its looks; empty when it can be none, and trying it would only count as a wrong one."""
    letters = re.sub(r"[\s-]", "", code)
    if re.fullmatch(r"[0-9]{6,8}", letters, re.ASCII):
        return "totp"
    return "recovery-code" if re.fullmatch(r"[A-Za-z0-9]{12,64}", letters, re.ASCII) else ""


def ask_code_of(factors: Collection[str], label: str = "Code") -> tuple[str, str]:
    """A code that looks like one, and its factor; what does not is asked for again.

    Raises:
        ElevateError: as `ask_code`; or no code in several tries.
    """
    wanted = " or ".join(
        {"totp": "the digits that your app shows", "recovery-code": "a recovery code"}[one] for one in factors
    )
    for _ in range(MISTYPED):
        code = ask_code(label)
        factor = factor_of(code)
        if factor in factors:
            return code, factor
        if is_automatic():
            raise ElevateError(f"what {CODE_COMMAND} printed is not {wanted}", USAGE)
        os.write(2, f"kube-stepup: that is not {wanted}\n".encode())
    raise ElevateError("given up", INTERRUPTED)


def ask_line(label: str) -> str:
    """One line of text from the terminal.

    Raises:
        ElevateError: there is no terminal, or the person gave up.
    """
    with _terminal() as terminal:
        return _read(terminal, f"{label}: ", hidden=False)


def has_terminal() -> bool:
    """Whether there is a terminal to ask at."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _from_command(command: str) -> str:
    # It may ask at the terminal ("touch your key"), but must not eat the input of the wrapped command.
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        terminal = os.open(os.devnull, os.O_RDONLY)
    try:
        result = subprocess.run(  # noqa: S603 - the person's own setting, no shell
            shlex.split(command),
            stdin=terminal,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=CODE_COMMAND_SECONDS,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ElevateError(f"{CODE_COMMAND} did not run: {type(error).__name__}", USAGE) from error
    finally:
        os.close(terminal)
    code = result.stdout.strip()
    if result.returncode != 0 or not code:
        raise ElevateError(f"{CODE_COMMAND} ended with {result.returncode} and gave no code", USAGE)
    return code


@contextmanager
def _terminal() -> Iterator[int]:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        raise ElevateError(
            f"there is no terminal to ask at; set {CODE_COMMAND} to a command that prints a code", USAGE
        ) from error
    try:
        before = termios.tcgetattr(terminal)
        with _ended_by_signals():
            try:
                tty.setcbreak(terminal)
                settings = termios.tcgetattr(terminal)
                settings[3] &= ~termios.ISIG  # Ctrl-C ends the question here, with the terminal put right first
                termios.tcsetattr(terminal, termios.TCSADRAIN, settings)
                yield terminal
            finally:
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    finally:
        os.close(terminal)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """What would end us at once ends the question instead, so that the terminal is put right; ignored ones stay ignored."""

    def end(number: int, _: Any) -> None:
        for one in _ENDING:
            signal.signal(one, signal.SIG_IGN)  # a second one must not come between
        raise ElevateError(f"ended by {signal.Signals(number).name}", _SIGNAL_BASE + number)

    before = {one: signal.getsignal(one) for one in _ENDING}
    try:
        for one, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(one, end)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _read(terminal: int, label: str, *, hidden: bool) -> str:
    os.write(terminal, label.encode())
    typed = bytearray()
    while True:
        letter = os.read(terminal, 1)
        if not letter or letter in _END:
            os.write(terminal, b"\n")
            raise ElevateError("given up", INTERRUPTED)
        if letter in _ENTER:
            os.write(terminal, b"\n")
            return typed.decode(errors="replace").strip()
        if letter in _ERASE:
            _rub_out(terminal, typed)
        elif letter == _ERASE_LINE:
            while typed:
                _rub_out(terminal, typed)
        elif letter >= b" ":
            typed += letter
            # A letter of several bytes is one bullet.
            os.write(terminal, letter if not hidden else b"" if _continues(letter[0]) else BULLET)


def _rub_out(terminal: int, typed: bytearray) -> None:
    while typed and _continues(typed[-1]):
        typed.pop()
    if typed:
        typed.pop()
        os.write(terminal, b"\b \b")


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 continues a letter."""
    return byte & 0xC0 == 0x80
