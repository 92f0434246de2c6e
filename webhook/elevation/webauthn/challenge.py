"""The challenge that an authenticator signs: random, and bound to what it is for.

https://www.w3.org/TR/webauthn-3/#sctn-cryptographic-challenges asks for 16 random bytes; here are 32, followed by a digest
of cluster, request, action, terminal and origin. A signature over it can be good for nothing else, and says so afterwards.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final

import msgspec

NONCE_BYTES: Final = 32
_PURPOSE: Final = "kube-stepup webauthn challenge v1"


def new_nonce() -> str:
    """The random part (hex)."""
    return secrets.token_hex(NONCE_BYTES)


def challenge(nonce: str, audience: str, kind: str, subject: dict[str, Any], *session: str) -> bytes:
    """64 bytes: the nonce, then SHA-256 over all that it is for.

    Args:
        audience: name of the cluster.
        kind: ``step-up`` or ``enrol``.
        subject: the request as it is stored: who, what, why.
        session: what tells this page and its terminal from others: ceremony, credential, origin, RP ID.
    """
    digest = hashlib.sha256()
    canonical = msgspec.json.encode(subject, order="deterministic").decode()
    for part in (_PURPOSE, audience, kind, canonical, *session):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)  # length-prefixed: ("a", "bc") and ("ab", "c") must differ
    return bytes.fromhex(nonce) + digest.digest()
