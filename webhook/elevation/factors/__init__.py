"""Factors: the ways in which a person proves who they are. A new one is a module here and a line in ``available``.

A factor says how strong it is in terms of NIST SP 800-63B-4 (``acr``, from the one table in the settings), RFC 8176 (``amr``)
and whether a false page could relay it. What a policy asks for is compared with that, and never with a factor's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from webhook.adapters.authenticator_store import PersonRecord
from webhook.core.requirement import ASSURANCES, Challenge
from webhook.errors import RequestError, StepUpError

if TYPE_CHECKING:
    from webhook.adapters.envelope import Envelope
    from webhook.elevation.bodies import Answer
    from webhook.elevation.factors.webauthn import WebAuthn
    from webhook.elevation.identity import Requester
    from webhook.settings import Settings


class WrongAnswerError(StepUpError):
    """The answer does not prove anything; ``code`` says why and is told to the person."""

    code = "wrong-code"


class StillWaitingError(WrongAnswerError):
    """Nobody has answered on the page yet; the terminal asks again."""

    code = "page-waiting"


class Strength(Protocol):
    """How much is proven.

    Attributes:
        acr: assurance (NIST SP 800-63B).
        amr: authentication method references (RFC 8176).
        phishing_resistant: whether no false page can have relayed it.
    """

    @property
    def acr(self) -> str: ...  # noqa: D102
    @property
    def amr(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def phishing_resistant(self) -> bool: ...  # noqa: D102


class Proof(msgspec.Struct, frozen=True):
    """What an answer has proven; a `Strength`.

    Args:
        factor: name of the factor.
        authenticated_at: when, in seconds since the epoch.
        authenticator: name of the authenticator, where the person may have several.
    """

    factor: str
    acr: str
    amr: tuple[str, ...]
    phishing_resistant: bool
    authenticated_at: float
    authenticator: str = ""


class Factor(Protocol):
    """One factor, and what it would prove."""

    name: str

    def strengths(self, record: PersonRecord) -> tuple[Strength, ...]:
        """What this person could prove with it; empty when they cannot use it."""


@runtime_checkable
class CodeFactor(Factor, Protocol):
    """A factor that is a code: attempts are counted, so that guessing is hopeless."""

    acr: str
    amr: tuple[str, ...]
    phishing_resistant: bool

    def accept(self, record: PersonRecord, unverified_code: str, now: float) -> None:
        """Check an answer and note in the record that it is used up; called under compare-and-swap.

        Raises:
            WrongAnswerError: it proves nothing.
        """


@runtime_checkable
class PageFactor(Factor, Protocol):
    """A factor that is used on a page."""

    async def prove(self, requester: Requester, elevation: dict[str, Any], given: Answer, now: float) -> Proof:
        """What was proven on a page that this terminal has opened, once.

        Raises:
            WrongAnswerError: nothing; or nothing yet.
            RequestError: there is no such page any more.
        """


def suffices(strength: Strength, challenge: Challenge) -> bool:
    """Whether it is as strong as policies ask."""
    if challenge.phishing_resistant and not strength.phishing_resistant:
        return False
    return ASSURANCES.index(strength.acr) >= ASSURANCES.index(challenge.assurance)


def suitable(factors: dict[str, Factor], record: PersonRecord, challenge: Challenge) -> list[str]:
    """Names of the factors with which a person can answer a challenge, the preferred ones first.

    Raises:
        RequestError: ``not-enrolled``: there is none at all, or ``factor-too-weak``: none that is strong enough.
    """
    mine = {name: factor.strengths(record) for name, factor in factors.items()}
    found = [name for name, strengths in mine.items() if any(suffices(one, challenge) for one in strengths)]
    if not found:
        raise too_weak(challenge) if any(mine.values()) else _not_enrolled()
    return found


def too_weak(challenge: Challenge) -> RequestError:
    """A refusal of a factor that is not strong enough."""
    what = (
        "a passkey on the page of this cluster"
        if challenge.phishing_resistant
        else f"a factor that is {challenge.assurance}"
    )
    if challenge.phishing_resistant and challenge.assurance == "aal3":
        what = "an attested security key on the page of this cluster"
    policies = ", ".join(challenge.policies)
    text = f"policy {policies} asks for {what}, and you have none; `kubectl elevate factors` shows yours"
    return RequestError(text, code="factor-too-weak", status=403, reason="Forbidden")


def _not_enrolled() -> RequestError:
    text = "you have no authenticator yet; run `kubectl elevate enroll` (an operator gives you the ticket that it asks for)"
    return RequestError(text, code="not-enrolled", status=403, reason="Forbidden")


def available(settings: Settings, envelope: Envelope, passkeys: WebAuthn | None = None) -> dict[str, Factor]:
    """All factors of this server by name, the preferred ones first."""
    from webhook.elevation.factors.recovery import RecoveryCode
    from webhook.elevation.factors.totp import Totp

    table = settings.elevation.assurance
    factors: list[Factor] = [
        *([passkeys] if passkeys is not None else []),
        Totp(settings.elevation.totp, envelope, table.totp),
        RecoveryCode(table.recovery),
    ]
    return {factor.name: factor for factor in factors}
