"""Sees by canaries (:mod:`webhook.core.canary`) that the API server has loaded the configuration that is stored.

Every canary goes over a connection of its own, so that several API servers behind one address are likely all reached;
those that were not reached are not vouched for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from webhook.adapters.kube import AnswerError, KubeClient, own_path
from webhook.controller.observed import Observed, ObservedPolicy
from webhook.core.canary import field_manager, seen
from webhook.errors import StoreUnavailableError

CONNECTIONS: Final = 3
ATTEMPTS: Final = 20  # an API server takes a changed configuration within a moment
PAUSE_SECONDS: Final = 0.15
NOT_FOUND: Final = 404
NOT_YET_SEEN: Final = "NotYetSeen"
FAILED: Final = "CanaryFailed"

log = structlog.get_logger("canary")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What canaries showed of a configuration (its digest); ``reason`` is empty when it was seen."""

    configuration: str
    reason: str = ""
    message: str = ""


class CanaryError(StoreUnavailableError):
    """A canary did not come back; the next step sends another."""

    code = "canary-failed"


class Canary:
    """The loop that sends canaries for the stored configuration.

    Args:
        connect: opens a client with a connection of its own.
        on_sighting: called with each result.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[KubeClient]],
        observed: Observed,
        on_sighting: Callable[[Sighting], None],
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._connect = connect
        self._observed = observed
        self._on_sighting = on_sighting
        self._pause_seconds = pause_seconds
        self.wanted = ""

    async def step(self) -> None:
        """Send canaries until all came back, for a few seconds at most.

        Raises:
            CanaryError: one did not; the caller has been told.
        """
        wanted = self.wanted
        policy = min(self._observed.objects.values(), key=lambda one: one.name, default=None)
        if not wanted or policy is None:
            return
        problem = Sighting(wanted)
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._pause_seconds)
            problem = await self._look(wanted, policy)
            if wanted != self.wanted:
                return  # there is a newer one: this step is taken again
            if not problem.reason:
                self._on_sighting(problem)
                return
        self._on_sighting(problem)
        raise CanaryError(problem.message)

    async def _look(self, wanted: str, policy: ObservedPolicy) -> Sighting:
        for _ in range(CONNECTIONS):
            try:
                async with await self._connect() as kube:
                    warnings = await kube.warnings_of_dry_run(
                        own_path("stepuppolicies", policy.name, "status"),
                        {"status": {"observedGeneration": policy.generation}},
                        field_manager=field_manager(wanted),
                    )
            except StoreUnavailableError as error:
                if isinstance(error, AnswerError) and error.status == NOT_FOUND:
                    return Sighting(wanted, NOT_YET_SEEN, "The policy that the canary was sent for is gone.")
                log.info("canary-failed", configuration=wanted, code=CanaryError.code, problem=error.message)
                return Sighting(
                    wanted, FAILED, "A canary was refused: the webhook, or the API server, does not answer."
                )
            if not any(seen(wanted) in text for text in warnings):
                text = "An API server has not loaded the webhook configuration: nobody was asked about the canary."
                return Sighting(wanted, NOT_YET_SEEN, text)
        return Sighting(wanted)
