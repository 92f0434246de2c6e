"""Everything that the leader does, wired together: which loop wakes which."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from prometheus_client.core import Metric

from webhook.adapters.kube import KubeClient
from webhook.adapters.metrics import counter, gauge, gauges
from webhook.controller.bundles import ApiServiceBundle
from webhook.controller.canary import Canary, Sighting
from webhook.controller.certificates import Certificates
from webhook.controller.configuration_status import ConfigurationStatus
from webhook.controller.counts import Counts
from webhook.controller.coverage import Coverage
from webhook.controller.expiry import Expiry
from webhook.controller.loops import Loop
from webhook.controller.observed import Observed
from webhook.controller.path_secret import PathSecret
from webhook.controller.policy_status import Applied, PolicyStatus
from webhook.controller.secrets import Secrets
from webhook.controller.trust import Trust
from webhook.controller.webhooks import WebhookConfiguration
from webhook.settings import Settings

LOOP_FAILING_SECONDS: Final = 60.0


class Leader:
    """One term: made anew each time that this process becomes the leader, so that nothing is remembered too long.

    Args:
        connect: opens a further client, with a connection of its own.
    """

    def __init__(
        self, kube: KubeClient, settings: Settings, connect: Callable[[], Awaitable[KubeClient]] | None = None
    ) -> None:
        options = settings.controller
        seconds = float(options.sync_seconds)
        stored = Secrets(kube, settings.namespace)
        trust = Trust()
        self._trust = trust
        self._observed = Observed(kube, self._policies_changed)
        self._status = PolicyStatus(kube, options, self._observed)
        self._operators = ConfigurationStatus(kube, self._configuration_changed)
        self._operators_loop = Loop("configuration-status", self._operators.step, seconds)
        self._counts = Counts(kube, options, self._observed, self._counted)
        self._status.counts = self._counts.of
        self._canary = Canary(
            connect or (lambda: KubeClient.connect(settings.kubeconfig)), self._observed, self._sighted
        )
        self._stored: Applied | None = None
        self._configuration = WebhookConfiguration(kube, settings, self._observed, trust, on_applied=self._applied)
        self._status_loop = Loop("policy-status", self._status.step, seconds)
        self._configuration_loop = Loop("webhook-configuration", self._configuration.step, seconds)
        self._canary_loop = Loop("canary", self._canary.step, options.canary_seconds)
        self._bundle_loop = Loop("api-service-bundle", ApiServiceBundle(kube, settings, trust).step, seconds)
        self.loops = [
            Loop("path-secret", PathSecret(kube, stored, settings, trust).step, seconds),
            Loop("certificates", Certificates(stored, settings, trust).step, seconds),
            self._bundle_loop,
            self._status_loop,
            self._operators_loop,
            Loop("expiry", Expiry(kube, settings).step, options.expiry_interval_seconds),
            Loop("counts", self._counts.step, options.counts_seconds),
        ]
        if options.manage_webhook_configuration:
            self.loops += [self._configuration_loop, self._canary_loop]

    @property
    def problem(self) -> str:
        """What keeps this leader from its work; empty when all goes well."""
        failing = [loop.name for loop in self.loops if loop.failing_seconds > LOOP_FAILING_SECONDS]
        return f"failing for a minute: {', '.join(failing)}" if failing else self._observed.ground.problem

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._observed.ground.run())
            for watch in (*self._observed.watches, self._operators.watch):
                group.create_task(watch.run())
            for loop in self.loops:
                group.create_task(loop.run())
            group.create_task(self._pass_on())

    def metrics(self) -> Iterable[Metric]:
        """For ``/metrics``."""
        yield counter(
            "kube_stepup_webhook_configuration_drift",
            "How often somebody else had changed or deleted the webhook configuration.",
            self._configuration.drift,
        )
        yield gauges("kube_stepup_policies", "Policies by state.", "state", self._status.states())
        silent = {watch.path.rpartition("/")[2]: watch.silent_seconds for watch in self._observed.watches}
        yield gauges("kube_stepup_watch_silent_seconds", "Since a watch last heard anything.", "watch", silent)
        failing = {loop.name: loop.failing_seconds for loop in self.loops}
        yield gauges("kube_stepup_loop_failing_seconds", "For how long a loop has not succeeded.", "loop", failing)
        seen = self._status.applied is not None and self._status.doubt is None
        yield gauge("kube_stepup_canary_seen", "1 while canaries see the stored webhook configuration.", seen)
        sound = not self._observed.ground.problem
        yield gauge("kube_stepup_api_group_sound", "0 while our API group is not served from our definitions.", sound)

    async def _pass_on(self) -> None:
        for watch in self._observed.watches:
            await watch.wait_synced()
        self._policies_changed()
        while True:
            await self._trust.changed.wait()
            self._trust.changed.clear()
            self._configuration_loop.wake()
            self._bundle_loop.wake()

    def _policies_changed(self) -> None:
        self._configuration_loop.wake()
        self._status_loop.wake()

    def _configuration_changed(self) -> None:
        self._operators_loop.wake()

    def _counted(self) -> None:
        self._status_loop.wake()

    def _applied(self, coverage: Coverage, generations: dict[str, int], configuration: str) -> None:
        news = Applied(coverage, generations, configuration)
        if news != self._stored:
            self._stored = news
            self._canary.wanted = configuration
            self._canary_loop.wake()

    def _sighted(self, sighting: Sighting) -> None:
        before = (self._status.applied, self._status.doubt)
        if sighting.reason:
            self._status.doubt = sighting
        elif self._stored is not None and self._stored.configuration == sighting.configuration:
            self._status.applied, self._status.doubt = self._stored, None
        if before != (self._status.applied, self._status.doubt):
            self._status_loop.wake()
