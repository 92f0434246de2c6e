"""Which policies ask for what: an index from namespace and operation class to the policies that can match.

Looking up costs the same with ten policies as with a thousand: what a policy says of namespaces and classes is worked
out when the policy or the namespace changes, not when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from webhook.core.cascades import ANYWHERE
from webhook.core.catalog import Catalog
from webhook.core.cel import Activation, Facts, NamespaceFacts
from webhook.core.classify import classify
from webhook.core.operation import GUARD, Action, Takes
from webhook.core.policy import Policy, Rule
from webhook.core.raw import RawOperations
from webhook.core.request import AdmissionRequest, UserInfo
from webhook.core.requirement import Requirement
from webhook.core.selectors import Labels

NAMESPACES = ("", "namespaces")
CLUSTER_SCOPED = ""
MAX_OPERATIONS_KEPT = 1024  # of one namespace; raw operations that people ask for beforehand have no other bound


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

    def with_all_glass_broken(self) -> Applicable:
        """The same for somebody who breaks the glass of every policy that demands something."""
        broken = {*self.broken_by, *(demand.requirement.policy for demand in self.demands)}
        return Applicable(exempted_by=self.exempted_by, broken_by=tuple(sorted(broken)))


class Subject(msgspec.Struct, frozen=True):
    """What policies need to know of the object.

    Args:
        labels: label sets of the object, old and new; None when the review does not tell (exec, scale, eviction).
        namespace_labels: label sets to judge the namespace by instead of the watched ones; None to use those.
        weakened: policies that the request would switch off or make laxer (``core/guard.py``).
        facts: what conditions are evaluated on; made only when one has to be. None when there is no request, as in
            planning: conditions are unknown then, and their rules apply.
    """

    labels: tuple[Labels, ...] | None = None
    namespace_labels: tuple[Labels, ...] | None = None
    weakened: tuple[Policy, ...] = ()
    facts: LazyFacts | None = None


def subject_of(request: AdmissionRequest) -> Subject:
    """What the review itself tells of the object's labels, old and new: either can bring it under a policy."""
    if request.sub_resource not in {"", "status", "finalize", "ephemeralcontainers", "resize"}:
        return Subject()
    heads = [head for head in (request.old_head(), request.new_head()) if head is not None]
    labels = tuple(head.metadata.labels or {} for head in heads)
    is_namespace = (request.resource.group, request.resource.resource) == NAMESPACES
    return Subject(labels=labels, namespace_labels=labels if is_namespace else None)


def lazy_facts(request: AdmissionRequest, index: PolicyIndex, actions: tuple[Action, ...]) -> LazyFacts:
    """What conditions are evaluated on, made when the first of them asks."""
    return LazyFacts(lambda: Facts(request, index.namespace_facts, actions))


class LazyFacts:
    """Facts of one request: made once, if at all."""

    __slots__ = ("_make", "made")

    def __init__(self, make: Callable[[], Facts]) -> None:
        self._make = make
        self.made: Facts | None = None

    def __call__(self) -> Facts:
        """The facts."""
        if self.made is None:
            self.made = self._make()
        return self.made


class PolicyIndex:
    """All policies in force and all namespaces known."""

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._namespaces: dict[str, Labels] = {}
        self._annotations: dict[str, Labels | None] = {}
        self._cache: dict[str, dict[tuple[str, ...], tuple[Policy, ...]]] = {}
        self._raw = RawOperations()
        self.catalog = Catalog()

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
        self._forget()

    def remove_policy(self, name: str) -> None:
        """Take a policy out of force."""
        if self._policies.pop(name, None) is not None:
            self._forget()

    def _forget(self) -> None:
        self._cache.clear()
        self._raw.put(raw for policy in self._policies.values() for rule in policy.rules for raw in rule.raw)

    def put_namespace(self, name: str, labels: Labels, annotations: Labels | None = None) -> None:
        """Learn a namespace, or its new labels and annotations; None when nobody has told the annotations."""
        self._annotations[name] = annotations
        if self._namespaces.get(name) != labels:
            self._namespaces[name] = labels
            self._cache.pop(name, None)

    def remove_namespace(self, name: str) -> None:
        """Forget a namespace."""
        self._namespaces.pop(name, None)
        self._annotations.pop(name, None)
        self._cache.pop(name, None)

    def namespace_facts(self, name: str) -> NamespaceFacts | None:
        """What conditions can read of a namespace; None when it is not known."""
        labels = self._namespaces.get(name)
        return None if labels is None else NamespaceFacts(name, labels, self._annotations.get(name))

    def knows_namespace(self, name: str) -> bool:
        """Whether the labels of a namespace are known."""
        return name in self._namespaces

    def actions_of(self, request: AdmissionRequest) -> tuple[Action, ...]:
        """All effects of a request, and what it does by its raw name where a policy names that.

        Raises:
            ReviewError: an object in the review cannot be read.
        """
        actions = classify(request, self.catalog)
        raw = self._raw.action_of(request)
        return actions if raw is None else (*actions, raw)

    def applicable(self, user: UserInfo, actions: Iterable[Action], subject: Subject) -> Applicable:
        """What the policies in force ask of these actions by this user.

        What nobody knows counts as matching: the labels of an object that the review does not show, of a namespace
        that has not been seen.
        """
        say = _Say(user, subject)
        for action in actions:
            if action.operation == GUARD:
                say.about_weakening(action)
                continue
            there = self._candidates(action, subject)
            if action.takes is None or action.takes.namespace == action.target.namespace:
                for policy in there:
                    say.about(policy, action, along=action.takes is not None)
            else:
                self._about_elsewhere(say, action, action.takes, there)
        return Applicable(tuple(say.demands), tuple(say.exempted), tuple(say.broken), say.unknown_labels)

    def _about_elsewhere(self, say: _Say, action: Action, takes: Takes, there: tuple[Policy, ...]) -> None:
        """What goes along lies elsewhere: Nodes, volumes and definitions, which seldom end."""
        here, elsewhere = set(map(id, there)), set(map(id, self.where(takes)))
        for policy in self._policies.values():
            say.about(policy, action, there=id(policy) in here, along=id(policy) in elsewhere)

    def where(self, takes: Takes) -> Iterable[Policy]:
        """The policies that can match where what goes along lies."""
        return list(self._policies.values()) if takes.namespace == ANYWHERE else self._in(takes.namespace)

    def _candidates(self, action: Action, subject: Subject) -> tuple[Policy, ...]:
        target = action.target
        if (target.group, target.resource) == NAMESPACES:
            return self._for_namespace_object(action, subject)
        by_operation = self._cache.get(target.namespace)
        if by_operation is None:
            by_operation = self._cache[target.namespace] = {}
        key = (action.operation, *action.also)
        found = by_operation.get(key)
        if found is None:
            found = tuple(
                p
                for p in self._in(target.namespace)
                if any(rule.covers(action.operation, action.also) for rule in p.rules)
            )
            known = target.namespace == CLUSTER_SCOPED or target.namespace in self._namespaces
            if known and len(by_operation) < MAX_OPERATIONS_KEPT:
                by_operation[key] = found
        return found

    def _in(self, namespace: str) -> list[Policy]:
        if namespace == CLUSTER_SCOPED:
            return [policy for policy in self._policies.values() if policy.can_match_cluster_scoped]
        labels = self._namespaces.get(namespace)
        return [policy for policy in self._policies.values() if policy.can_match_namespace(namespace, labels)]

    def _for_namespace_object(self, action: Action, subject: Subject) -> tuple[Policy, ...]:
        name = action.target.name
        known = self._namespaces.get(name)
        sets: list[Labels | None] = [*(subject.namespace_labels or ()), *([known] if known is not None else [])]
        sets = sets or [None]
        return tuple(
            policy
            for policy in self._policies.values()
            if any(rule.covers(action.operation, action.also) for rule in policy.rules)
            and any(policy.can_match_namespace(name, labels) for labels in sets)
        )


class _Say:
    """What policies say to one request, gathered."""

    def __init__(self, user: UserInfo, subject: Subject) -> None:
        self._user = user
        self._subject = subject
        self.demands: list[Demand] = []
        self.exempted: dict[str, None] = {}
        self.broken: dict[str, None] = {}
        self.unknown_labels = False

    def about(self, policy: Policy, action: Action, *, there: bool = True, along: bool = False) -> None:
        """What one policy says to one action: where the target lies (there), and where what goes along with it does."""
        rules = self._rules_there(policy, action) if there else []
        if along:
            more = self._rules_along(policy, action)
            rules = [rule for rule in policy.rules if rule in rules or rule in more]
        if rules and not self._lets_pass(policy):
            self.demands += [Demand(action, rule.requirement, policy.enforcement) for rule in rules]

    def _rules_there(self, policy: Policy, action: Action) -> list[Rule]:
        rules = policy.rules_for(action)
        if not rules or not policy.is_about(self._user) or not self._selects(policy, action):
            return []
        return [rule for rule in rules if not rule.conditions or rule.holds(self._activation(action))]

    def _rules_along(self, policy: Policy, action: Action) -> list[Rule]:
        """What an owner made is judged by the labels that the owner gives it, and by conditions on the owner.

        Of anything else nothing is known but its kind and where it lies.
        """
        rules = policy.rules_along(action)
        if not rules or action.takes is None or not policy.is_about(self._user):
            return []
        known, selector = action.takes.labels, policy.object_selector
        if selector is not None and known is not None and not any(map(selector.matches, known)):
            return []
        seen = action if known is not None else msgspec.structs.replace(action, cascade=True)
        return [rule for rule in rules if not rule.conditions or rule.holds(self._activation(seen))]

    def _activation(self, action: Action) -> Activation | None:
        return self._subject.facts().about(action) if self._subject.facts is not None else None

    def about_weakening(self, action: Action) -> None:
        """What the policies that would be weakened say; everybody is asked, whomever they are about."""
        for policy in self._subject.weakened:
            if not self._lets_pass(policy):
                self.demands += [Demand(action, one, "Deny") for one in policy.guarding_requirements]

    def _selects(self, policy: Policy, action: Action) -> bool:
        selector = policy.object_selector
        if selector is None or action.cascade:
            return True
        if self._subject.labels is None:
            self.unknown_labels = True
            return True
        return any(selector.matches(labels) for labels in self._subject.labels)

    def _lets_pass(self, policy: Policy) -> bool:
        """Whether a policy exempts the user or lets them break glass; noted in one of the two."""
        if policy.exempt.privilege(self._user):
            self.exempted[policy.name] = None
        elif policy.break_glass.privilege(self._user):
            self.broken[policy.name] = None
        else:
            return False
        return True
