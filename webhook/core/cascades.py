"""What goes along when an object goes, with no review of its own: one table of kinds.

The rules on all of that are asked (ROUTES rule 6), in the namespaces where it lies. A Namespace takes everything with it
and is not here (``Action.cascade``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec

from webhook.core.operation import DELETE, DRAIN, Action, Takes, Target
from webhook.core.request import AdmissionRequest, ObjectHead

ANYWHERE: Final = "*"
DEFINITIONS: Final = ("apiextensions.k8s.io", "customresourcedefinitions")
NODES: Final = ("", "nodes")
VOLUMES: Final = ("", "persistentvolumes")
CLUSTER_SCOPED: Final = frozenset({DEFINITIONS, NODES, VOLUMES})
ON_NODES: Final = ("core/pods", "core/nodes")
ON_VOLUMES: Final = ("core/persistentvolumeclaims", "core/persistentvolumes")
OWNED: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("", "replicationcontrollers"): ("core/pods",),
    ("apps", "daemonsets"): ("core/pods",),
    ("apps", "deployments"): ("apps/replicasets", "core/pods"),
    ("apps", "replicasets"): ("core/pods",),
    ("apps", "statefulsets"): ("core/pods",),
    ("batch", "cronjobs"): ("batch/jobs", "core/pods"),
    ("batch", "jobs"): ("core/pods",),
}
KINDS: Final = CLUSTER_SCOPED | OWNED.keys()


class Asking(Protocol):
    """What a rule must tell of itself."""

    def covers(self, operation: str, also: tuple[str, ...] = ()) -> bool:
        """Whether it is about a class."""
        ...

    def applies_along(self, action: Action) -> bool:
        """Whether it asks because of what goes along with a target."""
        ...


def reaching(rules: Iterable[Asking]) -> frozenset[str]:
    """Cluster-scoped kinds (``core/nodes``) whose end takes something along that the rules are about."""
    known = list(rules)
    found = {_name(kind) for kind, end in _ENDS.items() if any(rule.applies_along(end) for rule in known)}
    if any(rule.covers(DELETE) for rule in known):
        found.add(_name(DEFINITIONS))  # of which kind, the definition's name tells
    return frozenset(found)


def takes(target: Target, head: ObjectHead | None = None) -> Takes | None:
    """What the end of an object takes with it; None when nothing of its kind does.

    Args:
        head: the object's; None when nobody knows it, as in planning: then more is taken along rather than less.
    """
    kind = (target.group, target.resource)
    if owned := OWNED.get(kind):
        return Takes(owned, target.namespace, None if head is None else _labels(head))
    if kind == NODES:
        return Takes(ON_NODES, ANYWHERE)
    if kind == VOLUMES:
        return _bound(head)
    if kind == DEFINITIONS:
        plural, _, group = target.name.partition(".")  # the API server holds the name to this form
        return Takes((f"{group}/{plural}",), ANYWHERE) if group else None
    return None


def with_takes(action: Action, request: AdmissionRequest) -> Action:
    """The action of a request, with what goes along when its target goes."""
    if action.operation != DELETE and DELETE not in action.also:
        return action
    kind = (action.target.group, action.target.resource)
    if request.operation == "DELETE" and kind in OWNED and _orphans(request):
        return action
    return msgspec.structs.replace(action, takes=takes(action.target, request.old_head() or request.new_head()))


def _orphans(request: AdmissionRequest) -> bool:
    """Whether what the target owns is left alone."""
    options = request.delete_options()
    return options.propagation_policy == "Orphan" or options.orphan_dependents is True


class _Labelled(msgspec.Struct, frozen=True):
    labels: dict[str, str] | None = None


class _Template(msgspec.Struct, frozen=True):
    metadata: _Labelled = _Labelled()
    spec: msgspec.Raw = msgspec.Raw(b"{}")


class _Owner(msgspec.Struct, frozen=True, rename="camel"):
    template: _Template | None = None
    job_template: _Template | None = None


class _Claim(msgspec.Struct, frozen=True):
    namespace: str = ""


class _Volume(msgspec.Struct, frozen=True, rename="camel"):
    claim_ref: _Claim | None = None


_owners = msgspec.json.Decoder(_Owner | None)
_volumes = msgspec.json.Decoder(_Volume | None)


def _labels(owner: ObjectHead) -> tuple[Mapping[str, str], ...] | None:
    """The labels that an owner gives to what it makes: those of its templates. Only they are decoded, not the pods."""
    try:
        spec = _owners.decode(owner.spec) or _Owner()
        found = [] if spec.job_template is None else [spec.job_template]
        if found:  # a CronJob's pods are two templates away
            spec = _owners.decode(found[0].spec) or _Owner()
    except msgspec.MsgspecError:
        return None
    templates = [*found, *([] if spec.template is None else [spec.template])]
    return tuple(one.metadata.labels or {} for one in templates) or ({},)


def _bound(volume: ObjectHead | None) -> Takes | None:
    try:
        known = None if volume is None else _volumes.decode(volume.spec) or _Volume()
    except msgspec.MsgspecError:
        known = None
    if known is None:
        return Takes(ON_VOLUMES, ANYWHERE)
    namespace = known.claim_ref.namespace if known.claim_ref else ""
    return Takes(ON_VOLUMES, namespace) if namespace else None


def _name(kind: tuple[str, str]) -> str:
    return f"{kind[0] or 'core'}/{kind[1]}"


_ENDS: Final = {
    NODES: Action(DELETE, Target(*NODES, "", ""), "", also=(DRAIN,), takes=Takes(ON_NODES, ANYWHERE)),
    VOLUMES: Action(DELETE, Target(*VOLUMES, "", ""), "", takes=Takes(ON_VOLUMES, ANYWHERE)),
}
