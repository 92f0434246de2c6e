"""`kubectl elevate status`, `list` and `revoke`: the person's own authenticators and elevations."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kubectl import Kubectl

LIVE: Final = frozenset({"Granted", "Used"})
COLUMNS: Final = ("NAME", "PHASE", "FOR", "REASON", "LEFT")


def status(kubectl: Kubectl, *, as_json: bool) -> None:
    """Whether the person is enrolled, and which elevations are good now."""
    authenticators = kubectl.get("authenticators")["items"]
    live = [one for one in kubectl.get("elevationrequests")["items"] if _is_in_force(one)]
    confirmed = [one for one in authenticators if one["status"]["phase"] == "Confirmed"]
    if as_json:
        print(json.dumps({"enrolled": bool(confirmed), "authenticators": authenticators, "elevations": live}, indent=2))
        return
    if not confirmed:
        print("Not enrolled: ask an operator for a ticket, then `kubectl elevate enroll --ticket …`")
    for one in confirmed:
        left = one["status"].get("recoveryCodesLeft", 0)
        print(f"Authenticator {one['metadata']['name']} ({one['spec']['type']}), {left} recovery codes left")
    print(f"{len(live) or 'No'} elevation{'' if len(live) == 1 else 's'} in force" + (":" if live else ""))
    _print(live)


def show_all(kubectl: Kubectl, *, as_json: bool) -> None:
    """All elevations of the person that are on record."""
    items = kubectl.get("elevationrequests")["items"]
    if as_json:
        print(json.dumps(items, indent=2))
    elif items:
        _print(items)
    else:
        print("No elevations on record")


def revoke(kubectl: Kubectl, names: list[str], *, everything: bool) -> None:
    """Revoke elevations by name, or all that are in force.

    Raises:
        ElevateError: none is named, or one is not the person's own.
    """
    if everything:
        items = kubectl.get("elevationrequests")["items"]
        names = [one["metadata"]["name"] for one in items if _is_in_force(one) or one["status"]["phase"] == "Pending"]
    elif not names:
        raise ElevateError("name the elevations to revoke (`kubectl elevate list`), or say --all", USAGE)
    for name in names:
        kubectl.delete(f"elevationrequests/{name}")
        print(f"{name} revoked")
    if not names:
        print("No elevations in force")


def _is_in_force(one: dict[str, Any]) -> bool:
    """Whether something can still be done with it; a Once proof that was used for all that it names is spent."""
    return one["status"]["phase"] in LIVE and one["status"].get("usesLeft") != 0


def _print(items: list[dict[str, Any]]) -> None:
    if not items:
        return
    rows = [COLUMNS, *(_row(one) for one in items)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return one["metadata"]["name"], one["status"]["phase"], _for(one), one["spec"].get("reason", ""), _left(one)


def _for(one: dict[str, Any]) -> str:
    found = []
    for detail in one["spec"]["details"]:
        names = ",".join(target["name"] for target in detail.get("objects") or []) or "*"
        where = f" -n {detail['namespace']}" if detail.get("namespace") else ""
        found.append(f"{detail['operation']} {detail.get('resource') or '*'}/{names}{where}")
    return "; ".join(found)


def _left(one: dict[str, Any]) -> str:
    expires_at = one["status"].get("expiresAt")
    if not expires_at or one["status"]["phase"] not in LIVE:
        return ""
    if not _is_in_force(one):
        return "used up"
    # A time in UTC, to the second: all that Python 3.11 and later read alike.
    seconds = (datetime.fromisoformat(expires_at) - datetime.now(UTC)).total_seconds()
    return f"{max(0, int(seconds))}s"
