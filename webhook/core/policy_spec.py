"""``spec`` of a StepUpPolicy as it is written: its fields, their defaults, and which values they may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from webhook.core.approvals import MAX_COUNT, MAX_GROUPS, MIN_COUNT
from webhook.core.durations import parse_seconds
from webhook.core.operation import OPERATIONS
from webhook.core.raw import FORM, is_raw
from webhook.core.requirement import ASSURANCES, BINDINGS, SCOPES, USES
from webhook.core.selectors import LabelSelector
from webhook.errors import PolicyError

ENFORCEMENTS = ("Deny", "Warn", "Audit")
MIN_MAX_AGE_SECONDS = 10
MAX_MAX_AGE_SECONDS = 24 * 3600
MAX_PATTERN_LENGTH = 256
MIN_HOLD_SECONDS = 10
MAX_HOLD_SECONDS = 3600
MAX_RULES = 64
MAX_WORKLOADS = 16
MAX_ISSUER_LENGTH = 512


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    pass


class SubjectsSpec(_Strict, frozen=True, kw_only=True):
    """People and accounts; globs for users and groups, ``namespace/name`` globs for service accounts."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()


class BreakGlassSpec(_Strict, frozen=True, kw_only=True):
    """Who passes, loudly."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class MatchSpec(_Strict, frozen=True, kw_only=True):
    """What a policy is about; every field that is set must hold."""

    namespace_selector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()
    object_selector: LabelSelector | None = None
    subjects: SubjectsSpec | None = None
    exempt: SubjectsSpec = SubjectsSpec()
    break_glass: BreakGlassSpec = BreakGlassSpec()


class ReasonSpec(_Strict, frozen=True, kw_only=True):
    """Whether a reason must be given, and what it must look like (RE2, matched from start to end)."""

    required: bool = False
    pattern: str = ""


class ApprovalsSpec(_Strict, frozen=True, kw_only=True):
    """How many others must agree, and of which groups (globs; none: whoever may approve)."""

    count: int = 1
    groups: tuple[str, ...] = ()


class RequireSpec(_Strict, frozen=True, kw_only=True):
    """The proof that a rule asks for."""

    assurance: str = "aal2"
    phishing_resistant: bool = False
    max_age: str = "5m"
    use: str = "Once"
    scope: str = "Object"
    bind: str = ""
    reason: ReasonSpec = ReasonSpec()
    approvals: ApprovalsSpec | None = None
    hold: str = ""


class ConditionSpec(_Strict, frozen=True, kw_only=True):
    """A CEL expression that must be true for a rule to apply."""

    expression: str


class VariableSpec(_Strict, frozen=True, kw_only=True):
    """A CEL expression that conditions of the rule read as ``variables.NAME``."""

    name: str
    expression: str


class WorkloadSpec(_Strict, frozen=True, kw_only=True):
    """Pipelines that meet a rule without a person: tokens of an issuer, or service accounts whose token is bound to a pod."""

    issuer: str = ""
    audience: str = ""
    service_accounts: tuple[str, ...] = ()
    conditions: tuple[ConditionSpec, ...] = ()


class RuleSpec(_Strict, frozen=True, kw_only=True):
    """One rule."""

    name: str
    operations: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    variables: tuple[VariableSpec, ...] = ()
    conditions: tuple[ConditionSpec, ...] = ()
    require: RequireSpec = RequireSpec()
    workloads: tuple[WorkloadSpec, ...] = ()


class PolicySpec(_Strict, frozen=True, kw_only=True):
    """``spec`` of a StepUpPolicy."""

    enforcement: str = "Deny"
    match: MatchSpec = MatchSpec()
    rules: tuple[RuleSpec, ...]


def read_spec(value: Any) -> PolicySpec:
    """Read and check ``spec`` of a StepUpPolicy; what it says in CEL is not looked at yet.

    Raises:
        PolicyError: it cannot be used; ``field`` says where.
    """
    if not isinstance(value, Mapping):
        raise PolicyError("is required", field="spec")
    try:
        spec = msgspec.convert(value, PolicySpec)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise PolicyError(text[:1].lower() + text[1:], field="spec" + path.rstrip("`")) from error
    _check(spec)
    return spec


def _check(spec: PolicySpec) -> None:
    _one_of(spec.enforcement, ENFORCEMENTS, "spec.enforcement")
    for selector, field in (
        (spec.match.namespace_selector, "spec.match.namespaceSelector"),
        (spec.match.object_selector, "spec.match.objectSelector"),
    ):
        if selector is not None:
            selector.check(field)
    if not 1 <= len(spec.rules) <= MAX_RULES:
        raise PolicyError(f"must have 1 to {MAX_RULES} rules", field="spec.rules")
    seen: set[str] = set()
    for position, rule in enumerate(spec.rules):
        field = f"spec.rules[{position}]"
        if not rule.name or rule.name in seen:
            raise PolicyError("must be set, and unique in the policy", field=f"{field}.name")
        seen.add(rule.name)
        _check_rule(rule, field)


def _check_rule(rule: RuleSpec, field: str) -> None:
    if not rule.operations:
        raise PolicyError("must name at least one operation", field=f"{field}.operations")
    for position, operation in enumerate(rule.operations):
        if not is_raw(operation) and operation not in OPERATIONS:
            allowed = f"must be one of {', '.join(OPERATIONS)}, or {FORM}, not {operation!r}"
            raise PolicyError(allowed, field=f"{field}.operations[{position}]")
    if not rule.resources or not all(rule.resources):
        raise PolicyError("must name at least one resource, or be left out", field=f"{field}.resources")
    require, where = rule.require, f"{field}.require"
    _one_of(require.assurance, ASSURANCES, f"{where}.assurance")
    _one_of(require.use, USES, f"{where}.use")
    _one_of(require.scope, SCOPES, f"{where}.scope")
    _one_of(require.bind, ("", *BINDINGS), f"{where}.bind")
    if require.use == "Once" and require.scope != "Object":
        raise PolicyError("Once needs scope Object: one proof, one object; take Window for more", field=f"{where}.use")
    try:
        seconds = parse_seconds(require.max_age)
    except ValueError as error:
        raise PolicyError(str(error), field=f"{where}.maxAge") from error
    if not MIN_MAX_AGE_SECONDS <= seconds <= MAX_MAX_AGE_SECONDS:
        raise PolicyError("must be between 10s and 24h", field=f"{where}.maxAge")
    if len(require.reason.pattern) > MAX_PATTERN_LENGTH:
        raise PolicyError(f"must have at most {MAX_PATTERN_LENGTH} letters", field=f"{where}.reason.pattern")
    _check_workloads(rule.workloads, f"{field}.workloads")
    _check_approvals(require, where)


def _check_approvals(require: RequireSpec, where: str) -> None:
    approvals = require.approvals
    if approvals is not None:
        if not MIN_COUNT <= approvals.count <= MAX_COUNT:
            raise PolicyError(f"must be {MIN_COUNT} to {MAX_COUNT}", field=f"{where}.approvals.count")
        if len(approvals.groups) > MAX_GROUPS or not all(approvals.groups):
            text = f"must be at most {MAX_GROUPS} names of groups, none of them empty"
            raise PolicyError(text, field=f"{where}.approvals.groups")
    if require.hold:
        try:
            seconds = parse_seconds(require.hold)
        except ValueError as error:
            raise PolicyError(str(error), field=f"{where}.hold") from error
        if not MIN_HOLD_SECONDS <= seconds <= MAX_HOLD_SECONDS:
            raise PolicyError("must be between 10s and 1h", field=f"{where}.hold")


def _check_workloads(workloads: tuple[WorkloadSpec, ...], field: str) -> None:
    if len(workloads) > MAX_WORKLOADS:
        raise PolicyError(f"must have at most {MAX_WORKLOADS} entries", field=field)
    for position, one in enumerate(workloads):
        where = f"{field}[{position}]"
        if bool(one.issuer) == bool(one.service_accounts):
            raise PolicyError("must have either an issuer or serviceAccounts", field=where)
        if one.service_accounts and not all("/" in account for account in one.service_accounts):
            raise PolicyError("must be namespace/name each", field=f"{where}.serviceAccounts")
        if not one.issuer:
            if one.audience:
                raise PolicyError("is for an issuer's tokens", field=f"{where}.audience")
            continue
        if not is_issuer(one.issuer):
            text = "must be the https:// URL that the tokens have in `iss`, without a query or fragment"
            raise PolicyError(text, field=f"{where}.issuer")
        if not one.conditions:
            text = "must say which of the issuer's tokens: it makes them for everybody's pipelines"
            raise PolicyError(text, field=f"{where}.conditions")


def is_issuer(text: str) -> bool:
    """Whether a text can be an issuer (OpenID Connect Core section 2: https, no query and no fragment)."""
    usable = text.startswith("https://") and len(text) <= MAX_ISSUER_LENGTH and text.isprintable()
    return usable and len(text) > len("https://") and not any(letter in text for letter in "?# @")


def _one_of(value: str, allowed: tuple[str, ...], field: str) -> None:
    if value not in allowed:
        raise PolicyError(f"must be one of {', '.join(one for one in allowed if one)}, not {value!r}", field=field)
