"""`kubectl elevate explain`: what is asked of the service, and what a person reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.desk import Desk
from webhook.cli import exits
from webhook.cli.reviews import lines

REQUIRES = {"acr_values": "aal2", "max_age": 300, "use": "Once", "scope": "Object",
            "reason": {"required": True, "patterns": ["OPS-[0-9]+"]}}  # fmt: skip


def rule(name: str, verdict: str = "applies", **more: Any) -> dict[str, Any]:
    requires = {"requires": REQUIRES} if verdict == "applies" else {}
    return {
        "rule": name,
        "verdict": verdict,
        "why": "it matches" if requires else "a condition is false",
        **requires,
        **more,
    }


def policy(name: str, *rules: dict[str, Any], enforcement: str = "Deny", verdict: str = "applies") -> dict[str, Any]:
    why = f"it is {verdict}"
    return {
        "policy": name,
        "enforcement": enforcement,
        "verdict": verdict,
        "why": why,
        "notes": [],
        "rules": list(rules),
    }


def answer(*policies: dict[str, Any], required: bool = True, satisfied: bool = False) -> dict[str, Any]:
    action = {"operation": "delete", "group": "apps", "resource": "deployments", "namespace": "prod", "name": "web",
              "required": required, "satisfied": satisfied, "policies": list(policies)}  # fmt: skip
    return {"required": required, "satisfied": satisfied, "actions": [action]}


UNPROVEN = rule("destroy", satisfied=False, problem={"code": "c", "message": "you have not stepped up"})


def test_the_service_is_asked_about_the_object_with_its_metadata_and_no_code_is(desk: Desk) -> None:
    desk.set(review=answer(policy("production", UNPROVEN)), metadata={"labels": {"tier": "db"}, "annotations": {
        "owner": "me", "kubectl.kubernetes.io/last-applied-configuration": "SECRET"}})  # fmt: skip
    result = desk.run("explain", "delete", "deploy/web", "-n", "prod", "--context", "c")
    assert result.returncode == exits.OK, result.stderr
    (spec,) = desk.state["reviewed"]
    assert spec["details"][0]["objects"] == [{"name": "web", "uid": "uid-web"}]
    assert spec["object"] == {"labels": {"tier": "db"}, "annotations": {"owner": "me"}}
    assert "SECRET" not in json.dumps(spec)
    assert all(call[0] == "--context=c" for call in desk.state["calls"])
    assert "answers" not in desk.state


def test_what_a_person_reads(desk: Desk) -> None:
    conditional = rule(
        "big", "condition", conditions=[{"field": "spec.rules[1].conditions[0].expression", "value": "false"}]
    )
    desk.set(review=answer(policy("production", UNPROVEN, conditional), policy("night", verdict="exempt")))
    assert desk.run("explain", "delete", "deploy/web", "-n", "prod").stdout == (
        "delete deployments.apps/web in prod: needs a step-up\n"
        "  policy production\n"
        "    rule destroy: takes aal2, at most 5m old, good once, scope Object, a reason that matches OPS-[0-9]+: it matches\n"
        "      not proven: you have not stepped up\n"
        "    rule big: does not apply: a condition is false\n"
        "      spec.rules[1].conditions[0].expression is false\n"
        "  policy night: asks for nothing: it is exempt\n"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (answer(required=False, satisfied=True), "no step-up is needed"),
        (answer(policy("soft", rule("r"), enforcement="Warn"), required=False), "policy soft (only warns)"),
        (answer(policy("p", rule("r", satisfied=True, elevation="elv-1")), satisfied=True), "proven: by elv-1"),
        (answer(policy("p", rule("r", satisfied=True, elevation="elv-1")), satisfied=True), "one that you have does"),
        (
            answer(policy("p", rule("r", satisfied=True, elevation="elv-1", onlyForItsChange=True)), satisfied=True),
            "proven: by elv-1, for the change that it was given for",
        ),
    ],
)
def test_other_answers(status: dict[str, Any], said: str) -> None:
    assert said in "\n".join(lines(status))


def test_json_is_the_status_of_the_review(desk: Desk) -> None:
    desk.set(review=answer(policy("production", UNPROVEN)))
    assert json.loads(desk.run("explain", "delete", "deploy/web", "-o", "json").stdout) == desk.state["review"]


def test_of_several_objects_nothing_but_their_names_is_sent(desk: Desk) -> None:
    desk.set(review=answer())
    desk.run("explain", "delete", "deploy/web", "deploy/api")
    assert "object" not in desk.state["reviewed"][0]


@pytest.mark.parametrize(
    "arguments", [["explode", "deploy/web"], ["delete"], ["delete", "deploy/web", "-o", "yaml"], []]
)
def test_wrong_usage(desk: Desk, arguments: list[str]) -> None:
    assert desk.run("explain", *arguments).returncode == exits.USAGE
