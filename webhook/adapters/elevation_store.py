"""Elevation objects as the elevation server writes them: asked for, granted, revoked."""

from __future__ import annotations

import base64
import secrets
from typing import Any, Final
from urllib.parse import urlencode

from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.kube import JSONObject, KubeClient, own_path
from webhook.errors import ConflictError, StoreUnavailableError

NAME_BYTES: Final = 13  # 104 bits, of which 100 show
NAME_LETTERS: Final = 20
SWAP_ATTEMPTS: Final = 5
MAX_AWAITING: Final = 500


class ElevationStore:
    """Creates and changes Elevations; every change is a compare-and-swap."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def create(self, username: str, spec: JSONObject, name: str = "") -> JSONObject:
        """Store what somebody asks for, under an unguessable name that will be the assertion's ``jti``.

        Args:
            name: a name that is good once, in place of an unguessable one.

        Raises:
            ConflictError: there is one of that name.
        """
        metadata = {"name": name or new_name(), "labels": {USER_LABEL: user_hash(username)}}
        body = {"apiVersion": "kube-stepup.io/v1alpha1", "kind": "Elevation", "metadata": metadata, "spec": spec}
        return await self._kube.create(own_path("elevations"), body)

    async def read(self, name: str) -> JSONObject | None:
        """One by name; None when there is none."""
        return await self._kube.get(own_path("elevations", name))

    async def of_user(self, username: str) -> list[JSONObject]:
        """All of a person, newest first."""
        query = urlencode({"labelSelector": f"{USER_LABEL}={user_hash(username)}"})
        page = await self._kube.get(f"{own_path('elevations')}?{query}")
        mine = [one for one in (page or {}).get("items") or [] if one["spec"]["user"]["username"] == username]
        return sorted(mine, key=lambda one: str(one["metadata"].get("creationTimestamp")), reverse=True)

    async def awaiting_approval(self) -> list[JSONObject]:
        """All that wait for approval, oldest first, at most 500."""
        query = urlencode({"fieldSelector": "status.phase=AwaitingApproval", "limit": MAX_AWAITING})
        page = await self._kube.get(f"{own_path('elevations')}?{query}")
        found = [
            one
            for one in (page or {}).get("items") or []
            if (one.get("status") or {}).get("phase") == "AwaitingApproval"
        ]
        return sorted(found, key=lambda one: str(one["metadata"].get("creationTimestamp")))

    async def set_status(self, elevation: JSONObject, status: dict[str, Any]) -> JSONObject:
        """Change fields of the status, if nobody changed the object since it was read.

        Raises:
            ConflictError: somebody did.
        """
        body = {"metadata": {"resourceVersion": elevation["metadata"]["resourceVersion"]}, "status": status}
        return await self._kube.merge_patch(own_path("elevations", elevation["metadata"]["name"], "status"), body)

    async def revoke(self, elevation: JSONObject, status: dict[str, Any]) -> JSONObject:
        """Mark as revoked whatever happens to it meanwhile (a use must not undo it).

        Raises:
            StoreUnavailableError: it could not be stored.
        """
        current: JSONObject | None = elevation
        for _ in range(SWAP_ATTEMPTS):
            if current is None:
                return elevation
            try:
                return await self.set_status(current, status)
            except ConflictError:
                current = await self.read(elevation["metadata"]["name"])
        raise StoreUnavailableError("the elevation keeps changing")


def new_name() -> str:
    """``elv-`` and 20 letters of a-z2-7: 100 random bits."""
    text = base64.b32encode(secrets.token_bytes(NAME_BYTES)).decode().lower()
    return f"elv-{text[:NAME_LETTERS]}"
