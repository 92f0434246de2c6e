"""Raw operations: a verb and a resource by name (``update:cnpg.io/clusters``), for what has no class of its own.

``VERB:GROUP/RESOURCE[/SUBRESOURCE]``; verbs are those of a review. In a rule, verb, group, resource and subresource may
be globs; what a request does, and what a proof is for, has none. ``delete:`` is the class ``delete`` limited to a kind:
every road to the end of an object counts, not the DELETE alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from webhook.core.assertion import ANNOTATION
from webhook.core.classify import target_of
from webhook.core.operation import DELETE, Action, digest
from webhook.core.request import AdmissionRequest
from webhook.core.selectors import any_glob
from webhook.errors import PolicyError

VERBS: Final = ("create", "update", "delete", "connect", "*")
FORM: Final = "VERB:GROUP/RESOURCE[/SUBRESOURCE], such as update:cnpg.io/clusters"
MAX_LETTERS: Final = 384
# For fullmatch. A group has lower-case letters, digits, dots and dashes; `core` is the group without a name.
PATTERN: Final = re.compile(r"(create|update|delete|connect|\*):[a-z0-9*?.-]+/[a-z0-9*?.-]+(/[a-zA-Z0-9*?-]+)?")
CONCRETE: Final = re.compile(r"(create|update|delete|connect):[a-z0-9.-]+/[a-z0-9.-]+(/[a-zA-Z0-9-]+)?")
# Subresources through which the object's own spec is written: whoever names the object means them, too.
WRITES_THE_OBJECT: Final = frozenset({"ephemeralcontainers", "resize", "scale"})
# Never sent to webhooks by the API server, or left out by our own conditions (webhook/controller/conditions.py): group,
# resources (`*` for all of it), and why.
NEVER_SENT: Final = (
    ("events.k8s.io", ("*",), "Events are never sent to kube-stepup"),
    ("core", ("events",), "Events are never sent to kube-stepup"),
    ("authorization.k8s.io", ("*",), "access reviews are never sent to kube-stepup"),
    ("authentication.k8s.io", ("*",), "token and self reviews are never sent to kube-stepup"),
    ("coordination.k8s.io", ("leases", "leasecandidates"), "of Leases only those in kube-node-lease are sent"),
    (
        "admissionregistration.k8s.io",
        tuple(
            f"{one}{kind}"
            for one in ("validating", "mutating")
            for kind in ("webhookconfigurations", "admissionpolicies", "admissionpolicybindings")
        ),
        "the API server sends webhook configurations and admission policies to no webhook",
    ),
)
_VOLATILE: Final = frozenset({"creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"})


def is_raw(operation: str) -> bool:
    """Whether an operation is named by verb and resource, rather than a class."""
    return ":" in operation


def is_concrete(operation: str) -> bool:
    """Whether this is one raw operation, without wildcards: what a proof can be for."""
    return len(operation) <= MAX_LETTERS and CONCRETE.fullmatch(operation) is not None


def canonical(operation: str) -> str:
    """The name that a proof bears: deleting an object by its raw name is the class ``delete``."""
    return DELETE if operation.startswith("delete:") and operation.count("/") == 1 else operation


def kind_of(operation: str) -> tuple[str, str]:
    """Group and resource of a raw operation."""
    group, resource = operation.partition(":")[2].split("/")[:2]
    return ("" if group == "core" else group), resource


class RawPattern:
    """One raw operation of a rule. Make one with :meth:`parse`."""

    def __init__(self, text: str) -> None:
        verb, _, path = text.partition(":")
        self.text = text
        self.verb = verb
        self.group, self.resource, *rest = path.split("/")
        self.sub_resource = rest[0] if rest else ""
        self.kind = f"{self.group}/{self.resource}"
        self.covers_kind = any_glob([self.kind])
        self._covers_sub_resource = any_glob(rest)

    @classmethod
    def parse(cls, text: str, field: str) -> RawPattern:
        """Read one.

        Raises:
            PolicyError: it is not of the form.
        """
        if len(text) > MAX_LETTERS or not PATTERN.fullmatch(text):
            raise PolicyError(f"must be {FORM}; verbs are {', '.join(VERBS)}", field=field)
        return cls(text)

    @property
    def never_sent(self) -> str:
        """Why no request of this name ever reaches us; empty when one can."""
        for group, resources, why in NEVER_SENT:
            if self.group == group and ("*" in resources or self.resource in resources):
                return why
        return ""

    @property
    def deletes(self) -> bool:
        """Whether it is about the end of objects."""
        return self.verb in {"delete", "*"} and not self.sub_resource

    def covers(self, operation: str) -> bool:
        """Whether a request of this (concrete) raw operation is meant."""
        verb, _, path = operation.partition(":")
        if self.verb not in {"*", verb}:
            return False
        group, resource, *rest = path.split("/")
        if not self.covers_kind(f"{group}/{resource}"):
            return False
        sub_resource = rest[0] if rest else ""
        if not self.sub_resource:
            return not sub_resource or (verb == "update" and sub_resource in WRITES_THE_OBJECT)
        return bool(sub_resource) and self._covers_sub_resource(sub_resource)


class RawOperations:
    """All raw operations that policies name: whether a request is one of them costs a look-up, and nothing while there are none."""

    def __init__(self) -> None:
        self._patterns: tuple[RawPattern, ...] = ()
        self._known: dict[tuple[str, str, str, str], str] = {}

    def put(self, patterns: Iterable[RawPattern]) -> None:
        """Take these in place of all others."""
        self._patterns = tuple(patterns)
        self._known.clear()

    def action_of(self, request: AdmissionRequest) -> Action | None:
        """What the request does by its raw name, where some policy names it; None where none does, or nothing changes.

        Raises:
            ReviewError: an object in the review cannot be read.
        """
        if not self._patterns:
            return None
        resource = request.resource
        # As many as the API server has resources and verbs, so this is bounded.
        key = (request.operation, resource.group, resource.resource, request.sub_resource)
        operation = self._known.get(key)
        if operation is None:
            operation = self._known[key] = self._named(*key)
        return _action(operation, request) if operation else None

    def _named(self, verb: str, group: str, resource: str, sub_resource: str) -> str:
        path = "/".join(part for part in (group or "core", resource, sub_resource) if part)
        operation = f"{verb.lower()}:{path}"
        if canonical(operation) == DELETE:
            return ""  # the class of that name asks
        return operation if any(one.covers(operation) for one in self._patterns) else ""


def _action(operation: str, request: AdmissionRequest) -> Action | None:
    new, old = request.body(), request.old_body()
    if request.operation == "UPDATE" and _content(new, with_status=True) == _content(old, with_status=True):
        return None  # nothing changes but what changes by itself, or an assertion was put on it
    described = new or old
    content = _content(described, with_status=request.sub_resource == "status")
    return Action(operation, target_of(request), digest(operation, content), details=operation)


def _content(body: dict[str, Any], *, with_status: bool) -> dict[str, Any]:
    """What a change consists of: everything but what the API server writes, and an assertion that travels along."""
    metadata = dict(body.get("metadata") or {}) if isinstance(body.get("metadata"), dict) else {}
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != ANNOTATION}
    kept = {key: value for key, value in metadata.items() if key not in _VOLATILE and value}
    rest = {key: value for key, value in body.items() if key != "metadata" and (with_status or key != "status")}
    return {**rest, "metadata": kept}
