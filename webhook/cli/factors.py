"""`kubectl elevate factors`: the person's own authenticators, listed and removed."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlencode

from webhook.cli.elevation import step_up
from webhook.cli.exits import REFUSED, USAGE, ElevateError
from webhook.cli.kubectl import Kubectl

COLUMNS: Final = ("NAME", "TYPE", "CALLED", "GOOD FOR", "STATE", "ENROLLED", "LAST USED")
GROUP: Final = "elevation.kube-stepup.io"
NEW: Final = "new"

JSON = dict[str, Any]


def show(kubectl: Kubectl, *, as_json: bool) -> None:
    """All of them."""
    items = kubectl.get("authenticators")["items"]
    if as_json:
        print(json.dumps(items, indent=2))
        return
    if not items:
        print("None: ask an operator for a ticket, then `kubectl elevate enroll --ticket …`")
        return
    rows = [COLUMNS, *map(_row, items)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def remove(kubectl: Kubectl, wanted: str, *, factor: str, last: bool) -> None:
    """Remove one by its name or by what it is called, with a step-up.

    Raises:
        ElevateError: there is none, several are called that, it is the last one, or the step-up did not succeed.
    """
    items = kubectl.get("authenticators")["items"]
    found = [one for one in items if wanted in {one["metadata"]["name"], one["spec"].get("name")}]
    if len(found) != 1:
        problem = "several are called that; give the name" if found else "you have none of that name"
        raise ElevateError(f"{wanted}: {problem} (`kubectl elevate factors`)", USAGE)
    name, query = found[0]["metadata"]["name"], {}
    if found[0]["status"]["phase"] == "Confirmed":
        if not last and sum(one["status"]["phase"] == "Confirmed" for one in items) == 1:
            text = (
                "this is your last authenticator; without it you cannot step up, and need an operator's ticket for"
                " another. If you mean it: --yes-the-last"
            )
            raise ElevateError(text, REFUSED, "last-authenticator")
        query["elevation"] = step_up(kubectl, [own(name)], "", factor).name
    if last:
        query["last"] = "yes"
    kubectl.delete(f"authenticators/{name}?{urlencode(query)}")
    print(f"{name} removed")


def own(name: str) -> JSON:
    """What a step-up for one's own factors is for."""
    target = {"operation": "access", "group": GROUP, "resource": "authenticators", "namespace": "", "scope": "Object"}
    return {**target, "objects": [{"name": name}]}


def _row(one: JSON) -> tuple[str, ...]:
    status = one["status"]
    passkey = status.get("webauthn") or {}
    good_for = ",".join([passkey.get("rpID", ""), *(["attested"] if passkey.get("attested") else [])]).strip(",")
    state = "SUSPENDED" if passkey.get("suspended") else status["phase"]
    created = one["metadata"].get("creationTimestamp", "")[:10]
    return (
        one["metadata"]["name"],
        one["spec"]["type"],
        one["spec"].get("name", ""),
        good_for,
        state,
        created,
        status.get("lastUsedAt", "")[:10] or "never",
    )
