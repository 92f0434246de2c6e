"""The admission service: from bytes to bytes, never open, with `Once` used up exactly once on any replica."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from tests.builders import (  # fmt: skip
    AUDIENCE,
    ISSUER,
    UID,
    Signer,
    claims,
    deletion,
    deployment,
    detail,
    pod,
    policy,
    review,
    service_account,
    user,
)
from tests.fakes.kube import FakeKube
from webhook.adapters.cluster_state import ClusterState, PolicySink
from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.kube import object_path, own_path
from webhook.admission.events import BrokenGlassEvents
from webhook.admission.live import Live
from webhook.admission.service import Admission
from webhook.core.assertion import Expected
from webhook.core.decision import NOBODY
from webhook.core.identity import BreakGlass, Controllers
from webhook.errors import StoreUnavailableError
from webhook.settings import ControllerIdentities

JTI = "elv-aaaaaaaaaaaaaaaaaaaa"


class Replica:
    """One admission replica over a (shared) API server."""

    def __init__(self, kube: FakeKube, signer: Signer, *policies: dict[str, Any], glass: BreakGlass = NOBODY) -> None:
        self.kube = kube
        self.state = ClusterState(kube)  # type: ignore[arg-type]
        self.state.verifier.put(signer.signing_key())
        self.state.index.put_namespace("prod", {"env": "prod"})
        sink = PolicySink(self.state.index)
        for one in policies or (policy(),):
            sink.put(one)
        live = Live(kube, self.state.elevations, read_seconds=1.0, write_seconds=2.0)  # type: ignore[arg-type]
        identities = ControllerIdentities()
        controllers = Controllers(identities.service_accounts, identities.certificate_users)
        self.events = BrokenGlassEvents(kube)  # type: ignore[arg-type]
        self.admission = Admission(
            self.state,
            live,
            controllers,
            Expected(ISSUER, AUDIENCE),
            glass=glass,
            on_broken_glass=self.events.tell,
        )

    async def ask(self, body: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.admission.review(body))["response"]
        return answer


def elevation(token: str, *, name: str = JTI, username: str = "alice", **status: Any) -> dict[str, Any]:
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 300))
    return {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "Elevation",
        "metadata": {"name": name, "labels": {USER_LABEL: user_hash(username)}},
        "spec": {"user": {"username": username}},
        "status": {"phase": "Granted", "assertion": token, "expiresAt": expires, "uses": [], **status},
    }


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def replica(kube: FakeKube, signer: Signer) -> Replica:
    return Replica(kube, signer)


async def store(kube: FakeKube, signer: Signer, record: dict[str, Any] | None = None, **changes: Any) -> None:
    token = signer.sign(claims(**changes))
    name = changes.get("jti", JTI)
    await kube.create(own_path("elevations"), elevation(token, name=name, **(record or {})))


def code(answer: dict[str, Any]) -> str:
    found = answer.get("auditAnnotations", {}).get("code", "")
    return str(found)


class TestPasses:
    async def test_what_no_policy_asks_for_without_a_word_and_without_a_read(self, replica: Replica) -> None:
        replica.state.index.put_namespace("staging", {})
        answer = await replica.ask(deletion(namespace="staging"))
        assert answer == {"uid": "5ba22ee6-e20b-4b29-b191-d4d34440de66", "allowed": True}
        assert replica.kube.calls == []

    async def test_a_record_that_nobody_had_seen_yet(self, replica: Replica, signer: Signer) -> None:
        await store(replica.kube, signer)
        answer = await replica.ask(deletion())
        assert answer["allowed"], answer
        assert answer["auditAnnotations"]["jti"] == JTI

    async def test_an_annotation_on_the_old_object(self, replica: Replica, signer: Signer) -> None:
        await store(replica.kube, signer)
        token = signer.sign(claims())
        old = deployment(annotations={"kube-stepup.io/assertion": token})
        assert (await replica.ask(deletion(old=old)))["allowed"]

    async def test_an_annotation_without_its_record_is_not_enough(self, replica: Replica, signer: Signer) -> None:
        old = deployment(annotations={"kube-stepup.io/assertion": signer.sign(claims())})
        answer = await replica.ask(deletion(old=old))
        assert (answer["allowed"], code(answer)) == (False, "unknown-elevation")

    async def test_a_warning_where_a_policy_only_warns(self, kube: FakeKube, signer: Signer) -> None:
        answer = await Replica(kube, signer, policy(enforcement="Warn")).ask(deletion())
        assert answer["allowed"]
        (warning,) = answer["warnings"]
        assert warning.startswith("kube-stepup: delete deployments.apps/web in prod would need a step-up")
        assert "\n" not in warning
        assert len(warning) <= 256

    async def test_silence_where_a_policy_only_audits(self, kube: FakeKube, signer: Signer) -> None:
        answer = await Replica(kube, signer, policy(enforcement="Audit")).ask(deletion())
        assert answer["allowed"]
        assert "warnings" not in answer
        assert answer["auditAnnotations"]["would-deny"] == "production"


class TestExec:
    OPTIONS: ClassVar[dict[str, Any]] = {"kind": "PodExecOptions", "command": ["ls"], "container": "c"}

    def body(self, command: list[str]) -> bytes:
        options = {**self.OPTIONS, "command": command}
        return review("CONNECT", kind="Pod", name="web-1", sub_resource="exec", new=options)

    @pytest.fixture(autouse=True)
    async def a_pod(self, kube: FakeKube) -> None:
        await kube.create(object_path("", "v1", "pods", namespace="prod"), {**pod(), "metadata": {**pod()["metadata"], "labels": {"tier": "one"}}})  # fmt: skip

    def details(self, kube: FakeKube) -> list[dict[str, Any]]:
        uid = kube.objects[object_path("", "v1", "pods", namespace="prod", name="web-1")]["metadata"]["uid"]
        return [detail("exec", group="", resource="pods", objects=[{"name": "web-1", "uid": uid}])]

    async def test_the_uid_of_the_pod_is_read(self, replica: Replica, signer: Signer) -> None:
        await store(replica.kube, signer, authorization_details=self.details(replica.kube))
        assert (await replica.ask(self.body(["ls"])))["allowed"]

    async def test_another_pod_of_that_name_is_refused(self, replica: Replica, signer: Signer) -> None:
        gone = [detail("exec", group="", resource="pods", objects=[{"name": "web-1", "uid": "gone"}])]
        await store(replica.kube, signer, authorization_details=gone)
        answer = await replica.ask(self.body(["ls"]))
        assert (answer["allowed"], code(answer)) == (False, "wrong-uid")

    async def test_proof_used_for_ls_does_not_let_sh_pass(self, replica: Replica, signer: Signer) -> None:
        await store(replica.kube, signer, authorization_details=self.details(replica.kube))
        assert (await replica.ask(self.body(["ls"])))["allowed"]
        assert (await replica.ask(self.body(["ls"])))["allowed"], "kubectl asks by WebSocket and by SPDY"
        answer = await replica.ask(self.body(["sh"]))
        assert (answer["allowed"], code(answer)) == (False, "used-up")

    @pytest.mark.parametrize(("tier", "allowed"), [("one", False), ("two", True)])
    async def test_labels_that_the_review_does_not_show_are_read(
        self, kube: FakeKube, signer: Signer, tier: str, allowed: bool
    ) -> None:
        labelled = policy(match={"namespaces": ["prod"], "objectSelector": {"matchLabels": {"tier": tier}}})
        assert (await Replica(kube, signer, labelled).ask(self.body(["ls"])))["allowed"] is allowed

    async def test_labels_that_cannot_be_read_count_as_matching(self, kube: FakeKube, signer: Signer) -> None:
        labelled = policy(match={"namespaces": ["prod"], "objectSelector": {"matchLabels": {"tier": "two"}}})
        body = review("CONNECT", kind="Pod", name="gone", sub_resource="exec", new=self.OPTIONS)
        assert not (await Replica(kube, signer, labelled).ask(body))["allowed"]


class TestOnce:
    def scale_to(self, number: int) -> bytes:
        return review("UPDATE", old=deployment(replicas=50), new=deployment(replicas=number))

    async def test_twenty_changes_at_once_on_two_replicas_and_one_passes(self, kube: FakeKube, signer: Signer) -> None:
        await store(kube, signer, authorization_details=[detail("scale")])
        replicas = [Replica(kube, signer), Replica(kube, signer)]
        answers = await asyncio.gather(*(replicas[n % 2].ask(self.scale_to(n)) for n in range(20)))
        assert sum(answer["allowed"] for answer in answers) == 1
        assert {code(answer) for answer in answers if not answer["allowed"]} == {"used-up"}

    async def test_the_same_change_twenty_times_is_one_use(self, kube: FakeKube, signer: Signer) -> None:
        await store(kube, signer, authorization_details=[detail("scale")])
        replicas = [Replica(kube, signer), Replica(kube, signer)]
        answers = await asyncio.gather(*(replicas[n % 2].ask(self.scale_to(1)) for n in range(20)))
        assert all(answer["allowed"] for answer in answers)
        assert len(kube.objects[own_path("elevations", JTI)]["status"]["uses"]) == 1

    async def test_a_dry_run_uses_nothing_up(self, replica: Replica, signer: Signer) -> None:
        await store(replica.kube, signer)
        assert (await replica.ask(deletion(dryRun=True)))["allowed"]
        assert replica.kube.objects[own_path("elevations", JTI)]["status"]["uses"] == []

    async def test_an_evictions_own_dry_run_uses_nothing_up(self, replica: Replica, signer: Signer) -> None:
        on_pod = [detail(group="", resource="pods", objects=[{"name": "web-1"}])]
        await store(replica.kube, signer, authorization_details=on_pod)
        eviction = {"metadata": {"name": "web-1"}, "deleteOptions": {"dryRun": ["All"]}}
        body = review("CREATE", kind="Pod", name="web-1", sub_resource="eviction", new=eviction)
        assert (await replica.ask(body))["allowed"]
        assert replica.kube.objects[own_path("elevations", JTI)]["status"]["uses"] == []

    async def test_a_use_that_cannot_be_recorded_lets_nothing_pass(
        self, replica: Replica, signer: Signer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def unavailable(*_: Any, **__: Any) -> dict[str, Any]:
            raise StoreUnavailableError("the Kubernetes API cannot be reached")

        await store(replica.kube, signer)
        monkeypatch.setattr(replica.kube, "merge_patch", unavailable)
        answer = await replica.ask(deletion())
        assert (answer["allowed"], answer["status"]["code"], code(answer)) == (False, 503, "store-unavailable")

    async def test_a_revocation_that_this_replica_has_not_seen_still_counts(
        self, replica: Replica, signer: Signer
    ) -> None:
        await store(replica.kube, signer)
        await replica.admission._live.refresh("alice")
        await replica.kube.merge_patch(own_path("elevations", JTI, "status"), {"status": {"phase": "Revoked"}})
        answer = await replica.ask(deletion())
        assert (answer["allowed"], code(answer)) == (False, "revoked")

    async def test_a_second_proof_is_taken_when_the_first_was_used_meanwhile(
        self, kube: FakeKube, signer: Signer
    ) -> None:
        await store(kube, signer, authorization_details=[detail("scale")])
        await store(kube, signer, authorization_details=[detail("scale")], jti="elv-bbbbbbbbbbbbbbbbbbbb")
        first, second = Replica(kube, signer), Replica(kube, signer)
        await second.admission._live.refresh("alice")
        assert (await first.ask(self.scale_to(1)))["allowed"]
        assert (await second.ask(self.scale_to(2)))["allowed"]
        assert not (await first.ask(self.scale_to(3)))["allowed"]


class TestRefusals:
    async def test_says_what_to_run_and_discloses_nothing_else(self, replica: Replica) -> None:
        answer = await replica.ask(deletion())
        assert answer["status"]["code"] == 403
        assert answer["status"]["message"].endswith("Run:\n  kubectl elevate delete deployments.apps/web -n prod")
        assert answer["status"]["details"]["kind"] == "deployments"

    async def test_a_flood_of_refusals_is_few_reads(self, replica: Replica) -> None:
        answers = await asyncio.gather(*(replica.ask(deletion()) for _ in range(200)))
        assert not any(answer["allowed"] for answer in answers)
        assert len(replica.kube.calls) <= 3

    async def test_the_elevations_that_cannot_be_read_are_not_taken_for_none(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def unavailable(*_: Any, **__: Any) -> dict[str, Any]:
            raise StoreUnavailableError("the Kubernetes API cannot be reached")

        monkeypatch.setattr(replica.kube, "get", unavailable)
        answer = await replica.ask(deletion())
        assert (answer["allowed"], answer["status"]["code"]) == (False, 503)

    async def test_impersonating_an_exempt_account_gains_nothing(self, kube: FakeKube, signer: Signer) -> None:
        exempt = policy(match={"namespaces": ["prod"], "exempt": {"serviceAccounts": ["argocd/controller"]}})
        replica = Replica(kube, signer, exempt)
        assert (await replica.ask(deletion(who=service_account("argocd", "controller"))))["allowed"]
        assert not (await replica.ask(deletion(who=service_account("argocd", "controller", credential=None))))[
            "allowed"
        ]

    async def test_a_namespace_that_nobody_has_seen_is_read(self, replica: Replica) -> None:
        for name, labels in (("new", {"env": "prod"}), ("other", {"env": "dev"})):
            namespace = {"metadata": {"name": name, "labels": labels}}
            await replica.kube.create(object_path("", "v1", "namespaces"), namespace)
        assert not (await replica.ask(deletion(namespace="new")))["allowed"]
        assert (await replica.ask(deletion(namespace="other")))["allowed"]


class TestNeverOpen:
    @pytest.mark.parametrize(
        ("body", "uid", "expected"),
        [
            (b"", "", "malformed-review"),
            (b"{", "", "malformed-review"),
            (b"[]", "", "malformed-review"),
            (b"\xff\xfe", "", "malformed-review"),
            (b'{"kind":"AdmissionReview"}', "", "unknown-review-version"),
            (b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}', "", "malformed-review"),
            (b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u1"}}', "u1", "malformed-review"),
            (b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","operation":1}}', "u1", "malformed-review"),
            (deletion().replace(b"admission.k8s.io/v1", b"admission.k8s.io/v9"), "5ba22ee6-e20b-4b29-b191-d4d34440de66", "unknown-review-version"),
            (deletion(old={"metadata": "text"}), "5ba22ee6-e20b-4b29-b191-d4d34440de66", "malformed-review"),
            (b"[" * 100_000, "", "malformed-review"),
            (b" " * (7 * 1024 * 1024 + 1), "", "too-large"),
        ],
    )  # fmt: skip
    async def test_what_cannot_be_read_is_denied_with_its_uid(
        self, replica: Replica, body: bytes, uid: str, expected: str
    ) -> None:
        answer = await replica.ask(body)
        assert (answer["allowed"], answer["uid"], code(answer)) == (False, uid, expected)
        assert answer["status"]["code"] == 400

    async def test_a_crash_in_the_decision_is_denied_and_tells_nothing(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def crash(*_: Any) -> None:
            raise RuntimeError("internal detail /etc/secret")

        monkeypatch.setattr(replica.state.index, "applicable", crash)
        answer = await replica.ask(deletion())
        assert (answer["allowed"], code(answer)) == (False, "internal-error")
        assert "secret" not in json.dumps(answer)


class TestOwnObjects:
    def apply(self, spec: dict[str, Any], operation: str = "CREATE", **fields: Any) -> bytes:
        body = json.loads(review(operation, name="production", namespace=None, new=policy(**spec), **fields))
        body["request"]["resource"] = {"group": "kube-stepup.io", "version": "v1alpha1", "resource": "stepuppolicies"}
        return json.dumps(body).encode()

    @pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
    async def test_a_policy_that_cannot_work_is_refused_when_it_is_applied(
        self, replica: Replica, operation: str
    ) -> None:
        answer = await replica.ask(self.apply({"rules": [{"name": "a", "operations": ["delet"]}]}, operation))
        assert answer["status"]["code"] == 422
        assert answer["status"]["details"]["causes"][0]["field"] == "spec.rules[0].operations[0]"

    async def test_a_policy_that_works_passes(self, replica: Replica) -> None:
        assert (await replica.ask(self.apply({})))["allowed"]

    async def test_its_status_is_not_looked_at(self, replica: Replica) -> None:
        assert (await replica.ask(self.apply({"rules": []}, "UPDATE", sub_resource="status")))["allowed"]


async def test_every_decision_is_one_audit_line_without_the_assertion(
    replica: Replica, signer: Signer, audit_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    token = signer.sign(claims())
    await replica.kube.create(own_path("elevations"), elevation(token))
    await replica.ask(deletion(who=user("bob")))
    await replica.ask(deletion())
    replica.state.index.put_namespace("staging", {})
    await replica.ask(deletion(namespace="staging"))
    refused, passed = audit_lines()
    assert (refused["event"], refused["outcome"], refused["user"], refused["code"]) == ("decision", "denied", "bob", "step-up-required")  # fmt: skip
    assert (passed["outcome"], passed["assertion_ids"], passed["reasons"], passed["factors"]) == ("allowed", [JTI], ["OPS-7"], ["otp"])  # fmt: skip
    assert passed["targets"][0]["uid"] == UID
    assert token not in json.dumps(passed)


class TestBrokenGlass:
    """People whom the API server itself lets pass: here they only have to be told of."""

    GLASS: ClassVar = BreakGlass(groups=("incident",))

    async def written(self, replica: Replica, kube: FakeKube) -> list[dict[str, Any]]:
        """The Events, once everything that waits is written."""
        work = asyncio.create_task(replica.events.run())
        await replica.events.drained()
        work.cancel()
        return [one for path, one in kube.objects.items() if path.startswith("/apis/events.k8s.io/")]

    async def test_pass_every_policy_with_a_warning_a_line_and_an_event(
        self, kube: FakeKube, signer: Signer, audit_lines: Callable[[], list[dict[str, Any]]]
    ) -> None:
        replica = Replica(kube, signer, glass=self.GLASS)
        answer = await replica.ask(deletion(who=user("erika", "incident")))
        assert answer["allowed"]
        assert answer["warnings"] == ["kube-stepup: you broke the glass of production; this is recorded"]
        assert answer["auditAnnotations"]["break-glass"] == "production"
        assert [(one["code"], one["user"]) for one in audit_lines()] == [("break-glass", "erika")]
        (event,) = await self.written(replica, kube)
        assert (event["type"], event["reason"], event["metadata"]["namespace"]) == ("Warning", "BreakGlass", "prod")
        assert event["regarding"]["name"] == "web"
        assert "erika broke the glass of production: delete deployments web" in event["note"]

    async def test_a_dry_run_leaves_no_event_and_other_people_none_at_all(self, kube: FakeKube, signer: Signer) -> None:
        replica = Replica(kube, signer, glass=self.GLASS)
        assert (await replica.ask(deletion(who=user("erika", "incident"), dryRun=True)))["allowed"]
        assert not (await replica.ask(deletion()))["allowed"]
        assert not (await replica.ask(deletion(who=user("erika", "incident", credential=None))))["allowed"]
        assert await self.written(replica, kube) == []

    async def test_silent_where_no_policy_asks(self, kube: FakeKube, signer: Signer) -> None:
        replica = Replica(kube, signer, glass=self.GLASS)
        replica.state.index.put_namespace("staging", {})
        assert "warnings" not in await replica.ask(deletion(namespace="staging", who=user("erika", "incident")))
        assert await self.written(replica, kube) == []

    async def test_pass_while_we_are_broken_too_and_loudly(
        self, kube: FakeKube, signer: Signer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replica = Replica(kube, signer, glass=self.GLASS)
        monkeypatch.setattr(replica.state.index, "applicable", None)
        answer = await replica.ask(deletion(who=user("erika", "incident")))
        assert answer["allowed"]
        assert answer["auditAnnotations"]["code"] == "break-glass"
        assert len(await self.written(replica, kube)) == 1
        assert not (await replica.ask(deletion()))["allowed"]

    async def test_an_event_that_cannot_be_written_keeps_nobody_waiting(
        self, kube: FakeKube, signer: Signer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replica = Replica(kube, signer, glass=self.GLASS)

        async def refused(*_: object, **__: object) -> None:
            raise StoreUnavailableError("no")

        monkeypatch.setattr(kube, "create", refused)
        for _ in range(300):
            assert (await replica.ask(deletion(who=user("erika", "incident"))))["allowed"]
        assert await self.written(replica, kube) == []


def written(operation: str = "CREATE", spec: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """The review of a write of a StepUpPolicy."""
    body = json.loads(review(operation, name="p", namespace=None, **fields))
    kinds = {"kind": "StepUpPolicy", "version": "v1alpha1", "group": "kube-stepup.io"}
    body["request"]["kind"] = kinds
    body["request"]["resource"] = {**kinds, "resource": "stepuppolicies"}
    if spec is not None:
        body["request"]["object"] = {"metadata": {"name": "p"}, "spec": spec}
    return json.dumps(body).encode()


class TestOwnPolicies:
    RULES: ClassVar[list[dict[str, Any]]] = [{"name": "r", "operations": ["delete"]}]

    @pytest.mark.parametrize(
        ("match", "codes"),
        [
            ({"namespaces": ["prod"]}, []),
            ({"namespaces": ["prdo"]}, ["no-such-namespace", "no-such-namespace"]),
            ({}, ["matches-everything"]),
        ],
    )
    async def test_what_is_hardly_meant_is_a_warning(
        self, replica: Replica, match: dict[str, Any], codes: list[str]
    ) -> None:
        answer = await replica.ask(written(spec={"match": match, "rules": self.RULES}))
        assert answer["allowed"]
        assert [text.rpartition("[")[2].rstrip("]") for text in answer.get("warnings", [])] == codes
        assert all(text.startswith("StepUpPolicy p: ") for text in answer.get("warnings", []))

    async def test_so_is_that_nobody_would_guard_it(self, replica: Replica) -> None:
        replica.admission._leader_missing = lambda: True
        answer = await replica.ask(written(spec={"match": {"namespaces": ["prod"]}, "rules": self.RULES}))
        assert "[no-leader]" in answer["warnings"][0]

    async def test_one_that_turns_unreadable_stays_in_force_and_heals(self, replica: Replica) -> None:
        sink = PolicySink(replica.state.index)
        broken = {**policy(), "spec": {"rules": []}}
        sink.put(broken)
        assert not (await replica.ask(deletion()))["allowed"]
        assert list(sink.problems) == ["production"]
        sink.put(policy())
        assert sink.problems == {}

    async def test_news_of_its_status_alone_does_not_compile_it_again(self, replica: Replica) -> None:
        sink = PolicySink(replica.state.index)
        sink.put(policy())
        before = replica.state.index.policies["production"]
        sink.put({**policy(), "status": {"matched": 7}})
        assert replica.state.index.policies["production"] is before
        sink.put(policy(enforcement="Audit"))
        assert replica.state.index.policies["production"].enforcement == "Audit"


class TestCanary:
    OPTIONS: ClassVar[dict[str, Any]] = {"fieldManager": "kube-stepup-canary-abc"}

    async def test_is_answered_with_what_it_is_about(self, replica: Replica) -> None:
        body = written("UPDATE", sub_resource="status", dryRun=True, options=self.OPTIONS)
        assert (await replica.ask(body))["warnings"] == ["kube-stepup has seen canary abc"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"dryRun": False, "sub_resource": "status", "options": OPTIONS},
            {"dryRun": True, "options": OPTIONS, "new": {"metadata": {"name": "p"}, "spec": {"rules": []}}},
            {"dryRun": True, "sub_resource": "status", "options": {"fieldManager": "kubectl"}},
            {"dryRun": True, "sub_resource": "status", "options": {"fieldManager": 7}},
        ],
    )
    async def test_nothing_else_passes_for_one(self, replica: Replica, changes: dict[str, Any]) -> None:
        answer = await replica.ask(written("UPDATE", **changes))
        assert not any("canary" in text for text in answer.get("warnings", []))
