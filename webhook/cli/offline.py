"""Decides a request as admission would, with what files tell in the place of what it watches and reads from the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from webhook.cli.files import bad_input
from webhook.core.applicable import PolicyIndex, lazy_facts, subject_of
from webhook.core.assertion import ANNOTATION, AssertionClaims, Expected, Problem
from webhook.core.decision import Candidate, Decision, Question, Record, ask, decide
from webhook.core.guard import Guard, guarding_action
from webhook.core.identity import Controllers
from webhook.core.operation import Target
from webhook.core.request import AdmissionRequest, ObjectMeta
from webhook.settings import ControllerIdentities

OWN_NAMESPACE: Final = "kube-stepup"
MEANINGS: Final = {
    "out-of-scope": "the request has no effect that a policy could ask about",
    "controller": "a controller of the cluster, shown by its credential",
    "not-required": "no policy asks for a step-up",
    "exempt": "every policy that matches exempts this user",
    "break-glass": "a policy lets this user break the glass",
    "step-up-satisfied": "the proof meets every requirement",
    "would-deny": "an enforcing policy would have refused it; this one only warns or audits",
}

Proofs = Callable[[Question], tuple[list[Candidate], list[Problem]]]
"""(what is asked) → assertions at hand, and why others cannot even be read."""


def nobody_knows(_: Target) -> ObjectMeta | None:
    """For when no object can be read."""
    return None


def decided(
    request: AdmissionRequest,
    index: PolicyIndex,
    proofs: Proofs,
    expected: Expected,
    now: float,
    target: Callable[[Target], ObjectMeta | None] = nobody_knows,
) -> Decision:
    """The decision on a request.

    Args:
        now: seconds since the epoch.
        target: reads the object that a subresource (scale, exec, eviction) is about.

    Raises:
        ReviewError: an object in the review cannot be read.
    """
    controllers = standard_controllers()
    question = asked(request, index, controllers)
    first = ask(question, index, controllers)
    if isinstance(first, Decision):
        return first
    if first.unknown_labels or (request.sub_resource and not question.actions[0].target.uid):
        question = with_target(question, target(question.actions[0].target))
        first = ask(question, index, controllers)
        if isinstance(first, Decision):
            return first
    candidates, rejected = proofs(question)
    return decide(question, first, candidates, rejected, expected, now)


def standard_controllers() -> Controllers:
    """Those of an unchanged installation."""
    identities = ControllerIdentities()
    return Controllers(identities.service_accounts, identities.certificate_users)


def asked(request: AdmissionRequest, index: PolicyIndex, controllers: Controllers) -> Question:
    """The request, as far as the decision needs it."""
    actions = index.actions_of(request)
    weakened = Guard(index, OWN_NAMESPACE, controllers.accounts).weakened_by(request)
    if weakened:
        actions = (*actions, guarding_action(request))
    facts = lazy_facts(request, index, actions)
    subject = msgspec.structs.replace(subject_of(request), weakened=weakened, facts=facts)
    return Question(request.user_info, actions, subject)


def annotated(request: AdmissionRequest, keys: list[bytes]) -> Proofs:
    """The assertions that the request itself carries, checked with public keys (PEM)."""

    def proofs(_: Question) -> tuple[list[Candidate], list[Problem]]:
        from webhook.adapters.verifier import Verifier

        verifier = Verifier()
        for pem in keys:
            _trust(verifier, pem)
        candidates: list[Candidate] = []
        rejected: list[Problem] = []
        for head in (request.new_head(), request.old_head()):
            token = (head.metadata.annotations or {}).get(ANNOTATION, "") if head else ""
            claims = verifier.verify(token) if token else None
            if isinstance(claims, AssertionClaims):
                candidates.append(Candidate(claims, Record(claims.jti, username=claims.sub)))
            elif claims is not None:
                rejected.append(claims)
        return candidates, rejected

    return proofs


def with_target(question: Question, meta: ObjectMeta | None) -> Question:
    """The question, with what a live read told of the target; unchanged when it told nothing."""
    if meta is None:
        return question
    actions = tuple(action.with_uid(meta.uid) for action in question.actions)
    subject = msgspec.structs.replace(question.subject, labels=(meta.labels or {},))
    return Question(question.user, actions, subject)


def _trust(verifier: Any, pem: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from webhook.adapters.verifier import key_id

    try:
        public_key = load_pem_public_key(pem)
    except ValueError:
        bad_input("--key: is not a public key in PEM form")
    algorithm = "ES256" if isinstance(public_key, EllipticCurvePublicKey) else "EdDSA"
    name = key_id(algorithm, public_key)  # type: ignore[arg-type]
    verifier.put({"metadata": {"name": name}, "spec": {"algorithm": algorithm, "publicKey": pem.decode()}})
