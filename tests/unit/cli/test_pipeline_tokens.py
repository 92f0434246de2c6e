"""Where a pipeline's token comes from, and what `stepup ci elevate` does with it."""

from __future__ import annotations

import io
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from webhook.cli import ci, pipeline_tokens, stepup, waiting, wrapper
from webhook.cli.exits import REFUSED, USAGE, ElevateError
from webhook.cli.pipeline_tokens import source_of

TOKEN = "e30.e30.c2ln"
DETAIL = {"operation": "deploy", "group": "apps", "resource": "deployments", "namespace": "prod", "objects": [{"name": "web"}]}  # fmt: skip


@pytest.fixture(autouse=True)
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        pipeline_tokens.GITHUB_URL,
        pipeline_tokens.GITHUB_TOKEN,
        pipeline_tokens.DEFAULT_VARIABLE,
        "BUILDKITE",
        "KUBERNETES_SERVICE_HOST",
    ):
        monkeypatch.delenv(name, raising=False)


class Host:
    """Plays GitHub's token service."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[urllib.request.Request] = []

    def open(self, request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert timeout
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return io.BytesIO(json.dumps(self.answer).encode())


def github(monkeypatch: pytest.MonkeyPatch, answer: Any, url: str = "https://runner.example.com/token?v=2") -> Host:
    host = Host(answer)
    monkeypatch.setenv(pipeline_tokens.GITHUB_URL, url)
    monkeypatch.setenv(pipeline_tokens.GITHUB_TOKEN, "bearer-of-the-job")
    monkeypatch.setattr(urllib.request, "build_opener", lambda *_: host)
    return host


def test_github_is_asked_for_a_token_for_this_cluster_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    host = github(monkeypatch, {"value": TOKEN})
    source = source_of("auto", "prod/eu west", [], "")
    assert [source(), source()] == [TOKEN, TOKEN]
    assert [one.full_url for one in host.asked] == [
        "https://runner.example.com/token?v=2&audience=prod%2Feu%20west"
    ] * 2
    assert host.asked[0].get_header("Authorization") == "bearer bearer-of-the-job"


@pytest.mark.parametrize(
    "answer", [{}, [], {"value": 7}, {"value": "no token"}, urllib.error.URLError("no route"), ValueError("no JSON")]
)
def test_github_that_gives_none_is_said_without_what_it_said(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    github(monkeypatch, answer)
    with pytest.raises(ElevateError) as caught:
        source_of("github", "c", [], "")()
    assert "no token" in caught.value.message
    assert "bearer-of-the-job" not in caught.value.message
    assert "no route" not in caught.value.message


def test_github_is_not_asked_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    github(monkeypatch, {"value": TOKEN}, "http://runner.example.com/token")
    with pytest.raises(ElevateError, match="https"):
        source_of("github", "c", [], "")


def test_a_redirect_does_not_get_the_bearer() -> None:
    assert pipeline_tokens._NoRedirect().redirect_request() is None  # type: ignore[func-returns-value]


def test_variables_are_used_up_and_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "a.a.a")
    monkeypatch.setenv("TWO", "b.b.b")
    source = source_of("gitlab", "", ["ONE", "TWO", "NONE"], "")
    assert not {"ONE", "TWO"} & os.environ.keys()
    assert [source(), source()] == ["a.a.a", "b.b.b"]
    with pytest.raises(ElevateError, match="used up"):
        source()


def test_the_usual_variable_is_found_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pipeline_tokens.DEFAULT_VARIABLE, TOKEN)
    assert source_of("auto", "", [], "")() == TOKEN


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.a.a\n")
    source = source_of("auto", "", [], str(file))
    assert source() == "a.a.a"
    file.write_text("b.b.b")
    assert source() == "b.b.b"


def test_the_agent_of_buildkite_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    agent = tmp_path / "buildkite-agent"
    agent.write_text(f'#!/bin/sh\n[ "$*" = "oidc request-token --audience c" ] && echo {TOKEN}\n')
    agent.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("BUILDKITE", "true")
    assert source_of("auto", "c", [], "")() == TOKEN
    with pytest.raises(ElevateError, match="gave no token"):
        source_of("buildkite", "other", [], "")()


def test_in_a_pod_the_account_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert source_of("auto", "", [], "")() == ""


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("jenkins", "--issuer"),
        ("auto", "no token of this pipeline"),
        ("github", "id-token: write"),
        ("env", "--token-env"),
        ("file", "--token-file"),
        ("buildkite", "--audience"),
    ],
)
def test_what_is_missing_is_said(kind: str, says: str) -> None:
    with pytest.raises(ElevateError) as caught:
        source_of(kind, "", [], "")
    assert caught.value.exit_code == USAGE
    assert says in caught.value.message


class Cluster:
    """Plays kubectl."""

    def __init__(self, *statuses: dict[str, Any]) -> None:
        self.statuses = list(statuses)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def create(self, resource: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        assert kind == "TokenExchange"
        self.sent.append((resource, spec))
        return {"status": self.statuses.pop(0)}

    def get(self, _: str) -> dict[str, Any]:
        return {"status": self.statuses.pop(0)}


CHALLENGE = {"policies": ["production"]}
GRANTED = {"phase": "Granted", "elevation": "elv-1", "expiresAt": "soon", "assertion": "SECRET", "challenge": CHALLENGE}
WAITING = {"phase": "AwaitingApproval", "elevation": "elv-1", "message": "waits for sre-leads", "challenge": CHALLENGE}


def test_a_token_is_exchanged_and_what_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster({**GRANTED, "notMet": ["people"]})
    result = ci.Exchanges(lambda: TOKEN)(cluster, [DETAIL], "OPS-7")  # type: ignore[arg-type]
    assert cluster.sent == [("tokenexchanges", {"details": [DETAIL], "reason": "OPS-7", "subjectToken": TOKEN})]
    assert (result.name, result.assertion) == ("elv-1", "SECRET")
    said = capsys.readouterr()
    assert "deploy deployments.apps/web in prod (policy production)" in said.err
    assert "policy people takes no such pipeline" in said.err
    assert said.out == ""
    assert TOKEN not in said.err
    assert "SECRET" not in said.err + repr(result)


def test_one_token_can_do_for_a_namespace() -> None:
    cluster = Cluster(GRANTED)
    node = {"operation": "drain", "group": "", "resource": "nodes", "objects": [{"name": "n1"}]}
    prove = ci.Exchanges(lambda: TOKEN, whole_namespace=True)
    prove(cluster, [DETAIL, {**DETAIL, "objects": [{"name": "api"}]}, node], "")  # type: ignore[arg-type]
    wide = {"operation": "deploy", "namespace": "prod", "scope": "Namespace"}
    assert cluster.sent[0][1]["details"] == [wide, node]


def test_without_a_token_none_is_sent() -> None:
    cluster = Cluster(GRANTED)
    ci.Exchanges(lambda: "")(cluster, [DETAIL], "")  # type: ignore[arg-type]
    assert "subjectToken" not in cluster.sent[0][1]


def test_where_nothing_is_asked_that_is_said() -> None:
    result = ci.Exchanges(lambda: TOKEN)(Cluster({"phase": "NotRequired", "message": "none"}), [DETAIL], "")  # type: ignore[arg-type]
    assert (result.name, result.why_not) == ("", "none")


def test_it_waits_until_a_person_releases_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting.time, "sleep", lambda _: None)
    cluster = Cluster(WAITING, WAITING, {"phase": "Granted", "expiresAt": "soon"})
    result = ci.Exchanges(lambda: TOKEN)(cluster, [DETAIL], "")  # type: ignore[arg-type]
    assert (result.name, result.expires_at, result.assertion) == ("elv-1", "soon", "")


@pytest.mark.parametrize(("phase", "says"), [("Denied", "was denied"), ("Approved", "too old already")])
def test_it_ends_when_nobody_releases_it_in_time(phase: str, says: str) -> None:
    cluster = Cluster(WAITING, {"phase": phase})
    with pytest.raises(ElevateError, match=says) as caught:
        ci.Exchanges(lambda: TOKEN)(cluster, [DETAIL], "")  # type: ignore[arg-type]
    assert caught.value.exit_code == REFUSED


def test_the_command_is_wrapped_and_its_exit_code_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T", TOKEN)
    given: dict[str, Any] = {}

    def run(command: list[str], **options: Any) -> int:
        given.update(options, command=command)
        return 42

    monkeypatch.setattr(wrapper, "run", run)
    words = ["ci", "elevate", "--token-env", "T", "--reason", "OPS-7", "--kubectl=--context=c", "--", "helm", "upgrade", "-n", "x"]  # fmt: skip
    assert CliRunner().invoke(stepup.app, words).exit_code == 42
    assert given["command"] == ["helm", "upgrade", "-n", "x"]
    assert (given["reason"], given["carrier"], list(given["own_flags"])) == ("OPS-7", "record", ["--context=c"])
    assert given["prove"]._source() == TOKEN


def test_a_scope_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T", TOKEN)
    result = CliRunner().invoke(stepup.app, ["ci", "elevate", "--token-env", "T", "--scope", "cluster", "--", "helm"])
    assert isinstance(result.exception, ElevateError)
    assert "--scope" in result.exception.message


def test_a_command_is_needed() -> None:
    result = CliRunner().invoke(stepup.app, ["ci", "elevate"])
    assert isinstance(result.exception, ElevateError)
    assert result.exception.exit_code == USAGE
