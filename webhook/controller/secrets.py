"""Secrets of our own namespace as texts: create or read, and compare-and-swap."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from webhook.adapters.kube import JSONObject, KubeClient, object_path
from webhook.errors import ConflictError

OPAQUE: Final = "Opaque"
TLS: Final = "kubernetes.io/tls"


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A Secret as it was read.

    Args:
        data: decoded values; one that is not text is left out.
    """

    resource_version: str
    data: dict[str, str] = field(repr=False)


class Secrets:
    """Reads and writes Secrets of one namespace."""

    def __init__(self, kube: KubeClient, namespace: str, labels: dict[str, str] | None = None) -> None:
        self._kube = kube
        self._namespace = namespace
        self._labels = labels or {
            "app.kubernetes.io/name": "kube-stepup",
            "app.kubernetes.io/managed-by": "kube-stepup",
        }

    async def read(self, name: str) -> StoredSecret | None:
        """The Secret, or None when there is none.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        obj = await self._kube.get(self._path(name))
        return None if obj is None else _decoded(obj)

    async def write(
        self, name: str, data: dict[str, str], *, replacing: StoredSecret | None, kind: str = OPAQUE
    ) -> None:
        """Create the Secret, or replace it if it is still as it was read.

        Raises:
            ConflictError: somebody else was faster.
            StoreUnavailableError: the API server refused, or was not there.
        """
        metadata: JSONObject = {"name": name, "namespace": self._namespace, "labels": self._labels}
        encoded = {key: base64.b64encode(value.encode()).decode("ascii") for key, value in data.items()}
        body: JSONObject = {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": encoded}
        if replacing is None:
            await self._kube.create(self._path(""), body)
            return
        metadata["resourceVersion"] = replacing.resource_version
        await self._kube.replace(self._path(name), body)

    async def create_or_read(self, name: str, data: dict[str, str]) -> dict[str, str]:
        """Create the Secret with these values, or return those that it has already.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        stored = await self.read(name)
        if stored is None:
            try:
                await self.write(name, data, replacing=None)
            except ConflictError:
                stored = await self.read(name)
        return data if stored is None else stored.data

    def _path(self, name: str) -> str:
        return object_path("", "v1", "secrets", namespace=self._namespace, name=name)


def _decoded(obj: JSONObject) -> StoredSecret:
    values: dict[str, str] = {}
    for key, value in (obj.get("data") or {}).items():
        try:
            values[key] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue  # not a text, so none of ours: the reader finds it missing
    return StoredSecret(obj["metadata"].get("resourceVersion", ""), values)
