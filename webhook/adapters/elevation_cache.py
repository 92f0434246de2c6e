"""The Elevation objects that matter to decisions, by person: the watched copy, bounded by what is still of use."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from webhook.adapters.pending_elevations import PendingElevations
from webhook.core.decision import Record, Use

USER_LABEL: Final = "kube-stepup.io/user"
USER_HASH_HEX_DIGITS: Final = 40
KEEP_EXPIRED_SECONDS: Final = 3600.0  # so that a refusal can say "your step-up is 12 minutes old"
MAX_CANDIDATES: Final = 64

log = structlog.get_logger("elevations")


def user_hash(username: str) -> str:
    """Label value that finds the Elevations of a user; usernames themselves do not fit into a label."""
    return hashlib.sha256(username.encode()).hexdigest()[:USER_HASH_HEX_DIGITS]


class KnownElevation(msgspec.Struct, frozen=True):
    """An Elevation with an assertion. ``expires_at`` is seconds since the epoch."""

    record: Record
    unverified_token: str
    expires_at: float

    def __repr__(self) -> str:
        return f"KnownElevation({self.record.name})"


class _Use(msgspec.Struct):
    key: str
    digest: str
    at: datetime


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    assertion: str = ""
    expires_at: datetime | None = None
    uses: list[_Use] = []


class _User(msgspec.Struct):
    username: str = ""


class _Spec(msgspec.Struct):
    user: _User = msgspec.field(default_factory=_User)


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str = ""


class _Elevation(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


def read_elevation(obj: dict[str, Any]) -> KnownElevation | None:
    """What decisions need of an Elevation object; None when it carries no assertion (yet).

    Raises:
        msgspec.ValidationError: it is not an Elevation.
    """
    elevation = msgspec.convert(obj, _Elevation)
    status = elevation.status
    if not status.assertion or status.expires_at is None:
        return None
    record = Record(
        name=elevation.metadata.name,
        username=elevation.spec.user.username,
        revoked=status.phase in {"Revoked", "Denied"},
        uses=tuple(Use(use.key, use.digest, use.at.timestamp()) for use in status.uses),
        resource_version=elevation.metadata.resource_version,
    )
    return KnownElevation(record, status.assertion, status.expires_at.timestamp())


class ElevationCache:
    """A sink for watched Elevations, asked by person and by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, KnownElevation] = {}
        self._by_user: dict[str, dict[str, KnownElevation]] = {}
        self.pending = PendingElevations()

    def __len__(self) -> int:
        return len(self._by_name)

    def put(self, obj: dict[str, Any]) -> None:
        """Take in an Elevation object."""
        self.pending.put(obj)
        known = read_elevation(obj)
        if known is not None:
            self.learn(known)

    def learn(self, known: KnownElevation) -> None:
        """Take in an Elevation that was read already; an older version never replaces a newer one."""
        name = known.record.name
        before = self._by_name.get(name)
        if before is not None and _version(before) > _version(known):
            return
        self._by_name[name] = known
        self._by_user.setdefault(known.record.username, {})[name] = known

    def remove(self, name: str) -> None:
        """Forget an Elevation."""
        self.pending.remove(name)
        known = self._by_name.pop(name, None)
        if known is not None:
            mine = self._by_user[known.record.username]
            mine.pop(name, None)
            if not mine:
                del self._by_user[known.record.username]

    def find(self, name: str) -> KnownElevation | None:
        """An Elevation by name."""
        return self._by_name.get(name)

    def of_user(self, username: str, now: float) -> list[KnownElevation]:
        """The Elevations of a person that may do, newest first, and those that expired lately."""
        mine = self._by_user.get(username)
        if not mine:
            return []
        for name in [name for name, one in mine.items() if one.expires_at < now - KEEP_EXPIRED_SECONDS]:
            self.remove(name)
        newest = sorted(mine.values(), key=lambda one: one.expires_at, reverse=True)
        return newest[:MAX_CANDIDATES]


def _version(known: KnownElevation) -> int:
    # Comparable since Kubernetes 1.35 (KEP-5504), and a number in every release before.
    text = known.record.resource_version
    return int(text) if text.isdigit() else 0
