"""The random last part of the webhook's path, made once: the API server does not say who it is, its knowledge does."""

from __future__ import annotations

import re
import secrets as randomness
from typing import Final
from urllib.parse import urlsplit

import structlog

from webhook.adapters.kube import KubeClient, object_path
from webhook.controller.secrets import Secrets
from webhook.controller.trust import Trust
from webhook.settings import Settings

KEY: Final = "path"
RANDOM_BYTES: Final = 32
# In the path of a Service the API server takes only lower-case DNS names as segments; in a URL it takes anything.
FORM_FOR_SERVICE: Final = re.compile(r"^[a-z0-9]{16,128}$")
FORM_FOR_URL: Final = re.compile(r"^[A-Za-z0-9_-]{16,128}$")
PREFIX: Final = "/validate/"

log = structlog.get_logger("path-secret")


class PathSecret:
    """Creates the Secret if there is none, and shares what it holds."""

    def __init__(self, kube: KubeClient, stored: Secrets, settings: Settings, trust: Trust) -> None:
        self._kube = kube
        self._secrets = stored
        self._settings = settings
        self._trust = trust
        self._form = FORM_FOR_URL if settings.controller.webhook_url else FORM_FOR_SERVICE

    async def step(self) -> None:
        """Read or create it.

        Servers read the value when they start. So one that was deleted is made again as it was: what we remember, or
        what the stored configuration still says.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        name = self._settings.controller.path_secret
        stored = await self._secrets.read(name)
        if stored is None:
            known = self._trust.path_secret or await self._configured() or randomness.token_hex(RANDOM_BYTES)
            value = (await self._secrets.create_or_read(name, {KEY: known})).get(KEY, "")
        else:
            value = stored.data.get(KEY, "")
        value = value.strip()
        if not self._form.match(value):
            log.error("path-secret-unusable", name=name, key=KEY, way_out="delete this Secret and restart the servers")
            return
        self._trust.learn(path_secret=value)

    async def _configured(self) -> str:
        name = self._settings.controller.webhook_configuration
        live = await self._kube.get(
            object_path("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", name=name)
        )
        for entry in (live or {}).get("webhooks") or []:
            client = entry.get("clientConfig") or {}
            path = (client.get("service") or {}).get("path") or urlsplit(client.get("url") or "").path
            value = path.removeprefix(PREFIX)
            if path.startswith(PREFIX) and self._form.match(value):
                return str(value)
        return ""
