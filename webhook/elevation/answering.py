"""Answering a challenge: the attempt is counted and checked, and what it proves is signed and recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from webhook.adapters.elevation_store import ElevationStore
from webhook.core.assertion import AuthorizationDetail
from webhook.core.requirement import Requirement, merged
from webhook.elevation.attempts import Attempts
from webhook.elevation.bodies import Answer, invalid
from webhook.elevation.factors import Factor, WrongAnswerError
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import Lifecycle, rfc3339
from webhook.elevation.minting import Mint, Minted
from webhook.elevation.needs import Needs
from webhook.elevation.views import answer_object, audit_elevation, refused_answer
from webhook.errors import ConflictError, RequestError, StepUpError

JSON = dict[str, Any]


class Answering:
    """Checks answers and grants.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        attempts: Attempts,
        factors: dict[str, Factor],
        mint: Mint,
        needs: Needs,
        lifecycle: Lifecycle,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._factors = factors
        self._mint = mint
        self._needs = needs
        self._lifecycle = lifecycle
        self._clock = clock

    async def answer(self, requester: Requester, elevation: JSON, given: Answer) -> JSON:
        """Check an answer to the challenge of somebody's own request; the assertion is in the result, this once.

        A wrong answer is a result, not an error, so that a program sees why.

        Raises:
            RequestError: it cannot be answered any more, or not by this credential.
        """
        name, now = elevation["metadata"]["name"], self._clock()
        self._lifecycle.check_answerable(elevation, now)
        if elevation["spec"].get("credentialID", "") != requester.credential_id:
            text = "answer with the credential that asked; this is another one"
            raise RequestError(text, code="wrong-credential", status=403, reason="Forbidden")
        factor = self._factors.get(given.factor)
        if factor is None:
            raise invalid("spec.factor", f"must be one of {', '.join(self._factors)}")
        details = msgspec.convert(elevation["spec"]["details"], list[AuthorizationDetail])
        requirements = self._needs.of(requester.user, details)
        if not requirements:
            raise RequestError("no policy asks for this any more", code="not-required", status=409, reason="Conflict")
        try:
            await self._attempts.check(requester, factor, given.code, now)
        except (WrongAnswerError, RequestError) as error:
            audit_elevation(
                "elevation-refused", requester, elevation, outcome="refused", code=error.code, factor=factor.name
            )
            return answer_object(name, refused_answer(error))
        try:
            minted = await self._grant(elevation, factor, requirements, now)
        except StepUpError as error:
            audit_elevation(
                "elevation-refused", requester, elevation, outcome="refused", code=error.code, factor=factor.name
            )
            raise
        audit_elevation(
            "elevation-granted",
            requester,
            elevation,
            outcome="granted",
            factor=factor.name,
            acr=minted.acr,
            expires_at=rfc3339(minted.expires_at),
        )
        return answer_object(
            name,
            {"accepted": True, "elevation": name, "assertion": minted.token, "expiresAt": rfc3339(minted.expires_at)},
        )

    async def _grant(self, elevation: JSON, factor: Factor, requirements: list[Requirement], now: float) -> Minted:
        minted = self._mint.sign(elevation, factor, requirements, now)
        status = {
            "phase": "Granted",
            "factor": factor.name,
            "acr": minted.acr,
            "amr": list(minted.amr),
            "authTime": rfc3339(minted.auth_time),
            "issuedAt": rfc3339(minted.auth_time),
            "expiresAt": rfc3339(minted.expires_at),
            "requirement": merged(requirements).to_dict(),
            "assertion": minted.token,
            "uses": [],
        }
        try:
            await self._store.set_status(elevation, status)
        except ConflictError as error:
            raise RequestError(
                "this request was answered or revoked meanwhile; ask again",
                code="not-pending",
                status=409,
                reason="Conflict",
            ) from error
        return minted
