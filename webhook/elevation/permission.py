"""Who may bind an authenticator: an operator's ticket for the first one, a step-up with one that is there for any other."""

from __future__ import annotations

from collections.abc import Iterable

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord, redeem_ticket
from webhook.core.identity import SERVICE_ACCOUNT_PREFIX
from webhook.elevation.bodies import WantedAuthenticator
from webhook.elevation.factors import Factor, Strength
from webhook.elevation.identity import Requester
from webhook.elevation.own_step_up import NEW, OwnStepUps, step_up_required
from webhook.errors import RequestError
from webhook.settings import ElevationSettings


class Permission:
    """Decides who may change authenticators."""

    def __init__(
        self, store: AuthenticatorStore, step_ups: OwnStepUps, factors: Iterable[Factor], settings: ElevationSettings
    ) -> None:
        self._store = store
        self._step_ups = step_ups
        self._factors = tuple(factors)
        self._settings = settings

    def check_person(self, requester: Requester) -> None:
        """Refuse who is no person, or cannot be told apart.

        Raises:
            RequestError: ``not-a-person`` or ``no-credential-id``.
        """
        if requester.username.startswith(SERVICE_ACCOUNT_PREFIX):
            text = "a service account has no finger; authenticators are for people"
            raise self._refused(requester, text, "not-a-person")
        if not requester.credential_id:
            text = "your credential has no id (impersonation has none): enrol with your own client certificate or token"
            raise self._refused(requester, text, "no-credential-id")

    async def before_adding(self, requester: Requester, record: PersonRecord, wanted: WantedAuthenticator) -> str:
        """Use up the step-up that allows a further authenticator; its name. A first one needs a ticket instead.

        Raises:
            RequestError: ``ticket-required`` or ``step-up-required``.
        """
        if record.enrolled:
            return await self._step_ups.spend_assertion(requester, wanted.assertion, NEW, self.strengths(record))
        if not wanted.ticket and not self._settings.enrolment_trust_on_first_use:
            text = "enrolment needs a ticket: ask an operator for `stepup ticket`, then `kubectl elevate enroll --ticket …`"
            raise self._refused(requester, text, "ticket-required")
        return ""

    def to_add(
        self, requester: Requester, found: PersonRecord, unverified_ticket: str, now: float, *, stepped_up: str
    ) -> None:
        """Use up the ticket, in the swap that adds: one that an operator's reset has ended meanwhile binds nothing any more.

        Raises:
            RequestError: ``wrong-ticket``, or ``step-up-required``: an authenticator was bound meanwhile.
        """
        if stepped_up and found.enrolled:
            return
        if stepped_up or found.enrolled:
            raise step_up_required(NEW, "your authenticators have changed meanwhile")
        if unverified_ticket and not redeem_ticket(found, unverified_ticket, now):
            text = "that ticket is not yours, was used, or has expired; ask an operator for another"
            raise self._refused(requester, text, "wrong-ticket")

    async def to_remove(self, requester: Requester, record: PersonRecord, name: str, elevation: str) -> None:
        """Use up what allows somebody to remove an authenticator of theirs.

        Raises:
            RequestError: ``step-up-required``.
        """
        await self._step_ups.spend(requester, elevation, name, self.strengths(record))

    def strengths(self, record: PersonRecord) -> list[Strength]:
        """All that somebody could prove."""
        return [strength for factor in self._factors for strength in factor.strengths(record)]

    @staticmethod
    def _refused(requester: Requester, text: str, code: str) -> RequestError:
        audit(
            "enrolment-refused",
            user=requester.username,
            credential_id=requester.credential_id,
            client_address=requester.client_address,
            code=code,
        )
        return RequestError(text, code=code, status=403, reason="Forbidden")
