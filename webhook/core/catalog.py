"""What makes somebody else do the deed, in two tables: metadata that add-ons obey, and kinds that are orders to a controller.

Operators add to them by a StepUpConfiguration (``core/configuration.py``). A new road is one line here and one in
``tests/routes.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from webhook.core.cel import Facts
from webhook.core.cel.condition import Condition
from webhook.core.configuration import Configuration
from webhook.core.operation import DELETE, DEPLOY, DRAIN, Action, Target
from webhook.core.request import AdmissionRequest
from webhook.core.selectors import Matcher, any_glob

DEADLY: Final = (
    # Annotations and labels that make an add-on delete the object, or adopt and then prune it.
    "cleanup.kyverno.io/ttl",
    "janitor/ttl",
    "janitor/expires",
    "argocd.argoproj.io/tracking-id",
    "app.kubernetes.io/part-of-applyset",
    "applyset.kubernetes.io/part-of",
    "kustomize.toolkit.fluxcd.io/prune",
    "strimzi.io/delete-*",
    "cnpg.io/hibernation",
    "kubevirt.io/delete-*",
    "machine.cluster.x-k8s.io/delete-machine",
    "cluster.x-k8s.io/delete-machine",
)
WRITES: Final = frozenset({"create", "update"})
_VERBS: Final = {"CREATE": "create", "UPDATE": "update", "DELETE": "delete"}
_NOT_AN_ORDER: Final = frozenset({"apiVersion", "kind", "metadata", "status"})
MAX_KINDS_KNOWN: Final = 8192  # more resources than an API server has; a bound, not a limit that is met


class Deputy(NamedTuple):
    """A kind whose objects are orders to a controller.

    Args:
        resource: glob of ``group/resource``.
        operation: the effect, a class.
        verbs: create, update, delete.
        fields: paths from the object's root in which an order is; empty for everything but metadata and status.
        when: the order counts only when this is true; None for always.
    """

    resource: str
    operation: str = DEPLOY
    verbs: frozenset[str] = WRITES
    fields: tuple[str, ...] = ()
    when: Condition | None = None

    def order(self, request: AdmissionRequest) -> dict[str, Any] | None:
        """What a request orders, for its digest; None when it orders nothing.

        Raises:
            ReviewError: an object in the review cannot be read.
        """
        if _VERBS.get(request.operation) not in self.verbs or request.sub_resource:
            return None
        new, old = self._read(request.body()), self._read(request.old_body())
        if request.operation == "UPDATE" and new == old:
            return None
        if self.when is not None:
            target = Target(request.resource.group, request.resource.resource, request.namespace, request.name)
            facts = Facts(request, lambda _: None).about(Action(self.operation, target, ""))
            if not self.when.holds(facts, "StepUpConfiguration"):
                return None
        return new or old

    def _read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if not self.fields:
            return {key: value for key, value in body.items() if key not in _NOT_AN_ORDER}
        return {path: _at(body, path) for path in self.fields}


DEPUTIES: Final = (
    Deputy("*.cluster.x-k8s.io/*"),
    Deputy("*.crossplane.io/*"),
    Deputy("*.toolkit.fluxcd.io/*"),
    Deputy("*.upbound.io/*"),
    Deputy("argoproj.io/*workflow*"),
    Deputy("argoproj.io/applications"),
    Deputy("argoproj.io/applicationsets"),
    Deputy("bitnami.com/sealedsecrets"),
    Deputy("cluster.x-k8s.io/*"),
    Deputy("cluster.x-k8s.io/machine*", DRAIN, frozenset({"delete"})),
    Deputy("external-secrets.io/*externalsecrets"),
    Deputy("fleet.cattle.io/*"),
    Deputy("helm.cattle.io/*"),
    Deputy("karpenter.sh/*", DRAIN, frozenset({"update", "delete"})),
    Deputy("kyverno.io/*cleanuppolicies", DELETE),
    Deputy("operators.coreos.com/*"),
    Deputy("tekton.dev/*"),
    Deputy("triggers.tekton.dev/*"),
    Deputy("velero.io/deletebackuprequests", DELETE),
    Deputy("velero.io/restores"),
    Deputy("work.open-cluster-management.io/*"),
)


class Catalog:
    """The built-in tables, what operators added to them, and where custom resources keep their replicas.

    Args:
        configuration: None when there is none.
    """

    def __init__(self, configuration: Configuration | None = None) -> None:
        self.configuration = configuration
        self.scale_paths: dict[tuple[str, str], tuple[str, ...]] = {}
        spec = configuration.spec if configuration is not None else None
        keys: dict[str, list[str]] = {DELETE: list(DEADLY)}
        for metadata in spec.deadly_metadata if spec else ():
            keys.setdefault(metadata.class_, []).append(metadata.key)
        self._obeyed: tuple[tuple[str, Matcher], ...] = tuple((name, any_glob(globs)) for name, globs in keys.items())
        added = (
            (
                Deputy(one.resource, one.operation, frozenset(one.verbs), one.fields, when)
                for one, when in zip(spec.deputies, configuration.conditions, strict=True)
            )
            if spec and configuration
            else ()
        )
        self._deputies = tuple((any_glob([one.resource]), one) for one in (*DEPUTIES, *added))
        self._known: dict[tuple[str, str], tuple[Deputy, ...]] = {}

    def extended_by(self, configuration: Configuration | None) -> Catalog:
        """The same knowledge of custom resources, with another configuration."""
        found = Catalog(configuration)
        found.scale_paths = self.scale_paths
        return found

    def deputies(self, group: str, resource: str) -> tuple[Deputy, ...]:
        """The orders that objects of a kind can be."""
        found = self._known.get((group, resource))
        if found is None:
            name = f"{group or 'core'}/{resource}"
            found = tuple(one for matches, one in self._deputies if matches(name))
            if len(self._known) < MAX_KINDS_KNOWN:
                self._known[group, resource] = found
        return found

    def obeyed(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Those of the (changed) keys that somebody obeys, sorted, by the effect that this has."""
        changed = sorted(set(keys))
        if not changed:
            return {}
        found = {name: [key for key in changed if matches(key)] for name, matches in self._obeyed}
        return {name: hits for name, hits in found.items() if hits}

    def replicas(self, kind: tuple[str, str], body: Mapping[str, Any]) -> list[int | None]:
        """How many an object of such a kind wants, at each of its paths; None where there is no number."""
        counts = (_at(body, path) for path in self.scale_paths.get(kind, ()))
        return [count if isinstance(count, int) else None for count in counts]

    def put_definition(self, group: str, resource: str, paths: Iterable[str]) -> None:
        """Learn where a custom resource keeps its replicas (``specReplicasPath`` of each of its versions)."""
        unusual = tuple(sorted({path.strip(".") for path in paths} - {USUAL}))
        if unusual:
            self.scale_paths[group, resource] = unusual
        else:
            self.scale_paths.pop((group, resource), None)

    def remove_definition(self, group: str, resource: str) -> None:
        """Forget a custom resource."""
        self.scale_paths.pop((group, resource), None)


USUAL: Final = "spec.replicas"
BUILT_IN: Final = Catalog()


def _at(body: Mapping[str, Any], path: str) -> Any:
    value: Any = body
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
