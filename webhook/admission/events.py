"""A Kubernetes Event for every request that passed by breaking glass, beside the object that it was about.

Written behind the answer's back: a request never waits for its Event. The audit line is written in any case, and has
the credential-id; the Event, which many may read, has not.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from webhook.adapters.kube import KubeClient, object_path
from webhook.core.applicable import NAMESPACES
from webhook.core.decision import Decision
from webhook.core.request import AdmissionRequest
from webhook.errors import StoreUnavailableError

MAX_WAITING: Final = 256
MAX_NOTE_LETTERS: Final = 1000  # the API server takes 1,024 bytes of note; what names hold is ASCII, but for usernames
CLUSTER_SCOPED_NAMESPACE: Final = "default"  # where the API server wants the Events of what has no namespace
CONTROLLER: Final = "kube-stepup.io/admission"

log = structlog.get_logger("events")


class BrokenGlassEvents:
    """Writes the Events one after the other; a flood beyond the queue is in the audit alone."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)

    def tell(self, request: AdmissionRequest, decision: Decision) -> None:
        """Take in a request that passed; never waits and never fails."""
        try:
            self._waiting.put_nowait(_event(request, decision, datetime.now(UTC)))
        except asyncio.QueueFull:
            log.warning("event-dropped", request_uid=request.uid)

    async def drained(self) -> None:
        """Wait until everything that came in has been written, or given up."""
        await self._waiting.join()

    async def run(self) -> None:
        """Write what comes in, for ever."""
        while True:
            event = await self._waiting.get()
            path = object_path("events.k8s.io", "v1", "events", namespace=event["metadata"]["namespace"])
            try:
                await self._kube.create(path, event)
            except StoreUnavailableError as error:
                log.warning("event-not-written", code=error.code, problem=error.message)
            finally:
                self._waiting.task_done()


def _event(request: AdmissionRequest, decision: Decision, now: datetime) -> dict[str, Any]:
    resource = request.resource
    namespace = "" if (resource.group, resource.resource) == NAMESPACES else request.namespace
    name = decision.actions[0].target.name if decision.actions else request.name
    operations = ", ".join(sorted({action.operation for action in decision.actions})) or request.operation.lower()
    policies = ", ".join(decision.applicable.broken_by)
    subresource = f"/{request.sub_resource}" if request.sub_resource else ""
    note = (
        f"{request.user_info.username} broke the glass of {policies}: "
        f"{operations} {resource.resource}{subresource} {name}"
    )
    regarding = {
        "apiVersion": f"{resource.group}/{resource.version}".lstrip("/"),
        "kind": resource.resource if request.sub_resource else request.kind.kind,
        "name": name,
        **({"namespace": namespace} if namespace else {}),
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"kube-stepup-break-glass-{secrets.token_hex(8)}",
            "namespace": namespace or CLUSTER_SCOPED_NAMESPACE,
        },
        "eventTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": "Warning",
        "reason": "BreakGlass",
        "action": "BreakGlass",
        "note": note.encode()[:MAX_NOTE_LETTERS].decode(errors="ignore"),
        "regarding": regarding,
        "reportingController": CONTROLLER,
        "reportingInstance": socket.gethostname()[:128],
    }
