"""The life of an Elevation: which phase it is in at a given time, and whether it can still be answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from webhook.errors import RequestError

LIVE_PHASES: Final = frozenset({"Granted", "Used"})
ENDED_PHASES: Final = frozenset({"Denied", "Expired", "Revoked"})
AWAITING: Final = "AwaitingApproval"
APPROVED: Final = "Approved"  # by all who had to; what is missing is a fresh code of the person who asked
OPEN_PHASES: Final = frozenset({"Pending", AWAITING, APPROVED})
ANSWERABLE_PHASES: Final = frozenset({"Pending", APPROVED})
ENDING_PHASES: Final = LIVE_PHASES | {AWAITING, APPROVED}

JSON = dict[str, Any]


class Lifecycle:
    """Tells the phase of a record, which nobody writes down when time alone ends it."""

    def __init__(self, pending_lifetime_seconds: int) -> None:
        self._pending_lifetime_seconds = pending_lifetime_seconds

    def phase(self, elevation: JSON, now: float) -> str:
        """The phase at ``now`` (seconds since the epoch)."""
        status = elevation.get("status") or {}
        phase = str(status.get("phase") or "Pending")
        if phase == "Pending" and self._lapses_at(elevation) < now:
            return "Expired"
        if phase in ENDING_PHASES and status.get("expiresAt") and epoch_seconds(status["expiresAt"]) <= now:
            return "Expired"
        return phase

    def takes_room(self, elevation: JSON, now: float) -> bool:
        """Whether it counts among those that wait for an answer.

        One that was revoked unanswered still does until it would have lapsed: who asks and revokes in a loop must not fill
        the cluster with records.
        """
        phase = self.phase(elevation, now)
        unanswered = not (elevation.get("status") or {}).get("issuedAt")
        return phase == "Pending" or (phase == "Revoked" and unanswered and self._lapses_at(elevation) >= now)

    def check_answerable(self, elevation: JSON, now: float) -> None:
        """Refuse an answer to what was answered, was revoked or has lapsed.

        Raises:
            RequestError: ``not-pending``.
        """
        phase = self.phase(elevation, now)
        if phase in ANSWERABLE_PHASES:
            return
        text = (
            "this request has lapsed; ask again"
            if phase == "Expired"
            else f"this request is {phase} already; ask again"
        )
        raise RequestError(text, code="not-pending", status=409, reason="Conflict")

    def _lapses_at(self, elevation: JSON) -> float:
        return epoch_seconds(elevation["metadata"]["creationTimestamp"]) + self._pending_lifetime_seconds


def rfc3339(seconds: float) -> str:
    """A time as Kubernetes writes it (metav1.Time: whole seconds, UTC)."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch_seconds(text: str) -> float:
    """The same, read back."""
    return datetime.fromisoformat(text).timestamp()
