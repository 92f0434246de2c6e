"""Starts the controller: settings in, one leader among the replicas, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterable
from typing import Final

from prometheus_client.core import Metric

from webhook.adapters.audit import configure
from webhook.adapters.health import Health
from webhook.adapters.kube import KubeClient
from webhook.adapters.metrics import Metrics, gauge
from webhook.controller.election import Election
from webhook.controller.leader import Leader
from webhook.settings import Settings

SILENT_SECONDS: Final = 60.0


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: the Kubernetes API is not configured, or the health port is taken.
    """
    configure(settings.log_level)
    stop = asyncio.Event()
    events = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        events.add_signal_handler(number, stop.set)
    async with await KubeClient.connect(settings.kubeconfig) as kube:
        await Controller(kube, settings).run(stop)


class Controller:
    """One replica: a candidate, and its health checks."""

    def __init__(self, kube: KubeClient, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        self._leader: Leader | None = None
        self._election = Election(
            kube,
            namespace=settings.namespace,
            name=settings.controller.lease_name,
            identity=f"{socket.gethostname()}_{os.getpid()}",
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Take part until told to stop.

        Raises:
            ConfigurationError: the health port is taken.
        """
        works = [asyncio.create_task(self._election.run(self._lead))]
        port = self._settings.controller.health_port
        if port:
            health = Health({"/livez": self._not_live, "/readyz": self._not_ready})
            works.append(asyncio.create_task(health.serve(self._settings.bind_address, port)))
        if self._settings.metrics_port:
            metrics = Metrics(self._metrics)
            works.append(asyncio.create_task(metrics.serve(self._settings.bind_address, self._settings.metrics_port)))
        works.append(asyncio.create_task(_until(stop)))
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
        for work in done:
            work.result()

    async def _lead(self) -> None:
        self._leader = Leader(self._kube, self._settings)
        try:
            await self._leader.run()
        finally:
            self._leader = None

    def _not_live(self) -> str:
        stuck = [loop.name for loop in self._leader.loops if loop.stuck] if self._leader else []
        return f"stuck: {', '.join(stuck)}" if stuck else ""

    def _not_ready(self) -> str:
        heard = self._election.heard_at
        if heard is None or time.monotonic() - heard > SILENT_SECONDS:
            return "the Kubernetes API does not answer"
        return self._leader.problem if self._leader else ""

    def _metrics(self) -> Iterable[Metric]:
        yield gauge("kube_stepup_leader", "1 in the replica that leads.", self._leader is not None)
        if self._leader is not None:
            yield from self._leader.metrics()


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
