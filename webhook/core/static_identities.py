"""Who may do what is held (``core/static_policies.py``): CEL variables that tell identities by name and credential."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from webhook.core.identity import CERTIFICATE_PREFIX, TOKEN_PREFIX, service_account_username
from webhook.core.request import CREDENTIAL_ID

MAX_NAMES: Final = 50
_EXTRA: Final = f"request.userInfo.extra['{CREDENTIAL_ID}']"
_CREDENTIAL: Final = f"has(request.userInfo.extra) && '{CREDENTIAL_ID}' in request.userInfo.extra &&\nsize({_EXTRA}) == 1 ? {_EXTRA}[0] : ''"
_GROUPS: Final = "has(request.userInfo.groups) ? request.userInfo.groups : []"


@dataclass(frozen=True)
class Sealed:
    """The break-glass identity; whoever has one of the names **and**, where any are given, one of the certificates.

    Args:
        fingerprints: SHA-256 of the certificate (DER), lower-case hexadecimal. Without any, every client certificate in
            the name will do.
        by_token: whether a token with an id will do, for clusters without client certificates.
    """

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    by_token: bool = False


@dataclass(frozen=True)
class Installation:
    """What is to be held.

    Args:
        name: full name of the release, the prefix of all its objects.
        controllers: usernames of kube-controller-manager's accounts.
        helpers: further service accounts (``namespace/name``) that write in our namespace.
        nodes_by_certificate: whether kubelets have client certificates.
    """

    name: str
    namespace: str
    sealed: Sealed
    controllers: tuple[str, ...]
    helpers: tuple[str, ...] = ()
    nodes_by_certificate: bool = True


def variables_of(installation: Installation) -> dict[str, str]:
    """CEL by name of the variable; each reads only those before it."""
    sealed = installation.sealed
    token = f"variables.credential.startsWith('{TOKEN_PREFIX}')"
    certificate = f"variables.credential.startsWith('{CERTIFICATE_PREFIX}')"
    shown = f"({certificate} || {token})" if sealed.by_token else certificate
    if sealed.fingerprints:
        shown = f"variables.credential in {_list(CERTIFICATE_PREFIX + one for one in sealed.fingerprints)}"
    who = []
    if sealed.users:
        who.append(f"request.userInfo.username in {_list(sealed.users)}")
    if sealed.groups:
        who.append(f"variables.groups.exists(group, group in {_list(sealed.groups)})")
    named = f" && ({' || '.join(who)})" if who else ""
    servers = [
        f"{installation.namespace}/{installation.name}-{one}" for one in ("admission", "controller", "elevation")
    ]
    node = "request.userInfo.username.startsWith('system:node:') && 'system:nodes' in variables.groups"
    return {
        "credential": _CREDENTIAL,
        "groups": _GROUPS,
        "sealed": f"{shown}{named}",
        "controller": _accounts([servers[1]], token),
        "servers": _accounts(servers, token),
        "helpers": _accounts(installation.helpers, token),
        "controllers": _list(installation.controllers),
        "component": f"{certificate} &&\nrequest.userInfo.username in ['system:kube-controller-manager', 'system:kube-scheduler']",
        "cluster": f"variables.component || ({token} && request.userInfo.username in variables.controllers)",
        "kubelet": f"{certificate} &&\n{node}" if installation.nodes_by_certificate else node,
        "apiserver": "request.userInfo.username == 'system:apiserver' && 'system:masters' in variables.groups &&\n"
        "variables.credential == '' && has(request.userInfo.uid) && request.userInfo.uid != ''",
    }


def _accounts(accounts: Sequence[str], token: str) -> str:
    names = _list(service_account_username(account) for account in accounts)
    return f"{token} && request.userInfo.username in {names}" if accounts else "false"


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(literal(value) for value in sorted(set(values))) + "]"


def literal(value: str) -> str:
    """A CEL string literal; JSON's escapes are CEL's as well."""
    return json.dumps(value, ensure_ascii=False)
