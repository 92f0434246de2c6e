"""`kubectl elevate approvals`, `approve`, `deny` and `withdraw`: a second person agrees, or does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kubectl import Kubectl

COLUMNS: Final = ("NAME", "REQUESTER", "FOR", "REASON", "AGE")
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `kubectl elevate approvals` lists it: elv-…")]
Why = Annotated[str, typer.Option("--reason", "-r", help="Why; recorded, and shown to the requester of a denial.")]


def add_to(app: typer.Typer, kubectl_of: Callable[[], Kubectl], is_json: Callable[[str], bool]) -> None:
    """Add the commands to an application.

    Args:
        kubectl_of: kubectl with the flags of this run.
        is_json: what `-o` means.
    """

    @app.command()
    def approvals(output: Annotated[str, typer.Option("--output", "-o", help="json.")] = "") -> None:
        """Requests of others that wait for an approval which you can give."""
        _list(kubectl_of(), as_json=is_json(output))

    @app.command()
    def approve(name: Name, reason: Why = "") -> None:
        """See exactly what somebody asks for, and approve it with a code of your own."""
        _approve(kubectl_of(), name, reason)

    @app.command()
    def deny(name: Name, reason: Why = "") -> None:
        """Refuse somebody's request for good."""
        kubectl_of().create(f"elevationrequests/{_checked(name)}/deny", "ApprovalDenial", {"reason": reason})
        print(f"{name} denied")

    @app.command()
    def withdraw(name: Name) -> None:
        """Take back a request of yours that waits for approval."""
        kubectl_of().delete(f"elevationrequests/{_checked(name)}")
        print(f"{name} withdrawn")


def _list(kubectl: Kubectl, *, as_json: bool) -> None:
    items = kubectl.get("approvalrequests")["items"]
    if as_json:
        print(json.dumps(items, indent=2))
        return
    if not items:
        print("Nothing waits for your approval")
        return
    rows = [COLUMNS, *(_row(one) for one in items)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _approve(kubectl: Kubectl, name: str, reason: str) -> None:
    from webhook.cli.elevation import answered, say

    request = kubectl.get(f"approvalrequests/{_checked(name)}")
    for line in shown(request):
        say(line)
    more = {"seen": request["status"]["seen"], "reason": reason}
    status = answered(kubectl, f"elevationrequests/{name}/approve", "Approval", more)
    says = {
        "AwaitingApproval": "approved; it waits for others as well",
        "Approved": "approved; the requester has to give a fresh code before it is granted",
    }
    print(f"{name} {says.get(status['phase'], 'approved and granted')}")


def shown(request: dict[str, Any]) -> list[str]:
    """All that there is to know of a request before one approves it."""
    from webhook.cli.elevation import printable

    spec, status = request["spec"], request["status"]
    who = spec["requester"]
    where = f" from {who['clientAddress']}" if who.get("clientAddress") else ""
    lines = [f"{who['username']}{where} asked {_age(request)} ago for:"]
    if pipeline := who.get("workload"):
        said = ", ".join(f"{key} {value}" for key, value in (pipeline.get("claims") or {}).items())
        lines.append(f"  it is a pipeline: {pipeline['subject']} of {pipeline['issuer']} ({said})")
    for one in spec["operations"]:
        change = f": {one['change']}" if one.get("change") else ""
        lines.append(f"  {one['operation']} {one['target']}{change}")
    lines.append(f"reason: {spec.get('reason') or '(none given)'}")
    for rule in status["approvals"]:
        groups = f" of {' or '.join(rule['groups'])}" if rule.get("groups") else ""
        given = f"; given by {', '.join(rule['given'])}" if rule["given"] else ""
        lines.append(f"policy {rule['policy']}, rule {rule['rule']}: {rule['count']} approval(s){groups}{given}")
    if status.get("expiresAt"):
        lines.append(f"it lapses at {status['expiresAt']}")
    return [printable(line) for line in lines]


def _checked(name: str) -> str:
    if not name.replace("-", "").isalnum():
        raise ElevateError(f"{name!r} is not the name of a request; `kubectl elevate approvals` lists them", USAGE)
    return name


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    from webhook.cli.elevation import printable

    spec = one["spec"]
    what = "; ".join(
        f"{line['operation']} {line['target']} {line.get('change', '')}".strip() for line in spec["operations"]
    )
    texts = (one["metadata"]["name"], spec["requester"]["username"], what, spec.get("reason", ""), _age(one))
    return tuple(map(printable, texts))


def _age(one: dict[str, Any]) -> str:
    created = one["metadata"].get("creationTimestamp")
    if not created:
        return "?"
    # A time in UTC, to the second: all that Python 3.11 and later read alike.
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()))
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
