"""What every answer has in common: Status objects with their codes, nothing of our insides, nothing that a cache keeps."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import structlog.testing
from starlette.requests import ClientDisconnect, Request

from tests.fakes.elevation import API, Person, Server, refused, wanted
from tests.fakes.kube import FakeKube
from webhook.adapters.kube import own_path
from webhook.elevation.http import Gate, body_of
from webhook.errors import ConflictError, RequestError, StepUpError

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    413: "RequestEntityTooLarge",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


async def provoke(alice: Person, status: int) -> httpx.Response:
    """One refusal of each kind."""
    server = alice.server
    name = await alice.ask()
    path = f"elevationrequests/{name}/answer"
    match status:
        case 400:
            return await alice.request("POST", f"{API}/elevationrequests", b"{")
        case 401:
            return await server.request("GET", f"{API}/elevationrequests")
        case 403:
            return await alice.with_credential("other").post(path, {"code": "1"})
        case 404:
            return await alice.get("elevationrequests/elv-a")
        case 405:
            return await alice.request("OPTIONS", f"{API}/elevationrequests")
        case 409:
            await alice.answer(name, alice.code())
            return await alice.post(path, {"code": "1"})
        case 413:
            return await alice.request("POST", f"{API}/elevationrequests", b" " * 2**21)
        case 422:
            return await alice.post("elevationrequests", {})
        case _:
            for _ in range(19):
                await alice.ask()
            return await alice.post("elevationrequests", {"details": [wanted()]})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 429])
async def test_every_refusal_is_a_status_with_its_reason(alice: Person, status: int) -> None:
    answer = await provoke(alice, status)
    assert refused(answer)[0] == status
    assert answer.json()["reason"] == REASONS[status]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert ("Retry-After" in answer.headers) is (status == 429)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("secret /etc/passwd"), 500, "internal-error"),
        (KeyError("secret"), 500, "internal-error"),
        (StepUpError("secret", code="unreadable-secret"), 500, "unreadable-secret"),
        (ConflictError("secret"), 503, "conflict"),
        (RequestError("told", code="told", status=418, reason="Teapot"), 418, "told"),
    ],
)
async def test_what_goes_wrong_inside_is_told_to_the_log_alone(
    alice: Person, kube: FakeKube, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    async def fail(*_: Any, **__: Any) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(kube, "get", fail)
    with structlog.testing.capture_logs() as lines:
        answer = await alice.get("authenticators")
    assert refused(answer) == (status, code, "")
    assert "secret" not in answer.text.replace("unreadable-secret", "")
    assert bool([line for line in lines if line["log_level"] == "error"]) is (code != "told")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
        ("GET", "/apis/apps/v1/deployments"),
        ("GET", f"{API}/elevations"),
        ("GET", f"{API}/elevationrequests/"),
        ("GET", f"{API}/enrollmenttickets"),
        ("PUT", f"{API}/elevationrequests/elv-a"),
        ("PATCH", f"{API}/elevationrequests/elv-a"),
        ("DELETE", f"{API}/elevationrequests"),
        ("POST", f"{API}/elevationrequests/elv-a"),
        ("GET", f"{API}/elevationrequests/elv-a/answer"),
        ("POST", f"{API}/elevationrequests/elv-a/answer/%2e%2e/revoke"),
        ("POST", f"{API}/elevationrequests/elv-a/answer%2f..%2frevoke"),
        ("POST", f"{API}/elevationrequests/elv-a%252frevoke"),
    ],
)
async def test_there_is_nothing_else(alice: Person, kube: FakeKube, method: str, path: str) -> None:
    kube.calls.clear()
    answer = await alice.request(method, path, b"{}")
    assert refused(answer) == (404, "not-found", "")
    assert not any(called.startswith(own_path("elevations")) for _, called in kube.calls)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
async def test_methods_that_nothing_has(alice: Person, method: str) -> None:
    answer = await alice.request(method, f"{API}/elevationrequests")
    assert answer.status_code == 405
    assert method == "HEAD" or refused(answer) == (405, "method-not-allowed", "")


async def test_a_body_that_breaks_off_is_refused_and_is_no_crash(server: Server) -> None:
    async def disconnected() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "headers": []}, disconnected)
    with pytest.raises(RequestError) as error:
        await body_of(request)
    assert (error.value.code, type(error.value.__cause__)) == ("malformed", ClientDisconnect)


async def test_what_is_no_request_passes_the_gate_as_it_is(server: Server) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    await Gate(app, server.services.front_proxy)({"type": "lifespan"}, None, None)
    assert seen == [{"type": "lifespan"}]


async def test_trust_is_not_taken_from_a_connection_that_says_so_itself(server: Server) -> None:
    """`state` of a connection is shared by its requests: what stands there is overwritten, never believed."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"]["front_proxy"])

    gate = Gate(app, server.services.front_proxy)
    await gate({"type": "http", "headers": [], "state": {"front_proxy": True}}, None, None)
    assert seen == [False]
