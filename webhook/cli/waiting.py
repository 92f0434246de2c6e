"""Waiting for others to approve: one line that says for what and how long, until they have, or will not.

Interrupted, the request stays open: the same command goes on where it was.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

from webhook.cli.exits import INTERRUPTED, REFUSED, ElevateError
from webhook.cli.kubectl import Kubectl

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 5.0
GROWTH: Final = 1.3
AWAITING: Final = "AwaitingApproval"
GRANTED: Final = frozenset({"Granted", "Used"})
APPROVED: Final = "Approved"
ENDS: Final = {
    "Denied": "was denied",
    "Expired": "has lapsed: nobody approved it in time",
    "Revoked": "was withdrawn",
}


def wait_for_approval(kubectl: Kubectl, name: str, message: str) -> dict[str, Any]:
    """Wait until a request is granted, or approved and in want of a fresh code; its status then.

    Raises:
        ElevateError: denied, lapsed, withdrawn, or the person waits no longer.
    """
    line = _Line(f"{name} {message or 'waits for approval'}")
    try:
        status = _wait(kubectl, name, line)
    except KeyboardInterrupt:
        line.end()
        text = (
            f"{name} stays open; the same command goes on with it, and `kubectl elevate withdraw {name}` takes it back"
        )
        raise ElevateError(text, INTERRUPTED) from None
    line.end()
    phase = status["phase"]
    if phase == APPROVED or phase in GRANTED:
        return status
    by = f" by {_plain(status['deniedBy'])}" if status.get("deniedBy") else ""
    why = f": {_plain(status['message'])}" if status.get("message") else ""
    raise ElevateError(f"{name} {ENDS.get(phase, f'is {phase}')}{by}{why}", REFUSED, f"approval-{phase.lower()}")


def _wait(kubectl: Kubectl, name: str, line: _Line) -> dict[str, Any]:
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            status: dict[str, Any] = kubectl.get(f"elevationrequests/{name}")["status"]
        except ElevateError as error:
            if error.code != "not-found":  # a revoked one is gone for its owner
                raise
            status = {"phase": "Revoked"}
        if status["phase"] != AWAITING:
            return status
        given = ", ".join(_plain(one["by"]) for one in status.get("approvals") or [])
        line.show(f"approved by {given} so far" if given else "")
        time.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, pause * GROWTH)


class _Line:
    """What is waited for: rewritten in place at a terminal, said once elsewhere."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._started = time.monotonic()
        self._is_terminal = os.isatty(2)
        self._shown = ""

    def show(self, more: str) -> None:
        seconds = int(time.monotonic() - self._started)
        text = f"kube-stepup: {self._text}" + (f", {more}" if more else "")
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{text} ({seconds} s, Ctrl-C leaves it open)")
        elif text != self._shown:
            sys.stderr.write(f"{text}\n")
        self._shown = text
        sys.stderr.flush()

    def end(self) -> None:
        if self._is_terminal and self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
