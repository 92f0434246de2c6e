"""Ceremonies: proofs that are given on a page, as a person's record remembers them until they are over.

A ceremony belongs to the terminal that asked for it. Whoever has its link sees the page and can prove something there, but
what was proven is claimed by that terminal alone.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import msgspec

from webhook.errors import RequestError

STEP_UP: Final = "step-up"
ENROL: Final = "enrol"
HOME: Final = "home"
MAX_CEREMONIES: Final = 12
MAX_TRIES: Final = 5


class Ceremony(msgspec.Struct, rename="camel", omit_defaults=True):
    """One page and what happened on it; times are seconds since the epoch.

    Args:
        kind: ``step-up``, ``enrol`` or ``home``.
        subject: name of the Elevation or authenticator that it is about; empty for ``home``.
        credential: hash of the credential of the terminal that asked.
        origin: where the page is: the only origin that an answer may come from.
        nonce: random part of the challenge (hex); empty once an answer has used it up.
        words: two words that page and terminal show alike.
        link: SHA-256 (hex) of the one-time secret of its link; empty once it was opened.
        session: SHA-256 (hex) of the session that opened it.
        proven: the proof (JSON), once there is one.
    """

    kind: str
    subject: str
    credential: str
    origin: str
    rp_id: str
    nonce: str
    words: str
    created_at: float
    expires_at: float
    client_address: str = ""
    user_agent: str = ""
    link: str = ""
    session: str = ""
    proven: str = ""
    tries: int = 0
    declined: bool = False


def secret_hash(secret: str) -> str:
    """What is kept of a random secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret(unverified: str, stored_hash: str) -> bool:
    """Whether a secret is the one whose hash was kept; nothing is, once the hash is gone."""
    return bool(stored_hash) and hmac.compare_digest(secret_hash(unverified), stored_hash)


def add(ceremonies: dict[str, Ceremony], name: str, ceremony: Ceremony, now: float) -> dict[str, Ceremony]:
    """With one more; those that are over go, and where there are too many the oldest of the same credential."""
    found = {key: one for key, one in ceremonies.items() if one.expires_at > now}
    while len(found) >= MAX_CEREMONIES:
        mine = [key for key, one in found.items() if one.credential == ceremony.credential]
        oldest = min(mine or found, key=lambda key: found[key].created_at)
        del found[oldest]
    return {**found, name: ceremony}


def live(ceremonies: dict[str, Ceremony], name: str, now: float) -> Ceremony:
    """One that is not over.

    Raises:
        RequestError: ``page-expired`` or ``page-declined``.
    """
    found = ceremonies.get(name)
    if found is None or found.expires_at <= now:
        raise over()
    if found.declined:
        text = "it was declined on the page (“This was not me”); if that was not you, tell your operators"
        raise RequestError(text, code="page-declined", status=403, reason="Forbidden")
    return found


def over() -> RequestError:
    """A page that is there no more, or never was: nobody can tell which."""
    text = "this page has expired or was used already; ask again at your terminal"
    return RequestError(text, code="page-expired", status=410, reason="Expired")
