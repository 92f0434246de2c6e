"""Which refused requests are told to try again, and how many of them: a hold is a convenience and must not become a flood."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from webhook.adapters.pending_elevations import PendingElevations
from webhook.core.decision import HELD, Decision
from webhook.core.hold import Hold, hold_for
from webhook.core.request import AdmissionRequest

MAX_PER_MINUTE: Final = 60
MAX_PEOPLE: Final = 1024
MINUTE: Final = 60.0
_WAITS_FOR: Final = {
    "Pending": "waits for your code",
    "AwaitingApproval": "waits for approval",
    "Approved": "is approved and waits for your code",
}


class Holds:
    """Decides about holds; counts them by person, in this process.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, pending: PendingElevations, clock: Callable[[], float]) -> None:
        self._pending = pending
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def hold(self, request: AdmissionRequest, decision: Decision) -> Hold | None:
        """Whether a refused request is to be tried again.

        Streams are not: their clients do not wait. Nor is whoever was told so sixty times in a minute.
        """
        if request.operation == "CONNECT" or not any(one.requirement.hold_seconds for one in decision.unmet):
            return None
        user = request.user_info
        now = self._clock()
        found = hold_for(decision.unmet, user, self._pending.of_user(user.username), now)
        return found if found is not None and self._has_room(user.username, now) else None

    @staticmethod
    def explained(decision: Decision, hold: Hold) -> Decision:
        """The refusal, which now says what is waited for."""
        text = f"your request {hold.names[0]} {_WAITS_FOR[hold.phase]}"
        return msgspec.structs.replace(decision, code=HELD, message=text)

    def _has_room(self, username: str, now: float) -> bool:
        since, count = self._counts.pop(username, (now, 0))
        if now - since >= MINUTE:
            since, count = now, 0
        self._counts[username] = (since, count + 1)
        while len(self._counts) > MAX_PEOPLE:
            self._counts.popitem(last=False)
        return count < MAX_PER_MINUTE
