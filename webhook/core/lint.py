"""Mistakes in a policy: errors (it cannot work), warnings (it works, but hardly as meant), notes (it needs something else)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from webhook.core.lint_conditions import condition_warnings
from webhook.core.lint_rules import rule_warnings
from webhook.core.policy import Policy
from webhook.core.policy_spec import BreakGlassSpec, SubjectsSpec
from webhook.core.selectors import Labels
from webhook.errors import PolicyError

EVERYBODY: Final = frozenset({"*", "system:authenticated"})
_WHO: Final = ("users", "groups", "service_accounts")
DEFAULT_LIFETIME_SECONDS: Final = 3600
"""``assertionMaxLifetimeSeconds`` of an unchanged installation."""


class Finding(msgspec.Struct, frozen=True):
    """One finding: ``severity`` is error, warning or note, ``field`` a path into the object."""

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
    warnings = [Finding("warning", *_placed(name, one)) for one in _warnings(policy)]
    return [*warnings, *(Finding("note", *_placed(name, one)) for one in _notes(policy))]


def findings_in(obj: Mapping[str, Any], namespaces: Mapping[str, Labels]) -> list[Finding]:
    """What a policy says of namespaces that a cluster does not have. Those that cannot be read have none.

    Args:
        namespaces: labels of all namespaces of the cluster, by name.
    """
    try:
        policy = Policy.parse(obj)
    except PolicyError:
        return []
    return [Finding("warning", *_placed(policy.name, one)) for one in _namespace_warnings(policy, namespaces)]


def _placed(policy: str, found: tuple[str, str, str]) -> tuple[str, str, str, str]:
    code, field, text = found
    return code, policy, field, text


def _warnings(policy: Policy) -> Iterator[tuple[str, str, str]]:
    match = policy.spec.match
    if match.namespace_selector is None and not match.namespaces and match.object_selector is None:
        yield "matches-everything", "spec.match", "asks in every namespace, and for cluster-scoped objects"
    if match.namespace_selector is not None and match.namespace_selector.is_empty and not match.namespaces:
        yield "matches-everything", "spec.match.namespaceSelector", "an empty selector selects every namespace"
    for kind in ("users", "groups"):
        for who, field in ((match.exempt, "exempt"), (match.break_glass, "breakGlass")):
            if EVERYBODY & set(getattr(who, kind)):
                yield "swallows-everybody", f"spec.match.{field}.{kind}", "lets everybody pass: no rule can apply"
    if "*" in match.exempt.service_accounts or "kube-system/*" in match.exempt.service_accounts:
        field = "spec.match.exempt.serviceAccounts"
        yield "exempts-by-glob", field, "whoever can make an account there is exempt; name the accounts"
    yield from _subject_warnings(policy)
    yield from rule_warnings(policy)
    for rule in policy.rules:
        yield from condition_warnings(policy, rule)


def _subject_warnings(policy: Policy) -> Iterator[tuple[str, str, str]]:
    match = policy.spec.match
    subjects = match.subjects
    if subjects is not None:
        named = list(_all_of(subjects))
        if not named:
            yield (
                "matches-nothing",
                "spec.match.subjects",
                "is there and empty, so the policy is about nobody; leave it out",
            )
        elif all(_is_among(kind, one, match.exempt) for kind, one in named):
            yield (
                "exempt-swallows",
                "spec.match.exempt",
                "exempts everybody whom the policy is about: no rule can apply",
            )
    for kind, one in _all_of(match.break_glass):
        if _is_among(kind, one, match.exempt):
            yield "exempt-hides-break-glass", f"spec.match.breakGlass.{kind}", f"{one} is exempt, so nobody hears of it"


def _notes(policy: Policy) -> Iterator[tuple[str, str, str]]:
    for position, rule in enumerate(policy.rules):
        field, requirement = f"spec.rules[{position}].require", rule.requirement
        if requirement.bind == "Session":
            yield "needs-session-key", f"{field}.bind", "nothing passes while the setting `sessionExtraKey` is empty"
        if requirement.max_age_seconds > DEFAULT_LIFETIME_SECONDS:
            text = "a proof ends after one hour, unless the setting `assertionMaxLifetimeSeconds` is raised"
            yield "beyond-lifetime", f"{field}.maxAge", text


def _namespace_warnings(policy: Policy, namespaces: Mapping[str, Labels]) -> Iterator[tuple[str, str, str]]:
    match = policy.spec.match
    for position, pattern in enumerate(match.namespaces):
        if not any(fnmatchcase(name, pattern) for name in namespaces):
            field = f"spec.match.namespaces[{position}]"
            yield "no-such-namespace", field, f"the cluster has no namespace that fits {pattern}"
    selects = match.namespace_selector is not None or match.namespaces
    if selects and not any(policy.can_match_namespace(name, labels) for name, labels in namespaces.items()):
        yield "no-such-namespace", "spec.match", "no namespace of the cluster is matched"


def _all_of(who: SubjectsSpec | BreakGlassSpec) -> Iterator[tuple[str, str]]:
    for kind in _WHO:
        name = "serviceAccounts" if kind == "service_accounts" else kind
        yield from ((name, one) for one in getattr(who, kind, ()))


def _is_among(kind: str, pattern: str, exempt: SubjectsSpec) -> bool:
    """Whether all that a pattern names is exempt, as far as the patterns tell."""
    if any(EVERYBODY & set(names) for names in (exempt.users, exempt.groups)):
        return True
    others: Iterable[str] = {one for name, one in _all_of(exempt) if name == kind}
    is_glob = any(letter in pattern for letter in "*?[")
    return any(one in {"*", pattern} or (not is_glob and fnmatchcase(pattern, one)) for one in others)
