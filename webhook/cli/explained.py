"""An explanation as text for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from webhook.cli.explain import Asking
from webhook.core.durations import format_seconds
from webhook.core.explanation import APPLIES, BREAK_GLASS, CONDITION, EXEMPT, ActionSays, PolicySays, RuleSays
from webhook.core.refusal import command
from webhook.core.requirement import Challenge, Requirement, merged

_LOOKED_AT_RULES = frozenset({APPLIES, CONDITION, EXEMPT, BREAK_GLASS})
NO_EFFECT = "This request has no effect that a policy could ask about."
A_CONTROLLER = "A controller of the cluster, shown by its credential, is never asked."
NOT_WHOLE = "Only class and object are known here: conditions and labels that are not known count as matching."


def as_text(found: Asking) -> str:
    """What each policy says, and what it takes in the end."""
    lines = [line for one in found.explanation.actions for line in _action(one, found)]
    if not lines:
        return NO_EFFECT
    if not found.whole:
        lines.append(NOT_WHOLE)
    return "\n".join([*lines, _conclusion(found)])


def as_json(found: Asking) -> str:
    """One object: who asks, what each policy says, and what it takes; ``requirement`` is null when nothing is asked."""
    challenge = _challenge(found)
    told: dict[str, Any] = {
        "user": {"username": found.user.username, "groups": list(found.user.groups)},
        "controller": found.controller,
        "complete": found.whole,
        **found.explanation.to_dict(),
        "requirement": challenge.to_dict() if challenge else None,
    }
    return msgspec.json.encode(told).decode()


def _action(one: ActionSays, found: Asking) -> Iterator[str]:
    details = f" ({one.action.details})" if one.action.details else ""
    yield f"{one.action.operation} {one.action.target.describe()}{details}, by {found.user.username}"
    if not one.policies:
        yield "  there are no policies"
    for policy in one.policies:
        yield from _policy(policy)


def _policy(policy: PolicySays) -> Iterator[str]:
    verdict = "applies" if policy.verdict == APPLIES else f"asks nothing [{policy.verdict}]"
    yield f"  policy {policy.policy} ({policy.enforcement}) {verdict}: {policy.why}"
    yield from (f"    note: {note}" for note in policy.notes)
    if policy.verdict in _LOOKED_AT_RULES:
        asks = "asks" if policy.verdict == APPLIES else "would ask"
        for rule in policy.rules:
            yield from _rule(rule, asks)


def _rule(rule: RuleSays, asks: str) -> Iterator[str]:
    verdict = asks if rule.verdict == APPLIES else f"asks nothing [{rule.verdict}]"
    yield f"    rule {rule.rule} {verdict}: {rule.why}"
    for one in rule.conditions:
        problem = f" ({one.problem})" if one.problem else ""
        yield f"      {one.value}{problem}: {one.expression}"
    if rule.verdict == APPLIES:
        yield f"      takes {_needs(rule.requirement)}"


def _needs(one: Requirement) -> str:
    parts = [one.assurance, f"at most {format_seconds(one.max_age_seconds)} old", one.use, f"scope {one.scope}"]
    if one.bind:
        parts.append(f"bound to the {one.bind.lower()}")
    if one.reason_pattern:
        parts.append(f"a reason that matches {one.reason_pattern}")
    elif one.reason_required:
        parts.append("a reason")
    return ", ".join(parts)


def _challenge(found: Asking) -> Challenge | None:
    demands = () if found.controller else found.explanation.demands
    asked = [one.requirement for one in demands if one.enforcement == "Deny"]
    return merged(asked) if asked else None


def _conclusion(found: Asking) -> str:
    if found.controller:
        return A_CONTROLLER
    challenge = _challenge(found)
    if challenge is None:
        warned = sorted({one.requirement.policy for one in found.explanation.demands})
        return f"It passes; {', '.join(warned)} would say so, but refuse nothing." if warned else "It passes unasked."
    enforcing = [one for one in found.explanation.demands if one.enforcement == "Deny"]
    actions = list({one.action.operation: one.action for one in enforcing}.values())
    return f"It takes a step-up ({challenge.describe()}):\n  {command(actions, challenge)}"
