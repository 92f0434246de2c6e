"""Mistakes in a policy: errors (it cannot work) and warnings (it works, but hardly as meant)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from webhook.core.policy import Policy, Rule
from webhook.errors import PolicyError

LONG_WINDOW_SECONDS = 3600


class Finding(msgspec.Struct, frozen=True):
    """One finding: ``severity`` is error or warning, ``field`` a path into the object."""

    severity: str
    code: str
    policy: str
    field: str
    message: str


def findings(obj: Mapping[str, Any]) -> list[Finding]:
    """All that is wrong with a StepUpPolicy object, or looks it."""
    name = str((obj.get("metadata") or {}).get("name", ""))
    try:
        policy = Policy.parse(obj)
    except PolicyError as error:
        return [Finding("error", error.code, name, error.field, error.message)]
    return [Finding("warning", code, name, field, text) for code, field, text in _warnings(policy)]


def _warnings(policy: Policy) -> Iterator[tuple[str, str, str]]:
    match = policy.spec.match
    if match.namespace_selector is None and not match.namespaces and match.object_selector is None:
        yield "matches-everything", "spec.match", "asks in every namespace, and for cluster-scoped objects"
    if match.namespace_selector is not None and match.namespace_selector.is_empty and not match.namespaces:
        yield "matches-everything", "spec.match.namespaceSelector", "an empty selector selects every namespace"
    for kind in ("users", "groups"):
        for who, field in ((match.exempt, "exempt"), (match.break_glass, "breakGlass")):
            if {"*", "system:authenticated"} & set(getattr(who, kind)):
                yield "swallows-everybody", f"spec.match.{field}.{kind}", "lets everybody pass: no rule can apply"
    if "*" in match.exempt.service_accounts or "kube-system/*" in match.exempt.service_accounts:
        field = "spec.match.exempt.serviceAccounts"
        yield "exempts-by-glob", field, "whoever can make an account there is exempt; name the accounts"
    yield from _rule_warnings(policy)


def _rule_warnings(policy: Policy) -> Iterator[tuple[str, str, str]]:
    for position, rule in enumerate(policy.rules):
        field, requirement = f"spec.rules[{position}]", rule.requirement
        if requirement.use == "Window" and requirement.max_age_seconds > LONG_WINDOW_SECONDS:
            yield "long-window", f"{field}.require.maxAge", "one proof opens this for more than an hour"
        if requirement.use == "Window" and requirement.scope == "Namespace" and "delete" in rule.operations:
            yield "wide-window", f"{field}.require.scope", "one proof allows deleting everything in the namespace"
        for earlier in policy.rules[:position]:
            if _shadows(earlier, rule, policy):
                yield "shadowed", field, f"asks nothing that rule {earlier.name} does not ask already"
                break


def _shadows(first: Rule, second: Rule, policy: Policy) -> bool:
    """Whether the first rule asks, for all that the second is about, for the very same proof."""
    specs = {spec.name: spec for spec in policy.spec.rules}
    one, other = specs[first.name], specs[second.name]
    covers = set(other.operations) <= set(one.operations)
    resources = "*" in one.resources or set(other.resources) <= set(one.resources)
    narrows = one.conditions and (one.variables, one.conditions) != (other.variables, other.conditions)
    return covers and resources and not narrows and one.require == other.require
