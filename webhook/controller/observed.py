"""Policies and namespaces as the controller sees them: compiled, with what their status needs, and news of changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from webhook.adapters.ground import Ground
from webhook.adapters.kube import JSONObject, KubeClient, object_path, own_path
from webhook.adapters.watches import Watched
from webhook.core.policy import API_VERSION, KIND, Policy
from webhook.core.selectors import Labels
from webhook.errors import PolicyError

log = structlog.get_logger("observed")


@dataclass(slots=True)
class ObservedPolicy:
    """One StepUpPolicy object.

    Args:
        in_force: the last form that could be read; None when it never could.
        problem: why the present form cannot be used; None when it can.
    """

    name: str
    uid: str
    generation: int
    resource_version: str
    status: JSONObject
    in_force: Policy | None
    problem: PolicyError | None
    spec: Any = None

    def has_compiled(self, obj: JSONObject) -> bool:
        """Whether what is in force was made of this very spec; then only the status is news."""
        generation = int(obj["metadata"].get("generation") or 0)
        return self.problem is None and self.generation == generation and self.spec == obj.get("spec")


class Observed:
    """Follows policies and namespaces.

    Args:
        on_change: called after every change that can matter.
    """

    def __init__(self, kube: KubeClient, on_change: Callable[[], None], *, stall_seconds: int = 90) -> None:
        self._on_change = on_change
        self.objects: dict[str, ObservedPolicy] = {}
        self.namespaces: dict[str, Labels] = {}
        # What a later list lacks, with no delete seen, is kept: a list without policies is also what whoever took the
        # API over would send, and must not take guards off.
        self.ground = Ground(kube, ("stepuppolicies",))
        self.vanished: list[str] = []
        self.watches = (
            Watched(
                kube,
                own_path("stepuppolicies"),
                _Policies(self),
                retain=True,
                stall_seconds=stall_seconds,
                on_vanished=self._report_vanished,
                ground=self.ground,
            ),
            Watched(
                kube, object_path("", "v1", "namespaces"), _Namespaces(self), retain=True, stall_seconds=stall_seconds
            ),
        )

    @property
    def synced(self) -> bool:
        """Whether both have been listed once."""
        return all(watch.synced for watch in self.watches)

    @property
    def policies(self) -> dict[str, Policy]:
        """Policies in force, by name."""
        return {name: one.in_force for name, one in self.objects.items() if one.in_force is not None}

    def generations(self) -> dict[str, int]:
        """The generation in force of each policy, by the object's uid."""
        return {one.uid: one.in_force.generation for one in self.objects.values() if one.in_force is not None}

    def put_policy(self, obj: JSONObject) -> None:
        """Take in a StepUpPolicy; one that turned unreadable stays in force as it last was."""
        metadata = obj["metadata"]
        name = metadata["name"]
        before = self.objects.get(name)
        problem = None
        same = before is not None and before.uid == metadata.get("uid", "")
        in_force = before.in_force if before is not None and same else None
        try:
            if before is None or not same or not before.has_compiled(obj):  # compiling costs milliseconds
                in_force = Policy.parse({"apiVersion": API_VERSION, "kind": KIND, **obj})
        except PolicyError as error:
            problem = error
            log.warning("policy-not-accepted", policy=name, code=error.code, problem=str(error))
        self.objects[name] = ObservedPolicy(
            name=name,
            uid=metadata.get("uid", ""),
            generation=int(metadata.get("generation") or 0),
            resource_version=metadata.get("resourceVersion", ""),
            status=obj.get("status") or {},
            in_force=in_force,
            problem=problem,
            spec=obj.get("spec"),
        )
        self._on_change()

    def remove_policy(self, name: str) -> None:
        """Forget a policy that was deleted."""
        self.objects.pop(name, None)
        self._on_change()

    def _report_vanished(self, path: str, names: list[str]) -> None:
        if names and names != self.vanished:
            log.error(
                "objects-vanished", kind=path.rsplit("/", 1)[-1], names=names, code="vanished-without-delete", kept=True
            )
        self.vanished = names

    def put_namespace(self, name: str, labels: Labels) -> None:
        """Learn a namespace or its new labels."""
        if self.namespaces.get(name) != labels:
            self.namespaces[name] = labels
            self._on_change()

    def remove_namespace(self, name: str) -> None:
        """Forget a namespace that was deleted."""
        if self.namespaces.pop(name, None) is not None:
            self._on_change()


class _Policies:
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def put(self, obj: JSONObject) -> None:
        self._observed.put_policy(obj)

    def remove(self, name: str) -> None:
        self._observed.remove_policy(name)


class _Namespaces:
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def put(self, obj: JSONObject) -> None:
        self._observed.put_namespace(obj["metadata"]["name"], obj["metadata"].get("labels") or {})

    def remove(self, name: str) -> None:
        self._observed.remove_namespace(name)
