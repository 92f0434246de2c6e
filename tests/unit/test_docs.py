"""The documents say what the program does: codes, events, options, examples, tests and links are those that exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from tests.cluster.test_cel_parity import DIFFERENCES, LAXER, STRICTER
from tests.routes import ROUTES
from webhook.cli import elevate, exits, kubectl, prompt, stepup
from webhook.cli.suites import document
from webhook.core import decision
from webhook.core.assertion import CHECKS
from webhook.core.cel.condition import MAX_CONDITIONS, MAX_VARIABLES
from webhook.core.cel.engine import KNOWN_FIELDS, MAX_DEPTH, MAX_LENGTH, MAX_NESTED_COMPREHENSIONS
from webhook.core.cel.scope import MAX_COST
from webhook.core.lint import findings
from webhook.core.policy import Policy
from webhook.settings import CONFIG_VARIABLE

ROOT = Path(__file__).parents[2]
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "webhook").rglob("*.py"))}
OPERATIONS, POLICY, THREATS, CLI = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("operations", "policy", "threat-model", "cli")
)
LINKED = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")]
LINKED += [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "policies" / "README.md"]
LINT = tuple(ROOT / "webhook" / "core" / f"{name}.py" for name in ("lint", "lint_rules", "lint_conditions"))
KEBAB = re.compile(r"[a-z]+(-[a-z0-9]+)*")
NO_CODES = {"code", "cause", "path", "ascii", "utf"}


def nodes(kind: type[ast.AST], *, but: Collection[Path] = ()) -> Iterator[Any]:
    for path, tree in SOURCES.items():
        if path not in but:
            yield from (node for node in ast.walk(tree) if isinstance(node, kind))


def texts(node: ast.AST) -> set[str]:
    """String literals that could be a code, also those of a conditional expression."""
    found = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return {text for text in found if KEBAB.fullmatch(text)}


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def places_of_code() -> dict[str, int]:
    """Functions and classes that take a ``code``, and at which position."""
    found: dict[str, int] = {}
    for one in nodes(ast.FunctionDef):
        names = [argument.arg for argument in one.args.args if argument.arg not in {"self", "cls"}]
        if "code" in names and one.name != "__init__":
            found[one.name] = names.index("code")
    for one in nodes(ast.ClassDef):
        fields = [
            line.target.id for line in one.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        ]
        start = next((line for line in one.body if isinstance(line, ast.FunctionDef) and line.name == "__init__"), None)
        names = [argument.arg for argument in start.args.args[1:]] if start else fields
        if "code" in names:
            found[one.name] = names.index("code")
    return found


def codes(*, but: Collection[Path] = LINT) -> set[str]:
    """Every stable code in the sources: ``code=…``, ``code = …`` in a class, or at the place of a parameter of that name."""
    places = places_of_code()
    found = {*CHECKS, *(value for name, value in vars(decision).items() if name.isupper() and isinstance(value, str))}
    for one in nodes(ast.keyword, but=but):
        found |= texts(one.value) if one.arg == "code" and isinstance(one.value, ast.Constant | ast.IfExp) else set()
    for one in nodes(ast.Call, but=but):
        place = places.get(called(one))
        if place is not None and len(one.args) > place and isinstance(one.args[place], ast.Constant):
            found |= texts(one.args[place])
    for one in nodes(ast.ClassDef, but=but):
        for line in one.body:
            if isinstance(line, ast.Assign) and [getattr(target, "id", "") for target in line.targets] == ["code"]:
                found |= texts(line.value)
    return found - NO_CODES - (lint_codes() - {"bad-policy"})


def lint_codes() -> set[str]:
    lines = [one for path in LINT for one in ast.walk(SOURCES[path])]
    yielded = [one.value for one in lines if isinstance(one, ast.Yield) and isinstance(one.value, ast.Tuple)]
    return {"bad-policy", "duplicate-name", *(text for one in yielded for text in texts(one.elts[0]))}


def audit_calls() -> dict[str, set[str]]:
    """Names of audit events, and the fields that the call itself gives."""
    found: dict[str, set[str]] = {}
    for one in nodes(ast.Call):
        if called(one) in {"audit", "_audit", "audit_elevation"} and one.args and isinstance(one.args[0], ast.Constant):
            fields = {word.arg for word in one.keywords if word.arg is not None}
            found[one.args[0].value] = found.get(one.args[0].value, set()) | fields
    return found


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def policies(text: str) -> dict[str, str]:
    """Examples by name: whole StepUpPolicies in YAML."""
    found = [block for block in blocks(text, "yaml") if "kind: StepUpPolicy" in block]
    return {yaml.safe_load(block)["metadata"]["name"]: block for block in found}


def section(text: str, title: str) -> str:
    return re.split(r"^#{1,2} ", text.split(f"\n## {title}\n", 1)[1], flags=re.MULTILINE)[0]


def trials() -> list[tuple[str, str]]:
    """Commands of docs/policy.md and the output that is shown beneath each."""
    pieces = [piece for block in blocks(POLICY, "console") for piece in block.split("$ ")[1:]]
    return [(command, shown) for command, _, shown in (piece.partition("\n") for piece in pieces)]


class TestOperations:
    @pytest.mark.parametrize("code", sorted(codes()))
    def test_every_code_is_explained(self, code: str) -> None:
        assert f"\n| `{code}` |" in OPERATIONS, "add a row: what it means, and the way out"

    def test_no_code_is_explained_that_there_is_not(self) -> None:
        explained = set(re.findall(r"^\| `([a-z0-9-]+)` \|", section(OPERATIONS, "Codes"), re.MULTILINE))
        assert explained <= codes(but=())

    @pytest.mark.parametrize("event", sorted(audit_calls()))
    def test_every_audit_event_has_an_example_with_its_fields(self, event: str) -> None:
        lines = [json.loads(line) for block in blocks(OPERATIONS, "json") for line in block.splitlines()]
        shown = [line for line in lines if line.get("event") == event]
        assert shown, "add an example line"
        assert audit_calls()[event] - {"code", "factor"} <= shown[0].keys()

    def test_every_value_that_is_named_is_one_of_the_chart(self) -> None:
        values = yaml.safe_load((ROOT / "charts" / "kube-stepup" / "values.yaml").read_text(encoding="utf-8"))
        named = re.findall(r"^\| `([\w.]+)` \|", section(OPERATIONS, "Values that matter"), re.MULTILINE)
        assert named
        for name in named:
            value: Any = values
            for part in name.split("."):
                assert part in value, f"there is no value {name}"
                value = value[part]


class TestPolicy:
    @pytest.mark.parametrize("name", sorted(policies(POLICY)))
    def test_each_example_is_a_policy_without_findings(self, name: str) -> None:
        obj = yaml.safe_load(policies(POLICY)[name])
        Policy.parse(obj)
        assert findings(obj) == []

    def test_so_is_that_of_the_readme(self) -> None:
        examples = policies((ROOT / "README.md").read_text(encoding="utf-8"))
        assert all(findings(yaml.safe_load(block)) == [] for block in examples.values())

    def test_the_reference_shows_fields_that_exist(self) -> None:
        (block,) = [one for one in blocks(POLICY, "yaml") if one.startswith("spec:")]
        whole = {"apiVersion": "kube-stepup.io/v1alpha1", "kind": "StepUpPolicy", "metadata": {"name": "a"}}
        Policy.parse({**whole, **yaml.safe_load(block)})

    def test_there_are_five_and_each_is_tried(self) -> None:
        tried = {
            word.removesuffix(".yaml") for command, _ in trials() for word in command.split() if word.endswith(".yaml")
        }
        assert tried == set(policies(POLICY))
        assert len(tried) == 5

    @pytest.mark.parametrize(("command", "shown"), trials(), ids=lambda text: text[:60])
    def test_each_command_prints_what_is_shown(
        self, command: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(ROOT)
        for name, block in policies(POLICY).items():
            (tmp_path / f"{name}.yaml").write_text(block, encoding="utf-8")
        typed, _, projection = command.partition(" | jq ")
        words = [str(tmp_path / word) if word.endswith(".yaml") else word for word in shlex.split(typed)[1:]]
        result = CliRunner().invoke(stepup.app, words)
        if words[:2] == ["policy", "explain"]:
            assert result.stdout == shown
            return
        fields = re.findall(r"\w+", projection.partition("{")[2])
        printed = [json.loads(line) for line in result.stdout.splitlines()]
        found = [{field: line[field] for field in fields} if fields else line for line in printed]
        expected = [json.loads(line) for line in shown.splitlines()] if fields else [json.loads(shown)]
        assert found == expected
        assert result.exit_code == (0 if all(line["allowed"] for line in printed) else 1)

    @pytest.mark.parametrize("code", sorted(lint_codes()))
    def test_every_lint_code_is_explained(self, code: str) -> None:
        assert f"\n| `{code}` |" in section(POLICY, "Lint")


class TestCommands:
    @pytest.mark.parametrize(("app", "title"), [(elevate.app, "kubectl elevate"), (stepup.app, "stepup")])
    def test_every_command_and_option_is_there(self, app: typer.Typer, title: str) -> None:
        text = section(CLI, title)
        for command, option in options(typer.main.get_command(app)):
            assert f"`{option or command}" in text, f"{command} {option}"

    @pytest.mark.parametrize("name", ["OK", "FAILED", "USAGE", "REFUSED", "WRONG_CODE", "UNREACHABLE", "INTERRUPTED"])
    def test_every_exit_code_is_there(self, name: str) -> None:
        assert f"\n| {getattr(exits, name)} |" in CLI

    @pytest.mark.parametrize("variable", [prompt.CODE_COMMAND, kubectl.PROGRAM_VARIABLE, CONFIG_VARIABLE])
    def test_every_variable_is_there(self, variable: str) -> None:
        assert f"| `{variable}` |" in CLI


def options(command: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(command, option) of a command line, all the way down; the option is empty for the command itself."""
    if name and not command.hidden:
        yield name, ""
    for parameter in command.params:
        yield from (
            (name, option) for option in parameter.opts if option.startswith("--") and "completion" not in option
        )
    for child_name, child in getattr(command, "commands", {}).items():
        yield from options(child, f"{name} {child_name}".strip())


NAMED = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)(?:\[([^\]`]+)\])?`", THREATS)


class TestThreats:
    def test_tests_are_named(self) -> None:
        assert len(NAMED) > 50

    @pytest.mark.parametrize(("file", "name", "row"), NAMED, ids=lambda text: text.rpartition("/")[2])
    def test_every_test_that_is_named_exists(self, file: str, name: str, row: str) -> None:
        body: Any = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        for part in name.split("::"):
            found = [one for one in body if getattr(one, "name", "") == part]
            assert found, f"{file} has no {name}"
            body = found[0].body
        if row:
            assert row in {route.name for route in ROUTES}, f"there is no road {row!r}"


def headings(path: Path) -> set[str]:
    """Anchors of a document, as they are made on code hosts."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{target}: there is no such file"
        assert not anchor or anchor in headings(found), f"{target}: there is no such heading"


DIFFERENT = dict(
    re.findall(r"^\| `(.+?)` \| (takes it|refuses it|true|fails)", section(POLICY, "Reference"), re.MULTILINE)
)


class TestConditions:
    """The table of what differs from Kubernetes' own CEL is that of the test that asks both."""

    def test_what_differs_is_all_there(self) -> None:
        assert {one for one, answer in DIFFERENT.items() if answer == "refuses it"} == set(LAXER)
        assert {one for one, answer in DIFFERENT.items() if answer in {"takes it", "true"}} == set(STRICTER)
        assert {one for one, answer in DIFFERENT.items() if answer == "fails"} == set(DIFFERENCES)

    def test_every_variable_and_field_is_there(self) -> None:
        text = section(POLICY, "Reference")
        for name, fields in KNOWN_FIELDS.items():
            root = name.partition(".")[0]
            (row,) = re.findall(rf"^\| `{root}` \| (.*)$", text, re.MULTILINE)
            assert all(f"`{field}`" in row for field in fields if name.count(".") == 0), f"{name}: {row}"

    def test_the_limits_are_those_of_the_program(self) -> None:
        text = " ".join(section(POLICY, "Reference").split())
        for number in (MAX_LENGTH, MAX_DEPTH, MAX_NESTED_COMPREHENSIONS, MAX_CONDITIONS, MAX_VARIABLES, MAX_COST):
            assert f" {number:,} " in text, number


def test_every_field_of_a_suite_is_explained() -> None:
    text = section(POLICY, "Suites")
    for struct in (document.Suite, document.Case, document.UserEntry, document.NamespaceEntry, document.Proof, document.Expected, document.ExpectedRequirement):  # fmt: skip
        for field in msgspec.structs.fields(struct):
            if field.encode_name != "name":
                assert re.search(rf"[`.]{field.encode_name}[`\[]", text), f"{struct.__name__}.{field.encode_name}"
    (example,) = blocks(text, "yaml")
    document.read_suite(example.encode())


def test_the_suite_in_the_documents_passes(tmp_path: Path) -> None:
    (tmp_path / "production.yaml").write_text(policies(POLICY)["production"], encoding="utf-8")
    (example,) = blocks(section(POLICY, "Suites"), "yaml")
    (tmp_path / "suite.yaml").write_text(example, encoding="utf-8")
    result = CliRunner().invoke(stepup.app, ["policy", "test", "--suite", str(tmp_path / "suite.yaml")])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "suite", sorted((ROOT / "examples" / "policies").glob("*/suite.yaml")), ids=lambda path: path.parent.name
)
def test_each_example_passes_its_suite_and_lint_and_is_explained(suite: Path) -> None:
    assert CliRunner().invoke(stepup.app, ["policy", "test", "--suite", str(suite)]).exit_code == 0
    found = [one for obj in yaml.safe_load_all((suite.parent / "policy.yaml").read_text()) for one in findings(obj)]
    assert [one.code for one in found] == (["matches-everything"] if suite.parent.name == "permissions" else [])
    text = (suite.parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"\n## [{suite.parent.name}]({suite.parent.name}/policy.yaml)\n" in text
