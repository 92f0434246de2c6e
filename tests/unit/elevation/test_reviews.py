"""ElevationReviews: what would be asked of the person who asks, by which rule, and whether they have proven it already."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import UID, policy
from tests.fakes.elevation import Person, Server, created, refused, wanted
from tests.fakes.kube import FakeKube
from tests.unit.elevation.test_requests import ELEVATIONS, enforce

DELETE: dict[str, Any] = {"name": "destroy", "operations": ["delete"]}


SERVICE: dict[str, Any] = {"group": "", "resource": "services"}
"""Takes nothing along when it goes, so that all that decides is its own."""


async def review(person: Person, *details: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = created(await person.post("elevationreviews", {"details": list(details or [wanted()]), **more}))
    status: dict[str, Any] = answer["status"]
    return status


def rules(status: dict[str, Any]) -> dict[str, str]:
    return {rule["rule"]: rule["verdict"] for policy in status["actions"][0]["policies"] for rule in policy["rules"]}


class TestWhatWouldBeAsked:
    async def test_names_the_policy_its_rule_and_what_it_takes(self, alice: Person) -> None:
        status = await review(alice)
        assert (status["required"], status["satisfied"]) == (True, False)
        assert status["challenge"]["acr_values"] == "aal2"
        (action,) = status["actions"]
        assert (action["operation"], action["name"], action["required"]) == ("delete", "web", True)
        (one,) = action["policies"]
        assert (one["policy"], one["enforcement"], one["verdict"]) == ("production", "Deny", "applies")
        (rule,) = one["rules"]
        assert (rule["rule"], rule["verdict"], rule["satisfied"]) == ("everything", "applies", False)
        assert rule["requires"]["max_age"] == 300
        assert rule["problem"]["message"] == "you have not stepped up"

    async def test_nothing_is_stored(self, alice: Person, kube: FakeKube) -> None:
        await review(alice)
        assert not any(path.startswith(ELEVATIONS) for path in kube.objects)

    async def test_whoever_has_no_authenticator_may_ask_as_well(self, server: Server) -> None:
        assert (await review(server.person("carol")))["required"]

    async def test_where_nothing_is_asked_nothing_is_said(self, alice: Person) -> None:
        status = await review(alice, wanted(namespace="staging"))
        assert (status["required"], status["satisfied"], status["actions"][0]["policies"]) == (False, True, [])
        assert "challenge" not in status

    async def test_an_exemption_and_a_policy_that_only_warns(self, alice: Person, kube: FakeKube) -> None:
        await enforce(kube, policy("own", match={"exempt": {"users": ["alice"]}}), policy("soft", enforcement="Warn"))
        status = await review(alice)
        assert not status["required"]
        found = {one["policy"]: (one["enforcement"], one["verdict"]) for one in status["actions"][0]["policies"]}
        assert found == {"own": ("Deny", "exempt"), "soft": ("Warn", "applies")}

    @pytest.mark.parametrize(
        ("expression", "sent", "expected"),
        [
            ("request.name == 'web'", None, "true"),
            ("request.name == 'db'", None, "false"),
            ("request.operation == 'DELETE' && object == null", None, "true"),
            ("'devs' in request.userInfo.groups", None, "true"),
            ("namespaceObject.metadata.labels.env == 'dev'", None, "false"),
            ("operation.target.name == 'db'", None, "false"),
            ("oldObject.metadata.labels.tier == 'db'", {"labels": {"tier": "db"}}, "true"),
            ("oldObject.metadata.labels.tier == 'db'", {"labels": {"tier": "web"}}, "false"),
            ("oldObject.metadata.labels.tier == 'db'", None, "unknown"),
            ("has(oldObject.spec.replicas)", {"labels": {}}, "unknown"),
            ("request.dryRun", None, "unknown"),
            ("size(request.userInfo.extra) == 0", None, "unknown"),
            ("operation.targets.size() == 1", None, "unknown"),
        ],
    )
    async def test_conditions_as_far_as_they_can_be_known(
        self, alice: Person, kube: FakeKube, expression: str, sent: dict[str, Any] | None, expected: str
    ) -> None:
        await enforce(kube, policy(rules=[{**DELETE, "conditions": [{"expression": expression}]}]))
        status = await review(alice, wanted(**SERVICE), **({"object": sent} if sent is not None else {}))
        ((condition,),) = [rule["conditions"] for rule in status["actions"][0]["policies"][0]["rules"]]
        assert (condition["value"], condition["field"]) == (expected, "spec.rules[0].conditions[0].expression")
        assert status["required"] is (expected != "false")

    async def test_of_another_operation_than_a_deletion_the_request_tells_more(
        self, alice: Person, kube: FakeKube
    ) -> None:
        rule = {"name": "r", "operations": ["scale"], "conditions": [{"expression": "object == null"}]}
        await enforce(kube, policy(rules=[rule]))
        status = await review(alice, wanted(operation="scale"))
        assert status["actions"][0]["policies"][0]["rules"][0]["conditions"][0]["value"] == "unknown"

    async def test_labels_decide_about_an_object_selector(self, alice: Person, kube: FakeKube) -> None:
        match = {"objectSelector": {"matchLabels": {"tier": "db"}}}
        await enforce(kube, policy(match=match))
        assert not (await review(alice, wanted(**SERVICE), object={"labels": {"tier": "web"}}))["required"]
        assert (await review(alice, wanted(**SERVICE), object={"labels": {"tier": "db"}}))["required"]
        assert (await review(alice, wanted(**SERVICE)))["required"], "what nobody knows counts as matching"


class TestWhatIsToldToWhom:
    async def test_nothing_of_others_policies_rules_and_conditions(self, alice: Person, kube: FakeKube) -> None:
        await enforce(
            kube,
            policy("for-the-ceo", match={"subjects": {"users": ["ceo"]}}),
            policy("merger", match={"namespaces": ["merger"]}),
            policy("vaults", rules=[{**DELETE, "resources": ["vaults"]}]),
            policy("silent", enforcement="Audit"),
            policy(rules=[{"name": "secret-shells", "operations": ["exec"]},
                          {**DELETE, "conditions": [{"expression": "request.userInfo.username != 'bob-the-auditor'"}]}]),
        )  # fmt: skip
        text = msgspec.json.encode(await review(alice)).decode()
        for secret in ("for-the-ceo", "merger", "vaults", "silent", "secret-shells", "bob-the-auditor"):
            assert secret not in text

    async def test_it_is_about_who_asks_and_nobody_else(self, server: Server, kube: FakeKube) -> None:
        await enforce(kube, policy(match={"subjects": {"users": ["alice"]}}))
        assert (await review(server.person("alice")))["required"]
        assert not (await review(server.person("bob", credential="X509SHA256=bob")))["required"]
        answer = await server.person("bob").post("elevationreviews", {"details": [wanted()], "user": "alice"})
        assert refused(answer)[1] == "invalid"

    async def test_whether_a_namespace_is_there_is_not_told(self, alice: Person) -> None:
        text = msgspec.json.encode(await review(alice, wanted(namespace="unseen"))).decode()
        assert "not known" not in text


class TestWhatIsProvenAlready:
    async def test_a_step_up_for_the_very_object(self, alice: Person) -> None:
        name = await alice.ask()
        await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        status = await review(alice)
        assert (status["required"], status["satisfied"]) == (True, True)
        rule = status["actions"][0]["policies"][0]["rules"][0]
        assert (rule["satisfied"], rule["elevation"]) == (True, name)

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"objects": [{"name": "api", "uid": UID}]}, "wrong-target"),
            ({"objects": [{"name": "web", "uid": "another"}]}, "wrong-uid"),
            ({"operation": "scale"}, "wrong-operation"),
        ],
    )
    async def test_a_step_up_for_something_else(self, alice: Person, change: dict[str, Any], code: str) -> None:
        name = await alice.ask(wanted(objects=[{"name": "web", "uid": UID}]))
        await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        status = await review(alice, wanted(**change))
        rule = status["actions"][0]["policies"][0]["rules"][0]
        assert not status["satisfied"]
        assert rule["problem"]["code"] == code

    async def test_one_that_was_revoked_or_is_another_credentials(self, alice: Person, server: Server) -> None:
        name = await alice.ask()
        await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        other = server.person("alice", credential="X509SHA256=other")
        assert not (await review(other))["satisfied"]
        await alice.delete(f"elevationrequests/{name}")
        assert not (await review(alice))["satisfied"]

    async def test_one_for_a_certain_change_is_said_to_be(self, alice: Person) -> None:
        detail = wanted(operation="scale", objects=[{"name": "web", "uid": UID, "digest": "00112233445566ff"}])
        name = await alice.ask(detail)
        await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        status = await review(alice, wanted(operation="scale", objects=[{"name": "web", "uid": UID}]))
        rule = status["actions"][0]["policies"][0]["rules"][0]
        assert (rule["satisfied"], rule["onlyForItsChange"]) == (True, True)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"details": []}, "spec.details"),
        ({"details": [wanted(operation="explode")]}, "spec.details[0].operation"),
        ({"details": [wanted(objects=[{"name": "a"}, {"name": "b"}])], "object": {}}, "spec.object"),
        ({"details": [wanted()], "object": {"labels": {"a": 1}}}, "spec.object.labels[...]"),
        ({"details": [wanted()], "object": {"spec": {}}}, "spec.object"),
    ],
)
async def test_a_field_that_cannot_be_meant_is_named(alice: Person, spec: dict[str, Any], field: str) -> None:
    assert refused(await alice.post("elevationreviews", spec))[2] == field
