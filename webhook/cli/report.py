"""``stepup policy report``: what policies refused, or would have: by whom, how often, by which rule, when.

From the cluster's StepUpReports, through the operator's own kubectl, or from our audit lines in a file.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.operator import kubectl_with
from webhook.core.report import OTHERS, REFUSED, WOULD_REFUSE, Line, Lines, read_lines, shortened, stamp

DAY_SECONDS: Final = 86_400
DAY_PREFIX: Final = "day-"
MAX_LINES: Final = 100_000
HEADINGS: Final = ("OUTCOME", "POLICY", "RULE", "OPERATION", "USER", "COUNT", "FIRST", "LAST")
_DAYS = re.compile(r"([1-9][0-9]{0,3})d")


def report(
    since: Annotated[str, typer.Option(help="How far back: 7d, 12h, 30m …")] = "7d",
    policy: Annotated[str, typer.Option(help="Only this policy.")] = "",
    user: Annotated[str, typer.Option(help="Only this person.")] = "",
    audit_log: Annotated[
        Path | None, typer.Option(help="Read kube-stepup's audit lines from a file, - for standard input.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    kubectl: Annotated[
        list[str] | None,
        typer.Option("--kubectl", metavar="FLAG", help="A global flag for kubectl, such as --kubectl=--context=prod."),
    ] = None,
) -> None:
    """What policies refused (Deny) or would have refused (Warn, Audit): by whom, how often, which rule, first and last.

    The cluster keeps it by day, and names at most 1,000 combinations a day; the others are counted together.
    """
    if output not in {"table", "json"}:
        raise ElevateError("--output: must be table or json", USAGE)
    start = stamp(time.time() - _seconds(since))
    source = _of_log(audit_log) if audit_log is not None else _of_cluster(kubectl, start)
    lines = Lines(MAX_LINES)
    for line in source:
        if line.last >= start and policy in {"", line.policy} and user in {"", line.user}:
            lines.add(line)
    ordered = sorted(lines, key=lambda line: (line.policy, line.outcome, -line.count, line.rule, line.user))
    if output == "json":
        typer.echo(json.dumps({"since": start, "lines": [msgspec.to_builtins(line) for line in ordered]}, indent=2))
    elif ordered:
        typer.echo("\n".join(_table(ordered)))
    else:
        typer.echo(f"Nothing was refused since {start}, nor would have been.")


def _of_cluster(flags: list[str] | None, start: str) -> Iterator[Line]:
    answer = kubectl_with(flags).run("get", "stepupreports.kube-stepup.io", "-o", "json")
    if answer.returncode != 0:
        raise ElevateError(answer.stderr.strip() or "kubectl failed without a word")
    for one in json.loads(answer.stdout).get("items") or []:
        name = str(one["metadata"]["name"])
        if name.startswith(DAY_PREFIX) and name >= DAY_PREFIX + start[:10]:
            yield from read_lines(one)


def _of_log(file: Path) -> Iterator[Line]:
    """Lines of decisions; what is no audit line of ours (another program's, half a line) is passed over."""
    try:
        with sys.stdin if str(file) == "-" else file.open(encoding="utf-8", errors="replace") as text:
            for row in text:
                try:
                    event = json.loads(row)
                except ValueError:
                    continue
                if isinstance(event, dict) and event.get("log") == "audit" and event.get("event") == "decision":
                    yield from _of_event(event)
    except OSError as error:
        raise ElevateError(f"--audit-log: {file}: {error.strerror}", USAGE) from error


def _of_event(event: dict[str, Any]) -> Iterator[Line]:
    time_text = str(event.get("time", ""))
    try:
        at = stamp(datetime.fromisoformat(time_text).timestamp())
    except ValueError:
        return
    who = shortened(str(event.get("user", "")))
    for field, outcome in (("refused_by", REFUSED), ("would_refuse", WOULD_REFUSE)):
        for one in event.get(field) or []:
            if isinstance(one, dict):
                policy, rule, operation = (str(one.get(key, "")) for key in ("policy", "rule", "operation"))
                yield Line(policy, rule, operation, who, outcome, 1, at, at)


def _seconds(text: str) -> int:
    from webhook.core.durations import parse_seconds

    days = _DAYS.fullmatch(text)
    if days:
        return int(days[1]) * DAY_SECONDS
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise ElevateError("--since: must be a time such as 7d, 12h or 30m", USAGE) from error


def _table(lines: Iterable[Line]) -> Iterator[str]:
    rows = [HEADINGS, *map(_row, lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(line: Line) -> tuple[str, ...]:
    who = "(others)" if line.user == OTHERS else line.user
    cells = (
        line.outcome,
        line.policy,
        line.rule or "-",
        line.operation or "-",
        who,
        str(line.count),
        line.first,
        line.last,
    )
    return tuple(map(_printable, cells))


def _printable(text: str) -> str:
    """Usernames come from certificates and tokens: nothing in them may speak to a terminal."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
