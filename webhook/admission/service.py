"""From the bytes of an AdmissionReview to the bytes of the answer. Whatever goes wrong is a denial.

The decision itself is ``core/decision.py``; here it gets what it needs: assertions from the review and from the watched
Elevations, then, before anything is refused, one live read of the target and of the person's Elevations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from webhook.adapters.audit import audit
from webhook.adapters.cluster_state import ClusterState
from webhook.admission import answer
from webhook.admission.holds import Holds
from webhook.admission.live import Live, UsedUpError
from webhook.admission.reporting import Reporting
from webhook.core import canary
from webhook.core.applicable import Applicable, Demand, lazy_facts, subject_of
from webhook.core.assertion import ANNOTATION, AssertionClaims, Expected, Problem
from webhook.core.configuration import KIND as CONFIGURATION
from webhook.core.configuration import Configuration
from webhook.core.decision import BREAK_GLASS, NOBODY, Candidate, Decision, Question, ask, decide
from webhook.core.guard import OWN_GROUP, Guard, guarding_action
from webhook.core.identity import BreakGlass, Controllers, ImpersonatingProxies
from webhook.core.lint import findings, findings_in
from webhook.core.operation import Action
from webhook.core.policy import API_VERSION, KIND, Policy
from webhook.core.request import AdmissionRequest, ObjectHead, ObjectMeta, decode, uid_of
from webhook.errors import PolicyError, ReviewError, StoreUnavailableError

MAX_SPEND_ROUNDS = 3
UNDECIDED = "(undecided)"  # no policy can have this name
QUIET_CODES = frozenset({"out-of-scope", "controller", "not-required"})

log = structlog.get_logger("admission")


class Admission:
    """Answers AdmissionReviews.

    Args:
        namespace: where kube-stepup itself runs.
        clock: seconds since the epoch.
        glass: who breaks the glass of every policy.
        proxies: whose sessions stand in for a credential-id.
        on_broken_glass: told of every request that passed by breaking glass, besides the audit.
        reporting: counts the decisions.
        leader_missing: whether no controller is at work; None when that is not known.
    """

    def __init__(
        self,
        state: ClusterState,
        live: Live,
        controllers: Controllers,
        expected: Expected,
        namespace: str = "",
        clock: Callable[[], float] = time.time,
        glass: BreakGlass = NOBODY,
        proxies: ImpersonatingProxies | None = None,
        on_broken_glass: Callable[[AdmissionRequest, Decision], None] | None = None,
        reporting: Reporting | None = None,
        leader_missing: Callable[[], bool | None] = lambda: None,
    ) -> None:
        self._state = state
        self._live = live
        self._controllers = controllers
        self._expected = expected
        self._guard = Guard(state.index, namespace, controllers.accounts)
        self._clock = clock
        self._glass = glass
        self._proxies = proxies or ImpersonatingProxies()
        self._on_broken_glass = on_broken_glass
        self._reporting = reporting
        self._leader_missing = leader_missing
        self._holds = Holds(state.elevations.pending, clock)

    async def review(self, body: bytes) -> bytes:
        """The answer to a review; never raises."""
        try:
            request = decode(body)
            request.user_info = self._proxies.seen(request.user_info)
        except ReviewError as error:
            log.warning("review-refused", code=error.code)
            return answer.errored(uid_of(body), 400, "BadRequest", error.message, error.code)
        try:
            return await self._answer(request)
        except ReviewError as error:
            log.warning("review-refused", code=error.code)
            return answer.errored(request.uid, 400, "BadRequest", error.message, error.code)
        except StoreUnavailableError as error:
            log.exception("store-unavailable", code=error.code, problem=error.message)
            if self._glass.includes(request.user_info):
                return self._passed_undecided(request)
            text = "the step-up could not be checked just now; try again"
            return answer.errored(request.uid, 503, "ServiceUnavailable", text, error.code)
        except Exception:
            log.exception("decision-crashed", code="internal-error")
            if self._glass.includes(request.user_info):
                return self._passed_undecided(request)
            return answer.errored(request.uid, 500, "InternalError", "the decision failed", "internal-error")

    async def _answer(self, request: AdmissionRequest) -> bytes:
        notes: tuple[str, ...] = ()
        if request.resource.group == OWN_GROUP:
            if configuration := canary.configuration_of(request):
                return answer.allowed(request.uid, (canary.seen(configuration),))
            if refusal := _check_own_object(request):
                return refusal
            notes = self._notes(request)
        question = self._question(request)
        decision = await self._decide(request, question)
        _report_failures(question)
        if decision.code in QUIET_CODES:
            return answer.allowed(request.uid, notes)
        return self._told(request, decision, notes)

    def _told(self, request: AdmissionRequest, decision: Decision, notes: Sequence[str] = ()) -> bytes:
        hold = None if decision.allowed else self._holds.hold(request, decision)
        if hold is not None:
            decision = self._holds.explained(decision, hold)
        self._audit(request, decision)
        if hold is not None:
            return answer.held(request, decision, hold)
        if self._reporting is not None:
            self._reporting.note(decision, request.user_info.username)
        if not decision.allowed:
            return answer.denied(request, decision)
        if decision.applicable.broken_by and self._on_broken_glass is not None and not _is_dry_run(request):
            self._on_broken_glass(request, decision)
        return answer.allowed_with(request.uid, decision, notes)

    def _passed_undecided(self, request: AdmissionRequest) -> bytes:
        """Whoever passes while we are down passes while we are broken, too."""
        applicable = Applicable(broken_by=(UNDECIDED,))
        return self._told(request, Decision(allowed=True, code=BREAK_GLASS, applicable=applicable))

    def _notes(self, request: AdmissionRequest) -> tuple[str, ...]:
        """What the author of a policy should know that is no reason to refuse it."""
        if not _is_policy_write(request):
            return ()
        obj = {**request.body(), "apiVersion": API_VERSION, "kind": KIND}
        found = [*findings(obj), *findings_in(obj, self._state.index.namespaces)]
        notes = [f"{one.field}: {one.message} [{one.code}]" for one in found]
        if self._leader_missing():
            notes.append("no controller is at work: it is judged, but nothing new is guarded in an outage [no-leader]")
        return tuple(f"StepUpPolicy {request.name}: {note}" for note in notes)

    async def _decide(self, request: AdmissionRequest, question: Question) -> Decision:
        if question.actions:
            await self._know_namespace(question)
        first = ask(question, self._state.index, self._controllers, self._glass)
        if isinstance(first, Decision):
            return first
        meta: ObjectMeta | None = None
        if first.unknown_labels or (request.sub_resource and not question.actions[0].target.uid):
            meta = await self._live.target(question.actions[0].target, request.resource.version)
            question = _with_target(question, meta)
            first = ask(question, self._state.index, self._controllers, self._glass)
            if isinstance(first, Decision):
                return first
        return await self._prove(request, question, first, meta)

    def _question(self, request: AdmissionRequest) -> Question:
        actions = self._state.index.actions_of(request)
        weakened = self._guard.weakened_by(request)
        if weakened:
            actions = (*actions, guarding_action(request))
        facts = lazy_facts(request, self._state.index, actions)
        subject = msgspec.structs.replace(subject_of(request), weakened=weakened, facts=facts)
        return Question(request.user_info, actions, subject)

    async def _prove(
        self, request: AdmissionRequest, question: Question, applicable: Applicable, meta: ObjectMeta | None
    ) -> Decision:
        tokens = _annotated(request.new_head(), request.old_head()) + _annotated_meta(meta)
        decision = self._judge(question, applicable, tokens)
        if not decision.allowed or decision.would_deny:
            if request.sub_resource and meta is None:
                meta = await self._live.target(question.actions[0].target, request.resource.version)
                tokens += _annotated_meta(meta)
            await self._live.refresh(question.user.username)
            decision = self._judge(question, applicable, tokens)
        for _ in range(MAX_SPEND_ROUNDS):
            if not decision.allowed or not decision.uses or _is_dry_run(request):
                return decision
            try:
                for name, uses in decision.uses.items():
                    await self._live.spend(name, uses)
            except UsedUpError:
                decision = self._judge(question, applicable, tokens)
                continue
            return decision
        raise StoreUnavailableError("the step-up kept changing while it was used")

    def _judge(self, question: Question, applicable: Applicable, tokens: list[str]) -> Decision:
        now = self._clock()
        known = self._state.elevations.of_user(question.user.username, now)
        candidates: dict[str, Candidate] = {}
        rejected: list[Problem] = []
        for token in dict.fromkeys([*tokens, *(one.unverified_token for one in known)]):
            claims = self._state.verifier.verify(token)
            if isinstance(claims, AssertionClaims):
                record = self._state.elevations.find(claims.jti)
                candidates[claims.jti] = Candidate(claims, record.record if record else None)
            else:
                rejected.append(claims)
        return decide(question, applicable, candidates.values(), rejected, self._expected, now)

    async def _know_namespace(self, question: Question) -> None:
        for namespace in {action.target.namespace for action in question.actions}:
            if namespace and not self._state.index.knows_namespace(namespace):
                labels = await self._live.namespace_labels(namespace)
                if labels is not None:
                    self._state.index.put_namespace(namespace, labels)

    def _audit(self, request: AdmissionRequest, decision: Decision) -> None:
        user = request.user_info
        challenge = decision.challenge
        claims = list({one.claims.jti: one.claims for one in decision.satisfied}.values())
        audit(
            "decision",
            outcome="allowed" if decision.allowed else "denied",
            code=decision.code,
            user=user.username,
            credential_id=user.credential_id,
            operations=sorted({action.operation for action in decision.actions}),
            targets=[_target_fields(action) for action in decision.actions],
            policies=list(decision.applicable.policies),
            refused_by=_rules(decision.unmet),
            would_refuse=_rules(decision.would_deny),
            requirement=challenge.to_dict() if challenge else None,
            assertion_ids=[one.jti for one in claims],
            approvers=sorted({approval.by for one in claims for approval in one.approvals}),
            factors=sorted({factor for one in claims for factor in one.amr}),
            acr=sorted({one.acr for one in claims}),
            reasons=[one.reason for one in claims if one.reason],
            dry_run=bool(request.dry_run),
            request_uid=request.uid,
        )


def _report_failures(question: Question) -> None:
    """Conditions that could not be evaluated, so that their rules applied."""
    facts = question.subject.facts
    for failure in facts.made.failures if facts is not None and facts.made is not None else ():
        log.warning(
            "condition-failed",
            policy=failure.policy,
            field=failure.field,
            problem=failure.problem,
            code="condition-failed",
        )


def _with_target(question: Question, meta: ObjectMeta | None) -> Question:
    """The question, with what a live read told of the target; unchanged when it told nothing."""
    if meta is None:
        return question
    actions = tuple(action.with_uid(meta.uid) for action in question.actions)
    subject = msgspec.structs.replace(question.subject, labels=(meta.labels or {},))
    return Question(question.user, actions, subject)


def _annotated(*heads: ObjectHead | None) -> list[str]:
    return [token for head in heads if head is not None for token in _annotated_meta(head.metadata)]


def _annotated_meta(meta: ObjectMeta | None) -> list[str]:
    token = (meta.annotations or {}).get(ANNOTATION, "") if meta else ""
    return [token] if token else []


def _is_dry_run(request: AdmissionRequest) -> bool:
    if request.dry_run:
        return True
    # An Eviction carries a dry run of its own, which the request's flag does not show.
    options = request.body().get("deleteOptions") if request.sub_resource == "eviction" else None
    return isinstance(options, dict) and bool(options.get("dryRun"))


_FORMS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any]], object]]]] = {
    "stepuppolicies": (KIND, Policy.parse),
    "stepupconfigurations": (CONFIGURATION, Configuration.parse),
}


def _check_own_object(request: AdmissionRequest) -> bytes | None:
    """A StepUpPolicy or StepUpConfiguration that would not work is refused when it is applied."""
    kind, parse = _FORMS.get(request.resource.resource, ("", None))
    if parse is None or request.operation not in {"CREATE", "UPDATE"} or request.sub_resource:
        return None
    try:
        parse({**request.body(), "apiVersion": API_VERSION, "kind": kind})
    except PolicyError as error:
        return answer.invalid(
            request.uid, f"kube-stepup: {kind} {request.name}: {error}", [(error.field, error.message)]
        )
    return None


def _is_policy_write(request: AdmissionRequest) -> bool:
    written = request.operation in {"CREATE", "UPDATE"} and not request.sub_resource
    return written and request.resource.resource == "stepuppolicies"


def _rules(demands: tuple[Demand, ...]) -> list[dict[str, str]]:
    found = {(one.requirement.policy, one.requirement.rule, one.action.operation): None for one in demands}
    return [{"policy": policy, "rule": rule, "operation": operation} for policy, rule, operation in found]


def _target_fields(action: Action) -> dict[str, str]:
    return {**msgspec.structs.asdict(action.target), "operation": action.operation, "change": action.details}
