"""Our certificate authority: its certificates, their renewal and its succession, by a clock of the test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from webhook.controller.authority import (
    BACKDATE,
    Succession,
    advance,
    due,
    issue,
    key_pem,
    pem_of,
    read_authority,
    reissue_reason,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(days=90)
OVERLAP = timedelta(days=1)
NAMES = ["kube-stepup-admission.kube-stepup.svc", "localhost", "127.0.0.1"]
SERVING_SECONDS = 30 * 24 * 3600


def advanced(succession: Succession | None, now: datetime) -> Succession:
    return advance(
        succession, now, lifetime_seconds=int(LIFE.total_seconds()), overlap_seconds=int(OVERLAP.total_seconds())
    )


@pytest.fixture(scope="module")
def first() -> Succession:
    return advanced(None, START)


def verify(certificate_pem: str, bundle: str, now: datetime) -> None:
    """Raises when a TLS client that trusts the bundle would not believe the certificate."""
    store = Store(x509.load_pem_x509_certificates(bundle.encode()))
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(NAMES[0]))
    verifier.verify(x509.load_pem_x509_certificate(certificate_pem.encode()), [])


def test_a_serving_certificate_is_believed_for_its_names_by_who_trusts_the_bundle(first: Succession) -> None:
    certificate, key = issue(first.current, NAMES, START, SERVING_SECONDS)
    verify(certificate, first.bundle(), START)

    read = x509.load_pem_x509_certificate(certificate.encode())
    alternatives = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternatives.get_values_for_type(x509.DNSName) == NAMES[:2]
    assert [str(one) for one in alternatives.get_values_for_type(x509.IPAddress)] == NAMES[2:]
    assert list(read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert read_authority(certificate, key).key.public_key() == read.public_key()


def test_a_long_service_name_does_not_exceed_the_common_name(first: Succession) -> None:
    certificate, _ = issue(first.current, ["a" * 63 + "." + "b" * 63], START, SERVING_SECONDS)
    assert len(x509.load_pem_x509_certificate(certificate.encode()).subject.rfc4514_string()) == len("CN=") + 64


def test_a_certificate_never_outlives_its_ca(first: Succession) -> None:
    certificate, _ = issue(first.current, NAMES, START, 10 * int(LIFE.total_seconds()))
    read = x509.load_pem_x509_certificate(certificate.encode())
    assert read.not_valid_after_utc == first.current.certificate.not_valid_after_utc


def test_clocks_that_are_slow_believe_it_too(first: Succession) -> None:
    certificate, _ = issue(first.current, NAMES, START, SERVING_SECONDS)
    verify(certificate, first.bundle(), START - BACKDATE)


@pytest.mark.parametrize(("share", "expected"), [(0.0, ""), (0.66, ""), (0.67, "two thirds of its life are over")])
def test_a_certificate_is_renewed_after_two_thirds_of_its_life(first: Succession, share: float, expected: str) -> None:
    certificate, key = issue(first.current, NAMES, START, SERVING_SECONDS)
    now = START + share * timedelta(seconds=SERVING_SECONDS)
    assert reissue_reason(certificate, key, first.current, NAMES, now) == expected


def test_a_certificate_is_replaced_when_it_cannot_serve(first: Succession) -> None:
    certificate, key = issue(first.current, NAMES, START, SERVING_SECONDS)
    _, other_key = issue(first.current, NAMES, START, SERVING_SECONDS)
    other_ca = advanced(None, START).current

    def reason(certificate_pem: str, private_key_pem: str, names: list[str] = NAMES) -> str:
        return reissue_reason(certificate_pem, private_key_pem, first.current, names, START)

    assert reason(certificate, key) == ""
    assert reason("", key) == reason("nonsense", key) == reason(certificate, "nonsense") == "unreadable"
    assert reason(certificate, other_key) == "unreadable"
    assert reason(certificate, key, [*NAMES, "new"]) == "names differ"
    assert reason(certificate, key, NAMES[:1]) == "names differ"
    assert reissue_reason(certificate, key, other_ca, NAMES, START) == "signed by another CA"
    assert reason(pem_of([first.current.certificate]), key_pem(first.current.key)) == "names differ"


def test_a_key_of_another_kind_or_one_that_is_encrypted_is_unreadable(first: Succession) -> None:
    certificate = pem_of([first.current.certificate])
    foreign = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    encrypted = first.current.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for key in (foreign, encrypted):
        with pytest.raises(ValueError, match="key"):
            read_authority(certificate, key.decode())


def test_nothing_changes_while_nothing_is_due(first: Succession) -> None:
    assert advanced(first, START + LIFE * 0.6) is first


def test_a_successor_is_trusted_first_signs_later_and_the_old_one_stays_trusted_until_it_expires(
    first: Succession,
) -> None:
    old, _ = issue(first.current, NAMES, START + LIFE * 0.5, SERVING_SECONDS)
    two_thirds = START + LIFE * 0.67
    second = advanced(first, two_thirds)
    assert second.current is first.current
    assert second.successor is not None
    verify(old, second.bundle(), two_thirds)

    assert advanced(second, two_thirds + OVERLAP * 0.9) is second
    third = advanced(second, two_thirds + OVERLAP)
    assert third.current is second.successor
    assert third.retired == (first.current.certificate,)
    new, _ = issue(third.current, NAMES, two_thirds + OVERLAP, SERVING_SECONDS)
    # Whoever still has the bundle of before believes the new certificate, and whoever has the new one the old.
    verify(new, second.bundle(), two_thirds + OVERLAP)
    verify(old, third.bundle(), two_thirds + OVERLAP)

    fourth = advanced(third, START + LIFE + BACKDATE)
    assert fourth.retired == ()
    assert fourth.current is third.current
    assert advanced(fourth, START + LIFE + BACKDATE) is fourth


def test_a_ca_that_expired_while_nobody_looked_is_replaced(first: Succession) -> None:
    later = START + 2 * LIFE
    renewed = advanced(first, later)
    assert renewed.current is not first.current
    assert renewed.retired == ()
    assert not due(renewed.current.certificate, later)


def test_keys_do_not_show(first: Succession) -> None:
    assert "PRIVATE" not in repr(first) + repr(first.current)
