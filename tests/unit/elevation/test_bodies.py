"""Every field that cannot be meant is refused by its name, and nothing that a body holds crashes anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import UID
from tests.fakes.elevation import API, Person, refused, wanted
from tests.fakes.kube import FakeKube
from webhook.adapters.kube import own_path
from webhook.elevation.bodies import Answer, ConfirmationCode, WantedAuthenticator, WantedElevation, spec_of

DETAIL = "spec.details[0]"
OBJECT = f"{DETAIL}.objects[0]"


def named(**fields: Any) -> dict[str, Any]:
    return {"details": [wanted(objects=[{"name": "web", **fields}])]}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec"),
        ({"details": None}, "spec.details"),
        ({"details": {}}, "spec.details"),
        ({"details": []}, "spec.details"),
        ({"details": [wanted()] * 51}, "spec.details"),
        ({"details": [wanted(objects=[{"name": "web"}] * 26)] * 2}, "spec.details"),
        ({"details": ["delete"]}, DETAIL),
        ({"details": [wanted()], "factor": "totp"}, "spec"),
        ({"details": [wanted()], "reason": 7}, "spec.reason"),
        ({"details": [wanted()], "reason": "x" * 1025}, "spec.reason"),
        ({"details": [wanted()], "reason": "OPS-7\nuser=root"}, "spec.reason"),
        ({"details": [wanted()], "reason": "OPS-7\x1b[2J"}, "spec.reason"),
        ({"details": [wanted()], "reason": "OPS-7 \u202e"}, "spec.reason"),
        ({"details": [wanted(operation="")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="Delete")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="*")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation=1)]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="update:apps/*")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="update:apps/deployments\n")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="patch:apps/deployments")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="update:apps/statefulsets")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="update:core/deployments")]}, f"{DETAIL}.operation"),
        ({"details": [wanted(operation="update:apps/" + "a" * 400)]}, f"{DETAIL}.operation"),
        ({"details": [wanted(verb="delete")]}, DETAIL),
        ({"details": [wanted(scope="Cluster")]}, f"{DETAIL}.scope"),
        ({"details": [wanted(scope="object")]}, f"{DETAIL}.scope"),
        ({"details": [wanted(group="Apps")]}, f"{DETAIL}.group"),
        ({"details": [wanted(group="apps\n")]}, f"{DETAIL}.group"),
        ({"details": [wanted(group="a" * 254)]}, f"{DETAIL}.group"),
        ({"details": [wanted(resource="")]}, f"{DETAIL}.resource"),
        ({"details": [wanted(resource="*")]}, f"{DETAIL}.resource"),
        ({"details": [wanted(resource="deployments/scale")]}, f"{DETAIL}.resource"),
        ({"details": [wanted(resource="deployments\n")]}, f"{DETAIL}.resource"),
        ({"details": [wanted(resource="a" * 64)]}, f"{DETAIL}.resource"),
        ({"details": [wanted(namespace="Prod")]}, f"{DETAIL}.namespace"),
        ({"details": [wanted(namespace="prod\n")]}, f"{DETAIL}.namespace"),
        ({"details": [wanted(namespace="prod.eu")]}, f"{DETAIL}.namespace"),
        ({"details": [wanted(namespace="a" * 64)]}, f"{DETAIL}.namespace"),
        ({"details": [wanted(namespace=None)]}, f"{DETAIL}.namespace"),
        ({"details": [wanted(objects=[])]}, f"{DETAIL}.objects"),
        ({"details": [wanted(objects=[{"name": "web"}] * 51)]}, f"{DETAIL}.objects"),
        ({"details": [wanted(objects="web")]}, f"{DETAIL}.objects"),
        ({"details": [wanted(scope="Resource")]}, f"{DETAIL}.objects"),
        ({"details": [wanted(scope="Namespace", group="", resource="")]}, f"{DETAIL}.objects"),
        ({"details": [wanted(scope="Namespace", objects=[])]}, f"{DETAIL}.resource"),
        ({"details": [wanted(scope="Namespace", group="", objects=[])]}, f"{DETAIL}.resource"),
        ({"details": [wanted(scope="Namespace", group="", resource="", namespace="", objects=[])]}, f"{DETAIL}.namespace"),
        ({"details": [wanted(objects=[{"uid": UID}])]}, OBJECT),
        (named(name=""), f"{OBJECT}.name"),
        (named(name="a/b"), f"{OBJECT}.name"),
        (named(name="web\n"), f"{OBJECT}.name"),
        (named(name="web\x9b2J"), f"{OBJECT}.name"),
        (named(name="a" * 254), f"{OBJECT}.name"),
        (named(name=1), f"{OBJECT}.name"),
        (named(uid="a" * 65), f"{OBJECT}.uid"),
        (named(uid="a b"), f"{OBJECT}.uid"),
        (named(uid=f"{UID}\n"), f"{OBJECT}.uid"),
        (named(digest="0123456789abcde"), f"{OBJECT}.digest"),
        (named(digest="0123456789abcdeg"), f"{OBJECT}.digest"),
        (named(digest="0123456789ABCDEF"), f"{OBJECT}.digest"),
        (named(digest="0" * 65), f"{OBJECT}.digest"),
        (named(digest="0123456789abcdef\n"), f"{OBJECT}.digest"),
        (named(labels={}), OBJECT),
    ],
)  # fmt: skip
async def test_a_wrong_field_is_named(alice: Person, kube: FakeKube, spec: dict[str, Any], field: str) -> None:
    answer = await alice.post("elevationrequests", spec)
    assert refused(answer) == (422, "invalid", field)
    assert answer.json()["message"].startswith(f"{field}: ")
    assert not any(path.startswith(own_path("elevations")) for path in kube.objects)


async def test_the_second_detail_is_named_as_the_second(alice: Person) -> None:
    answer = await alice.post(
        "elevationrequests", {"details": [wanted(), wanted(objects=[{"name": "a"}, {"name": ""}])]}
    )
    assert refused(answer) == (422, "invalid", "spec.details[1].objects[1].name")


@pytest.mark.parametrize(
    "spec",
    [
        {"details": [wanted()] * 50},
        {"details": [wanted(objects=[{"name": f"web-{number}"} for number in range(50)])]},
        {"details": [wanted(group="", resource="nodes", namespace="", objects=[{"name": "system:node:ü"}])]},
        {"details": [wanted(namespace="a" * 63)]},
        {"details": [wanted(group="")], "reason": "x" * 1024},
        named(uid="a" * 64, digest="0" * 64),
        named(name="a" * 253),
    ],
)
async def test_the_largest_that_can_be_meant_is_let_in(alice: Person, spec: dict[str, Any]) -> None:
    answer = await alice.post("elevationrequests", spec)
    assert answer.status_code == 201 or refused(answer)[1] == "too-many-targets"


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "malformed", ""),
        (b"{", 400, "malformed", ""),
        (b"\xff", 400, "malformed", ""),
        (b'"\\ud800"', 400, "malformed", ""),
        (b'{"spec":1e999}', 400, "malformed", ""),
        (b"[" * 100_000, 400, "malformed", ""),
        (b'{"a":' * 100_000, 400, "malformed", ""),
        (b"[]", 422, "invalid", "kind"),
        (b"null", 422, "invalid", "kind"),
        (b'{"kind":"Pod","spec":{}}', 422, "invalid", "kind"),
        (b'{"kind":[],"spec":{}}', 422, "invalid", "kind"),
        (b'{"kind":{},"spec":{}}', 422, "invalid", "kind"),
        (b"{}", 422, "invalid", "spec"),
        (b'{"spec":"x"}', 422, "invalid", "spec"),
        (b'{"spec":[1]}', 422, "invalid", "spec"),
        (b'{"spec":{"details":[{"operation":"delete","scope":9007199254740993}]}}', 422, "invalid", f"{DETAIL}.scope"),
        (b" " * (1024 * 1024 + 1), 413, "too-large", ""),
    ],
)
async def test_what_is_no_object_of_ours(alice: Person, body: bytes, status: int, code: str, field: str) -> None:
    answer = await alice.request("POST", f"{API}/elevationrequests", body)
    assert refused(answer) == (status, code, field)


async def test_a_body_of_exactly_one_mebibyte_is_read(alice: Person) -> None:
    answer = await alice.request("POST", f"{API}/elevationrequests", b" " * (1024 * 1024))
    assert refused(answer) == (400, "malformed", "")


async def test_a_large_body_is_not_read_to_its_end(alice: Person) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * (256 * 1024)

    answer = await alice.request("POST", f"{API}/elevationrequests", endless())
    assert refused(answer) == (413, "too-large", "")
    assert sent < 10


@pytest.mark.parametrize(
    ("path", "kind", "spec", "field"),
    [
        ("elevationrequests/elv-a/answer", "ChallengeAnswer", {}, "spec"),
        ("elevationrequests/elv-a/answer", "ChallengeAnswer", {"code": 123456}, "spec.code"),
        ("elevationrequests/elv-a/answer", "ChallengeAnswer", {"code": "1", "factor": 1}, "spec.factor"),
        ("elevationrequests/elv-a/answer", "ChallengeAnswer", {"code": "1", "user": "bob"}, "spec"),
        ("elevationrequests/elv-a/answer", "ElevationRequest", {"code": "1"}, "kind"),
        ("authenticators", "Authenticator", {"type": 1}, "spec.type"),
        ("authenticators", "Authenticator", {"secret": "x"}, "spec"),
        ("authenticators/totp-a/confirm", "AuthenticatorConfirmation", {}, "spec"),
        ("authenticators/totp-a/confirm", "AuthenticatorConfirmation", {"code": None}, "spec.code"),
        ("authenticatorunlocks", "AuthenticatorUnlock", {}, "spec"),
        ("authenticatorresets", "AuthenticatorReset", {"username": []}, "spec.username"),
        ("authenticatorresets", "AuthenticatorUnlock", {"username": "bob"}, "kind"),
    ],
)
async def test_so_are_those_of_the_other_resources(
    alice: Person, path: str, kind: str, spec: dict[str, Any], field: str
) -> None:
    assert refused(await alice.post(path, spec, kind)) == (422, "invalid", field)


async def test_a_body_is_not_looked_at_for_somebody_who_is_not_known(alice: Person) -> None:
    for path in ("elevationrequests", "authenticators", "enrollmenttickets", "authenticatorresets"):
        answer = await alice.server.request("POST", f"{API}/{path}", content=json.dumps({"kind": "Pod"}))
        assert refused(answer) == (401, "unauthenticated", "")


@pytest.mark.parametrize(
    "body", [Answer("123456"), ConfirmationCode("123456"), WantedAuthenticator(name="123456", ticket="123456")]
)
def test_what_was_typed_does_not_show(body: object) -> None:
    assert "123456" not in repr(body)


@pytest.mark.parametrize(
    ("operation", "minted"),
    [
        ("update:apps/deployments", "update:apps/deployments"),
        ("update:apps/deployments/status", "update:apps/deployments/status"),
        ("delete:apps/deployments", "delete"),
    ],
)
def test_a_raw_operation_is_taken_and_to_delete_is_the_class(operation: str, minted: str) -> None:
    body = spec_of({"spec": {"details": [wanted(operation=operation)]}}, "ElevationRequest", WantedElevation)
    body.checked()
    assert [one.operation for one in body.authorization_details()] == [minted]
