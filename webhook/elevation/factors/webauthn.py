"""Passkeys and security keys: used on a page, and claimed by the terminal that asked for the page."""

from __future__ import annotations

from typing import Any

import msgspec

from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord
from webhook.adapters.ceremonies import STEP_UP, live, over
from webhook.adapters.passkey import LOCALHOST
from webhook.elevation.bodies import Answer, invalid
from webhook.elevation.factors import Proof, Strength
from webhook.elevation.identity import Requester
from webhook.elevation.page.sessions import Sessions
from webhook.elevation.page.waiting import Waiting
from webhook.elevation.webauthn.proving import WEBAUTHN, Proving

JSON = dict[str, Any]


class WebAuthn:
    """The factor."""

    name = WEBAUTHN

    def __init__(self, store: AuthenticatorStore, sessions: Sessions, proving: Proving, waiting: Waiting) -> None:
        self._store = store
        self._sessions = sessions
        self._proving = proving
        self._waiting = waiting

    def strengths(self, record: PersonRecord) -> tuple[Strength, ...]:
        """Of each passkey that is not suspended."""
        return tuple(self._proving.strength(one) for one in record.usable_passkeys())

    async def prove(self, requester: Requester, elevation: JSON, given: Answer, now: float) -> Proof:
        """An answer from the page on localhost, or what was proven on the page elsewhere.

        Raises:
            WrongAnswerError: it proves nothing, or nobody has answered yet (``page-waiting``).
            RequestError: there is no such page of this terminal.
        """
        if not given.page:
            raise invalid("spec.page", "must name the page (create one: `pages`)")
        _, ceremony = await self._sessions.of_terminal(requester, given.page, now)
        if ceremony.kind != STEP_UP or ceremony.subject != elevation["metadata"]["name"]:
            raise over()
        if given.credential is None:
            return await self._claim(requester, given.page, now)
        if ceremony.rp_id != LOCALHOST:
            raise invalid("spec.credential", "is taken on the page itself")
        proof = await self._proving.prove(requester.username, given.page, elevation, given.credential, now)
        await self._end(requester.username, given.page, now)
        return proof

    async def keep(self, username: str, page: str, elevation: JSON, proof: Proof, now: float) -> None:
        """Keep what was proven on a page until its terminal claims it.

        Raises:
            RequestError: ``page-expired`` or ``page-declined``.
        """
        told = msgspec.json.encode(proof).decode()

        def put(record: PersonRecord) -> None:
            ceremony = live(record.ceremonies, page, now)
            if ceremony.subject != elevation["metadata"]["name"]:
                raise over()
            ceremony.proven = told

        await self._store.update(username, put)

    async def _claim(self, requester: Requester, page: str, now: float) -> Proof:
        async def look() -> Proof | None:
            _, ceremony = await self._sessions.of_terminal(requester, page, now)
            return msgspec.json.decode(ceremony.proven, type=Proof) if ceremony.proven else None

        proof = await self._waiting.until(requester.username, look)
        await self._end(requester.username, page, now)
        return proof

    async def _end(self, username: str, page: str, now: float) -> None:
        """A page is claimed once."""

        def drop(record: PersonRecord) -> None:
            live(record.ceremonies, page, now)
            del record.ceremonies[page]

        await self._store.update(username, drop)
