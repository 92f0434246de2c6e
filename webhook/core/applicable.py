"""Which policies ask for what: an index from namespace and operation class to the policies that can match.

Looking up costs the same with ten policies as with a thousand: what a policy says of namespaces and classes is worked
out when the policy or the namespace changes, not when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from webhook.core.operation import Action
from webhook.core.policy import Policy
from webhook.core.request import AdmissionRequest, UserInfo
from webhook.core.requirement import Requirement
from webhook.core.selectors import Labels

NAMESPACES = ("", "namespaces")
CLUSTER_SCOPED = ""


class Demand(msgspec.Struct, frozen=True):
    """One requirement of one policy on one action."""

    action: Action
    requirement: Requirement
    enforcement: str


class Applicable(msgspec.Struct, frozen=True):
    """What policies say to a request.

    Args:
        exempted_by, broken_by: policies that let the user pass as exempt, or by breaking glass.
        unknown_labels: whether a policy was taken to match only because nobody knows the object's labels yet.
    """

    demands: tuple[Demand, ...] = ()
    exempted_by: tuple[str, ...] = ()
    broken_by: tuple[str, ...] = ()
    unknown_labels: bool = False

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of all policies that had a say, sorted."""
        names = {demand.requirement.policy for demand in self.demands}
        return tuple(sorted(names.union(self.exempted_by, self.broken_by)))


class Subject(msgspec.Struct, frozen=True):
    """What policies need to know of the object.

    Args:
        labels: label sets of the object, old and new; None when the review does not tell (exec, scale, eviction).
        namespace_labels: label sets to judge the namespace by instead of the watched ones; None to use those.
    """

    labels: tuple[Labels, ...] | None = None
    namespace_labels: tuple[Labels, ...] | None = None


def subject_of(request: AdmissionRequest) -> Subject:
    """What the review itself tells of the object's labels, old and new: either can bring it under a policy."""
    if request.sub_resource not in {"", "status", "finalize", "ephemeralcontainers", "resize"}:
        return Subject()
    heads = [head for head in (request.old_head(), request.new_head()) if head is not None]
    labels = tuple(head.metadata.labels or {} for head in heads)
    is_namespace = (request.resource.group, request.resource.resource) == NAMESPACES
    return Subject(labels=labels, namespace_labels=labels if is_namespace else None)


class PolicyIndex:
    """All policies in force and all namespaces known."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._namespaces: dict[str, Labels] = {}
        self._cache: dict[str, dict[str, tuple[Policy, ...]]] = {}

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The policies in force, by name."""
        return self._policies

    @property
    def namespaces(self) -> Mapping[str, Labels]:
        """Labels of the namespaces known, by name."""
        return self._namespaces

    def put_policy(self, policy: Policy) -> None:
        """Put a policy in force, in place of the one of the same name."""
        self._policies[policy.name] = policy
        self._cache.clear()

    def remove_policy(self, name: str) -> None:
        """Take a policy out of force."""
        if self._policies.pop(name, None) is not None:
            self._cache.clear()

    def put_namespace(self, name: str, labels: Labels) -> None:
        """Learn a namespace, or its new labels."""
        if self._namespaces.get(name) != labels:
            self._namespaces[name] = labels
            self._cache.pop(name, None)

    def remove_namespace(self, name: str) -> None:
        """Forget a namespace."""
        self._namespaces.pop(name, None)
        self._cache.pop(name, None)

    def knows_namespace(self, name: str) -> bool:
        """Whether the labels of a namespace are known."""
        return name in self._namespaces

    def applicable(self, user: UserInfo, actions: Iterable[Action], subject: Subject) -> Applicable:
        """What the policies in force ask of these actions by this user.

        What nobody knows counts as matching: the labels of an object that the review does not show, of a namespace
        that has not been seen.
        """
        demands: list[Demand] = []
        exempted: dict[str, None] = {}
        broken: dict[str, None] = {}
        unknown = False
        for action in actions:
            for policy in self._candidates(action, subject):
                rules = policy.rules_for(action)
                if not rules or not policy.is_about(user):
                    continue
                selector = policy.object_selector
                if selector is not None and not action.cascade:
                    if subject.labels is None:
                        unknown = True
                    elif not any(selector.matches(labels) for labels in subject.labels):
                        continue
                if policy.exempt.privilege(user):
                    exempted[policy.name] = None
                elif policy.break_glass.privilege(user):
                    broken[policy.name] = None
                else:
                    demands += [Demand(action, rule.requirement, policy.enforcement) for rule in rules]
        return Applicable(tuple(demands), tuple(exempted), tuple(broken), unknown)

    def _candidates(self, action: Action, subject: Subject) -> tuple[Policy, ...]:
        target = action.target
        if (target.group, target.resource) == NAMESPACES:
            return self._for_namespace_object(target.name, action.operation, subject)
        by_operation = self._cache.get(target.namespace)
        if by_operation is None:
            by_operation = self._cache[target.namespace] = {}
        found = by_operation.get(action.operation)
        if found is None:
            found = tuple(
                p for p in self._in(target.namespace) if any(rule.covers(action.operation) for rule in p.rules)
            )
            if target.namespace == CLUSTER_SCOPED or target.namespace in self._namespaces:
                by_operation[action.operation] = found
        return found

    def _in(self, namespace: str) -> list[Policy]:
        if namespace == CLUSTER_SCOPED:
            return [policy for policy in self._policies.values() if policy.can_match_cluster_scoped]
        labels = self._namespaces.get(namespace)
        return [policy for policy in self._policies.values() if policy.can_match_namespace(namespace, labels)]

    def _for_namespace_object(self, name: str, operation: str, subject: Subject) -> tuple[Policy, ...]:
        known = self._namespaces.get(name)
        sets: list[Labels | None] = [*(subject.namespace_labels or ()), *([known] if known is not None else [])]
        sets = sets or [None]
        return tuple(
            policy
            for policy in self._policies.values()
            if any(rule.covers(operation) for rule in policy.rules)
            and any(policy.can_match_namespace(name, labels) for labels in sets)
        )
