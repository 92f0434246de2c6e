"""Proving with a passkey: the challenge is used up before the answer is looked at, and the counter moves by compare-and-swap."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from webhook.adapters.audit import audit
from webhook.adapters.authenticator_store import AuthenticatorStore, PersonRecord
from webhook.adapters.ceremonies import MAX_TRIES, STEP_UP, Ceremony, live, over
from webhook.adapters.passkey import Passkey
from webhook.elevation.factors import Proof, WrongAnswerError
from webhook.elevation.webauthn.challenge import challenge, new_nonce
from webhook.elevation.webauthn.relying_party import RelyingParty, Where, credential_id_of
from webhook.settings import AssuranceTable

# RFC 8176 section 2: a key in hardware, unlocked by PIN or biometrics, touched
ATTESTED_AMR: Final = ("hwk", "mfa", "user")
WEBAUTHN: Final = "webauthn"
AMR: Final = ("pop", "mfa", "user")

JSON = dict[str, Any]


class PasskeyStrength(msgspec.Struct, frozen=True):
    """What a passkey proves."""

    acr: str
    amr: tuple[str, ...]
    phishing_resistant: bool


class Proving:
    """Checks assertions of people's passkeys.

    Args:
        audience: name of the cluster, which every challenge is bound to.
    """

    def __init__(self, store: AuthenticatorStore, party: RelyingParty, table: AssuranceTable, audience: str) -> None:
        self._store = store
        self._party = party
        self._table = table
        self._audience = audience

    def strength(self, passkey: Passkey) -> PasskeyStrength:
        """On localhost another local page could relay the challenge, so it proves less there."""
        if passkey.is_local:
            return PasskeyStrength(self._table.webauthn, AMR, phishing_resistant=False)
        acr = self._table.webauthn_attested if passkey.attested else self._table.webauthn
        return PasskeyStrength(acr, ATTESTED_AMR if passkey.attested else AMR, phishing_resistant=True)

    def options(self, record: PersonRecord, name: str, elevation: JSON) -> JSON:
        """``PublicKeyCredentialRequestOptionsJSON`` for a page; empty once its challenge is used up."""
        ceremony = record.ceremonies[name]
        if not ceremony.nonce:
            return {}
        passkeys = record.usable_passkeys(ceremony.rp_id)
        where = Where(ceremony.origin, ceremony.rp_id)
        return self._party.request_options(where, self._challenge(name, ceremony, elevation), passkeys)

    async def prove(self, username: str, name: str, elevation: JSON, unverified: JSON, now: float) -> Proof:
        """Check what the browser of a page gave; ``now`` is seconds since the epoch.

        Raises:
            WrongAnswerError: ``wrong-passkey`` or ``authenticator-suspended``.
            RequestError: ``page-expired`` or ``page-declined``.
        """
        record, ceremony = await self._take(username, name, elevation, now)
        try:
            authenticator, passkey = self._named(record, ceremony, unverified)
            where = Where(ceremony.origin, ceremony.rp_id)
            shown = self._party.verify(
                passkey, record.handle, unverified, where, self._challenge(name, ceremony, elevation)
            )
            await self._advance(username, authenticator, shown.sign_count, now, backed_up=shown.backed_up)
        except WrongAnswerError:
            await self._renew(username, name)
            raise
        strength = self.strength(passkey)
        return Proof(WEBAUTHN, strength.acr, strength.amr, strength.phishing_resistant, now, authenticator)

    async def _take(self, username: str, name: str, elevation: JSON, now: float) -> tuple[PersonRecord, Ceremony]:
        """Use up the challenge: two answers at once, on two replicas, are one answer."""
        taken: list[Ceremony] = []

        def take(record: PersonRecord) -> None:
            ceremony = live(record.ceremonies, name, now)
            if ceremony.kind != STEP_UP or ceremony.subject != elevation["metadata"]["name"] or not ceremony.nonce:
                raise over()
            taken[:] = [msgspec.structs.replace(ceremony)]
            ceremony.nonce = ""
            ceremony.tries += 1

        record = await self._store.update(username, take)
        return record, taken[0]

    async def _renew(self, username: str, name: str) -> None:
        """Another challenge for another try, a few times."""

        def renew(record: PersonRecord) -> None:
            ceremony = record.ceremonies.get(name)
            if ceremony is not None and ceremony.tries < MAX_TRIES and not ceremony.declined:
                ceremony.nonce = new_nonce()

        await self._store.update(username, renew)

    def _named(self, record: PersonRecord, ceremony: Ceremony, unverified: JSON) -> tuple[str, Passkey]:
        wanted = credential_id_of(unverified)
        for name, passkey in record.passkeys(ceremony.rp_id).items():
            if passkey.credential_id == wanted:
                if passkey.suspended_at:
                    raise _suspended()
                return name, passkey
        raise WrongAnswerError("that passkey is not enrolled here", code="wrong-passkey")

    async def _advance(self, username: str, name: str, sign_count: int, now: float, *, backed_up: bool) -> None:
        """Move the counter on, or suspend the authenticator whose counter does not (section 6.1.1: perhaps a clone)."""
        verdict: list[bool] = []

        def move(record: PersonRecord) -> None:
            authenticator = next((one for one in record.authenticators if one.name == name), None)
            if authenticator is None or (passkey := authenticator.passkey) is None:
                raise over()
            if passkey.suspended_at:
                raise _suspended()
            has_gone_back = (sign_count or passkey.sign_count) and sign_count <= passkey.sign_count
            verdict[:] = [bool(has_gone_back)]
            changes: JSON = (
                {"suspended_at": now} if has_gone_back else {"sign_count": sign_count, "backed_up": backed_up}
            )
            authenticator.passkey = msgspec.structs.replace(passkey, **changes)
            authenticator.last_used_at = authenticator.last_used_at if has_gone_back else now

        await self._store.update(username, move)
        if verdict[0]:
            audit(
                "authenticator-suspended", user=username, authenticator=name, code="authenticator-suspended", alarm=True
            )
            raise _suspended()

    def _challenge(self, name: str, ceremony: Ceremony, elevation: JSON) -> bytes:
        subject = {
            "name": elevation["metadata"]["name"],
            "uid": elevation["metadata"]["uid"],
            "spec": elevation["spec"],
        }
        session = (name, ceremony.credential, ceremony.origin, ceremony.rp_id)
        return challenge(ceremony.nonce, self._audience, STEP_UP, subject, *session)


def _suspended() -> WrongAnswerError:
    text = (
        "that authenticator is suspended: its counter went backwards, so there may be a copy of it. Step up with another"
        " one, remove it (`kubectl elevate factors remove`), and tell your operators"
    )
    return WrongAnswerError(text, code="authenticator-suspended")
