"""Encrypts what is stored in Kubernetes Secrets with a key of our own (AES-256-GCM, NIST SP 800-38D).

Whoever reads a backup of etcd, or may read Secrets but not this key's, learns nothing. Each ciphertext is bound to its
purpose, its user and its id: one that is copied to another place does not open there.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook.adapters.kube import KubeClient, object_path
from webhook.errors import ConflictError, StepUpError, StoreUnavailableError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12  # SP 800-38D section 8.2.2: random nonces of 96 bits, far fewer than 2^32 messages a key
PREFIX: Final = "v1"
FIRST_KEY: Final = "kek-1"


class UnsealError(StepUpError):
    """A ciphertext does not open: another key, another place, or changed."""

    code = "unreadable-secret"


class Envelope:
    """Seals with the newest key and opens with any.

    Args:
        keys: 32 bytes each, by name; the last one seals.
    """

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys.values()):
            raise UnsealError("the key-encryption key is not 32 bytes", field="encryptionKeySecret")
        self._keys = dict(keys)
        self._current = list(keys)[-1]

    def __repr__(self) -> str:
        return f"Envelope(keys={sorted(self._keys)})"

    def seal(self, plaintext: bytes, *context: str) -> str:
        """Encrypt, bound to ``context`` (purpose, username, id)."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + AESGCM(self._keys[self._current]).encrypt(nonce, plaintext, _aad(context))
        return f"{PREFIX}.{self._current}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, *context: str) -> bytes:
        """Decrypt what was sealed with the same context.

        Raises:
            UnsealError: it does not open.
        """
        try:
            prefix, name, text = sealed.split(".")
            data = base64.urlsafe_b64decode(text)
            if prefix != PREFIX:
                raise UnsealError("a stored secret has a form that this version does not know")
            return AESGCM(self._keys[name]).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _aad(context))
        except (InvalidTag, KeyError, ValueError, binascii.Error) as error:
            raise UnsealError("a stored secret cannot be opened") from error


async def load_or_create(kube: KubeClient, namespace: str, name: str) -> Envelope:
    """The key in a Secret, made at the first start; two replicas that start together end up with the same.

    Raises:
        StoreUnavailableError: the Secret can neither be read nor be made.
    """
    path = object_path("", "v1", "secrets", namespace=namespace, name=name)
    stored = await kube.get(path)
    if stored is None:
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        try:
            stored = await kube.create(path.rsplit("/", 1)[0], _secret(name, {FIRST_KEY: key}))
        except ConflictError:
            stored = await kube.get(path)
    if stored is None:
        raise StoreUnavailableError("the key-encryption key was made and is gone again")
    return Envelope({key: base64.b64decode(value) for key, value in sorted((stored.get("data") or {}).items())})


def _secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "kube-stepup"}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kube-stepup.io/keys", "data": data}


def _aad(context: tuple[str, ...]) -> bytes:
    # Length-prefixed: ("a", "bc") and ("ab", "c") must differ.
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in context)
