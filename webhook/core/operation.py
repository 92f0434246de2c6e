"""The vocabulary of what can be done: operation classes, targets, and one action on one target.

A class is an **effect**; every road to the effect belongs to it (docs/bypasses.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

DELETE: Final = "delete"
SCALE: Final = "scale"
EXEC: Final = "exec"
RESTART: Final = "restart"
DEPLOY: Final = "deploy"
DRAIN: Final = "drain"
ACCESS: Final = "access"
GUARD: Final = "guard"

OPERATIONS: Final = (ACCESS, DELETE, DEPLOY, DRAIN, EXEC, GUARD, RESTART, SCALE)

MAX_SHOWN_LETTERS: Final = 200
CHANGE_PREFIX_LENGTH: Final = 16
"""Hexadecimal digits of a digest that a person carries in ``--change``: 64 bits, bound to one person and one target."""


class Target(msgspec.Struct, frozen=True):
    """One object that something is done to. ``namespace`` is empty for cluster-scoped objects, Namespaces too.

    ``uid`` is empty when the review does not tell it (exec, eviction, create).
    """

    group: str
    resource: str
    namespace: str
    name: str
    uid: str = ""

    @property
    def group_resource(self) -> str:
        """``apps/deployments``; the core group is called ``core``."""
        return f"{self.group or 'core'}/{self.resource}"

    @property
    def argument(self) -> str:
        """As ``kubectl`` takes it: ``deployments.apps/web``, ``pods/web-1``."""
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{kind}/{self.name}"

    def describe(self) -> str:
        """For people: ``deployments.apps/web in prod``."""
        return f"{self.argument} in {self.namespace}" if self.namespace else self.argument

    def use_key(self, operation: str) -> str:
        """SHA-256 (hex) of operation and target: what a `Once` proof can be used for one time."""
        parts = (operation, self.group, self.resource, self.namespace, self.name, self.uid)
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


class Takes(msgspec.Struct, frozen=True):
    """What goes along with a target (``core/cascades.py``).

    Args:
        resources: kinds, such as ``apps/replicasets``.
        namespace: where they lie; ``*`` for anywhere.
        labels: label sets that they have; None when nobody knows.
    """

    resources: tuple[str, ...]
    namespace: str
    labels: tuple[Mapping[str, str], ...] | None = None


class Action(msgspec.Struct, frozen=True):
    """One effect on one target.

    Args:
        operation: a class, or a raw operation (``core/raw.py``).
        change: SHA-256 (hex) of what exactly is changed, so that proof for image A does not let image B pass.
        repeatable: whether asking again would produce the same ``change`` (a restart carries the time of day).
        also: classes whose rules apply as well: a changed pod template replaces the running pods as surely as a restart
            does, and an eviction is what a drain is made of.
        cascade: the target takes objects of any kind with it (a Namespace).
        takes: what of other kinds goes along; None when nothing does.
        replicas_from, replicas_to: for ``scale``; None when unknown.
        details: for people and the audit: ``replicas 3 → 0``, ``image c: a → b``, ``command ls -l``.
    """

    operation: str
    target: Target
    change: str
    repeatable: bool = True
    also: tuple[str, ...] = ()
    cascade: bool = False
    takes: Takes | None = None
    replicas_from: int | None = None
    replicas_to: int | None = None
    details: str = ""

    @property
    def shown(self) -> str:
        """``details`` in a form that survives command lines and logs: what an approver reads, and what is compared later."""
        return plain(self.details)

    def with_uid(self, uid: str) -> Action:
        """The same action with the target's uid, once somebody has read it."""
        return msgspec.structs.replace(self, target=msgspec.structs.replace(self.target, uid=uid))


def plain(text: str) -> str:
    """One line of printable letters without quotes and backslashes, cut to what a person reads."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text.translate(_QUOTES)).split())
    return line if len(line) <= MAX_SHOWN_LETTERS else line[: MAX_SHOWN_LETTERS - 1] + "…"


_QUOTES: Final = str.maketrans({"'": "`", '"': "`", "\\": "/"})


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of JSON values; mappings are sorted, so equal values give equal digests."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
