"""Files that are given on the command line: policies and other objects in YAML, reviews in JSON; ends with 2 when unusable."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import typer
import yaml

from webhook.core.policy import Policy
from webhook.core.request import AdmissionRequest, decode
from webhook.errors import PolicyError, ReviewError

EXIT_BAD_INPUT: Final = 2


def bad_input(text: str) -> NoReturn:
    """End the program: what is wrong, and where."""
    typer.echo(f"stepup: {text}", err=True)
    raise typer.Exit(EXIT_BAD_INPUT)


def read(file: Path) -> bytes:
    """The content of a file; ``-`` is standard input."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        bad_input(f"{file}: {error.strerror}")


def documents(file: Path) -> list[dict[str, Any]]:
    """All objects of a YAML file, those of Lists too."""
    try:
        found = [one for one in yaml.safe_load_all(read(file)) if one is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        bad_input(f"{file}{f':{mark.line + 1}' if mark else ''}: is not YAML")
    flat: list[dict[str, Any]] = []
    for one in found:
        items = one.get("items") if isinstance(one, dict) and str(one.get("kind", "")).endswith("List") else [one]
        flat += items or []
    if not all(isinstance(one, dict) for one in flat):
        bad_input(f"{file}: holds something that is not an object")
    return flat


def policies(files: list[Path], *, option: str = "--policy") -> list[Policy]:
    """The StepUpPolicies of files; at least one, and none of them twice."""
    found: dict[str, Policy] = {}
    for file in files:
        for obj in documents(file):
            try:
                policy = Policy.parse(obj)
            except PolicyError as error:
                bad_input(f"{file}: {error}")
            if policy.name in found:
                bad_input(f"{file}: metadata.name: there are two policies called {policy.name}")
            found[policy.name] = policy
    if not found:
        bad_input(f"{option}: no StepUpPolicy in these files")
    return list(found.values())


def review(file: Path) -> AdmissionRequest:
    """The request of a recorded AdmissionReview."""
    try:
        return decode(read(file))
    except ReviewError as error:
        bad_input(f"{file}: {error.message}")


def labels(text: str) -> dict[str, str]:
    """``k=v,k=v``."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not separator or not name for name, separator, _ in pairs):
        bad_input("--namespace-labels: must be k=v,k=v")
    return {name.strip(): value.strip() for name, _, value in pairs}


def moment(text: str) -> float:
    """Seconds since the epoch of a time with a zone (RFC 3339)."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        bad_input(f"--now: {text!r} is not a time such as 2026-11-24T12:00:00Z")
    if found.tzinfo is None:
        bad_input("--now: needs a time zone, such as the Z in 2026-11-24T12:00:00Z")
    return found.timestamp()
