"""`POST /validate` in front of FastAPI: what it keeps of what a framework would do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from webhook.admission.hot_path import HotPath
from webhook.core.request import MAX_REVIEW_BYTES

SECRET = "/" + "s" * 32


@pytest.fixture
def seen() -> list[bytes]:
    return []


@pytest.fixture
async def client(seen: list[bytes]) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    async def review(body: bytes) -> bytes:
        seen.append(body)
        return b"answer"

    hot_path = HotPath(app, review, lambda suffix: suffix == SECRET)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hot_path), base_url="https://admission") as found:
        yield found


async def test_a_review_is_answered_as_json(client: httpx.AsyncClient, seen: list[bytes]) -> None:
    answer = await client.post("/validate" + SECRET, content=b"review")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"answer", "application/json")
    assert answer.headers["content-length"] == "6"
    assert seen == [b"review"]


async def test_a_body_in_pieces_is_put_together(client: httpx.AsyncClient, seen: list[bytes]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b", b"c"):
            yield piece

    await client.post("/validate" + SECRET, content=pieces())
    assert seen == [b"abc"]


@pytest.mark.parametrize(
    "path", ["/validate", "/validate/", "/validate/wrong", f"/validate{SECRET}/", f"/validatex{SECRET}"]
)
async def test_whoever_does_not_know_the_path_finds_nothing(
    client: httpx.AsyncClient, seen: list[bytes], path: str
) -> None:
    assert (await client.post(path, content=b"review")).status_code == 404
    assert seen == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_is_answered(client: httpx.AsyncClient, seen: list[bytes], method: str) -> None:
    answer = await client.request(method, "/validate" + SECRET)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert seen == []


async def test_a_body_that_is_too_large_is_not_read_to_its_end(client: httpx.AsyncClient, seen: list[bytes]) -> None:
    told = await client.post("/validate" + SECRET, content=b" " * (MAX_REVIEW_BYTES + 1))
    assert told.status_code == 413

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1024 * 1024

    untold = await client.post("/validate" + SECRET, content=endless())
    assert untold.status_code == 413
    assert untold.json()["response"]["allowed"] is False
    assert seen == []


async def test_everything_else_is_fastapis(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).json() == {"status": "ok"}
    assert (await client.get("/nothing")).status_code == 404
