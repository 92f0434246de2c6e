"""ElevationRequests: asked for, answered, listed, revoked. Everybody sees their own alone; a foreign name does not exist."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import AuthenticatorStore
from webhook.adapters.elevation_store import ElevationStore
from webhook.core.applicable import PolicyIndex
from webhook.core.assertion import AuthorizationDetail
from webhook.core.planning import requirements_for
from webhook.core.requirement import SCOPES, Challenge, Requirement, merged
from webhook.elevation.attempts import Attempts
from webhook.elevation.bodies import Answer, WantedElevation, invalid
from webhook.elevation.factors import Factor, WrongAnswerError
from webhook.elevation.identity import Requester
from webhook.elevation.minting import Mint, Minted
from webhook.errors import ConflictError, RequestError, StepUpError
from webhook.settings import ElevationSettings

GROUP_VERSION: Final = "elevation.kube-stepup.io/v1alpha1"
LIVE_PHASES: Final = frozenset({"Granted", "Used"})
MAX_RECORDED_GROUPS: Final = 512  # what an Elevation has room for; decisions are made with all of them

JSON = dict[str, Any]


class ElevationRequests:
    """The service behind the resource.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        people: AuthenticatorStore,
        factors: dict[str, Factor],
        mint: Mint,
        index: PolicyIndex,
        settings: ElevationSettings,
        *,
        session_extra_key: str = "",
        own_namespace: str = "",
        controllers: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._people = people
        self._factors = factors
        self._attempts = Attempts(people)
        self._mint = mint
        self._index = index
        self._settings = settings
        self._session_extra_key = session_extra_key.lower()  # as header names are
        self._own_namespace = own_namespace
        self._controllers = tuple(controllers)
        self._clock = clock
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, requester: Requester, wanted: WantedElevation) -> JSON:
        """Note what somebody wants to do, and pose the challenge that policies ask for.

        Raises:
            RequestError: a field is wrong, the reason does not do, or nobody is enrolled under this name.
        """
        wanted.checked()
        details = wanted.authorization_details()
        requirements = requirements_for(self._index, requester.user, details, self._own_namespace, self._controllers)
        if not requirements:
            return _object("", _spec(wanted), {"phase": "NotRequired", "message": "no policy asks for a step-up"})
        challenge = merged(requirements)
        _check_scope(details, challenge)
        _check_reason(wanted.reason, requirements)
        factors = await self._factors_of(requester)
        spec = self._record(requester, details, wanted.reason)
        self._mint.check_size(spec)
        # One at a time for each person, or requests that arrive together would all find room.
        async with self._asking.setdefault(requester.username, asyncio.Lock()):
            await self._check_pending(requester)
            elevation = await self._store.create(requester.username, spec)
        self._audit("elevation-requested", requester, elevation, outcome="pending", requirement=challenge.to_dict())
        status = {"phase": "Pending", "challenge": {**challenge.to_dict(), "factors": factors}}
        return _object(elevation["metadata"]["name"], _spec(wanted), status, elevation)

    async def answer(self, requester: Requester, name: str, given: Answer) -> JSON:
        """Check an answer to a challenge; the assertion is in the result, this once.

        A wrong answer is a result, not an error, so that a program sees why.

        Raises:
            RequestError: there is no such request of this person, or it cannot be answered any more.
        """
        elevation = await self._own(requester, name)
        now = self._clock()
        self._check_answerable(elevation, now)
        if elevation["spec"].get("credentialID", "") != requester.credential_id:
            text = "answer with the credential that asked; this is another one"
            raise RequestError(text, code="wrong-credential", status=403, reason="Forbidden")
        factor = self._factors.get(given.factor)
        if factor is None:
            raise invalid("spec.factor", f"must be one of {', '.join(self._factors)}")
        details = msgspec.convert(elevation["spec"]["details"], list[AuthorizationDetail])
        requirements = requirements_for(self._index, requester.user, details, self._own_namespace, self._controllers)
        if not requirements:
            raise RequestError("no policy asks for this any more", code="not-required", status=409, reason="Conflict")
        try:
            await self._attempts.check(requester, factor, given.code, now)
        except (WrongAnswerError, RequestError) as error:
            self._audit(
                "elevation-refused", requester, elevation, outcome="refused", code=error.code, factor=factor.name
            )
            return _answer(name, _refusal(error))
        try:
            minted = await self._grant(elevation, factor, requirements, now)
        except StepUpError as error:
            self._audit(
                "elevation-refused", requester, elevation, outcome="refused", code=error.code, factor=factor.name
            )
            raise
        self._audit(
            "elevation-granted",
            requester,
            elevation,
            outcome="granted",
            factor=factor.name,
            acr=minted.acr,
            expires_at=_time(minted.expires_at),
        )
        return _answer(
            name,
            {"accepted": True, "elevation": name, "assertion": minted.token, "expiresAt": _time(minted.expires_at)},
        )

    async def get(self, requester: Requester, name: str) -> JSON:
        """One of the person's own; a revoked one is gone, as a deleted object is.

        Raises:
            RequestError: 404 for any other.
        """
        shown = self._shown(await self._own(requester, name))
        if shown["status"]["phase"] == "Revoked":
            raise _not_found(name)
        return shown

    async def all_own(self, requester: Requester) -> list[JSON]:
        """All of the person's own that are not revoked, newest first."""
        shown = [self._shown(one) for one in await self._store.of_user(requester.username)]
        return [one for one in shown if one["status"]["phase"] != "Revoked"]

    async def revoke_own(self, requester: Requester, name: str) -> JSON:
        """Revoke one of the person's own; it is refused from then on, also where it was used before.

        Raises:
            RequestError: 404 for any other.
        """
        return await self._revoke(requester, await self._own(requester, name))

    async def revoke_any(self, requester: Requester, name: str) -> JSON:
        """Revoke anybody's; RBAC has said that the requester may.

        Raises:
            RequestError: 404 when there is none.
        """
        elevation = await self._store.read(name)
        if elevation is None:
            raise _not_found(name)
        return await self._revoke(requester, elevation)

    def _record(self, requester: Requester, details: list[AuthorizationDetail], reason: str) -> JSON:
        return {
            "user": {"username": requester.username, "groups": list(requester.user.groups[:MAX_RECORDED_GROUPS])},
            "credentialID": requester.credential_id,
            "sessionID": requester.user.first_extra(self._session_extra_key),
            "details": [msgspec.to_builtins(one) for one in details],
            "reason": reason,
            "clientAddress": requester.client_address,
            "userAgent": requester.user_agent,
        }

    async def _grant(self, elevation: JSON, factor: Factor, requirements: list[Requirement], now: float) -> Minted:
        minted = self._mint.sign(elevation, factor, requirements, now)
        status = {
            "phase": "Granted",
            "factor": factor.name,
            "acr": minted.acr,
            "amr": list(minted.amr),
            "authTime": _time(minted.auth_time),
            "issuedAt": _time(minted.auth_time),
            "expiresAt": _time(minted.expires_at),
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

    async def _revoke(self, requester: Requester, elevation: JSON) -> JSON:
        if self._phase(elevation, self._clock()) == "Revoked":
            return self._shown(elevation)
        status = {"phase": "Revoked", "revokedAt": _time(self._clock()), "revokedBy": requester.username}
        revoked = await self._store.revoke(elevation, status)
        self._audit(
            "elevation-revoked", requester, revoked, outcome="revoked", owner=revoked["spec"]["user"]["username"]
        )
        return self._shown(revoked)

    async def _own(self, requester: Requester, name: str) -> JSON:
        elevation = await self._store.read(name)
        if elevation is None or elevation["spec"]["user"]["username"] != requester.username:
            raise _not_found(name)
        return elevation

    async def _factors_of(self, requester: Requester) -> list[str]:
        record = await self._people.read(requester.username)
        found = [factor.name for factor in self._factors.values() if factor.available_to(record)]
        if not found:
            raise RequestError(
                "you have no authenticator yet; run `kubectl elevate enroll` (an operator gives you the ticket that it asks for)",
                code="not-enrolled",
                status=403,
                reason="Forbidden",
            )
        return found

    async def _check_pending(self, requester: Requester) -> None:
        now = self._clock()
        mine = await self._store.of_user(requester.username)
        pending = sum(1 for one in mine if self._phase(one, now) == "Pending")
        if pending >= self._settings.max_pending_per_user:
            seconds = self._settings.pending_lifetime_seconds
            raise RequestError(
                f"you have {pending} requests that nobody answered; they lapse within {seconds} s, or revoke some",
                code="too-many-pending",
                status=429,
                reason="TooManyRequests",
                retry_after_seconds=seconds,
            )

    def _check_answerable(self, elevation: JSON, now: float) -> None:
        phase = self._phase(elevation, now)
        if phase == "Pending":
            return
        text = (
            "this request has lapsed; ask again"
            if phase == "Expired"
            else f"this request is {phase} already; ask again"
        )
        raise RequestError(text, code="not-pending", status=409, reason="Conflict")

    def _phase(self, elevation: JSON, now: float) -> str:
        status = elevation.get("status") or {}
        phase = str(status.get("phase") or "Pending")
        if (
            phase == "Pending"
            and _seconds(elevation["metadata"]["creationTimestamp"]) + self._settings.pending_lifetime_seconds < now
        ):
            return "Expired"
        if phase in LIVE_PHASES and status.get("expiresAt") and _seconds(status["expiresAt"]) <= now:
            return "Expired"
        return phase

    def _shown(self, elevation: JSON) -> JSON:
        status = elevation.get("status") or {}
        fields = ("factor", "acr", "amr", "authTime", "expiresAt", "revokedAt", "revokedBy")
        shown = {key: status[key] for key in fields if status.get(key)}
        shown["phase"] = self._phase(elevation, self._clock())
        shown["uses"] = len(status.get("uses") or [])
        spec = {"details": elevation["spec"]["details"], "reason": elevation["spec"].get("reason", "")}
        return _object(elevation["metadata"]["name"], spec, shown, elevation)

    def _audit(self, event: str, requester: Requester, elevation: JSON, **fields: Any) -> None:
        spec = elevation["spec"]
        audit(
            event,
            user=requester.username,
            credential_id=requester.credential_id,
            client_address=requester.client_address,
            user_agent=requester.user_agent,
            assertion_id=elevation["metadata"]["name"],
            details=[{key: one[key] for key in one if key != "type"} for one in spec["details"]],
            reason=spec.get("reason", ""),
            **fields,
        )


def _check_scope(details: list[AuthorizationDetail], challenge: Challenge) -> None:
    for position, one in enumerate(details):
        if SCOPES.index(one.scope) > SCOPES.index(challenge.scope):
            policies = ", ".join(challenge.policies)
            text = f"must be {challenge.scope}: policy {policies} asks for proof that names it"
            raise RequestError(
                text, code="scope-too-wide", field=f"spec.details[{position}].scope", status=422, reason="Invalid"
            )


def _check_reason(reason: str, requirements: list[Requirement]) -> None:
    for one in requirements:
        if one.reason_required and not reason.strip():
            pattern = f" that matches {one.reason_pattern}" if one.reason_pattern else ""
            text = f"policy {one.policy} asks for a reason{pattern} (--reason)"
            raise RequestError(text, code="reason-missing", field="spec.reason", status=422, reason="Invalid")
        if one.reason_matches is not None and not one.reason_matches(reason):
            text = f"policy {one.policy} asks for a reason that matches {one.reason_pattern}"
            raise RequestError(text, code="reason-mismatch", field="spec.reason", status=422, reason="Invalid")


def _refusal(error: StepUpError) -> JSON:
    found: JSON = {"accepted": False, "code": error.code, "message": error.message}
    if isinstance(error, RequestError) and error.retry_after_seconds:
        found["retryAfterSeconds"] = error.retry_after_seconds
    return found


def _answer(name: str, status: JSON) -> JSON:
    return {"apiVersion": GROUP_VERSION, "kind": "ChallengeAnswer", "metadata": {"name": name}, "status": status}


def _spec(wanted: WantedElevation) -> JSON:
    details = [msgspec.to_builtins(one) for one in wanted.authorization_details()]
    return {"details": details, "reason": wanted.reason}


def _object(name: str, spec: JSON, status: JSON, elevation: JSON | None = None) -> JSON:
    metadata: JSON = {"name": name} if name else {}
    if elevation is not None:
        stored = elevation["metadata"]
        metadata |= {key: stored[key] for key in ("uid", "creationTimestamp", "resourceVersion") if key in stored}
    details = [{key: value for key, value in one.items() if key != "type"} for one in spec["details"]]
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "ElevationRequest",
        "metadata": metadata,
        "spec": {**spec, "details": details},
        "status": status,
    }


def _not_found(name: str) -> RequestError:
    return RequestError(f'elevationrequests "{name}" not found', code="not-found", status=404, reason="NotFound")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
