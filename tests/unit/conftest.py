"""Unit tests run without a network, and see the audit lines that were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_socket
import structlog.testing


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Sockets are refused; Unix sockets stay, since event loops use them."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture
def audit_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """A function that gives the audit lines written so far."""
    with structlog.testing.capture_logs() as lines:
        yield lambda: [dict(line) for line in lines if line.get("log") == "audit"]
