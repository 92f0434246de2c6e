"""Pipelines' tokens: each way in which one can be wrong is refused, and where its keys come from."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import der_to_raw_signature, raw_to_der_signature

from tests.fakes.elevation import STARTED, Clock
from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer
from webhook.adapters.identity_tokens import IdentityToken, IdentityTokens
from webhook.adapters.issuers import FRESH_SECONDS, RETRY_SECONDS, STALE_SECONDS
from webhook.errors import RequestError
from webhook.workload_settings import WorkloadIssuerSettings

OTHER_RSA = rsa.generate_private_key(65537, 2048)
SHORT_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - too short on purpose
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer(clock: Clock) -> Issuer:
    return Issuer(clock=clock)


def tokens(issuer: Issuer, clock: Clock, *, longest_seconds: int = 7200, **settings: Any) -> IdentityTokens:
    found = WorkloadIssuerSettings.model_validate({"issuer": ISSUER, **settings})
    return IdentityTokens([found], audience=AUDIENCE, longest_seconds=longest_seconds, clock=clock, fetch=issuer.fetch)


async def problem(verifier: IdentityTokens, token: str) -> tuple[str, str]:
    with pytest.raises(RequestError) as caught:
        await verifier.verify(token)
    return caught.value.code, caught.value.message


@pytest.mark.parametrize(("alg", "kid"), [("RS256", "rsa-1"), ("ES256", "ec-1")])
async def test_a_genuine_token_is_taken(issuer: Issuer, clock: Clock, alg: str, kid: str) -> None:
    found = await tokens(issuer, clock).verify(issuer.token(alg=alg, kid=kid))
    assert isinstance(found, IdentityToken)
    assert (found.issuer.issuer, found.subject) == (ISSUER, "repo:acme/shop:ref:refs/heads/main")
    assert found.claims["repository"] == "acme/shop"
    assert found.expires_at == STARTED + 600
    assert "acme/shop" not in repr(found).replace(found.subject, "")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"aud": "other-cluster"}, "its audience is not test-cluster alone"),
        ({"aud": ["test-cluster", "other"]}, "its audience is not test-cluster alone"),
        ({"aud": []}, "its audience is not test-cluster alone"),
        ({"aud": None}, "its audience is not test-cluster alone"),
        ({"exp": STARTED}, "it has expired"),
        ({"exp": STARTED - 1}, "it has expired"),
        ({"exp": None}, "it has no exp"),
        ({"exp": "soon"}, "it has no exp"),
        ({"exp": True}, "it has no exp"),
        ({"exp": STARTED + 8000}, "it lives longer than 7200 s"),
        ({"iat": None}, "it has no iat"),
        ({"iat": STARTED + 60}, "it is not valid yet"),
        ({"nbf": STARTED + 60}, "it is not valid yet"),
        ({"nbf": "now"}, "it has no nbf"),
        ({"iat": STARTED - 3700, "nbf": None}, "it is older than 3600 s"),
        ({"sub": None}, "it has no sub"),
        ({"sub": ""}, "it has no sub"),
        ({"sub": 7}, "it has no sub"),
        ({"sub": "s" * 1025}, "it has no sub"),
    ],
)
async def test_each_claim_that_is_missing_wrong_or_stale(
    issuer: Issuer, clock: Clock, changes: dict[str, Any], says: str
) -> None:
    code, message = await problem(tokens(issuer, clock), issuer.token(**changes))
    assert code == "token-refused"
    assert says in message


@pytest.mark.parametrize("name", ["https://evil.example.com", ISSUER + "/", "http://issuer.example.com"])
async def test_an_issuer_that_is_not_in_the_settings_is_not_even_asked(issuer: Issuer, clock: Clock, name: str) -> None:
    code, _ = await problem(tokens(issuer, clock), issuer.token(iss=name))
    assert code == "untrusted-issuer"
    assert issuer.asked == []


async def test_a_token_without_an_issuer_is_refused(issuer: Issuer, clock: Clock) -> None:
    assert (await problem(tokens(issuer, clock), issuer.token(iss=None)))[0] == "token-refused"


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def hand_made(header: dict[str, Any], claims: dict[str, Any], key: bytes = b"") -> str:
    signed = f"{part(header)}.{part(claims)}"
    signature = hmac.digest(key, signed.encode(), hashlib.sha256) if key else b""
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_unsigned_is_refused(issuer: Issuer, clock: Clock) -> None:
    for name in ("none", "None", ""):
        token = hand_made({"alg": name, "kid": "rsa-1", "typ": "JWT"}, issuer.claims())
        assert (await problem(tokens(issuer, clock), token))[0] == "token-refused"


async def test_a_public_key_is_no_secret_of_an_hmac(issuer: Issuer, clock: Clock) -> None:
    pem = issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    token = hand_made({"alg": "HS256", "kid": "rsa-1", "typ": "JWT"}, issuer.claims(), pem)
    code, message = await problem(tokens(issuer, clock), token)
    assert (code, "algorithm" in message) == ("token-refused", True)


@pytest.mark.parametrize(
    "sign",
    [
        lambda issuer: issuer.token(key=OTHER_RSA),
        lambda issuer: issuer.token(kid="ec-1"),  # signed by RSA, and names the other kind of key
        lambda issuer: issuer.token(alg="ES256", kid="rsa-1"),
        lambda issuer: issuer.token(kid="unknown"),
        lambda issuer: issuer.token(kid="rsa-1")[:-8] + "AAAAAAAA",
        lambda issuer: issuer.token(headers={"jwk": issuer.jwk("rsa-9"), "jku": "https://evil.example.com"}, kid="x"),
    ],
)
async def test_another_key_than_the_one_that_is_named_and_published(issuer: Issuer, clock: Clock, sign: Any) -> None:
    assert (await problem(tokens(issuer, clock), sign(issuer)))[0] == "token-refused"
    assert all(url.startswith(ISSUER) for url in issuer.asked)


async def test_an_algorithm_that_is_not_set_is_refused_though_its_key_is_there(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock, algorithms=["ES256"])
    assert (await problem(verifier, issuer.token()))[0] == "token-refused"
    assert issuer.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"typ": "stepup+jwt"},
        {"typ": "at+jwt"},
        {"typ": "logout+jwt"},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": True},
    ],
)
async def test_another_kind_of_jwt_is_no_id_token(issuer: Issuer, clock: Clock, headers: dict[str, Any]) -> None:
    token = hand_made({"alg": "RS256", "kid": "rsa-1", **headers}, issuer.claims())
    code, message = await problem(tokens(issuer, clock), token)
    assert code == "token-refused"
    assert "another kind" in message or "not a signed JWT" in message


@pytest.mark.parametrize(
    "token", ["", "a", "a.b", "a.b.c", "ä.ö.ü", "x" * 17000, part({"alg": "RS256"}) + "..", "....."]
)
async def test_what_is_no_token_is_refused(issuer: Issuer, clock: Clock, token: str) -> None:
    assert (await problem(tokens(issuer, clock), token))[0] == "token-refused"


@pytest.mark.parametrize(
    "published",
    [
        {"use": "enc"},
        {"alg": "RS512"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "P-256"},
        {"n": "AQAB"},
    ],
)
async def test_a_key_is_used_for_what_it_is_published_for(
    issuer: Issuer, clock: Clock, published: dict[str, Any]
) -> None:
    issuer.keys = {"keys": [issuer.jwk("rsa-1", **published)]}
    assert (await problem(tokens(issuer, clock), issuer.token()))[0] == "token-refused"


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_a_short_rsa_key_is_none(issuer: Issuer, clock: Clock) -> None:
    issuer.rsa = SHORT_RSA
    issuer.keys = {"keys": [issuer.jwk("rsa-1")]}
    assert (await problem(tokens(issuer, clock), issuer.token()))[0] == "token-refused"


async def test_without_a_key_id_there_must_be_no_choice(issuer: Issuer, clock: Clock) -> None:
    await tokens(issuer, clock).verify(issuer.token(kid=None))  # one RSA key, one EC key
    issuer.keys = {"keys": [issuer.jwk("rsa-1"), issuer.jwk("rsa-2")]}
    assert (await problem(tokens(issuer, clock), issuer.token(kid=None)))[0] == "token-refused"


async def test_audiences_of_the_settings_replace_the_clusters_own(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock, audiences=["urn:one", "urn:two"])
    await verifier.verify(issuer.token(aud=["urn:two"]))
    assert (await problem(verifier, issuer.token()))[0] == "token-refused"


async def test_two_writings_of_one_token_are_the_same_token(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock)
    token = issuer.token(alg="ES256", kid="ec-1", jti=None)
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = decode_dss_signature(raw_to_der_signature(raw, issuer.ec.curve))
    other = der_to_raw_signature(encode_dss_signature(r, P256_ORDER - s), issuer.ec.curve)
    rewritten = f"{signed}.{base64.urlsafe_b64encode(other).rstrip(b'=').decode()}"
    assert rewritten != token
    assert (await verifier.verify(rewritten)).once == (await verifier.verify(token)).once


async def test_tokens_are_told_apart_by_their_id_and_else_by_what_was_signed(issuer: Issuer, clock: Clock) -> None:
    verifier = tokens(issuer, clock)
    first = (await verifier.verify(issuer.token(jti="a"))).once
    assert (await verifier.verify(issuer.token(jti="a", run_id="43"))).once == first
    assert (await verifier.verify(issuer.token(jti="b"))).once != first
    nameless = (await verifier.verify(issuer.token(jti=None))).once
    assert (await verifier.verify(issuer.token(jti=None, run_id="43"))).once != nameless


class TestKeys:
    async def test_they_are_read_once_and_again_when_they_are_old(self, issuer: Issuer, clock: Clock) -> None:
        verifier = tokens(issuer, clock)
        for _ in range(3):
            await verifier.verify(issuer.token())
        assert len(issuer.asked) == 2
        clock.advance(FRESH_SECONDS)
        await verifier.verify(issuer.token())
        assert len(issuer.asked) == 4

    async def test_a_new_key_is_found_at_once_and_unknown_ones_do_not_flood_the_issuer(
        self, issuer: Issuer, clock: Clock
    ) -> None:
        verifier = tokens(issuer, clock)
        await verifier.verify(issuer.token())
        issuer.keys["keys"].append(issuer.jwk("rsa-2"))
        clock.advance(RETRY_SECONDS)
        await verifier.verify(issuer.token(kid="rsa-2"))
        asked = len(issuer.asked)
        for number in range(5):
            await problem(verifier, issuer.token(kid=f"rsa-{number + 10}"))
        assert len(issuer.asked) == asked

    async def test_a_key_that_was_withdrawn_is_believed_no_more(self, issuer: Issuer, clock: Clock) -> None:
        verifier = tokens(issuer, clock)
        await verifier.verify(issuer.token())
        issuer.keys = {"keys": [issuer.jwk("ec-1")]}
        clock.advance(FRESH_SECONDS)
        assert (await problem(verifier, issuer.token()))[0] == "token-refused"

    async def test_an_outage_is_outlasted_for_a_while(self, issuer: Issuer, clock: Clock) -> None:
        verifier = tokens(issuer, clock)
        await verifier.verify(issuer.token())
        issuer.down = True
        clock.advance(STALE_SECONDS)
        await verifier.verify(issuer.token())
        clock.advance(1)
        assert (await problem(verifier, issuer.token()))[0] == "issuer-unavailable"

    @pytest.mark.parametrize(
        "document",
        [
            {"issuer": "https://other.example.com", "jwks_uri": f"{ISSUER}/keys"},
            {"issuer": ISSUER, "jwks_uri": "http://issuer.example.com/keys"},
            {"issuer": ISSUER},
            [],
            None,
        ],
    )
    async def test_a_discovery_document_that_cannot_be_believed(
        self, issuer: Issuer, clock: Clock, document: Any
    ) -> None:
        issuer.document = document
        assert (await problem(tokens(issuer, clock), issuer.token()))[0] == "issuer-unavailable"
        assert f"{ISSUER}/keys" not in issuer.asked

    @pytest.mark.parametrize("keys", [[], {"keys": {}}, {"keys": [{}] * 65}, "keys"])
    async def test_a_key_set_that_is_none(self, issuer: Issuer, clock: Clock, keys: Any) -> None:
        issuer.keys = keys
        assert (await problem(tokens(issuer, clock), issuer.token()))[0] == "issuer-unavailable"

    async def test_the_url_of_the_settings_replaces_discovery(self, issuer: Issuer, clock: Clock) -> None:
        await tokens(issuer, clock, jwksUri=f"{ISSUER}/keys").verify(issuer.token())
        assert issuer.asked == [f"{ISSUER}/keys"]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://issuer.example.com"},
        {"issuer": ""},
        {"issuer": "https://issuer.example.com?x"},
        {"jwksUri": "http://issuer.example.com/keys"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"audiences": [""]},
        {"caBundle": "not PEM"},
        {"surprise": 1},
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        WorkloadIssuerSettings.model_validate({"issuer": ISSUER, **changes})
