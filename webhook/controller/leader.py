"""Everything that the leader does, wired together: which loop wakes which."""

from __future__ import annotations

import asyncio

from webhook.adapters.kube import KubeClient
from webhook.controller.bundles import ApiServiceBundle
from webhook.controller.certificates import Certificates
from webhook.controller.configuration_status import ConfigurationStatus
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


class Leader:
    """One term: made anew each time that this process becomes the leader, so that nothing is remembered too long."""

    def __init__(self, kube: KubeClient, settings: Settings) -> None:
        options = settings.controller
        seconds = float(options.sync_seconds)
        stored = Secrets(kube, settings.namespace)
        trust = Trust()
        self._trust = trust
        self._observed = Observed(kube, self._policies_changed)
        self._status = PolicyStatus(kube, options, self._observed)
        self._operators = ConfigurationStatus(kube, self._configuration_changed)
        self._operators_loop = Loop("configuration-status", self._operators.step, seconds)
        configuration = WebhookConfiguration(kube, settings, self._observed, trust, on_applied=self._applied)
        self._status_loop = Loop("policy-status", self._status.step, seconds)
        self._configuration_loop = Loop("webhook-configuration", configuration.step, seconds)
        self._bundle_loop = Loop("api-service-bundle", ApiServiceBundle(kube, settings, trust).step, seconds)
        self.loops = [
            Loop("path-secret", PathSecret(kube, stored, settings, trust).step, seconds),
            Loop("certificates", Certificates(stored, settings, trust).step, seconds),
            self._bundle_loop,
            self._status_loop,
            self._operators_loop,
            Loop("expiry", Expiry(kube, settings).step, options.expiry_interval_seconds),
        ]
        if options.manage_webhook_configuration:
            self.loops.append(self._configuration_loop)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in (*self._observed.watches, self._operators.watch):
                group.create_task(watch.run())
            for loop in self.loops:
                group.create_task(loop.run())
            group.create_task(self._pass_on())

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

    def _applied(self, coverage: Coverage, generations: dict[str, int]) -> None:
        news = Applied(coverage, generations)
        if news != self._status.applied:
            self._status.applied = news
            self._status_loop.wake()
