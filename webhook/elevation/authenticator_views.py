"""What people see of authenticators: the objects of the aggregated API, never with a secret."""

from __future__ import annotations

from typing import Any

from webhook.adapters.authenticator_store import Authenticator, PersonRecord
from webhook.elevation.lifecycle import rfc3339
from webhook.elevation.resources import GROUP_VERSION

JSON = dict[str, Any]


def authenticator_object(one: Authenticator, status: JSON) -> JSON:
    """An Authenticator."""
    metadata = {"name": one.name, "creationTimestamp": rfc3339(one.created_at)}
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "Authenticator",
        "metadata": metadata,
        "spec": {"type": one.type, **({"name": one.label} if one.label else {})},
        "status": status,
    }


def status_of(one: Authenticator, record: PersonRecord) -> JSON:
    """Where its enrolment stands, when it was used, and what a passkey is like."""
    if not one.confirmed:
        return {"phase": "Pending"}
    found: JSON = {"phase": "Confirmed", "recoveryCodesLeft": len(record.recovery)}
    if one.last_used_at:
        found["lastUsedAt"] = rfc3339(one.last_used_at)
    if (passkey := one.passkey) is not None:
        found["webauthn"] = {
            "rpID": passkey.rp_id,
            "aaguid": passkey.aaguid,
            "transports": list(passkey.transports),
            "backupEligible": passkey.backup_eligible,
            "backedUp": passkey.backed_up,
            "attested": passkey.attested,
            "signCount": passkey.sign_count,
            "suspended": bool(passkey.suspended_at),
        }
    return found


def confirmation_object(name: str, status: JSON) -> JSON:
    """The result of a confirmation."""
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "AuthenticatorConfirmation",
        "metadata": {"name": name},
        "status": status,
    }


def done_object(kind: str, username: str, status: JSON) -> JSON:
    """The result of what an operator did to somebody's authenticators."""
    return {"apiVersion": GROUP_VERSION, "kind": kind, "metadata": {}, "spec": {"username": username}, "status": status}
