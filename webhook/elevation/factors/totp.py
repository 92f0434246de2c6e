"""Time-based one-time passwords: RFC 6238 with HMAC-SHA-1, as every authenticator app and security key speaks it."""

from __future__ import annotations

import hmac
from typing import Final

import pyotp

from webhook.adapters.authenticator_store import Authenticator, PersonRecord
from webhook.adapters.envelope import Envelope
from webhook.elevation.factors import Strength, WrongAnswerError
from webhook.settings import TotpSettings

TYPE: Final = "totp"
SECRET_LETTERS: Final = 32  # base32: 160 bits, RFC 4226 section 4 R6


class Totp:
    """The factor."""

    name = TYPE
    amr: tuple[str, ...] = ("otp",)
    phishing_resistant = False

    def __init__(self, settings: TotpSettings, envelope: Envelope, acr: str = "aal2") -> None:
        self._settings = settings
        self._envelope = envelope
        self.acr = acr

    def strengths(self, record: PersonRecord) -> tuple[Strength, ...]:
        """Its own, once the person has confirmed one."""
        return (self,) if self.available_to(record) else ()

    def available_to(self, record: PersonRecord) -> bool:
        """Whether the person has confirmed one."""
        return record.confirmed(TYPE) is not None

    def accept(self, record: PersonRecord, unverified_code: str, now: float) -> None:
        """Accept the code of a time step that is later than any accepted before (RFC 6238 section 5.2).

        Raises:
            WrongAnswerError: ``wrong-code`` or ``code-already-used``.
        """
        authenticator = record.confirmed(TYPE)
        if authenticator is None:
            raise WrongAnswerError("you have no confirmed authenticator", code="not-enrolled")
        self.accept_for(record, authenticator, unverified_code, now)

    def accept_for(self, record: PersonRecord, authenticator: Authenticator, unverified_code: str, now: float) -> None:
        """The same for one authenticator, confirmed or not."""
        secret = self._envelope.open(authenticator.sealed, TYPE, record.username, authenticator.name).decode()
        step = self._matching_step(secret, unverified_code, now)
        if step is None:
            raise WrongAnswerError("that code is wrong")
        if step <= authenticator.last_step:
            wait = self._settings.period_seconds
            raise WrongAnswerError(
                f"that code was used already; wait up to {wait} s for the next", code="code-already-used"
            )
        authenticator.last_step = step
        authenticator.last_used_at = now

    def begin(self, record: PersonRecord, name: str, now: float) -> tuple[Authenticator, str, str]:
        """A new, unconfirmed authenticator, its secret (base32) and its provisioning URI (otpauth)."""
        secret = pyotp.random_base32(SECRET_LETTERS)
        sealed = self._envelope.seal(secret.encode(), TYPE, record.username, name)
        settings = self._settings
        totp = pyotp.TOTP(secret, digits=settings.digits, interval=settings.period_seconds)
        uri = totp.provisioning_uri(name=record.username, issuer_name=settings.issuer)
        return Authenticator(name, TYPE, sealed, now), secret, uri

    def _matching_step(self, secret: str, unverified_code: str, now: float) -> int | None:
        settings = self._settings
        code = "".join(unverified_code.split()).encode()
        hotp = pyotp.HOTP(secret, digits=settings.digits)
        current = int(now) // settings.period_seconds
        found = None
        # Every step is compared, in constant time each, so that the time taken tells nothing.
        for step in range(current - settings.window_steps, current + settings.window_steps + 1):
            if hmac.compare_digest(hotp.at(step).encode(), code):
                found = step
        return found
