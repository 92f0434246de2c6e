"""What expressions can read of a request: ``request``, ``object``, ``oldObject``, ``namespaceObject`` and ``operation``.

Everything is made when it is first read, and kept for the other conditions that the same request meets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from webhook.core.cel.fields import Tree, pruned, reads
from webhook.core.cel.values import CelError
from webhook.core.operation import Action, Target
from webhook.core.request import AdmissionRequest

UNKNOWN: Final = "what it reads is not known"


class NamespaceFacts(msgspec.Struct, frozen=True):
    """What is known of a namespace; ``annotations`` is None when nobody has told."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str] | None = None


class Failure(msgspec.Struct, frozen=True):
    """A condition that could not be evaluated: where it stands (``spec.rules[0].conditions[1].expression``) and why."""

    policy: str
    field: str
    problem: str


class Facts:
    """A request, as expressions see it.

    Args:
        namespace: gives what is known of a namespace by its name; None when it is not known.
        actions: what the request does.

    ``cost`` is what evaluating has cost so far, ``failures`` what could not be evaluated.
    """

    def __init__(
        self,
        request: AdmissionRequest,
        namespace: Callable[[str], NamespaceFacts | None],
        actions: tuple[Action, ...] = (),
    ) -> None:
        self._request = request
        self._namespace = namespace
        self._actions = actions
        self._values: dict[str, Any] = {}  # whole, by name
        self._pruned: dict[str, tuple[Tree, Any]] = {}
        self._request_as_map: dict[str, Any] | None = None
        self.cost = 0
        self.failures: dict[Failure, None] = {}

    def about(self, action: Action) -> Activation:
        """The same request, with ``operation`` being one of its actions."""
        return Activation(self, action)

    def object(self, name: str, tree: Tree) -> Any:
        """``object`` or ``oldObject``, with the fields of the tree at least."""
        if name in self._values:
            return self._values[name]
        known = self._pruned.get(name)
        if known is not None and known[0] == tree:
            return known[1]
        raw = self._request.object if name == "object" else self._request.old_object
        if known is not None:
            tree = None  # another rule reads something else: from now on the whole, once
        try:
            value = pruned(raw, tree) if raw else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CelError(f"{name} cannot be read") from error
        if tree is None:
            self._values[name] = value
        else:
            self._pruned[name] = (tree, value)
        return value

    @property
    def request(self) -> dict[str, Any]:
        """``request``."""
        if self._request_as_map is None:
            self._request_as_map = self._request_value()
        return self._request_as_map

    def namespace(self, tree: Tree) -> dict[str, Any] | None:
        """``namespaceObject``; None for what is in no namespace.

        Raises:
            CelError: what the tree reads of it is not known.
        """
        request = self._request
        is_namespace = (request.resource.group, request.resource.resource) == ("", "namespaces")
        if not request.namespace or is_namespace:
            return None
        known = self._namespace(request.namespace)
        if known is None:
            raise CelError(f"the namespace {request.namespace} is not known")
        if known.annotations is None and reads(tree, "metadata", "annotations"):
            raise CelError(f"the annotations of the namespace {request.namespace} are not known")
        metadata: dict[str, Any] = {"name": known.name}
        if known.labels:
            metadata["labels"] = dict(known.labels)
        if known.annotations:
            metadata["annotations"] = dict(known.annotations)
        return {"metadata": metadata}

    @property
    def targets(self) -> list[dict[str, Any]]:
        """All targets of the request."""
        return [_target(target) for target in dict.fromkeys(action.target for action in self._actions)]

    def _request_value(self) -> dict[str, Any]:
        request = self._request
        found = {
            "kind": msgspec.to_builtins(request.kind),
            "resource": msgspec.to_builtins(request.resource),
            "operation": request.operation,
            "userInfo": _user(request),
        }
        optional = {
            "subResource": request.sub_resource,
            "requestKind": msgspec.to_builtins(request.request_kind),
            "requestResource": msgspec.to_builtins(request.request_resource),
            "requestSubResource": request.request_sub_resource,
            "name": request.name,
            "namespace": request.namespace,
        }
        found.update({key: value for key, value in optional.items() if value})
        if request.dry_run is not None:
            found["dryRun"] = request.dry_run
        try:
            found["options"] = pruned(request.options, None) if request.options else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CelError("request.options cannot be read") from error
        return found


class Activation:
    """The variables of one evaluation."""

    def __init__(self, facts: Facts, action: Action | None = None) -> None:
        self.facts = facts
        self._action = action

    @property
    def is_cascade(self) -> bool:
        """Whether the target takes others with it, about which nothing is known."""
        return self._action is not None and self._action.cascade

    def load(self, name: str, trees: Mapping[str, Tree]) -> Any:
        """A variable by its name.

        Raises:
            CelError: it has no value.
        """
        match name:
            case "object" | "oldObject":
                return self.facts.object(name, trees.get(name))
            case "request":
                return self.facts.request
            case "namespaceObject":
                return self.facts.namespace(trees.get(name))
            case _:
                return self._operation()

    def _operation(self) -> dict[str, Any]:
        action = self._action
        if action is None:
            raise CelError(UNKNOWN)
        replicas = {"replicasFrom": action.replicas_from, "replicasTo": action.replicas_to}
        return {
            "class": action.operation,
            "classes": [action.operation, *action.also],
            "target": _target(action.target),
            "targets": self.facts.targets or [_target(action.target)],
            **{key: value for key, value in replicas.items() if value is not None},
        }


def _user(request: AdmissionRequest) -> dict[str, Any]:
    user = request.user_info
    found = {
        "username": user.username,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
    }
    return {key: value for key, value in found.items() if value}


def _target(target: Target) -> dict[str, Any]:
    return msgspec.structs.asdict(target)
