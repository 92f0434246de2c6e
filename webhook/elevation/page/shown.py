"""What a page shows of a request, an authenticator and an elevation: plain words, made from the stored records."""

from __future__ import annotations

from typing import Any, Final

from webhook.adapters.authenticator_store import Authenticator, PersonRecord
from webhook.adapters.passkey import Passkey
from webhook.elevation.lifecycle import LIVE_PHASES, rfc3339

MAX_SHOWN: Final = 25

JSON = dict[str, Any]


def actions(details: list[JSON]) -> list[JSON]:
    """One line for each object: operation, what, namespace."""
    found = []
    for detail in details:
        group, resource = detail.get("group", ""), detail.get("resource", "")
        kind = f"{resource}.{group}" if group else resource
        names = [one["name"] for one in detail.get("objects") or []]
        whats = [f"{kind}/{name}" for name in names] or [f"all {kind}" if kind else "everything"]
        found += [
            {"operation": detail["operation"], "what": what, "namespace": detail.get("namespace", "")} for what in whats
        ]
    return found


def factor(one: Authenticator) -> JSON:
    """An authenticator of the person's own."""
    passkey = one.passkey
    return {
        "name": one.name,
        "label": one.label or one.name,
        "description": _description(passkey) if passkey else "Authenticator app (one-time codes)",
        "suspended": bool(passkey and passkey.suspended_at),
        "created_at": rfc3339(one.created_at),
        "last_used_at": rfc3339(one.last_used_at) if one.last_used_at else "",
    }


def elevations(shown: list[JSON]) -> list[JSON]:
    """Elevations of the person's own, as the aggregated API shows them; the newest few."""
    return [
        {
            "name": one["metadata"]["name"],
            "phase": one["status"]["phase"],
            "actions": actions(one["spec"]["details"]),
            "reason": one["spec"].get("reason", ""),
            "factor": one["status"].get("factor", ""),
            "acr": one["status"].get("acr", ""),
            "expires_at": one["status"].get("expiresAt", ""),
            "uses": one["status"].get("uses", 0),
            "is_live": one["status"]["phase"] in {*LIVE_PHASES, "Pending"},
        }
        for one in shown[:MAX_SHOWN]
    ]


def label_of(record: PersonRecord, name: str) -> str:
    """What the person calls an authenticator; its name where it is not there (any more)."""
    return next((one.label or one.name for one in record.authenticators if one.name == name), name)


def _description(passkey: Passkey) -> str:
    kept = "kept by a passkey provider, on several devices" if passkey.backup_eligible else "on one device"
    if passkey.attested:
        kept = "in hardware, attested"
    where = "for pages of your own terminal" if passkey.is_local else f"for {passkey.rp_id}"
    return f"Passkey or security key, {kept}; {where}"
