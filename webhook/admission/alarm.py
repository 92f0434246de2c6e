"""Somebody broke the glass: people are told, once a minute for each person, however many requests it was."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from webhook.adapters.notices import plain
from webhook.core.decision import Decision
from webhook.core.request import AdmissionRequest

QUIET_SECONDS: Final = 60.0
MAX_PEOPLE: Final = 256
MAX_LINES: Final = 10


class BreakGlassAlarm:
    """Words the notice and keeps it from repeating.

    Args:
        tell: queues a notice.
        clock: seconds; only differences count.
    """

    def __init__(self, tell: Callable[..., None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._told: OrderedDict[str, float] = OrderedDict()

    def tell(self, request: AdmissionRequest, decision: Decision) -> None:
        """A request has passed because its user may break the glass of a policy."""
        username, now = request.user_info.username, self._clock()
        if now - self._told.get(username, float("-inf")) < QUIET_SECONDS:
            return
        self._told[username] = now
        self._told.move_to_end(username)
        while len(self._told) > MAX_PEOPLE:
            self._told.popitem(last=False)
        what = [f"{one.operation} {one.target.describe()}" for one in decision.actions[:MAX_LINES]]
        self._tell(
            "break-glass",
            f"kube-stepup: {plain(username)} broke the glass of {', '.join(decision.applicable.broken_by)}",
            *(plain(line) for line in what),
            "What follows within a minute is in the audit log alone.",
        )
