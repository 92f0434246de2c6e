"""What a rule can reach at all: the kinds that a class has effects on, and what is in no namespace.

For lint only. What is not known here counts as possible: custom resources can be anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from webhook.core.operation import ACCESS, DEPLOY, DRAIN, EXEC, GUARD, RESTART, SCALE

_RBAC: Final = "rbac.authorization.k8s.io"
_KNOWN_CORE: Final = frozenset(
    {
        "configmaps", "endpoints", "events", "limitranges", "namespaces", "nodes", "persistentvolumeclaims",
        "persistentvolumes", "pods", "replicationcontrollers", "resourcequotas", "secrets", "serviceaccounts", "services",
    }
)  # fmt: skip
_KNOWN_BY_GROUP: Final = {
    "apps": frozenset({"daemonsets", "deployments", "replicasets", "statefulsets"}),
    "batch": frozenset({"cronjobs", "jobs"}),
    "networking.k8s.io": frozenset({"ingresses", "networkpolicies"}),
    "storage.k8s.io": frozenset({"storageclasses"}),
    _RBAC: frozenset({"clusterrolebindings", "clusterroles", "rolebindings", "roles"}),
}
_WORKLOADS: Final = frozenset(
    {
        *(f"apps/{one}" for one in _KNOWN_BY_GROUP["apps"]),
        *(f"batch/{one}" for one in _KNOWN_BY_GROUP["batch"]),
        "core/replicationcontrollers",
    }
)
_POSSIBLE: Final = {
    DEPLOY: _WORKLOADS | {"core/pods"},
    DRAIN: frozenset({"core/nodes", "core/pods"}),
    EXEC: _WORKLOADS | {"core/nodes", "core/pods", "core/services"},
    RESTART: _WORKLOADS | {"core/pods"},
    SCALE: _WORKLOADS,
}
"""Built-in kinds that a class has effects on; classes that are not here have effects on any."""
_ONLY_BUILT_IN: Final = frozenset({DRAIN})
"""Classes that no custom resource has."""
CLUSTER_SCOPED: Final = frozenset(
    {
        "apiextensions.k8s.io/customresourcedefinitions", "apiregistration.k8s.io/apiservices", "core/nodes",
        "core/persistentvolumes", f"{_RBAC}/clusterrolebindings", f"{_RBAC}/clusterroles", "storage.k8s.io/storageclasses",
        "certificates.k8s.io/certificatesigningrequests", "certificates.k8s.io/clustertrustbundles",
    }
)  # fmt: skip
_ACCESS: Final = frozenset(
    {
        "core/configmaps", "core/namespaces", "core/secrets", "core/serviceaccounts",
        "certificates.k8s.io/certificatesigningrequests", "certificates.k8s.io/clustertrustbundles",
        *(f"{_RBAC}/{one}" for one in _KNOWN_BY_GROUP[_RBAC]),
    }
)  # fmt: skip


def full(pattern: str) -> str:
    """A pattern of ``resources`` as it is compared: ``GROUP/PLURAL``, where ``*`` is any group."""
    if pattern.startswith("/"):
        return f"core{pattern}"
    return pattern if "/" in pattern or pattern == "*" else f"*/{pattern}"


def can_have(operation: str, pattern: str) -> bool:
    """Whether a class has effects on anything that a pattern of ``resources`` names."""
    pattern = full(pattern)
    if operation == GUARD:
        return True  # such rules are asked whatever they name
    possible = _ACCESS if operation == ACCESS else _POSSIBLE.get(operation)
    if possible is None or any(fnmatchcase(one, pattern) for one in possible):
        return True
    return operation not in _ONLY_BUILT_IN and operation != ACCESS and not _is_built_in(pattern)


def is_cluster_scoped(pattern: str) -> bool:
    """Whether a pattern can only name what is in no namespace, Namespaces apart."""
    pattern = full(pattern)
    group, _, plural = pattern.partition("/")
    if any(letter in pattern for letter in "?["):
        return False
    return pattern in CLUSTER_SCOPED or (group == "*" and any(one.endswith(f"/{plural}") for one in CLUSTER_SCOPED))


def covers(pattern: str, other: str) -> bool:
    """Whether all that the other pattern names is named by this one; False where that is not plain."""
    pattern, other = full(pattern), full(other)
    if pattern in {"*", other}:
        return True
    return not any(letter in other for letter in "*?[") and fnmatchcase(other, pattern)


def all_covered(patterns: Iterable[str], others: Iterable[str]) -> bool:
    """Whether each of the others is covered by one of the patterns."""
    known = tuple(patterns)
    return all(any(covers(one, other) for one in known) for other in others)


def _is_built_in(pattern: str) -> bool:
    """Whether a pattern can only name kinds that this module knows."""
    group, _, plural = pattern.partition("/")
    if group == "core":
        return plural in _KNOWN_CORE
    if group == "*":
        return plural in _KNOWN_CORE or any(plural in known for known in _KNOWN_BY_GROUP.values())
    return plural in _KNOWN_BY_GROUP.get(group, frozenset())
