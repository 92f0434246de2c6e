"""The whole decision on one page.

1. A controller passes. 2. What has no effect that we know passes. 3. What no policy asks proof for passes, as do those
whom a policy exempts or lets break glass. 4. Every demand must be met by some assertion of this person. 5. What `Once`
uses up is handed back to be recorded before the answer goes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from webhook.core.applicable import Applicable, Demand, PolicyIndex, Subject
from webhook.core.assertion import REPEAT_SECONDS, AssertionClaims, Expected, Problem, check
from webhook.core.identity import BreakGlass, Controllers
from webhook.core.operation import Action
from webhook.core.request import UserInfo
from webhook.core.requirement import Challenge, merged

OUT_OF_SCOPE: Final = "out-of-scope"
CONTROLLER: Final = "controller"
NOT_REQUIRED: Final = "not-required"
EXEMPT: Final = "exempt"
BREAK_GLASS: Final = "break-glass"
SATISFIED: Final = "step-up-satisfied"
REQUIRED: Final = "step-up-required"
WOULD_DENY: Final = "would-deny"
HELD: Final = "held"

NO_STEP_UP = Problem(REQUIRED, "you have not stepped up")


class Use(msgspec.Struct, frozen=True):
    """A `Once` proof was used: for what (``key``), for which change (``digest``), when (seconds since the epoch)."""

    key: str
    digest: str
    at: float


class Record(msgspec.Struct, frozen=True):
    """What decisions need of an Elevation object."""

    name: str
    username: str = ""
    revoked: bool = False
    uses: tuple[Use, ...] = ()
    resource_version: str = ""


class Candidate(msgspec.Struct, frozen=True):
    """A verified assertion, and its record if one is known."""

    claims: AssertionClaims
    record: Record | None


class Satisfied(msgspec.Struct, frozen=True):
    """A demand and the assertion that meets it; ``use`` is what has to be recorded first, None when nothing."""

    demand: Demand
    claims: AssertionClaims
    use: Use | None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, and why.

    Args:
        code: stable kebab-case code.
        message: for the person; empty when the request passes without a word.
        unmet: demands of enforcing policies that no assertion meets.
        would_deny: the same for policies that only warn or audit.
    """

    allowed: bool
    code: str
    message: str = ""
    actions: tuple[Action, ...] = ()
    applicable: Applicable = Applicable()
    satisfied: tuple[Satisfied, ...] = ()
    unmet: tuple[Demand, ...] = ()
    would_deny: tuple[Demand, ...] = ()

    @property
    def challenge(self) -> Challenge | None:
        """All that is asked for, met or not; None when nothing is."""
        demands = self.applicable.demands
        return merged(demand.requirement for demand in demands) if demands else None

    @property
    def uses(self) -> dict[str, tuple[Use, ...]]:
        """What must be recorded before the request may pass, by the name of the Elevation."""
        found: dict[str, dict[str, Use]] = {}
        for one in self.satisfied:
            if one.use is not None:
                found.setdefault(one.claims.jti, {})[one.use.key] = one.use
        return {name: tuple(uses.values()) for name, uses in found.items()}


class Question(msgspec.Struct, frozen=True):
    """A request, as far as the decision needs it."""

    user: UserInfo
    actions: tuple[Action, ...]
    subject: Subject


NOBODY: Final = BreakGlass()


def ask(
    question: Question, index: PolicyIndex, controllers: Controllers, glass: BreakGlass = NOBODY
) -> Decision | Applicable:
    """Steps 1 to 3: an answer that needs no assertion, or what has to be proven.

    Args:
        glass: who breaks the glass of every policy, besides those whom a policy names.
    """
    if not question.actions:
        return Decision(allowed=True, code=OUT_OF_SCOPE)
    if controllers.includes(question.user):
        return Decision(allowed=True, code=CONTROLLER, actions=question.actions)
    applicable = index.applicable(question.user, question.actions, question.subject)
    if applicable.demands:
        if not glass.includes(question.user):
            return applicable
        applicable = applicable.with_all_glass_broken()
    code = BREAK_GLASS if applicable.broken_by else EXEMPT if applicable.exempted_by else NOT_REQUIRED
    return Decision(allowed=True, code=code, actions=question.actions, applicable=applicable)


def decide(
    question: Question,
    applicable: Applicable,
    candidates: Iterable[Candidate],
    rejected: Iterable[Problem],
    expected: Expected,
    now: float,
) -> Decision:
    """Steps 4 and 5: whether the assertions at hand meet every demand.

    Args:
        rejected: why tokens that came along could not even be read; told when nothing came closer.
        now: seconds since the epoch.
    """
    assertions = list(candidates)
    closest = max(rejected, key=lambda problem: problem.rank, default=NO_STEP_UP)
    satisfied: list[Satisfied] = []
    unmet: list[Demand] = []
    would_deny: list[Demand] = []
    problem: Problem | None = None
    for demand in applicable.demands:
        answer = _meet(demand, assertions, closest, question.user, expected, now)
        if isinstance(answer, Satisfied):
            satisfied.append(answer)
        elif demand.enforcement == "Deny":
            unmet.append(demand)
            problem = problem or answer
        else:
            would_deny.append(demand)
    denied = problem is not None
    code = problem.code if problem else WOULD_DENY if would_deny else SATISFIED
    return Decision(
        allowed=not denied,
        code=code,
        message=problem.message if problem else "",
        actions=question.actions,
        applicable=applicable,
        satisfied=tuple(satisfied),
        unmet=tuple(unmet),
        would_deny=tuple(would_deny),
    )


def _meet(
    demand: Demand, candidates: list[Candidate], closest: Problem, user: UserInfo, expected: Expected, now: float
) -> Satisfied | Problem:
    for candidate in candidates:
        problem = check(candidate.claims, demand.requirement, demand.action, user, expected, now)
        if problem is None:
            answer = _spend(candidate, demand, now)
            if isinstance(answer, Satisfied):
                return answer
            problem = answer
        if problem.rank > closest.rank:
            closest = problem
    return closest


def _spend(candidate: Candidate, demand: Demand, now: float) -> Satisfied | Problem:
    record, action = candidate.record, demand.action
    if record is None or record.username != candidate.claims.sub:
        return Problem("unknown-elevation", "the record of your step-up is gone")
    if record.revoked:
        return Problem("revoked", "your step-up was revoked")
    if demand.requirement.use != "Once":
        return Satisfied(demand, candidate.claims, None)
    key = action.target.use_key(action.operation)
    for use in record.uses:
        if use.key == key:
            if use.digest == action.change and now - use.at <= REPEAT_SECONDS:
                return Satisfied(demand, candidate.claims, None)
            return Problem("used-up", "your step-up has been used; this needs one for each change")
    return Satisfied(demand, candidate.claims, Use(key, action.change, now))
