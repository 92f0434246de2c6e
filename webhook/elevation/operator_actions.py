"""What operators may do about other people's authenticators; RBAC on these resources says who may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord, add_ticket, clear_attempts
from webhook.elevation.approval_notices import EnrolmentNotices, Tell
from webhook.elevation.authenticator_views import done_object
from webhook.elevation.bodies import Username, invalid
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import rfc3339
from webhook.elevation.resources import GROUP_VERSION

MIN_TTL_SECONDS: Final = 60
MAX_TTL_SECONDS: Final = 24 * 3600

JSON = dict[str, Any]


class OperatorActions:
    """The service behind tickets, unlocks and resets.

    Args:
        revoke_all: revokes all elevations of a person, for an operator; how many there were.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: AuthenticatorStore,
        revoke_all: Callable[[Requester, str], Awaitable[int]],
        clock: Callable[[], float],
        tell: Tell | None = None,
    ) -> None:
        self._store = store
        self._revoke_all = revoke_all
        self._clock = clock
        self._notices = EnrolmentNotices(tell)

    async def issue_ticket(self, operator: Requester, wanted: Username) -> JSON:
        """A one-time ticket for somebody's first authenticator; RBAC has said that the operator may.

        Raises:
            RequestError: a field is wrong.
        """
        _check_username(wanted.username)
        if not MIN_TTL_SECONDS <= wanted.ttl_seconds <= MAX_TTL_SECONDS:
            raise invalid("spec.ttlSeconds", f"must be between {MIN_TTL_SECONDS} and {MAX_TTL_SECONDS}")
        now = self._clock()
        expires_at = now + wanted.ttl_seconds
        tickets: list[str] = []
        await self._store.update(wanted.username, lambda record: tickets.append(add_ticket(record, now, expires_at)))
        ticket = tickets[-1]  # of the try that was stored
        self._audit("enrolment-ticket-issued", operator, owner=wanted.username, expires_at=rfc3339(expires_at))
        status = {"ticket": ticket, "expiresAt": rfc3339(expires_at)}
        spec = {"username": wanted.username, "ttlSeconds": wanted.ttl_seconds}
        return {"apiVersion": GROUP_VERSION, "kind": "EnrollmentTicket", "metadata": {}, "spec": spec, "status": status}

    async def unlock(self, operator: Requester, wanted: Username) -> JSON:
        """Forget somebody's wrong codes, so that they need not wait; RBAC has said that the operator may."""
        _check_username(wanted.username)

        def clear(record: PersonRecord) -> None:
            clear_attempts(record, now)

        now = self._clock()
        found = clear_attempts(await self._store.read(wanted.username), now)
        if found:
            await self._store.update(wanted.username, clear)
        self._audit("attempts-cleared", operator, owner=wanted.username, found=found)
        return done_object("AuthenticatorUnlock", wanted.username, {"cleared": found})

    async def reset(self, operator: Requester, wanted: Username) -> JSON:
        """Remove all authenticators of somebody who lost them; RBAC has said that the operator may.

        Whoever has what was lost may have stepped up with it, or hold a ticket: elevations are revoked and tickets end, too.
        """
        _check_username(wanted.username)
        found = await self._store.forget(wanted.username)  # first: nobody steps up or enrols with it any more
        revoked = await self._revoke_all(operator, wanted.username)
        fields = {"owner": wanted.username, "found": found, "elevations_revoked": revoked}
        self._audit("authenticator-reset", operator, **fields, alarm=True)
        self._notices.reset(operator, wanted.username)
        return done_object("AuthenticatorReset", wanted.username, {"removed": found, "elevationsRevoked": revoked})

    @staticmethod
    def _audit(event: str, requester: Requester, **fields: Any) -> None:
        audit(
            event,
            user=requester.username,
            credential_id=requester.credential_id,
            client_address=requester.client_address,
            **fields,
        )


def _check_username(username: str) -> None:
    if not username or len(username) > 1024 or not username.isprintable():
        raise invalid("spec.username", "must be the name that the cluster knows the person by (`kubectl auth whoami`)")
