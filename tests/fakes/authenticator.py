"""A soft authenticator and the browser before it: makes passkeys and assertions, right ones and every kind of wrong one.

https://www.w3.org/TR/webauthn-3/#sctn-authenticator-data
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40
AAGUID = bytes.fromhex("00112233445566778899aabbccddeeff")
AAGUID_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.45724.1.1.4")
ES256 = -7


class Maker:
    """A maker of security keys, whose certificate attests them."""

    def __init__(self, *, aaguid: bytes = AAGUID, is_ca: bool = False) -> None:
        self.root_key, self.key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self._root = _certificate("Test Root", "Test Root", self.root_key, self.root_key, is_ca=True)
        extension = x509.UnrecognizedExtension(AAGUID_EXTENSION, b"\x04\x10" + aaguid)
        self._leaf = _certificate("Test Key", "Test Root", self.key, self.root_key, is_ca=is_ca, extension=extension)

    @property
    def root(self) -> str:
        """Its root certificate (PEM)."""
        return self._root.public_bytes(Encoding.PEM).decode()

    @property
    def leaf(self) -> bytes:
        """The attestation certificate (DER)."""
        return self._leaf.public_bytes(Encoding.DER)


class SoftAuthenticator:
    """One key, and the browser at `origin`.

    Args:
        flags: UP, UV and, for a passkey that is synced, BE and BS.
        maker: attests it; nobody does by default.
    """

    def __init__(self, origin: str, *, flags: int = UP | UV, maker: Maker | None = None, rp_id: str = "") -> None:
        self.origin = origin
        self.flags = flags
        self.maker = maker
        self.rp_id = rp_id
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.credential_id = secrets.token_bytes(32)
        self.count = 0
        self.handle = ""
        self.client_data: dict[str, Any] = {}

    def create(self, options: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """`navigator.credentials.create()`; `changes` are of the client data."""
        self.handle = options["user"]["id"]
        client_data = self._client_data("webauthn.create", options["challenge"], changes)
        public = self.key.public_key().public_numbers()
        cose = cbor2.dumps({1: 2, 3: ES256, -1: 1, -2: public.x.to_bytes(32, "big"), -3: public.y.to_bytes(32, "big")})
        attested = AAGUID + len(self.credential_id).to_bytes(2, "big") + self.credential_id + cose
        data = self._data(self.rp_id or options["rp"]["id"], AT) + attested
        statement: dict[str, Any] = {}
        if self.maker is not None:
            signed = data + hashlib.sha256(client_data).digest()
            statement = {
                "alg": ES256,
                "sig": self.maker.key.sign(signed, ec.ECDSA(hashes.SHA256())),
                "x5c": [self.maker.leaf],
            }
        fmt = "packed" if self.maker is not None else "none"
        response = {
            "clientDataJSON": encoded(client_data),
            "attestationObject": encoded(cbor2.dumps({"fmt": fmt, "attStmt": statement, "authData": data})),
            "transports": ["usb", "nonsense"],
        }
        return self._credential(response)

    def get(self, options: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """`navigator.credentials.get()`; `changes` are of the client data."""
        self.count += 1
        client_data = self._client_data("webauthn.get", options["challenge"], changes)
        data = self._data(self.rp_id or options["rpId"], 0)
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": encoded(client_data),
            "authenticatorData": encoded(data),
            "signature": encoded(signature),
            "userHandle": self.handle or None,
        }
        return self._credential(response)

    def _client_data(self, kind: str, challenge: str, changes: dict[str, Any]) -> bytes:
        return json.dumps(
            {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False, **changes}
        ).encode()

    def _data(self, rp_id: str, more_flags: int) -> bytes:
        head = hashlib.sha256(rp_id.encode()).digest() + bytes([self.flags | more_flags])
        return head + self.count.to_bytes(4, "big")

    def _credential(self, response: dict[str, Any]) -> dict[str, Any]:
        name = encoded(self.credential_id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}}


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _certificate(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
    extension: x509.UnrecognizedExtension | None = None,
) -> x509.Certificate:
    def name(text: str) -> x509.Name:
        parts = {NameOID.COUNTRY_NAME: "DE", NameOID.ORGANIZATION_NAME: "Test", NameOID.COMMON_NAME: text}
        unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Authenticator Attestation")
        return x509.Name([*(x509.NameAttribute(oid, value) for oid, value in parts.items()), unit])

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
