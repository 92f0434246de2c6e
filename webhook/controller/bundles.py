"""Puts the CA bundle into the APIService, so that the aggregation layer believes the elevation server, and keeps it there.

The bundle of the webhook entries is part of what :mod:`webhook.controller.webhooks` renders.
"""

from __future__ import annotations

import base64
from typing import Final

import structlog

from webhook.adapters.kube import KubeClient, object_path
from webhook.controller.trust import Trust
from webhook.settings import Settings

GROUP: Final = "apiregistration.k8s.io"

log = structlog.get_logger("bundles")


class ApiServiceBundle:
    """The loop over one APIService; the chart makes the object."""

    def __init__(self, kube: KubeClient, settings: Settings, trust: Trust) -> None:
        self._kube = kube
        self._trust = trust
        name = settings.controller.api_service
        self._path = object_path(GROUP, "v1", "apiservices", name=name) if name else ""

    async def step(self) -> None:
        """Compare once, and write if it differs.

        Raises:
            StoreUnavailableError: the API server refused, was not there, or somebody else was faster.
        """
        if not (self._path and self._trust.elevation):
            return
        live = await self._kube.get(self._path)
        if live is None:
            return
        spec = live.get("spec") or {}
        bundle = base64.b64encode(self._trust.elevation.encode("ascii")).decode("ascii")
        if spec.get("caBundle") == bundle and not spec.get("insecureSkipTLSVerify"):
            return
        version = live["metadata"]["resourceVersion"]
        await self._kube.merge_patch(
            self._path,
            {
                "metadata": {"resourceVersion": version},
                "spec": {"caBundle": bundle, "insecureSkipTLSVerify": False},
            },
        )
        log.info("ca-bundle-written", api_service=live["metadata"]["name"])
