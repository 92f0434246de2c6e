"""``stepup policy report``: from the cluster and from audit lines, the same answer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from webhook.cli import report, stepup
from webhook.cli.exits import ElevateError
from webhook.core.report import stamp

NOW = stamp(time.time())
RULE = {"policy": "production", "rule": "destroy", "operation": "delete"}


def audit_line(**changes: Any) -> str:
    line = {"log": "audit", "event": "decision", "user": "alice", "time": NOW, "refused_by": [RULE], "would_refuse": []}
    return json.dumps({**line, **changes})


def run(*arguments: str) -> Any:
    return CliRunner().invoke(stepup.app, ["policy", "report", *arguments])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "audit.log"
    texts = [
        audit_line(),
        audit_line(),
        audit_line(refused_by=[], would_refuse=[RULE], user="bob\x1b[2J"),
        audit_line(time="2020-01-01T00:00:00Z", user="carol"),
        audit_line(time="nonsense"),
        audit_line(event="elevation-granted"),
        "Traceback (most recent call last):",
        "[]",
        '{"half":',
    ]
    file.write_text("\n".join(texts))
    return file


def test_lines_are_counted_and_the_table_speaks_to_no_terminal(log: Path) -> None:
    result = run("--audit-log", str(log))
    heading, *rows = (row.split() for row in result.stdout.splitlines())
    assert heading == ["OUTCOME", "POLICY", "RULE", "OPERATION", "USER", "COUNT", "FIRST", "LAST"]
    assert [row[:6] for row in rows] == [
        ["refused", "production", "destroy", "delete", "alice", "2"],
        ["would-refuse", "production", "destroy", "delete", "bob\\u001b[2J", "1"],
    ]


def test_it_can_be_narrowed_and_read_by_programs(log: Path) -> None:
    found = json.loads(run("--audit-log", str(log), "--user", "alice", "--since", "12h", "-o", "json").stdout)
    assert [(one["user"], one["count"]) for one in found["lines"]] == [("alice", 2)]
    assert "Nothing was refused" in run("--audit-log", str(log), "--policy", "other").stdout
    assert len(run("--audit-log", str(log), "--since", "9999d").stdout.splitlines()) == 4


def test_audit_lines_come_from_standard_input_as_well() -> None:
    result = CliRunner().invoke(stepup.app, ["policy", "report", "--audit-log", "-"], input=audit_line() + "\n")
    assert "alice" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "soon"), "--since"),
        (("-o", "yaml"), "--output"),
        (("--audit-log", "/nowhere/at/all"), "--audit-log: /nowhere/at/all"),
        (("--kubectl=-nprod",), "--kubectl"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, ElevateError)
    assert said in result.exception.message


class Answer:
    def __init__(self, returncode: int, stdout: str = "", stderr: str = "") -> None:
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


def test_the_cluster_is_asked_by_the_kubectl_with(monkeypatch: pytest.MonkeyPatch) -> None:
    today = {"metadata": {"name": f"day-{NOW[:10]}"}, "lines": [{**RULE, "user": "", "outcome": "refused", "count": 4, "first": NOW, "last": NOW}]}  # fmt: skip
    old = {"metadata": {"name": "day-2020-01-01"}, "lines": today["lines"]}
    totals = {"metadata": {"name": "totals"}, "policies": []}
    asked: list[tuple[str, ...]] = []

    class Kubectl:
        def run(self, *arguments: str) -> Answer:
            asked.append(arguments)
            return Answer(0, json.dumps({"items": [totals, old, today]}))

    monkeypatch.setattr(report, "kubectl_with", lambda _: Kubectl())
    result = run()
    assert asked == [("get", "stepupreports.kube-stepup.io", "-o", "json")]
    assert result.stdout.splitlines()[1].split()[4:6] == ["(others)", "4"]
    monkeypatch.setattr(Kubectl, "run", lambda *_: Answer(1, stderr="Error from server (Forbidden): no"))
    assert "Forbidden" in str(run().exception)
