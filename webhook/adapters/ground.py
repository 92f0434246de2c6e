"""Whether our API group is still served from our own definitions: what everything that a watch tells stands on.

Somebody with the rights can point the group's APIService at a server of theirs, or delete a definition (and every object
of it with it, which no webhook is asked about). Watches then tell of deletions that nobody asked for; so a deletion of
what must not vanish is believed only while the ground is sound.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from webhook.adapters.kube import GROUP, VERSION, AnswerError, JSONObject, KubeClient, object_path, own_path
from webhook.errors import StoreUnavailableError

CHECK_SECONDS: Final = 15.0
SETTLE_SECONDS: Final = 5.0  # the API server routes by the old APIService for a moment after it was put right
FORBIDDEN: Final = 403
API_SERVICE: Final = object_path("apiregistration.k8s.io", "v1", "apiservices", name=f"{VERSION}.{GROUP}")

log = structlog.get_logger("ground")


class Ground:
    """Looks at the group's APIService and at the definitions of the kinds that must not vanish.

    Args:
        resources: plural names, such as ``stepuppolicies``.
        monotonic: seconds of a clock that only goes forward.
    """

    def __init__(
        self, kube: KubeClient, resources: tuple[str, ...], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._resources = resources
        self._monotonic = monotonic
        self._settled_at = -math.inf
        self.problem = ""  # of the last look; empty when all was well

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailableError as error:
                log.warning("ground-not-seen", code=error.code, problem=error.message)
            await asyncio.sleep(CHECK_SECONDS * random.uniform(0.8, 1.2))

    async def look(self) -> bool:
        """Whether all is well, and has been for a moment; says so when that changes.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        problem = await self._api_problem()
        for resource in self._resources:
            problem = problem or await self._definition_problem(resource)
        if problem and problem != self.problem:
            log.error(
                "api-group-unsound", code="api-group-unsound", problem=problem, kept="what was known stays in force"
            )
        elif self.problem and not problem:
            self._settled_at = self._monotonic() + SETTLE_SECONDS
            log.warning("api-group-sound-again", before=self.problem)
        self.problem = problem
        return not problem and self._monotonic() >= self._settled_at

    async def confirms(self, path: str, deleted: JSONObject) -> bool:
        """Whether an object that a watch says is deleted really is, by the definition that it was made under.

        Raises:
            StoreUnavailableError: it could not be found out; ask again.
        """
        metadata = deleted.get("metadata") or {}
        resource, name = path.rpartition("/")[2], str(metadata.get("name"))
        try:
            if await self._api_problem() or await self._definition_problem(resource, metadata.get("creationTimestamp")):
                return False
            there = await self._kube.get(own_path(resource, name))
        except AnswerError as error:
            if error.status != FORBIDDEN:
                raise
            log.exception("deletion-not-confirmed", code=error.code, resource=resource, name=name)
            return False
        return there is None or there["metadata"].get("uid") != metadata.get("uid")

    async def _api_problem(self) -> str:
        found = await self._kube.get(API_SERVICE)
        if found is None:
            return f"the APIService {VERSION}.{GROUP} is gone"
        service = (found.get("spec") or {}).get("service")
        return f"the API group {GROUP} is served by {service.get('namespace')}/{service.get('name')}" if service else ""

    async def _definition_problem(self, resource: str, made_before: str | None = None) -> str:
        """What is wrong with a definition.

        Args:
            made_before: creation time of an object; a definition that is younger than its object is another one.
        """
        name = f"{resource}.{GROUP}"
        found = await self._kube.get(object_path("apiextensions.k8s.io", "v1", "customresourcedefinitions", name=name))
        if found is None:
            return f"the CustomResourceDefinition {name} is gone"
        if found["metadata"].get("deletionTimestamp"):
            return f"the CustomResourceDefinition {name} is being deleted"
        if made_before and _later(found["metadata"].get("creationTimestamp"), made_before):
            return f"the CustomResourceDefinition {name} was made anew"
        return ""


def _later(one: str | None, other: str) -> bool:
    try:
        return bool(one) and datetime.fromisoformat(str(one)) > datetime.fromisoformat(other)
    except (ValueError, TypeError):
        return True
