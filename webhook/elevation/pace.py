"""How often somebody may try: a bucket for each, which fills up again; bounded in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from webhook.errors import RequestError

REMEMBERED: Final = 4096


class _Bucket(msgspec.Struct):
    left: float
    at: float


class Pace:
    """Counts tries by whoever makes them, on this replica.

    Args:
        burst: tries that may come at once.
        per_minute: tries that come anew.
        clock: seconds since the epoch.
    """

    def __init__(self, burst: int, per_minute: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, who: str) -> None:
        """Count a try.

        Raises:
            RequestError: ``too-many-exchanges``.
        """
        now = self._clock()
        bucket = self._buckets.pop(who, None) or _Bucket(self._burst, now)
        bucket.left = min(self._burst, bucket.left + max(0.0, now - bucket.at) * self._per_second)
        bucket.at = now
        self._buckets[who] = bucket  # at the end: the first is who has not tried for the longest
        if len(self._buckets) > REMEMBERED:
            del self._buckets[next(iter(self._buckets))]
        if bucket.left < 1:
            seconds = int((1 - bucket.left) / self._per_second) + 1
            raise RequestError(
                f"too many exchanges; try again in {seconds} s",
                code="too-many-exchanges",
                status=429,
                reason="TooManyRequests",
                retry_after_seconds=seconds,
            )
        bucket.left -= 1
