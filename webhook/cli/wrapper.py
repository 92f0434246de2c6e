"""`kubectl elevate -- COMMAND`: run it, see the refusal, step up once for all that it named, run it again.

Everything else is as if the command had been run by itself: standard input (replayed for the second run), the terminal, the exit
code, signals. A refusal is only acted on when the command failed, and it is shown what the proof is for before it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, Final

from webhook.cli import flags
from webhook.cli.child import Child
from webhook.cli.elevation import annotate, can_be_annotated, say, step_up
from webhook.cli.kubectl import Kubectl
from webhook.cli.replay import Input
from webhook.cli.targets import Wanted, details_of, parse_text

ROUNDS: Final = 5
STREAMS: Final = frozenset({"exec", "attach", "cp", "port-forward"})
_OURS: Final = re.compile(rb"denied the request: .*kube-stepup: |^kube-stepup: .* needs a step-up")
_LINE: Final = re.compile(rb"^\s+kubectl elevate \S+ .+$")


class Refusals:
    """Takes our refusals out of a command's error output, line by line, and hands everything else on."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._inside = False
        self.wanted: list[Wanted] = []
        self.held = bytearray()

    def line(self, line: bytes) -> None:
        """One whole line, with its end."""
        if self._inside and _LINE.match(line.rstrip(b"\r\n")):
            wanted = parse_text(line.decode(errors="replace").strip())
            if wanted is not None and wanted not in self.wanted:
                self.wanted.append(wanted)
            self.held += line
        elif _OURS.search(line) and b"needs a step-up" in line:
            self._inside = True
            self.held += line
            return
        elif self._inside and not line.strip():
            self.held += line
            return
        else:
            self._write(line)
        self._inside = False

    @staticmethod
    def may_begin(part: bytes) -> bool:
        """Whether the beginning of a line could become a refusal, so that its end is worth a moment's wait."""
        return (
            part.lstrip()
            .lower()
            .startswith((b"error", b"*", b"kube-stepup", b"kubectl", b"the", b"upgrade", b"warning"))
        )


def run(command: Sequence[str], *, reason: str, carrier: str, own_flags: Sequence[str]) -> int:
    """Run a command with step-ups as it needs them; its exit code.

    Raises:
        ElevateError: it was refused and the step-up did not succeed; what it printed has been shown.
    """
    found = flags.of_command(command)
    kubectl = Kubectl([*found.flags, *own_flags])
    source = Input()
    done: set[tuple[object, ...]] = set()
    exit_code = 0
    try:
        for _ in range(ROUNDS):
            child = Child(command, source)
            refusals = Refusals(child.write)
            exit_code = child.run(refusals.line, refusals.may_begin)
            fresh = [one for one in _credible(refusals.wanted, command, found.rest) if one.same_target not in done]
            if exit_code == 0 or not fresh:
                child.write(bytes(refusals.held))
                return exit_code
            try:
                _elevate(kubectl, fresh, reason, carrier)
            except BaseException:
                child.write(bytes(refusals.held))
                raise
            # Asked once for the same thing is enough: a change that differs at each try would ask for ever.
            done |= {one.same_target for one in fresh}
            source.rewind()
        return exit_code
    finally:
        source.close()


def _credible(wanted: list[Wanted], command: Sequence[str], rest: Sequence[str]) -> list[Wanted]:
    """Refusals that this command can have met.

    What runs in a container writes to our error output, too: a stream into a pod is refused as `exec`, and nothing that it
    prints may ask for anything else.
    """
    program = PurePath(command[0]).name
    verb = next((word for word in rest if not word.startswith("-")), "")
    if program in {"kubectl", "oc"} and verb in STREAMS:
        return [one for one in wanted if one.operations == ("exec",)]
    return wanted


def _elevate(kubectl: Kubectl, wanted: list[Wanted], reason: str, carrier: str) -> None:
    for one in wanted:
        say(f"{one.described()} needs a step-up")
    details: list[dict[str, Any]] = []
    for one in wanted:
        details += details_of(one, kubectl)
    given = reason or next((one.reason for one in wanted if one.reason), "")
    result = step_up(kubectl, details, given)
    if result.assertion and can_be_annotated(details, carrier):
        annotate(kubectl, details, result.assertion)
