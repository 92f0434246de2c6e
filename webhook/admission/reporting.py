"""Counts decisions in memory, and adds them to the stored reports about once a minute, off the hot path.

All replicas add to the same objects by compare-and-swap. What a replica has not stored when it is killed is lost; a
write whose answer is lost may be counted twice. The audit lines are the record; these are numbers to go by.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import structlog

from webhook.adapters.kube import JSONObject, KubeClient, own_path
from webhook.core.applicable import PolicyIndex
from webhook.core.decision import Decision
from webhook.core.report import Batch, merged_day, merged_totals
from webhook.errors import ConflictError, StoreUnavailableError

MAX_SWAP_ATTEMPTS: Final = 8
WRITE_SECONDS: Final = 5.0
TOTALS: Final = "totals"
DAY_PREFIX: Final = "day-"
API_VERSION: Final = "kube-stepup.io/v1alpha1"
KIND: Final = "StepUpReport"

log = structlog.get_logger("reporting")


class Reporting:
    """The counters of one admission replica.

    Args:
        seconds: between two times that they are stored.
        clock: seconds since the epoch.
    """

    def __init__(
        self, kube: KubeClient, index: PolicyIndex, seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._kube = kube
        self._index = index
        self._seconds = seconds
        self._clock = clock
        self._batch = Batch()
        self._woken = asyncio.Event()
        self.outcomes: dict[str, int] = {}  # plain numbers for /metrics
        self.condition: JSONObject | None = None

    def note(self, decision: Decision, user: str) -> None:
        """Count a decision that policies had a say in."""
        self.outcomes[decision.code] = self.outcomes.get(decision.code, 0) + 1
        self._batch.note(decision, user, self._clock())

    def tell(self, condition: JSONObject) -> None:
        """Store a condition (type, status, reason, message) with the totals, soon."""
        self.condition = condition
        self._woken.set()

    async def run(self) -> None:
        """Store again and again until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._seconds * random.uniform(0.7, 1.0))
            self._woken.clear()
            await self.flush()

    async def flush(self) -> None:
        """Store what was counted; what cannot be stored is kept for the next time."""
        batch, self._batch = self._batch, Batch()
        try:
            for day in list(batch.days):
                lines = batch.days[day]
                await self._swap(DAY_PREFIX + day, lambda stored, lines=lines: {"lines": merged_day(stored, lines)})  # type: ignore[misc]
                del batch.days[day]
            if not batch.is_empty or self.condition is not None:
                await self._swap(TOTALS, lambda stored: self._totals(stored, batch))
                batch.totals.clear()
        except StoreUnavailableError as error:
            log.warning("report-not-stored", code=error.code, problem=error.message)
            self._batch.merge(batch)

    def _totals(self, stored: JSONObject, batch: Batch) -> JSONObject:
        found = {"policies": merged_totals(stored, batch.totals, self._uid_of)}
        return (
            found
            if self.condition is None
            else {**found, "conditions": [_transition(stored, self.condition, self._now())]}
        )

    async def _swap(self, name: str, change: Callable[[JSONObject], JSONObject]) -> None:
        path = own_path("stepupreports", name)
        for _ in range(MAX_SWAP_ATTEMPTS):
            stored = await self._kube.get(path, timeout_seconds=WRITE_SECONDS)
            try:
                if stored is None:
                    body: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}}
                    await self._kube.create(
                        own_path("stepupreports"), {**body, **change({})}, timeout_seconds=WRITE_SECONDS
                    )
                    return
                changed = {**stored, **change(stored)}
                if changed != stored:
                    await self._kube.replace(path, changed, timeout_seconds=WRITE_SECONDS)
                return
            except ConflictError:
                await asyncio.sleep(random.uniform(0, 0.2))  # another replica was faster
        raise StoreUnavailableError("the report kept changing while it was written")

    def _uid_of(self, policy: str) -> str:
        known = self._index.policies.get(policy)
        return known.uid if known is not None else ""

    def _now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))


def _transition(stored: JSONObject, condition: JSONObject, now: str) -> JSONObject:
    """The condition with the time since when its status is what it is."""
    for before in stored.get("conditions") or []:
        if before.get("type") == condition["type"] and before.get("status") == condition["status"]:
            return {**condition, "lastTransitionTime": before.get("lastTransitionTime") or now}
    return {**condition, "lastTransitionTime": now}
