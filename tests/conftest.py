"""What all tests share: a control plane for those that ask for one, and no network for those that must not have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_socket

from tests.controlplane import ControlPlane, ControlPlaneError, Programs, ProgramsError

TESTS = Path(__file__).parent
MARKED_FOLDERS = ("cluster", "chart", "browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in a folder that is named after a marker, so that nobody has to remember it."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)


@pytest.fixture(autouse=True)
def network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only marked tests may open sockets; those of event loops are local, and stay."""
    if any(request.node.get_closest_marker(marker) for marker in MARKED_FOLDERS):
        yield
        return
    pytest_socket.disable_socket(allow_unix_socket=True)
    try:
        yield
    finally:
        pytest_socket.enable_socket()


@pytest.fixture(scope="session")
def programs(pytestconfig: pytest.Config) -> Programs:
    """The programs of a control plane. Building them is announced on the terminal, past pytest's capture."""
    found = Programs()
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            found.control_plane()
    except ProgramsError as error:
        pytest.fail(f"there is no control plane to test with: {error}", pytrace=False)
    return found


@pytest.fixture(scope="session")
def control_plane(programs: Programs) -> Iterator[ControlPlane]:
    """One control plane for the whole session, started when the first test asks for it."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(ControlPlane(programs))
        except ControlPlaneError as error:
            pytest.fail(f"the control plane does not start: {error}", pytrace=False)
        yield running
