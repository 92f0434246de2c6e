"""Recovery codes: look-up secrets (NIST SP 800-63B section 3.1.2) for the day the phone is gone. Each is good once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

from webhook.adapters.authenticator_store import PersonRecord
from webhook.elevation.factors import Strength, WrongAnswerError

TYPE: Final = "recovery-code"
CODES: Final = 10
RANDOM_BYTES: Final = 10  # 80 bits: a plain hash of it cannot be searched
GROUP_LETTERS: Final = 4


class RecoveryCode:
    """The factor."""

    name = TYPE
    amr: tuple[str, ...] = ("otp",)
    phishing_resistant = False

    def __init__(self, acr: str = "aal2") -> None:
        self.acr = acr

    def strengths(self, record: PersonRecord) -> tuple[Strength, ...]:
        """Its own, while any is left."""
        return (self,) if self.available_to(record) else ()

    def available_to(self, record: PersonRecord) -> bool:
        """Whether any is left."""
        return bool(record.recovery) and record.enrolled

    def accept(self, record: PersonRecord, unverified_code: str, now: float) -> None:  # noqa: ARG002 - the port's signature
        """Accept a code that was not used yet, and strike it out.

        Raises:
            WrongAnswerError: there is no such code.
        """
        given = _hash(record.username, unverified_code)
        matches = [stored for stored in record.recovery if hmac.compare_digest(stored, given)]
        if not matches:
            raise WrongAnswerError("that recovery code is wrong, or was used already")
        record.recovery = [stored for stored in record.recovery if stored not in matches]


def new_codes(username: str) -> tuple[list[str], list[str]]:
    """Ten codes to be shown once, and the hashes to keep."""
    codes = [_format(base64.b32encode(secrets.token_bytes(RANDOM_BYTES)).decode().lower()) for _ in range(CODES)]
    return codes, [_hash(username, code) for code in codes]


def _format(text: str) -> str:
    return "-".join(text[start : start + GROUP_LETTERS] for start in range(0, len(text), GROUP_LETTERS))


def _hash(username: str, code: str) -> str:
    plain = "".join(letter for letter in code.lower() if letter.isalnum())
    return hashlib.sha256(f"{username}\x00{plain}".encode()).hexdigest()
