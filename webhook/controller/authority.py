"""Our own certificate authority and the serving certificates that it signs. Pure: time and randomness come in as
arguments or from the operating system; nothing is stored here.

Life of a CA: at two thirds a successor is made and trusted beside it; after an overlap the successor signs; the old one
stays trusted, its private key thrown away, until it expires. Certificates follow RFC 5280.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATE: Final = timedelta(minutes=5)  # clocks of nodes differ; a certificate from the future is refused
RENEW_AFTER_LIFE: Final = 2 / 3  # what cert-manager and kubelets do


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """A CA that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def since(self) -> datetime:
        """When it was made."""
        return self.certificate.not_valid_before_utc + BACKDATE


@dataclass(frozen=True, slots=True, repr=False)
class Succession:
    """The CA that signs, the one that will, and those that did."""

    current: Authority
    successor: Authority | None = None
    retired: tuple[x509.Certificate, ...] = ()

    def bundle(self) -> str:
        """PEM of everything that is to be trusted, the signing one first."""
        trusted = [self.current.certificate, *([self.successor.certificate] if self.successor else []), *self.retired]
        return pem_of(trusted)


def pem_of(certificates: Sequence[x509.Certificate]) -> str:
    """One PEM text with all certificates."""
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode("ascii") for one in certificates)


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The private key as PKCS #8 PEM, unencrypted: a Secret holds it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode("ascii")


def read_authority(certificate_pem: str, private_key_pem: str) -> Authority:
    """Read a CA from PEM.

    Raises:
        ValueError: unreadable, or the key is not the certificate's.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(private_key_pem.encode(), None)
    except (TypeError, UnsupportedAlgorithm) as error:  # an encrypted key, a kind of key that nobody knows
        raise ValueError("not a key of ours") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("the key is not the certificate's")
    return Authority(certificate, key)


def advance(succession: Succession | None, now: datetime, *, lifetime_seconds: int, overlap_seconds: int) -> Succession:
    """The succession as it should be now; the same object when nothing is due.

    Args:
        overlap_seconds: how long a successor is trusted everywhere before it signs.
    """
    if succession is None or _expired(succession.current.certificate, now):
        retired = succession.retired if succession else ()
        return Succession(_make_authority(now, lifetime_seconds), retired=_unexpired(retired, now))
    retired = _unexpired(succession.retired, now)
    if retired != succession.retired:
        succession = replace(succession, retired=retired)
    if succession.successor is None:
        if due(succession.current.certificate, now):
            return replace(succession, successor=_make_authority(now, lifetime_seconds))
    elif now >= succession.successor.since + timedelta(seconds=overlap_seconds):
        return Succession(succession.successor, None, (succession.current.certificate, *succession.retired))
    return succession


def due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether two thirds of its life are over."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= start + (end - start) * RENEW_AFTER_LIFE


def issue(authority: Authority, names: Sequence[str], now: datetime, lifetime_seconds: int) -> tuple[str, str]:
    """Sign a new serving certificate: (certificate PEM, private key PEM).

    Args:
        names: DNS names and IP addresses; the first is the common name as well.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + timedelta(seconds=lifetime_seconds), authority.certificate.not_valid_after_utc)
    builder = (
        _builder(_common_name(names[0]), key.public_key(), now, end)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    certificate = builder.sign(authority.key, hashes.SHA256())
    return pem_of([certificate]), key_pem(key)


def reissue_reason(
    certificate_pem: str, private_key_pem: str, authority: Authority, names: Sequence[str], now: datetime
) -> str:
    """Why a stored serving certificate must be replaced; empty when it is good."""
    try:
        serving = read_authority(certificate_pem, private_key_pem)
    except ValueError:
        return "unreadable"
    certificate = serving.certificate
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return "signed by another CA"
    try:
        stored = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "names differ"
    if set(stored) != {_general_name(name) for name in names}:
        return "names differ"
    return "two thirds of its life are over" if due(certificate, now) else ""


def _make_authority(now: datetime, lifetime_seconds: int) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own for each CA, so that a verifier never tries an old key for a new certificate.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kube-stepup {now:%Y%m%dT%H%M%S.%fZ}")])
    builder = (
        _builder(subject, key.public_key(), now, now + timedelta(seconds=lifetime_seconds))
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # ub-common-name of RFC 5280


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _expired(certificate: x509.Certificate, now: datetime) -> bool:
    return now >= certificate.not_valid_after_utc


def _unexpired(certificates: tuple[x509.Certificate, ...], now: datetime) -> tuple[x509.Certificate, ...]:
    kept = tuple(one for one in certificates if not _expired(one, now))
    return certificates if len(kept) == len(certificates) else kept
