"""One attempt to prove who one is: counted before the code is looked at, accepted by compare-and-swap."""

from __future__ import annotations

from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord, accept_attempt, count_attempt
from webhook.elevation.factors import CodeFactor
from webhook.elevation.identity import Requester


def counted_as(requester: Requester, session_extra_key: str) -> str:
    """By what attempts are told apart: the session where the cluster tells it, else the credential.

    The tokens of an OIDC session are new credentials all the time; counted by them, a person would be a stranger for ever.

    Args:
        session_extra_key: the extra field that names the session, in small letters as header names are; empty for none.
    """
    session = requester.user.first_extra(session_extra_key)
    return f"session {session}" if session else requester.credential_id or requester.username


class Attempts:
    """Checks answers against people's authenticators.

    Args:
        session_extra_key: as for ``counted_as``.
    """

    def __init__(self, store: AuthenticatorStore, session_extra_key: str = "") -> None:
        self._store = store
        self._session_extra_key = session_extra_key

    async def check(self, requester: Requester, factor: CodeFactor, unverified_code: str, now: float) -> PersonRecord:
        """Accept an answer, once; the person's record afterwards.

        Raises:
            WrongAnswerError: it proves nothing.
            RequestError: ``too-many-attempts``.
            StoreUnavailableError: the attempt could not be counted, or not be accepted.
        """
        who = counted_as(requester, self._session_extra_key)

        def count(record: PersonRecord) -> None:
            count_attempt(record, who, now)

        def accept(record: PersonRecord) -> None:
            factor.accept(record, unverified_code, now)
            accept_attempt(record, who)

        await self._store.update(requester.username, count)
        return await self._store.update(requester.username, accept)
