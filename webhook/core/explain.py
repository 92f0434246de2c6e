"""Why somebody is asked for proof, or is not: every policy and every rule, with what it says and the first reason why.

It follows the same steps as ``PolicyIndex.applicable`` and comes to the same demands (a test holds the two together), but it
looks at every policy and stops at no answer, so it is no part of the path that requests take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from webhook.core.applicable import CLUSTER_SCOPED, NAMESPACES, PolicyIndex, Subject
from webhook.core.cel import Activation, Condition
from webhook.core.cel.fields import is_about_target
from webhook.core.cel.scope import Scope
from webhook.core.explanation import (
    APPLIES,
    BREAK_GLASS,
    CLASS,
    CONDITION,
    EXEMPT,
    FALSE,
    NAMESPACE,
    NOT_REACHED,
    NOT_TOLD,
    NOT_WEAKENED,
    OBJECT,
    OF_NAMESPACE,
    RESOURCE,
    SUBJECT,
    TAKES_OTHERS,
    TRUE,
    UNKNOWN,
    ActionSays,
    ConditionSays,
    Explanation,
    PolicySays,
    RuleSays,
)  # fmt: skip
from webhook.core.operation import GUARD, Action, Takes
from webhook.core.policy import Policy, Rule
from webhook.core.request import UserInfo
from webhook.core.selectors import Labels


def explain(
    index: PolicyIndex,
    user: UserInfo,
    actions: Iterable[Action],
    subject: Subject,
    *,
    can_be_known: Callable[[Condition], bool] = lambda _: True,
) -> Explanation:
    """What each policy and rule says to these actions by this user.

    Args:
        subject: as for ``PolicyIndex.applicable``; without ``facts``, all conditions are unknown and their rules apply.
        can_be_known: whether the facts hold what a condition reads; one of which they do not is unknown, whatever they are.
    """
    witness = _Witness(index, user, subject, can_be_known)
    return Explanation(tuple(ActionSays(action, tuple(witness.about_all(action))) for action in actions))


class _Witness:
    def __init__(
        self, index: PolicyIndex, user: UserInfo, subject: Subject, can_be_known: Callable[[Condition], bool]
    ) -> None:
        self._index = index
        self._user = user
        self._subject = subject
        self._can_be_known = can_be_known

    def about_all(self, action: Action) -> Iterable[PolicySays]:
        """What each policy says to one action."""
        if action.operation == GUARD:
            weakened = {policy.name: policy for policy in self._subject.weakened}
            yield from (self._about_weakening(policy) for policy in weakened.values())
            others = (policy for name, policy in self._index.policies.items() if name not in weakened)
            yield from (_says(one, NOT_WEAKENED, "it would be no laxer for it") for one in others)
        else:
            yield from (self._about(policy, action) for policy in self._index.policies.values())

    def _about(self, policy: Policy, action: Action) -> PolicySays:
        said = self._about_target(policy, action)
        return said if action.takes is None else self._about_what_goes_along(policy, action, action.takes, said)

    def _about_what_goes_along(self, policy: Policy, action: Action, takes: Takes, said: PolicySays) -> PolicySays:
        """What it says to the target, and to what goes when that goes."""
        selector = policy.object_selector
        selects = selector is None or takes.labels is None or any(map(selector.matches, takes.labels))
        if not selects or not policy.is_about(self._user) or policy not in self._index.where(takes):
            return said
        seen = action if takes.labels is not None else msgspec.structs.replace(action, cascade=True)
        direct = said.verdict in {APPLIES, EXEMPT, BREAK_GLASS}
        before = {one.rule: one for one in said.rules}
        rules = tuple(
            self._rule_along(rule, seen, policy, before.get(rule.name), said, direct) for rule in policy.rules
        )
        if all(one.verdict != APPLIES or one is before.get(one.rule) for one in rules):
            return said
        notes = list(said.notes)
        why = said.why if direct else "it is about what goes along with the target"
        verdict, why = self._let_pass(policy, notes) or (APPLIES, why)
        return _says(policy, verdict, why, dict.fromkeys(notes), rules)

    def _rule_along(
        self, rule: Rule, seen: Action, policy: Policy, before: RuleSays | None, said: PolicySays, direct: bool
    ) -> RuleSays:
        if before is not None and before.verdict == APPLIES and direct:
            return before
        if seen.takes is not None and rule.applies_along(seen):
            return self._by_conditions(rule, seen, policy, f"it is about {' or '.join(seen.takes.resources)}")
        if before is None or before.verdict == APPLIES:  # it would apply, but the policy does not
            return RuleSays(rule.name, said.verdict, said.why, rule.requirement)
        return before

    def _about_target(self, policy: Policy, action: Action) -> PolicySays:
        notes: list[str] = []
        if why := self._not_there(policy, action, notes):
            return _says(policy, NAMESPACE, why)
        rules = tuple(self._rule(rule, action, policy) for rule in policy.rules)
        verdict, why = self._verdict(policy, action, rules, notes)
        return _says(policy, verdict, why, notes, rules)

    def _about_weakening(self, policy: Policy) -> PolicySays:
        rules = tuple(
            RuleSays(one.rule, APPLIES, "asked of whoever makes the policy laxer", one)
            for one in policy.guarding_requirements
        )
        notes: list[str] = []
        verdict, why = self._let_pass(policy, notes) or (APPLIES, "it would be laxer for it")
        return msgspec.structs.replace(_says(policy, verdict, why, notes, rules), enforcement="Deny")

    def _verdict(
        self, policy: Policy, action: Action, rules: tuple[RuleSays, ...], notes: list[str]
    ) -> tuple[str, str]:
        verdicts = {one.verdict for one in rules}
        if verdicts == {CLASS}:
            return CLASS, f"no rule of it is about {_classes(action)}"
        if verdicts <= {CLASS, RESOURCE}:
            return RESOURCE, f"no rule of it about {_classes(action)} names {action.target.group_resource}"
        if not policy.is_about(self._user):
            return SUBJECT, f"its subjects do not include {self._user.username}"
        if not self._selects(policy, action, notes):
            return OBJECT, "its objectSelector does not select the object"
        if APPLIES not in verdicts:
            return CONDITION, "of each rule that could apply, a condition is false"
        return self._let_pass(policy, notes) or (APPLIES, "it matches")

    def _not_there(self, policy: Policy, action: Action, notes: list[str]) -> str:
        """Why a policy is not about the place of the target; empty when it is."""
        target = action.target
        if (target.group, target.resource) == NAMESPACES:
            name, known = target.name, self._index.namespaces.get(target.name)
            sets: list[Labels | None] = [*(self._subject.namespace_labels or ())]
            sets += [known] if known is not None or not sets else []
        elif target.namespace == CLUSTER_SCOPED:
            return "" if policy.can_match_cluster_scoped else f"it names namespaces, and {target.argument} is in none"
        else:
            name, sets = target.namespace, [self._index.namespaces.get(target.namespace)]
        if not any(policy.can_match_namespace(name, one) for one in sets):
            return f"it is not about the namespace {name}"
        if sets == [None] and policy.spec.match.namespace_selector is not None:
            notes.append(f"{OF_NAMESPACE} {name} are not known, so its namespaceSelector is taken to select it")
        return ""

    def _selects(self, policy: Policy, action: Action, notes: list[str]) -> bool:
        selector, labels = policy.object_selector, self._subject.labels
        if selector is None:
            return True
        if action.cascade:
            notes.append("its objectSelector may select something that goes with this object")
            return True
        if labels is None:
            notes.append("the object's labels are not known, so its objectSelector is taken to select it")
            return True
        return any(selector.matches(one) for one in labels)

    def _let_pass(self, policy: Policy, notes: list[str]) -> tuple[str, str] | None:
        name = self._user.username
        if policy.exempt.privilege(self._user):
            return EXEMPT, f"it exempts {name}"
        if policy.break_glass.privilege(self._user):
            return BREAK_GLASS, f"it lets {name} break glass: allowed, and told loudly"
        if policy.exempt.include(self._user) or policy.break_glass.include(self._user):
            notes.append(f"it would let {name} pass, but only with a credential that the API server can tell apart")
        return None

    def _rule(self, rule: Rule, action: Action, policy: Policy) -> RuleSays:
        if not rule.covers(action.operation, action.also):
            return RuleSays(rule.name, CLASS, f"it is not about {_classes(action)}", rule.requirement)
        if not rule.applies_to(action):
            return RuleSays(rule.name, RESOURCE, f"it does not name {action.target.group_resource}", rule.requirement)
        return self._by_conditions(rule, action, policy, "it matches")

    def _by_conditions(self, rule: Rule, action: Action, policy: Policy, why: str) -> RuleSays:
        conditions = tuple(self._conditions(rule, action, policy))
        verdict = APPLIES
        if any(one.value == FALSE for one in conditions):
            verdict, why = CONDITION, "a condition is false"
        elif any(one.value == UNKNOWN for one in conditions):
            why = "it matches, as far as can be known: a condition that is unknown counts as true"
        return RuleSays(rule.name, verdict, why, rule.requirement, conditions)

    def _conditions(self, rule: Rule, action: Action, policy: Policy) -> Iterable[ConditionSays]:
        facts = self._subject.facts
        activation = facts().about(action) if facts is not None and rule.conditions else None
        # One for all, as in a decision: what variables come to, and cost, is shared by the rule's conditions.
        scope = rule.conditions.scope(activation) if activation is not None else None
        value = ""
        for one in rule.conditions.all:
            problem = ""
            if value in {FALSE, NOT_REACHED}:
                value = NOT_REACHED
            elif action.cascade and is_about_target(one.trees):
                value, problem = UNKNOWN, TAKES_OTHERS
            elif activation is None or scope is None or not self._can_be_known(one):
                value, problem = UNKNOWN, NOT_TOLD
            else:
                value, problem = _evaluated(one, scope, activation, policy.name)
            yield ConditionSays(one.field, one.expression, value, problem)


def _evaluated(condition: Condition, scope: Scope, activation: Activation, policy: str) -> tuple[str, str]:
    """The value of a condition, and the problem when it has none."""
    failures = activation.facts.failures
    before = dict(failures)
    failures.clear()
    value = TRUE if condition.holds_in(scope, activation, policy) else FALSE
    problem = next(iter(failures)).problem if failures else ""
    failures.update(before)
    return (UNKNOWN, problem) if problem else (value, "")


def _says(
    policy: Policy, verdict: str, why: str, notes: Iterable[str] = (), rules: tuple[RuleSays, ...] = ()
) -> PolicySays:
    return PolicySays(policy.name, policy.enforcement, verdict, why, tuple(notes), rules)


def _classes(action: Action) -> str:
    return " or ".join((action.operation, *action.also))
