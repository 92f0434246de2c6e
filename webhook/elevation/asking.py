"""Asking for a step-up: what somebody wants to do is noted, and the challenge that policies ask for is posed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from webhook.adapters.authenticator_store import AuthenticatorStore
from webhook.adapters.elevation_store import ElevationStore
from webhook.core.assertion import AuthorizationDetail
from webhook.core.requirement import SCOPES, Challenge, Requirement, merged
from webhook.elevation.approvers import USERNAME, person_of
from webhook.elevation.bodies import WantedElevation
from webhook.elevation.factors import Factor, suitable
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import APPROVED, AWAITING, OPEN_PHASES, Lifecycle
from webhook.elevation.minting import Mint
from webhook.elevation.needs import Needs
from webhook.elevation.views import audit_elevation, request_object, wanted_spec
from webhook.errors import RequestError
from webhook.settings import ElevationSettings

MAX_RECORDED_GROUPS: Final = 512  # what an Elevation has room for; decisions are made with all of them
UNANSWERED_FACTOR: Final = (
    3  # so many times as many as may wait may be there unanswered: revoking makes room, for a while
)

JSON = dict[str, Any]


class Asking:
    """Takes requests and poses challenges.

    Args:
        session_extra_key: the extra field that names the session, in small letters as header names are; empty for none.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        people: AuthenticatorStore,
        factors: dict[str, Factor],
        mint: Mint,
        needs: Needs,
        lifecycle: Lifecycle,
        settings: ElevationSettings,
        *,
        session_extra_key: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._people = people
        self._factors = factors
        self._mint = mint
        self._needs = needs
        self._lifecycle = lifecycle
        self._settings = settings
        self._session_extra_key = session_extra_key
        self._clock = clock
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, requester: Requester, wanted: WantedElevation) -> JSON:
        """Note what somebody wants to do, and pose the challenge that policies ask for.

        Raises:
            RequestError: a field is wrong, the reason does not do, or nobody is enrolled under this name.
        """
        wanted.checked()
        details = wanted.authorization_details()
        requirements = await self._needs.of_person(requester.user, details)
        if not requirements:
            reason = self._needs.why_none(requester.user, details)
            return request_object("", wanted_spec(wanted), {"phase": "NotRequired", "message": reason})
        challenge = merged(requirements)
        check_scope(details, challenge)
        check_reason(wanted.reason, requirements)
        factors = suitable(self._factors, await self._people.read(requester.username), challenge)
        spec = self._record(requester, details, wanted.reason)
        self._mint.check_size(spec, requirements)
        # One at a time for each person, or requests that arrive together would all find room.
        async with self._asking.setdefault(requester.username, asyncio.Lock()):
            mine = await self._store.of_user(requester.username)
            if challenge.approvals and (same := self._open_already(mine, spec)):
                return self._continued(same, wanted, challenge, factors)
            self._check_pending(mine)
            elevation = await self._store.create(requester.username, spec)
        audit_elevation("elevation-requested", requester, elevation, outcome="pending", requirement=challenge.to_dict())
        pending = {"phase": "Pending", "challenge": {**challenge.to_dict(), "factors": factors}}
        return request_object(elevation["metadata"]["name"], wanted_spec(wanted), pending, elevation)

    def _record(self, requester: Requester, details: list[AuthorizationDetail], reason: str) -> JSON:
        groups = list(requester.user.groups[:MAX_RECORDED_GROUPS])
        return {
            "user": {"username": requester.username, "groups": groups, **self._who(requester)},
            "credentialID": requester.credential_id,
            "sessionID": requester.user.first_extra(self._session_extra_key),
            "details": [msgspec.to_builtins(one) for one in details],
            "reason": reason,
            "clientAddress": requester.client_address,
            "userAgent": requester.user_agent,
        }

    def _who(self, requester: Requester) -> JSON:
        """What else tells people apart, where the cluster has it: kept to be compared with approvers."""
        key = self._settings.approvals.person_key
        found = {"uid": requester.user.uid, "person": person_of(requester.user, key) if key != USERNAME else ""}
        return {name: value for name, value in found.items() if value}

    def _open_already(self, mine: list[JSON], spec: JSON) -> JSON | None:
        """A request for the very same that waits for approval: asked again, it goes on where it was."""
        now, wanted = self._clock(), _sameness(spec)
        found = (one for one in mine if self._lifecycle.phase(one, now) in {AWAITING, APPROVED})
        return next((one for one in found if _sameness(one["spec"]) == wanted), None)

    def _continued(self, same: JSON, wanted: WantedElevation, challenge: Challenge, factors: list[str]) -> JSON:
        status: JSON = {
            "phase": self._lifecycle.phase(same, self._clock()),
            "challenge": {**challenge.to_dict(), "factors": factors},
            "expiresAt": same["status"].get("expiresAt", ""),
        }
        return request_object(same["metadata"]["name"], wanted_spec(wanted), status, same)

    def _check_pending(self, mine: list[JSON]) -> None:
        now = self._clock()
        limit = self._settings.max_pending_per_user
        pending = sum(1 for one in mine if self._lifecycle.phase(one, now) in OPEN_PHASES)
        unanswered = sum(1 for one in mine if self._lifecycle.takes_room(one, now))
        if pending >= limit or unanswered >= UNANSWERED_FACTOR * limit:
            seconds = self._settings.pending_lifetime_seconds
            raise RequestError(
                f"you have {max(pending, unanswered)} requests that nobody answered or approved; unanswered ones lapse"
                f" within {seconds} s, or revoke some",
                code="too-many-pending",
                status=429,
                reason="TooManyRequests",
                retry_after_seconds=seconds,
            )


def _sameness(spec: JSON) -> bytes:
    fields = ("details", "reason", "credentialID", "sessionID", "workload")
    return msgspec.json.encode([spec.get(one) or "" for one in fields], order="deterministic")


def check_scope(details: list[AuthorizationDetail], challenge: Challenge) -> None:
    """Refuse a scope that is wider than policies accept.

    Raises:
        RequestError: ``scope-too-wide``.
    """
    for position, one in enumerate(details):
        if SCOPES.index(one.scope) > SCOPES.index(challenge.scope):
            policies = ", ".join(challenge.policies)
            text = f"must be {challenge.scope}: policy {policies} asks for proof that names it"
            raise RequestError(
                text, code="scope-too-wide", field=f"spec.details[{position}].scope", status=422, reason="Invalid"
            )


def check_reason(reason: str, requirements: list[Requirement]) -> None:
    """Refuse a reason that a policy will not accept.

    Raises:
        RequestError: ``reason-missing`` or ``reason-mismatch``.
    """
    for one in requirements:
        if one.reason_required and not reason.strip():
            pattern = f" that matches {one.reason_pattern}" if one.reason_pattern else ""
            text = f"policy {one.policy} asks for a reason{pattern} (--reason)"
            raise RequestError(text, code="reason-missing", field="spec.reason", status=422, reason="Invalid")
        if one.reason_matches is not None and not one.reason_matches(reason):
            text = f"policy {one.policy} asks for a reason that matches {one.reason_pattern}"
            raise RequestError(text, code="reason-mismatch", field="spec.reason", status=422, reason="Invalid")
