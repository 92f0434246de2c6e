"""`kubectl elevate VERB TARGET…`: what is asked of the cluster, of the person, and what comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.desk import Desk
from webhook.cli import exits


def asked(desk: Desk) -> list[dict[str, Any]]:
    (details,) = desk.state["asked"]
    return list(details)


def test_a_code_and_the_object_named_by_its_uid(desk: Desk) -> None:
    desk.prints("123456")
    result = desk.run("delete", "deploy/web", "-n", "prod", "--reason", "OPS-7")
    assert result.returncode == exits.OK, result.stderr
    assert asked(desk) == [
        {
            "operation": "delete",
            "group": "apps",
            "resource": "deployments",
            "scope": "Object",
            "namespace": "prod",
            "objects": [{"name": "web", "uid": "uid-web"}],
        }
    ]
    assert "stepped up until" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "targets", [["deploy/web", "deploy/api"], ["deploy", "web", "api"], ["deployments.apps", "web", "api"]]
)
def test_the_ways_to_name_targets(desk: Desk, targets: list[str]) -> None:
    desk.prints("123456")
    assert desk.run("restart", *targets).returncode == exits.OK
    (detail,) = asked(desk)
    assert (detail["namespace"], [one["name"] for one in detail["objects"]]) == ("dev", ["web", "api"])
    assert sum(call[0] == "get" for call in desk.state["calls"]) == 1


def test_kinds_that_are_not_in_the_table_are_asked_of_the_cluster(desk: Desk) -> None:
    desk.prints("123456")
    desk.run("delete", "wd/web")
    assert (asked(desk)[0]["group"], asked(desk)[0]["resource"]) == ("example.com", "widgets")
    assert desk.run("delete", "unheard-of/web").returncode == exits.USAGE


def test_an_api_server_that_cannot_be_reached_has_no_opinion_on_kinds(desk: Desk) -> None:
    desk.program(
        "kubectl", "#!/bin/sh\necho 'The connection to the server 10.0.0.1:6443 was refused - did you …' >&2\nexit 1\n"
    )
    result = desk.run("delete", "wd/web")
    assert result.returncode == exits.UNREACHABLE
    assert "the API server cannot be reached: The connection to the server 10.0.0.1:6443 was refused" in result.stderr
    assert "no kind" not in result.stderr


def test_by_label(desk: Desk) -> None:
    desk.prints("123456")
    assert desk.run("delete", "deploy", "-l", "app=web").returncode == exits.OK
    assert [one["uid"] for one in asked(desk)[0]["objects"]] == ["uid-web", "uid-api"]


def test_a_manifest_of_what_is_not_there_yet(desk: Desk) -> None:
    desk.prints("123456")
    assert desk.run("deploy", "-f", "new.yaml", "-n", "prod").returncode == exits.OK
    assert asked(desk)[0]["objects"] == [{"name": "fresh"}]


def test_a_manifest_and_what_is_named_beside_it_are_one_proof(desk: Desk) -> None:
    desk.prints("123456")
    assert desk.run("guard", "-f", "all.yaml", "secret/record", "-n", "prod").returncode == exits.OK
    found = [(one["resource"], one["namespace"], one["objects"][0]["name"]) for one in asked(desk)]
    assert found == [("deployments", "prod", "fresh"), ("secrets", "prod", "record")]


def test_a_manifest_may_name_other_namespaces_than_the_one_given(desk: Desk) -> None:
    desk.prints("123456")
    desk.set(manifest_namespace="kube-system")
    assert desk.run("guard", "-f", "all.yaml", "-n", "prod").returncode == exits.OK
    assert asked(desk)[0]["namespace"] == "kube-system"


def test_a_manifest_from_standard_input_reaches_kubectl(desk: Desk) -> None:
    desk.prints("123456")
    assert desk.run("delete", "-f", "-", text="kind: Deployment\n").returncode == exits.OK


def test_who_may_not_read_gets_proof_for_the_name(desk: Desk) -> None:
    desk.prints("123456")
    desk.set(unreadable=True)
    assert desk.run("delete", "deploy/web").returncode == exits.OK
    assert asked(desk)[0]["objects"] == [{"name": "web"}]


def test_no_code_is_spent_on_a_typo(desk: Desk) -> None:
    desk.prints("123456")
    result = desk.run("delete", "deploy/wbe", "-n", "prod")
    assert result.returncode == exits.USAGE
    assert "there is no deployments wbe in prod" in result.stderr
    assert "asked" not in desk.state


@pytest.mark.parametrize("operation", ["deploy", "access", "guard"])
def test_what_may_be_about_to_be_created_need_not_be_there(desk: Desk, operation: str) -> None:
    desk.prints("123456")
    assert desk.run(operation, "deploy/new").returncode == exits.OK
    assert asked(desk)[0]["objects"] == [{"name": "new"}]


def test_exec_is_into_a_pod(desk: Desk) -> None:
    desk.prints("123456")
    assert desk.run("exec", "web").returncode == exits.OK
    assert (asked(desk)[0]["group"], asked(desk)[0]["resource"]) == ("", "pods")
    result = desk.run("exec", "deploy/web")
    assert result.returncode == exits.USAGE
    assert "kubectl elevate -- kubectl exec deploy/web" in result.stderr


def test_wider_scopes(desk: Desk) -> None:
    desk.prints("123456")
    desk.run("delete", "--scope", "namespace", "-n", "prod")
    desk.run("delete", "deploy", "--scope", "resource", "-n", "prod")
    whole, kind = (details[0] for details in desk.state["asked"])
    assert whole == {"operation": "delete", "scope": "Namespace", "namespace": "prod"}
    assert (kind["scope"], kind["resource"], "objects" in kind) == ("Resource", "deployments", False)


def test_two_effects_each_with_its_change(desk: Desk) -> None:
    desk.prints("123456")
    assert desk.run("scale,deploy", "deploy/web", "--change", "00112233445566ff,-").returncode == exits.OK
    assert [one["operation"] for one in asked(desk)] == ["scale", "deploy"]
    assert [one["objects"][0].get("digest") for one in asked(desk)] == ["00112233445566ff", None]


def test_an_operation_by_verb_and_resource(desk: Desk) -> None:
    desk.prints("123456")
    assert desk.run("update:apps/deployments", "deploy/web", "-n", "prod").returncode == exits.OK
    assert desk.run("scale,update:apps/deployments", "deploy/web", "-n", "prod").returncode == exits.OK
    assert desk.run("create:core/pods", "pod/new", "-n", "prod").returncode == exits.OK
    assert desk.run("delete:apps/deployments", "deploy/web", "-n", "prod").returncode == exits.OK
    operations = [[one["operation"] for one in details] for details in desk.state["asked"]]
    assert operations == [
        ["update:apps/deployments"],
        ["scale", "update:apps/deployments"],
        ["create:core/pods"],
        ["delete"],  # the class of that name, by whatever road
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["raw", "deploy/web"],
        ["update:apps/*", "deploy/web"],
        ["patch:apps/deployments", "deploy/web"],
        ["scale,update:apps", "deploy/web"],
        ["delete"],
        ["delete", "deploy"],
        ["delete", "deploy/web", "api"],
        ["delete", "deploy/web", "--change", "nothing"],
        ["delete", "deploy", "web", "api", "--change", "00112233445566ff"],
        ["delete", "deploy/web", "--scope", "galaxy"],
        ["delete", "deploy/web", "--carrier", "pigeon"],
        ["delete", "deploy/web", "-o", "yaml"],
        ["explode", "deploy/web"],
        ["delete", "deploy/web", "--unheard-of"],
    ],
)
def test_wrong_usage(desk: Desk, arguments: list[str]) -> None:
    result = desk.run(*arguments)
    assert result.returncode == exits.USAGE
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_kubectls_global_flags_go_to_every_call_and_verbosity_to_none(desk: Desk) -> None:
    desk.prints("123456")
    result = desk.run("delete", "deploy/web", "--context", "c", "--as=bob", "-v", "9")
    assert result.returncode == exits.OK, result.stderr
    assert all(call[:2] == ["--context=c", "--as=bob"] for call in desk.state["calls"])
    assert not any("9" in call for call in desk.state["calls"])


def test_json_has_the_assertion_and_is_alone_on_standard_output(desk: Desk) -> None:
    desk.prints("123456")
    result = desk.run("delete", "deploy/web", "-o", "json")
    found = json.loads(result.stdout)
    assert set(found) == {"required", "elevation", "expiresAt", "challenge", "assertion", "annotated"}
    assert (found["required"], found["assertion"], found["annotated"]) == (True, "SECRET-ASSERTION", True)
    assert result.stderr == "kube-stepup: delete deployments.apps/web in dev (policy production)\n"


def test_what_a_code_is_for_is_shown_as_the_service_says_it(desk: Desk) -> None:
    shown = {"details": [{"operation": "delete", "group": "", "resource": "secrets", "namespace": "vault", "scope": "Object",
                          "objects": [{"name": "root\x1b[2J"}]}]}  # fmt: skip
    desk.set(shown=shown)
    terminal = desk.at_terminal("delete", "deploy/web", "-n", "prod")
    terminal.wait_for("kube-stepup: delete secrets/root\N{REPLACEMENT CHARACTER}[2J in vault (policy production)\n")
    terminal.wait_for("Code: ")
    terminal.type("\x03")
    assert terminal.end() == exits.INTERRUPTED
    assert "deployments.apps/web" not in terminal.shown


def test_a_policy_that_only_warns_is_named(desk: Desk) -> None:
    desk.set(required=False, not_required={"message": "policy soft only warns; nothing is needed"})
    result = desk.run("delete", "deploy/web")
    assert (result.returncode, result.stderr) == (
        exits.OK,
        "kube-stepup: policy soft only warns; nothing is needed; just do it\n",
    )


def test_where_nothing_is_asked_for(desk: Desk) -> None:
    desk.set(required=False)
    result = desk.run("delete", "deploy/web", "-o", "json")
    assert (result.returncode, json.loads(result.stdout)["required"]) == (exits.OK, False)


@pytest.mark.parametrize(
    ("arguments", "annotated"),
    [
        (["delete", "deploy/web"], True),
        (["delete", "deploy/web", "--carrier", "record"], False),
        (["delete", "deploy/web", "deploy/api"], False),
        (["scale", "deploy/web"], False),
        (["scale", "deploy/web", "--carrier", "annotation"], True),
        (["delete", "deploy", "--scope", "resource"], False),
    ],
)
def test_which_carrier(desk: Desk, arguments: list[str], annotated: bool) -> None:
    desk.prints("123456")
    assert desk.run(*arguments).returncode == exits.OK
    expected = {"metadata": {"annotations": {"kube-stepup.io/assertion": "SECRET-ASSERTION"}}}
    assert desk.state.get("patched") == (expected if annotated else None)


def test_who_may_not_patch_is_told_only_when_that_was_asked_for(desk: Desk) -> None:
    desk.prints("123456")
    desk.set(unpatchable=True)
    assert "record" not in desk.run("delete", "deploy/web").stderr
    assert "its record carries it" in desk.run("delete", "deploy/web", "--carrier", "annotation").stderr


def test_neither_code_nor_assertion_is_on_a_command_line(desk: Desk) -> None:
    desk.prints("123456")
    desk.run("delete", "deploy/web")
    assert "patched" in desk.state
    for call in desk.state["calls"]:
        assert "123456" not in " ".join(call)
        assert "SECRET-ASSERTION" not in " ".join(call)


@pytest.mark.parametrize(
    ("environment", "expected"), [({"POD_NAMESPACE": "of-the-pod"}, "of-the-pod"), ({}, "default")]
)
def test_the_namespace_where_there_is_no_kubeconfig(desk: Desk, environment: dict[str, str], expected: str) -> None:
    desk.prints("123456")
    desk.environment |= environment
    desk.set(namespace="")
    desk.run("delete", "deploy/web")
    assert asked(desk)[0]["namespace"] == expected


@pytest.mark.parametrize(
    ("stderr", "exit_code", "says"),
    [
        (
            "Error from server (Forbidden): you have no authenticator yet (code: not-enrolled)\n",
            exits.REFUSED,
            "no authenticator",
        ),
        ("Warning: old\nError from server (Forbidden): no (code: not-enrolled)\n", exits.REFUSED, "kube-stepup: no\n"),
        (
            "Error from server (NotFound): the server could not find the requested resource\n",
            exits.UNREACHABLE,
            "not installed",
        ),
        (
            "Error from server (ServiceUnavailable): the server is currently unable to handle the request\n",
            exits.UNREACHABLE,
            "is down",
        ),
        ('Error from server (Forbidden): x is forbidden: User "a" cannot create resource "y"\n', exits.REFUSED, "RBAC"),
        (
            "E1124 12:00:00.000000    1 memcache.go:1] x\nUnable to connect to the server: dial tcp: i/o timeout\n",
            exits.UNREACHABLE,
            "the API server cannot be reached: Unable to connect",
        ),
        ("The connection to the server x:1 was refused - right host?\n", exits.UNREACHABLE, "cannot be reached"),
        ("something else\n", exits.FAILED, "something else"),
    ],
)
def test_what_goes_wrong_is_told_with_an_exit_code_of_its_own(
    desk: Desk, stderr: str, exit_code: int, says: str
) -> None:
    desk.prints("123456")
    desk.set(error=stderr)
    result = desk.run("delete", "deploy/web")
    assert (result.returncode, says in result.stderr) == (exit_code, True), result.stderr
    assert "code:" not in result.stderr


def test_there_is_no_kubectl(desk: Desk) -> None:
    desk.environment["PATH"] = "/nowhere"
    result = desk.run("status")
    assert (result.returncode, "no kubectl" in result.stderr) == (exits.FAILED, True)


def test_what_a_credential_plugin_says_is_shown_at_once(desk: Desk) -> None:
    desk.program(
        "kubectl", "#!/bin/sh\necho 'Open https://login.example and type ABCD' >&2\nprintf 'Pin: ' >&2\nexit 1\n"
    )
    assert "Open https://login.example and type ABCD\nPin: " in desk.run("status").stderr


def test_a_credential_plugin_may_ask_at_the_terminal(desk: Desk) -> None:
    desk.program(
        "kubectl",
        '#!/bin/sh\nprintf \'Please enter the PIN: \' >&2\nread pin\necho "{\\"items\\": []}"\necho "pin=$pin" >&2\n',
    )
    terminal = desk.at_terminal("list")
    terminal.wait_for("Please enter the PIN: ")
    terminal.type("77\r")
    assert terminal.end() == exits.OK
    assert "pin=77" in terminal.shown


def test_help_has_the_exit_codes(desk: Desk) -> None:
    result = desk.run("--help")
    assert "Exit codes" in result.stdout
    assert desk.run("--version").stdout.strip()
