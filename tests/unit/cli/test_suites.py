"""`stepup policy test --suite`: what suites can say, how a wrong one is refused, and what a failing case shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.builders import deployment, pod, policy
from webhook.cli import stepup
from webhook.cli.suites.document import schema
from webhook.cli.suites.review import request_of
from webhook.cli.suites.typed import COMMANDS
from webhook.cli.suites.verdict import SuiteRun
from webhook.core.classify import classify

ROOT = Path(__file__).parents[3]
WEB = deployment(labels={"app": "web"})
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {}}
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "prod"}}
REFUSE = {"outcome": "refuse"}


def suite(*cases: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A suite on the policy of tests/builders.py, with changes; a case's missing name is made up."""
    found: dict[str, Any] = {
        "policies": ["policy.yaml"],
        "namespaces": {"prod": {"labels": {"env": "prod"}}, "staging": {}},
        "users": {"alice": {"groups": ["devs"]}},
        "objects": [WEB, pod(), NODE, ACCOUNT],
        "cases": [{"name": f"case {number}", "as": "alice", **case} for number, case in enumerate(cases)],
    }
    return {**found, **fields}


class Files:
    """A folder with a policy and suites, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy()

    def policy(self, **changes: Any) -> None:
        (self.folder / "policy.yaml").write_text(yaml.safe_dump(policy(**changes)))

    def write(self, value: Any, name: str = "suite.yaml") -> Path:
        path = self.folder / name
        path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
        return path

    def run(self, value: Any, *arguments: str) -> Result:
        path = self.write(value)
        return CliRunner().invoke(stepup.app, ["policy", "test", "--suite", str(path), *arguments])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


class TestCommandsThatAreTyped:
    @pytest.mark.parametrize(
        ("line", "operations"),
        [
            ("delete deployments.apps/web -n prod", ["delete"]),
            ("delete deployment web --namespace=prod", ["delete"]),
            ("evict web-1 -n prod", ["delete"]),
            ("scale deploy/web --replicas=0 -n prod", ["scale"]),
            ("exec web-1 -n prod -- ls -l", ["exec"]),
            ("attach web-1 -n prod", ["exec"]),
            ("port-forward pods/web-1 8080:80 -n prod", ["exec"]),
            ("set image deploy/web c=nginx:2 -n prod", ["deploy"]),
            ("rollout restart deploy/web -n prod", ["restart"]),
            ("cordon n1", ["drain"]),
            ("uncordon n1", []),
            ("taint nodes n1 gone=yes:NoExecute", ["drain"]),
            ("label deploy/web a=b app- -n prod", []),
            ("annotate deploy/web janitor/ttl=1s -n prod", ["delete"]),
            ('patch deploy/web -n prod -p \'{"spec": {"replicas": 7}}\'', ["scale"]),
            ("create token default -n prod", ["access"]),
        ],
    )
    def test_become_the_requests_that_kubectl_sends(self, files: Files, line: str, operations: list[str]) -> None:
        run = SuiteRun(files.write(suite({"do": line, "expect": REFUSE})))
        request = request_of(run.suite.cases[0], run.world, run.file, "cases[0]")
        assert [action.operation for action in classify(request)] == operations

    def test_each_has_a_test(self) -> None:
        table = next(iter(type(self).test_become_the_requests_that_kubectl_sends.pytestmark)).args[1]  # type: ignore[attr-defined]
        assert {name for name in COMMANDS if any(line.startswith(name) for line, _ in table)} == set(COMMANDS)

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("destroy deploy/web", "begins with none of: delete, evict"),
            ("delete deploy/web", "say -n NAMESPACE"),
            ("delete deploy/web -n nowhere", "there is no namespace nowhere"),
            ("delete deploy/wbe -n prod", "there is no deploy/wbe in prod; add it to `objects`"),
            ("delete deploy/web -n", "-n needs a value"),
            ("delete deploy/web -n prod --force", "--force is not known here"),
            ("delete clusters.cnpg.io/a -n prod", "there is no kind clusters.cnpg.io"),
            ("delete -n prod", "names no object"),
            ("scale deploy/web -n prod", "--replicas is missing"),
            ("scale deploy/web -n prod --replicas=all", "must be a number"),
            ("exec web-1 -n prod", "needs a command after --"),
            ("set image deploy/web x=nginx:2 -n prod", "with one of c"),
            ("patch deploy/web -n prod -p '['", "is not JSON"),
            ("taint nodes n1 gone", "must be KEY=VALUE:EFFECT"),
            ("label deploy/web new -n prod", "must be KEY=VALUE, or KEY-"),
            ("delete 'deploy/web -n prod", "cannot be taken apart"),
        ],
    )
    def test_or_are_refused_by_name(self, files: Files, line: str, said: str) -> None:
        result = files.run(suite({"do": line, "expect": REFUSE}))
        assert result.exit_code == 2
        assert "cases[0].do: " in result.stderr
        assert said in result.stderr

    def test_objects_are_made_up_only_where_a_suite_lists_none(self, files: Files) -> None:
        case = {"do": "delete deploy/anything -n prod", "expect": REFUSE}
        assert files.run(suite(case, objects=[])).exit_code == 0


class TestRequestsThatAreWrittenOut:
    @pytest.mark.parametrize(
        ("fields", "operations"),
        [
            ({"object": WEB}, ["deploy"]),
            ({"object": deployment(image="nginx:2"), "oldObject": WEB}, ["deploy"]),
            ({"oldObject": WEB}, ["delete"]),
            ({"oldObject": WEB, "operation": "DELETE"}, ["delete"]),
        ],
    )
    def test_the_operation_follows_from_the_objects(
        self, files: Files, fields: dict[str, Any], operations: list[str]
    ) -> None:
        expect = {"outcome": "refuse", "operations": operations}
        assert files.run(suite({**fields, "expect": expect})).exit_code == 0

    def test_a_namespace_that_is_made_need_not_be_there(self, files: Files) -> None:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new", "labels": {"env": "prod"}}}
        assert files.run(suite({"object": made, "expect": {"outcome": "allow", "code": "out-of-scope"}})).exit_code == 0

    def test_a_kind_whose_plural_cannot_be_guessed_is_named(self, files: Files) -> None:
        chassis = {"apiVersion": "example.com/v1", "kind": "Chassis", "metadata": {"name": "a", "namespace": "prod"}}
        run = SuiteRun(files.write(suite({"oldObject": chassis, "resource": "chassis.example.com", "expect": REFUSE})))
        request = request_of(run.suite.cases[0], run.world, run.file, "")
        assert (request.resource.group, request.resource.resource) == ("example.com", "chassis")

    def test_a_recorded_review_is_taken_as_it_is_or_with_another_user(self, files: Files) -> None:
        recorded = (ROOT / "tests/contract/reviews/deployment-delete.json").read_bytes()
        (files.folder / "review.json").write_bytes(recorded)
        cases = [{"review": "review.json", "as": who, "expect": {"outcome": answer}} for who, answer in (("", "refuse"), ("robot", "allow"))]  # fmt: skip
        files.policy(match={"namespaceSelector": {"matchLabels": {"env": "prod"}}, "exempt": {"users": ["robot"]}})
        assert files.run(suite(*cases, users={"robot": {}})).exit_code == 0


class TestProof:
    @pytest.mark.parametrize(
        ("proof", "code"),
        [
            ({}, "step-up-satisfied"),
            ({"assurance": "aal1"}, "assurance-too-low"),
            ({"age": "6m"}, "authentication-too-old"),
            ({"age": "4m"}, "step-up-satisfied"),
            ({"scope": "Namespace"}, "scope-too-wide"),
            ({"operations": ["exec"]}, "wrong-operation"),
            ({"used": "for-this"}, "used-up"),
            ({"used": "for-another"}, "used-up"),
            ({"credential": "another"}, "wrong-credential"),
        ],
    )
    def test_is_judged_as_admission_judges_it(self, files: Files, proof: dict[str, Any], code: str) -> None:
        outcome = "allow" if code == "step-up-satisfied" else "refuse"
        case = {"do": "scale deploy/web --replicas=1 -n prod", "proof": proof}
        result = files.run(suite({**case, "expect": {"outcome": outcome, "code": code}}))
        assert result.exit_code == 0, result.output

    def test_without_operations_is_for_nothing_when_the_request_is_another(self, files: Files) -> None:
        case = {"do": "delete deploy/web -n prod", "proof": {"operations": ["scale", "exec"]}}
        assert files.run(suite({**case, "expect": {"outcome": "refuse", "code": "wrong-operation"}})).exit_code == 0


class TestExpectations:
    def test_warn_and_audit_are_told_apart(self, files: Files) -> None:
        for enforcement, outcome in (("Warn", "warn"), ("Audit", "audit")):
            files.policy(enforcement=enforcement)
            assert files.run(suite({"do": "delete deploy/web -n prod", "expect": {"outcome": outcome}})).exit_code == 0

    def test_what_is_not_said_is_not_looked_at(self, files: Files) -> None:
        assert files.run(suite({"do": "delete deploy/web -n prod", "expect": REFUSE})).exit_code == 0

    @pytest.mark.parametrize(
        ("expect", "field", "found"),
        [
            ({"outcome": "allow"}, "outcome", "refuse"),
            ({"outcome": "refuse", "policies": ["other"]}, "policies", '["production"]'),
            ({"outcome": "refuse", "rule": "other"}, "rule", '["everything"]'),
            ({"outcome": "refuse", "operations": ["scale"]}, "operations", '["delete"]'),
            ({"outcome": "refuse", "code": "used-up"}, "code", "step-up-required"),
            ({"outcome": "refuse", "requirement": {"assurance": "aal3"}}, "requirement.assurance", "aal2"),
            ({"outcome": "refuse", "requirement": {"maxAge": "10m"}}, "requirement.maxAge", "5m"),
            ({"outcome": "refuse", "requirement": {"use": "Window"}}, "requirement.use", "Once"),
            ({"outcome": "refuse", "requirement": {"scope": "Namespace"}}, "requirement.scope", "Object"),
            ({"outcome": "refuse", "requirement": {"reason": {"required": True}}}, "requirement.reason.required", "false"),
            ({"outcome": "refuse", "requirement": {"reason": {"patterns": ["A"]}}}, "requirement.reason.patterns", "(none)"),
        ],
    )  # fmt: skip
    def test_each_difference_is_shown(self, files: Files, expect: dict[str, Any], field: str, found: str) -> None:
        result = files.run(suite({"do": "delete deploy/web -n prod", "expect": expect}))
        assert result.exit_code == 1
        assert f"\n     + {field}: {found}\n" in result.stdout
        assert f"\n     - {field}: " in result.stdout
        assert "because: you have not stepped up" in result.stdout

    def test_a_rule_of_several_and_another_form_of_the_same_age(self, files: Files) -> None:
        files.policy(
            rules=[
                {"name": "one", "operations": ["delete"]},
                {"name": "two", "operations": ["delete"], "require": {"maxAge": "90s"}},
            ]
        )
        expect = {"outcome": "refuse", "rule": ["two", "one"], "requirement": {"maxAge": "1m30s"}}
        assert files.run(suite({"do": "delete deploy/web -n prod", "expect": expect})).exit_code == 0

    def test_labels_of_the_object_are_known_to_exec_as_they_are_to_admission(self, files: Files) -> None:
        files.policy(match={"objectSelector": {"matchLabels": {"tier": "one"}}})
        other = {**pod("other"), "metadata": {"name": "other", "namespace": "prod", "labels": {"tier": "one"}}}
        cases = [
            {"do": "exec web-1 -n prod -- ls", "expect": {"outcome": "allow"}},
            {"do": "exec other -n prod -- ls", "expect": REFUSE},
        ]
        assert files.run(suite(*cases, objects=[pod(), other])).exit_code == 0

    def test_whoever_is_impersonated_has_no_credential(self, files: Files) -> None:
        files.policy(match={"exempt": {"users": ["robot", "system:serviceaccount:ci:deployer"]}})
        users = {
            "robot": {},
            "as-robot": {"username": "robot", "credential": "none"},
            "deployer": {"serviceAccount": "ci/deployer"},
            "certificate": {"serviceAccount": "ci/deployer", "credential": "certificate"},
        }
        answers = {"robot": "allow", "as-robot": "refuse", "deployer": "allow", "certificate": "refuse"}
        cases = [
            {"name": who, "as": who, "do": "delete deploy/web -n prod", "expect": {"outcome": answer}}
            for who, answer in answers.items()
        ]
        assert files.run(suite(*cases, users=users)).exit_code == 0


class TestASuiteThatIsWrong:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"polices": []}, "polices: there is no such field"),
            ({"policies": []}, "policies: "),
            ({"policies": ["gone.yaml"]}, "gone.yaml: No such file"),
            ({"cases": []}, "cases: "),
            ({"cases": [{"as": "alice", "do": "delete x", "expect": REFUSE}]}, "cases[0].name: is required"),
            ({"namespaces": {"prod": {"label": {}}}}, "namespaces[...].label: there is no such field"),
            ({"users": {"alice": {"serviceAccount": "deployer"}}}, "users[...].serviceAccount: "),
            ({"objects": [{"kind": "Pod"}]}, "objects[0]: needs apiVersion and kind"),
            ({"objects": [{"apiVersion": "v1", "kind": "Pod"}]}, "objects[0].metadata.name: is required"),
            ({"objects": [{**WEB, "metadata": {"name": "web"}}]}, "objects[0].metadata.namespace: is required"),
            ({"objects": ["gone.yaml"]}, "gone.yaml: No such file"),
            ({"at": "2026-11-24T12:00:00"}, "at: "),
        ],
    )
    def test_is_refused_with_the_path_of_the_field(self, files: Files, change: dict[str, Any], said: str) -> None:
        result = files.run({**suite({"do": "delete deploy/web -n prod", "expect": REFUSE}), **change})
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr

    @pytest.mark.parametrize(
        ("case", "said"),
        [
            ({"expect": REFUSE}, "cases[0]: needs a request: one of"),
            ({"do": "delete x", "object": WEB, "expect": REFUSE}, "cases[0]: needs a request: one of"),
            ({"as": "", "do": "delete x", "expect": REFUSE}, "cases[0].as: is required"),
            ({"as": "bob", "do": "delete x", "expect": REFUSE}, "cases[0].as: bob is none of `users`"),
            ({"do": "delete x", "operation": "DELETE", "expect": REFUSE}, "cases[0]: `operation` and `resource` go with"),
            ({"object": WEB, "operation": "DELETE", "expect": REFUSE}, "cases[0].operation: DELETE goes with oldObject"),
            ({"object": WEB, "oldObject": pod(), "expect": REFUSE}, "cases[0].oldObject: is another object"),
            ({"review": "gone.json", "expect": REFUSE}, "cases[0].review: gone.json: No such file"),
            ({"review": "policy.yaml", "expect": REFUSE}, "cases[0].review: policy.yaml: is not JSON"),
            ({"do": "delete x", "proof": {"age": "old"}, "expect": REFUSE}, "cases[0].proof.age: 'old' is not a duration"),
            ({"do": "delete x", "proof": {"use": "Once"}, "expect": REFUSE}, "cases[0].proof.use: there is no such field"),
            ({"do": "delete x", "expect": {"outcome": "pass"}}, "cases[0].expect.outcome: "),
            ({"do": "delete x", "expect": {"outcome": "refuse", "rules": []}}, "cases[0].expect.rules: there is no such"),
            ({"do": "delete x", "expect": {"outcome": "refuse", "requirement": {"maxAge": "x"}}}, "requirement.maxAge: 'x'"),
        ],
    )  # fmt: skip
    def test_so_is_a_case(self, files: Files, case: dict[str, Any], said: str) -> None:
        result = files.run(suite(case))
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr

    @pytest.mark.parametrize(("text", "said"), [("a: [", "line 1: is not YAML"), ("- a", "expected `object`")])
    def test_so_is_what_is_no_suite_at_all(self, files: Files, text: str, said: str) -> None:
        result = files.run(text)
        assert result.exit_code == 2
        assert said in result.stderr

    def test_two_cases_of_one_name(self, files: Files) -> None:
        case = {"name": "same", "do": "delete deploy/web -n prod", "expect": REFUSE}
        assert "there are two cases called 'same'" in files.run(suite(case, case)).stderr

    def test_a_policy_that_cannot_be_used(self, files: Files) -> None:
        files.policy(rules=[])
        result = files.run(suite({"do": "delete deploy/web -n prod", "expect": REFUSE}))
        assert result.exit_code == 2
        assert "policy.yaml: spec.rules: " in result.stderr

    @pytest.mark.parametrize("arguments", [["--policy", "p"], ["--review", "r"], ["--now", "x"], ["-o", "xml"]])
    def test_options_that_do_not_go_together(self, files: Files, arguments: list[str]) -> None:
        assert files.run(suite({"do": "delete deploy/web -n prod", "expect": REFUSE}), *arguments).exit_code == 2

    def test_without_suite_there_must_be_policies_and_reviews(self) -> None:
        assert CliRunner().invoke(stepup.app, ["policy", "test"]).exit_code == 2


class TestOutput:
    def test_json_is_one_object_a_case(self, files: Files) -> None:
        cases = [{"do": "delete deploy/web -n prod", "expect": {"outcome": answer}} for answer in ("refuse", "allow")]
        result = files.run(suite(*cases, name="mine"), "-o", "json")
        first, second = map(json.loads, result.stdout.splitlines())
        assert result.exit_code == 1
        assert first == {
            "suite": "mine", "case": "case 0", "passed": True, "differences": [], "reason": "you have not stepped up",
        }  # fmt: skip
        assert second["differences"] == [{"field": "outcome", "expected": "allow", "found": "refuse"}]

    def test_junit_can_be_read_whatever_names_hold(self, files: Files) -> None:
        name = 'a "<case>" & \x07 more'
        cases = [
            {"name": name, "do": "delete deploy/web -n prod", "expect": {"outcome": "allow"}},
            {"do": "delete deploy/web -n prod", "expect": REFUSE},
        ]
        path = files.folder / "junit.xml"
        assert files.run(suite(*cases, name="mine"), "--junit", str(path)).exit_code == 1
        (found,) = ET.parse(path).getroot()  # noqa: S314 - written a moment ago, by us
        assert {key: found.get(key) for key in ("name", "tests", "failures")} == {"name": "mine", "tests": "2", "failures": "1"}  # fmt: skip
        failing, passing = found
        assert failing.get("name") == name.replace("\x07", "�")
        assert [one.get("message") for one in failing] == ["outcome: expected allow, is refuse"]
        assert list(passing) == []

    def test_several_suites_in_one_run(self, files: Files) -> None:
        one = suite({"do": "delete deploy/web -n prod", "expect": REFUSE}, name="one")
        second = files.write({**one, "name": "two"}, "second.yaml")
        result = files.run(one, str(second))
        assert result.stdout.splitlines() == ["ok   one: case 0", "ok   two: case 0", "2 cases, all as expected"]

    def test_a_file_that_cannot_be_written(self, files: Files) -> None:
        result = files.run(suite({"do": "delete deploy/web -n prod", "expect": REFUSE}), "--junit", str(files.folder))
        assert result.exit_code == 2

    def test_the_schema_in_the_documents_is_that_of_the_program(self) -> None:
        stored = json.loads((ROOT / "docs" / "policy-suite.schema.json").read_text(encoding="utf-8"))
        assert stored == json.loads(json.dumps(schema())), "run: stepup policy test --print-schema"
        assert json.loads(CliRunner().invoke(stepup.app, ["policy", "test", "--print-schema"]).stdout) == stored
