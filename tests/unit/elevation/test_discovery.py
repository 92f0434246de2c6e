"""Discovery and OpenAPI: constant, complete, and the same story as the routes and the table of resources."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from fastapi.routing import APIRoute

from tests.fakes.elevation import API, GROUP_VERSION, KEK, Clock, Person, Server, refused, wanted
from tests.fakes.front_proxy import Authority
from tests.fakes.kube import FakeKube, until
from webhook.adapters import envelope as envelope_module
from webhook.adapters.envelope import Envelope
from webhook.core.operation import OPERATIONS
from webhook.elevation.app import PATIENCE_SECONDS
from webhook.elevation.bodies import (
    Answer,
    ConfirmationCode,
    Username,
    WantedAuthenticator,
    WantedDetail,
    WantedElevation,
    WantedObject,
)
from webhook.elevation.resources import GROUP, RESOURCES, VERSION
from webhook.errors import StoreUnavailableError

DOCUMENTS = ["/apis", f"/apis/{GROUP}", API, "/openapi/v2", "/openapi/v3", f"/openapi/v3{API}"]


@pytest.fixture
def cut_off(kube: FakeKube, clock: Clock, authority: Authority) -> Server:
    """A server that has not reached the API server yet."""
    return Server(kube, clock, authority)


async def document(server: Server, path: str) -> dict[str, Any]:
    answer = await server.request("GET", path)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_documents_need_nothing_and_nobody(cut_off: Server, kube: FakeKube, path: str) -> None:
    kube.calls.clear()
    assert await document(cut_off, path) == await document(cut_off, path)
    assert kube.calls == []


async def test_the_group_and_its_version(cut_off: Server) -> None:
    group = await document(cut_off, f"/apis/{GROUP}")
    assert (group["kind"], group["name"]) == ("APIGroup", GROUP)
    assert group["versions"] == [group["preferredVersion"]] == [{"groupVersion": GROUP_VERSION, "version": VERSION}]
    assert (await document(cut_off, "/apis"))["groups"] == [group]


async def test_the_list_has_each_resource_of_the_table(cut_off: Server) -> None:
    found = await document(cut_off, API)
    assert (found["kind"], found["apiVersion"], found["groupVersion"]) == ("APIResourceList", "v1", GROUP_VERSION)
    for shown, one in zip(found["resources"], RESOURCES, strict=True):
        assert (shown["name"], shown["kind"], shown["verbs"]) == (one.name, one.kind, list(one.verbs))
        assert shown["namespaced"] is False
        assert bool(shown["singularName"]) is ("/" not in one.name), "subresources have none"
        assert tuple(shown.get("shortNames", ())) == one.short_names


async def test_the_table_has_each_route_and_nothing_else(cut_off: Server) -> None:
    routes = {
        (method, route.path.removeprefix(f"{API}/").replace("/{name}", ""), "{name}" in route.path)
        for route in cut_off.app._app.routes  # type: ignore[attr-defined]
        if isinstance(route, APIRoute) and route.path.startswith(f"{API}/")
        for method in route.methods
    }
    methods = {"create": "POST", "list": "GET", "get": "GET", "delete": "DELETE"}
    expected = {
        (methods[verb], one.name, verb in {"get", "delete"} or "/" in one.name)
        for one in RESOURCES
        for verb in one.verbs
    }
    assert routes == expected


async def test_openapi_points_at_a_document_that_is_there(cut_off: Server) -> None:
    paths = (await document(cut_off, "/openapi/v3"))["paths"]
    assert set(paths) == {f"apis/{GROUP_VERSION}"}
    url = paths[f"apis/{GROUP_VERSION}"]["serverRelativeURL"]
    assert "?hash=" in url
    assert (await document(cut_off, url))["openapi"] == "3.0.0"


async def test_openapi_explains_each_kind(cut_off: Server) -> None:
    schemas = (await document(cut_off, f"/openapi/v3{API}"))["components"]["schemas"]
    assert (await document(cut_off, "/openapi/v2"))["definitions"] == schemas
    assert len(schemas) == len({one.kind for one in RESOURCES})
    for one in RESOURCES:
        schema = schemas[f"io.kube-stepup.elevation.{VERSION}.{one.kind}"]
        assert schema["x-kubernetes-group-version-kind"] == [{"group": GROUP, "version": VERSION, "kind": one.kind}]
        assert schema["properties"]["spec"] == one.spec
        assert schema["properties"]["status"] == one.status
        assert all(_described(schema)), one.kind


def _described(schema: dict[str, Any]) -> list[bool]:
    found = [bool(schema.get("description"))]
    for below in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        found += _described(below) if below.get("type") in {"object", "array"} else [True]
    return found


async def test_openapi_has_a_path_for_each_verb(cut_off: Server) -> None:
    found = await document(cut_off, f"/openapi/v3{API}")
    actions = {
        (path, operation["x-kubernetes-action"], operation["x-kubernetes-group-version-kind"]["kind"])
        for path, item in found["paths"].items()
        for operation in item.values()
        if isinstance(operation, dict)
    }
    expected = set()
    for one in RESOURCES:
        parent, _, sub = one.name.partition("/")
        for verb in one.verbs:
            single = sub or verb in {"get", "delete"}
            expected.add((f"{API}/{parent}" + "/{name}" * bool(single) + f"/{sub}" * bool(sub), verb, one.kind))
    assert actions == expected
    assert len({operation["operationId"] for item in found["paths"].values() for operation in item.values() if isinstance(operation, dict)}) == len(actions)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("ElevationRequest", WantedElevation),
        ("ChallengeAnswer", Answer),
        ("Authenticator", WantedAuthenticator),
        ("AuthenticatorConfirmation", ConfirmationCode),
        ("EnrollmentTicket", Username),
    ],
)
def test_what_is_explained_is_what_is_read(kind: str, form: Any) -> None:
    (one,) = [resource for resource in RESOURCES if resource.kind == kind]
    assert set(one.spec["properties"]) == set(form.__struct_encode_fields__)


def test_so_are_the_details_of_a_request() -> None:
    details = RESOURCES[0].spec["properties"]["details"]["items"]
    assert set(details["properties"]) == set(WantedDetail.__struct_encode_fields__)
    assert set(details["properties"]["objects"]["items"]["properties"]) == set(WantedObject.__struct_encode_fields__)
    assert all(operation in details["properties"]["operation"]["description"] for operation in OPERATIONS)


async def test_what_is_answered_was_explained(alice: Person) -> None:
    """No field of a status that `kubectl explain` does not know."""
    name = await alice.ask()
    known = {one.kind: set(one.status["properties"]) for one in RESOURCES}
    answers = [
        (await alice.get(f"elevationrequests/{name}")).json(),
        (await alice.post(f"elevationrequests/{name}/answer", {"code": alice.wrong_code()})).json(),
        (await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})).json(),
        (await alice.get("authenticators")).json()["items"][0],
    ]
    for answer in answers:
        assert set(answer["status"]) <= known[answer["kind"]], answer["kind"]


class TestWithoutTheEncryptionKey:
    """While the discovery of an APIService fails, no namespace of the cluster finishes deleting."""

    @pytest.fixture
    def keyless(self, kube: FakeKube, clock: Clock, authority: Authority) -> Server:
        async def unreadable(_: bool) -> dict[str, bytes]:
            raise StoreUnavailableError("the Secret cannot be read")

        return Server(kube, clock, authority, envelope=Envelope(source=unreadable))

    @pytest.mark.parametrize("path", [*DOCUMENTS, "/livez"])
    async def test_it_is_served_through_the_api_server(self, keyless: Server, path: str) -> None:
        await keyless.services.front_proxy.refresh()
        aggregator = keyless.person("system:kube-aggregator", "system:masters")
        assert (await aggregator.request("GET", path)).status_code == 200

    async def test_nobody_steps_up_or_enrols(self, keyless: Server, alice: Person) -> None:
        await keyless.services.front_proxy.refresh()
        name = await alice.ask()
        her = alice.at(keyless)
        for path, spec in (
            ("elevationrequests", {"details": [wanted()]}),
            (f"elevationrequests/{name}/answer", {"code": alice.code()}),
            ("authenticators", {"type": "totp", "ticket": "x"}),
            ("enrollmenttickets", {"username": "bob"}),
        ):
            assert refused(await her.post(path, spec)) == (503, "store-unavailable", "")
        assert refused(await her.get("authenticators")) == (503, "store-unavailable", "")

    async def test_a_rollout_stops_but_what_runs_is_not_taken_out_of_service(
        self, keyless: Server, clock: Clock, kube: FakeKube
    ) -> None:
        await keyless.services.front_proxy.refresh()
        answer = await keyless.request("GET", "/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "waiting")
        assert "the encryption key" in answer.json()["waitingFor"]
        clock.advance(PATIENCE_SECONDS + 1)
        answer = await keyless.request("GET", "/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "discovery-only")
        assert "the encryption key" in answer.json()["waitingFor"]

    async def test_one_that_could_not_even_answer_discovery_is_never_ready(self, keyless: Server, clock: Clock) -> None:
        clock.advance(PATIENCE_SECONDS + 1)
        assert (await keyless.request("GET", "/readyz")).status_code == 503

    async def test_it_serves_all_as_soon_as_there_is_a_key(
        self, kube: FakeKube, clock: Clock, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found: dict[str, bytes] = {}

        async def later(_: bool) -> dict[str, bytes]:
            if not found:
                raise StoreUnavailableError("the Secret cannot be read")
            return found

        monkeypatch.setattr(envelope_module, "RETRY_SECONDS", 0.0)
        server = Server(kube, clock, authority, envelope=Envelope(source=later))
        work = asyncio.create_task(server.services.run())
        await until(lambda: server.services.state.waiting_for == [])
        assert "the encryption key" in server.services.waiting_for()
        found["kek-1"] = KEK
        await until(lambda: "the encryption key" not in server.services.waiting_for())
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
