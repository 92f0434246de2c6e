"""How the headers of the front proxy become a person."""

from __future__ import annotations

import pytest

from tests.builders import CREDENTIAL
from tests.fakes.elevation import API, Server, refused
from tests.fakes.front_proxy import Authority
from webhook.elevation.identity import Requester, has_identity_headers, requester_of
from webhook.errors import RequestError

ID = b"X-Remote-Extra-Authentication.kubernetes.io%2fcredential-id"


def read(*headers: tuple[bytes, bytes]) -> Requester:
    return requester_of([(b"X-Remote-User", b"alice"), *headers])


def test_everything_that_the_api_server_tells() -> None:
    found = read(
        (b"X-Remote-Uid", b"u-1"),
        (b"X-Remote-Group", b"devs"),
        (b"X-Remote-Group", b"system:authenticated"),
        (ID, CREDENTIAL.encode()),
        (b"X-Forwarded-For", b"203.0.113.7"),
        (b"User-Agent", b"kubectl/v1.37"),
    )
    assert (found.username, found.user.uid, found.user.groups) == ("alice", "u-1", ("devs", "system:authenticated"))
    assert (found.credential_id, found.client_address, found.user_agent) == (CREDENTIAL, "203.0.113.7", "kubectl/v1.37")


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b"X-Remote-Extra-Scopes", "scopes"),
        (b"x-remote-extra-authentication.kubernetes.io%2Fcredential-id", "authentication.kubernetes.io/credential-id"),
        (b"X-Remote-Extra-Example.org%2fa%20b%25", "example.org/a b%"),
        (b"X-Remote-Extra-%C3%BC", "ü"),
        (b"X-Remote-Extra-100%", "100%"),
        (b"X-Remote-Extra-%252f", "%2f"),
    ],
)
def test_names_of_extra_attributes_are_percent_decoded_once(header: bytes, key: str) -> None:
    assert read((header, b"value")).user.extra == {key: ("value",)}


def test_values_of_extra_attributes_stay_as_they_are() -> None:
    assert read((b"X-Remote-Extra-A", b"a%2fb")).user.extra == {"a": ("a%2fb",)}


@pytest.mark.parametrize("second", [ID, ID.lower(), ID.replace(b"%2f", b"%2F"), ID.replace(b"-id", b"%2did")])
def test_two_credential_ids_are_none_however_they_are_written(second: bytes) -> None:
    assert read((ID, b"X509SHA256=1"), (second, b"X509SHA256=2")).credential_id == ""


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"X-Remote-User", b"")],
        [(b"X-Remote-User", b"alice"), (b"X-Remote-User", b"bob")],
        [(b"X-Remote-User", b"alice"), (b"x-remote-user", b"alice")],
        [(b"X-Remote-User", b"\xff")],
        [(b"X-Remote-User", b"alice"), (b"X-Remote-Group", b"\xff")],
        [(b"X-Remote-User", b"alice"), (ID, b"\xff")],
        [(b"X-Remote-Group", b"system:masters")],
    ],
)
def test_nobody_in_particular_is_nobody(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(RequestError) as error:
        requester_of(headers)
    assert (error.value.code, error.value.status) == ("unauthenticated", 401)


async def test_two_users_are_refused_also_from_the_front_proxy(server: Server, authority: Authority) -> None:
    answer = await server.request(
        "GET",
        f"{API}/authenticators",
        [("X-Remote-User", "alice"), ("X-Remote-User", "bob")],
        certificate=authority.issue(),
    )
    assert refused(answer) == (401, "unauthenticated", "")


def test_names_are_utf_8_as_in_admission_reviews() -> None:
    assert requester_of([(b"X-Remote-User", "jörg".encode())]).username == "jörg"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (b"203.0.113.7", "203.0.113.7"),
        (b"198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (b"evil, 10.0.0.1,2001:db8::1", "2001:db8::1"),
        (b"a" * 100, "a" * 64),
        (b"\xff", "\ufffd"),
        (b"", ""),
    ],
)
def test_the_address_is_the_one_that_the_api_server_added_not_what_the_client_says(
    forwarded: bytes, address: str
) -> None:
    assert read((b"X-Forwarded-For", forwarded)).client_address == address


def test_headers_that_identify_nobody_need_not_be_text() -> None:
    found = read((b"User-Agent", b"\xff" + b"a" * 300), (b"X-Whatever", b"\xff"))
    assert found.user_agent == "\ufffd" + "a" * 255


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        (b"x-remote-user", True),
        (b"X-Remote-Extra-A", True),
        (b"X-REMOTE-", True),
        (b"x-remote", False),
        (b"authorization", False),
    ],
)
def test_what_claims_an_identity(header: bytes, claims: bool) -> None:
    assert has_identity_headers([(b"accept", b"*/*"), (header, b"alice")]) is claims
