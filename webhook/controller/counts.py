"""Brings what the admission replicas have counted into the status of each policy, and deletes old reports.

A status never goes back: what it says is the greater of itself and the totals, until the totals begin anew (they were
deleted, or the policy was made anew), and then it says since when.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from webhook.adapters.kube import JSONObject, KubeClient, own_path
from webhook.controller.observed import Observed, ObservedPolicy
from webhook.core.report import Totals, read_totals
from webhook.settings import ControllerSettings

TOTALS: Final = own_path("stepupreports", "totals")
DAY_PREFIX: Final = "day-"
NUMBERS: Final = ("matched", "refused", "wouldRefuse")


class Counts:
    """The loop over the reports.

    Args:
        on_change: called when a policy has other numbers than before.
        now: aware UTC.
    """

    def __init__(
        self,
        kube: KubeClient,
        options: ControllerSettings,
        observed: Observed,
        on_change: Callable[[], None],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._options = options
        self._observed = observed
        self._on_change = on_change
        self._now = now
        self._totals: dict[str, Totals] = {}
        self._began = now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self._pruned_on = ""

    async def step(self) -> None:
        """Read the totals, and once a day delete the reports of days that are over for long.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        stored = await self._kube.get(TOTALS) or {}
        found = {one.policy: one for one in read_totals(stored)}
        if found != self._totals:
            self._totals = found
            self._on_change()
        today = self._now().date()
        if self._pruned_on != str(today):
            await self._prune(DAY_PREFIX + str(today - timedelta(days=self._options.keep_report_days)))
            self._pruned_on = str(today)

    def of(self, policy: ObservedPolicy) -> JSONObject:
        """The fields of a policy's status: counts, and since when they count."""
        before = policy.status
        kept: JSONObject = {key: before.get(key, 0) for key in NUMBERS}
        kept["countedSince"] = before.get("countedSince") or self._began
        if before.get("lastRefusedAt"):
            kept["lastRefusedAt"] = before["lastRefusedAt"]
        totals = self._totals.get(policy.name)
        if totals is None or (totals.uid and totals.uid != policy.uid):
            return kept
        numbers = {"matched": totals.matched, "refused": totals.refused, "wouldRefuse": totals.would_refuse}
        restarted = any(numbers[key] < kept[key] for key in NUMBERS)
        last = {"lastRefusedAt": totals.last_refused_at} if totals.last_refused_at else {}
        return {**kept, **numbers, **last, "countedSince": totals.since if restarted else kept["countedSince"]}

    async def _prune(self, oldest: str) -> None:
        async for page in self._kube.pages(own_path("stepupreports")):
            for report in page.get("items") or []:
                name = str(report["metadata"]["name"])
                if name.startswith(DAY_PREFIX) and name < oldest:
                    await self._kube.delete(own_path("stepupreports", name))
