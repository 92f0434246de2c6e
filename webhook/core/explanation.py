"""The form of an explanation: what each policy and rule says to each action, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from webhook.core.applicable import Demand
from webhook.core.operation import Action
from webhook.core.requirement import Requirement, merged

APPLIES: Final = "applies"
NAMESPACE: Final = "namespace"
CLASS: Final = "class"
RESOURCE: Final = "resource"
SUBJECT: Final = "subject"
OBJECT: Final = "object"
CONDITION: Final = "condition"
EXEMPT: Final = "exempt"
BREAK_GLASS: Final = "break-glass"
NOT_WEAKENED: Final = "not-weakened"

VERDICTS: Final = (APPLIES, NAMESPACE, CLASS, RESOURCE, SUBJECT, OBJECT, CONDITION, EXEMPT, BREAK_GLASS, NOT_WEAKENED)
"""``applies``, or what the policy or rule fails on, in the order in which it is looked at."""

SILENT: Final = "Audit"

TRUE: Final = "true"
FALSE: Final = "false"
UNKNOWN: Final = "unknown"
NOT_REACHED: Final = "not-reached"

OF_NAMESPACE: Final = "the labels of the namespace"
"""How a note begins that tells whether a namespace is there: not every person may know."""

NOT_TOLD: Final = "what it reads is told only by the request itself"
TAKES_OTHERS: Final = "it would have to be true of everything that goes with this object"


class ConditionSays(msgspec.Struct, frozen=True):
    """What became of one condition.

    Args:
        field: where it stands, such as ``spec.rules[0].conditions[1].expression``.
        value: ``true``, ``false``, ``unknown`` (counts as true) or ``not-reached`` (one before it is false).
        problem: why it is unknown.
    """

    field: str
    expression: str
    value: str
    problem: str = ""


class RuleSays(msgspec.Struct, frozen=True):
    """One rule of a policy that is about this namespace: its verdict (one of ``VERDICTS``) and why, for people."""

    rule: str
    verdict: str
    why: str
    requirement: Requirement
    conditions: tuple[ConditionSays, ...] = ()


class PolicySays(msgspec.Struct, frozen=True):
    """One policy: its verdict (one of ``VERDICTS``), why, what was taken for granted on doubt, and its rules.

    ``rules`` is empty where the policy is not about the namespace at all. A policy that applies asks for what those of its
    rules ask that apply; one that exempts the person, or lets them break glass, asks for nothing.
    """

    policy: str
    enforcement: str
    verdict: str
    why: str
    notes: tuple[str, ...] = ()
    rules: tuple[RuleSays, ...] = ()


class ActionSays(msgspec.Struct, frozen=True):
    """What all policies say to one action, in the order in which they were put in force."""

    action: Action
    policies: tuple[PolicySays, ...]


class Explanation(msgspec.Struct, frozen=True):
    """What all policies say to a request."""

    actions: tuple[ActionSays, ...]

    @property
    def demands(self) -> tuple[Demand, ...]:
        """What is asked for: the same as ``PolicyIndex.applicable`` would say."""
        return tuple(
            Demand(one.action, rule.requirement, policy.enforcement)
            for one in self.actions
            for policy in one.policies
            if policy.verdict == APPLIES
            for rule in policy.rules
            if rule.verdict == APPLIES
        )

    def of_the_person(self) -> Explanation:
        """What may be told to the person themselves: policies that ask them, and would but for a condition or an exemption.

        Policies for others, other namespaces and other objects are left out, as are those that audit in silence, rules for
        other classes and resources, and what conditions say (where they stand is enough to ask an operator about).
        """
        return Explanation(tuple(ActionSays(one.action, _told(one.policies)) for one in self.actions))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"actions": [_action_to_dict(one) for one in self.actions]}


def _told(policies: Iterable[PolicySays]) -> tuple[PolicySays, ...]:
    return tuple(
        msgspec.structs.replace(
            policy,
            notes=tuple(note for note in policy.notes if not note.startswith(OF_NAMESPACE)),
            rules=tuple(
                msgspec.structs.replace(rule, conditions=tuple(_without_text(one) for one in rule.conditions))
                for rule in policy.rules
                if rule.verdict in {APPLIES, CONDITION}
            ),
        )
        for policy in policies
        if policy.verdict in {APPLIES, CONDITION, EXEMPT, BREAK_GLASS} and policy.enforcement != SILENT
    )


def _without_text(condition: ConditionSays) -> ConditionSays:
    # An evaluation's error may quote what it read, or the expression itself.
    problem = condition.problem if condition.problem in {"", NOT_TOLD, TAKES_OTHERS} else "it cannot be evaluated"
    return msgspec.structs.replace(condition, expression="", problem=problem)


def _action_to_dict(one: ActionSays) -> dict[str, Any]:
    target = one.action.target
    return {
        "operation": one.action.operation,
        "group": target.group,
        "resource": target.resource,
        "namespace": target.namespace,
        "name": target.name,
        "policies": [_policy_to_dict(policy) for policy in one.policies],
    }


def _policy_to_dict(policy: PolicySays) -> dict[str, Any]:
    return {
        "policy": policy.policy,
        "enforcement": policy.enforcement,
        "verdict": policy.verdict,
        "why": policy.why,
        "notes": list(policy.notes),
        "rules": [rule_to_dict(rule) for rule in policy.rules],
    }


def rule_to_dict(rule: RuleSays) -> dict[str, Any]:
    """JSON form of what a rule says; with what it takes, where it applies."""
    found: dict[str, Any] = {"rule": rule.rule, "verdict": rule.verdict, "why": rule.why}
    if rule.conditions:
        conditions = [msgspec.structs.asdict(one) for one in rule.conditions]
        found["conditions"] = [{key: value for key, value in one.items() if value} for one in conditions]
    if rule.verdict == APPLIES:
        requires = merged([rule.requirement]).to_dict()
        found["requires"] = {key: value for key, value in requires.items() if key != "policies"}
    return found
