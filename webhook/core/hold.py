"""Hold: a refused request is told to wait (429) while the step-up that it needs is under way.

kubectl and every client-go program wait by themselves, ask again, and pass after the touch or the approval. Only people
are held, only while a request of theirs for this very action is pending, and only as long as every policy that refused says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from webhook.core.applicable import Demand
from webhook.core.assertion import AuthorizationDetail, covers
from webhook.core.identity import SERVICE_ACCOUNT_PREFIX
from webhook.core.request import UserInfo

MIN_RETRY_SECONDS: Final = 2
MAX_RETRY_SECONDS: Final = 60
GROWTH: Final = 0.6
"""Each wait is this share of the request's age: the ten tries of client-go last some four minutes from the first second."""
ANY_CREDENTIAL: Final = frozenset({"User", "Session"})


class Pending(msgspec.Struct, frozen=True):
    """A step-up that somebody has asked for and that is not granted yet. Times are seconds since the epoch."""

    name: str
    username: str
    phase: str
    details: tuple[AuthorizationDetail, ...]
    credential_id: str
    created_at: float
    ends_at: float


class Hold(msgspec.Struct, frozen=True):
    """A request is to be tried again.

    Args:
        retry_seconds: when.
        names: the Elevations that it waits for.
        phase: how far the first of them is.
    """

    retry_seconds: int
    names: tuple[str, ...]
    phase: str


def hold_for(unmet: Sequence[Demand], user: UserInfo, pending: Iterable[Pending], now: float) -> Hold | None:
    """Whether a refused request is to wait; None when it is simply refused.

    Args:
        unmet: what nobody has proven yet.
        pending: what the person has asked for.
        now: seconds since the epoch.
    """
    if not unmet or user.username.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    mine = [one for one in pending if one.username == user.username and now < one.ends_at]
    waits: dict[str, Pending] = {}
    for demand in unmet:
        found = next((one for one in mine if _will_meet(one, demand, user, now)), None)
        if found is None:
            return None
        waits[found.name] = found
    age = max(0.0, now - min(one.created_at for one in waits.values()))
    left = min(found.created_at + demand.requirement.hold_seconds - now for demand in unmet for found in waits.values())
    seconds = min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, math.ceil(age * GROWTH)), max(1, math.ceil(left)))
    first = next(iter(waits.values()))
    return Hold(seconds, tuple(waits), first.phase)


def _will_meet(one: Pending, demand: Demand, user: UserInfo, now: float) -> bool:
    requirement = demand.requirement
    if now - one.created_at >= requirement.hold_seconds:
        return False
    if one.credential_id != user.credential_id and requirement.bind not in ANY_CREDENTIAL:
        return False
    return any(covers(detail, demand.action, requirement) for detail in one.details)
