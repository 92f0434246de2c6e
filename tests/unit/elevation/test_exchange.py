"""A pipeline's token is exchanged once, for what a policy takes it for, and for the credential that asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import jwt
import pytest

from tests.builders import AUDIENCE, ISSUER, policy
from tests.fakes.elevation import STARTED, Clock, Person, Server, Start, created, refused, wanted
from tests.fakes.issuer import ISSUER as PIPELINES
from tests.fakes.issuer import Issuer
from tests.fakes.kube import FakeKube, until
from webhook.adapters.kube import own_path
from webhook.adapters.verifier import Verifier
from webhook.core.assertion import AssertionClaims, Expected, check
from webhook.core.operation import Action, Target
from webhook.core.policy import Policy
from webhook.core.request import UserInfo
from webhook.core.workloads import CLUSTER
from webhook.elevation.exchange import BURST

ROBOT = "system:serviceaccount:ci:deployer"
CREDENTIAL = "JTI=robot"
MAIN = "claims.repository == 'acme/shop' && claims.ref == 'refs/heads/main'"
FROM_MAIN = {"issuer": PIPELINES, "conditions": [{"expression": MAIN}]}
FROM_PODS = {"serviceAccounts": ["ci/deployer"], "conditions": [{"expression": "claims.pod.name == 'runner-1'"}]}
EXTRA = "authentication.kubernetes.io/"


def rule(*workloads: dict[str, Any], **require: Any) -> dict[str, Any]:
    return {"name": "destroy", "operations": ["delete"], "require": require, "workloads": list(workloads)}


PRODUCTION = policy(rules=[rule(FROM_MAIN, FROM_PODS)])


@pytest.fixture
def issuer(clock: Clock) -> Issuer:
    return Issuer(clock=clock)


@pytest.fixture
async def replica(start: Start, kube: FakeKube, issuer: Issuer) -> Server:
    """A server that takes the issuer's tokens, with the policy `production` for pipelines from main."""
    await enforce(kube, PRODUCTION)
    return await begin(start, issuer)


async def begin(start: Start, issuer: Issuer, **elevation: Any) -> Server:
    return await start(elevation={"workloadIssuers": [{"issuer": PIPELINES}], **elevation}, fetch=issuer.fetch)


async def enforce(kube: FakeKube, *policies: dict[str, Any]) -> None:
    for one in policies:
        name = one["metadata"]["name"]
        if await kube.get(own_path("stepuppolicies", name)):
            await kube.delete(own_path("stepuppolicies", name))
        await kube.create(own_path("stepuppolicies"), one)


def robot(server: Server, credential: str = CREDENTIAL, **extra: str) -> Person:
    headers = {f"X-Remote-Extra-{quote(EXTRA + key, safe='')}": value for key, value in extra.items()}
    groups = ("system:serviceaccounts", "system:serviceaccounts:ci")
    return server.person(ROBOT, *groups, credential=credential, **{"X-Remote-Uid": "u1", **headers})


async def exchange(who: Person, token: str = "", **spec: Any) -> httpx.Response:
    sent = {"details": [wanted()], "reason": "OPS-7", **({"subjectToken": token} if token else {}), **spec}
    return await who.post("tokenexchanges", sent, "TokenExchange")


def said(answer: httpx.Response) -> dict[str, Any]:
    status: dict[str, Any] = created(answer)["status"]
    return status


def plain(assertion: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(assertion, options={"verify_signature": False})
    return found


async def test_exactly_these_claims(replica: Server, issuer: Issuer) -> None:
    status = said(await exchange(robot(replica), issuer.token()))
    claims = plain(status["assertion"])
    workload = claims.pop("workload")
    assert {key: claims[key] for key in ("iss", "aud", "sub", "acr", "amr", "cnf", "jti", "exp", "auth_time")} == {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": ROBOT,
        "acr": "workload",
        "amr": ["workload"],
        "cnf": {"credential_id": CREDENTIAL},
        "jti": status["elevation"],
        "exp": STARTED + 300,
        "auth_time": STARTED,
    }
    (met,) = workload.pop("met")
    assert met.startswith("production/destroy#")
    assert workload == {
        "issuer": PIPELINES,
        "subject": "repo:acme/shop:ref:refs/heads/main",
        "claims": {"repository": "acme/shop", "ref": "refs/heads/main", "run_id": "42"},
    }
    assert (status["phase"], status["policies"], status["notMet"]) == ("Granted", ["production"], [])
    assert status["issuedTokenType"] == "urn:ietf:params:oauth:token-type:jwt"


async def test_admissions_own_verifier_and_rules_take_it_and_for_nothing_else(
    replica: Server, issuer: Issuer, kube: FakeKube
) -> None:
    assertion = said(await exchange(robot(replica), issuer.token()))["assertion"]
    verifier = Verifier()
    for path, obj in kube.objects.items():
        if path.startswith(own_path("signingkeys")):
            verifier.put(obj)
    claims = verifier.verify(assertion)
    assert isinstance(claims, AssertionClaims)
    (uid,) = {one.uid for detail in claims.authorization_details for one in detail.objects}

    def problem(operation: str = "delete", credential: str = CREDENTIAL, rules: Any = PRODUCTION) -> str:
        user = UserInfo(username=ROBOT, extra={f"{EXTRA}credential-id": (credential,)})
        action = Action(operation, Target("apps", "deployments", "prod", "web", uid), "")
        requirement = Policy.parse(rules).rules[0].requirement
        found = check(claims, requirement, action, user, Expected(ISSUER, AUDIENCE), STARTED)
        return found.code if found else ""

    assert problem() == ""
    assert problem("scale") == "wrong-operation"
    assert problem(credential="JTI=other") == "wrong-credential"
    assert problem(rules=policy(rules=[rule()])) == "workload-not-accepted"
    assert problem(rules=policy("other", rules=[rule(FROM_MAIN, FROM_PODS)])) == "workload-not-accepted"


async def test_the_record_says_which_pipeline_it_was(replica: Server, issuer: Issuer, kube: FakeKube) -> None:
    status = said(await exchange(robot(replica), issuer.token()))
    record = kube.objects[own_path("elevations", status["elevation"])]
    assert record["spec"]["workload"]["issuer"] == PIPELINES
    assert record["spec"]["workload"]["claims"]["repository"] == "acme/shop"
    assert (record["status"]["phase"], record["status"]["factor"]) == ("Granted", "workload")
    assert record["status"]["assertion"] == status["assertion"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"repository": "acme/other"}, "workload-not-accepted"),
        ({"ref": "refs/heads/topic"}, "workload-not-accepted"),
        ({"ref": None}, "workload-not-accepted"),
        ({"aud": "other-cluster"}, "token-refused"),
        ({"exp": STARTED - 1}, "token-refused"),
        ({"exp": STARTED + 3}, "token-refused"),
        ({"iss": "https://evil.example.com"}, "untrusted-issuer"),
    ],
)
async def test_a_token_that_does_not_do_mints_nothing_and_is_not_used_up(
    replica: Server, issuer: Issuer, kube: FakeKube, changes: dict[str, Any], code: str
) -> None:
    status, found, _ = refused(await exchange(robot(replica), issuer.token(**changes)))
    assert (status, found) == (403, code)
    assert not [path for path in kube.objects if path.startswith(own_path("elevations"))]


async def test_a_token_is_exchanged_once_whichever_replica_is_asked(
    replica: Server, start: Start, issuer: Issuer
) -> None:
    other = await begin(start, issuer)
    token = issuer.token()
    said(await exchange(robot(replica), token))
    for server in (replica, other):
        assert refused(await exchange(robot(server), token))[1] == "token-replayed"
    assert refused(await exchange(robot(other, "JTI=thief"), token))[1] == "token-replayed"


async def test_of_two_exchanges_at_the_same_time_one_succeeds(replica: Server, start: Start, issuer: Issuer) -> None:
    other, token = await begin(start, issuer), issuer.token()
    answers = await asyncio.gather(*(exchange(robot(server), token) for server in (replica, other) * 3))
    assert sorted(one.status_code for one in answers) == [201, 403, 403, 403, 403, 403]


async def test_a_revoked_exchange_does_not_give_the_token_back(replica: Server, issuer: Issuer) -> None:
    who, token = robot(replica), issuer.token()
    name = said(await exchange(who, token))["elevation"]
    assert (await who.delete(f"elevationrequests/{name}")).status_code == 200
    assert refused(await exchange(who, token))[1] == "token-replayed"


async def test_it_lives_no_longer_than_the_token_the_setting_and_the_policy(
    start: Start, kube: FakeKube, issuer: Issuer
) -> None:
    await enforce(kube, policy(rules=[rule(FROM_MAIN, maxAge="1h")]))
    server = await begin(start, issuer, workloadMaxLifetimeSeconds=200)
    ends = [plain(said(await exchange(robot(server), issuer.token(exp=STARTED + seconds)))["assertion"])["exp"] for seconds in (100, 600)]  # fmt: skip
    assert ends == [STARTED + 100, STARTED + 200]


async def test_without_a_credential_id_nothing_can_be_bound(replica: Server, issuer: Issuer) -> None:
    assert refused(await exchange(robot(replica, ""), issuer.token()))[:2] == (403, "no-credential-id")


async def test_where_no_policy_asks_the_token_is_kept(replica: Server, issuer: Issuer) -> None:
    who, token = robot(replica), issuer.token()
    elsewhere = [wanted(namespace="staging")]
    assert said(await exchange(who, token, details=elsewhere))["phase"] == "NotRequired"
    assert said(await exchange(who, token))["phase"] == "Granted"


async def test_policies_that_take_no_pipeline_are_named_and_not_met(
    replica: Server, kube: FakeKube, issuer: Issuer
) -> None:
    await enforce(kube, policy("people", rules=[rule()]))
    await until(lambda: "people" in replica.services.state.index.policies)
    status = said(await exchange(robot(replica), issuer.token()))
    assert (status["policies"], status["notMet"]) == (["production"], ["people"])
    (met,) = plain(status["assertion"])["workload"]["met"]
    assert met.startswith("production/")


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ({"details": []}, "invalid", "spec.details"),
        ({"subjectTokenType": "urn:ietf:params:oauth:token-type:saml2"}, "invalid", "spec.subjectTokenType"),
        ({"subjectToken": "x" * 20000}, "invalid", "spec.subjectToken"),
        ({"details": [wanted(scope="Namespace", resource="", group="", objects=[])]}, "scope-too-wide", "spec.details[0].scope"),
        ({"surprise": 1}, "invalid", "spec"),
    ],
)  # fmt: skip
async def test_fields_are_checked(replica: Server, issuer: Issuer, spec: dict[str, Any], code: str, field: str) -> None:
    assert refused(await exchange(robot(replica), issuer.token(), **spec)) == (422, code, field)


async def test_a_reason_is_asked_of_pipelines_too(start: Start, kube: FakeKube, issuer: Issuer) -> None:
    await enforce(kube, policy(rules=[rule(FROM_MAIN, reason={"pattern": "OPS-[0-9]+"})]))
    server, token = await begin(start, issuer), issuer.token()
    assert refused(await exchange(robot(server), token, reason=""))[1] == "reason-missing"
    assert refused(await exchange(robot(server), token, reason="because"))[1] == "reason-mismatch"
    assert said(await exchange(robot(server), token))["phase"] == "Granted"


class TestServiceAccounts:
    POD: ClassVar = {"pod-name": "runner-1", "pod-uid": "p1", "node-name": "n1", "node-uid": "n"}

    async def test_one_in_a_pod_needs_no_token_besides(self, replica: Server) -> None:
        claims = plain(said(await exchange(robot(replica, **self.POD)))["assertion"])
        assert claims["workload"]["issuer"] == CLUSTER
        assert claims["workload"]["claims"] == {"pod": "runner-1", "podUID": "p1"}
        assert claims["cnf"] == {"credential_id": CREDENTIAL}

    @pytest.mark.parametrize("without", ["pod-name", "pod-uid"])
    async def test_a_token_of_no_pod_is_none(self, replica: Server, without: str) -> None:
        extra = {key: value for key, value in self.POD.items() if key != without}
        assert refused(await exchange(robot(replica, **extra))) == (422, "invalid", "spec.subjectToken")

    async def test_a_certificate_in_its_name_is_none(self, replica: Server) -> None:
        who = robot(replica, "X509SHA256=abc", **self.POD)
        assert refused(await exchange(who)) == (422, "invalid", "spec.subjectToken")

    async def test_a_person_with_the_extras_of_a_pod_is_none(self, replica: Server) -> None:
        headers = {f"X-Remote-Extra-{quote(EXTRA + key, safe='')}": value for key, value in self.POD.items()}
        who = replica.person("alice", credential="JTI=a", **{"X-Remote-Uid": "u", **headers})
        assert refused(await exchange(who)) == (422, "invalid", "spec.subjectToken")

    async def test_another_pod_is_not_taken(self, replica: Server) -> None:
        who = robot(replica, **{**self.POD, "pod-name": "runner-2"})
        assert refused(await exchange(who))[1] == "workload-not-accepted"


async def test_who_asks_too_often_is_slowed_before_anything_is_verified(
    replica: Server, issuer: Issuer, clock: Clock
) -> None:
    for _ in range(BURST):
        await exchange(robot(replica), "not-a-token")
    answer = await exchange(robot(replica), issuer.token())
    assert refused(answer)[:2] == (429, "too-many-exchanges")
    clock.advance(int(answer.headers["Retry-After"]))
    assert said(await exchange(robot(replica), issuer.token()))["phase"] == "Granted"


async def test_neither_token_is_ever_written_down(
    replica: Server, issuer: Issuer, audit_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    token = issuer.token()
    status = said(await exchange(robot(replica), token))
    await exchange(robot(replica), token)
    lines = [line for line in audit_lines() if line.get("user") == ROBOT]
    assert [line["event"] for line in lines] == ["elevation-granted", "exchange-refused"]
    assert lines[0]["workload"]["subject"] == "repo:acme/shop:ref:refs/heads/main"
    assert lines[1]["code"] == "token-replayed"
    assert token not in str(audit_lines())
    assert status["assertion"] not in str(audit_lines())


async def test_the_factor_of_pipelines_is_none_of_the_challenges(replica: Server) -> None:
    alice = await replica.person().enrol()
    name = await alice.ask()
    answer = await alice.post(f"elevationrequests/{name}/answer", {"factor": "workload", "code": "x"})
    assert refused(answer) == (422, "invalid", "spec.factor")


class TestApprovals:
    """A deployment to production that a person releases."""

    RULE: ClassVar = rule(FROM_MAIN, maxAge="10m", approvals={"count": 1, "groups": ["sre-leads"]})

    async def waiting(self, start: Start, kube: FakeKube, issuer: Issuer, **token: Any) -> tuple[Server, str]:
        await enforce(kube, policy(rules=[self.RULE]))
        server = await begin(start, issuer, approvals={"minFactorAgeSeconds": 0})
        status = said(await exchange(robot(server), issuer.token(**token)))
        assert status["phase"] == "AwaitingApproval"
        assert "assertion" not in status
        assert "sre-leads" in status["message"]
        return server, status["elevation"]

    async def approve(self, server: Server, name: str) -> dict[str, Any]:
        leader = await server.person("bob", "sre-leads", credential="X509SHA256=bob").enrol()
        shown = (await leader.get(f"approvalrequests/{name}")).json()
        spec = {"factor": "totp", "code": leader.code(), "seen": shown["status"]["seen"]}
        return said(await leader.post(f"elevationrequests/{name}/approve", spec))

    async def test_a_person_releases_what_a_pipeline_asked_for(
        self, start: Start, kube: FakeKube, issuer: Issuer, clock: Clock
    ) -> None:
        server, name = await self.waiting(start, kube, issuer, exp=STARTED + 60)
        clock.advance(120)  # the token has ended meanwhile; it was exchanged in time
        assert (await self.approve(server, name))["phase"] == "Granted"
        claims = plain(kube.objects[own_path("elevations", name)]["status"]["assertion"])
        assert (claims["acr"], claims["cnf"]) == ("workload", {"credential_id": CREDENTIAL})
        assert [one["by"] for one in claims["approvals"]] == ["bob"]
        assert (claims["auth_time"], claims["exp"]) == (STARTED, STARTED + 600)
        assert set(claims["workload"]) == {"issuer", "subject", "met", "claims"}

    async def test_the_approver_sees_which_pipeline_it_is(self, start: Start, kube: FakeKube, issuer: Issuer) -> None:
        server, name = await self.waiting(start, kube, issuer)
        leader = server.person("bob", "sre-leads", credential="X509SHA256=bob")
        shown = (await leader.get(f"approvalrequests/{name}")).json()["spec"]["requester"]["workload"]
        assert (shown["issuer"], shown["claims"]["repository"]) == (PIPELINES, "acme/shop")

    async def test_until_then_nothing_is_signed_and_the_token_is_used_up(
        self, start: Start, kube: FakeKube, issuer: Issuer
    ) -> None:
        token = issuer.token(jti="one")
        server, name = await self.waiting(start, kube, issuer, jti="one")
        assert "assertion" not in kube.objects[own_path("elevations", name)]["status"]
        assert refused(await exchange(robot(server), token))[1] == "token-replayed"
