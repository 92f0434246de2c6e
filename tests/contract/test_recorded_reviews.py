"""Every AdmissionReview recorded from a real API server, through `stepup policy test` as an operator would run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders import deletion, policy

REVIEWS = Path(__file__).parent / "reviews"
EXPECTED: dict[str, tuple[list[str], str]] = {
    "deletecollection-by-namespace-controller": (["delete"], "controller"),
    "deployment-apply-replicas-zero": (["deploy", "scale"], "step-up-required"),
    "deployment-delete": (["delete"], "step-up-required"),
    "deployment-set-image": (["deploy"], "step-up-required"),
    "exec-websocket": (["exec"], "step-up-required"),
    "namespace-delete": (["delete"], "step-up-required"),
    "namespace-relabel": (["guard"], "step-up-required"),
    "node-cordon": (["drain"], "not-required"),
    "node-proxy": (["exec"], "not-required"),  # a policy on namespaces does not reach cluster-scoped objects
    "pod-delete-by-garbage-collector": (["delete"], "controller"),
    # kwok plays the kubelet with the administrator's certificate: a person, by all that the API server tells
    "pod-delete-by-kubelet": (["delete"], "step-up-required"),
    "pod-delete-by-replicaset-controller": (["delete"], "controller"),
    "pod-eviction": (["delete"], "step-up-required"),
    "portforward": (["exec"], "step-up-required"),
    "replicaset-scaled-by-controller": (["scale"], "controller"),
    "rolebinding-create": (["access"], "step-up-required"),
    "rollout-restart": (["restart"], "step-up-required"),
    "statefulset-scale-to-zero": (["scale"], "step-up-required"),
}


def stepup(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "webhook.cli.stepup", "policy", "test", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy()), encoding="utf-8")
    return file


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_recorded_review_is_expected_here() -> None:
    assert {file.stem for file in REVIEWS.glob("*.json")} == set(EXPECTED)


def test_each_recorded_review_gives_its_classes_and_its_code(policy_file: Path) -> None:
    files = [REVIEWS / f"{name}.json" for name in EXPECTED]
    result = stepup("--policy", policy_file, "--namespace-labels", "env=prod,team=a", "--review", *files)
    assert result.returncode == 1, result.stderr
    found = {Path(line["review"]).stem: (line["operations"], line["code"]) for line in lines(result)}
    assert found == EXPECTED


def test_each_line_has_exactly_the_documented_fields(policy_file: Path) -> None:
    result = stepup(
        "--policy", policy_file, "--review", REVIEWS / "deployment-delete.json", "--namespace-labels", "env=prod"
    )
    (line,) = lines(result)
    assert list(line) == ["review", "allowed", "operations", "policies", "requirement", "code", "reason"]
    assert (line["allowed"], line["policies"]) == (False, ["production"])
    assert line["requirement"] == {
        "acr_values": "aal2",
        "max_age": 300,
        "use": "Once",
        "scope": "Object",
        "reason": {"required": False, "patterns": []},
        "policies": ["production"],
    }


def test_staging_passes_with_exit_code_zero(policy_file: Path) -> None:
    result = stepup(
        "--policy", policy_file, "--namespace-labels", "env=staging", "--review", REVIEWS / "deployment-delete.json"
    )
    assert result.returncode == 0
    assert lines(result)[0]["code"] == "not-required"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--review", "absent.json"], "absent.json: No such file"),
        (["--review", "{bad}"], "is not an AdmissionReview"),
        (["--review", "{good}", "--now", "yesterday"], "--now: 'yesterday' is not a time"),
        (["--review", "{good}", "--now", "2026-11-24T12:00:00"], "--now: needs a time zone"),
        (["--review", "{good}", "--namespace-labels", "env"], "--namespace-labels: must be k=v"),
        (["--review", "{good}", "--policy", "{bad-policy}"], "spec.rules[0].operations[0]"),
        (["--review", "{good}", "--policy", "{broken}"], "is not YAML"),
        (["--review", "{good}", "--key", "{bad}"], "--key: is not a public key"),
    ],
)
def test_bad_input_is_exit_code_two_and_says_what_is_wrong(
    policy_file: Path, tmp_path: Path, arguments: list[str], text: str
) -> None:
    guarded = {"annotations": {"kube-stepup.io/assertion": "x"}}
    contents = {
        "good": deletion(old={"metadata": {"name": "web", **guarded}}),
        "bad": b"[]",
        "bad-policy": yaml.safe_dump(policy("bad", rules=[{"name": "a", "operations": ["delet"]}])).encode(),
        "broken": b"a: [",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    filled = [argument.format(**{name: tmp_path / name for name in contents}) for argument in arguments]
    result = stepup("--policy", policy_file, "--namespace-labels", "env=prod", *filled)
    assert result.returncode == 2, result.stdout
    assert text in result.stderr
