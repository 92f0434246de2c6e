"""A cluster in memory and an elevation server in it, ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from tests.builders import user
from tests.fakes.elevation import Clock, Person, Server, Start, cluster
from tests.fakes.front_proxy import Authority
from tests.fakes.kube import FakeKube
from webhook.core.request import UserInfo
from webhook.elevation.identity import Requester


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def kube(authority: Authority, clock: Clock) -> FakeKube:
    found = FakeKube(clock)
    await cluster(found, authority)
    return found


@pytest.fixture
async def start(kube: FakeKube, clock: Clock, authority: Authority) -> AsyncIterator[Start]:
    """Starts a replica, with settings of its own."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Server:
            return await stack.enter_async_context(Server(kube, clock, authority, **settings))

        yield begin


@pytest.fixture
async def server(start: Start) -> Server:
    return await start()


@pytest.fixture
async def alice(server: Server) -> Person:
    """Enrolled, with the code of the present time step still to be used."""
    return await server.person().enrol()


@pytest.fixture
def requester() -> Requester:
    """Alice as the services see her."""
    return Requester(msgspec.convert(user("alice", "devs"), UserInfo), "203.0.113.7", "kubectl")
