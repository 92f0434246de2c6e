"""Issuers of pipelines' tokens and their public keys: discovered, fetched and cached within bounds.

Only issuers of the settings are ever asked for anything. Keys come from the issuer's discovery document (OpenID Connect
Discovery section 4) or from the URL in the settings: over https, without redirects, and never from a token's own header.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import aiohttp
import msgspec
import structlog

from webhook.errors import RequestError
from webhook.workload_settings import WorkloadIssuerSettings

TIMEOUT_SECONDS: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
FRESH_SECONDS: Final = 600
STALE_SECONDS: Final = 3600  # as long keys that were fetched are believed while the issuer cannot be reached
RETRY_SECONDS: Final = 30  # between attempts, so that nobody makes us flood an issuer with tokens of unknown keys
WELL_KNOWN: Final = "/.well-known/openid-configuration"

Key = dict[str, Any]
Fetch = Callable[[str, str], Awaitable[Any]]
"""The JSON of a URL, with a CA bundle (PEM; empty for the usual ones); raises OSError or ValueError."""

log = structlog.get_logger("issuers")


class IssuerKeys:
    """The keys (JWK, RFC 7517) of one issuer.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, settings: WorkloadIssuerSettings, clock: Callable[[], float], fetch: Fetch) -> None:
        self.settings = settings
        self._clock = clock
        self._fetch = fetch
        self._keys: tuple[Key, ...] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def with_id(self, kid: str) -> Sequence[Key]:
        """The keys of that id, or all where a token names none; fetched anew when there is no such key yet.

        Raises:
            RequestError: ``issuer-unavailable``: they cannot be had, and what was known is too old.
        """
        async with self._lock:
            now = self._clock()
            is_due = now - self._fetched_at >= FRESH_SECONDS or not self._named(kid)
            if is_due and now - self._tried_at >= RETRY_SECONDS:
                self._tried_at = now
                await self._refresh(now)
            if now - self._fetched_at > STALE_SECONDS:
                raise _unavailable()
            return self._named(kid)

    def _named(self, kid: str) -> tuple[Key, ...]:
        return tuple(one for one in self._keys if not kid or one.get("kid") == kid)

    async def _refresh(self, now: float) -> None:
        issuer = self.settings.issuer
        try:
            keys = await self._read()
        except (OSError, ValueError, TypeError, TimeoutError, aiohttp.ClientError) as error:
            log.warning("issuer-unreachable", code="issuer-unavailable", issuer=issuer, problem=type(error).__name__)
            return
        self._keys, self._fetched_at = keys, now
        log.info("issuer-keys-read", issuer=issuer, keys=len(keys))

    async def _read(self) -> tuple[Key, ...]:
        url = self.settings.jwks_uri or await self._discovered()
        document = await self._fetch(url, self.settings.ca_bundle)
        keys = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(keys, list) or len(keys) > MAX_KEYS:
            raise ValueError("not a key set")
        return tuple(one for one in keys if isinstance(one, dict))

    async def _discovered(self) -> str:
        issuer = self.settings.issuer
        document = await self._fetch(issuer.rstrip("/") + WELL_KNOWN, self.settings.ca_bundle)
        # Discovery section 4.3: what is said there is said by this issuer and no other.
        if not isinstance(document, dict) or document.get("issuer") != issuer:
            raise ValueError("a document of another issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith("https://"):
            raise ValueError("no https jwks_uri")
        return url


async def fetch_json(url: str, ca_bundle: str) -> Any:
    """GET a document.

    Raises:
        ValueError: it is too large, is not JSON, or the answer is no 200 (a redirect is none).
        OSError, aiohttp.ClientError, TimeoutError: it cannot be reached.
    """
    context = ssl.create_default_context(cadata=ca_bundle or None)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, ssl=context, allow_redirects=False, headers={"Accept": "application/json"}) as response,
    ):
        if response.status != 200:
            raise ValueError("no 200")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError("too large")
    return msgspec.json.decode(bytes(body))


def _unavailable() -> RequestError:
    return RequestError(
        "the keys of the token's issuer cannot be read just now; try again",
        code="issuer-unavailable",
        status=503,
        reason="ServiceUnavailable",
        retry_after_seconds=RETRY_SECONDS,
    )
