"""The GitHub action: what it runs is what the command line has, and nothing of a job's input becomes a part of its script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from webhook.cli import stepup

ROOT = Path(__file__).parents[3]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / ".github/actions/elevate/action.yml").read_text(encoding="utf-8"))
INSTALL, RUN = ACTION["runs"]["steps"]


def test_no_input_is_pasted_into_a_script() -> None:
    assert all("${{" not in step["run"] for step in (INSTALL, RUN))


def test_what_it_installs_is_there() -> None:
    source = (ROOT / ".github/actions/elevate" / INSTALL["env"]["SOURCE"].partition("}}/")[2]).resolve()
    assert source == ROOT
    assert (source / "requirements" / "runtime.txt").exists()


def test_each_option_is_one_of_the_command_line() -> None:
    command: Any = typer.main.get_command(stepup.app)
    known = {name for one in command.commands["ci"].commands["elevate"].params for name in one.opts}
    assert {word for word in RUN["run"].split(" -- ")[0].split() if word.startswith("--")} <= known


@pytest.mark.parametrize("reason", ["OPS-7", 'it\'s "$(touch pwned)" `touch pwned`; touch pwned'])
def test_inputs_arrive_as_they_are(tmp_path: Path, reason: str) -> None:
    program = tmp_path / "kube-stepup" / "bin" / "stepup"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o700)
    environment = {
        "PATH": os.environ["PATH"],
        "RUNNER_TEMP": str(tmp_path),
        "AUDIENCE": "prod",
        "COMMAND": "helm upgrade shop . --set a='b c'",
        "REASON": reason,
        "SCOPE": "object",
    }
    ended = subprocess.run(
        ["bash", "-c", RUN["run"]], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    words = ended.stdout.splitlines()
    assert words[words.index("--reason") + 1] == reason
    assert words[words.index("--") + 1 :] == ["bash", "-euo", "pipefail", "-c", environment["COMMAND"]]
    assert not (tmp_path / "pwned").exists()
