"""Verifies step-up assertions (RFC 7515, RFC 7519, RFC 8725) and remembers which ones it has verified.

Only keys published as SigningKey objects count; a key is used with its own algorithm alone, whatever the token says.
What is remembered is that a signature is genuine: times, audience, person and record are checked at each use.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import jwt
import msgspec
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from jwt.api_jws import PyJWS

from webhook.core.assertion import MAX_TOKEN_BYTES, TOKEN_TYPE, AssertionClaims, Problem

ALGORITHMS: Final = ("ES256", "EdDSA")  # RFC 8725 section 3.1: pinned, never what the token asks for
KEY_ID_HEX_DIGITS: Final = 40
REMEMBERED_TOKENS: Final = 8192

log = structlog.get_logger("verifier")
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey


class _Header(msgspec.Struct):
    alg: str = ""
    kid: str = ""
    typ: str = ""


def key_id(algorithm: str, public_key: PublicKey) -> str:
    """Name of a key: its algorithm and the SHA-256 of its SubjectPublicKeyInfo; also the name of its SigningKey."""
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{algorithm.lower()}-{hashlib.sha256(der).hexdigest()[:KEY_ID_HEX_DIGITS]}"


class Verifier:
    """Public keys and the tokens that they have verified. Also a sink for watched SigningKey objects."""

    def __init__(self, remembered: int = REMEMBERED_TOKENS) -> None:
        self._keys: dict[str, tuple[str, PublicKey]] = {}
        self._known: dict[str, AssertionClaims] = {}
        self._limit = remembered
        self._jws = PyJWS()

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Names of the keys in use."""
        return tuple(self._keys)

    def put(self, obj: dict[str, Any]) -> None:
        """Take in a SigningKey object; one that is not what its name says is refused and reported."""
        name, spec = obj["metadata"]["name"], obj.get("spec") or {}
        key = _public_key(str(spec.get("algorithm", "")), str(spec.get("publicKey", "")))
        if key is None or key_id(spec["algorithm"], key) != name:
            log.error("signing-key-refused", name=name, code="bad-signing-key")
            self.remove(name)
            return
        if name not in self._keys:
            self._keys[name] = (spec["algorithm"], key)
            self._known.clear()

    def remove(self, name: str) -> None:
        """Forget a key and everything that was verified so far."""
        if self._keys.pop(name, None) is not None:
            self._known.clear()

    def verify(self, unverified_token: str) -> AssertionClaims | Problem:
        """The claims of a genuine assertion, or why it is none."""
        known = self._known.get(unverified_token)
        if known is not None:
            return known
        answer = self._verify(unverified_token)
        if isinstance(answer, AssertionClaims):
            if len(self._known) >= self._limit:
                self._known.pop(next(iter(self._known)))
            self._known[unverified_token] = answer
        return answer

    def _verify(self, unverified_token: str) -> AssertionClaims | Problem:
        if len(unverified_token) > MAX_TOKEN_BYTES:
            return Problem("too-large", "the step-up assertion is larger than 8 KiB")
        try:
            header = msgspec.convert(self._jws.get_unverified_header(unverified_token), _Header)
        except (jwt.PyJWTError, msgspec.ValidationError, ValueError):
            return Problem("malformed", "the step-up assertion is not a signed JWT")
        if header.typ.lower().removeprefix("application/") != TOKEN_TYPE:
            return Problem("wrong-type", "the token is not a step-up assertion")
        if header.alg not in ALGORITHMS:
            return Problem("wrong-algorithm", "the step-up assertion is signed by an algorithm that is not accepted")
        algorithm, key = self._keys.get(header.kid, ("", None))
        if key is None:
            return Problem("unknown-key", "the step-up assertion was signed by a key that this cluster does not know")
        if algorithm != header.alg:
            return Problem("wrong-algorithm", "the step-up assertion names an algorithm that is not its key's")
        return self._claims(unverified_token, algorithm, key)

    def _claims(self, unverified_token: str, algorithm: str, key: PublicKey) -> AssertionClaims | Problem:
        try:
            payload = self._jws.decode_complete(unverified_token, key, algorithms=[algorithm])["payload"]
        except jwt.InvalidSignatureError:
            return Problem("bad-signature", "the step-up assertion's signature is wrong")
        except (jwt.PyJWTError, ValueError):
            return Problem("malformed", "the step-up assertion is not a signed JWT")
        try:
            return msgspec.json.decode(payload, type=AssertionClaims)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Problem("malformed", "the step-up assertion lacks a claim, or has one of another form")


def _public_key(algorithm: str, pem: str) -> PublicKey | None:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm == "ES256" and isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    return key if algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey) else None
