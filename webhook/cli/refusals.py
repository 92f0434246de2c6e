"""Finds our refusals in a command's error output, and keeps them back until it is known what becomes of them.

The output is somebody else's: a program in a container writes there, too. What is taken from it is held to the form that our
own refusals have, so that it can name an operation and a target, and nothing that kubectl would take for a flag.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Final

from webhook.cli.targets import PLACEHOLDER, Wanted, operations_of

HELD_BYTES: Final = 1024 * 1024
MOST_WANTED: Final = 50  # objects of one elevation request; the service takes no more
# What shlex.join leaves unquoted, less a leading dash: that would be a flag.
_WORD: Final = rb"(?!-)[A-Za-z0-9@%+=:,._-]+"
_HEADER: Final = re.compile(rb"(?:denied the request: .*|^\s*)kube-stepup: .*needs a step-up")
_COMMAND: Final = re.compile(
    rb"^\s+kubectl elevate (?P<operations>[a-z][A-Za-z0-9:./-]*(?:,[a-z][A-Za-z0-9:./-]*)*) (?P<target>[a-z0-9][a-z0-9.-]*/"
    + _WORD
    + rb")"
    rb"(?: -n (?P<namespace>[a-z0-9][a-z0-9-]*))?"
    rb"(?: --change (?P<changes>[0-9a-f-]+(?:,[0-9a-f-]+)*))?"
    rb"(?P<shows>(?: --shows (?:'[^']*'|" + _WORD + rb"))*)"
    rb"(?: --reason (?P<reason>'[^']*'|" + _WORD + rb"))?"
    rb"(?P<rest>$|[\s\"';,)\]](?!\s*-).*$)",  # what follows may be helm's next error, but no flag
    re.DOTALL,
)
# `kubectl apply` tells three lines of what it sent before it says what came of it.
_LEAD: Final = re.compile(rb"^Error from server \(Forbidden\): error when applying patch:")
_LEAD_END: Final = re.compile(rb"^for: ")
# As kubectl says it, and nothing else: what a program in a container prints must not be taken for it.
_EXACT: Final = re.compile(
    rb"^(?:Error from server \((?:Forbidden|TooManyRequests)\): (?:error when [a-z ]+(?: \"[^\"]*\")?: )?"
    rb"|error: (?:error upgrading connection: )?unable to upgrade connection: )"
    rb"admission webhook \"[a-z.-]*kube-stepup\.io\" denied the request: kube-stepup: "
    rb"(?P<operations>[a-z]+(?: and [a-z]+)*) (?P<target>\S+)(?: in (?P<namespace>\S+))? needs a step-up \(.*Run:$"
)
_PARTIAL: Final = (b"error", b"*", b"kube-stepup", b"kubectl", b"the", b"upgrade", b"warning", b"for", b"level=")
# helm tells why an uninstallation failed only when it debugs: Helm 4's lines, and Helm 3's.
HELM_DEBUG_LINE: Final = re.compile(rb"^(?:level=DEBUG |\S+\.go:\d+: (?:\S+ \S+ )?\[debug\] )")
_HELM_VERDICT: Final = re.compile(rb"^Error: failed to delete release: ")


class Refusals:
    """Takes our refusals out of a command's error output, line by line, and hands everything else on.

    Args:
        write: takes what is handed on.
        quiet_helm: helm debugs because we made it, so its debugging is for us alone.
        only_last: only the last words count, so that whatever is followed by something else need not be kept back.
    """

    def __init__(self, write: Callable[[bytes], object], *, quiet_helm: bool = False, only_last: bool = False) -> None:
        self._write = write
        self._only_last = only_last
        self._quiet_helm = quiet_helm
        self._inside = False
        self._header: re.Match[bytes] | None = None
        self._lead = bytearray()
        self._followed = 0
        self.wanted: list[Wanted] = []
        self.exact: list[Wanted] = []
        self.held = bytearray()

    @property
    def final(self) -> list[Wanted]:
        """Those that nothing else has come after, nor the beginning of another: the command's own last words."""
        return [] if self._inside else self.wanted[self._followed :]

    @property
    def last_exact(self) -> list[Wanted]:
        """The very last words, where they have exactly the form that kubectl gives them; at most one."""
        return [one for one in self.final[-1:] if one in self.exact]

    def line(self, line: bytes) -> None:
        """One whole line, with its end."""
        if self._is_ours(line):
            self._hold(bytes(self._lead) + line)
            self._lead.clear()
        elif self._quiet_helm and HELM_DEBUG_LINE.match(line):
            return
        elif self.wanted and self._quiet_helm and _HELM_VERDICT.match(line):
            self._hold(line)
        elif _LEAD.match(line):
            self.idle()
            self._lead += line
        elif self._lead and not _LEAD_END.match(line) and len(self._lead) + len(line) <= HELD_BYTES:
            self._lead += line
        else:
            self.part(line)

    def part(self, part: bytes) -> None:
        """Something else, whole line or not: it is handed on, and what was refused before it are no last words."""
        self.idle()
        if part.strip():
            self._followed = len(self.wanted)
        if self._only_last and self.held:
            part = bytes(self.held) + part
            self.held.clear()
        self._write(part)

    def idle(self) -> None:
        """Nothing has come for a moment: what may have led up to a refusal did not."""
        if self._lead:
            self._followed = len(self.wanted)
            self._write(bytes(self._lead))
            self._lead.clear()

    @staticmethod
    def may_begin(part: bytes) -> bool:
        """Whether the beginning of a line could become a refusal, so that its end is worth a moment's wait."""
        return part.lstrip().lower().startswith(_PARTIAL)

    def show(self) -> None:
        """Hand on what was kept back."""
        self.idle()
        if self.held:
            self._write(bytes(self.held))
            self.held.clear()

    def _is_ours(self, line: bytes) -> bool:
        """Whether a line belongs to a refusal. helm logs several lines as one, and joins several refusals to one."""
        ours = False
        parts = line.rstrip(b"\r\n").split(b"\\n")
        for part in parts:
            rest: bytes = part
            if self._inside:
                found = _COMMAND.match(part)
                if found is not None:
                    self._take(found)
                    rest, ours = found["rest"], True
                elif not part.strip():
                    ours = True
                    continue
                else:
                    self._followed = len(self.wanted)  # it began, and was none
            self._inside = _HEADER.search(rest) is not None
            self._header = _EXACT.match(rest) if len(parts) == 1 else None
            ours = ours or self._inside
        return ours

    def _take(self, found: re.Match[bytes]) -> None:
        text = {name: (value or b"").decode(errors="replace") for name, value in found.groupdict().items()}
        reason = text["reason"].strip("'")
        wanted = Wanted(
            operations=operations_of(text["operations"]),
            targets=(text["target"],),
            namespace=text["namespace"],
            changes=tuple(text["changes"].split(",")) if text["changes"] else (),
            reason="" if reason == PLACEHOLDER else reason,
            shows=tuple(shlex.split(text["shows"])[1::2]),
        )
        if not wanted.operations:
            return
        if self._header is not None and _says(self._header, wanted) and not found["rest"].strip():
            self.exact.append(wanted)
        if wanted in self.wanted[: self._followed]:
            self.wanted.remove(wanted)  # said again, so it is among the last words
            self._followed -= 1
        if wanted not in self.wanted and len(self.wanted) < MOST_WANTED:
            self.wanted.append(wanted)

    def _hold(self, data: bytes) -> None:
        if len(self.held) + len(data) > HELD_BYTES:
            self._write(bytes(self.held) + data)
            self.held.clear()
        else:
            self.held += data


def _says(header: re.Match[bytes], wanted: Wanted) -> bool:
    """Whether the first line of a refusal is about the same as its command."""
    text = {name: (value or b"").decode(errors="replace") for name, value in header.groupdict().items()}
    operations = tuple(text["operations"].split(" and "))
    return (operations, (text["target"],), text["namespace"]) == (wanted.operations, wanted.targets, wanted.namespace)
