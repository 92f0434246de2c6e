"""A passkey or security key as it is kept (https://www.w3.org/TR/webauthn-3/#credential-record)."""

from __future__ import annotations

from typing import Final

import msgspec

LOCALHOST: Final = "localhost"


class Passkey(msgspec.Struct, rename="camel", frozen=True):
    """A WebAuthn credential; byte strings are base64url.

    Args:
        attested: a trusted certificate says that the key cannot leave its hardware.
        suspended_at: when its counter went backwards, in seconds since the epoch; 0 while all is well.
    """

    credential_id: str
    public_key: str
    sign_count: int
    aaguid: str
    transports: tuple[str, ...]
    rp_id: str
    backup_eligible: bool
    backed_up: bool
    attested: bool
    attestation_format: str
    suspended_at: float = 0.0

    @property
    def is_local(self) -> bool:
        """Whether it belongs to the page on localhost, where another local page could relay a challenge."""
        return self.rp_id == LOCALHOST
