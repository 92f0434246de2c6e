"""CustomResourceDefinitions, as far as they are kept: where custom resources have their replicas.

Their schemas can be large; they are skipped while they are read, so neither a list nor an event of them costs memory.
"""

from __future__ import annotations

from typing import Any

import msgspec

from webhook.core.applicable import PolicyIndex


class _Named(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Names(msgspec.Struct, frozen=True):
    plural: str = ""


class _Scale(msgspec.Struct, frozen=True, rename="camel"):
    spec_replicas_path: str = ""


class _Subresources(msgspec.Struct, frozen=True):
    scale: _Scale | None = None


class _Version(msgspec.Struct, frozen=True):
    subresources: _Subresources | None = None


class _Spec(msgspec.Struct, frozen=True):
    group: str = ""
    names: _Names = _Names()
    versions: tuple[_Version, ...] = ()


class Definition(msgspec.Struct, frozen=True):
    """What is read of a CustomResourceDefinition."""

    metadata: _Named = _Named()
    spec: _Spec = _Spec()


class DefinitionSink:
    """Learns where custom resources keep their replicas."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index

    def put(self, obj: dict[str, Any]) -> None:
        """Take in a CustomResourceDefinition."""
        spec = msgspec.convert(obj, Definition).spec
        scales = [one.subresources.scale for one in spec.versions if one.subresources and one.subresources.scale]
        paths = [scale.spec_replicas_path for scale in scales if scale.spec_replicas_path]
        self._index.catalog.put_definition(spec.group, spec.names.plural, paths)

    def remove(self, name: str) -> None:
        """Forget a CustomResourceDefinition."""
        plural, _, group = name.partition(".")
        self._index.catalog.remove_definition(group, plural)
