"""All that has to do with passkeys, wired together."""

from __future__ import annotations

from webhook.adapters.authenticator_store import AuthenticatorStore
from webhook.elevation.factors.webauthn import WebAuthn
from webhook.elevation.page.sessions import Sessions
from webhook.elevation.page.waiting import Waiting
from webhook.elevation.webauthn.attestation import Attestation
from webhook.elevation.webauthn.enrolment import PasskeyEnrolment
from webhook.elevation.webauthn.proving import Proving
from webhook.elevation.webauthn.relying_party import RelyingParty
from webhook.settings import Settings


class Passkeys:
    """The parts, for whoever needs one.

    Raises:
        ConfigurationError: a root certificate is none.
    """

    def __init__(self, store: AuthenticatorStore, settings: Settings) -> None:
        options = settings.elevation
        attestation = Attestation(options.webauthn.attestation_roots, required=options.webauthn.require_attestation)
        party = RelyingParty(options.webauthn.name, attestation, options.pending_lifetime_seconds)
        waiting = Waiting()
        self.sessions = Sessions(store)
        self.proving = Proving(store, party, options.assurance, settings.audience)
        self.enrolment = PasskeyEnrolment(store, self.sessions, party, waiting, settings.audience)
        self.factor = WebAuthn(store, self.sessions, self.proving, waiting)
