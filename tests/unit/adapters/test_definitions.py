"""What operators add, and what definitions tell, gets into the tables by which requests are sorted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.custom_resources import definition
from webhook.adapters.cluster_state import ConfigurationSink
from webhook.adapters.definitions import Definition, DefinitionSink
from webhook.adapters.kube import KubeClient
from webhook.adapters.watches import Watched
from webhook.core.applicable import PolicyIndex

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def configuration(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "default"}, "spec": spec}


class TestConfiguration:
    def test_is_in_force_when_it_comes_and_gone_when_it_goes(self) -> None:
        index = PolicyIndex()
        sink = ConfigurationSink(index)
        sink.put(configuration(deputies=[{"resource": "a/b"}]))
        assert [one.resource for one in index.catalog.deputies("a", "b")] == ["a/b"]
        sink.remove("default")
        assert index.catalog.deputies("a", "b") == ()

    def test_one_that_turns_unreadable_stays_in_force_as_it_was(self) -> None:
        index = PolicyIndex()
        sink = ConfigurationSink(index)
        sink.put(configuration(deputies=[{"resource": "a/b"}]))
        sink.put(configuration(deputies=[{"resource": "unreadable"}]))
        assert index.catalog.deputies("a", "b")
        sink.put({"metadata": {"name": "other"}, "spec": {}})
        sink.remove("other")
        assert index.catalog.deputies("a", "b")

    def test_does_not_forget_where_replicas_are(self) -> None:
        index = PolicyIndex()
        DefinitionSink(index).put(definition("cnpg.io", "clusters", "Cluster", replicas_path=".spec.size"))
        ConfigurationSink(index).put(configuration())
        assert index.catalog.scale_paths == {("cnpg.io", "clusters"): ("spec.size",)}


class Server:
    """One list, then one watch that says what it is told."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._events = events
        self.done = asyncio.Event()
        self.watched_from: list[str] = []

    async def pages(self, path: str, *, limit: int, form: type | None) -> AsyncIterator[dict[str, Any]]:
        assert form is Definition
        yield {"metadata": {"resourceVersion": "7"}, "items": []}

    @asynccontextmanager
    async def watch(self, path: str, *, resource_version: str, **_: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        self.watched_from.append(resource_version)
        if len(self.watched_from) > 1:
            self.done.set()
            await asyncio.Event().wait()
        yield self._lines()

    async def _lines(self) -> AsyncIterator[bytes]:
        for event in self._events:
            yield json.dumps(event).encode()


async def followed(*events: dict[str, Any]) -> tuple[PolicyIndex, Server]:
    index, server = PolicyIndex(), Server(*events)
    watched = Watched(server, PATH, DefinitionSink(index), form=Definition)  # type: ignore[arg-type]
    task = asyncio.create_task(watched.run())
    await asyncio.wait_for(server.done.wait(), 10)
    task.cancel()
    return index, server


async def test_events_are_read_in_part() -> None:
    found = definition("cnpg.io", "clusters", "Cluster", replicas_path=".spec.size")
    found["metadata"]["resourceVersion"] = "8"
    index, server = await followed({"type": "ADDED", "object": found})
    assert index.catalog.scale_paths == {("cnpg.io", "clusters"): ("spec.size",)}
    assert server.watched_from == ["7", "8"]


async def test_a_deleted_definition_is_forgotten() -> None:
    found = definition("cnpg.io", "clusters", "Cluster", replicas_path=".spec.size")
    index, _ = await followed({"type": "ADDED", "object": found}, {"type": "DELETED", "object": found})
    assert index.catalog.scale_paths == {}


async def test_that_a_version_is_too_old_is_read_whole() -> None:
    _, server = await followed({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
    assert server.watched_from == ["7", "7"], "a new list gives the version that the next watch begins with"


async def test_a_list_is_read_in_part() -> None:
    client = KubeClient.__new__(KubeClient)
    item = definition("cnpg.io", "clusters", "Cluster", replicas_path=".spec.size")

    class Answer:
        status = 200

        async def read(self) -> bytes:
            return json.dumps({"metadata": {"resourceVersion": "7"}, "items": [item]}).encode()

        def release(self) -> None: ...

    async def send(*_: Any) -> Answer:
        return Answer()

    client._send = send  # type: ignore[method-assign,assignment]
    (page,) = [page async for page in client.pages(PATH, form=Definition)]
    assert page["items"][0]["spec"]["names"] == {"plural": "clusters"}
    assert "schema" not in json.dumps(page)
