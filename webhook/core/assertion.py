"""The step-up assertion: its claims, and whether it satisfies one requirement for one action, now.

The signature has been verified by then (``adapters/verifier.py``): :class:`AssertionClaims` made from a token by anyone
else than the verifier is a bug. Claims: RFC 7519 section 4.1, RFC 8176 (``amr``), RFC 9396 (``authorization_details``),
RFC 7800 (``cnf``), OpenID Connect Core section 2 (``auth_time``, ``acr``).
"""

from __future__ import annotations

from typing import Final

import msgspec

from webhook.core.approvals import Approval, approvers
from webhook.core.durations import format_seconds
from webhook.core.operation import Action
from webhook.core.request import UserInfo
from webhook.core.requirement import ASSURANCES, SCOPES, Requirement
from webhook.core.workloads import ACR, WorkloadClaims

TOKEN_TYPE: Final = "stepup+jwt"  # noqa: S105 - RFC 8725 section 3.11, explicit typing
DETAIL_TYPE: Final = "urn:kube-stepup:operation"
ANNOTATION: Final = "kube-stepup.io/assertion"
MAX_TOKEN_BYTES: Final = 8 * 1024
LEEWAY_SECONDS: Final = 10
"""How far ahead the elevation server's clock may be. Nothing is ever accepted after it has expired."""
REPEAT_SECONDS: Final = 30
"""How long the same change passes again with a `Once` proof: kubectl and the API server repeat requests by themselves."""


class DetailObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object by name, with its uid and the change where they were known.

    Args:
        digest: beginning of the change's digest.
        change: what the change is in words, as an approver read it; the words of the request must be the same.
    """

    name: str
    uid: str = ""
    digest: str = ""
    change: str = ""


class AuthorizationDetail(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """RFC 9396: one operation on named objects of a kind, on a kind in a namespace, or on a namespace."""

    type: str
    operation: str
    scope: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    objects: tuple[DetailObject, ...] = ()


class Confirmation(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 7800: what the bearer must also hold."""

    credential_id: str = ""
    session_id: str = ""


class AssertionClaims(msgspec.Struct, frozen=True, kw_only=True):
    """Verified claims. All times are seconds since the epoch."""

    iss: str
    aud: tuple[str, ...] | str
    sub: str
    iat: int
    nbf: int
    exp: int
    jti: str
    auth_time: int
    acr: str
    amr: tuple[str, ...]
    authorization_details: tuple[AuthorizationDetail, ...]
    cnf: Confirmation = Confirmation()
    phishing_resistant: bool = False
    reason: str = ""
    approvals: tuple[Approval, ...] = ()
    workload: WorkloadClaims | None = None

    @property
    def is_workload(self) -> bool:
        """Whether it was minted for a pipeline, by either of the two signs of it."""
        return self.workload is not None or self.acr == ACR

    def audiences(self) -> tuple[str, ...]:
        """``aud`` as a tuple."""
        return (self.aud,) if isinstance(self.aud, str) else self.aud


class Problem(msgspec.Struct, frozen=True):
    """Why an assertion does not do.

    Args:
        code: stable kebab-case code.
        message: for the person, to follow a colon.
    """

    code: str
    message: str

    @property
    def rank(self) -> int:
        """How close it came; higher is closer."""
        return _ORDER.get(self.code, -1)


CHECKS: Final = (
    "wrong-operation",
    "wrong-target",
    "malformed",
    "too-large",
    "wrong-type",
    "wrong-algorithm",
    "unknown-key",
    "bad-signature",
    "wrong-issuer",
    "wrong-audience",
    "wrong-subject",
    "wrong-uid",
    "unknown-elevation",
    "wrong-credential",
    "wrong-session",
    "wrong-change",
    "scope-too-wide",
    "not-yet-valid",
    "expired",
    "authentication-too-old",
    "assurance-too-low",
    "not-phishing-resistant",
    "workload-not-accepted",
    "reason-missing",
    "reason-mismatch",
    "approvals-missing",
    "revoked",
    "used-up",
)
"""Every way in which an assertion can be wrong, from what is furthest from satisfying to what came closest."""

_ORDER = {code: position for position, code in enumerate(CHECKS)}


class Expected(msgspec.Struct, frozen=True):
    """What this cluster expects of every assertion."""

    issuer: str
    audience: str
    session_extra_key: str = ""


def check(
    claims: AssertionClaims,
    requirement: Requirement,
    action: Action,
    user: UserInfo,
    expected: Expected,
    now: float,
) -> Problem | None:
    """Whether an assertion satisfies a requirement for this action of this user; None when it does."""
    return (
        _check_parties(claims, user, expected)
        or _check_target(claims, action, requirement)
        or _check_binding(claims, requirement, user, expected)
        or _check_time(claims, requirement, now)
        or _check_strength(claims, requirement)
    )


def covers(detail: AuthorizationDetail, action: Action, requirement: Requirement) -> bool:
    """Whether a step-up for this detail could meet the requirement for the action."""
    return _check_detail(detail, action, requirement) is None


def _check_parties(claims: AssertionClaims, user: UserInfo, expected: Expected) -> Problem | None:
    if claims.iss != expected.issuer:
        return Problem("wrong-issuer", "the step-up was issued by somebody else")
    if claims.audiences() != (expected.audience,):  # RFC 8725 section 3.9: ours, and nobody else's besides
        return Problem("wrong-audience", "the step-up is for another cluster")
    if claims.sub != user.username:
        return Problem("wrong-subject", "the step-up is another person's")
    return None


def _check_target(claims: AssertionClaims, action: Action, requirement: Requirement) -> Problem | None:
    problems = [_check_detail(detail, action, requirement) for detail in claims.authorization_details]
    if None in problems:
        return None
    found = [problem for problem in problems if problem is not None]
    return max(
        found, key=lambda problem: problem.rank, default=Problem("wrong-operation", "the step-up is for nothing")
    )


def _check_detail(detail: AuthorizationDetail, action: Action, requirement: Requirement) -> Problem | None:
    if detail.type != DETAIL_TYPE or detail.operation != action.operation:
        return Problem("wrong-operation", f"your step-up is for {detail.operation}, not for {action.operation}")
    target = action.target
    elsewhere = Problem("wrong-target", "your step-up is for something else")
    if detail.namespace != target.namespace or detail.scope not in SCOPES:
        return elsewhere
    if detail.scope == "Namespace":
        if not target.namespace:
            return elsewhere
    elif (detail.group, detail.resource) != (target.group, target.resource):
        return elsewhere
    if detail.scope == "Object" and (problem := _check_object(detail, action)):
        return problem
    if SCOPES.index(detail.scope) > SCOPES.index(requirement.scope):
        return Problem("scope-too-wide", "this needs a step-up that names the object, yours covers more")
    return None


def _check_object(detail: AuthorizationDetail, action: Action) -> Problem | None:
    target = action.target
    named = [one for one in detail.objects if one.name == target.name]
    if not named:
        return Problem("wrong-target", "your step-up is for something else")
    same = [one for one in named if not one.uid or one.uid == target.uid]
    if not same and not target.uid:
        return Problem("wrong-uid", "your step-up is for one object, and which one this is cannot be read just now")
    if not same:
        return Problem("wrong-uid", "your step-up is for an object of this name that is no longer there")
    if any(_is_change(one, action) for one in same):
        return None
    return Problem("wrong-change", "your step-up is for another change of this object")


def _is_change(named: DetailObject, action: Action) -> bool:
    same = not named.digest or action.change.startswith(named.digest)
    return same and (not named.change or named.change == action.shown)


def _check_binding(
    claims: AssertionClaims, requirement: Requirement, user: UserInfo, expected: Expected
) -> Problem | None:
    if claims.is_workload:
        # Nobody stands behind it but its credential: whatever the rule says of a person's, this one is bound to that.
        if user.credential_id and claims.cnf.credential_id == user.credential_id:
            return None
        return Problem("wrong-credential", "the pipeline's token was exchanged for another credential")
    if requirement.bind == "User":
        return None
    if requirement.bind == "Session":
        session = user.first_extra(expected.session_extra_key)
        if not session or claims.cnf.session_id != session:
            return Problem("wrong-session", "you stepped up in another login session")
        return None
    if requirement.bind == "Credential" and not user.credential_id:
        return Problem(
            "wrong-credential", "this needs a credential that the API server can tell apart, yours has no id"
        )
    if claims.cnf.credential_id != user.credential_id:
        hint = (
            "; an OIDC token is a new credential each time it renews" if user.credential_id.startswith("JTI=") else ""
        )
        return Problem("wrong-credential", f"you stepped up with another credential{hint}")
    return None


def _check_time(claims: AssertionClaims, requirement: Requirement, now: float) -> Problem | None:
    if max(claims.nbf, claims.iat, claims.auth_time) > now + LEEWAY_SECONDS:
        return Problem("not-yet-valid", "your step-up is not valid yet: a clock is wrong")
    age = max(0, int(now - claims.auth_time))
    if age > requirement.max_age_seconds:
        needed = format_seconds(requirement.max_age_seconds)
        return Problem("authentication-too-old", f"your step-up is {_age(age)} old; this needs {needed}")
    if now >= claims.exp:
        return Problem("expired", f"your step-up expired {_age(int(now - claims.exp))} ago")
    return None


def _check_strength(claims: AssertionClaims, requirement: Requirement) -> Problem | None:
    problem = _check_workload(claims, requirement) if claims.is_workload else _check_person(claims, requirement)
    if problem:
        return problem
    if requirement.reason_required and not claims.reason.strip():
        return Problem("reason-missing", "this needs a reason (--reason)")
    if requirement.reason_matches is not None and not requirement.reason_matches(claims.reason):
        return Problem("reason-mismatch", f"the reason must match {requirement.reason_pattern}")
    return _check_approvals(claims, requirement)


def _check_person(claims: AssertionClaims, requirement: Requirement) -> Problem | None:
    if claims.acr not in ASSURANCES or ASSURANCES.index(claims.acr) < ASSURANCES.index(requirement.assurance):
        return Problem("assurance-too-low", f"your step-up is {claims.acr}; this needs {requirement.assurance}")
    if requirement.phishing_resistant and not claims.phishing_resistant:
        text = "your step-up could have been phished; this needs a passkey on the page of this cluster"
        return Problem("not-phishing-resistant", text)
    return None


def _check_approvals(claims: AssertionClaims, requirement: Requirement) -> Problem | None:
    rule = requirement.approvals
    if rule is None:
        return None
    given = len(approvers(claims.approvals, rule, requirement.full_name, claims.sub))
    if given >= rule.count:
        return None
    return Problem("approvals-missing", f"this needs {rule.describe()}, and {given or 'none'} was given")


def _check_workload(claims: AssertionClaims, requirement: Requirement) -> Problem | None:
    """A pipeline's assertion stands for the rules alone that its token was judged by, as long as they say the same."""
    workload, taking = claims.workload, requirement.workloads
    if claims.acr == ACR and workload is not None and taking is not None and taking.key in workload.met:
        return None
    text = f"policy {requirement.policy} does not take this pipeline, so a person has to step up"
    return Problem("workload-not-accepted", text)


def _age(seconds: int) -> str:
    minutes = seconds // 60
    return f"{minutes} minutes" if minutes > 1 else f"{seconds} seconds"
