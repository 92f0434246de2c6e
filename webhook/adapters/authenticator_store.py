"""People's authenticators: one Secret a person, every change a compare-and-swap on it.

One object holds the authenticators, the last accepted time step, the recovery codes and the failed attempts, so that one
swap decides between two replicas. What is secret in it is sealed; counters are not, so that an operator's reset needs no key.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec

from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.kube import KubeClient, object_path
from webhook.errors import ConflictError, RequestError, StoreUnavailableError

SWAP_ATTEMPTS: Final = 12
RECORD: Final = "record"
TICKET_BYTES: Final = 20
FREE_MISSES: Final = 3
MAX_DELAY_SECONDS: Final = 3600  # NIST SP 800-63B section 3.2.2: guessing must stay hopeless for years
STRANGER_MISSES_PER_HOUR: Final = 10
STRANGER_SECONDS: Final = 3600
MAX_REMEMBERED: Final = 32


class Misses(msgspec.Struct):
    """Wrong codes in a row from one credential; ``last_at`` is seconds since the epoch."""

    count: int = 0
    last_at: float = 0.0


class Authenticator(msgspec.Struct, rename="camel"):
    """One authenticator of a person.

    Args:
        label: what the person calls it.
        last_step: the last time step that was accepted (RFC 6238 section 5.2).
    """

    name: str
    type: str
    sealed: str
    created_at: float
    confirmed: bool = False
    last_step: int = 0
    label: str = ""


class PersonRecord(msgspec.Struct, rename="camel"):
    """All that is kept of a person.

    Args:
        recovery: SHA-256 (hex) of each unused recovery code.
        misses: by hash of the credential; ``strangers`` counts for all credentials that never gave a right code.
        known: hashes of credentials that did.
    """

    username: str
    authenticators: list[Authenticator] = []
    recovery: list[str] = []
    misses: dict[str, Misses] = {}
    strangers: Misses = msgspec.field(default_factory=Misses)
    known: list[str] = []

    def confirmed(self, kind: str) -> Authenticator | None:
        """The confirmed authenticator of a kind; None when there is none."""
        return next((one for one in self.authenticators if one.type == kind and one.confirmed), None)

    @property
    def enrolled(self) -> bool:
        """Whether any authenticator can be used."""
        return any(one.confirmed for one in self.authenticators)


class AuthenticatorStore:
    """Reads and swaps records of people, and one-time enrolment tickets."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._collection = object_path("", "v1", "secrets", namespace=namespace)

    async def read(self, username: str) -> PersonRecord:
        """The record of a person; an empty one for somebody who was never here."""
        return _decode(username, await self._kube.get(self._path(username)))

    async def update(self, username: str, change: Callable[[PersonRecord], None]) -> PersonRecord:
        """Change a record by compare-and-swap; ``change`` may be called again, on a fresh record, and may raise.

        Raises:
            StoreUnavailableError: it could not be stored; nothing was changed.
        """
        for _ in range(SWAP_ATTEMPTS):
            stored = await self._kube.get(self._path(username))
            record = _decode(username, stored)
            change(record)
            data = {RECORD: base64.b64encode(msgspec.json.encode(record)).decode()}
            try:
                if stored is None:
                    await self._kube.create(self._collection, _secret(self._name(username), username, data))
                else:
                    await self._kube.replace(self._path(username), {**stored, "data": data})
            except ConflictError:
                continue
            return record
        raise StoreUnavailableError("too many others change the same authenticators")

    async def forget(self, username: str) -> bool:
        """Remove everything of a person; whether there was anything."""
        return await self._kube.delete(self._path(username))

    async def issue_ticket(self, username: str, expires_at: float) -> str:
        """Make a one-time enrolment ticket; only its hash is stored."""
        ticket = base64.b32encode(secrets.token_bytes(TICKET_BYTES)).decode().lower()
        data = {"username": username, "expiresAt": str(expires_at)}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        await self._kube.create(self._collection, _secret(_ticket_name(ticket), username, encoded))
        return ticket

    async def redeem_ticket(self, username: str, unverified_ticket: str, now: float) -> bool:
        """Whether the ticket is good for this person; it is gone before the answer is given, so it is good once."""
        path = f"{self._collection}/{_ticket_name(unverified_ticket.strip().lower())}"
        stored = await self._kube.get(path)
        if stored is None:
            return False
        data = {key: base64.b64decode(value).decode() for key, value in (stored.get("data") or {}).items()}
        if data.get("username") != username:
            return False
        try:
            gone = await self._kube.delete(path, resource_version=stored["metadata"]["resourceVersion"])
        except ConflictError:
            return False
        return gone and float(data.get("expiresAt", "0")) > now

    def _path(self, username: str) -> str:
        return f"{self._collection}/{self._name(username)}"

    @staticmethod
    def _name(username: str) -> str:
        return f"authn-{user_hash(username)}"


def count_attempt(record: PersonRecord, credential: str, now: float) -> None:
    """Count an attempt before its code is looked at, or refuse it because too many came before.

    After three misses each further try waits twice as long, for this person and credential alone, so that nobody can lock
    somebody else out. Credentials that never gave a right code share a budget on top: whoever can mint a new credential
    for each guess gains nothing.

    Raises:
        RequestError: ``too-many-attempts``, with ``retry_after_seconds``.
    """
    mine = credential_hash(credential)
    misses = record.misses.get(mine, Misses())
    wait = misses.last_at + delay_seconds(misses.count) - now
    if mine not in record.known:
        if now - record.strangers.last_at > STRANGER_SECONDS:
            record.strangers = Misses(0, now)
        if record.strangers.count >= STRANGER_MISSES_PER_HOUR:
            wait = max(wait, record.strangers.last_at + STRANGER_SECONDS - now)
        record.strangers.count += 1
    if wait > 0:
        seconds = int(wait) + 1
        raise RequestError(
            f"too many wrong codes; wait {seconds} s, or ask an operator for `stepup unlock`",
            code="too-many-attempts",
            status=429,
            reason="TooManyRequests",
            retry_after_seconds=seconds,
        )
    record.misses.pop(mine, None)
    record.misses[mine] = Misses(misses.count + 1, now)
    while len(record.misses) > MAX_REMEMBERED:
        # Strangers first: they have their budget. Or wrong codes from new credentials would wipe out an old one's count.
        record.misses.pop(next((one for one in record.misses if one not in record.known), mine))


def accept_attempt(record: PersonRecord, credential: str) -> None:
    """Forget the misses of a credential that gave a right code, and know it from now on."""
    mine = credential_hash(credential)
    if mine not in record.known:
        record.strangers.count = max(0, record.strangers.count - 1)
        record.known = [*record.known, mine][-MAX_REMEMBERED:]
    record.misses.pop(mine, None)


def delay_seconds(misses: int) -> int:
    """Pause after so many misses in a row: none for three, then 2, 4, 8 … up to an hour."""
    return 0 if misses < FREE_MISSES else int(min(MAX_DELAY_SECONDS, 2 ** (misses - FREE_MISSES + 1)))


def credential_hash(credential: str) -> str:
    """Name of a credential in a record; the id itself is not kept."""
    return hashlib.sha256(credential.encode()).hexdigest()[:32]


def _decode(username: str, stored: dict[str, Any] | None) -> PersonRecord:
    text = ((stored or {}).get("data") or {}).get(RECORD)
    if not text:
        return PersonRecord(username)
    record = msgspec.json.decode(base64.b64decode(text), type=PersonRecord)
    if record.username != username:
        raise StoreUnavailableError("a record of authenticators belongs to somebody else")
    return record


def _ticket_name(ticket: str) -> str:
    return f"ticket-{hashlib.sha256(ticket.encode()).hexdigest()[:40]}"


def _secret(name: str, username: str, data: dict[str, str]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "kube-stepup", USER_LABEL: user_hash(username)}
    metadata = {"name": name, "labels": labels}
    kind = "kube-stepup.io/ticket" if name.startswith("ticket-") else "kube-stepup.io/authenticator"
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}
