"""The relying party: options for the browser, and verification of what comes back, by the ``webauthn`` package.

What the package leaves to its caller is done here: user verification is always required, no cross-origin frame may have asked
(https://www.w3.org/TR/webauthn-3/#sctn-validating-origin), and a key is hardware-bound only by a certificate that is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import structlog
import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, encode_cbor, parse_cbor
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import AttestationFormat, CredentialDeviceType
from webauthn.registration.verify_registration_response import VerifiedRegistration

from webhook.adapters.passkey import Passkey
from webhook.elevation.factors import WrongAnswerError
from webhook.elevation.webauthn.attestation import Attestation

ALGORITHMS: Final = (
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,  # TPMs of older Windows machines speak nothing else
)
TRANSPORTS: Final = frozenset({"usb", "nfc", "ble", "smart-card", "hybrid", "internal"})
MAX_CREDENTIAL_ID_BYTES: Final = 1023  # https://www.w3.org/TR/webauthn-3/#credential-id
BAD_FORM: Final = (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)

log = structlog.get_logger("webauthn")
JSON = dict[str, Any]


class Where(msgspec.Struct, frozen=True):
    """Where a ceremony takes place."""

    origin: str
    rp_id: str


class Shown(msgspec.Struct, frozen=True):
    """What a genuine assertion says of its authenticator."""

    sign_count: int
    backed_up: bool


class RelyingParty:
    """Makes options and verifies answers.

    Args:
        name: what browsers show beside the RP ID.
        timeout_seconds: how long a browser waits for the person; the ceremony itself ends on the server.
    """

    def __init__(self, name: str, attestation: Attestation, timeout_seconds: int) -> None:
        self._name = name
        self._attestation = attestation
        self._timeout_ms = timeout_seconds * 1000

    def creation_options(
        self, where: Where, challenge: bytes, username: str, handle: str, known: Iterable[Passkey]
    ) -> JSON:
        """``PublicKeyCredentialCreationOptionsJSON``; passkeys that are ``known`` are not bound twice."""
        return {
            "rp": {"id": where.rp_id, "name": self._name},
            "user": {"id": handle, "name": username, "displayName": username},
            "challenge": bytes_to_base64url(challenge),
            "pubKeyCredParams": [{"type": "public-key", "alg": int(one)} for one in ALGORITHMS],
            "timeout": self._timeout_ms,
            "excludeCredentials": [_descriptor(one) for one in known],
            "authenticatorSelection": {
                "residentKey": "preferred",
                "requireResidentKey": False,
                "userVerification": "required",
            },
            "attestation": self._attestation.conveyance,
        }

    def request_options(self, where: Where, challenge: bytes, passkeys: Iterable[Passkey]) -> JSON:
        """``PublicKeyCredentialRequestOptionsJSON`` for the passkeys of one person."""
        return {
            "challenge": bytes_to_base64url(challenge),
            "timeout": self._timeout_ms,
            "rpId": where.rp_id,
            "allowCredentials": [_descriptor(one) for one in passkeys],
            "userVerification": "required",
        }

    def register(self, unverified: JSON, where: Where, challenge: bytes) -> Passkey:
        """The passkey that a browser has made (https://www.w3.org/TR/webauthn-3/#sctn-registering-a-new-credential).

        Raises:
            WrongAnswerError: ``wrong-passkey`` or ``not-attested``.
        """
        try:
            _check_client_data(unverified)
            made, attested = self._registered(unverified, where, challenge)
            transports = _transports(unverified)
        except BAD_FORM as error:
            raise _wrong("registration", error) from error
        if len(made.credential_id) > MAX_CREDENTIAL_ID_BYTES:
            raise WrongAnswerError("this authenticator makes names that are too long", code="wrong-passkey")
        self._attestation.check(attested=attested)
        return Passkey(
            credential_id=bytes_to_base64url(made.credential_id),
            public_key=bytes_to_base64url(made.credential_public_key),
            sign_count=made.sign_count,
            aaguid=made.aaguid,
            transports=transports,
            rp_id=where.rp_id,
            backup_eligible=made.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
            backed_up=made.credential_backed_up,
            attested=attested,
            attestation_format=AttestationFormat(made.fmt).value,
        )

    def verify(self, passkey: Passkey, handle: str, unverified: JSON, where: Where, challenge: bytes) -> Shown:
        """Verify an assertion (https://www.w3.org/TR/webauthn-3/#sctn-verifying-assertion); the counter is the caller's.

        Raises:
            WrongAnswerError: ``wrong-passkey``.
        """
        try:
            _check_client_data(unverified)
            given = webauthn.verify_authentication_response(
                credential=unverified,
                expected_challenge=challenge,
                expected_rp_id=where.rp_id,
                expected_origin=where.origin,
                credential_public_key=base64url_to_bytes(passkey.public_key),
                credential_current_sign_count=0,  # compared under compare-and-swap, where it is stored
                require_user_verification=True,
            )
            named = unverified["response"].get("userHandle")
        except BAD_FORM as error:
            raise _wrong("assertion", error) from error
        is_multi_device = given.credential_device_type is CredentialDeviceType.MULTI_DEVICE
        if named and named != handle:
            raise WrongAnswerError("that passkey is somebody else's", code="wrong-passkey")
        if is_multi_device != passkey.backup_eligible:
            # https://www.w3.org/TR/webauthn-3/#sctn-credential-backup : eligibility never changes.
            raise WrongAnswerError(
                "that passkey says something else of itself than when it was made", code="wrong-passkey"
            )
        return Shown(given.new_sign_count, given.credential_backed_up)

    def _registered(self, unverified: JSON, where: Where, challenge: bytes) -> tuple[VerifiedRegistration, bool]:
        """Without looking at its attestation, and then with it where we may trust that."""

        def verified(credential: JSON, roots: Any) -> VerifiedRegistration:
            return webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=where.rp_id,
                expected_origin=where.origin,
                require_user_verification=True,
                supported_pub_key_algs=list(ALGORITHMS),
                pem_root_certs_bytes_by_fmt=roots,
            )

        made = verified(_without_attestation(unverified), None)
        if not self._attestation.may_vouch_for(made, base64url_to_bytes(unverified["response"]["attestationObject"])):
            return made, False
        try:
            return verified(unverified, self._attestation.roots), True
        except BAD_FORM as error:
            log.info("attestation-not-trusted", aaguid=made.aaguid, problem=str(error))
            return made, False


def _without_attestation(unverified: JSON) -> JSON:
    """As if there were none: what nobody here trusts is neither checked nor a reason to refuse."""
    response = unverified["response"]
    data = parse_cbor(base64url_to_bytes(response["attestationObject"]))["authData"]
    bare = encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})
    return {**unverified, "response": {**response, "attestationObject": bytes_to_base64url(bare)}}


def credential_id_of(unverified: JSON) -> str:
    """Which credential an answer claims to be of, in the one spelling that we keep; empty when it says none."""
    try:
        return bytes_to_base64url(base64url_to_bytes(unverified["id"]))
    except BAD_FORM:
        return ""


def _check_client_data(unverified: JSON) -> None:
    """The package leaves these members alone: no frame of another origin may have asked.

    Raises:
        ValueError: one had.
    """
    client_data = json.loads(base64url_to_bytes(unverified["response"]["clientDataJSON"]))
    if client_data.get("crossOrigin", False) is not False or "topOrigin" in client_data:
        raise ValueError("asked from a frame of another origin")


def _transports(unverified: JSON) -> tuple[str, ...]:
    told: Sequence[Any] = unverified["response"].get("transports") or []
    return tuple(sorted({one for one in told if isinstance(one, str)} & TRANSPORTS))


def _descriptor(passkey: Passkey) -> JSON:
    found: JSON = {"type": "public-key", "id": passkey.credential_id}
    return {**found, "transports": list(passkey.transports)} if passkey.transports else found


def _wrong(what: str, error: Exception) -> WrongAnswerError:
    log.warning("webauthn-refused", code="wrong-passkey", ceremony=what, problem=str(error))
    return WrongAnswerError("that passkey did not prove anything here; try again", code="wrong-passkey")
