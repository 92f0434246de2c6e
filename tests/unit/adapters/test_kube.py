"""The REST client over the library's own request building: paths, headers, deadlines and errors, without a connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException
from yarl import URL

from webhook.adapters.kube import METADATA_ONLY, AnswerError, KubeClient, object_path, own_path
from webhook.errors import ConfigurationError, ConflictError, StoreUnavailableError


class Response:
    """An answer of the API server; `body` may be an error that ends it."""

    def __init__(
        self, status: int = 200, body: Any = b"{}", *, reason: str = "", lines: list[Any] | None = None
    ) -> None:
        self.status = status
        self.reason = reason
        self.released = self.closed = False
        self.content = self
        self._body = body
        self._lines = list(lines or [])

    async def read(self) -> bytes:
        if isinstance(self._body, Exception):
            raise self._body
        return self._body if isinstance(self._body, bytes) else json.dumps(self._body).encode()

    async def iter_any(self) -> AsyncIterator[bytes]:
        for part in self._lines:
            if isinstance(part, Exception):
                raise part
            yield bytes(part)

    def release(self) -> None:
        self.released = True

    def close(self) -> None:
        self.closed = True


class Server:
    """In the place of the library's connections."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.closed = False

    async def request(self, method: str, url: str, **options: Any) -> Any:
        self.requests.append({"method": method, "url": URL(url), **options})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return type("Answer", (), {"response": answer})

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[KubeClient]:
    configuration = Configuration(host="https://kubernetes")
    configuration.api_key["BearerToken"] = "bearer t0ken"
    api = ApiClient(configuration)
    api.rest_client = server
    async with KubeClient(api) as found:
        yield found
    assert server.closed


class TestPaths:
    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            ({"group": "", "version": "v1", "resource": "namespaces"}, "/api/v1/namespaces"),
            ({"group": "", "version": "v1", "resource": "pods", "namespace": "a", "name": "b", "subresource": "status"}, "/api/v1/namespaces/a/pods/b/status"),
            ({"group": "apps", "version": "v1", "resource": "deployments", "namespace": "a"}, "/apis/apps/v1/namespaces/a/deployments"),
            ({"group": "", "version": "v1", "resource": "secrets", "namespace": "a", "name": "../b?c#d%"}, "/api/v1/namespaces/a/secrets/..%2Fb%3Fc%23d%25"),
        ],
    )  # fmt: skip
    def test_of_an_object(self, arguments: dict[str, str], path: str) -> None:
        assert object_path(**arguments) == path

    def test_of_our_own(self) -> None:
        assert own_path("elevations", "elv-1", "status") == "/apis/kube-stepup.io/v1alpha1/elevations/elv-1/status"

    @pytest.mark.parametrize("name", [".", "..", "%2e%2e", "../..", "..%2f", "a/../b", "?", "#", "\n", "ü"])
    def test_no_name_climbs_out_of_its_place_when_it_is_sent(self, name: str) -> None:
        for path, depth in (
            (own_path("elevations", name), 5),
            (own_path("elevations", name, "status"), 6),
            (object_path("", "v1", "pods", namespace=name, name="web"), 6),
        ):
            sent = URL(f"https://kubernetes{path}?x=y")
            assert sent.raw_path.count("/") == depth
            assert sent.query_string == "x=y"
            assert "" not in sent.raw_path.split("/")[1:]


class TestCalls:
    async def test_get(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(body={"a": 1})]
        assert await client.get("/api/v1/x?a=b", accept=METADATA_ONLY, timeout_seconds=3) == {"a": 1}
        (request,) = server.requests
        assert (request["method"], str(request["url"])) == ("GET", "https://kubernetes/api/v1/x?a=b")
        assert request["headers"]["Accept"] == METADATA_ONLY
        assert request["headers"]["authorization"] == "bearer t0ken"
        assert request["_request_timeout"].total == 3
        assert request["body"] is None

    async def test_get_what_is_not_there(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(404, {"reason": "NotFound"})]
        assert await client.get("/api/v1/x") is None

    async def test_create(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(201, {"a": 2})]
        assert await client.create("/api/v1/x", {"a": 1}) == {"a": 2}
        assert (server.requests[0]["method"], server.requests[0]["body"]) == ("POST", {"a": 1})

    async def test_replace(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response()]
        await client.replace("/api/v1/x/y", {"a": 1})
        assert (server.requests[0]["method"], server.requests[0]["headers"]["Content-Type"]) == ("PUT", "application/json")  # fmt: skip

    async def test_merge_patch(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response()]
        await client.merge_patch("/api/v1/x/y", {"a": None})
        assert (server.requests[0]["method"], server.requests[0]["body"]) == ("PATCH", {"a": None})
        assert server.requests[0]["headers"]["Content-Type"] == "application/merge-patch+json"

    @pytest.mark.parametrize(("version", "preconditions"), [("", None), ("7", {"resourceVersion": "7"})])
    async def test_delete(
        self, client: KubeClient, server: Server, version: str, preconditions: dict[str, str] | None
    ) -> None:
        server.answers = [Response()]
        assert await client.delete("/api/v1/x/y", resource_version=version)
        assert server.requests[0]["method"] == "DELETE"
        assert server.requests[0]["body"].get("preconditions") == preconditions

    async def test_delete_what_is_not_there(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(404, {"reason": "NotFound"})]
        assert not await client.delete("/api/v1/x/y")

    async def test_pages(self, client: KubeClient, server: Server) -> None:
        server.answers = [
            Response(body={"metadata": {"continue": "a b"}, "items": [1]}),
            Response(body={"metadata": {}, "items": [2]}),
        ]
        assert [page["items"] async for page in client.pages("/api/v1/x", limit=2)] == [[1], [2]]
        assert [dict(request["url"].query) for request in server.requests] == [
            {"limit": "2"},
            {"limit": "2", "continue": "a b"},
        ]

    async def test_a_list_without_metadata_is_one_page(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(body={"metadata": None})]
        assert len([page async for page in client.pages("/api/v1/x")]) == 1

    @pytest.mark.parametrize("status", [200, 404, 409, 500])
    async def test_connections_are_given_back(self, client: KubeClient, server: Server, status: int) -> None:
        response = Response(status)
        server.answers = [response]
        try:
            await client.get("/api/v1/x")
        except StoreUnavailableError:
            assert status > 404
        assert response.released


class TestErrors:
    @pytest.mark.parametrize("status", [400, 401, 403, 410, 422, 429, 500, 503])
    async def test_a_refusal_is_told_with_its_reason(self, client: KubeClient, server: Server, status: int) -> None:
        server.answers = [Response(status, {"reason": "Because", "message": "of this"})]
        with pytest.raises(AnswerError) as error:
            await client.get("/api/v1/secret-path?token=x")
        assert (error.value.status, error.value.reason, error.value.code) == (status, "Because", "store-unavailable")
        assert error.value.message == f"the Kubernetes API answered {status} Because (of this) to GET /api/v1/secret-path"  # fmt: skip

    @pytest.mark.parametrize("method", ["create", "replace", "merge_patch"])
    async def test_a_conflict_is_a_lost_race(self, client: KubeClient, server: Server, method: str) -> None:
        server.answers = [Response(409, {"reason": "AlreadyExists"})]
        with pytest.raises(ConflictError):
            await getattr(client, method)("/api/v1/x", {})

    async def test_a_delete_that_is_refused_is_not_taken_for_done(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(403, {"reason": "Forbidden"})]
        with pytest.raises(AnswerError):
            await client.delete("/api/v1/x")

    async def test_also_of_a_delete(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(409, {"reason": "Conflict"})]
        with pytest.raises(ConflictError):
            await client.delete("/api/v1/x", resource_version="1")

    @pytest.mark.parametrize(
        "body", [b"<html>", b"", b"[]", b'{"a":"\xff"}', aiohttp.ClientPayloadError(), TimeoutError()]
    )
    async def test_a_refusal_by_a_proxy_has_its_http_status_alone(
        self, client: KubeClient, server: Server, body: Any
    ) -> None:
        server.answers = [Response(502, body, reason="Bad Gateway")]
        with pytest.raises(AnswerError) as error:
            await client.get("/api/v1/x")
        assert (error.value.status, error.value.reason) == (502, "Bad Gateway")

    async def test_a_long_message_is_cut(self, client: KubeClient, server: Server) -> None:
        server.answers = [Response(422, {"reason": "Invalid", "message": "x" * 10_000})]
        with pytest.raises(AnswerError) as error:
            await client.create("/api/v1/x", {})
        assert len(error.value.message) < 700

    @pytest.mark.parametrize(
        "problem", [aiohttp.ClientConnectionError("host:1"), TimeoutError(), OSError("host:1"), ConfigException("no token")]
    )  # fmt: skip
    async def test_an_api_server_that_cannot_be_reached(
        self, client: KubeClient, server: Server, problem: Exception
    ) -> None:
        server.answers = [problem]
        with pytest.raises(StoreUnavailableError) as error:
            await client.get("/api/v1/x")
        assert error.value.message == "the Kubernetes API cannot be reached"

    @pytest.mark.parametrize("problem", [OSError("token file"), ConfigException("empty token file")])
    async def test_a_token_that_cannot_be_renewed_is_no_crash(
        self, client: KubeClient, server: Server, problem: Exception
    ) -> None:
        def renew(_: Any) -> None:
            raise problem

        client._api.configuration.refresh_api_key_hook = renew
        with pytest.raises(StoreUnavailableError):
            await client.get("/api/v1/x")

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"\xff", b'{"a":"\xff"}', aiohttp.ClientPayloadError(), TimeoutError()]
    )
    async def test_an_answer_that_does_not_arrive_whole(self, client: KubeClient, server: Server, body: Any) -> None:
        server.answers = [Response(200, body)]
        with pytest.raises(StoreUnavailableError):
            await client.get("/api/v1/x")


class TestWatch:
    async def follow(self, client: KubeClient, response: Response, server: Server) -> list[bytes]:
        server.answers = [response]
        async with client.watch("/api/v1/x", resource_version="7", timeout_seconds=480, stall_seconds=90) as lines:
            return [line async for line in lines]

    async def test_gives_lines(self, client: KubeClient, server: Server) -> None:
        response = Response(lines=[b"a\nb", b"\n"])
        assert await self.follow(client, response, server) == [b"a", b"b"]
        (request,) = server.requests
        assert dict(request["url"].query) == {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "7",
            "timeoutSeconds": "480",
        }
        assert (request["_request_timeout"].total, request["_request_timeout"].sock_read) == (None, 90)
        assert response.closed

    async def test_a_line_may_be_as_long_as_a_definition_of_custom_resources(
        self, client: KubeClient, server: Server
    ) -> None:
        long = b"x" * 1_000_000
        assert await self.follow(client, Response(lines=[b"a\n", long, long, b"\nb"]), server) == [b"a", long * 2, b"b"]

    async def test_but_not_longer_than_any_event_can_be(self, client: KubeClient, server: Server) -> None:
        response = Response(lines=[b"x" * 1_000_000] * 9)
        with pytest.raises(StoreUnavailableError):
            await self.follow(client, response, server)

    async def test_one_that_is_refused(self, client: KubeClient, server: Server) -> None:
        response = Response(410, {"reason": "Expired"})
        with pytest.raises(AnswerError) as error:
            await self.follow(client, response, server)
        assert error.value.status == 410
        assert response.closed

    @pytest.mark.parametrize(
        "problem", [aiohttp.SocketTimeoutError(), aiohttp.ClientPayloadError(), TimeoutError(), ValueError("too long")]
    )
    async def test_one_that_breaks_off_or_goes_silent(
        self, client: KubeClient, server: Server, problem: Exception
    ) -> None:
        response = Response(lines=[b"a\n", problem])
        with pytest.raises(StoreUnavailableError):
            await self.follow(client, response, server)
        assert response.closed


class TestConnect:
    async def test_needs_a_configuration(self, tmp_path: Path) -> None:
        for kubeconfig in ("", str(tmp_path / "absent")):
            with pytest.raises(ConfigurationError) as error:
                await KubeClient.connect(kubeconfig)
            assert error.value.field == "kubeconfig"

    async def test_takes_a_kubeconfig(self, tmp_path: Path) -> None:
        file = tmp_path / "kubeconfig"
        file.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": "https://kubernetes:6443"}}],
                    "users": [{"name": "u", "user": {"token": "t0ken"}}],
                }
            )
        )
        async with await KubeClient.connect(str(file)) as client:
            assert client._api.configuration.host == "https://kubernetes:6443"
