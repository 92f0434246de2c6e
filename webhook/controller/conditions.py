"""The ``matchConditions`` of our webhook entries: CEL texts that the API server evaluates before it asks us.

Every text is total: it tests a field before it reads it. An error in a condition would refuse the request (entry that
fails closed) or skip us without a word (entry that does not).
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-matchconditions
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from webhook.controller.coverage import Area
from webhook.core.canary import MANAGER_PREFIX, field_manager
from webhook.core.identity import CERTIFICATE_PREFIX, SERVICE_ACCOUNT_PREFIX, TOKEN_PREFIX, service_account_username
from webhook.core.request import CREDENTIAL_ID
from webhook.settings import BreakGlassSettings, ControllerIdentities

Condition = dict[str, str]
CANARY: Final = "canary"

_USERNAME: Final = "(has(request.userInfo.username) ? request.userInfo.username : '')"
_HAS_UID: Final = "(has(request.userInfo.uid) && request.userInfo.uid != '')"
_EXTRA: Final = f"request.userInfo.extra['{CREDENTIAL_ID}']"
_HAS_CREDENTIAL: Final = f"(has(request.userInfo.extra) && '{CREDENTIAL_ID}' in request.userInfo.extra)"
# A request on a Namespace carries that namespace's name as its own namespace, except when it is created.
_NAMESPACE: Final = (
    "(has(request.namespace) && request.namespace != '' ? request.namespace :"
    " request.resource.group == '' && request.resource.resource == 'namespaces' && has(request.name) ?"
    " request.name : '')"
)
# A dry run has no effect, so nobody gains by writing one that looks like this.
_CANARY: Final = (
    "(request.resource.group == 'kube-stepup.io' && request.resource.resource == 'stepuppolicies'"
    " && has(request.subResource) && request.subResource == 'status' && has(request.dryRun) && request.dryRun == true"
    " && has(request.options) && request.options != null && has(request.options.fieldManager)"
    f" && request.options.fieldManager.startsWith('{MANAGER_PREFIX}'))"
)


def identity_conditions(controllers: ControllerIdentities) -> list[Condition]:
    """Leave out who is not a person: the API server itself, kubelets, the cluster's controllers (ROUTES rules 4, 5).

    A name never suffices. The same is checked again by :class:`webhook.core.identity.Controllers`.
    """
    conditions = [_unless("not-the-api-server", _api_server())]
    if controllers.nodes_by_certificate:
        node = f"{_USERNAME}.startsWith('system:node:') && {_in_group('system:nodes')} && {_with(CERTIFICATE_PREFIX)}"
        conditions.append(_unless("not-a-kubelet", node))
    if controllers.service_accounts:
        conditions.append(_unless("not-a-controller", _service_accounts(controllers.service_accounts)))
    if controllers.certificate_users:
        users = f"{_USERNAME} in {_list(controllers.certificate_users)} && {_with(CERTIFICATE_PREFIX)}"
        conditions.append(_unless("not-a-component", users))
    return conditions


def resource_conditions() -> list[Condition]:
    """Leave out what has no effect that a policy could be about, and must never wait for us (ROUTES rule 7).

    Leases of nodes are not left out: whoever deletes one makes a node look dead.
    """
    ephemeral = (
        "request.resource.group == 'events.k8s.io'"
        " || (request.resource.group == '' && request.resource.resource == 'events')"
        " || request.resource.group == 'authorization.k8s.io'"
        " || request.resource.group == 'authentication.k8s.io'"
        " || (request.resource.group == 'coordination.k8s.io' && request.resource.resource in ['leases', 'leasecandidates']"
        f" && {_NAMESPACE} != 'kube-node-lease')"
    )
    return [_unless("not-ephemeral", ephemeral)]


def own_conditions(own_service_accounts: Iterable[str], namespace: str) -> list[Condition]:
    """Leave out our own writes of our own objects: asking ourselves would wait for ourselves.

    Without this, a certificate could not be renewed, nor a use recorded, while no replica answers.
    """
    accounts = tuple(own_service_accounts)
    if not accounts:
        return []
    ours = (
        f"(request.resource.group == 'kube-stepup.io' && !{_CANARY})"
        " || (request.resource.group == 'apiregistration.k8s.io' && request.resource.resource == 'apiservices')"
        f" || (request.resource.group == '' && request.resource.resource == 'secrets' && {_NAMESPACE} == {_text(namespace)})"
    )
    return [_unless("not-our-own", f"({_service_accounts(accounts)}) && ({ours})")]


def canary_condition(configuration: str) -> Condition:
    """Leave out canaries for any other configuration than this one; everything else passes."""
    named = f"request.options.fieldManager == {_text(field_manager(configuration))}"
    return {"name": CANARY, "expression": f"!{_CANARY} || {named}"}


def inside(area: Area, excluded_namespaces: Iterable[str]) -> str:
    """Text that holds for requests inside an area; excluded namespaces are outside where all namespaces are meant."""
    parts = []
    if area.every_namespace:
        text = f"{_NAMESPACE} != ''"
        excluded = tuple(excluded_namespaces)
        if excluded:
            text += f" && !({_NAMESPACE} in {_list(excluded)})"
        parts.append(f"({text})")
    elif area.namespaces:
        parts.append(f"{_NAMESPACE} in {_list(area.namespaces)}")
    if area.cluster_scoped:
        parts.append(f"{_NAMESPACE} == ''")
    elif area.kinds:
        # Deleted, or changed so that what is in them goes (taints, versions, claims); making one takes nothing away.
        kinds = " || ".join(map(_is_of, sorted(area.kinds)))
        parts.append(f"(request.operation in ['DELETE', 'UPDATE'] && ({kinds}))")
    return " || ".join(parts) or "false"


def standing_on(owner_cluster_role: str) -> str:
    """Text that holds for requests on our own policies, keys and records, and on the role that owns our configuration."""
    text = "request.resource.group == 'kube-stepup.io'"
    if owner_cluster_role:
        named = f"has(request.name) && request.name == {_text(owner_cluster_role)}"
        text += f" || (request.resource.group == 'rbac.authorization.k8s.io' && {named})"
    return text


def breaking_glass(people: BreakGlassSettings) -> str:
    """Text that holds for the people who may break the glass of the API server itself; empty where there are none.

    The same as :class:`webhook.core.identity.BreakGlass`: a name **and** a credential, so neither ``--as`` nor
    ``--as-group`` breaks it, and never a service account.
    """
    parts = []
    if people.users:
        parts.append(f"{_USERNAME} in {_list(people.users)}")
    if people.groups:
        in_one = f"request.userInfo.groups.exists(group, group in {_list(people.groups)})"
        parts.append(f"(has(request.userInfo.groups) && {in_one})")
    if not parts:
        return ""
    shown = f"({_with(CERTIFICATE_PREFIX)} || {_with(TOKEN_PREFIX)})"
    return f"({' || '.join(parts)}) && !{_USERNAME}.startsWith('{SERVICE_ACCOUNT_PREFIX}') && {shown}"


def _is_of(kind: str) -> str:
    group, resource = kind.split("/")
    group = "" if group == "core" else group
    return f"(request.resource.group == {_text(group)} && request.resource.resource == {_text(resource)})"


def _api_server() -> str:
    # The loopback client that kube-apiserver makes for itself has a random uid and no credential; whoever holds a
    # certificate in its name has one.
    return f"{_USERNAME} == 'system:apiserver' && {_in_group('system:masters')} && {_HAS_UID} && !{_HAS_CREDENTIAL}"


def _service_accounts(accounts: Iterable[str]) -> str:
    by_namespace: dict[str, list[str]] = defaultdict(list)
    for account in accounts:
        by_namespace[account.split("/", 1)[0]].append(service_account_username(account))
    names = " || ".join(
        f"({_USERNAME} in {_list(users)} && {_in_group(f'system:serviceaccounts:{namespace}')})"
        for namespace, users in sorted(by_namespace.items())
    )
    return f"({names}) && {_HAS_UID} && {_with(TOKEN_PREFIX)}"


def _with(prefix: str) -> str:
    return f"({_HAS_CREDENTIAL} && size({_EXTRA}) == 1 && {_EXTRA}[0].startsWith('{prefix}'))"


def _in_group(group: str) -> str:
    return f"(has(request.userInfo.groups) && {_text(group)} in request.userInfo.groups)"


def _unless(name: str, expression: str) -> Condition:
    return {"name": name, "expression": f"!({expression})"}


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(_text(value) for value in sorted(set(values))) + "]"


def _text(value: str) -> str:
    """A CEL string literal. JSON's escapes are all CEL's as well, as long as nothing is escaped into surrogates."""
    return json.dumps(value, ensure_ascii=False)
