"""One attempt to prove who one is: counted before the code is looked at, accepted by compare-and-swap."""

from __future__ import annotations

from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord, accept_attempt, count_attempt
from webhook.elevation.factors import Factor
from webhook.elevation.identity import Requester


class Attempts:
    """Checks answers against people's authenticators."""

    def __init__(self, store: AuthenticatorStore) -> None:
        self._store = store

    async def check(self, requester: Requester, factor: Factor, unverified_code: str, now: float) -> PersonRecord:
        """Accept an answer, once; the person's record afterwards.

        Raises:
            WrongAnswerError: it proves nothing.
            RequestError: ``too-many-attempts``.
            StoreUnavailableError: the attempt could not be counted, or not be accepted.
        """
        credential = requester.credential_id or requester.username

        def count(record: PersonRecord) -> None:
            count_attempt(record, credential, now)

        def accept(record: PersonRecord) -> None:
            factor.accept(record, unverified_code, now)
            accept_attempt(record, credential)

        await self._store.update(requester.username, count)
        return await self._store.update(requester.username, accept)
