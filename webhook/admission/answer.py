"""AdmissionReview answers as bytes: Allowed, Denied, Errored. A denial never carries more than its author wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from webhook.core.decision import Decision
from webhook.core.hold import Hold
from webhook.core.refusal import audit_annotations, causes, message, warning
from webhook.core.request import AdmissionRequest

FORBIDDEN = 403
MAX_NOTES = 8  # the API server cuts all warnings of an answer at 4,096 letters
TOO_MANY_REQUESTS = 429
MAX_WARNING_LETTERS = 250  # the API server cuts a warning at 256

_encode = msgspec.json.Encoder().encode
_PREFIX = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":'
_ALLOWED = b',"allowed":true}}'


def allowed(uid: str, notes: Sequence[str] = ()) -> bytes:
    """The request passes without a word, or with these warnings."""
    if notes:
        return _review({"uid": uid, "allowed": True, "warnings": _warnings(notes)})
    return _PREFIX + _encode(uid) + _ALLOWED


def allowed_with(uid: str, decision: Decision, notes: Sequence[str] = ()) -> bytes:
    """The request passes; the API server's audit log is told why, and the person is warned where a policy says so."""
    response: dict[str, Any] = {"uid": uid, "allowed": True, "auditAnnotations": audit_annotations(decision)}
    warn = [demand for demand in decision.would_deny if demand.enforcement == "Warn"]
    if warn:
        shown = msgspec.structs.replace(decision, would_deny=tuple(warn))
        response["warnings"] = [_one_line(warning(shown))]
    if decision.applicable.broken_by:
        names = ", ".join(decision.applicable.broken_by)
        response.setdefault("warnings", []).append(f"kube-stepup: you broke the glass of {names}; this is recorded")
    if notes:
        response["warnings"] = [*response.get("warnings", ()), *_warnings(notes)]
    return _review(response)


def denied(request: AdmissionRequest, decision: Decision) -> bytes:
    """The request is refused for want of a step-up."""
    return _refused(request, decision, FORBIDDEN, "Forbidden", {})


def held(request: AdmissionRequest, decision: Decision, hold: Hold) -> bytes:
    """The request is to be tried again: the step-up that it needs is under way. client-go does so by itself."""
    return _refused(request, decision, TOO_MANY_REQUESTS, "TooManyRequests", {"retryAfterSeconds": hold.retry_seconds})


def _refused(request: AdmissionRequest, decision: Decision, code: int, reason: str, more: dict[str, Any]) -> bytes:
    target = decision.unmet[0].action.target
    details = {"name": target.name, "group": target.group, "kind": target.resource, "causes": causes(decision), **more}
    status = _status(code, reason, message(decision), details)
    return _review(
        {"uid": request.uid, "allowed": False, "status": status, "auditAnnotations": audit_annotations(decision)}
    )


def errored(uid: str, status_code: int, reason: str, text: str, code: str) -> bytes:
    """The request is refused because it, or we, could not be relied on."""
    details = {"causes": [{"reason": code, "field": "code", "message": code}]}
    status = _status(status_code, reason, f"kube-stepup: {text} (code: {code})", details)
    return _review({"uid": uid, "allowed": False, "status": status, "auditAnnotations": {"code": code}})


def invalid(uid: str, text: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """An object of ours cannot be used as it stands; ``fields`` are (path, what is wrong with it)."""
    found = [{"reason": "FieldValueInvalid", "field": field, "message": problem} for field, problem in fields]
    return _review({"uid": uid, "allowed": False, "status": _status(422, "Invalid", text, {"causes": found})})


def _status(code: int, reason: str, text: str, details: dict[str, Any]) -> dict[str, Any]:
    return {"status": "Failure", "code": code, "reason": reason, "message": text, "details": details}


def _review(response: dict[str, Any]) -> bytes:
    return _encode({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})


def _warnings(notes: Sequence[str]) -> list[str]:
    return [_one_line(note) for note in notes[:MAX_NOTES]]


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_WARNING_LETTERS else line[: MAX_WARNING_LETTERS - 1] + "…"
