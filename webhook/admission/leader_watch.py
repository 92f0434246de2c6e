"""Notices that no controller works, by its Lease, and says so: nobody else is left who could.

Only what this replica's own clock measures counts, so that a wrong clock elsewhere raises no alarm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from webhook.adapters.kube import JSONObject, KubeClient
from webhook.errors import StoreUnavailableError

CONDITION: Final = "ControllerWorking"
REPEAT_SECONDS: Final = 300.0
NO_LEADER: Final = "No controller is at work: new namespaces and policies are not guarded, and nothing is renewed."

log = structlog.get_logger("leader-watch")


class LeaderWatch:
    """The loop over the controller's Lease.

    Args:
        path: of the Lease.
        silent_seconds: a Lease that was not renewed for so long has no leader.
        tell: takes the condition whenever it changes.
        monotonic: seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        kube: KubeClient,
        path: str,
        *,
        check_seconds: float,
        silent_seconds: float,
        tell: Callable[[JSONObject], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._path = path
        self._check_seconds = check_seconds
        self._silent_limit = silent_seconds
        self._tell = tell
        self._monotonic = monotonic
        self._seen: tuple[str, str] | None = None
        self._renewed_at = monotonic()
        self._renewals = 0
        self._said_at = 0.0
        self.missing: bool | None = None  # None until it is known

    @property
    def silent_seconds(self) -> float:
        """Seconds since the Lease was last seen renewed."""
        return self._monotonic() - self._renewed_at

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._check_seconds)

    async def step(self) -> None:
        """Look once. An API server that does not answer says nothing about the controller."""
        try:
            lease = await self._kube.get(self._path, timeout_seconds=5.0)
        except StoreUnavailableError as error:
            log.warning("lease-not-read", code=error.code, problem=error.message)
            return
        spec = (lease or {}).get("spec") or {}
        seen = (str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or ""))
        if seen[0] and seen != self._seen:
            # What is there at the first look may be old; only a change shows that somebody renews it.
            self._renewals += self._seen is not None
            self._seen = seen
            self._renewed_at = self._monotonic()
        self._judge(seen[0])

    def _judge(self, holder: str) -> None:
        now = self._monotonic()
        if self.silent_seconds <= self._silent_limit:
            if self.missing is not False and self._renewals:
                log.info("leader-seen", holder=holder)
                self.missing = False
                self._tell(_condition("True", "LeaseRenewed", "A controller leads."))
            return
        if not self.missing or now - self._said_at >= REPEAT_SECONDS:
            self._said_at = now
            log.error("no-leader", code="no-leader", silent_seconds=round(self.silent_seconds), last_holder=holder)
        if not self.missing:
            self.missing = True
            self._tell(_condition("False", "NoLeader", NO_LEADER))


def _condition(status: str, reason: str, message: str) -> JSONObject:
    return {"type": CONDITION, "status": status, "reason": reason, "message": message}
