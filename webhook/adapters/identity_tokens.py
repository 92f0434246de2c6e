"""Verifies pipelines' ID tokens (OpenID Connect Core section 3.1.3.7), with all that RFC 8725 asks for.

A token says nothing that is believed before its signature is verified: its issuer only chooses among those of the settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.api_jws import PyJWS

from webhook.adapters.issuers import Fetch, IssuerKeys, Key, fetch_json
from webhook.errors import RequestError
from webhook.workload_settings import WorkloadIssuerSettings

MAX_TOKEN_BYTES: Final = 16 * 1024
LEEWAY_SECONDS: Final = 10  # how far ahead the issuer's clock may be; nothing is accepted after it has expired
MAX_LIFETIME_SECONDS: Final = 24 * 3600
MIN_RSA_BITS: Final = 2048  # NIST SP 800-131A
MAX_TEXT_LETTERS: Final = 1024
KINDS: Final = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Key type and curve of each algorithm that can be set: a key is never used with another (RFC 8725 section 2.1)."""


class IdentityToken(msgspec.Struct, frozen=True, kw_only=True):
    """A verified token.

    Args:
        expires_at: seconds since the epoch.
        once: what is the same for two tokens only if they are one (issuer and ``jti``, else what was signed).
    """

    issuer: WorkloadIssuerSettings
    subject: str
    claims: dict[str, Any]
    expires_at: int
    once: str

    def __repr__(self) -> str:
        return f"IdentityToken({self.issuer.issuer}, {self.subject})"


class IdentityTokens:
    """Verifies tokens of the issuers of the settings.

    Args:
        audience: of this cluster; what a token must be for where the settings do not say.
        longest_seconds: how far away the end of a token may be: as long as is remembered that it was used.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        issuers: Iterable[WorkloadIssuerSettings],
        *,
        audience: str,
        longest_seconds: int,
        clock: Callable[[], float],
        fetch: Fetch = fetch_json,
    ) -> None:
        self._issuers = {one.issuer: IssuerKeys(one, clock, fetch) for one in issuers}
        self._audience = audience
        self._longest_seconds = min(longest_seconds, MAX_LIFETIME_SECONDS)
        self._clock = clock
        self._jws = PyJWS()

    async def verify(self, unverified_token: str) -> IdentityToken:
        """The token, if it is genuine, ours to take, and of now.

        Raises:
            RequestError: ``token-refused``, ``untrusted-issuer`` or ``issuer-unavailable``.
        """
        header, unverified_claims = self._read(unverified_token)
        issuer = self._issuers.get(_text(unverified_claims, "iss"))
        if issuer is None:
            text = "the token's issuer is none of those that this cluster takes (elevation.workloadIssuers)"
            raise RequestError(text, code="untrusted-issuer", status=403, reason="Forbidden")
        algorithm = str(header.get("alg", ""))
        if algorithm not in issuer.settings.algorithms:
            raise refused("it is signed by an algorithm that is not accepted of its issuer")
        keys = await issuer.with_id(str(header.get("kid", "")))
        claims = self._signed_claims(unverified_token, algorithm, keys)
        return self._checked(claims, issuer.settings, unverified_token)

    def _read(self, unverified_token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        if len(unverified_token) > MAX_TOKEN_BYTES:
            raise refused(f"it is larger than {MAX_TOKEN_BYTES // 1024} KiB")
        try:
            unverified = self._jws.decode_complete(unverified_token, options={"verify_signature": False})
            header, claims = unverified["header"], _decoded(unverified["payload"])
        except (jwt.PyJWTError, ValueError) as error:
            raise refused("it is not a signed JWT") from error
        # RFC 8725 section 3.11: no other kind of JWT may pass for an ID token; section 2.10: nothing critical is known.
        if str(header.get("typ", "JWT")).lower() not in {"jwt", "application/jwt"} or "crit" in header:
            raise refused("it is a JWT of another kind")
        return header, claims

    def _signed_claims(self, unverified_token: str, algorithm: str, keys: Sequence[Key]) -> dict[str, Any]:
        usable = [key for key in (_public_key(one, algorithm) for one in keys) if key is not None]
        if len(usable) != 1:  # without a kid, only an issuer with a single key leaves no choice
            raise refused("it was signed by a key that its issuer does not publish")
        try:
            payload = self._jws.decode_complete(unverified_token, usable[0], algorithms=[algorithm])["payload"]
            return _decoded(payload)
        except (jwt.PyJWTError, ValueError) as error:
            raise refused("its signature is wrong") from error

    def _checked(self, claims: dict[str, Any], issuer: WorkloadIssuerSettings, unverified_token: str) -> IdentityToken:
        now = self._clock()
        subject = _text(claims, "sub")
        expires_at, issued_at = _time(claims, "exp"), _time(claims, "iat")
        not_before = _time(claims, "nbf") if "nbf" in claims else issued_at
        audiences = issuer.audiences or (self._audience,)
        if _text(claims, "iss") != issuer.issuer:
            raise refused("it was issued by somebody else")
        if not any(
            claims.get("aud") in (one, [one]) for one in audiences
        ):  # RFC 8725 section 3.9: and for nobody besides
            raise refused(f"its audience is not {' or '.join(audiences)} alone")
        if max(issued_at, not_before) > now + LEEWAY_SECONDS:
            raise refused("it is not valid yet: a clock is wrong")
        if now >= expires_at:
            raise refused("it has expired")
        if now - issued_at > issuer.max_token_age_seconds:
            raise refused(f"it is older than {issuer.max_token_age_seconds} s; get a new one")
        if expires_at - now > self._longest_seconds:
            raise refused(f"it lives longer than {self._longest_seconds} s")
        return IdentityToken(
            issuer=issuer,
            subject=subject,
            claims=claims,
            expires_at=expires_at,
            once=_once(issuer.issuer, claims, unverified_token),
        )


def refused(text: str) -> RequestError:
    """The refusal of a token."""
    return RequestError(f"the token does not do: {text}", code="token-refused", status=403, reason="Forbidden")


def _once(issuer: str, claims: dict[str, Any], token: str) -> str:
    jti = claims.get("jti")
    # Not the whole token: an ECDSA signature can be written in a second way by anybody.
    signed = f"jti\0{jti}" if isinstance(jti, str) and jti else f"jws\0{token.rpartition('.')[0]}"
    return hashlib.sha256(f"{issuer}\0{signed}".encode()).hexdigest()


def _public_key(key: Key, algorithm: str) -> Any:
    kind, curve = KINDS[algorithm]
    if key.get("kty") != kind or (curve and key.get("crv") != curve):
        return None
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return None
    public = {name: value for name, value in key.items() if name != "d"}
    try:
        found = jwt.PyJWK(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return None if isinstance(found, RSAPublicKey) and found.key_size < MIN_RSA_BITS else found


def _decoded(payload: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("no claims") from error


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT_LETTERS:
        raise refused(f"it has no {name}")
    return value


def _time(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 40:
        raise refused(f"it has no {name}")
    return int(value)
