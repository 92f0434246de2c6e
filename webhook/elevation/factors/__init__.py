"""Factors: the ways in which a person proves who they are. A new one is a module here and a line in ``available``."""

from __future__ import annotations

from typing import Protocol

from webhook.adapters.authenticator_store import PersonRecord
from webhook.adapters.envelope import Envelope
from webhook.errors import StepUpError
from webhook.settings import Settings


class WrongAnswerError(StepUpError):
    """The answer does not prove anything; ``code`` says why and is told to the person."""

    code = "wrong-code"


class Factor(Protocol):
    """One factor.

    Attributes:
        name: what requests and records call it.
        acr: assurance that it gives (NIST SP 800-63B).
        amr: authentication method references (RFC 8176).
    """

    name: str
    acr: str
    amr: tuple[str, ...]

    def available_to(self, record: PersonRecord) -> bool:
        """Whether this person can use it."""

    def accept(self, record: PersonRecord, unverified_code: str, now: float) -> None:
        """Check an answer and note in the record that it is used up; called under compare-and-swap.

        Raises:
            WrongAnswerError: it proves nothing.
        """


def available(settings: Settings, envelope: Envelope) -> dict[str, Factor]:
    """All factors of this server, by name."""
    from webhook.elevation.factors.recovery import RecoveryCode
    from webhook.elevation.factors.totp import Totp

    factors: list[Factor] = [Totp(settings.elevation.totp, envelope), RecoveryCode()]
    return {factor.name: factor for factor in factors}
