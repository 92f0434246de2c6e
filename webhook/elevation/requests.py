"""ElevationRequests: asked for, answered, listed, revoked. Everybody sees their own alone; a foreign name does not exist."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord
from webhook.adapters.elevation_store import ElevationStore
from webhook.core.request import UserInfo
from webhook.elevation.answering import Answering
from webhook.elevation.approval_notices import ApprovalNotices, Tell
from webhook.elevation.approvals import Approvals
from webhook.elevation.asking import Asking
from webhook.elevation.attempts import Attempts
from webhook.elevation.bodies import Answer, WantedElevation
from webhook.elevation.factors import Factor
from webhook.elevation.granting import Granting
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import ENDED_PHASES, Lifecycle, rfc3339
from webhook.elevation.minting import Mint
from webhook.elevation.needs import Needs
from webhook.elevation.seals import Seals
from webhook.elevation.views import audit_elevation, check_credential, not_found, shown
from webhook.settings import ElevationSettings

JSON = dict[str, Any]


class ElevationRequests:
    """The service behind the resource: whose a record is, is decided here; ``Asking`` and ``Answering`` do the rest.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        people: AuthenticatorStore,
        factors: dict[str, Factor],
        mint: Mint,
        needs: Needs,
        settings: ElevationSettings,
        seals: Seals,
        *,
        tell: Tell | None = None,
        session_extra_key: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._people = people
        self._attempts = Attempts(people, session_extra_key.lower())
        self._lifecycle = Lifecycle(settings.pending_lifetime_seconds)
        self._clock = clock
        self._asking = Asking(
            store,
            people,
            factors,
            mint,
            needs,
            self._lifecycle,
            settings,
            session_extra_key=session_extra_key.lower(),
            clock=clock,
        )
        granting = Granting(store, mint, seals, settings.approvals.lifetime_seconds)
        notices = ApprovalNotices(tell or _tell_nobody)
        self._answering = Answering(self._attempts, factors, granting, needs, self._lifecycle, clock, notices)
        self.approvals = Approvals(
            store,
            people,
            factors,
            self._attempts,
            needs,
            self._lifecycle,
            granting,
            seals,
            settings.approvals,
            notices,
            clock,
        )

    async def create(self, requester: Requester, wanted: WantedElevation) -> JSON:
        """Note what somebody wants to do, and pose the challenge that policies ask for.

        Raises:
            RequestError: a field is wrong, the reason does not do, or nobody is enrolled under this name.
        """
        return await self._asking.create(requester, wanted)

    async def answer(self, requester: Requester, name: str, given: Answer) -> JSON:
        """Check an answer to a challenge; the assertion is in the result, this once.

        Raises:
            RequestError: there is no such request of this person, or it cannot be answered any more.
        """
        return await self._answering.answer(requester, await self._own(requester, name), given)

    async def get(self, requester: Requester, name: str) -> JSON:
        """One of the person's own; a revoked one is gone, as a deleted object is.

        Raises:
            RequestError: 404 for any other.
        """
        seen = self._seen(await self._own(requester, name))
        if seen["status"]["phase"] == "Revoked":
            raise not_found(name)
        return seen

    async def all_own(self, requester: Requester) -> list[JSON]:
        """All of the person's own that are not revoked, newest first."""
        return await self.all_of(requester.username)

    async def all_of(self, username: str) -> list[JSON]:
        """All of a person that are not revoked, newest first; for their page."""
        seen = [self._seen(one) for one in await self._store.of_user(username)]
        return [one for one in seen if one["status"]["phase"] != "Revoked"]

    async def person(self, username: str) -> PersonRecord:
        """What is kept of a person."""
        return await self._people.read(username)

    async def stored(self, username: str, name: str) -> JSON:
        """The record of a person's request, for their page.

        Raises:
            RequestError: 404 for any other, 409 where it cannot be answered any more.
        """
        elevation = await self._store.read(name)
        if elevation is None or elevation["spec"]["user"]["username"] != username:
            raise not_found(name)
        self._lifecycle.check_answerable(elevation, self._clock())
        return elevation

    async def answerable(self, requester: Requester, name: str) -> JSON:
        """The record of a request that this very credential has asked for and can still answer.

        Raises:
            RequestError: 404, 409, or ``wrong-credential``.
        """
        elevation = await self.stored(requester.username, name)
        check_credential(elevation, requester)
        return elevation

    async def revoke_on_page(self, username: str, name: str, client_address: str) -> None:
        """Revoke one of the person's own from their page.

        Raises:
            RequestError: 404 for any other.
        """
        await self.revoke_own(Requester(UserInfo(username=username), client_address, "page"), name)

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
            raise not_found(name)
        return await self._revoke(requester, elevation)

    async def revoke_all_of(self, requester: Requester, username: str) -> int:
        """Revoke whatever of a person is in force or waits for an answer; how many there were."""
        now = self._clock()
        live = [
            one for one in await self._store.of_user(username) if self._lifecycle.phase(one, now) not in ENDED_PHASES
        ]
        for one in live:
            await self._revoke(requester, one)
        return len(live)

    async def _revoke(self, requester: Requester, elevation: JSON) -> JSON:
        if self._lifecycle.phase(elevation, self._clock()) == "Revoked":
            return self._seen(elevation)
        status = {"phase": "Revoked", "revokedAt": rfc3339(self._clock()), "revokedBy": requester.username}
        revoked = await self._store.revoke(elevation, status)
        audit_elevation(
            "elevation-revoked", requester, revoked, outcome="revoked", owner=revoked["spec"]["user"]["username"]
        )
        return self._seen(revoked)

    async def _own(self, requester: Requester, name: str) -> JSON:
        elevation = await self._store.read(name)
        if elevation is None or elevation["spec"]["user"]["username"] != requester.username:
            raise not_found(name)
        return elevation

    def _seen(self, elevation: JSON) -> JSON:
        return shown(elevation, self._lifecycle.phase(elevation, self._clock()))


def _tell_nobody(event: str, title: str, *lines: str) -> None:
    """No notices are set up."""
