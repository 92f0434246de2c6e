"""A desk for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from signal import Signals

import pytest

from tests.desk import SECONDS, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def signalled(desk: Desk) -> Callable[[str, Signals], tuple[int, str]]:
    """Runs a shell script in the wrapper, sends us alone a signal once it says `ready`, and gives exit code and output."""

    def run(script: str, number: Signals) -> tuple[int, str]:
        process = desk.start("--", "sh", "-c", script)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output

    return run
