"""The keys that sign assertions: made at the first start, published as SigningKey objects, rotated by compare-and-swap.

A new key is published first and signs only once every admission replica has had time to see it. A retired key loses its
private half at once; its public half stays until the last assertion that it can have signed has expired. Public halves are
sealed with the rest: whoever can write the Secret without the key-encryption key cannot have a key of their own published.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from webhook.adapters.audit import audit
from webhook.adapters.envelope import Envelope, UnsealError
from webhook.adapters.kube import KubeClient, object_path, own_path
from webhook.adapters.verifier import key_id
from webhook.errors import ConflictError, StoreUnavailableError

CHECK_SECONDS: Final = 20.0
SWAP_ATTEMPTS: Final = 5
GRACE_SECONDS: Final = 60  # clocks of replicas differ
ACTIVE: Final = "signing-key"
RETIRED: Final = "retired-signing-key"

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
log = structlog.get_logger("signing-keys")


class StoredKey(msgspec.Struct, rename="camel"):
    """One key as the Secret holds it; times are seconds since the epoch.

    Args:
        sealed: the private half, and nothing once retired; bound to the name and the public half.
    """

    algorithm: str
    public_key: str
    created_at: float
    sealed: str
    retired_at: float | None = None

    def context(self, kid: str) -> tuple[str, ...]:
        """What ``sealed`` is bound to."""
        return (RETIRED if self.retired_at else ACTIVE, self.algorithm, kid, self.public_key)


class Signer(msgspec.Struct, frozen=True):
    """A key that may sign now."""

    kid: str
    algorithm: str
    private_key: Any

    def __repr__(self) -> str:
        return f"Signer({self.kid})"


class SigningKeys:
    """All signing keys of this installation, the same on every replica.

    Args:
        propagation_seconds: how long a new key is only published.
        rotation_seconds: age at which the newest key gets a successor.
        max_lifetime_seconds: the longest that an assertion lives.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        kube: KubeClient,
        envelope: Envelope,
        *,
        namespace: str,
        secret: str,
        algorithm: str,
        propagation_seconds: int,
        rotation_seconds: int,
        max_lifetime_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._envelope = envelope
        self._path = object_path("", "v1", "secrets", namespace=namespace, name=secret)
        self._algorithm = algorithm
        self._propagation_seconds = propagation_seconds
        self._rotation_seconds = rotation_seconds
        self._keep_seconds = max_lifetime_seconds + GRACE_SECONDS
        self._clock = clock
        self._keys: dict[str, StoredKey] = {}
        self._private: dict[str, PrivateKey] = {}

    @property
    def ready(self) -> bool:
        """Whether there is a key to sign with."""
        return any(not key.retired_at for key in self._keys.values())

    def signer(self) -> Signer:
        """The key to sign with: the newest that all replicas have had time to see, else the oldest there is.

        Raises:
            StoreUnavailableError: none has been loaded yet.
        """
        usable = sorted((key.created_at, kid) for kid, key in self._keys.items() if not key.retired_at)
        if not usable:
            raise StoreUnavailableError("there is no signing key yet")
        seen = [kid for created, kid in usable if created + self._propagation_seconds <= self._clock()]
        kid = seen[-1] if seen else usable[0][1]
        return Signer(kid, self._keys[kid].algorithm, self._private_key(kid))

    def published(self) -> list[dict[str, Any]]:
        """Public halves, as SigningKey objects."""
        return [_signing_key(kid, key) for kid, key in self._keys.items()]

    async def run(self) -> None:
        """Keep the keys in order until cancelled."""
        while True:
            try:
                await self.step()
            except StoreUnavailableError as error:
                log.warning("signing-keys-unavailable", code=error.code, problem=error.message)
                await asyncio.sleep(1.0)
                continue
            await asyncio.sleep(CHECK_SECONDS)

    async def step(self, *, rotate: bool = False) -> None:
        """Load or make the keys, rotate what is due (or now), publish, and forget what nobody needs.

        Raises:
            StoreUnavailableError: the API server refused or was not there.
        """
        for _ in range(SWAP_ATTEMPTS):
            stored = await self._kube.get(self._path)
            keys, refused = await self._read(stored)
            wanted, rotated = self._next(keys, rotate=rotate)
            try:
                if stored is None:
                    await self._kube.create(self._path.rsplit("/", 1)[0], _secret(self._path, wanted))
                elif wanted != keys or refused:
                    await self._kube.replace(self._path, {**stored, "data": _data(wanted)})
            except ConflictError:
                continue
            for kid in refused:
                audit("signing-key-refused", key_id=kid, code="unreadable-secret", outcome="removed")
            await self._publish(wanted)
            self._keys = wanted  # after it was published: none signs with a key that nobody can verify
            for kid in rotated:
                audit("signing-key-rotated", key_id=kid, algorithm=wanted[kid].algorithm, outcome="published")
            return
        raise StoreUnavailableError("the signing keys keep changing")

    def _next(self, keys: dict[str, StoredKey], *, rotate: bool) -> tuple[dict[str, StoredKey], list[str]]:
        now = self._clock()
        found = {
            kid: msgspec.structs.replace(key)
            for kid, key in keys.items()
            if not key.retired_at or key.retired_at + self._keep_seconds > now
        }
        active = sorted((key.created_at, kid) for kid, key in found.items() if not key.retired_at)
        added: list[str] = []
        if not active or rotate or active[-1][0] + self._rotation_seconds <= now:
            kid, key = self._generate(now)
            found[kid] = key
            added.append(kid)
        usable = [kid for created, kid in active if created + self._propagation_seconds <= now]
        for kid in usable[:-1]:
            key = found[kid]
            key.retired_at = now
            key.sealed = self._envelope.seal(b"", *key.context(kid))
        return found, added

    async def _read(self, stored: dict[str, Any] | None) -> tuple[dict[str, StoredKey], list[str]]:
        """The keys in the Secret, and the names of those that we did not put there as they are."""
        keys: dict[str, StoredKey] = {}
        refused: list[str] = []
        for kid, text in ((stored or {}).get("data") or {}).items():
            try:
                key = msgspec.json.decode(base64.b64decode(text), type=StoredKey)
                # A replica that was started later may have sealed it with a newer key: it must not pass for somebody else's.
                await self._envelope.learn(key.sealed)
                self._envelope.open(key.sealed, *key.context(kid))
            except (ValueError, UnsealError):
                refused.append(kid)
            else:
                keys[kid] = key
        return keys, refused

    def _generate(self, now: float) -> tuple[str, StoredKey]:
        private: PrivateKey
        if self._algorithm == "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        else:
            private = ec.generate_private_key(ec.SECP256R1())
        kid = key_id(self._algorithm, private.public_key())
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        key = StoredKey(self._algorithm, public, now, sealed="")
        key.sealed = self._envelope.seal(pem, *key.context(kid))
        return kid, key

    def _private_key(self, kid: str) -> PrivateKey:
        if kid not in self._private:
            key = self._keys[kid]
            pem = self._envelope.open(key.sealed, *key.context(kid))
            loaded = load_pem_private_key(pem, None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
                raise StoreUnavailableError("a signing key is of a kind that is not used here")
            self._private = {kid: loaded}
        return self._private[kid]

    async def _publish(self, keys: dict[str, StoredKey]) -> None:
        published: dict[str, dict[str, Any]] = {}
        async for page in self._kube.pages(own_path("signingkeys")):
            published.update({item["metadata"]["name"]: item for item in page.get("items") or []})
        for kid, key in keys.items():
            wanted = _signing_key(kid, key)
            live = published.get(kid)
            if live is None:
                await self._create(wanted)
            elif live["spec"] != wanted["spec"]:
                await self._correct(wanted, live["spec"])
        if strange := published.keys() - keys.keys():
            await self._withdraw(strange)

    async def _correct(self, wanted: dict[str, Any], live: dict[str, Any]) -> None:
        path, spec = own_path("signingkeys", wanted["metadata"]["name"]), wanted["spec"]
        if all(live.get(field) == spec[field] for field in ("algorithm", "publicKey")):
            await self._kube.merge_patch(path, {"spec": {"retiredAt": None, **spec}})
        else:  # these cannot be changed
            await self._kube.delete(path)
            await self._create(wanted)

    async def _withdraw(self, strange: set[str]) -> None:
        # Read after the list: what another replica has stored, and only then published, is not foreign.
        stored, _ = await self._read(await self._kube.get(self._path))
        for kid in strange - stored.keys():
            if kid in self._keys:
                log.info("signing-key-expired", key_id=kid)
            else:
                audit("signing-key-withdrawn", key_id=kid, code="foreign-signing-key", outcome="deleted")
            await self._kube.delete(own_path("signingkeys", kid))

    async def _create(self, wanted: dict[str, Any]) -> None:
        try:
            await self._kube.create(own_path("signingkeys"), wanted)
        except ConflictError:
            return  # another replica was faster


def _data(keys: dict[str, StoredKey]) -> dict[str, str]:
    return {kid: base64.b64encode(msgspec.json.encode(key)).decode() for kid, key in keys.items()}


def _secret(path: str, keys: dict[str, StoredKey]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "kube-stepup"}
    metadata = {"name": path.rsplit("/", 1)[1], "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kube-stepup.io/keys",
        "data": _data(keys),
    }


def _signing_key(kid: str, key: StoredKey) -> dict[str, Any]:
    spec = {"algorithm": key.algorithm, "publicKey": key.public_key, "notBefore": _time(key.created_at)}
    if key.retired_at:
        spec["retiredAt"] = _time(key.retired_at)
    return {"apiVersion": "kube-stepup.io/v1alpha1", "kind": "SigningKey", "metadata": {"name": kid}, "spec": spec}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
