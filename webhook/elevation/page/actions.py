"""What can be done on the page at the https origin: prove, enrol, decline, revoke. Never grant: the terminal claims that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord
from webhook.adapters.ceremonies import ENROL, HOME, STEP_UP, Ceremony
from webhook.elevation.factors import WrongAnswerError
from webhook.elevation.page.pages import Pages
from webhook.elevation.page.render import render
from webhook.elevation.requests import ElevationRequests
from webhook.elevation.webauthn.passkeys import Passkeys
from webhook.errors import RequestError

JSON = dict[str, Any]


class Actions:
    """The service behind the site.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: AuthenticatorStore,
        requests: ElevationRequests,
        pages: Pages,
        passkeys: Passkeys,
        audience: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._requests = requests
        self._pages = pages
        self._passkeys = passkeys
        self._sessions = passkeys.sessions
        self._audience = audience
        self._clock = clock

    async def open(self, person: str, name: str, unverified_link: str) -> tuple[str, int]:
        """The session of a link, once, and how many seconds it lasts.

        Raises:
            RequestError: ``page-expired``.
        """
        now = self._clock()
        session, ceremony = await self._sessions.open(self._sessions.person(person), name, unverified_link, now)
        return session, max(1, int(ceremony.expires_at - now))

    async def show(self, person: str, name: str, unverified_session: str, base: str) -> str:
        """The page, for whoever holds it; that it is over, for anybody else."""
        try:
            record, ceremony = await self._held(person, name, unverified_session)
            return await self._pages.html(record, name, ceremony, base)
        except RequestError as error:
            return render("over", cluster=self._audience, base=base, options={}, message=error.message)

    async def do(
        self, action: str, person: str, name: str, unverified_session: str, body: JSON, client_address: str
    ) -> JSON:
        """One action of whoever holds a page; what the page is told.

        Raises:
            RequestError: there is no such page, session or action.
        """
        record, ceremony = await self._held(person, name, unverified_session)
        if action == "decline":
            return await self._decline(record, name, client_address)
        credential = body.get("credential")
        if action == "revoke" and ceremony.kind == HOME:
            await self._requests.revoke_on_page(record.username, str(body.get("name", "")), client_address)
            return {"revoked": True}
        if isinstance(credential, dict) and (action, ceremony.kind) in {("answer", STEP_UP), ("register", ENROL)}:
            return await self._prove(record, name, ceremony, credential, client_address)
        raise RequestError("that is not what this page does", code="malformed")

    async def _prove(
        self, record: PersonRecord, name: str, ceremony: Ceremony, unverified: JSON, client_address: str
    ) -> JSON:
        username, now = record.username, self._clock()
        try:
            if ceremony.kind == ENROL:
                await self._passkeys.enrolment.register(username, name, unverified, now)
            else:
                elevation = await self._requests.stored(username, ceremony.subject)
                proof = await self._passkeys.proving.prove(username, name, elevation, unverified, now)
                await self._passkeys.factor.keep(username, name, elevation, proof, now)
        except WrongAnswerError as error:
            self._audit(username, name, ceremony, client_address, code=error.code)
            record = await self._store.read(username)
            ceremony = record.ceremonies.get(name, ceremony)
            options = await self._pages.options(record, name, ceremony) if name in record.ceremonies else {}
            return {"accepted": False, "code": error.code, "message": error.message, "options": options}
        self._audit(username, name, ceremony, client_address)
        return {"accepted": True}

    async def _decline(self, record: PersonRecord, name: str, client_address: str) -> JSON:
        ceremony = await self._sessions.decline(record.username, name, self._clock(), client_address)
        if ceremony.kind == STEP_UP:
            await self._requests.revoke_on_page(record.username, ceremony.subject, client_address)
        return {"declined": True}

    async def _held(self, person: str, name: str, unverified_session: str) -> tuple[PersonRecord, Ceremony]:
        return await self._sessions.held(self._sessions.person(person), name, unverified_session, self._clock())

    @staticmethod
    def _audit(username: str, name: str, ceremony: Ceremony, client_address: str, code: str = "") -> None:
        audit(
            "page-answered",
            user=username,
            page=name,
            about=ceremony.subject,
            client_address=client_address,
            asked_from=ceremony.client_address,
            outcome="refused" if code else "proven",
            code=code,
        )
