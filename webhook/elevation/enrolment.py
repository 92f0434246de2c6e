"""Enrolment: binding an authenticator to a person (NIST SP 800-63B section 4.1), and what operators may do about it.

Whoever stole a kubeconfig must not be able to bind a factor of their own: the first one needs a one-time ticket that an
operator issued. Trust on first use is a setting, off by default.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import (
    Authenticator,
    AuthenticatorStore,
    PersonRecord,
    accept_attempt,
    add_ticket,
    clear_attempts,
    count_attempt,
    redeem_ticket,
)
from webhook.core.identity import SERVICE_ACCOUNT_PREFIX
from webhook.elevation.approval_notices import EnrolmentNotices, Tell
from webhook.elevation.attempts import counted_as
from webhook.elevation.bodies import ConfirmationCode, Username, WantedAuthenticator, invalid
from webhook.elevation.factors import WrongAnswerError
from webhook.elevation.factors.recovery import new_codes
from webhook.elevation.factors.totp import TYPE as TOTP
from webhook.elevation.factors.totp import Totp
from webhook.elevation.identity import Requester
from webhook.errors import RequestError
from webhook.settings import ElevationSettings

GROUP_VERSION: Final = "elevation.kube-stepup.io/v1alpha1"
MIN_TTL_SECONDS: Final = 60
MAX_TTL_SECONDS: Final = 24 * 3600
UNCONFIRMED_SECONDS: Final = 900
MAX_LABEL_LETTERS: Final = 64

JSON = dict[str, Any]


class Enrolment:
    """The service behind authenticators, tickets, unlocks and resets.

    Args:
        session_extra_key: the extra field that names the session; empty for none.
        revoke_all: revokes all elevations of a person, for an operator; how many there were.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: AuthenticatorStore,
        totp: Totp,
        settings: ElevationSettings,
        *,
        session_extra_key: str,
        revoke_all: Callable[[Requester, str], Awaitable[int]],
        clock: Callable[[], float] = time.time,
        tell: Tell | None = None,
    ) -> None:
        self._store = store
        self._totp = totp
        self._settings = settings
        self._session_extra_key = session_extra_key.lower()
        self._revoke_all = revoke_all
        self._clock = clock
        self._notices = EnrolmentNotices(tell)

    async def begin(self, requester: Requester, wanted: WantedAuthenticator) -> JSON:
        """Start binding a TOTP authenticator; its secret is in the answer, this once.

        Raises:
            RequestError: no ticket, a wrong one, one is bound already, or the credential cannot be told apart.
        """
        if wanted.type != TOTP:
            raise invalid("spec.type", f"must be {TOTP}")
        if len(wanted.name) > MAX_LABEL_LETTERS or not wanted.name.isprintable():
            raise invalid("spec.name", f"must be at most {MAX_LABEL_LETTERS} printable letters")
        self._check_requester(requester)
        record = await self._store.read(requester.username)
        if record.confirmed(TOTP) is not None:
            raise _enrolled_already()
        if not wanted.ticket and not self._settings.enrolment_trust_on_first_use:
            text = "enrolment needs a ticket: ask an operator for `stepup ticket`, then `kubectl elevate enroll --ticket …`"
            raise self._refused(requester, text, "ticket-required")
        now = self._clock()
        name = f"totp-{base64.b32encode(secrets.token_bytes(5)).decode().lower()}"
        authenticator, secret, uri = self._totp.begin(record, name, now)
        authenticator.label = wanted.name

        def add(found: PersonRecord) -> None:
            if found.confirmed(TOTP) is not None:
                raise _enrolled_already()
            # In the same swap: a ticket that an operator's reset has ended meanwhile binds nothing any more.
            if wanted.ticket and not redeem_ticket(found, wanted.ticket, now):
                text = "that ticket is not yours, was used, or has expired; ask an operator for another"
                raise self._refused(requester, text, "wrong-ticket")
            found.authenticators = [one for one in found.authenticators if one.type != TOTP] + [authenticator]

        await self._store.update(requester.username, add)
        self._audit("enrolment-started", requester, authenticator=name, with_ticket=bool(wanted.ticket))
        return _object(authenticator, {"phase": "Pending", "provisioningURI": uri, "secret": secret})

    async def confirm(self, requester: Requester, name: str, given: ConfirmationCode) -> JSON:
        """Finish binding: the first code shows that the secret arrived. Ten recovery codes are in the answer, this once.

        Raises:
            RequestError: there is no such authenticator to confirm, or too many wrong codes.
        """
        self._check_requester(requester)
        now, who = self._clock(), counted_as(requester, self._session_extra_key)
        codes, hashes = new_codes(requester.username)

        def count(record: PersonRecord) -> None:
            self._unconfirmed(record, name, now)
            count_attempt(record, who, now)

        def accept(record: PersonRecord) -> None:
            authenticator = self._unconfirmed(record, name, now)
            self._totp.accept_for(record, authenticator, given.code, now)
            authenticator.confirmed = True
            record.recovery = hashes
            accept_attempt(record, who)

        try:
            await self._store.update(requester.username, count)
            await self._store.update(requester.username, accept)
        except (WrongAnswerError, RequestError) as error:
            if isinstance(error, RequestError) and error.code != "too-many-attempts":
                raise
            self._audit("enrolment-refused", requester, authenticator=name, code=error.code)
            wait = getattr(error, "retry_after_seconds", None)
            refused: JSON = {"accepted": False, "code": error.code, "message": error.message}
            return _confirmation(name, {**refused, **({"retryAfterSeconds": wait} if wait else {})})
        self._audit("authenticator-enrolled", requester, authenticator=name, factor=TOTP)
        self._notices.enrolled(requester, TOTP)
        return _confirmation(name, {"accepted": True, "recoveryCodes": codes})

    async def all_own(self, requester: Requester) -> list[JSON]:
        """The person's own authenticators; never their secrets."""
        record = await self._store.read(requester.username)
        return [_object(one, self._status(one, record)) for one in record.authenticators]

    async def get(self, requester: Requester, name: str) -> JSON:
        """One of the person's own.

        Raises:
            RequestError: 404 for any other.
        """
        for one in await self.all_own(requester):
            if one["metadata"]["name"] == name:
                return one
        raise _not_found(name)

    async def remove(self, requester: Requester, name: str) -> JSON:
        """Remove one that was never confirmed; the last one that works is an operator's to remove.

        Raises:
            RequestError: 404, or 409 for the last one.
        """
        found = await self.get(requester, name)

        def drop(record: PersonRecord) -> None:
            keep = [one for one in record.authenticators if one.name != name]
            if record.enrolled and not any(one.confirmed for one in keep):
                text = "this is your last authenticator; without it nobody could step up as you. Ask an operator: `stepup reset`"
                raise RequestError(text, code="last-authenticator", status=409, reason="Conflict")
            record.authenticators = keep

        await self._store.update(requester.username, drop)
        self._audit("authenticator-removed", requester, authenticator=name)
        return found

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
        self._audit("enrolment-ticket-issued", operator, owner=wanted.username, expires_at=_time(expires_at))
        status = {"ticket": ticket, "expiresAt": _time(expires_at)}
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
        return _done("AuthenticatorUnlock", wanted.username, {"cleared": found})

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
        return _done("AuthenticatorReset", wanted.username, {"removed": found, "elevationsRevoked": revoked})

    def _check_requester(self, requester: Requester) -> None:
        if requester.username.startswith(SERVICE_ACCOUNT_PREFIX):
            text = "a service account has no finger; authenticators are for people"
            raise self._refused(requester, text, "not-a-person")
        if not requester.credential_id:
            text = "your credential has no id (impersonation has none): enrol with your own client certificate or token"
            raise self._refused(requester, text, "no-credential-id")

    def _refused(self, requester: Requester, text: str, code: str) -> RequestError:
        self._audit("enrolment-refused", requester, code=code)
        return RequestError(text, code=code, status=403, reason="Forbidden")

    def _unconfirmed(self, record: PersonRecord, name: str, now: float) -> Authenticator:
        for one in record.authenticators:
            if one.name == name and not one.confirmed and one.created_at + UNCONFIRMED_SECONDS > now:
                return one
        raise _not_found(name)

    @staticmethod
    def _status(one: Authenticator, record: PersonRecord) -> JSON:
        status: JSON = {"phase": "Confirmed" if one.confirmed else "Pending"}
        return {**status, "recoveryCodesLeft": len(record.recovery)} if one.confirmed else status

    @staticmethod
    def _audit(event: str, requester: Requester, **fields: Any) -> None:
        audit(
            event,
            user=requester.username,
            credential_id=requester.credential_id,
            client_address=requester.client_address,
            **fields,
        )


def _object(one: Authenticator, status: JSON) -> JSON:
    metadata = {"name": one.name, "creationTimestamp": _time(one.created_at)}
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "Authenticator",
        "metadata": metadata,
        "spec": {"type": one.type, **({"name": one.label} if one.label else {})},
        "status": status,
    }


def _confirmation(name: str, status: JSON) -> JSON:
    return {
        "apiVersion": GROUP_VERSION,
        "kind": "AuthenticatorConfirmation",
        "metadata": {"name": name},
        "status": status,
    }


def _done(kind: str, username: str, status: JSON) -> JSON:
    return {"apiVersion": GROUP_VERSION, "kind": kind, "metadata": {}, "spec": {"username": username}, "status": status}


def _check_username(username: str) -> None:
    if not username or len(username) > 1024 or not username.isprintable():
        raise invalid("spec.username", "must be the name that the cluster knows the person by (`kubectl auth whoami`)")


def _enrolled_already() -> RequestError:
    text = "you have an authenticator already; if it is lost, ask an operator for `stepup reset`"
    return RequestError(text, code="already-enrolled", status=409, reason="Conflict")


def _not_found(name: str) -> RequestError:
    return RequestError(f'authenticators "{name}" not found', code="not-found", status=404, reason="NotFound")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
