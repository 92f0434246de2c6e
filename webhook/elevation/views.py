"""What people see of a step-up: the objects of the aggregated API, made from the stored records."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from webhook.adapters.audit import audit
from webhook.elevation.bodies import WantedElevation
from webhook.elevation.identity import Requester
from webhook.elevation.resources import GROUP_VERSION
from webhook.errors import RequestError, StepUpError

SHOWN_STATUS: Final = (
    "factor",
    "acr",
    "amr",
    "authTime",
    "expiresAt",
    "revokedAt",
    "revokedBy",
    "deniedAt",
    "deniedBy",
    "message",
)

JSON = dict[str, Any]


def wanted_spec(wanted: WantedElevation) -> JSON:
    """The spec of an ElevationRequest that is not stored yet."""
    details = [msgspec.to_builtins(one) for one in wanted.authorization_details()]
    return {"details": details, "reason": wanted.reason}


def shown(elevation: JSON, phase: str) -> JSON:
    """A stored record as its owner may see it: without the assertion."""
    status = elevation.get("status") or {}
    found = {key: status[key] for key in SHOWN_STATUS if status.get(key)}
    found["phase"] = phase
    found["uses"] = len(status.get("uses") or [])
    if (status.get("requirement") or {}).get("use") == "Once":
        found["usesLeft"] = max(0, _targets(elevation) - found["uses"])
    if given := status.get("approvals"):
        found["approvals"] = [{key: one[key] for key in ("by", "at") if key in one} for one in given]
    spec = {"details": elevation["spec"]["details"], "reason": elevation["spec"].get("reason", "")}
    return request_object(elevation["metadata"]["name"], spec, found, elevation)


def _targets(elevation: JSON) -> int:
    """How many times a Once proof can be used: for each operation and object that it names."""
    return sum(len(detail.get("objects") or [""]) for detail in elevation["spec"]["details"])


def request_object(name: str, spec: JSON, status: JSON, elevation: JSON | None = None) -> JSON:
    """An ElevationRequest; ``elevation`` is the stored record, where there is one."""
    metadata: JSON = {"name": name} if name else {}
    if elevation is not None:
        stored = elevation["metadata"]
        metadata |= {key: stored[key] for key in ("uid", "creationTimestamp", "resourceVersion") if key in stored}
    details = [{key: value for key, value in one.items() if key != "type"} for one in spec["details"]]
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "ElevationRequest",
        "metadata": metadata,
        "spec": {**spec, "details": details},
        "status": status,
    }


def answer_object(name: str, status: JSON) -> JSON:
    """The result of an answer to the challenge of an ElevationRequest."""
    return {"apiVersion": GROUP_VERSION, "kind": "ChallengeAnswer", "metadata": {"name": name}, "status": status}


def refused_answer(error: StepUpError) -> JSON:
    """The status of an answer that was not accepted."""
    found: JSON = {"accepted": False, "code": error.code, "message": error.message}
    if isinstance(error, RequestError) and error.retry_after_seconds:
        found["retryAfterSeconds"] = error.retry_after_seconds
    return found


def not_found(name: str) -> RequestError:
    """The refusal of a name that is somebody else's, or nobody's."""
    return RequestError(f'elevationrequests "{name}" not found', code="not-found", status=404, reason="NotFound")


def check_credential(elevation: JSON, requester: Requester) -> None:
    """Refuse whoever did not ask themselves, with the very credential.

    Raises:
        RequestError: ``wrong-credential``.
    """
    if elevation["spec"].get("credentialID", "") != requester.credential_id:
        text = "answer with the credential that asked; this is another one"
        raise RequestError(text, code="wrong-credential", status=403, reason="Forbidden")


def audit_elevation(event: str, requester: Requester, elevation: JSON, **fields: Any) -> None:
    """Write an audit line about a step-up: who did it from where, for what, and the fields given."""
    spec = elevation["spec"]
    audit(
        event,
        user=requester.username,
        credential_id=requester.credential_id,
        client_address=requester.client_address,
        user_agent=requester.user_agent,
        assertion_id=elevation["metadata"]["name"],
        details=[{key: one[key] for key in one if key != "type"} for one in spec["details"]],
        reason=spec.get("reason", ""),
        **fields,
    )
