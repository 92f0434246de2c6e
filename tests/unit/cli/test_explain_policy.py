"""`stepup policy explain` and `lint --cluster`: from files, and from a cluster by the person's own kubectl."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.builders import CREDENTIAL_EXTRA, deployment, policy
from webhook.cli import stepup
from webhook.cli.kubectl import PROGRAM_VARIABLE

WEB = deployment(labels={"tier": "one"})
NEVER_UNDER = {"name": "few", "operations": ["scale"], "conditions": [{"expression": "operation.replicasTo < 2"}]}


class Desk:
    """A folder with policies, and the command."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def file(self, name: str, *objects: dict[str, Any]) -> str:
        path = self.folder / name
        path.write_text(yaml.safe_dump_all(objects))
        return str(path)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(stepup.app, ["policy", "explain", *arguments])

    def explained(self, *words: str, policies: tuple[dict[str, Any], ...] = (), more: tuple[str, ...] = ()) -> Result:
        """What alice is told of a request in the namespace prod (env=prod)."""
        file = self.file("policy.yaml", *(policies or (policy(),)))
        return self.run("--policy", file, "--namespace-labels", "env=prod", "--as", "alice", *more, *words)

    def cluster(self, **answers: Any) -> None:
        """A kubectl that knows the answers to `get KIND …` and `auth whoami`, and nothing else."""
        script = self.folder / "kubectl"
        calls = self.folder / "calls"
        script.write_text(
            f"#!{sys.executable}\nimport json, sys\nanswers = json.loads({json.dumps(json.dumps(answers))})\n"
            f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
            "words = [one for one in sys.argv[1:] if not one.startswith('--')]\n"
            "key = words[1] if words[0] in ('get', 'auth') else words[0]\n"
            "if key not in answers:\n"
            "    sys.exit(f'Error from server (NotFound): {key} not found')\n"
            "print(answers[key] if isinstance(answers[key], str) else json.dumps(answers[key]))\n"
        )
        script.chmod(0o700)
        self._monkeypatch.setenv(PROGRAM_VARIABLE, str(script))

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


class TestFromFiles:
    def test_the_policy_the_rule_what_it_takes_and_the_line_to_run(self, desk: Desk) -> None:
        asks = policy(require={"reason": {"pattern": "OPS-[0-9]+"}, "bind": "User"})
        result = desk.explained("delete", "deploy/web", "-n", "prod", policies=(asks,))
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == [
            "delete deployments.apps/web in prod, by alice",
            "  policy production (Deny) applies: it matches",
            "    rule everything asks: it matches",
            "      takes aal2, at most 5m old, Once, scope Object, bound to the user, a reason that matches OPS-[0-9]+",
            "Only class and object are known here: conditions and labels that are not known count as matching.",
            "It takes a step-up (aal2, at most 5m old, policy production):",
            "  kubectl elevate delete deployments.apps/web -n prod --reason '…'",
        ]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"match": {"namespaces": ["shop"]}}, "[namespace]: it is not about the namespace prod"),
            ({"match": {"subjects": {"users": ["bob"]}}}, "[subject]: its subjects do not include alice"),
            ({"match": {"exempt": {"users": ["alice"]}}}, "[exempt]: it exempts alice"),
            ({"match": {"breakGlass": {"users": ["alice"]}}}, "[break-glass]: it lets alice break glass"),
            ({"rules": [{"name": "a", "operations": ["exec"]}]}, "[class]: no rule of it is about delete"),
            (
                {"rules": [{"name": "a", "operations": ["delete"], "resources": ["secrets"]}]},
                "[resource]: no rule of it",
            ),
        ],
    )
    def test_why_a_policy_asks_nothing(self, desk: Desk, change: dict[str, Any], said: str) -> None:
        result = desk.explained("delete", "deploy/web", "-n", "prod", policies=(policy(**change),))
        assert f"  policy production (Deny) asks nothing {said}" in result.stdout
        assert result.stdout.endswith("It passes unasked.\n")

    def test_with_the_object_labels_and_conditions_are_known(self, desk: Desk) -> None:
        file = desk.file("web.yaml", WEB)
        selecting = policy(match={"objectSelector": {"matchLabels": {"tier": "two"}}})
        asks = ("--object", file)
        elsewhere = desk.explained("delete", "deploy/web", "-n", "prod", policies=(selecting,), more=asks)
        assert "[object]: its objectSelector does not select the object" in elsewhere.stdout
        for replicas, outcome in (("1", "true: operation"), ("2", "false: operation")):
            words = ("scale", "deploy/web", "--replicas", replicas, "-n", "prod")
            result = desk.explained(*words, policies=(policy(rules=[NEVER_UNDER]),), more=asks)
            assert f"\n      {outcome}.replicasTo < 2\n" in result.stdout, result.output
            assert f"scale deployments.apps/web in prod (replicas 3 → {replicas}), by alice" in result.stdout

    def test_without_it_a_condition_is_unknown_and_its_rule_asks(self, desk: Desk) -> None:
        result = desk.explained("scale", "deploy/web", "-n", "prod", policies=(policy(rules=[NEVER_UNDER]),))
        assert (
            "      unknown (what it reads is told only by the request itself): operation.replicasTo < 2"
            in result.stdout
        )
        assert "It takes a step-up" in result.stdout

    @pytest.mark.parametrize(
        ("words", "first"),
        [
            (("evict", "web-1"), "delete pods/web-1"),
            (("exec", "web-1", "--", "ls", "-l"), "exec pods/web-1"),
            (("exec", "pods/web-1"), "exec pods/web-1"),
            (("set", "image", "deploy/web", "c=nginx:2"), "deploy deployments.apps/web"),
            (("rollout", "restart", "deploy", "web"), "restart deployments.apps/web"),
            (("create", "token", "robot"), "access serviceaccounts/robot"),
            (("restart", "statefulset/db"), "restart statefulsets.apps/db"),
            (("delete", "clusters.example.com/a"), "delete clusters.example.com/a"),
        ],
    )
    def test_takes_classes_and_what_is_typed_after_kubectl(
        self, desk: Desk, words: tuple[str, ...], first: str
    ) -> None:
        result = desk.explained("-n", "prod", *words)
        assert result.stdout.startswith(f"{first} in prod"), result.output

    def test_cluster_scoped_objects_and_namespaces_themselves(self, desk: Desk) -> None:
        assert desk.explained("cordon", "n1").stdout.startswith("drain nodes/n1, by alice")
        whole = desk.explained("delete", "ns/prod").stdout
        assert whole.startswith("delete namespaces/prod, by alice\n  policy production (Deny) applies")
        assert "Only class and object" not in whole

    def test_weakening_a_policy_and_what_has_no_effect(self, desk: Desk) -> None:
        relabelled = desk.explained("label", "ns/prod", "env=dev").stdout
        assert relabelled.startswith("guard namespaces/prod")
        assert "applies: it would be laxer for it" in relabelled
        assert (
            desk.explained("label", "ns/prod", "a=b").stdout
            == "This request has no effect that a policy could ask about.\n"
        )

    def test_a_policy_that_only_warns_refuses_nothing(self, desk: Desk) -> None:
        result = desk.explained("delete", "deploy/web", "-n", "prod", policies=(policy(enforcement="Warn"),))
        assert "production would say so, but refuse nothing" in result.stdout

    def test_who_comes_without_a_credential_is_not_exempt(self, desk: Desk) -> None:
        exempt = policy(match={"exempt": {"users": ["alice"]}})
        words = ("delete", "deploy/web", "-n", "prod")
        result = desk.explained(*words, policies=(exempt,), more=("--impersonated",))
        assert "note: it would let alice pass, but only with a credential" in result.stdout
        assert "It takes a step-up" in result.stdout

    def test_service_accounts_and_controllers(self, desk: Desk) -> None:
        file = desk.file("policy.yaml", policy())
        words = ("delete", "deploy/web", "-n", "prod")
        account = desk.run("--policy", file, "--service-account", "ci/deployer", *words)
        assert "by system:serviceaccount:ci:deployer" in account.stdout
        own = desk.run("--policy", file, "--service-account", "kube-system/generic-garbage-collector", *words)
        assert "is never asked" in own.stdout

    def test_json_for_programs(self, desk: Desk) -> None:
        found = json.loads(desk.explained("delete", "deploy/web", "-n", "prod", more=("-o", "json")).stdout)
        assert found["user"] == {"username": "alice", "groups": ["system:authenticated"]}
        assert (found["controller"], found["complete"]) == (False, False)
        assert found["actions"][0]["policies"][0]["verdict"] == "applies"
        assert found["requirement"]["policies"] == ["production"]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ((), "what is to be explained?"),
            (("smash", "deploy/web", "-n", "prod"), "must be one of access, delete"),
            (("delete", "-n", "prod"), "TYPE/NAME is missing"),
            (("delete", "deploy/web"), "say -n NAMESPACE"),
            (("delete", "things/a", "-n", "prod"), "write it in full"),
            (("delete", "deploy/web", "--now", "-n", "prod"), "--now is not known here"),
            (("delete", "deploy/web", "-o", "yaml"), "--output: must be text or json"),
        ],
    )
    def test_what_is_not_clear(self, desk: Desk, words: tuple[str, ...], said: str) -> None:
        result = desk.explained(*words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr

    def test_nobody_or_two_who_ask(self, desk: Desk) -> None:
        file = desk.file("policy.yaml", policy())
        for who in ((), ("--as", "a", "--service-account", "b/c"), ("--service-account", "b")):
            assert desk.run("--policy", file, *who, "delete", "deploy/web", "-n", "prod").exit_code == 2
        assert desk.run("--as", "a", "--namespace-labels", "a=b", "delete", "deploy/web", "-n", "prod").exit_code == 2


class TestFromACluster:
    ME = {"status": {"userInfo": {"username": "carol", "groups": ["devs"], "extra": {CREDENTIAL_EXTRA: ["X509SHA256=1"]}}}}  # fmt: skip  # noqa: RUF012
    NAMESPACE = {"metadata": {"name": "prod", "labels": {"env": "prod"}}}  # noqa: RUF012

    def test_it_is_oneself_who_asks_and_everything_is_read(self, desk: Desk) -> None:
        selecting = policy(match={**policy()["spec"]["match"], "objectSelector": {"matchLabels": {"tier": "one"}}})
        policies = {"stepuppolicies.kube-stepup.io": {"items": [selecting]}}
        desk.cluster(whoami=self.ME, namespace=self.NAMESPACE, deploy=WEB, config="prod", **policies)
        result = desk.run("delete", "deploy/web", "--kubectl=--context=c")
        assert result.stdout.startswith(
            "delete deployments.apps/web in prod, by carol\n  policy production (Deny) applies"
        )
        assert "Only class and object" not in result.stdout
        assert all(call.startswith("--context=c ") for call in desk.calls)

    def test_a_command_that_is_no_class_is_explained_by_the_object(self, desk: Desk) -> None:
        desk.cluster(whoami=self.ME, namespace=self.NAMESPACE, deploy=WEB, **{"stepuppolicies.kube-stepup.io": {"items": [policy()]}})  # fmt: skip
        result = desk.run("annotate", "deploy/web", "janitor/ttl=1s", "-n", "prod")
        assert result.stdout.startswith("delete deployments.apps/web in prod (")

    def test_what_may_not_be_read_counts_as_matching(self, desk: Desk) -> None:
        selecting = policy(match={**policy()["spec"]["match"], "objectSelector": {"matchLabels": {"tier": "one"}}})
        desk.cluster(**{"stepuppolicies.kube-stepup.io": {"items": [selecting]}})
        result = desk.run("--as", "bob", "delete", "deploy/web", "-n", "prod")
        assert result.exit_code == 0, result.output
        assert "note: the labels of the namespace prod are not known" in result.stdout
        assert "note: the object's labels are not known" in result.stdout

    def test_a_policy_that_cannot_be_used_is_named_and_left_out(self, desk: Desk) -> None:
        broken = policy("broken", rules=[])
        desk.cluster(whoami=self.ME, **{"stepuppolicies.kube-stepup.io": {"items": [broken, policy()]}})
        result = desk.run("delete", "deploy/web", "-n", "prod")
        assert "policy broken is left out, it cannot be used: spec.rules: must have" in result.stderr
        assert "policy production (Deny) applies" in result.stdout

    def test_without_policies_there_is_nothing_to_explain(self, desk: Desk) -> None:
        desk.cluster(whoami=self.ME)
        result = desk.run("delete", "deploy/web", "-n", "prod")
        assert result.exception is not None
        assert "not found" in str(result.exception) or "not installed" in str(result.exception)

    def test_lint_looks_for_the_namespaces_that_are_named(self, desk: Desk) -> None:
        desk.cluster(namespaces={"items": [self.NAMESPACE]})
        file = desk.file("policy.yaml", policy(match={"namespaces": ["prod", "gone-*"]}))
        result = CliRunner().invoke(stepup.app, ["policy", "lint", "--cluster", "--strict", file])
        assert "no namespace that fits gone-* [no-such-namespace]" in result.stdout
        assert result.exit_code == 1


def test_lint_notes_never_fail(desk: Desk) -> None:
    file = desk.file("policy.yaml", policy(require={"bind": "Session"}))
    result = CliRunner().invoke(stepup.app, ["policy", "lint", "--strict", file])
    assert ": note: production: spec.rules[0].require.bind: " in result.stdout
    assert result.exit_code == 0
