"""Binding a passkey: a browser makes it on a page, and the terminal that asked for the page confirms it."""

from __future__ import annotations

import secrets
from typing import Any, Final

import msgspec

from webhook.adapters.authenticator_store import Authenticator, AuthenticatorStore, PersonRecord
from webhook.adapters.ceremonies import ENROL, MAX_TRIES, Ceremony, is_secret, live, over, secret_hash
from webhook.adapters.passkey import LOCALHOST, Passkey
from webhook.elevation.bodies import invalid
from webhook.elevation.factors import WrongAnswerError
from webhook.elevation.identity import Requester
from webhook.elevation.page.sessions import Sessions
from webhook.elevation.page.waiting import Waiting
from webhook.elevation.webauthn.challenge import challenge, new_nonce
from webhook.elevation.webauthn.relying_party import RelyingParty, Where
from webhook.errors import RequestError

WEBAUTHN: Final = "webauthn"
HANDLE_BYTES: Final = 32  # https://www.w3.org/TR/webauthn-3/#sctn-user-handle-privacy : random, and says nothing

JSON = dict[str, Any]


class PasskeyEnrolment:
    """Registers passkeys for authenticators that are waiting for one.

    Args:
        audience: name of the cluster, which every challenge is bound to.
    """

    def __init__(
        self, store: AuthenticatorStore, sessions: Sessions, party: RelyingParty, waiting: Waiting, audience: str
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._party = party
        self._waiting = waiting
        self._audience = audience

    async def check_pending(self, requester: Requester, name: str, unverified_secret: str) -> None:
        """Refuse a page for an authenticator that waits for none, or to another terminal than the one that began.

        Whoever has the person's credential, too, must not be faster than they are.

        Raises:
            RequestError: 404.
        """
        record = await self._store.read(requester.username)
        mine = [one for one in record.authenticators if one.name == name and one.type == WEBAUTHN and not one.confirmed]
        if not any(is_secret(unverified_secret, one.claim) for one in mine):
            raise RequestError(f'authenticators "{name}" not found', code="not-found", status=404, reason="NotFound")
        if not record.handle:

            def give_handle(found: PersonRecord) -> None:
                found.handle = found.handle or secrets.token_urlsafe(HANDLE_BYTES)

            await self._store.update(requester.username, give_handle)

    def options(self, record: PersonRecord, name: str) -> JSON:
        """``PublicKeyCredentialCreationOptionsJSON`` for a page; empty once its challenge is used up."""
        ceremony = record.ceremonies[name]
        if not ceremony.nonce:
            return {}
        here = record.passkeys(ceremony.rp_id).values()
        where = Where(ceremony.origin, ceremony.rp_id)
        return self._party.creation_options(
            where, self._challenge(record, name, ceremony), record.username, record.handle, here
        )

    async def register(self, username: str, name: str, unverified: JSON, now: float) -> None:
        """Take what the browser of a page has made; its terminal has to confirm it.

        Raises:
            WrongAnswerError: ``wrong-passkey``, ``not-attested`` or ``already-enrolled``.
            RequestError: ``page-expired`` or ``page-declined``.
        """
        taken: list[Ceremony] = []

        def take(record: PersonRecord) -> None:
            ceremony = live(record.ceremonies, name, now)
            if ceremony.kind != ENROL or not ceremony.nonce:
                raise over()
            taken[:] = [msgspec.structs.replace(ceremony)]
            ceremony.nonce = ""
            ceremony.tries += 1

        record = await self._store.update(username, take)
        ceremony = taken[0]
        try:
            where = Where(ceremony.origin, ceremony.rp_id)
            passkey = self._party.register(unverified, where, self._challenge(record, name, ceremony))
            await self._keep(username, ceremony.subject, passkey)
        except WrongAnswerError:
            await self._renew(username, name)
            raise

    async def register_locally(self, requester: Requester, name: str, page: str, unverified: JSON, now: float) -> None:
        """The same from the page on localhost, by the terminal that serves it.

        Raises:
            WrongAnswerError: as ``register``.
            RequestError: there is no such page of this terminal, or it is not on localhost.
        """
        _, ceremony = await self._sessions.of_terminal(requester, page, now)
        if ceremony.subject != name:
            raise over()
        if ceremony.rp_id != LOCALHOST:
            raise invalid("spec.credential", "is taken on the page itself")
        await self.register(requester.username, page, unverified, now)

    async def wait(self, requester: Requester, name: str, page: str, now: float) -> None:
        """Until the browser of a page has made the passkey, or for a while.

        Raises:
            StillWaitingError: it has not.
            RequestError: there is no such page of this terminal, or it was declined.
        """

        async def look() -> bool | None:
            record, ceremony = await self._sessions.of_terminal(requester, page, now)
            if ceremony.kind != ENROL or ceremony.subject != name:
                raise over()
            return any(one.name == name and one.passkey is not None for one in record.authenticators) or None

        await self._waiting.until(requester.username, look)

    async def _keep(self, username: str, subject: str, passkey: Passkey) -> None:
        def keep(record: PersonRecord) -> None:
            waiting = next((one for one in record.authenticators if one.name == subject and not one.confirmed), None)
            if waiting is None or waiting.passkey is not None:
                raise over()
            if any(passkey.credential_id == one.credential_id for one in record.passkeys().values()):
                raise WrongAnswerError(
                    "this authenticator is enrolled already; take another one", code="already-enrolled"
                )
            waiting.passkey = passkey

        await self._store.update(username, keep)

    async def _renew(self, username: str, name: str) -> None:
        def renew(record: PersonRecord) -> None:
            ceremony = record.ceremonies.get(name)
            if ceremony is not None and ceremony.tries < MAX_TRIES and not ceremony.declined:
                ceremony.nonce = new_nonce()

        await self._store.update(username, renew)

    def _challenge(self, record: PersonRecord, name: str, ceremony: Ceremony) -> bytes:
        subject = {"username": record.username, "handle": record.handle, "authenticator": ceremony.subject}
        session = (name, ceremony.credential, ceremony.origin, ceremony.rp_id)
        return challenge(ceremony.nonce, self._audience, ENROL, subject, *session)


def new_passkey(name: str, label: str, now: float) -> tuple[Authenticator, str]:
    """An authenticator that waits for its passkey, and the secret of the terminal that began."""
    secret = secrets.token_urlsafe(HANDLE_BYTES)
    return Authenticator(name, WEBAUTHN, "", now, label=label, claim=secret_hash(secret)), secret
