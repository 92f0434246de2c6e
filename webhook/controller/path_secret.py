"""The random last part of the webhook's path: the API server does not say who it is, its knowledge of it does."""

from __future__ import annotations

import re
import secrets as randomness
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import structlog

from webhook.adapters.kube import KubeClient, object_path
from webhook.controller.secrets import Secrets
from webhook.controller.trust import Trust
from webhook.settings import Settings

KEY: Final = "path"
NEXT: Final = "next"
PREVIOUS: Final = "previous"
SINCE: Final = "since"  # when the present stage began
PROPAGATION_SECONDS: Final = 300.0  # a kubelet takes up to two minutes to show a pod a changed Secret
RANDOM_BYTES: Final = 32
# In the path of a Service the API server takes only lower-case DNS names as segments; in a URL it takes anything.
FORM_FOR_SERVICE: Final = re.compile(r"^[a-z0-9]{16,128}$")
FORM_FOR_URL: Final = re.compile(r"^[A-Za-z0-9_-]{16,128}$")
PREFIX: Final = "/validate/"

log = structlog.get_logger("path-secret")


class PathSecret:
    """Creates the Secret if there is none, replaces its value from time to time, and shares what is in force.

    The API server quotes the whole URL to whoever it refuses while it cannot reach us. So the value does not live for
    ever: a new one is announced (``next``), used once every replica has had time to read it, and the old one
    (``previous``) is accepted until the API server has surely let go of it.

    Args:
        now: aware UTC.
    """

    def __init__(
        self,
        kube: KubeClient,
        stored: Secrets,
        settings: Settings,
        trust: Trust,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._secrets = stored
        self._settings = settings
        self._trust = trust
        self._now = now
        self._form = FORM_FOR_URL if settings.controller.webhook_url else FORM_FOR_SERVICE

    async def step(self) -> None:
        """Read or create it, and take its life one stage further when it is time.

        A Secret that was deleted is made again as it was: what we remember, or what the stored configuration still says.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        name = self._settings.controller.path_secret
        stored = await self._secrets.read(name)
        if stored is None:
            known = self._trust.path_secret or await self._configured() or randomness.token_hex(RANDOM_BYTES)
            data = await self._secrets.create_or_read(name, {KEY: known, SINCE: self._stamp()})
        else:
            data = self._next_stage(stored.data)
            if data != stored.data:
                await self._secrets.write(name, data, replacing=stored)
        value = data.get(KEY, "").strip()
        if not self._form.match(value):
            log.error("path-secret-unusable", name=name, key=KEY, way_out="delete this Secret and restart the servers")
            return
        self._trust.learn(path_secret=value)

    def _next_stage(self, data: dict[str, str]) -> dict[str, str]:
        """What the Secret should hold now."""
        rotation = self._settings.controller.path_secret_rotation_seconds
        if not self._form.match(data.get(KEY, "").strip()) or not rotation:
            return data
        age = self._age_seconds(data.get(SINCE, ""))
        if age is None:
            return {**data, SINCE: self._stamp()}
        kept = {KEY: data[KEY], SINCE: data[SINCE]}
        if NEXT in data:
            if age < PROPAGATION_SECONDS:
                return data
            log.info("path-secret-rotated")
            return {KEY: data[NEXT], PREVIOUS: data[KEY], SINCE: self._stamp()}
        if PREVIOUS in data:
            return kept if age >= PROPAGATION_SECONDS else data
        if age >= rotation:
            return {KEY: data[KEY], NEXT: randomness.token_hex(RANDOM_BYTES), SINCE: self._stamp()}
        return data

    def _stamp(self) -> str:
        return self._now().isoformat(timespec="seconds")

    def _age_seconds(self, text: str) -> float | None:
        try:
            return (self._now() - datetime.fromisoformat(text)).total_seconds()
        except (ValueError, TypeError):
            return None

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
