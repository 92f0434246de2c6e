"""Sessions of pages: a link is opened once, and what opened it holds the page until it is over.

The link's secret is a fragment (no server log, no referrer, no preview of a chat program sees it) and is exchanged for the
session's, which a cookie of that page alone carries. Only hashes are kept.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord, who_hash
from webhook.adapters.ceremonies import ENROL, Ceremony, add, is_secret, live, over, secret_hash
from webhook.elevation.identity import Requester
from webhook.elevation.page.words import new_words
from webhook.elevation.webauthn.challenge import new_nonce
from webhook.elevation.webauthn.relying_party import Where

SECRET_BYTES: Final = 32
NAME_BYTES: Final = 10


class Opened(msgspec.Struct, frozen=True):
    """A new page: its name, and the secret of its link, told this once."""

    name: str
    link_secret: str
    ceremony: Ceremony
    record: PersonRecord

    def __repr__(self) -> str:
        return f"Opened({self.name})"


class Sessions:
    """Opens pages for terminals, and holds them for the browsers that came by the link."""

    def __init__(self, store: AuthenticatorStore) -> None:
        self._store = store

    def person(self, unverified_reference: str) -> str:
        """Whose a link is.

        Raises:
            RequestError: ``page-expired``: it is no link of ours.
        """
        username = self._store.username_of(unverified_reference)
        if not username:
            raise over()
        return username

    def reference(self, username: str) -> str:
        """What a link says of its person: nothing, but to us."""
        return self._store.reference(username)

    async def start(
        self, requester: Requester, kind: str, subject: str, where: Where, now: float, expires_at: float
    ) -> Opened:
        """A new page for the terminal that asks; times are seconds since the epoch."""
        name, link = secrets.token_hex(NAME_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        ceremony = Ceremony(
            kind=kind,
            subject=subject,
            credential=terminal_of(requester),
            origin=where.origin,
            rp_id=where.rp_id,
            nonce=new_nonce(),
            words=new_words(),
            created_at=now,
            expires_at=expires_at,
            client_address=requester.client_address,
            user_agent=requester.user_agent,
            link=secret_hash(link),
        )

        def begin(record: PersonRecord) -> None:
            record.ceremonies = add(record.ceremonies, name, ceremony, now)

        record = await self._store.update(requester.username, begin)
        return Opened(name, link, ceremony, record)

    async def open(self, username: str, name: str, unverified_link: str, now: float) -> tuple[str, Ceremony]:
        """The session's secret for the link's, once.

        Raises:
            RequestError: ``page-expired``: also when it was opened before.
        """
        session = secrets.token_urlsafe(SECRET_BYTES)

        def take(record: PersonRecord) -> None:
            ceremony = live(record.ceremonies, name, now)
            if not is_secret(unverified_link, ceremony.link):
                raise over()
            ceremony.link, ceremony.session = "", secret_hash(session)

        record = await self._store.update(username, take)
        return session, record.ceremonies[name]

    async def held(
        self, username: str, name: str, unverified_session: str, now: float
    ) -> tuple[PersonRecord, Ceremony]:
        """The page that a browser holds.

        Raises:
            RequestError: ``page-expired`` or ``page-declined``.
        """
        record = await self._store.read(username)
        ceremony = record.ceremonies.get(name)
        if ceremony is None or not is_secret(unverified_session, ceremony.session):
            raise over()
        return record, live(record.ceremonies, name, now)

    async def of_terminal(self, requester: Requester, name: str, now: float) -> tuple[PersonRecord, Ceremony]:
        """The page that a terminal has asked for.

        Raises:
            RequestError: ``page-expired``: also for another credential's, or ``page-declined``.
        """
        record = await self._store.read(requester.username)
        ceremony = record.ceremonies.get(name)
        if ceremony is None or ceremony.credential != terminal_of(requester):
            raise over()
        return record, live(record.ceremonies, name, now)

    async def decline(self, username: str, name: str, now: float, client_address: str) -> Ceremony:
        """The person says that it was not them; nothing can be proven there any more.

        Raises:
            RequestError: ``page-expired`` or ``page-declined``.
        """

        def refuse(record: PersonRecord) -> None:
            ceremony = live(record.ceremonies, name, now)
            ceremony.declined, ceremony.nonce, ceremony.proven = True, "", ""
            if ceremony.kind == ENROL:
                keep = [one for one in record.authenticators if one.confirmed or one.name != ceremony.subject]
                record.authenticators = keep

        record = await self._store.update(username, refuse)
        found = record.ceremonies[name]
        audit(
            "page-declined",
            user=username,
            page=name,
            about=found.subject,
            client_address=client_address,
            asked_from=found.client_address,
            code="page-declined",
        )
        return found


def terminal_of(requester: Requester) -> str:
    """What tells a terminal's credential from others in a record."""
    return who_hash(requester.credential_id or requester.username)
