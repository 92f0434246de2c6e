"""Attestation: whose certificate says that a key was made in hardware and cannot leave it.

Only root certificates that the operator trusts count. Without one every passkey is good, as what it is: `aal2`.
https://www.w3.org/TR/webauthn-3/#sctn-attestation
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from webauthn.helpers import parse_attestation_object
from webauthn.helpers.structs import AttestationFormat, CredentialDeviceType
from webauthn.registration.verify_registration_response import VerifiedRegistration

from webhook.elevation.factors import WrongAnswerError
from webhook.errors import ConfigurationError

# Formats whose certificate vouches for hardware; `apple` and `android-safetynet` vouch for other things.
HARDWARE_FORMATS: Final = (
    AttestationFormat.PACKED,
    AttestationFormat.TPM,
    AttestationFormat.ANDROID_KEY,
    AttestationFormat.FIDO_U2F,
)
AAGUID_EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.45724.1.1.4")  # id-fido-gen-ce-aaguid


class Attestation:
    """What is trusted.

    Args:
        roots: PEM certificates.
        required: whether passkeys without a trusted attestation are refused.

    Raises:
        ConfigurationError: one is not a certificate, or attestation is required and nothing is trusted.
    """

    def __init__(self, roots: tuple[str, ...] = (), *, required: bool = False) -> None:
        for position, pem in enumerate(roots):
            try:
                x509.load_pem_x509_certificate(pem.encode())
            except ValueError as error:
                field = f"elevation.webauthn.attestationRoots[{position}]"
                raise ConfigurationError("must be a PEM certificate", field=field) from error
        if required and not roots:
            raise ConfigurationError("needs attestationRoots", field="elevation.webauthn.requireAttestation")
        trusted = [pem.encode() for pem in roots]
        self.roots = dict.fromkeys(HARDWARE_FORMATS, trusted) if roots else {}
        self._required = required

    @property
    def conveyance(self) -> str:
        """What browsers are asked for; people are asked whether they agree, so only where somebody looks at it."""
        return "direct" if self.roots else "none"

    def may_vouch_for(self, made: VerifiedRegistration, attestation_object: bytes) -> bool:
        """Whether an attestation could show that a key is bound to hardware: it has a certificate, and cannot be copied."""
        if not self.roots or made.credential_device_type is CredentialDeviceType.MULTI_DEVICE:
            return False
        given = parse_attestation_object(attestation_object)
        certificates = given.att_stmt.x5c or []
        if given.fmt not in self.roots or not certificates:
            return False
        return _is_attestation_certificate(certificates[0], given.fmt, made.aaguid)

    def check(self, *, attested: bool) -> None:
        """Refuse what is not attested, where that is required.

        Raises:
            WrongAnswerError: ``not-attested``.
        """
        if self._required and not attested:
            text = "only security keys whose maker is trusted here can be enrolled, and this is none"
            raise WrongAnswerError(text, code="not-attested")


def _is_attestation_certificate(der: bytes, fmt: str, aaguid: str) -> bool:
    """https://www.w3.org/TR/webauthn-3/#sctn-packed-attestation-cert-requirements : no CA, and of this very model."""
    try:
        extensions = list(x509.load_der_x509_certificate(der).extensions)
    except ValueError:
        return False
    if any(isinstance(one.value, x509.BasicConstraints) and one.value.ca for one in extensions):
        return False
    if fmt != AttestationFormat.PACKED:
        return True
    named = [
        one.value.value
        for one in extensions
        if isinstance(one.value, x509.UnrecognizedExtension) and one.oid == AAGUID_EXTENSION
    ]
    # An OCTET STRING of 16 bytes: two bytes of tag and length come first.
    return all(value[2:].hex() == aaguid.replace("-", "") for value in named)
