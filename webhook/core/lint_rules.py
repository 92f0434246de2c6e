"""Rules that ask for nothing, for too little, for what another asks already, or for what nobody can give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Final

import msgspec

from webhook.core.cascades import reaching
from webhook.core.policy import Policy, Rule
from webhook.core.policy_spec import RuleSpec
from webhook.core.reach import all_covered, can_have, full, is_cluster_scoped
from webhook.core.requirement import ASSURANCES, SCOPES, USES, Requirement

LONG_WINDOW_SECONDS: Final = 3600
STRONGEST_FACTOR: Final = "aal2"
"""The highest assurance that a factor of an unchanged installation gives (``webhook/elevation/factors``)."""
_LITERAL: Final = re.compile(r"(?:[\w :/#@,;=-]|\\[^\w\s])*")
_KNOWN_FIELDS: Final = frozenset(
    {
        "policy", "rule", "assurance", "max_age_seconds", "use", "scope", "bind",
        "reason_required", "reason_pattern", "reason_matches",
    }
)  # fmt: skip


def rule_warnings(policy: Policy) -> Iterator[tuple[str, str, str]]:
    """Code, field and text of each mistake in the rules of a policy."""
    specs = policy.spec.rules
    for position, (rule, spec) in enumerate(zip(policy.rules, specs, strict=True)):
        field, requirement = f"spec.rules[{position}]", rule.requirement
        if requirement.use == "Window" and requirement.max_age_seconds > LONG_WINDOW_SECONDS:
            yield "long-window", f"{field}.require.maxAge", "one proof opens this for more than an hour"
        if requirement.use == "Window" and requirement.scope == "Namespace" and "delete" in rule.operations:
            yield "wide-window", f"{field}.require.scope", "one proof allows deleting everything in the namespace"
        if ASSURANCES.index(requirement.assurance) > ASSURANCES.index(STRONGEST_FACTOR):
            text = f"no factor gives {requirement.assurance}: nobody can meet this, nor take the policy back"
            yield "locks-out", f"{field}.require.assurance", text
        yield from _unreachable(policy, rule, spec, field)
        yield from _raw(rule, spec, field)
        other = _shadow_of(policy, position)
        if other is not None:
            yield "shadowed", field, f"asks nothing that rule {other.name} does not ask already"
    yield from _contradictions(policy)


def _raw(rule: Rule, spec: RuleSpec, field: str) -> Iterator[tuple[str, str, str]]:
    for position, operation in enumerate(spec.operations):
        raw = next((one for one in rule.raw if one.text == operation), None)
        if raw is not None and raw.never_sent:
            yield "never-asked", f"{field}.operations[{position}]", raw.never_sent
    if rule.raw and len(rule.raw) == len(spec.operations) and spec.resources != ("*",):
        text = "raw operations name their resources themselves; this narrows classes only"
        yield "resources-unused", f"{field}.resources", text


def _unreachable(policy: Policy, rule: Rule, spec: RuleSpec, field: str) -> Iterator[tuple[str, str, str]]:
    for position, pattern in enumerate(spec.resources):
        where = f"{field}.resources[{position}]"
        if not any(can_have(operation, pattern) for operation in spec.operations):
            yield "matches-nothing", where, f"no {' or '.join(spec.operations)} is about {pattern}"
        elif is_cluster_scoped(pattern) and not policy.can_match_cluster_scoped and not _goes_along(rule, pattern):
            yield "matches-nothing", where, f"{pattern} are in no namespace, and the policy is about namespaces"
    for position, operation in enumerate(spec.operations):
        if any(can_have(one, pattern) for one in spec.operations for pattern in spec.resources) and not any(
            can_have(operation, pattern) for pattern in spec.resources
        ):
            yield "matches-nothing", f"{field}.operations[{position}]", f"none of the resources can be {operation}"


def _goes_along(rule: Rule, pattern: str) -> bool:
    """Whether a kind of no namespace is asked about nevertheless, because of what its end takes along."""
    return any(fnmatchcase(kind, full(pattern)) for kind in reaching([rule]) & {"core/nodes", "core/persistentvolumes"})


def _contradictions(policy: Policy) -> Iterator[tuple[str, str, str]]:
    """Two rules for one request whose reasons no single reason can be."""
    rules = list(enumerate(zip(policy.rules, policy.spec.rules, strict=True)))
    for (_, (first, one)), (position, (second, other)) in combinations(rules, 2):
        meet = first.operations & second.operations and (
            all_covered(one.resources, other.resources) or all_covered(other.resources, one.resources)
        )
        prefixes = [_literal_prefix(rule.requirement.reason_pattern) for rule in (first, second)]
        if meet and not first.conditions and not second.conditions and _differ(*prefixes):
            field = f"spec.rules[{position}].require.reason.pattern"
            yield "reasons-contradict", field, f"no reason fits both this and the pattern of rule {first.name}"


def _literal_prefix(pattern: str) -> str:
    """What every text that fits begins with; empty where that is not plain."""
    found = _LITERAL.match(pattern)
    if found is None or "|" in pattern.replace("\\|", "") or "(?" in pattern:
        return ""
    text, rest = found[0], pattern[found.end() :]
    if rest[:1] in {"*", "?", "{"}:
        text = text[:-2] if text[-2:-1] == "\\" else text[:-1]
    return re.sub(r"\\(.)", r"\1", text)


def _differ(one: str, other: str) -> bool:
    return not one.startswith(other) and not other.startswith(one)


def _shadow_of(policy: Policy, position: int) -> Rule | None:
    """A rule that asks all that this one asks; of two that are the same, the first is none's shadow."""
    for at, rule in enumerate(policy.rules):
        if (
            at != position
            and _replaces(policy, at, position)
            and (at < position or not _replaces(policy, position, at))
        ):
            return rule
    return None


def _replaces(policy: Policy, first: int, second: int) -> bool:
    """Whether the first rule asks at least as much for all that the second is about."""
    one, other = policy.spec.rules[first], policy.spec.rules[second]
    narrows = one.conditions and (one.variables, one.conditions) != (other.variables, other.conditions)
    reaches = set(other.operations) <= set(one.operations) and all_covered(one.resources, other.resources)
    asks = _asks_as_much(policy.rules[first].requirement, policy.rules[second].requirement)
    return reaches and not narrows and asks


def _asks_as_much(one: Requirement, other: Requirement) -> bool:
    """Whether any proof that meets the first meets the other, too."""
    rest = [name for name in msgspec.structs.asdict(one) if name not in _KNOWN_FIELDS]
    return (
        all(getattr(one, name) == getattr(other, name) for name in rest)
        and ASSURANCES.index(one.assurance) >= ASSURANCES.index(other.assurance)
        and one.max_age_seconds <= other.max_age_seconds
        and USES.index(one.use) <= USES.index(other.use)
        and SCOPES.index(one.scope) <= SCOPES.index(other.scope)
        and one.bind == other.bind
        and (one.reason_pattern == other.reason_pattern if other.reason_pattern else True)
        and one.reason_required >= other.reason_required
    )
