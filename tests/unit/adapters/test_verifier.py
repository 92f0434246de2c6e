"""Only genuine assertions of keys that this cluster published are read, and each refusal has its code (RFC 8725)."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.builders import Signer, claims
from webhook.adapters.verifier import Verifier, key_id
from webhook.core.assertion import AssertionClaims, Problem


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def verifier(signer: Signer) -> Verifier:
    found = Verifier()
    found.put(signer.signing_key())
    return found


def code(verifier: Verifier, token: str) -> str:
    answer = verifier.verify(token)
    assert isinstance(answer, Problem)
    return answer.code


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encoded(value: dict[str, Any]) -> str:
    return base64url(json.dumps(value).encode())


def test_a_genuine_assertion_is_read(verifier: Verifier, signer: Signer) -> None:
    answer = verifier.verify(signer.sign(claims()))
    assert isinstance(answer, AssertionClaims)
    assert answer.sub == "alice"


def test_eddsa_is_accepted_from_an_eddsa_key() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = key_id("EdDSA", key.public_key())
    verifier = Verifier()
    verifier.put({"metadata": {"name": name}, "spec": {"algorithm": "EdDSA", "publicKey": pem(key)}})
    token = jwt.encode(claims(), key, algorithm="EdDSA", headers={"kid": name, "typ": "stepup+jwt"})
    assert isinstance(verifier.verify(token), AssertionClaims)


def test_a_key_of_somebody_else_is_unknown(verifier: Verifier) -> None:
    assert code(verifier, Signer().sign(claims())) == "unknown-key"


def test_a_signature_by_another_key_under_our_kid(verifier: Verifier, signer: Signer) -> None:
    forged = Signer().sign(claims(), kid=signer.kid)
    assert code(verifier, forged) == "bad-signature"


def test_changed_claims(verifier: Verifier, signer: Signer) -> None:
    header, _, signature = signer.sign(claims()).split(".")
    assert code(verifier, f"{header}.{encoded(claims(sub='bob'))}.{signature}") == "bad-signature"


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "", "stepup"])
def test_another_type_of_token(verifier: Verifier, signer: Signer, typ: str) -> None:
    assert code(verifier, signer.sign(claims(), typ=typ)) == "wrong-type"


@pytest.mark.parametrize("typ", ["stepup+jwt", "STEPUP+JWT", "application/stepup+jwt"])
def test_forms_of_our_type(verifier: Verifier, signer: Signer, typ: str) -> None:
    assert isinstance(verifier.verify(signer.sign(claims(), typ=typ)), AssertionClaims)


class TestAlgorithm:
    def headers(self, signer: Signer) -> dict[str, str]:
        return {"kid": signer.kid, "typ": "stepup+jwt"}

    def test_none(self, verifier: Verifier, signer: Signer) -> None:
        token = jwt.encode(claims(), None, algorithm="none", headers=self.headers(signer))
        assert code(verifier, token) == "wrong-algorithm"

    def test_a_public_key_used_as_a_shared_secret(self, verifier: Verifier, signer: Signer) -> None:
        der = signer.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        header, body = encoded({"alg": "HS256", **self.headers(signer)}), encoded(claims())
        signature = hmac.digest(der, f"{header}.{body}".encode(), "sha256")
        assert code(verifier, f"{header}.{body}.{base64url(signature)}") == "wrong-algorithm"

    def test_rsa_is_not_accepted_at_all(self, verifier: Verifier, signer: Signer) -> None:
        key = rsa.generate_private_key(65537, 2048)
        token = jwt.encode(claims(), key, algorithm="RS256", headers=self.headers(signer))
        assert code(verifier, token) == "wrong-algorithm"

    def test_an_accepted_algorithm_that_is_not_the_keys_own(self, verifier: Verifier, signer: Signer) -> None:
        key = ed25519.Ed25519PrivateKey.generate()
        token = jwt.encode(claims(), key, algorithm="EdDSA", headers=self.headers(signer))
        assert code(verifier, token) == "wrong-algorithm"


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b.c", "....", "e30.e30.e30", "\x00", "é.é.é", "eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOjF9.e30.AA"],
)
def test_what_is_no_jwt_is_malformed_or_of_no_type(verifier: Verifier, token: str) -> None:
    assert code(verifier, token) in {"malformed", "wrong-type"}


@pytest.mark.parametrize(
    "missing",
    ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "auth_time", "acr", "amr", "authorization_details"],
)
def test_each_required_claim_must_be_there(verifier: Verifier, signer: Signer, missing: str) -> None:
    assert code(verifier, signer.sign(claims(**{missing: None}))) == "malformed"


@pytest.mark.parametrize(
    "wrong", [{"auth_time": "now"}, {"acr": 2}, {"amr": "otp"}, {"authorization_details": [1]}, {"cnf": "x"}]
)
def test_a_claim_of_another_form(verifier: Verifier, signer: Signer, wrong: dict[str, Any]) -> None:
    assert code(verifier, signer.sign(claims(**wrong))) == "malformed"


def test_a_critical_header_that_nobody_understands(verifier: Verifier, signer: Signer) -> None:
    assert code(verifier, signer.sign(claims(), crit=["exp"], exp=1)) == "malformed"


def test_an_oversized_token(verifier: Verifier, signer: Signer) -> None:
    assert code(verifier, signer.sign(claims(reason="x" * 9000))) == "too-large"


def test_a_key_that_is_taken_back_verifies_nothing_any_more(verifier: Verifier, signer: Signer) -> None:
    token = signer.sign(claims())
    assert isinstance(verifier.verify(token), AssertionClaims)
    verifier.remove(signer.kid)
    assert code(verifier, token) == "unknown-key"


def test_a_key_under_another_keys_name_is_refused(signer: Signer) -> None:
    verifier = Verifier()
    verifier.put({**Signer().signing_key(), "metadata": {"name": signer.kid}})
    assert verifier.key_ids == ()


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"algorithm": "ES256", "publicKey": "text"},
        {"algorithm": "ES256", "publicKey": pem(ec.generate_private_key(ec.SECP384R1()))},
        {"algorithm": "EdDSA", "publicKey": pem(ec.generate_private_key(ec.SECP256R1()))},
        {"algorithm": "HS256", "publicKey": pem(ec.generate_private_key(ec.SECP256R1()))},
    ],
)
def test_what_is_no_signing_key_is_refused(spec: dict[str, Any]) -> None:
    verifier = Verifier()
    verifier.put({"metadata": {"name": "es256-0"}, "spec": spec})
    assert verifier.key_ids == ()


def test_what_is_remembered_is_bounded(signer: Signer) -> None:
    verifier = Verifier(remembered=3)
    verifier.put(signer.signing_key())
    for number in range(10):
        verifier.verify(signer.sign(claims(jti=f"elv-{number}")))
    assert len(verifier._known) == 3
