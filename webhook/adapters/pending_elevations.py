"""Elevations that are asked for and not granted yet, by person: what a request can wait for (``core/hold.py``)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from webhook.core.assertion import AuthorizationDetail
from webhook.core.hold import Pending

PHASES: Final = frozenset({"", "Pending", "AwaitingApproval", "Approved"})
MAX_PER_PERSON: Final = 64
MAX_SECONDS: Final = 24 * 3600.0  # the longest that an approval may take


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    expires_at: datetime | None = None


class _User(msgspec.Struct):
    username: str = ""


class _Spec(msgspec.Struct):
    user: _User = msgspec.field(default_factory=_User)
    credential_id: str = msgspec.field(default="", name="credentialID")
    details: tuple[AuthorizationDetail, ...] = ()


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    creation_timestamp: datetime | None = None


class _Elevation(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


def read_pending(obj: dict[str, Any]) -> Pending | None:
    """What is pending in an Elevation object; None when it is granted, over, or unreadable."""
    try:
        one = msgspec.convert(obj, _Elevation)
    except msgspec.ValidationError:
        return None
    created = one.metadata.creation_timestamp
    if one.status.phase not in PHASES or created is None:
        return None
    ends_at = one.status.expires_at.timestamp() if one.status.expires_at else created.timestamp() + MAX_SECONDS
    return Pending(
        name=one.metadata.name,
        username=one.spec.user.username,
        phase=one.status.phase or "Pending",
        details=one.spec.details,
        credential_id=one.spec.credential_id,
        created_at=created.timestamp(),
        ends_at=ends_at,
    )


class PendingElevations:
    """The watched ones, bounded for each person."""

    def __init__(self) -> None:
        self._by_user: dict[str, dict[str, Pending]] = {}
        self._user_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._user_of)

    def put(self, obj: dict[str, Any]) -> None:
        """Take in an Elevation object of whatever phase."""
        found = read_pending(obj)
        if found is None:
            self.remove(str((obj.get("metadata") or {}).get("name", "")))
            return
        mine = self._by_user.setdefault(found.username, {})
        if found.name not in mine and len(mine) >= MAX_PER_PERSON:
            self.remove(next(iter(mine)))
            mine = self._by_user.setdefault(found.username, {})
        mine[found.name] = found
        self._user_of[found.name] = found.username

    def remove(self, name: str) -> None:
        """Forget one."""
        username = self._user_of.pop(name, None)
        if username is not None:
            mine = self._by_user[username]
            del mine[name]
            if not mine:
                del self._by_user[username]

    def of_user(self, username: str) -> list[Pending]:
        """All of a person."""
        return list(self._by_user.get(username, {}).values())
