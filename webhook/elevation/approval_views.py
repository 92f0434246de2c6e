"""What an approver sees: exactly what a request is for, who asks, and which policies want somebody else to agree.

The words for a change ("replicas 3 → 0") are shown only beside its digest, and admission compares both with what is really
done: a request that says one thing and does another does not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from webhook.core.operation import DELETE, RESTART, digest
from webhook.core.requirement import Requirement, merged
from webhook.elevation.granting import Missing
from webhook.elevation.resources import GROUP_VERSION

UNCHANGING: Final = frozenset({DELETE, RESTART})
SEEN_HEX_DIGITS: Final = 32
ANY_CHANGE: Final = "any change"

JSON = dict[str, Any]


def approval_request(
    elevation: JSON, phase: str, requirements: Sequence[Requirement], rules: Sequence[Missing]
) -> JSON:
    """An ApprovalRequest: a waiting ElevationRequest as an approver sees it."""
    spec, stored = elevation["spec"], elevation["metadata"]
    metadata = {key: stored[key] for key in ("name", "uid", "creationTimestamp") if key in stored}
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "ApprovalRequest",
        "metadata": metadata,
        "spec": {
            "requester": {
                "username": spec["user"]["username"],
                "clientAddress": spec.get("clientAddress", ""),
                "userAgent": spec.get("userAgent", ""),
                **({"workload": spec["workload"]} if spec.get("workload") else {}),
            },
            "reason": spec.get("reason", ""),
            "operations": operations(spec["details"]),
        },
        "status": {
            "phase": phase,
            "requirement": merged(requirements).to_dict(),
            "approvals": [_rule(one) for one in rules],
            "expiresAt": (elevation.get("status") or {}).get("expiresAt", ""),
            "seen": seen(elevation, requirements),
        },
    }


def seen(elevation: JSON, requirements: Sequence[Requirement]) -> str:
    """Digest of all that an approver is shown: an approval for what has changed since does not count."""
    rules = sorted((one.full_name, one.approvals.to_dict()) for one in requirements if one.approvals is not None)
    return digest(elevation["metadata"].get("uid", ""), elevation["spec"], rules)[:SEEN_HEX_DIGITS]


def operations(details: Sequence[JSON]) -> list[JSON]:
    """Each operation on each target, with its change."""
    found = []
    for detail in details:
        for one in detail.get("objects") or [{}]:
            line = {
                "operation": detail["operation"],
                "target": _target(detail, one),
                "change": _change(detail["operation"], one),
                "uid": one.get("uid", ""),
                "digest": one.get("digest", ""),
            }
            found.append({key: value for key, value in line.items() if value})
    return found


def sentence(details: Sequence[JSON]) -> list[str]:
    """The same as lines of text."""
    return [
        f"{one['operation']} {one['target']}" + (f": {one['change']}" if one.get("change") else "")
        for one in operations(details)
    ]


def _target(detail: JSON, one: JSON) -> str:
    resource, group = detail.get("resource", ""), detail.get("group", "")
    kind = f"{resource}.{group}" if group else resource
    where = f" in {detail['namespace']}" if detail.get("namespace") else ""
    if detail["scope"] == "Namespace":
        return f"everything in {detail['namespace']}"
    return f"{kind}/{one['name']}{where}" if one.get("name") else f"all {kind}{where}"


def _change(operation: str, one: JSON) -> str:
    if one.get("digest"):
        return str(one.get("change") or f"the change with digest {one['digest'][:16]}")
    return "" if operation in UNCHANGING else ANY_CHANGE


def _rule(one: Missing) -> JSON:
    requirement = one.requirement
    asked = requirement.approvals.to_dict() if requirement.approvals is not None else {}
    return {"policy": requirement.policy, "rule": requirement.rule, **asked, "given": list(one.given)}
