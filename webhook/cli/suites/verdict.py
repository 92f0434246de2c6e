"""Runs a suite: decides each case, and says in which fields the answer is not the expected one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from webhook.cli import files
from webhook.cli.offline import MEANINGS, OWN_NAMESPACE, Proofs, annotated, decided
from webhook.cli.suites import document
from webhook.cli.suites.document import Case, Proof, Suite, beside, read_suite
from webhook.cli.suites.review import request_of
from webhook.cli.suites.world import World
from webhook.core.applicable import PolicyIndex
from webhook.core.assertion import (
    DETAIL_TYPE,
    REPEAT_SECONDS,
    AssertionClaims,
    AuthorizationDetail,
    Confirmation,
    DetailObject,
    Expected,
    Problem,
)
from webhook.core.decision import Candidate, Decision, Question, Record, Use
from webhook.core.durations import format_seconds, parse_seconds
from webhook.core.operation import Action, digest
from webhook.core.planning import requirements_for
from webhook.core.request import UserInfo
from webhook.core.requirement import SCOPES, Requirement

ELEVATION = "elv-of-this-suite"
LIFETIME_SECONDS = 3600
"""As long as an assertion lives by default (`assertionMaxLifetimeSeconds`)."""
OTHERS_CREDENTIAL = "X509SHA256=another"
PARTIES = Expected("kube-stepup", "kubernetes")


class Difference(msgspec.Struct, frozen=True):
    """A field in which the answer is not the expected one."""

    field: str
    expected: Any
    found: Any


class Verdict(msgspec.Struct, frozen=True):
    """What became of one case.

    Args:
        why: why the answer is what it is, for people.
    """

    suite: str
    case: str
    differences: tuple[Difference, ...]
    why: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the answer is the expected one."""
        return not self.differences


class SuiteRun:
    """One suite, read and ready.

    Raises:
        SuiteError: it cannot be used, or one of its policies cannot.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.suite: Suite = read_suite(files.read(file))
        self.name = self.suite.name or str(file)
        self.policy_files = [beside(file, name) for name in self.suite.policies]
        self.objects = list(_objects(self.suite, file))
        policies = files.policies(self.policy_files, option="policies")
        self.world = World(self.suite.namespaces, self.suite.users, self.objects, policies)

    def verdicts(self) -> Iterator[Verdict]:
        """What becomes of each case."""
        present = time.time()
        for position, case in enumerate(self.suite.cases):
            started = time.perf_counter()
            decision = self.decide(case, f"cases[{position}]", present)
            why = decision.message or MEANINGS.get(decision.code, decision.code)
            found = tuple(_differences(case.expect, decision))
            yield Verdict(self.name, case.name, found, why, time.perf_counter() - started)

    def decide(self, case: Case, field: str, present: float) -> Decision:
        """The decision on a case.

        Args:
            field: the case's path in the suite.
            present: the time of cases that say none, in seconds since the epoch.

        Raises:
            SuiteError: its request cannot be made.
        """
        request = request_of(case, self.world, self.file, field)
        at = case.at or self.suite.at
        now = at.timestamp() if at else present
        index = self.world.index
        proofs = proven(case.proof, request.user_info, index, now) if case.proof else annotated(request, [])
        return decided(request, index, proofs, PARTIES, now, self.world.meta)


def outcome_of(decision: Decision) -> str:
    """``allow``, ``refuse``, ``warn`` or ``audit``."""
    if not decision.allowed:
        return "refuse"
    if not decision.would_deny:
        return "allow"
    return "warn" if any(demand.enforcement == "Warn" for demand in decision.would_deny) else "audit"


def proven(proof: Proof, user: UserInfo, index: PolicyIndex, now: float) -> Proofs:
    """Assertions as if the person had stepped up: nothing is signed here, and nothing is verified.

    What the elevation service would not give, it does not give here: it knows less than a review tells, so it may ask for more.
    """

    def proofs(question: Question) -> tuple[list[Candidate], list[Problem]]:
        proven_at = int(now - parse_seconds(proof.age))
        actions = [one for one in question.actions if not proof.operations or one.operation in proof.operations]
        details = tuple(detail_of(action, proof.scope) for action in actions)
        if problem := _not_given(proof, requirements_for(index, user, details, OWN_NAMESPACE)):
            return [], [problem]
        credential = user.credential_id if proof.credential == "own" else OTHERS_CREDENTIAL
        claims = AssertionClaims(
            iss=PARTIES.issuer,
            aud=(PARTIES.audience,),
            sub=user.username,
            iat=proven_at,
            nbf=proven_at,
            exp=proven_at + LIFETIME_SECONDS,
            jti=ELEVATION,
            auth_time=proven_at,
            acr=proof.assurance,
            amr=("otp",),
            authorization_details=details,
            cnf=Confirmation(credential_id=credential),
            reason=proof.reason,
        )
        uses = tuple(_use(action, proof.used, now) for action in actions if proof.used != "never")
        return [Candidate(claims, Record(ELEVATION, username=user.username, uses=uses))], []

    return proofs


def _not_given(proof: Proof, requirements: Iterable[Requirement]) -> Problem | None:
    """Why the elevation service would refuse to give such a proof; None when it gives it."""
    for one in requirements:
        if SCOPES.index(proof.scope) > SCOPES.index(one.scope):
            return Problem("scope-too-wide", f"no such step-up is given: policy {one.policy} wants scope {one.scope}")
        if one.reason_required and not proof.reason.strip():
            return Problem("reason-missing", f"no such step-up is given: policy {one.policy} asks for a reason")
        if one.reason_matches is not None and not one.reason_matches(proof.reason):
            text = f"no such step-up is given: policy {one.policy} asks for a reason that matches {one.reason_pattern}"
            return Problem("reason-mismatch", text)
    return None


def detail_of(action: Action, scope: str) -> AuthorizationDetail:
    """What a step-up for an action is asked for with."""
    target = action.target
    objects = (DetailObject(target.name, target.uid),) if scope == "Object" else ()
    kind = {"group": target.group, "resource": target.resource} if scope != "Namespace" else {}
    return AuthorizationDetail(
        type=DETAIL_TYPE,
        operation=action.operation,
        scope=scope,
        namespace=target.namespace,
        objects=objects,
        **kind,
    )


def _use(action: Action, used: str, now: float) -> Use:
    change = action.change if used == "for-this" else digest("another")
    return Use(action.target.use_key(action.operation), change, now - REPEAT_SECONDS * 2)


def _objects(suite: Suite, file: Path) -> Iterator[dict[str, Any]]:
    for one in suite.objects:
        yield from files.documents(beside(file, one)) if isinstance(one, str) else [one]


def _differences(expected: document.Expected, decision: Decision) -> Iterator[Difference]:
    asked = {demand.requirement.rule for demand in decision.applicable.demands}
    rules = (expected.rule,) if isinstance(expected.rule, str) else expected.rule
    pairs: list[tuple[str, Any, Any]] = [
        ("outcome", expected.outcome, outcome_of(decision)),
        ("policies", _sorted(expected.policies), sorted(decision.applicable.policies)),
        ("rule", _sorted(rules), sorted(asked)),
        ("operations", _sorted(expected.operations), sorted({action.operation for action in decision.actions})),
        ("code", expected.code, decision.code),
    ]
    wanted, challenge = expected.requirement, decision.challenge
    found: dict[str, Any] = {}
    if challenge is not None:
        found = {
            "maxAge": format_seconds(challenge.max_age_seconds),
            "reason.patterns": list(challenge.reason_patterns),
        }
        found |= {"reason.required": challenge.reason_required, "assurance": challenge.assurance}
        found |= {"use": challenge.use, "scope": challenge.scope}
    age = format_seconds(parse_seconds(wanted.max_age)) if wanted.max_age is not None else None
    patterns = list(wanted.reason.patterns) if wanted.reason.patterns is not None else None
    fields: dict[str, Any] = {"assurance": wanted.assurance, "maxAge": age, "use": wanted.use, "scope": wanted.scope}
    fields |= {"reason.required": wanted.reason.required, "reason.patterns": patterns}
    pairs += [(f"requirement.{name}", value, found.get(name)) for name, value in fields.items()]
    yield from (Difference(*pair) for pair in pairs if pair[1] is not None and pair[1] != pair[2])


def _sorted(values: Iterable[str] | None) -> list[str] | None:
    return sorted(values) if values is not None else None
