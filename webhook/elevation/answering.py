"""Answering a challenge: the attempt is counted and checked, and what it proves is signed and recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from webhook.core.assertion import AuthorizationDetail
from webhook.core.requirement import Requirement, merged
from webhook.elevation.approval_notices import ApprovalNotices
from webhook.elevation.attempts import Attempts
from webhook.elevation.bodies import Answer, invalid
from webhook.elevation.factors import (
    CodeFactor,
    Factor,
    PageFactor,
    Proof,
    StillWaitingError,
    WrongAnswerError,
    suffices,
    too_weak,
)
from webhook.elevation.granting import Granting
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import APPROVED, AWAITING, Lifecycle, rfc3339
from webhook.elevation.needs import Needs
from webhook.elevation.views import answer_object, audit_elevation, refused_answer
from webhook.errors import RequestError, StepUpError

JSON = dict[str, Any]


class Answering:
    """Checks answers and grants.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        attempts: Attempts,
        factors: dict[str, Factor],
        granting: Granting,
        needs: Needs,
        lifecycle: Lifecycle,
        clock: Callable[[], float],
        notify: ApprovalNotices,
    ) -> None:
        self._attempts = attempts
        self._factors = factors
        self._granting = granting
        self._needs = needs
        self._lifecycle = lifecycle
        self._clock = clock
        self._notify = notify

    async def answer(self, requester: Requester, elevation: JSON, given: Answer) -> JSON:
        """Check an answer to the challenge of somebody's own request; the assertion is in the result, this once.

        A wrong answer is a result, not an error, so that a program sees why.

        Raises:
            RequestError: it cannot be answered any more, or not by this credential.
        """
        name, now = elevation["metadata"]["name"], self._clock()
        self._lifecycle.check_answerable(elevation, now)
        factor = self._factors.get(given.factor)
        if factor is None:
            raise invalid("spec.factor", f"must be one of {', '.join(self._factors)}")
        details = msgspec.convert(elevation["spec"]["details"], list[AuthorizationDetail])
        requirements = await self._needs.of_person(requester.user, details)
        if not requirements:
            raise RequestError("no policy asks for this any more", code="not-required", status=409, reason="Conflict")
        self._check_credential(requester, elevation, requirements, now)
        try:
            proof = await self._prove(requester, elevation, factor, given, now)
            if not suffices(proof, merged(requirements)):
                raise too_weak(merged(requirements))
        except StillWaitingError as error:
            return answer_object(name, refused_answer(error))
        except (WrongAnswerError, RequestError) as error:
            audit_elevation(
                "elevation-refused", requester, elevation, outcome="refused", code=error.code, factor=factor.name
            )
            return answer_object(name, refused_answer(error))
        try:
            minted = await self._granting.proven(elevation, proof, requirements, now)
        except StepUpError as error:
            audit_elevation(
                "elevation-refused", requester, elevation, outcome="refused", code=error.code, factor=factor.name
            )
            raise
        if minted is None:
            return self._waiting(requester, elevation, proof, requirements)
        audit_elevation(
            "elevation-granted",
            requester,
            elevation,
            outcome="granted",
            factor=proof.factor,
            acr=minted.acr,
            approvers=[one["by"] for one in (elevation.get("status") or {}).get("approvals") or []],
            authenticator=proof.authenticator,
            expires_at=rfc3339(minted.expires_at),
        )
        return answer_object(
            name,
            {"accepted": True, "elevation": name, "assertion": minted.token, "expiresAt": rfc3339(minted.expires_at)},
        )

    async def _prove(self, requester: Requester, elevation: JSON, factor: Factor, given: Answer, now: float) -> Proof:
        if isinstance(factor, PageFactor):
            return await factor.prove(requester, elevation, given, now)
        if not isinstance(factor, CodeFactor):
            raise TypeError(f"{factor.name} is neither a code nor used on a page")
        await self._attempts.check(requester, factor, given.code, now)
        return Proof(factor.name, factor.acr, factor.amr, factor.phishing_resistant, now)

    def _check_credential(
        self, requester: Requester, elevation: JSON, requirements: list[Requirement], now: float
    ) -> None:
        if elevation["spec"].get("credentialID", "") == requester.credential_id:
            return
        # Approvals take their time, and an OIDC token is a new credential when it renews: where the proof is for the person,
        # the second answer may come by another.
        late = self._lifecycle.phase(elevation, now) == APPROVED
        if late and requester.credential_id and all(one.bind == "User" for one in requirements):
            return
        text = "answer with the credential that asked; this is another one"
        raise RequestError(text, code="wrong-credential", status=403, reason="Forbidden")

    def _waiting(self, requester: Requester, elevation: JSON, proof: Proof, requirements: list[Requirement]) -> JSON:
        name = elevation["metadata"]["name"]
        wanted = merged(requirements).approvals
        audit_elevation(
            "approval-wanted",
            requester,
            elevation,
            outcome="pending",
            factor=proof.factor,
            approvals=[one.to_dict() for one in wanted],
        )
        self._notify.wanted(elevation, requirements)
        text = f"waits for {' and '.join(one.describe() for one in wanted)}"
        return answer_object(name, {"accepted": True, "elevation": name, "phase": AWAITING, "message": text})
