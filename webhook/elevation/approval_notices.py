"""What people are told: approvals wanted, given and denied, authenticators bound and removed. Nothing in it grants anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from webhook.adapters.notices import plain
from webhook.core.requirement import Requirement, merged
from webhook.elevation.approval_views import sentence
from webhook.elevation.identity import Requester

JSON = dict[str, Any]
MAX_LINES = 10


class Tell(Protocol):
    """Queues a notice (``adapters/notices.py``)."""

    def __call__(self, event: str, title: str, *lines: str) -> None:
        """Queue it; never waits and never fails."""


class ApprovalNotices:
    """Words the notices."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def wanted(self, elevation: JSON, requirements: Sequence[Requirement]) -> None:
        """Somebody waits for approval."""
        rules = [one for one in requirements if one.approvals is not None]
        asked = merged(requirements).approvals
        self._tell(
            "approval-wanted",
            f"kube-stepup: {_requester(elevation)} asks for approval",
            *_operations(elevation),
            f"Reason: {plain(elevation['spec'].get('reason') or 'none given')}",
            f"Needs {' and '.join(plain(one.describe()) for one in asked)}"
            f" (policy {', '.join(sorted({one.policy for one in rules}))})",
            f"To see it and decide: kubectl elevate approve {elevation['metadata']['name']}",
        )

    def given(self, elevation: JSON, approver: Requester, phase: str) -> None:
        """Somebody has approved."""
        more = {"AwaitingApproval": "More approvals are needed.", "Approved": "It waits for a fresh code of who asked."}
        self._tell(
            "approval-given",
            f"kube-stepup: {plain(approver.username)} approved a request of {_requester(elevation)}",
            *_operations(elevation),
            more.get(phase, "It is granted."),
        )

    def denied(self, elevation: JSON, approver: Requester, reason: str) -> None:
        """Somebody has denied."""
        self._tell(
            "approval-denied",
            f"kube-stepup: {plain(approver.username)} denied a request of {_requester(elevation)}",
            *_operations(elevation),
            f"Because: {plain(reason or 'no reason given')}",
        )


class EnrolmentNotices:
    """What people are told about authenticators: the two ways in which one can change hands.

    Args:
        tell: None tells nobody.
    """

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell

    def enrolled(self, requester: Requester, factor: str) -> None:
        """Somebody has bound an authenticator."""
        if self._tell is not None:
            title = f"kube-stepup: {plain(requester.username)} has a new authenticator ({factor})"
            text = f"From {plain(requester.client_address)}. If that was not them: stepup reset {plain(requester.username)}"
            self._tell("authenticator-enrolled", title, text)

    def reset(self, operator: Requester, username: str) -> None:
        """An operator has removed somebody's authenticators."""
        if self._tell is not None:
            title = f"kube-stepup: {plain(operator.username)} removed all authenticators of {plain(username)}"
            self._tell(
                "authenticator-reset", title, "They enrol anew with a ticket. If nobody asked for that, look into it."
            )


def _requester(elevation: JSON) -> str:
    return plain(elevation["spec"]["user"]["username"])


def _operations(elevation: JSON) -> list[str]:
    lines = [plain(line) for line in sentence(elevation["spec"]["details"])]
    return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"… and {len(lines) - MAX_LINES} more"]
