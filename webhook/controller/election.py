"""One leader among the controller's replicas, by a Lease (coordination.k8s.io/v1), as client-go does it.

``kubernetes.aio.leaderelection`` is not used: a broken connection leaves it by an exception while the leader's work goes
on, cancelling it leaves the work running too, it does not notice when the work dies, it measures its lease with a clock
that can be set back, and it never gives the lease up, so that every restart costs a whole lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from webhook.adapters.kube import JSONObject, KubeClient, object_path
from webhook.errors import ConflictError, StoreUnavailableError

GROUP: Final = "coordination.k8s.io"
# client-go's defaults (tools/leaderelection): a leader stops itself a while before others may take over.
LEASE_SECONDS: Final = 15
RENEW_DEADLINE_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2.0
CALL_SECONDS: Final = 3.0

log = structlog.get_logger("election")


class Election:
    """Runs something while this process is the leader.

    Args:
        identity: unique to this process.
        monotonic: seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        kube: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        retry_seconds: float = RETRY_SECONDS,
        renew_deadline_seconds: float = RENEW_DEADLINE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._collection = object_path(GROUP, "v1", "leases", namespace=namespace)
        self._path = object_path(GROUP, "v1", "leases", namespace=namespace, name=name)
        self._name = name
        self._identity = identity
        self._retry_seconds = retry_seconds
        self._renew_deadline_seconds = renew_deadline_seconds
        self._monotonic = monotonic
        self._seen: tuple[str, str] = ("", "")  # holder and resourceVersion
        self._seen_at = 0.0
        self.heard_at: float | None = None  # monotonic; when the API server last answered
        self.leads = False

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Become the leader and run ``lead``, again and again, until cancelled.

        Raises:
            Exception: whatever ``lead`` raised; the lease has been given up then.
        """
        while True:
            while not await self._try():  # noqa: ASYNC110 - a Lease can only be polled
                await asyncio.sleep(self._retry_seconds)
            log.info("leading", identity=self._identity)
            await self._lead(lead)

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        self.leads = True
        work = asyncio.ensure_future(lead())
        renewed_at = self._monotonic()
        try:
            while self._monotonic() - renewed_at < self._renew_deadline_seconds:
                await asyncio.wait([work], timeout=self._retry_seconds)
                if work.done():
                    await work
                    raise RuntimeError("what the leader does must not end by itself")
                if await self._try():
                    renewed_at = self._monotonic()
            log.warning("leadership-lost", identity=self._identity)
        finally:
            self.leads = False
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._release()

    async def _try(self) -> bool:
        """Take the lease, or keep it; whether it is ours now."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._kube.get(self._path, timeout_seconds=CALL_SECONDS)
                self.heard_at = self._monotonic()
                if lease is None:
                    body = {"apiVersion": f"{GROUP}/v1", "kind": "Lease", "metadata": {"name": self._name}}
                    await self._kube.create(self._collection, {**body, "spec": self._spec({})})
                    return True
                if not self._free(lease):
                    return False
                await self._kube.replace(self._path, {**lease, "spec": self._spec(lease.get("spec") or {})})
                return True
        except ConflictError:
            return False  # another replica was faster
        except (StoreUnavailableError, TimeoutError) as error:
            log.warning("lease-not-renewed", problem=str(error) or type(error).__name__)
            return False

    def _free(self, lease: JSONObject) -> bool:
        """Whether we hold it, nobody does, or its holder has not been heard of for a whole lease, by our own clock."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in {"", self._identity}:
            return True
        seen = (holder, lease["metadata"].get("resourceVersion", ""))
        if seen != self._seen:
            self._seen = seen
            self._seen_at = self._monotonic()
            return False
        return self._monotonic() - self._seen_at >= (spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def _spec(self, before: JSONObject) -> JSONObject:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": before.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": (before.get("leaseTransitions") or 0) + (0 if mine else 1),
        }

    async def _release(self) -> None:
        """Give the lease up, so that another replica need not wait for it to run out."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                lease = await self._kube.get(self._path, timeout_seconds=CALL_SECONDS)
                if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self._identity:
                    return
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._kube.replace(self._path, {**lease, "spec": spec})
        except (StoreUnavailableError, TimeoutError):
            return  # then it runs out
