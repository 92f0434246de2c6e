"""People's authenticators: one Secret a person, every change a compare-and-swap on it.

One object holds the authenticators, the last accepted time step, the recovery codes, the tickets and the failed attempts,
so that one swap decides between two replicas. The whole is sealed, bound to its person: whoever can write the Secret, but
has not the encryption key, can take it away or put an older one back, and not give anybody a recovery code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec

from webhook.adapters.ceremonies import Ceremony
from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.envelope import Envelope, UnsealError
from webhook.adapters.kube import KubeClient, object_path
from webhook.adapters.passkey import Passkey
from webhook.errors import ConflictError, RequestError, StoreUnavailableError

SWAP_ATTEMPTS: Final = 12
RECORD: Final = "record"
TICKET_BYTES: Final = 20
MAX_TICKETS: Final = 8
PURPOSE: Final = "person"
REFERENCE: Final = "person-reference"
FREE_MISSES: Final = 3
# How hopeless guessing is (NIST SP 800-63B section 3.2.2). A code of six digits is right with 3 in 10^6: the time step and
# one on either side. One who has, undetected, a session of the person in use and fresh credentials too, gets 24 + 12 tries
# a day and 20 + 10 at once: 66 on the first day (0.02 %), 13,170 in a year (1 - (1 - 3e-6)^13170 = 3.9 %; with
# `totp.digits: 8` 0.04 %). With fresh credentials alone it is 1.3 % a year, with the stolen session alone 2.6 %. Each try is
# in the audit.
MAX_DELAY_SECONDS: Final = 3600
STRANGERS_AT_ONCE: Final = 10
STRANGERS_SECONDS: Final = 2 * 3600  # after which one more attempt is theirs
REGULARS_AT_ONCE: Final = 20
REGULARS_SECONDS: Final = 3600
MAX_REMEMBERED: Final = 32


class Misses(msgspec.Struct):
    """Wrong codes in a row from one credential or session; ``last_at`` is seconds since the epoch."""

    count: int = 0
    last_at: float = 0.0


class Ticket(msgspec.Struct, rename="camel"):
    """A one-time enrolment ticket: SHA-256 (hex), and its end in seconds since the epoch."""

    digest: str
    expires_at: float


class Authenticator(msgspec.Struct, rename="camel"):
    """One authenticator of a person.

    Args:
        label: what the person calls it.
        last_step: the last time step that was accepted (RFC 6238 section 5.2).
        last_used_at: when it last proved something; 0 for never.
        passkey: of a WebAuthn authenticator, once it was made.
        claim: SHA-256 (hex) of what the terminal was told that began to enrol it; empty where nothing was.
    """

    name: str
    type: str
    sealed: str
    created_at: float
    confirmed: bool = False
    last_step: int = 0
    label: str = ""
    last_used_at: float = 0.0
    passkey: Passkey | None = None
    claim: str = ""


class PersonRecord(msgspec.Struct, rename="camel"):
    """All that is kept of a person.

    Args:
        recovery: SHA-256 (hex) of each unused recovery code.
        misses: by hash of the session or credential.
        known: hashes of those that gave a right code; ``regulars`` is their budget, ``strangers`` that of all others: when it
            will be whole again, in seconds since the epoch.
        tickets: with which the first authenticator may be bound.
        handle: random WebAuthn user handle (base64url); empty before the first passkey.
        ceremonies: pages that are open, by name.
    """

    username: str
    authenticators: list[Authenticator] = []
    recovery: list[str] = []
    misses: dict[str, Misses] = {}
    strangers: float = 0.0
    regulars: float = 0.0
    known: list[str] = []
    tickets: list[Ticket] = []
    handle: str = ""
    ceremonies: dict[str, Ceremony] = {}

    def confirmed(self, kind: str) -> Authenticator | None:
        """The confirmed authenticator of a kind; None when there is none."""
        return next((one for one in self.authenticators if one.type == kind and one.confirmed), None)

    def passkeys(self, rp_id: str = "") -> dict[str, Passkey]:
        """Confirmed ones at one relying party or at any, by name of the authenticator; also those that are suspended."""
        mine = [(one.name, one.passkey) for one in self.authenticators if one.confirmed]
        return {name: one for name, one in mine if one is not None and rp_id in {"", one.rp_id}}

    def usable_passkeys(self, rp_id: str = "") -> list[Passkey]:
        """Those that can prove something."""
        return [one for one in self.passkeys(rp_id).values() if not one.suspended_at]

    @property
    def enrolled(self) -> bool:
        """Whether any authenticator can be used."""
        return any(one.confirmed for one in self.authenticators)


class AuthenticatorStore:
    """Reads and swaps records of people."""

    def __init__(self, kube: KubeClient, namespace: str, envelope: Envelope) -> None:
        self._kube = kube
        self._envelope = envelope
        self._collection = object_path("", "v1", "secrets", namespace=namespace)

    async def read(self, username: str) -> PersonRecord:
        """The record of a person; an empty one for somebody who was never here.

        Raises:
            UnsealError: it was not written by us for this person, or the encryption key is another one.
        """
        return await self._decode(username, await self._kube.get(self._path(username)))

    def reference(self, username: str) -> str:
        """Who a person is, in a form that only we can read."""
        return self._envelope.seal(username.encode(), REFERENCE).rstrip("=")

    def username_of(self, unverified_reference: str) -> str:
        """Whose reference this is; empty when we did not make it."""
        padded = unverified_reference + "=" * (-len(unverified_reference.rpartition(".")[2]) % 4)
        try:
            return self._envelope.open(padded, REFERENCE).decode()
        except (UnsealError, ValueError):
            return ""

    async def update(self, username: str, change: Callable[[PersonRecord], None]) -> PersonRecord:
        """Change a record by compare-and-swap; ``change`` may be called again, on a fresh record, and may raise.

        Raises:
            StoreUnavailableError: it could not be stored; nothing was changed.
            UnsealError: as ``read``.
        """
        for _ in range(SWAP_ATTEMPTS):
            stored = await self._kube.get(self._path(username))
            record = await self._decode(username, stored)
            change(record)
            sealed = self._envelope.seal(msgspec.json.encode(record), PURPOSE, username)
            data = {RECORD: base64.b64encode(sealed.encode()).decode()}
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
        """Remove everything of a person, whether it can be read or not; whether there was anything."""
        return await self._kube.delete(self._path(username))

    async def _decode(self, username: str, stored: dict[str, Any] | None) -> PersonRecord:
        if stored is None:
            return PersonRecord(username)
        try:
            sealed = base64.b64decode((stored.get("data") or {}).get(RECORD) or "").decode("ascii")
        except ValueError as error:
            raise UnsealError("a record of authenticators is not one of ours") from error
        await self._envelope.learn(sealed)
        plain = self._envelope.open(sealed, PURPOSE, username)
        return msgspec.json.decode(plain, type=PersonRecord)

    def _path(self, username: str) -> str:
        return f"{self._collection}/{self._name(username)}"

    @staticmethod
    def _name(username: str) -> str:
        return f"authn-{user_hash(username)}"


def count_attempt(record: PersonRecord, who: str, now: float) -> None:
    """Count an attempt before its code is looked at, or refuse it because too many came before.

    After three misses each further try waits twice as long, for this person and session (or credential) alone, so that
    nobody can lock somebody else out. Those that never gave a right code share a budget on top: whoever can mint a new
    credential for each guess gains nothing. Those that did have one of their own, which strangers cannot use up.

    Args:
        who: the session, or the credential where there is none.

    Raises:
        RequestError: ``too-many-attempts``, with ``retry_after_seconds``.
    """
    mine = who_hash(who)
    misses = record.misses.get(mine, Misses())
    wait = misses.last_at + delay_seconds(misses.count) - now
    regular = mine in record.known
    if regular:
        whole_at, budget_wait = _spend(record.regulars, REGULARS_AT_ONCE, REGULARS_SECONDS, now)
    else:
        whole_at, budget_wait = _spend(record.strangers, STRANGERS_AT_ONCE, STRANGERS_SECONDS, now)
    if (wait := max(wait, budget_wait)) > 0:
        seconds = int(wait) + 1
        raise RequestError(
            f"too many wrong codes; wait {seconds} s, or ask an operator for `stepup unlock`",
            code="too-many-attempts",
            status=429,
            reason="TooManyRequests",
            retry_after_seconds=seconds,
        )
    if regular:
        record.regulars = whole_at
    else:
        record.strangers = whole_at
    record.misses.pop(mine, None)
    record.misses[mine] = Misses(misses.count + 1, now)
    while len(record.misses) > MAX_REMEMBERED:
        # Strangers first: they have their budget. Or wrong codes from new credentials would wipe out an old one's count.
        record.misses.pop(next((one for one in record.misses if one not in record.known), mine))


def accept_attempt(record: PersonRecord, who: str) -> None:
    """Forget the misses of a session or credential that gave a right code, and know it from now on."""
    mine = who_hash(who)
    if mine in record.known:  # the right one was no guess
        record.regulars -= REGULARS_SECONDS
    else:
        record.strangers -= STRANGERS_SECONDS
        record.known = [*record.known, mine][-MAX_REMEMBERED:]
    record.misses.pop(mine, None)


def clear_attempts(record: PersonRecord, now: float) -> bool:
    """Forget all wrong codes; whether there were any."""
    found = bool(record.misses) or record.strangers > now or record.regulars > now
    record.misses, record.strangers, record.regulars = {}, 0.0, 0.0
    return found


def delay_seconds(misses: int) -> int:
    """Pause after so many misses in a row: none for three, then 2, 4, 8 … up to an hour."""
    return 0 if misses < FREE_MISSES else int(min(MAX_DELAY_SECONDS, 2 ** (misses - FREE_MISSES + 1)))


def who_hash(who: str) -> str:
    """Name of a session or credential in a record; the id itself is not kept."""
    return hashlib.sha256(who.encode()).hexdigest()[:32]


def _spend(whole_at: float, at_once: int, each_seconds: float, now: float) -> tuple[float, float]:
    """When a budget will be whole again after one more attempt, and the seconds until it can bear one."""
    after = max(whole_at, now) + each_seconds
    return after, after - now - at_once * each_seconds


def add_ticket(record: PersonRecord, now: float, expires_at: float) -> str:
    """Make a one-time enrolment ticket; only its hash is kept, and of those that nobody used the newest few."""
    ticket = base64.b32encode(secrets.token_bytes(TICKET_BYTES)).decode().lower()
    alive = [one for one in record.tickets if one.expires_at > now]
    record.tickets = [*alive, Ticket(_digest(ticket), expires_at)][-MAX_TICKETS:]
    return ticket


def redeem_ticket(record: PersonRecord, unverified_ticket: str, now: float) -> bool:
    """Whether the ticket is good for this person; it is used up then, and those whose time is over go with it."""
    given = _digest(unverified_ticket.strip().lower())
    alive = [one for one in record.tickets if one.expires_at > now]
    record.tickets = [one for one in alive if not hmac.compare_digest(one.digest, given)]
    return len(record.tickets) < len(alive)


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode(errors="surrogatepass")).hexdigest()


def _secret(name: str, username: str, data: dict[str, str]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "kube-stepup", USER_LABEL: user_hash(username)}
    metadata = {"name": name, "labels": labels}
    kind = "kube-stepup.io/authenticator"
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}
