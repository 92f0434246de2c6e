"""Mints assertions: the one place that signs (RFC 7519; the claims are described in ``core/assertion.py``)."""

from __future__ import annotations

from typing import Any

import jwt
import msgspec

from webhook.adapters.signing_keys import SigningKeys
from webhook.core.assertion import DETAIL_TYPE, MAX_TOKEN_BYTES, TOKEN_TYPE, AuthorizationDetail
from webhook.core.requirement import Requirement
from webhook.elevation.factors import Factor
from webhook.errors import RequestError


class Minted(msgspec.Struct, frozen=True):
    """An assertion and when it was authenticated, and expires (seconds since the epoch)."""

    token: str
    auth_time: int
    expires_at: int
    acr: str
    amr: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Minted(expires_at={self.expires_at})"


class Mint:
    """Signs what the elevation service has established.

    Args:
        max_lifetime_seconds: the longest life of an assertion, whatever policies allow.
    """

    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str, max_lifetime_seconds: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._max_lifetime_seconds = max_lifetime_seconds

    def sign(self, elevation: dict[str, Any], factor: Factor, requirements: list[Requirement], now: float) -> Minted:
        """The assertion of an Elevation whose person has just been authenticated by ``factor``.

        It lives as long as the most patient of the policies that asked would accept it, and never longer than the setting.

        Raises:
            RequestError: ``too-many-targets``: it would be larger than any carrier takes.
        """
        spec, at = elevation["spec"], int(now)
        lifetime = max((one.max_age_seconds for one in requirements), default=0)
        expires_at = at + min(lifetime, self._max_lifetime_seconds)
        confirmation = {
            key: value
            for key, value in (("credential_id", spec.get("credentialID")), ("session_id", spec.get("sessionID")))
            if value
        }
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": [self._audience],
            "sub": spec["user"]["username"],
            "iat": at,
            "nbf": at,
            "exp": expires_at,
            "jti": elevation["metadata"]["name"],
            "auth_time": at,
            "acr": factor.acr,
            "amr": list(factor.amr),
            "authorization_details": [_claim(detail) for detail in spec["details"]],
            **({"cnf": confirmation} if confirmation else {}),
            **({"reason": spec["reason"]} if spec.get("reason") else {}),
        }
        signer = self._keys.signer()
        headers = {"kid": signer.kid, "typ": TOKEN_TYPE}
        token = jwt.encode(claims, signer.private_key, algorithm=signer.algorithm, headers=headers)
        if len(token) > MAX_TOKEN_BYTES:
            raise RequestError("these are too many targets for one step-up; name fewer", code="too-many-targets")
        return Minted(token, at, expires_at, factor.acr, factor.amr)


def _claim(detail: dict[str, Any]) -> dict[str, Any]:
    typed = msgspec.convert({**detail, "type": DETAIL_TYPE}, AuthorizationDetail)
    found: dict[str, Any] = msgspec.to_builtins(typed)
    return found
