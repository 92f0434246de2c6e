"""Who is a controller of the cluster and who is a person.

A username proves nothing: a client certificate, a minted token, a legacy token Secret or impersonation can all wear a
controller's name. So a controller is a name **and** the kind of credential that only the real one has (ROUTES rule 4).
Whoever is not proven to be a controller is a person.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from webhook.core.request import CREDENTIAL_ID, UserInfo

SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
CERTIFICATE_PREFIX = "X509SHA256="
TOKEN_PREFIX = "JTI="  # noqa: S105 - the prefix of an identifier, not a secret
PROXY_PREFIX = "PROXY="
MAX_PROXY_CREDENTIAL_LETTERS = 256
SERVICE_ACCOUNT_NAME_PARTS = 2


class Controllers:
    """The identities that count as controllers.

    Args:
        service_accounts: ``namespace/name`` each.
        certificate_users: exact usernames that come by client certificate.
        nodes_by_certificate: whether ``system:node:*`` with a client certificate is a kubelet.
    """

    def __init__(
        self, service_accounts: Iterable[str], certificate_users: Iterable[str], *, nodes_by_certificate: bool = True
    ) -> None:
        self.accounts = frozenset(service_accounts)
        self._usernames = {service_account_username(account) for account in self.accounts}
        self._certificates = set(certificate_users)
        self._nodes = nodes_by_certificate

    def includes(self, user: UserInfo) -> bool:
        """Whether this is a controller, kubelet or the API server itself, and not a person in its name."""
        name = user.username
        if name in self._usernames:
            return is_bound_service_account(user)
        if name in self._certificates:
            return user.credential_id.startswith(CERTIFICATE_PREFIX)
        if self._nodes and name.startswith("system:node:"):
            return "system:nodes" in user.groups and user.credential_id.startswith(CERTIFICATE_PREFIX)
        # The API server's own loopback client has a uid that it made up and no credential; a certificate in its name has
        # one, and impersonation (unless it forges a uid, too) has no uid.
        loopback = bool(user.uid) and not user.credential_id
        return name == "system:apiserver" and "system:masters" in user.groups and loopback


class BreakGlass:
    """The people whom the API server itself lets pass (``breakGlass`` of the settings), as its condition tells them.

    Args:
        users, groups: exact names.
    """

    def __init__(self, users: Iterable[str] = (), groups: Iterable[str] = ()) -> None:
        self._users = frozenset(users)
        self._groups = frozenset(groups)

    def includes(self, user: UserInfo) -> bool:
        """Whether this is one of them, shown by a credential of their own; a service account never is."""
        if user.username not in self._users and self._groups.isdisjoint(user.groups):
            return False
        shown = user.credential_id.startswith((CERTIFICATE_PREFIX, TOKEN_PREFIX))
        return shown and not user.username.startswith(SERVICE_ACCOUNT_PREFIX)


class ImpersonatingProxies:
    """Proxies that log people in themselves and impersonate them, such as Rancher, and how their sessions are told apart.

    Under impersonation a review has no credential-id. A proxy may send an extra attribute that names its session or token:
    where the operator trusts that key, its value stands in for the credential-id. It never makes a controller, a service
    account's own token, or somebody whom the API server itself lets pass: those need a certificate or a token by prefix.

    Args:
        extra_keys: lower case, the first that is there counts.
    """

    def __init__(self, extra_keys: Iterable[str] = ()) -> None:
        self._keys = tuple(extra_keys)

    def seen(self, user: UserInfo) -> UserInfo:
        """The user, with the proxy's credential where they have none of their own and it sent one."""
        if not self._keys or CREDENTIAL_ID in user.extra:
            return user
        for key in self._keys:
            value = user.first_extra(key)
            if 0 < len(value) <= MAX_PROXY_CREDENTIAL_LETTERS:
                credential = (f"{PROXY_PREFIX}{key}={value}",)
                return msgspec.structs.replace(user, extra={**user.extra, CREDENTIAL_ID: credential})
        return user


def service_account_username(namespaced_name: str) -> str:
    """``ns/name`` → ``system:serviceaccount:ns:name``."""
    return SERVICE_ACCOUNT_PREFIX + namespaced_name.replace("/", ":", 1)


def service_account_of(user: UserInfo) -> str:
    """``ns/name`` when the username is a service account's; empty otherwise."""
    if not user.username.startswith(SERVICE_ACCOUNT_PREFIX):
        return ""
    parts = user.username[len(SERVICE_ACCOUNT_PREFIX) :].split(":")
    return "/".join(parts) if len(parts) == SERVICE_ACCOUNT_NAME_PARTS else ""


def is_bound_service_account(user: UserInfo) -> bool:
    """Whether a service account came with a token of its own: a ``JTI=``, its namespace's group and a uid."""
    account = service_account_of(user)
    if not account:
        return False
    namespace = account.split("/", 1)[0]
    return (
        user.credential_id.startswith(TOKEN_PREFIX)
        and bool(user.uid)
        and f"system:serviceaccounts:{namespace}" in user.groups
    )
