"""Encrypts what is stored in Kubernetes Secrets with a key of our own (AES-256-GCM, NIST SP 800-38D).

Whoever reads a backup of etcd, or may read Secrets but not this key's, learns nothing. Each ciphertext is bound to its
purpose, its user and its id: one that is copied to another place does not open there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook.adapters.kube import KubeClient, object_path
from webhook.errors import ConflictError, StepUpError, StoreUnavailableError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12  # SP 800-38D section 8.2.2: random nonces of 96 bits, far fewer than 2^32 messages a key
PREFIX: Final = "v1"
FIRST_KEY: Final = "kek-1"
DIGITS: Final = re.compile(r"([0-9]+)")
RETRY_SECONDS: Final = 1.0

Keys = dict[str, bytes]
Source = Callable[[bool], Awaitable[Keys]]
log = structlog.get_logger("envelope")


class UnsealError(StepUpError):
    """A ciphertext does not open: another key, another place, or changed."""

    code = "unreadable-secret"


class Envelope:
    """Seals with the newest key and opens with any.

    Keys are only ever added: a replica that was started before a key was made learns it when it meets a ciphertext of it,
    and one that was started after does not forget the others.

    Args:
        keys: 32 bytes each, by name; that of the highest number seals (``kek-10`` comes after ``kek-9``).
        source: reads all keys there are now, and makes the first one where it may; asked when there is none yet, and when
            one is unknown.
    """

    def __init__(self, keys: Keys | None = None, source: Source | None = None) -> None:
        self._keys: Keys = {}
        self._source = source
        if keys is not None:
            self._add(keys)

    def __repr__(self) -> str:
        return f"Envelope(keys={sorted(self._keys, key=_in_order)})"

    @property
    def ready(self) -> bool:
        """Whether there is a key."""
        return bool(self._keys)

    async def run(self) -> None:
        """Wait for the first key; whoever would be served without it goes on being served meanwhile."""
        while not self.ready:
            try:
                await self.load()
            except StepUpError as error:
                log.warning("encryption-key-unavailable", code=error.code, problem=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def load(self) -> None:
        """Read the keys.

        Raises:
            StoreUnavailableError: they cannot be read.
            UnsealError: what is stored is no key.
        """
        if self._source is not None:
            # Only the first start makes one: a Secret that is gone later must not come back with another key of that name.
            self._add(await self._source(not self.ready))

    async def learn(self, sealed: str) -> None:
        """Read the keys anew when something was sealed with one that is unknown.

        Raises:
            StoreUnavailableError: they cannot be read, so whether it is ours cannot be told.
        """
        _, _, rest = sealed.partition(".")
        if self.ready and rest.partition(".")[0] in self._keys:
            return
        try:
            await self.load()
        except UnsealError as error:
            raise StoreUnavailableError(error.message) from error

    def seal(self, plaintext: bytes, *context: str) -> str:
        """Encrypt, bound to ``context`` (purpose, username, id).

        Raises:
            StoreUnavailableError: there is no key yet.
        """
        self._require_ready()
        name = max(self._keys, key=_in_order)
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + AESGCM(self._keys[name]).encrypt(nonce, plaintext, _aad(context))
        return f"{PREFIX}.{name}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, *context: str) -> bytes:
        """Decrypt what was sealed with the same context.

        Raises:
            StoreUnavailableError: there is no key yet.
            UnsealError: it does not open.
        """
        self._require_ready()
        try:
            prefix, name, text = sealed.split(".")
            data = base64.urlsafe_b64decode(text)
            if prefix != PREFIX:
                raise UnsealError("a stored secret has a form that this version does not know")
            return AESGCM(self._keys[name]).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _aad(context))
        except (InvalidTag, KeyError, ValueError, binascii.Error) as error:
            raise UnsealError("a stored secret cannot be opened") from error

    def _require_ready(self) -> None:
        if not self.ready:
            raise StoreUnavailableError("the encryption key has not been read yet")

    def _add(self, keys: Keys) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys.values()):
            raise UnsealError("the key-encryption key is not 32 bytes", field="encryptionKeySecret")
        self._keys = {**keys, **self._keys}


async def read_keys(kube: KubeClient, namespace: str, name: str, *, create: bool) -> Keys:
    """The keys in a Secret, with a first one where it may be made; two replicas that start together end up with the same.

    Raises:
        StoreUnavailableError: the Secret can neither be read nor be made.
        UnsealError: what is stored is no key.
    """
    path = object_path("", "v1", "secrets", namespace=namespace, name=name)
    stored = await kube.get(path)
    if stored is None and create:
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        try:
            stored = await kube.create(path.rsplit("/", 1)[0], _secret(name, {FIRST_KEY: key}))
        except ConflictError:
            stored = await kube.get(path)
    if stored is None:
        raise StoreUnavailableError(f"the Secret {name} with the encryption key is gone")
    return {key: base64.b64decode(value) for key, value in (stored.get("data") or {}).items()}


def _in_order(name: str) -> tuple[list[int | str], str]:
    # Text and numbers take turns, so that like is compared with like.
    parts = DIGITS.split(name)
    return [int(part) if position % 2 else part for position, part in enumerate(parts)], name


def _secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "kube-stepup"}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kube-stepup.io/keys", "data": data}


def _aad(context: tuple[str, ...]) -> bytes:
    # Length-prefixed: ("a", "bc") and ("ab", "c") must differ.
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in context)
