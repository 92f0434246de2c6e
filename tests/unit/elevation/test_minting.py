"""What is minted, claim by claim, and that admission's own verifier and rules take it."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from tests.builders import AUDIENCE, CREDENTIAL, ISSUER, UID, detail, policy, user
from tests.fakes.elevation import STARTED, Clock, Person, Start, wanted
from tests.fakes.kube import FakeKube
from webhook.adapters.kube import own_path
from webhook.adapters.verifier import Verifier
from webhook.core.assertion import AssertionClaims, Expected, Problem, check
from webhook.core.operation import Action, Target
from webhook.core.request import UserInfo
from webhook.core.requirement import Requirement
from webhook.elevation.factors import Factor
from webhook.elevation.factors.recovery import RecoveryCode
from webhook.elevation.minting import Mint
from webhook.errors import RequestError

EXPECTED = Expected(ISSUER, AUDIENCE)
DELETION = Action("delete", Target("apps", "deployments", "prod", "web", UID), "")


def verifier(kube: FakeKube) -> Verifier:
    """Admission's, with the keys that are published."""
    found = Verifier()
    for path, obj in kube.objects.items():
        if path.startswith(own_path("signingkeys")):
            found.put(obj)
    return found


def verified(kube: FakeKube, assertion: str) -> AssertionClaims:
    claims = verifier(kube).verify(assertion)
    assert isinstance(claims, AssertionClaims), claims
    return claims


def plain(assertion: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(assertion, options={"verify_signature": False})
    return found


def requester(**changes: Any) -> UserInfo:
    info = {**user("alice", "devs"), **changes}
    return UserInfo(username=info["username"], extra={key: tuple(values) for key, values in info["extra"].items()})


async def test_exactly_these_claims(alice: Person) -> None:
    name, assertion = await alice.step_up(reason="OPS-7")
    assert plain(assertion) == {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": "alice",
        "iat": STARTED,
        "nbf": STARTED,
        "exp": STARTED + 300,
        "jti": name,
        "auth_time": STARTED,
        "acr": "aal2",
        "amr": ["otp"],
        "authorization_details": [detail()],
        "cnf": {"credential_id": CREDENTIAL},
        "reason": "OPS-7",
    }


async def test_exactly_these_headers(alice: Person, kube: FakeKube) -> None:
    _, assertion = await alice.step_up()
    (published,) = [path.rsplit("/", 1)[1] for path in kube.objects if path.startswith(own_path("signingkeys"))]
    assert jwt.get_unverified_header(assertion) == {"alg": "ES256", "kid": published, "typ": "stepup+jwt"}


async def test_what_there_is_not_is_left_out(alice: Person) -> None:
    nobody = alice.with_credential("")
    _, assertion = await nobody.step_up(wanted(objects=[{"name": "web"}]))
    claims = plain(assertion)
    assert "cnf" not in claims
    assert "reason" not in claims
    assert claims["authorization_details"] == [detail(objects=[{"name": "web"}])]


async def test_eddsa_where_it_is_wanted(start: Start, kube: FakeKube) -> None:
    server = await start(elevation={"signingAlgorithm": "EdDSA"})
    _, assertion = await (await server.person().enrol()).step_up()
    assert jwt.get_unverified_header(assertion)["alg"] == "EdDSA"
    assert verified(kube, assertion).sub == "alice"


async def test_the_session_is_bound_where_the_cluster_tells_it(start: Start, kube: FakeKube) -> None:
    server = await start(session_extra_key="example.org/session")
    alice = await server.person(**{"X-Remote-Extra-example.org%2fsession": "s-1"}).enrol()
    _, assertion = await alice.step_up()
    assert plain(assertion)["cnf"] == {"credential_id": CREDENTIAL, "session_id": "s-1"}


@pytest.mark.parametrize(
    ("ages", "longest", "lifetime"),
    [
        (["5m"], 3600, 300),
        (["5m", "1m"], 3600, 300),
        (["2m", "10m", "1m"], 3600, 600),
        (["24h"], 3600, 3600),
        (["24h", "1m"], 60, 60),
        (["10s"], 3600, 10),
    ],
)
async def test_it_lives_as_long_as_the_most_patient_policy_says_but_not_longer_than_the_setting(
    start: Start, kube: FakeKube, ages: list[str], longest: int, lifetime: int
) -> None:
    await kube.delete(own_path("stepuppolicies", "production"))
    for number, age in enumerate(ages):
        await kube.create(own_path("stepuppolicies"), policy(f"policy-{number}", require={"maxAge": age}))
    server = await start(assertion_max_lifetime_seconds=longest)
    _, assertion = await (await server.person().enrol()).step_up()
    claims = plain(assertion)
    assert claims["exp"] - claims["auth_time"] == lifetime


class TestAdmissionTakesIt:
    async def test_for_what_it_is(self, alice: Person, kube: FakeKube, clock: Clock) -> None:
        _, assertion = await alice.step_up(reason="OPS-7")
        claims = verified(kube, assertion)
        assert check(claims, Requirement("production", "everything"), DELETION, requester(), EXPECTED, clock()) is None

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"seconds": 300}, "expired"),
            ({"seconds": 301}, "authentication-too-old"),
            ({"action": Action("scale", DELETION.target, "")}, "wrong-operation"),
            ({"action": Action("delete", Target("apps", "deployments", "prod", "api", UID), "")}, "wrong-target"),
            ({"action": Action("delete", Target("apps", "deployments", "dev", "web", UID), "")}, "wrong-target"),
            ({"action": Action("delete", Target("apps", "deployments", "prod", "web", "other"), "")}, "wrong-uid"),
            ({"user": requester(username="bob")}, "wrong-subject"),
            ({"user": requester(extra={})}, "wrong-credential"),
            ({"requirement": Requirement("p", "r", assurance="aal3")}, "assurance-too-low"),
            ({"requirement": Requirement("p", "r", bind="Session")}, "wrong-session"),
            ({"expected": Expected(ISSUER, "another-cluster")}, "wrong-audience"),
        ],
    )
    async def test_for_nothing_else(
        self, alice: Person, kube: FakeKube, clock: Clock, changes: dict[str, Any], expected: str
    ) -> None:
        _, assertion = await alice.step_up()
        problem = check(
            verified(kube, assertion),
            changes.get("requirement", Requirement("production", "everything")),
            changes.get("action", DELETION),
            changes.get("user", requester()),
            changes.get("expected", EXPECTED),
            clock() + changes.get("seconds", 0),
        )
        assert problem is not None
        assert problem.code == expected

    async def test_not_once_it_was_changed(self, alice: Person, kube: FakeKube) -> None:
        _, assertion = await alice.step_up()
        header, _, signature = assertion.split(".")
        forged = {**plain(assertion), "sub": "mallory"}
        body = jwt.encode(forged, "k" * 32, algorithm="HS256").split(".")[1]
        answer = verifier(kube).verify(f"{header}.{body}.{signature}")
        assert isinstance(answer, Problem)
        assert answer.code == "bad-signature"

    @pytest.mark.parametrize(
        "asked",
        [
            {"scope": "Resource", "objects": []},
            {"scope": "Namespace", "group": "", "resource": "", "objects": []},
            {"objects": [{"name": "web", "digest": "0123456789abcdef"}]},
        ],
    )
    async def test_in_every_scope(
        self, alice: Person, kube: FakeKube, clock: Clock, asked: dict[str, Any], start: Start
    ) -> None:
        wide = policy("wide", require={"scope": "Namespace", "use": "Window"})
        await kube.delete(own_path("stepuppolicies", "production"))
        await kube.create(own_path("stepuppolicies"), wide)
        server = await start()
        _, assertion = await alice.at(server).step_up(wanted(**asked))
        action = Action("delete", DELETION.target, "0123456789abcdef" + "0" * 48)
        required = Requirement("wide", "everything", scope="Namespace", use="Window")
        assert check(verified(kube, assertion), required, action, requester(), EXPECTED, clock()) is None


async def test_what_no_carrier_takes_is_not_signed(alice: Person) -> None:
    """The last line of defence; requests that large are refused before."""
    mint: Mint = alice.server.services.requests._answering._granting._mint
    factor: Factor = RecoveryCode()
    spec = {"user": {"username": "alice"}, "details": [wanted(objects=[{"name": "a" * 9000}])]}
    with pytest.raises(RequestError) as error:
        mint.sign({"metadata": {"name": "elv-1"}, "spec": spec}, factor, [Requirement("p", "r")], STARTED)
    assert error.value.code == "too-many-targets"


async def test_it_does_not_show_itself(alice: Person) -> None:
    mint: Mint = alice.server.services.requests._answering._granting._mint
    elevation = {"metadata": {"name": "elv-1"}, "spec": {"user": {"username": "alice"}, "details": [wanted()]}}
    minted = mint.sign(elevation, RecoveryCode(), [Requirement("p", "r")], STARTED)
    assert minted.token not in repr(minted)
    assert minted.token.split(".")[2] not in json.dumps(repr(minted))
    assert repr(alice.server.services.keys.signer()) == f"Signer({jwt.get_unverified_header(minted.token)['kid']})"
