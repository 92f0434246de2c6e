"""ElevationRequests: what is asked for, answered, shown and revoked, and that everybody has to do with their own alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from yarl import URL

from tests.builders import CREDENTIAL, UID, policy
from tests.fakes.elevation import API, OPERATOR, Clock, Person, Server, Start, created, refused, wanted
from tests.fakes.kube import FakeKube
from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.elevation_store import ElevationStore
from webhook.adapters.kube import AnswerError, own_path
from webhook.errors import ConflictError, StoreUnavailableError

AuditLines = Callable[[], list[dict[str, Any]]]
ELEVATIONS = own_path("elevations")
POLICIES = own_path("stepuppolicies")


async def enforce(kube: FakeKube, *policies: dict[str, Any]) -> None:
    """Put other policies in force, and wait until the server has seen them."""
    for path in [path for path in kube.objects if path.startswith(POLICIES)]:
        await kube.delete(path)
    for one in policies:
        await kube.create(POLICIES, one)
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def bob(server: Server) -> Person:
    return await server.person("bob", credential="X509SHA256=bob").enrol()


class TestAsking:
    async def test_poses_the_challenge_of_the_policies(self, alice: Person, kube: FakeKube) -> None:
        strict = policy("strict", require={"maxAge": "1m", "use": "Window", "reason": {"required": True, "pattern": "^OPS-[0-9]+"}})  # fmt: skip
        await enforce(kube, policy(), strict)
        answer = created(await alice.post("elevationrequests", {"details": [wanted()], "reason": "OPS-7"}))
        assert answer["kind"] == "ElevationRequest"
        assert answer["spec"] == {"details": [wanted()], "reason": "OPS-7"}
        assert answer["status"] == {
            "phase": "Pending",
            "challenge": {
                "acr_values": "aal2",
                "max_age": 60,
                "use": "Once",
                "scope": "Object",
                "reason": {"required": True, "patterns": ["^OPS-[0-9]+"]},
                "policies": ["production", "strict"],
                "factors": ["totp", "recovery-code"],
            },
        }

    async def test_is_recorded_with_who_and_whence(self, alice: Person, kube: FakeKube) -> None:
        name = created(await alice.request("POST", f"{API}/elevationrequests", b'{"spec":{"details":[{"operation":"exec","resource":"pods","namespace":"prod","objects":[{"name":"web-1"}]}]}}', **{"User-Agent": "kubectl/v1.37"}))["metadata"]["name"]  # fmt: skip
        stored = kube.objects[f"{ELEVATIONS}/{name}"]
        assert stored["metadata"]["labels"] == {USER_LABEL: user_hash("alice")}
        assert stored["spec"] == {
            "user": {"username": "alice", "groups": ["devs"]},
            "credentialID": CREDENTIAL,
            "sessionID": "",
            "details": [{"type": "urn:kube-stepup:operation", "operation": "exec", "resource": "pods", "namespace": "prod", "scope": "Object", "objects": ({"name": "web-1"},)}],
            "reason": "",
            "clientAddress": "203.0.113.7",
            "userAgent": "kubectl/v1.37",
        }  # fmt: skip
        assert "status" not in stored

    async def test_names_cannot_be_guessed(self, alice: Person) -> None:
        names = {await alice.ask() for _ in range(10)}
        assert len(names) == 10
        assert all(len(name) == 24 and set(name[4:]) <= set("abcdefghijklmnopqrstuvwxyz234567") for name in names)

    @pytest.mark.parametrize("namespace", ["staging", ""])
    async def test_what_no_policy_asks_for_is_not_stored(self, alice: Person, kube: FakeKube, namespace: str) -> None:
        answer = created(await alice.post("elevationrequests", {"details": [wanted(namespace=namespace)]}))
        assert answer["status"]["phase"] == "NotRequired"
        assert "name" not in answer["metadata"]
        assert not any(path.startswith(ELEVATIONS) for path in kube.objects)

    async def test_nor_what_a_policy_only_warns_about(self, alice: Person, kube: FakeKube) -> None:
        await enforce(kube, policy("soft", enforcement="Warn"), policy("softer", enforcement="Warn"))
        answer = created(await alice.post("elevationrequests", {"details": [wanted()]}))
        assert answer["status"] == {
            "phase": "NotRequired",
            "message": "policies soft, softer only warn; nothing is needed",
        }

    async def test_a_policy_that_audits_in_silence_is_not_named(self, alice: Person, kube: FakeKube) -> None:
        await enforce(kube, policy("silent", enforcement="Audit"))
        answer = created(await alice.post("elevationrequests", {"details": [wanted()]}))
        assert answer["status"] == {"phase": "NotRequired", "message": "no policy asks for a step-up"}

    async def test_a_namespace_that_nobody_has_seen_counts_as_guarded(self, alice: Person) -> None:
        assert await alice.ask(wanted(namespace="new"))

    async def test_whoever_has_no_authenticator_is_told_how_to_get_one(self, server: Server) -> None:
        answer = await server.person("carol").post("elevationrequests", {"details": [wanted()]})
        assert refused(answer) == (403, "not-enrolled", "")
        assert "kubectl elevate enroll" in answer.json()["message"]

    @pytest.mark.parametrize(
        ("require", "reason", "expected"),
        [
            ({"required": True}, "", "reason-missing"),
            ({"required": True}, "   ", "reason-missing"),
            ({"required": True, "pattern": "^OPS-[0-9]+$"}, "", "reason-missing"),
            ({"required": True, "pattern": "^OPS-[0-9]+$"}, "because", "reason-mismatch"),
            ({"pattern": "^OPS-[0-9]+$"}, "because", "reason-mismatch"),
        ],
    )
    async def test_a_reason_that_does_not_do(
        self, alice: Person, kube: FakeKube, require: dict[str, Any], reason: str, expected: str
    ) -> None:
        await enforce(kube, policy(require={"reason": require}))
        answer = await alice.post("elevationrequests", {"details": [wanted()], "reason": reason})
        assert refused(answer) == (422, expected, "spec.reason")
        assert "production" in answer.json()["message"]
        assert not any(path.startswith(ELEVATIONS) for path in kube.objects)

    @pytest.mark.parametrize(
        ("detail", "allowed"),
        [
            (wanted(), "Object"),
            (wanted(scope="Resource", objects=[]), "Resource"),
            (wanted(scope="Namespace", group="", resource="", objects=[]), "Namespace"),
        ],
    )
    async def test_a_scope_that_is_wider_than_the_policy_allows(
        self, alice: Person, kube: FakeKube, detail: dict[str, Any], allowed: str
    ) -> None:
        scopes = ["Object", "Resource", "Namespace"]
        for scope in scopes:
            await enforce(kube, policy(require={"scope": scope, "use": "Window"}))
            answer = await alice.post("elevationrequests", {"details": [wanted(), detail]})
            if scopes.index(allowed) <= scopes.index(scope):
                assert answer.status_code == 201
            else:
                assert refused(answer) == (422, "scope-too-wide", "spec.details[1].scope")

    async def test_too_much_for_an_assertion_is_refused_before_a_code_is_spent(
        self, alice: Person, kube: FakeKube
    ) -> None:
        objects = [{"name": f"{number:03}" + "a" * 250, "uid": UID} for number in range(50)]
        answer = await alice.post("elevationrequests", {"details": [wanted(objects=objects)]})
        assert refused(answer) == (422, "too-many-targets", "spec.details")
        assert not any(path.startswith(ELEVATIONS) for path in kube.objects)

    async def test_whatever_may_be_asked_for_can_be_granted(self, alice: Person) -> None:
        """The largest request that is let in makes an assertion that a carrier takes."""
        for letters in range(60, 260, 5):
            objects = [{"name": "a" * letters, "uid": UID} for _ in range(25)]
            answer = await alice.post("elevationrequests", {"details": [wanted(objects=objects)], "reason": "ü" * 99})
            if answer.status_code == 201:
                name = answer.json()["metadata"]["name"]
                continue
            assert refused(answer)[1] == "too-many-targets"
            assertion = (await alice.answer(name, alice.code()))["assertion"]
            assert 7000 < len(assertion) <= 8192
            return
        raise AssertionError("nothing was too large")

    async def test_people_of_many_groups_can_ask(self, server: Server, kube: FakeKube) -> None:
        groups = [f"group-{number}" for number in range(600)]
        admin = await server.person("admin", *groups, credential="X509SHA256=admin").enrol()
        name = await admin.ask()
        assert len(kube.objects[f"{ELEVATIONS}/{name}"]["spec"]["user"]["groups"]) == 512

    async def test_the_login_session_is_recorded_where_the_cluster_tells_it(self, start: Start, kube: FakeKube) -> None:
        server = await start(session_extra_key="example.org/Session")
        alice = await server.person(**{"X-Remote-Extra-Example.org%2fsession": "s-1"}).enrol()
        name = await alice.ask()
        assert kube.objects[f"{ELEVATIONS}/{name}"]["spec"]["sessionID"] == "s-1"


class TestPending:
    async def test_there_is_a_limit_for_each_person(self, start: Start, server: Server) -> None:
        few = await start(elevation={"maxPendingPerUser": 3})
        alice = await few.person().enrol()
        bob = await few.person("bob", credential="X509SHA256=bob").enrol()
        names = [await alice.ask() for _ in range(3)]
        answer = await alice.post("elevationrequests", {"details": [wanted()]})
        assert refused(answer) == (429, "too-many-pending", "")
        assert answer.headers["Retry-After"] == "300"
        await bob.ask()
        await alice.delete(f"elevationrequests/{names[0]}")
        await alice.ask()

    async def test_asking_and_revoking_in_a_loop_fills_nothing(
        self, start: Start, kube: FakeKube, clock: Clock
    ) -> None:
        few = await start(elevation={"maxPendingPerUser": 3})
        alice = await few.person().enrol()
        answers = []
        for _ in range(50):
            answers.append(await alice.post("elevationrequests", {"details": [wanted()]}))
            if answers[-1].status_code == 201:
                await alice.delete(f"elevationrequests/{answers[-1].json()['metadata']['name']}")
        assert [answer.status_code for answer in answers] == [201] * 9 + [429] * 41
        assert refused(answers[-1]) == (429, "too-many-pending", "")
        assert sum(path.startswith(ELEVATIONS) for path in kube.objects) == 9
        clock.advance(301)
        await alice.ask()

    async def test_those_that_were_granted_and_revoked_do_not_count(self, start: Start) -> None:
        few = await start(elevation={"maxPendingPerUser": 1})
        alice = await few.person().enrol()
        for _ in range(5):
            name, _ = await alice.step_up()
            await alice.delete(f"elevationrequests/{name}")

    async def test_also_when_all_come_at_once(self, alice: Person, kube: FakeKube) -> None:
        answers = await asyncio.gather(*(alice.post("elevationrequests", {"details": [wanted()]}) for _ in range(40)))
        assert sorted(answer.status_code for answer in answers) == [201] * 20 + [429] * 20
        assert sum(path.startswith(ELEVATIONS) for path in kube.objects) == 20

    async def test_the_answered_and_the_lapsed_do_not_count(self, start: Start, clock: Clock) -> None:
        few = await start(elevation={"maxPendingPerUser": 1})
        alice = await few.person().enrol()
        await alice.step_up()
        await alice.ask()
        clock.advance(301)
        await alice.ask()

    async def test_it_lapses(self, alice: Person, clock: Clock) -> None:
        name = await alice.ask()
        clock.advance(301)
        answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert refused(answer) == (409, "not-pending", "")
        assert "lapsed" in answer.json()["message"]
        assert (await alice.get(f"elevationrequests/{name}")).json()["status"]["phase"] == "Expired"

    async def test_it_does_not_lapse_early(self, alice: Person, clock: Clock) -> None:
        name = await alice.ask()
        clock.advance(300)
        assert (await alice.answer(name, alice.code()))["accepted"]


class TestAnswering:
    async def test_the_assertion_is_in_the_answer_and_nowhere_else(self, alice: Person, kube: FakeKube) -> None:
        name = await alice.ask()
        status = await alice.answer(name, alice.code())
        assert status == {
            "accepted": True,
            "elevation": name,
            "assertion": status["assertion"],
            "expiresAt": "2026-09-21T14:18:40Z",
        }
        shown = (await alice.get(f"elevationrequests/{name}")).text + (await alice.get("elevationrequests")).text
        assert status["assertion"] not in shown
        assert kube.objects[f"{ELEVATIONS}/{name}"]["status"] == {
            "phase": "Granted",
            "factor": "totp",
            "acr": "aal2",
            "amr": ["otp"],
            "authTime": "2026-09-21T14:13:40Z",
            "issuedAt": "2026-09-21T14:13:40Z",
            "expiresAt": "2026-09-21T14:18:40Z",
            "requirement": {
                "acr_values": "aal2",
                "max_age": 300,
                "use": "Once",
                "scope": "Object",
                "reason": {"required": False, "patterns": []},
                "policies": ["production"],
            },
            "assertion": status["assertion"],
            "uses": [],
        }

    async def test_a_wrong_code_is_an_answer_and_the_request_stays(self, alice: Person) -> None:
        name = await alice.ask()
        status = await alice.answer(name, alice.wrong_code())
        assert status == {"accepted": False, "code": "wrong-code", "message": "that code is wrong"}
        assert (await alice.answer(name, alice.code()))["accepted"]

    async def test_it_is_answered_once(self, alice: Person) -> None:
        name = await alice.ask()
        await alice.answer(name, alice.code())
        answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code(1)})
        assert refused(answer) == (409, "not-pending", "")

    @pytest.mark.parametrize("credential", ["X509SHA256=other", "JTI=1", ""])
    async def test_another_credential_of_the_same_person_is_refused_and_spends_nothing(
        self, alice: Person, credential: str
    ) -> None:
        name = await alice.ask()
        other = alice.with_credential(credential)
        answer = await other.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert refused(answer) == (403, "wrong-credential", "")
        assert (await alice.answer(name, alice.code()))["accepted"]

    async def test_somebody_without_a_credential_can_step_up_for_themselves(self, alice: Person) -> None:
        """Impersonation has none: the assertion then has no `cnf`, and a policy decides whether that will do."""
        other = alice.with_credential("")
        name = await other.ask()
        answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert refused(answer) == (403, "wrong-credential", "")
        assert (await other.answer(name, alice.code()))["accepted"]

    @pytest.mark.parametrize("factor", ["sms", "", "TOTP"])
    async def test_a_factor_that_is_not_known(self, alice: Person, factor: str) -> None:
        answer = await alice.post(
            f"elevationrequests/{await alice.ask()}/answer", {"code": alice.code(), "factor": factor}
        )
        assert refused(answer) == (422, "invalid", "spec.factor")

    async def test_what_no_policy_asks_for_any_more_spends_no_code(self, alice: Person, kube: FakeKube) -> None:
        name = await alice.ask()
        await enforce(kube)
        answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert refused(answer) == (409, "not-required", "")

    async def test_a_revocation_that_comes_in_between_wins(
        self, alice: Person, kube: FakeKube, monkeypatch: pytest.MonkeyPatch, audit_lines: AuditLines
    ) -> None:
        name = await alice.ask()
        check = alice.server.services.requests._attempts.check

        async def revoked_meanwhile(*arguments: Any) -> Any:
            await alice.delete(f"elevationrequests/{name}")
            return await check(*arguments)

        monkeypatch.setattr(alice.server.services.requests._attempts, "check", revoked_meanwhile)
        answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert refused(answer) == (409, "not-pending", "")
        assert "assertion" not in kube.objects[f"{ELEVATIONS}/{name}"]["status"]
        last = audit_lines()[-1]
        assert (last["event"], last["outcome"], last["code"]) == ("elevation-refused", "refused", "not-pending")

    async def test_a_grant_that_cannot_be_stored_gives_no_assertion(
        self, alice: Person, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def unavailable(*_: Any, **__: Any) -> dict[str, Any]:
            raise StoreUnavailableError("the Kubernetes API cannot be reached")

        name = await alice.ask()
        with monkeypatch.context() as context:
            context.setattr(kube, "merge_patch", unavailable)
            answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert refused(answer) == (503, "store-unavailable", "")
        assert (await alice.answer(name, alice.code()))["code"] == "code-already-used"


class TestOthersRequests:
    async def test_do_not_exist(self, alice: Person, bob: Person, kube: FakeKube) -> None:
        name = await alice.ask()
        before = dict(kube.objects)
        assert refused(await bob.get(f"elevationrequests/{name}")) == (404, "not-found", "")
        assert refused(await bob.delete(f"elevationrequests/{name}")) == (404, "not-found", "")
        answer = await bob.post(f"elevationrequests/{name}/answer", {"code": bob.code()})
        assert refused(answer) == (404, "not-found", "")
        assert (await bob.get("elevationrequests")).json()["items"] == []
        assert kube.objects == before

    async def test_are_the_same_answer_as_none_at_all(self, alice: Person, bob: Person) -> None:
        name, absent = await alice.ask(), "elv-aaaaaaaaaaaaaaaaaaaa"
        foreign = (await bob.get(f"elevationrequests/{name}")).text.replace(name, absent)
        assert foreign == (await bob.get(f"elevationrequests/{absent}")).text

    async def test_a_label_that_lies_shows_nothing(self, alice: Person, bob: Person, kube: FakeKube) -> None:
        name = await alice.ask()
        kube.objects[f"{ELEVATIONS}/{name}"]["metadata"]["labels"] = {USER_LABEL: user_hash("bob")}
        assert (await bob.get("elevationrequests")).json()["items"] == []

    @pytest.mark.parametrize(
        "name", ["%2e%2e", "%2e", "%2e%2e%2fstepuppolicies%2fproduction", "x%3fy", "x" * 3000, "ü"]
    )
    async def test_no_name_leads_elsewhere(self, alice: Person, kube: FakeKube, name: str) -> None:
        kube.calls.clear()
        assert (await alice.get(f"elevationrequests/{name}")).status_code == 404
        for _, path in kube.calls:
            asked = URL(f"https://kubernetes{path}")  # as aiohttp would send it
            assert (str(asked.parent.path), bool(asked.name), asked.query_string) == (ELEVATIONS, True, "")


class TestRevoking:
    async def test_ones_own(self, alice: Person, kube: FakeKube, clock: Clock) -> None:
        name, _ = await alice.step_up()
        clock.advance(5)
        answer = await alice.delete(f"elevationrequests/{name}")
        assert (answer.status_code, answer.json()["status"]) == (200, "Success")
        status = kube.objects[f"{ELEVATIONS}/{name}"]["status"]
        assert (status["phase"], status["revokedBy"], status["revokedAt"]) == ("Revoked", "alice", "2026-09-21T14:13:45Z")  # fmt: skip
        assert refused(await alice.get(f"elevationrequests/{name}")) == (404, "not-found", "")
        assert (await alice.get("elevationrequests")).json()["items"] == []

    async def test_it_is_there_for_admission_to_see(self, alice: Person, kube: FakeKube) -> None:
        """The record stays: what is deleted could not tell a replica that the assertion is no good."""
        name, assertion = await alice.step_up()
        await alice.delete(f"elevationrequests/{name}")
        assert kube.objects[f"{ELEVATIONS}/{name}"]["status"]["assertion"] == assertion

    async def test_twice_is_the_same_as_once(self, alice: Person, kube: FakeKube, audit_lines: AuditLines) -> None:
        name = await alice.ask()
        assert (await alice.delete(f"elevationrequests/{name}")).status_code == 200
        before = kube.objects[f"{ELEVATIONS}/{name}"]["status"]
        assert (await alice.delete(f"elevationrequests/{name}")).status_code == 200
        assert kube.objects[f"{ELEVATIONS}/{name}"]["status"] == before
        assert [line["event"] for line in audit_lines()].count("elevation-revoked") == 1

    async def test_what_is_revoked_cannot_be_answered(self, alice: Person) -> None:
        name = await alice.ask()
        await alice.delete(f"elevationrequests/{name}")
        answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert refused(answer) == (409, "not-pending", "")

    async def test_anybodys_by_an_operator(
        self, alice: Person, server: Server, kube: FakeKube, audit_lines: AuditLines
    ) -> None:
        name, _ = await alice.step_up()
        operator = server.person(OPERATOR, credential="X509SHA256=operator")
        answer = created(await operator.post(f"elevationrequests/{name}/revoke", {}))
        assert answer["status"]["phase"] == "Revoked"
        assert created(await operator.post(f"elevationrequests/{name}/revoke", {}))["status"]["phase"] == "Revoked"
        assert kube.objects[f"{ELEVATIONS}/{name}"]["status"]["revokedBy"] == OPERATOR
        (line,) = [line for line in audit_lines() if line["event"] == "elevation-revoked"]
        assert (line["user"], line["owner"], line["assertion_id"]) == (OPERATOR, "alice", name)

    async def test_what_is_not_there(self, server: Server) -> None:
        operator = server.person(OPERATOR, credential="X509SHA256=operator")
        answer = await operator.post("elevationrequests/elv-aaaaaaaaaaaaaaaaaaaa/revoke", {})
        assert refused(answer) == (404, "not-found", "")

    async def test_a_use_at_the_same_moment_does_not_undo_it(self, alice: Person, kube: FakeKube) -> None:
        name, _ = await alice.step_up()
        path = f"{ELEVATIONS}/{name}/status"
        version = kube.objects[f"{ELEVATIONS}/{name}"]["metadata"]["resourceVersion"]
        use = {"metadata": {"resourceVersion": version}, "status": {"phase": "Used", "uses": [{"key": "k"}]}}
        results = await asyncio.gather(
            alice.delete(f"elevationrequests/{name}"), kube.merge_patch(path, use), return_exceptions=True
        )
        assert isinstance(results[1], ConflictError) or kube.objects[f"{ELEVATIONS}/{name}"]["status"]["uses"]
        assert kube.objects[f"{ELEVATIONS}/{name}"]["status"]["phase"] == "Revoked"

    async def test_a_record_that_is_written_all_the_time_is_tried_a_few_times(
        self, alice: Person, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def conflict(*_: Any, **__: Any) -> dict[str, Any]:
            raise ConflictError("changed")

        name = await alice.ask()
        with monkeypatch.context() as context:
            context.setattr(kube, "merge_patch", conflict)
            answer = await alice.delete(f"elevationrequests/{name}")
        assert refused(answer) == (503, "store-unavailable", "")

    async def test_a_record_that_is_gone_meanwhile_needs_no_revocation(self, kube: FakeKube) -> None:
        store = ElevationStore(kube)  # type: ignore[arg-type]
        elevation = await store.create("alice", {"user": {"username": "alice"}})
        stale = {**elevation, "metadata": {**elevation["metadata"], "resourceVersion": "0"}}

        async def changed_then_deleted(*_: Any, **__: Any) -> dict[str, Any]:
            kube.objects.pop(f"{ELEVATIONS}/{elevation['metadata']['name']}")
            raise ConflictError("changed")

        kube.merge_patch = changed_then_deleted  # type: ignore[method-assign]
        assert await store.revoke(stale, {"phase": "Revoked"}) == stale


class TestShowing:
    async def test_the_newest_first(self, alice: Person, clock: Clock) -> None:
        names = []
        for _ in range(3):
            names.append(await alice.ask())
            clock.advance(1)
        shown = [one["metadata"]["name"] for one in (await alice.get("elevationrequests")).json()["items"]]
        assert shown == names[::-1]

    async def test_granted_then_used_then_expired(self, alice: Person, kube: FakeKube, clock: Clock) -> None:
        name, _ = await alice.step_up(reason="OPS-7")
        shown = (await alice.get(f"elevationrequests/{name}")).json()
        assert shown["spec"] == {"details": [wanted()], "reason": "OPS-7"}
        assert shown["status"] == {
            "phase": "Granted",
            "factor": "recovery-code",
            "acr": "aal2",
            "amr": ["otp"],
            "authTime": "2026-09-21T14:13:40Z",
            "expiresAt": "2026-09-21T14:18:40Z",
            "uses": 0,
            "usesLeft": 1,
        }
        used = {"status": {"phase": "Used", "uses": [{"key": "k", "digest": "d", "at": "2026-09-21T14:14:00Z"}]}}
        await kube.merge_patch(f"{ELEVATIONS}/{name}/status", used)
        status = (await alice.get(f"elevationrequests/{name}")).json()["status"]
        assert (status["phase"], status["uses"], status["usesLeft"]) == ("Used", 1, 0)
        clock.advance(300)
        assert (await alice.get(f"elevationrequests/{name}")).json()["status"]["phase"] == "Expired"

    async def test_by_name_in_a_list(self, alice: Person) -> None:
        names = [await alice.ask(), await alice.ask()]
        answer = await alice.get(f"elevationrequests?fieldSelector=metadata.name%3D{names[0]}")
        assert [one["metadata"]["name"] for one in answer.json()["items"]] == names[:1]

    async def test_as_a_table(self, alice: Person) -> None:
        name = await alice.ask()
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        for resource in ("elevationrequests", f"elevationrequests/{name}"):
            found = (await alice.get(resource, Accept=accept)).json()
            assert found["kind"] == "Table"
            assert [column["name"] for column in found["columnDefinitions"]] == ["Name", "Phase", "For", "Reason", "Left", "Age"]  # fmt: skip
            assert found["rows"][0]["cells"][:3] == [name, "Pending", "delete deployments/web -n prod"]


class TestAudit:
    async def test_each_event_says_who_and_what(self, alice: Person, audit_lines: AuditLines) -> None:
        name = await alice.ask(reason="OPS-7")
        await alice.answer(name, alice.wrong_code())
        await alice.answer(name, alice.code())
        await alice.delete(f"elevationrequests/{name}")
        lines = [line for line in audit_lines() if line["event"].startswith("elevation-")]
        assert [(line["event"], line["outcome"]) for line in lines] == [
            ("elevation-requested", "pending"),
            ("elevation-refused", "refused"),
            ("elevation-granted", "granted"),
            ("elevation-revoked", "revoked"),
        ]
        for line in lines:
            assert (line["user"], line["credential_id"], line["client_address"]) == ("alice", CREDENTIAL, "203.0.113.7")
            assert (line["assertion_id"], line["reason"]) == (name, "OPS-7")
            assert line["details"][0]["objects"] == ({"name": "web", "uid": UID},)
        assert (lines[1]["code"], lines[1]["factor"]) == ("wrong-code", "totp")
        assert (lines[2]["factor"], lines[2]["acr"], lines[2]["expires_at"]) == ("totp", "aal2", "2026-09-21T14:18:40Z")

    async def test_too_many_attempts_are_told_too(self, alice: Person, audit_lines: AuditLines) -> None:
        name = await alice.ask()
        for _ in range(4):
            await alice.answer(name, alice.wrong_code())
        assert audit_lines()[-1]["code"] == "too-many-attempts"


class TestNotReady:
    async def test_nothing_is_judged_before_the_policies_are_known(self, alice: Person, kube: FakeKube) -> None:
        server = Server(kube, alice.server.clock, alice.server.authority)
        await server.services.front_proxy.refresh()
        early = alice.at(server)
        name = await alice.ask()
        for path, spec in (("elevationrequests", {"details": [wanted()]}), (f"elevationrequests/{name}/answer", {"code": alice.code()})):  # fmt: skip
            assert refused(await early.post(path, spec)) == (503, "store-unavailable", "")
        assert (await alice.answer(name, alice.code()))["accepted"], "no code was spent"

    async def test_readiness_says_what_is_missing(self, alice: Person, kube: FakeKube) -> None:
        server = Server(kube, alice.server.clock, alice.server.authority)
        answer = await server.request("GET", "/readyz")
        assert answer.status_code == 503
        assert answer.json()["waitingFor"] == ["policies", "namespaces", "a signing key", "the request-header CA"]
        assert (await alice.server.request("GET", "/readyz")).json() == {"status": "ok", "waitingFor": []}
        assert (await server.request("GET", "/livez")).status_code == 200


async def test_what_the_api_server_says_is_for_the_log_alone(
    alice: Person, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbidden(*_: Any, **__: Any) -> dict[str, Any]:
        raise AnswerError(403, "Forbidden", "POST", "/apis/x", "system:serviceaccount:kube-stepup:elevation cannot")

    monkeypatch.setattr(kube, "create", forbidden)
    answer = await alice.post("elevationrequests", {"details": [wanted()]})
    assert refused(answer) == (503, "store-unavailable", "")
    assert "serviceaccount" not in answer.text
    assert answer.json()["details"]["retryAfterSeconds"] == 1
