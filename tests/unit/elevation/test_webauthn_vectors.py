"""The test vectors of W3C Web Authentication Level 3, section 16: those that apply pass, and the others are refused for what they are."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from webauthn.helpers import base64url_to_bytes, parse_attestation_object

from tests.fakes.authenticator import AT, BE, UV, encoded
from webhook.adapters.passkey import Passkey
from webhook.elevation.factors import WrongAnswerError
from webhook.elevation.webauthn.attestation import Attestation
from webhook.elevation.webauthn.relying_party import RelyingParty, Where

DOCUMENT = json.loads((Path(__file__).parents[2] / "vectors" / "webauthn-level-3.json").read_text(encoding="utf-8"))
WHERE = Where(DOCUMENT["origin"], DOCUMENT["rpId"])
ROOT = x509.load_der_x509_certificate(bytes.fromhex(DOCUMENT["attestationRoot"])).public_bytes(Encoding.PEM).decode()
FRAMED = {"none-es256-crossOrigin", "none-es256-topOrigin"}
NOT_OFFERED = {"packed-es384", "packed-es512", "packed-ed448"}  # algorithms that we ask no authenticator for
HARDWARE = {"packed-es256", "packed-rs256", "packed-eddsa"}
# The package wants a maker of TPMs that is known, a chain of certificates, an AAGUID of zeros, and Apple's own root.
BEYOND = {"tpm-es256", "android-key-es256", "fido-u2f-es256", "apple-es256"}
VECTORS = {one["name"]: one for one in DOCUMENT["vectors"]}


def party(*roots: str) -> RelyingParty:
    return RelyingParty("test", Attestation(roots), 300)


def registration(vector: dict[str, Any]) -> dict[str, Any]:
    given = vector["registration"]
    return _credential(vector, {key: _of_hex(given[key]) for key in ("clientDataJSON", "attestationObject")})


def assertion(vector: dict[str, Any]) -> dict[str, Any]:
    given = vector["authentication"]
    return _credential(
        vector, {key: _of_hex(given[key]) for key in ("clientDataJSON", "authenticatorData", "signature")}
    )


def flags(vector: dict[str, Any], ceremony: str) -> int:
    """Flags of the authenticator data: behind the RP ID's hash, which is where it can be found."""
    text = vector[ceremony]["attestationObject" if ceremony == "registration" else "authenticatorData"]
    data = bytes.fromhex(text)
    head = bytes.fromhex("bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b5")
    return data[data.index(head) + len(head)]


def challenge(vector: dict[str, Any], ceremony: str) -> bytes:
    return bytes.fromhex(vector[ceremony]["challenge"])


def public_key(vector: dict[str, Any]) -> bytes:
    """COSE key of a registration, whether the user was verified or not."""
    found = parse_attestation_object(bytes.fromhex(vector["registration"]["attestationObject"])).auth_data
    assert found.attested_credential_data is not None
    return found.attested_credential_data.credential_public_key


@pytest.mark.parametrize("name", sorted(set(VECTORS) - FRAMED - NOT_OFFERED))
class TestThoseThatApply:
    def test_a_registration_passes_if_the_user_was_verified(self, name: str) -> None:
        vector = VECTORS[name]
        given = (registration(vector), WHERE, challenge(vector, "registration"))
        if not flags(vector, "registration") & UV:
            with pytest.raises(WrongAnswerError):
                party().register(*given)
            return
        passkey = party().register(*given)
        assert base64url_to_bytes(passkey.credential_id).hex() == vector["credentialId"]
        assert passkey.backup_eligible == bool(flags(vector, "registration") & BE)
        assert not passkey.attested, "nobody is trusted"

    def test_an_assertion_passes_if_the_user_was_verified(self, name: str) -> None:
        vector = VECTORS[name]
        passkey = _passkey(vector)
        given = (passkey, "", assertion(vector), WHERE, challenge(vector, "authentication"))
        if not flags(vector, "authentication") & UV:
            with pytest.raises(WrongAnswerError):
                party().verify(*given)
            return
        assert party().verify(*given).sign_count == 0

    def test_a_changed_signature_never_does(self, name: str) -> None:
        vector = VECTORS[name]
        credential = assertion(vector)
        signature = bytearray(base64url_to_bytes(credential["response"]["signature"]))
        signature[-1] ^= 1
        credential["response"]["signature"] = encoded(bytes(signature))
        with pytest.raises(WrongAnswerError):
            party().verify(_passkey(vector), "", credential, WHERE, challenge(vector, "authentication"))


@pytest.mark.parametrize("name", sorted(FRAMED | NOT_OFFERED))
def test_what_came_from_a_frame_or_by_another_algorithm_is_refused(name: str) -> None:
    vector = VECTORS[name]
    with pytest.raises(WrongAnswerError):
        party().register(registration(vector), WHERE, challenge(vector, "registration"))


@pytest.mark.parametrize("name", sorted(HARDWARE))
def test_attestation_by_the_root_of_the_vectors_is_hardware_unless_it_can_be_copied(name: str) -> None:
    vector = VECTORS[name]
    bits = flags(vector, "registration")
    if not bits & UV:
        with pytest.raises(WrongAnswerError):
            party(ROOT).register(registration(vector), WHERE, challenge(vector, "registration"))
        return
    passkey = party(ROOT).register(registration(vector), WHERE, challenge(vector, "registration"))
    assert passkey.attested == (not bits & BE)


@pytest.mark.parametrize("name", sorted(BEYOND))
def test_attestation_that_cannot_be_checked_counts_for_nothing(name: str) -> None:
    vector = VECTORS[name]
    if flags(vector, "registration") & UV:
        passkey = party(ROOT).register(registration(vector), WHERE, challenge(vector, "registration"))
        assert not passkey.attested


def test_there_are_vectors_of_every_kind() -> None:
    """Or the tests above would show nothing."""
    kinds = {(bool(flags(one, "registration") & UV), bool(flags(one, "registration") & BE)) for one in VECTORS.values()}
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
    assert all(flags(one, "registration") & AT for one in VECTORS.values())
    assert len(VECTORS) == 15


def _passkey(vector: dict[str, Any]) -> Passkey:
    return Passkey(
        credential_id=_of_hex(vector["credentialId"]),
        public_key=encoded(public_key(vector)),
        sign_count=0,
        aaguid=vector["aaguid"],
        transports=(),
        rp_id=WHERE.rp_id,
        backup_eligible=bool(flags(vector, "registration") & BE),
        backed_up=False,
        attested=False,
        attestation_format="none",
    )


def _credential(vector: dict[str, Any], response: dict[str, str]) -> dict[str, Any]:
    name = _of_hex(vector["credentialId"])
    return {"id": name, "rawId": name, "type": "public-key", "response": response}


def _of_hex(text: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(text)).decode().rstrip("=")
