"""Refusals as Kubernetes speaks them: ``metav1.Status``, with the stable code at the end of the message."""

from __future__ import annotations

from typing import Any

from webhook.errors import RequestError


def failure(error: RequestError) -> dict[str, Any]:
    """The Status of a refusal. It holds what the error's author wrote for people, and nothing else."""
    text = f"{error.field}: {error.message}" if error.field else error.message
    details: dict[str, Any] = {
        "causes": [{"reason": error.code, "message": error.message, "field": error.field or "code"}]
    }
    if error.retry_after_seconds:
        details["retryAfterSeconds"] = error.retry_after_seconds
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"{text} (code: {error.code})",
        "reason": error.reason,
        "details": details,
        "code": error.status,
    }


def success(name: str, kind: str) -> dict[str, Any]:
    """The Status of a deletion."""
    details = {"name": name, "kind": kind}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details, "code": 200}
