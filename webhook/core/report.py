"""What policies matched and refused: counted in memory, and merged into what is stored. Pure, and bounded everywhere.

Two kinds of objects hold it (``StepUpReport``): one a day with a line for each policy, rule, operation, person and
outcome, and one with the totals of each policy, which only grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from webhook.core.decision import Decision

REFUSED: Final = "refused"
WOULD_REFUSE: Final = "would-refuse"
MAX_LINES_IN_MEMORY: Final = 500
MAX_LINES_A_DAY: Final = 1000  # about 300 kB; an object may have 1.5 MB
MAX_POLICIES: Final = 1000
MAX_USER_LETTERS: Final = 200
OTHERS: Final = ""  # the user of a line that stands for all those that found no place

JSONObject = dict[str, Any]


class Line(msgspec.Struct, rename="camel"):
    """How often one rule refused one person one operation (``outcome`` refused), or would have (would-refuse)."""

    policy: str
    rule: str
    operation: str
    user: str
    outcome: str
    count: int
    first: str
    last: str

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it a line of its own."""
        return (self.policy, self.rule, self.operation, self.user, self.outcome)

    def add(self, other: Line) -> None:
        """Take in another line of the same key."""
        self.count += other.count
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)


class Totals(msgspec.Struct, rename="camel"):
    """What one policy did since ``since``."""

    policy: str
    uid: str = ""
    since: str = ""
    matched: int = 0
    refused: int = 0
    would_refuse: int = 0
    last_refused_at: str = ""

    def add(self, other: Totals) -> None:
        """Take in what was counted elsewhere for the same policy."""
        self.matched += other.matched
        self.refused += other.refused
        self.would_refuse += other.would_refuse
        self.last_refused_at = max(self.last_refused_at, other.last_refused_at)


class Lines:
    """Lines by key, with a limit: what finds no place is counted under its policy, for all people together."""

    def __init__(self, limit: int, lines: Iterable[Line] = ()) -> None:
        self._limit = limit
        self._found: dict[tuple[str, ...], Line] = {line.key: line for line in lines}

    def __iter__(self) -> Any:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: Line) -> None:
        """Count a line."""
        known = self._found.get(line.key)
        if known is None and len(self._found) >= self._limit:
            line = Line(line.policy, "", "", OTHERS, line.outcome, line.count, line.first, line.last)
            known = self._found.get(line.key)
        if known is None:
            self._found[line.key] = line
        else:
            known.add(line)


class Batch:
    """What was counted since the last time that it was stored."""

    def __init__(self) -> None:
        self.days: dict[str, Lines] = {}
        self.totals: dict[str, Totals] = {}
        self._second = (-1, "")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        return not self.totals

    def note(self, decision: Decision, user: str, now_seconds: float) -> None:
        """Count a decision that policies had a say in.

        Args:
            now_seconds: since the epoch.
        """
        if self._second[0] != int(now_seconds):
            self._second = (int(now_seconds), stamp(now_seconds))
        now = self._second[1]
        for name in decision.applicable.policies:
            if (total := self._total(name, now)) is not None:
                total.matched += 1
        for outcome, demands in ((REFUSED, decision.unmet), (WOULD_REFUSE, decision.would_deny)):
            for policy in {demand.requirement.policy for demand in demands}:
                if (total := self._total(policy, now)) is None:
                    continue
                if outcome == REFUSED:
                    total.refused += 1
                    total.last_refused_at = now
                else:
                    total.would_refuse += 1
            for key in {(one.requirement.policy, one.requirement.rule, one.action.operation) for one in demands}:
                lines = self.days.setdefault(now[:10], Lines(MAX_LINES_IN_MEMORY))
                lines.add(Line(*key, shortened(user), outcome, 1, now, now))

    def merge(self, other: Batch) -> None:
        """Take in what could not be stored."""
        for day, lines in other.days.items():
            mine = self.days.setdefault(day, Lines(MAX_LINES_IN_MEMORY))
            for line in lines:
                mine.add(line)
        for name, totals in other.totals.items():
            if (mine_too := self._total(name, totals.since)) is not None:
                mine_too.since = min(mine_too.since, totals.since)
                mine_too.add(totals)

    def _total(self, policy: str, now: str) -> Totals | None:
        found = self.totals.get(policy)
        if found is None and len(self.totals) < MAX_POLICIES:
            found = self.totals[policy] = Totals(policy, since=now)
        return found


def merged_day(stored: Mapping[str, Any], lines: Iterable[Line]) -> list[JSONObject]:
    """The lines of a day's object, with these added."""
    found = Lines(MAX_LINES_A_DAY, read_lines(stored))
    for line in lines:
        found.add(line)
    return [msgspec.to_builtins(line) for line in found]


def merged_totals(
    stored: Mapping[str, Any], counted: Mapping[str, Totals], uid_of: Callable[[str], str]
) -> list[JSONObject]:
    """The totals, with these added. A policy that was deleted and made again begins anew.

    Args:
        uid_of: of a policy in force by its name; empty when there is none.
    """
    found = {one.policy: one for one in read_totals(stored)}
    for name, totals in counted.items():
        uid = uid_of(name)
        known = found.get(name)
        if known is None or (uid and known.uid and known.uid != uid):
            found[name] = msgspec.structs.replace(totals, uid=uid)
        else:
            known.uid = known.uid or uid
            known.add(totals)
    if len(found) > MAX_POLICIES:
        found = {name: one for name, one in found.items() if uid_of(name)}
    return [msgspec.to_builtins(one) for one in list(found.values())[:MAX_POLICIES]]


def read_lines(stored: Mapping[str, Any]) -> list[Line]:
    """The lines of a stored object; those that are none are left out."""
    return _read(stored.get("lines"), Line)


def read_totals(stored: Mapping[str, Any]) -> list[Totals]:
    """The totals of a stored object; those that are none are left out."""
    return _read(stored.get("policies"), Totals)


def stamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the second: such texts sort by time."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shortened(user: str) -> str:
    """A username that fits into a line."""
    return user if len(user) <= MAX_USER_LETTERS else user[: MAX_USER_LETTERS - 1] + "…"


def _read(items: Any, kind: type[Any]) -> list[Any]:
    found = []
    for item in items if isinstance(items, list) else []:
        try:
            found.append(msgspec.convert(item, kind))
        except msgspec.ValidationError:
            continue
    return found
