"""The condition *Accepted* of the StepUpConfiguration: whether admission can use it as it stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from webhook.adapters.kube import AnswerError, JSONObject, KubeClient, own_path
from webhook.adapters.watches import Watched
from webhook.controller.policy_status import NOT_FOUND, Verdict, conditions
from webhook.core.configuration import API_VERSION, KIND, NAME, Configuration
from webhook.errors import ConflictError, PolicyError

log = structlog.get_logger("configuration-status")


class ConfigurationStatus:
    """Follows the object, and the loop over its status; writes only what changed.

    Args:
        on_change: called when there is news of the object.
        now: aware UTC.
    """

    def __init__(
        self,
        kube: KubeClient,
        on_change: Callable[[], None],
        *,
        stall_seconds: int = 90,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._on_change = on_change
        self._now = now
        self._stored: JSONObject | None = None
        path = own_path("stepupconfigurations")
        self.watch = Watched(kube, path, self, retain=True, stall_seconds=stall_seconds)

    def put(self, obj: JSONObject) -> None:
        """Take in the object."""
        if obj["metadata"]["name"] == NAME:
            self._stored = obj
            self._on_change()

    def remove(self, name: str) -> None:
        """Forget the object."""
        if name == NAME:
            self._stored = None

    async def step(self) -> None:
        """Write the status if it is not what it should be.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        if self._stored is None:
            return
        metadata = self._stored["metadata"]
        generation = int(metadata.get("generation") or 0)
        stored = self._stored.get("status") or {}
        found = conditions(stored.get("conditions") or [], generation, [_verdict(self._stored)], self._now())
        status = {"observedGeneration": generation, "conditions": found}
        if all(stored.get(key) == value for key, value in status.items()):
            return
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        try:
            self._stored = await self._kube.merge_patch(own_path("stepupconfigurations", NAME, "status"), body)
        except ConflictError:
            return  # a newer version is on its way to us
        except AnswerError as error:
            if error.status != NOT_FOUND:
                raise
            return  # deleted meanwhile
        log.info("configuration-status-written", generation=generation)


def _verdict(obj: JSONObject) -> Verdict:
    try:
        Configuration.parse({"apiVersion": API_VERSION, "kind": KIND, **obj})
    except PolicyError as error:
        log.warning("configuration-not-accepted", code=error.code, problem=str(error))
        text = f"{error}. What was in force before, or the built-in tables, stays in force."
        return Verdict("Accepted", "False", "Invalid", text)
    return Verdict("Accepted", "True", "Valid", "Its entries are added to the built-in tables.")
