"""StepUpConfiguration (``kube-stepup.io/v1alpha1``): the one object by which operators extend the built-in tables.

What it lists is added to what is built in (``core/catalog.py``); nothing built in can be taken away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from webhook.core.cel.condition import Condition
from webhook.core.operation import DELETE, DEPLOY, GUARD, OPERATIONS
from webhook.errors import PolicyError

API_VERSION: Final = "kube-stepup.io/v1alpha1"
KIND: Final = "StepUpConfiguration"
NAME: Final = "default"
MAX_ENTRIES: Final = 256
CLASSES: Final = tuple(one for one in OPERATIONS if one != GUARD)
VERBS: Final = ("create", "update", "delete")
_RESOURCE: Final = re.compile(r"[a-z0-9*?.-]{1,253}/[a-z0-9*?-]{1,63}")
_KEY: Final = re.compile(r"[A-Za-z0-9*?._/-]{1,317}")
_FIELD: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    pass


class DeadlyMetadataSpec(_Strict, frozen=True, kw_only=True):
    """A label or annotation that somebody obeys: a glob of its key, and the effect that a change of it has."""

    key: str
    class_: str = msgspec.field(default=DELETE, name="class")


class DeputySpec(_Strict, frozen=True, kw_only=True):
    """A kind whose objects make a controller act, and the effect that this has.

    ``fields`` are paths from the object's root; a change elsewhere has no effect. ``when`` is CEL, as in a policy's
    conditions: one that cannot be evaluated counts as true.
    """

    resource: str
    operation: str = DEPLOY
    verbs: tuple[str, ...] = ("create", "update")
    fields: tuple[str, ...] = ()
    when: str = ""


class ConfigurationSpec(_Strict, frozen=True, kw_only=True):
    """``spec`` of a StepUpConfiguration."""

    deadly_metadata: tuple[DeadlyMetadataSpec, ...] = ()
    deputies: tuple[DeputySpec, ...] = ()


class Configuration:
    """A checked StepUpConfiguration. Make one with :meth:`parse`.

    ``conditions`` are the compiled ``when`` of the deputies, None where there is none.
    """

    def __init__(self, spec: ConfigurationSpec, conditions: tuple[Condition | None, ...], generation: int = 0) -> None:
        self.spec = spec
        self.conditions = conditions
        self.generation = generation

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Configuration:
        """Read a StepUpConfiguration object.

        Raises:
            PolicyError: it cannot be used; ``field`` says where.
        """
        if obj.get("apiVersion") != API_VERSION or obj.get("kind") != KIND:
            raise PolicyError(f"must be a {KIND} of {API_VERSION}", field="apiVersion, kind")
        metadata = obj.get("metadata") or {}
        if metadata.get("name") != NAME:
            raise PolicyError(f"must be {NAME}: there is one for the whole cluster", field="metadata.name")
        try:
            spec = msgspec.convert(obj.get("spec") or {}, ConfigurationSpec)
        except msgspec.ValidationError as error:
            text, _, path = str(error).partition(" - at `$")
            raise PolicyError(text[:1].lower() + text[1:], field="spec" + path.rstrip("`")) from error
        for name, entries in (("deadlyMetadata", spec.deadly_metadata), ("deputies", spec.deputies)):
            if len(entries) > MAX_ENTRIES:
                raise PolicyError(f"must have at most {MAX_ENTRIES} entries", field=f"spec.{name}")
        for position, one in enumerate(spec.deadly_metadata):
            _check_metadata(one, f"spec.deadlyMetadata[{position}]")
        conditions = tuple(_checked(one, f"spec.deputies[{n}]") for n, one in enumerate(spec.deputies))
        return cls(spec, conditions, int(metadata.get("generation") or 0))

    def contains(self, other: Configuration) -> bool:
        """Whether every entry of another one is in this one: then nothing is asked less."""
        mine = {*map(repr, self.spec.deadly_metadata), *map(repr, self.spec.deputies)}
        return {*map(repr, other.spec.deadly_metadata), *map(repr, other.spec.deputies)} <= mine


def _check_metadata(one: DeadlyMetadataSpec, field: str) -> None:
    if not _KEY.fullmatch(one.key):
        raise PolicyError("must be the key of a label or annotation; * and ? are wildcards", field=f"{field}.key")
    _one_of(one.class_, CLASSES, f"{field}.class")


def _checked(one: DeputySpec, field: str) -> Condition | None:
    if not _RESOURCE.fullmatch(one.resource):
        text = "must be GROUP/RESOURCE, such as argoproj.io/applications or core/secrets; * and ? are wildcards"
        raise PolicyError(text, field=f"{field}.resource")
    _one_of(one.operation, CLASSES, f"{field}.operation")
    if not one.verbs:
        raise PolicyError("must name at least one of create, update and delete, or be left out", field=f"{field}.verbs")
    for position, verb in enumerate(one.verbs):
        _one_of(verb, VERBS, f"{field}.verbs[{position}]")
    for position, path in enumerate(one.fields):
        if not _FIELD.fullmatch(path):
            raise PolicyError("must be a path such as spec.source", field=f"{field}.fields[{position}]")
    return Condition.compile(one.when, f"{field}.when") if one.when else None


def _one_of(value: str, allowed: tuple[str, ...], field: str) -> None:
    if value not in allowed:
        raise PolicyError(f"must be one of {', '.join(allowed)}, not {value!r}", field=field)
