"""Marks Elevations whose time is over and deletes old records.

Only housekeeping: what an assertion may still do is decided by its own ``exp`` and by admission, never by this loop. A
record is kept while its assertion could still be valid, since its uses are what ``Once`` is enforced with.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

import structlog

from webhook.adapters.kube import AnswerError, JSONObject, KubeClient, own_path
from webhook.errors import ConflictError
from webhook.settings import Settings

ENDS_BY_ITSELF: Final = ("Pending", "AwaitingApproval", "Approved", "Granted")
UNANSWERED: Final = ("Pending", "Expired", "Revoked")
UNANSWERED_KEEP_SECONDS: Final = 900  # there is no assertion that its record could matter to, and the audit has it
NOT_FOUND: Final = 404

log = structlog.get_logger("expiry")


class Due(Enum):
    """What is to be done with a record."""

    NOTHING = "nothing"
    EXPIRE = "expire"
    DELETE = "delete"


def due(elevation: JSONObject, settings: Settings, now: datetime) -> Due:
    """What is to be done with a record now.

    A Pending one without an end of its own ends after ``pendingLifetimeSeconds``; any other is taken to be valid for
    as long as an assertion can be. What was never answered is not kept: a revoked one goes at once, a lapsed one soon.
    """
    status = elevation.get("status") or {}
    phase = status.get("phase") or "Pending"
    created = _time(elevation["metadata"].get("creationTimestamp")) or now
    longest = created + timedelta(seconds=settings.assertion_max_lifetime_seconds)
    end = _time(status.get("expiresAt"))
    pending_end = created + timedelta(seconds=settings.elevation.pending_lifetime_seconds)
    if phase in UNANSWERED and end is None and not status.get("issuedAt"):
        gone_at = now if phase == "Revoked" else pending_end + timedelta(seconds=UNANSWERED_KEEP_SECONDS)
        if now >= gone_at:
            return Due.DELETE
        return Due.EXPIRE if phase == "Pending" and now >= pending_end else Due.NOTHING
    end = end or longest
    if now >= max(end, longest) + timedelta(seconds=settings.elevation.keep_record_seconds):
        return Due.DELETE
    if phase in ENDS_BY_ITSELF and now >= end:
        return Due.EXPIRE
    return Due.NOTHING


class Expiry:
    """The loop over all Elevations.

    Args:
        now: aware UTC.
    """

    def __init__(
        self, kube: KubeClient, settings: Settings, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._now = now

    async def step(self) -> None:
        """Look at every record once.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        expired = deleted = 0
        async for page in self._kube.pages(own_path("elevations")):
            for elevation in page.get("items") or []:
                action = due(elevation, self._settings, self._now())
                if action is Due.EXPIRE:
                    expired += await self._expire(elevation)
                elif action is Due.DELETE:
                    deleted += await self._delete(elevation)
        if expired or deleted:
            log.info("elevations-cleaned", expired=expired, deleted=deleted)

    async def _expire(self, elevation: JSONObject) -> bool:
        metadata = elevation["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"phase": "Expired"}}
        try:
            await self._kube.merge_patch(own_path("elevations", metadata["name"], "status"), body)
        except ConflictError:
            return False  # just used or revoked: that stands
        except AnswerError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        return True

    async def _delete(self, elevation: JSONObject) -> bool:
        metadata = elevation["metadata"]
        try:
            return await self._kube.delete(
                own_path("elevations", metadata["name"]), resource_version=metadata["resourceVersion"]
            )
        except ConflictError:
            return False  # changed meanwhile: the next round looks again


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
