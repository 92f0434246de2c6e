"""Who asks: the identity headers of kube-apiserver's front proxy, believed only from the front proxy.

https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/ : the proxy is known by a client certificate
of the request-header CA **and** by its common name. On any other connection such a header is an attack and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

import msgspec

from webhook.core.request import UserInfo
from webhook.errors import RequestError

USER_HEADER: Final = b"x-remote-user"
UID_HEADER: Final = b"x-remote-uid"
GROUP_HEADER: Final = b"x-remote-group"
EXTRA_PREFIX: Final = b"x-remote-extra-"
IDENTITY_PREFIX: Final = b"x-remote-"
MAX_AGENT_LETTERS: Final = 256
MAX_ADDRESS_LETTERS: Final = 64

Headers = Iterable[tuple[bytes, bytes]]


class Requester(msgspec.Struct, frozen=True):
    """Who asks, from where, by which program. ``client_address`` is what the front proxy has seen itself."""

    user: UserInfo
    client_address: str = ""
    user_agent: str = ""

    @property
    def username(self) -> str:
        """The name that the API server knows them by."""
        return self.user.username

    @property
    def credential_id(self) -> str:
        """The id of their credential; empty when it has none."""
        return self.user.credential_id


def has_identity_headers(headers: Headers) -> bool:
    """Whether somebody claims an identity."""
    return any(name.lower().startswith(IDENTITY_PREFIX) for name, _ in headers)


def requester_of(headers: Headers) -> Requester:
    """Read the headers of an authenticated front proxy.

    Raises:
        RequestError: there is no user in them, or more than one.
    """
    users: list[str] = []
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    uid = address = agent = ""
    for raw_name, value in headers:
        name = raw_name.lower()
        if name == USER_HEADER:
            users.append(_text(value))
        elif name == GROUP_HEADER:
            groups.append(_text(value))
        elif name == UID_HEADER:
            uid = _text(value)
        elif name.startswith(EXTRA_PREFIX):
            extra.setdefault(unquote(name[len(EXTRA_PREFIX) :].decode("latin-1")).lower(), []).append(_text(value))
        elif name == b"x-forwarded-for":
            address = _last_hop(value)
        elif name == b"user-agent":
            agent = value.decode(errors="replace")[:MAX_AGENT_LETTERS]
    if len(users) != 1 or not users[0]:
        raise unauthenticated("the front proxy did not say who you are")
    user = UserInfo(
        username=users[0],
        uid=uid,
        groups=tuple(groups),
        extra={key: tuple(values) for key, values in extra.items()},
    )
    return Requester(user, address, agent)


def _last_hop(forwarded_for: bytes) -> str:
    # kube-apiserver appends the address that it sees to whatever the client sent: only the last one is not hearsay.
    return forwarded_for.rpartition(b",")[2].decode(errors="replace").strip()[:MAX_ADDRESS_LETTERS]


def _text(value: bytes) -> str:
    try:
        return value.decode()  # names are UTF-8, in headers as in AdmissionReviews
    except UnicodeDecodeError as error:
        raise unauthenticated("an identity header is not UTF-8") from error


def unauthenticated(text: str) -> RequestError:
    """A refusal for want of a believable identity."""
    return RequestError(text, code="unauthenticated", status=401, reason="Unauthorized")
