"""An issuer of pipelines' tokens: keys made in the test, its two documents, and tokens that pass until one thing is changed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example.com"
AUDIENCE = "test-cluster"


@cache
def _keys() -> tuple[rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey]:
    return rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """A continuous-integration service.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, url: str = ISSUER, clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self.clock = clock
        self.rsa, self.ec = _keys()
        self.asked: list[str] = []
        self.down = False
        self.document: Any = {"issuer": url, "jwks_uri": f"{url}/keys"}
        self.keys: Any = {"keys": [self.jwk("rsa-1"), self.jwk("ec-1")]}

    def jwk(self, kid: str, **changes: Any) -> dict[str, Any]:
        """A public key as it is published."""
        key = (
            RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True)
            if kid.startswith("rsa")
            else ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True)
        )
        return {**key, "kid": kid, "use": "sig", **changes}

    async def fetch(self, url: str, _: str) -> Any:
        """As ``fetch_json`` does."""
        self.asked.append(url)
        if self.down:
            raise OSError("no route")
        if url == f"{self.url}/.well-known/openid-configuration":
            return self.document
        if url == f"{self.url}/keys":
            return self.keys
        raise ValueError("no 200")

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a pipeline's token says; None takes a claim away."""
        now = int(self.clock())
        found = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:acme/shop:ref:refs/heads/main",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "jti": secrets.token_hex(8),
            "repository": "acme/shop",
            "ref": "refs/heads/main",
            "run_id": "42",
            **changes,
        }
        return {key: value for key, value in found.items() if value is not None}

    def token(
        self,
        *,
        alg: str = "RS256",
        kid: str | None = "rsa-1",
        key: Any = None,
        headers: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """A token, signed."""
        found = {**({"kid": kid} if kid is not None else {}), **(headers or {})}
        private = key if key is not None else self.ec if alg == "ES256" else self.rsa
        return jwt.encode(self.claims(**changes), private, algorithm=alg, headers=found)

    def documents(self) -> dict[str, bytes]:
        """By path, for a server."""
        return {
            "/.well-known/openid-configuration": json.dumps(self.document).encode(),
            "/keys": json.dumps(self.keys).encode(),
        }
