"""Enrolment: binding an authenticator to a person (NIST SP 800-63B section 4.1), listing and removing it.

Whoever stole a kubeconfig must not be able to bind a factor of their own: the first one needs a one-time ticket that an
operator issued. Trust on first use is a setting, off by default.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import (
    Authenticator,
    AuthenticatorStore,
    PersonRecord,
    accept_attempt,
    count_attempt,
)
from webhook.elevation.approval_notices import EnrolmentNotices, Tell
from webhook.elevation.attempts import counted_as
from webhook.elevation.authenticator_views import authenticator_object, confirmation_object, status_of
from webhook.elevation.bodies import ConfirmationCode, WantedAuthenticator, invalid
from webhook.elevation.factors import StillWaitingError, WrongAnswerError
from webhook.elevation.factors.recovery import new_codes
from webhook.elevation.factors.totp import TYPE as TOTP
from webhook.elevation.factors.totp import Totp
from webhook.elevation.identity import Requester
from webhook.elevation.permission import Permission
from webhook.elevation.views import refused_answer
from webhook.elevation.webauthn.enrolment import WEBAUTHN, PasskeyEnrolment, new_passkey
from webhook.errors import RequestError

TYPES: Final = (TOTP, WEBAUTHN)
MAX_AUTHENTICATORS: Final = 10
UNCONFIRMED_SECONDS: Final = 900
MAX_LABEL_LETTERS: Final = 64

JSON = dict[str, Any]


class Enrolment:
    """The service behind authenticators.

    Args:
        session_extra_key: the extra field that names the session; empty for none.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: AuthenticatorStore,
        totp: Totp,
        passkeys: PasskeyEnrolment,
        permission: Permission,
        *,
        session_extra_key: str,
        clock: Callable[[], float] = time.time,
        tell: Tell | None = None,
    ) -> None:
        self._store = store
        self._totp = totp
        self._passkeys = passkeys
        self._permission = permission
        self._session_extra_key = session_extra_key.lower()
        self._clock = clock
        self._notices = EnrolmentNotices(tell)

    async def begin(self, requester: Requester, wanted: WantedAuthenticator) -> JSON:
        """Start binding an authenticator; a TOTP secret is in the answer, this once, and a passkey is made on a page.

        Raises:
            RequestError: no ticket or step-up, a wrong one, too many are bound, or the credential cannot be told apart.
        """
        if wanted.type not in TYPES:
            raise invalid("spec.type", f"must be one of {', '.join(TYPES)}")
        if len(wanted.name) > MAX_LABEL_LETTERS or not wanted.name.isprintable():
            raise invalid("spec.name", f"must be at most {MAX_LABEL_LETTERS} printable letters")
        self._permission.check_person(requester)
        now = self._clock()
        record = await self._store.read(requester.username)
        _check_room(record, wanted)
        stepped_up = await self._permission.before_adding(requester, record, wanted)
        name = f"{wanted.type}-{base64.b32encode(secrets.token_bytes(5)).decode().lower()}"
        shown: JSON = {}
        if wanted.type == TOTP:
            authenticator, secret, uri = self._totp.begin(record, name, now)
            shown = {"provisioningURI": uri, "secret": secret}
            authenticator.label = wanted.name
        else:
            authenticator, secret = new_passkey(name, wanted.name, now)
            shown = {"enrolmentSecret": secret}

        def add(found: PersonRecord) -> None:
            _check_room(found, wanted)
            self._permission.to_add(requester, found, wanted.ticket, now, stepped_up=stepped_up)
            keep = [one for one in found.authenticators if one.confirmed or one.type != wanted.type]
            found.authenticators = [*keep, authenticator]

        await self._store.update(requester.username, add)
        self._audit(
            "enrolment-started",
            requester,
            authenticator=name,
            with_ticket=bool(wanted.ticket) and not stepped_up,
            with_step_up=stepped_up,
        )
        return authenticator_object(authenticator, {"phase": "Pending", **shown})

    async def confirm(self, requester: Requester, name: str, given: ConfirmationCode) -> JSON:
        """Finish binding: the first code shows that the secret arrived, or a page that the passkey works.

        Ten recovery codes are in the answer, this once, where there are none yet.

        Raises:
            RequestError: there is no such authenticator to confirm, or too many wrong codes.
        """
        self._permission.check_person(requester)
        now, who = self._clock(), counted_as(requester, self._session_extra_key)
        codes, hashes = new_codes(requester.username)
        fresh: list[bool] = []

        def accept(record: PersonRecord) -> None:
            authenticator = self._unconfirmed(record, name, now)
            if authenticator.type == TOTP:
                self._totp.accept_for(record, authenticator, given.code, now)
                accept_attempt(record, who)
            elif authenticator.passkey is None:
                raise _not_found(name)
            fresh[:] = [not record.recovery]
            authenticator.confirmed, authenticator.claim = True, ""
            record.recovery = record.recovery or hashes
            record.ceremonies.pop(given.page, None)

        try:
            await self._before_confirming(requester, name, given, now)
            record = await self._store.update(requester.username, accept)
        except (WrongAnswerError, RequestError) as error:
            if isinstance(error, RequestError) and error.code not in {"too-many-attempts", "page-declined"}:
                raise
            if not isinstance(error, StillWaitingError):
                self._audit("enrolment-refused", requester, authenticator=name, code=error.code)
            return confirmation_object(name, refused_answer(error))
        kind = next(one.type for one in record.authenticators if one.name == name)
        self._audit("authenticator-enrolled", requester, authenticator=name, factor=kind)
        self._notices.enrolled(requester, kind)
        return confirmation_object(name, {"accepted": True, "recoveryCodes": codes if fresh[0] else []})

    async def all_own(self, requester: Requester) -> list[JSON]:
        """The person's own authenticators; never their secrets."""
        record = await self._store.read(requester.username)
        return [authenticator_object(one, status_of(one, record)) for one in record.authenticators]

    async def get(self, requester: Requester, name: str) -> JSON:
        """One of the person's own.

        Raises:
            RequestError: 404 for any other.
        """
        for one in await self.all_own(requester):
            if one["metadata"]["name"] == name:
                return one
        raise _not_found(name)

    async def remove(self, requester: Requester, name: str, *, elevation: str = "", last: bool = False) -> JSON:
        """Remove one: with a step-up, but for one that was never confirmed; the last one only when it is said.

        Raises:
            RequestError: 404, 403 without a step-up, or 409 for the last one.
        """
        found = await self.get(requester, name)
        record = await self._store.read(requester.username)
        _check_last(record, name, last=last)
        if any(one.name == name and one.confirmed for one in record.authenticators):
            self._permission.check_person(requester)
            await self._permission.to_remove(requester, record, name, elevation)

        def drop(record: PersonRecord) -> None:
            _check_last(record, name, last=last)
            record.authenticators = [one for one in record.authenticators if one.name != name]
            if not record.enrolled:
                record.recovery = []  # they stand in for an authenticator, and there is none

        await self._store.update(requester.username, drop)
        self._audit("authenticator-removed", requester, authenticator=name, with_step_up=elevation)
        return found

    async def _before_confirming(self, requester: Requester, name: str, given: ConfirmationCode, now: float) -> None:
        """Count the attempt of a code; take the passkey of a page on localhost, or wait for that of a page elsewhere."""

        def count(record: PersonRecord) -> None:
            self._unconfirmed(record, name, now)
            count_attempt(record, counted_as(requester, self._session_extra_key), now)

        if self._unconfirmed(await self._store.read(requester.username), name, now).type == TOTP:
            await self._store.update(requester.username, count)
        elif not given.page:
            raise invalid("spec.page", "must name the page (create one: `pages`)")
        elif given.credential is not None:
            await self._passkeys.register_locally(requester, name, given.page, given.credential, now)
        else:
            await self._passkeys.wait(requester, name, given.page, now)

    def _unconfirmed(self, record: PersonRecord, name: str, now: float) -> Authenticator:
        for one in record.authenticators:
            if one.name == name and not one.confirmed and one.created_at + UNCONFIRMED_SECONDS > now:
                return one
        raise _not_found(name)

    @staticmethod
    def _audit(event: str, requester: Requester, **fields: Any) -> None:
        audit(
            event,
            user=requester.username,
            credential_id=requester.credential_id,
            client_address=requester.client_address,
            **fields,
        )


def _check_room(record: PersonRecord, wanted: WantedAuthenticator) -> None:
    """Refuse one too many, before a ticket or a step-up is spent on it."""
    confirmed = [one for one in record.authenticators if one.confirmed]
    if wanted.type == TOTP and any(one.type == TOTP for one in confirmed):
        raise _conflict("you have an authenticator app already; remove it first, or ask an operator for `stepup reset`")
    if len(confirmed) >= MAX_AUTHENTICATORS:
        raise _conflict(f"you have {len(confirmed)} authenticators already; remove one (`kubectl elevate factors`)")
    if wanted.name and any(wanted.name == one.label for one in confirmed):
        raise _conflict(f"you have an authenticator of the name {wanted.name} already; take another name (--name)")


def _check_last(record: PersonRecord, name: str, *, last: bool) -> None:
    """Refuse to take the last one that works by accident."""
    keep = [one for one in record.authenticators if one.name != name]
    if record.enrolled and not any(one.confirmed for one in keep) and not last:
        text = (
            "this is your last authenticator; without it nobody could step up as you, and you would need an operator's"
            " ticket for another. If you mean it: --yes-the-last. If it is lost, ask an operator for `stepup reset`"
        )
        raise RequestError(text, code="last-authenticator", status=409, reason="Conflict")


def _conflict(text: str) -> RequestError:
    return RequestError(text, code="already-enrolled", status=409, reason="Conflict")


def _not_found(name: str) -> RequestError:
    return RequestError(f'authenticators "{name}" not found', code="not-found", status=404, reason="NotFound")
