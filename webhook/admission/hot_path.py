"""``POST /validate`` as a raw ASGI callable in front of FastAPI, which keeps every other route.

Routing, validation and response classes of a framework cost more than the decision itself (docs/benchmarks.md), and
every write of the cluster's people comes through here. The path carries a secret: the API server does not say who it
is, and a forged review must not use up somebody's proof.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from webhook.admission import answer
from webhook.core.request import MAX_REVIEW_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PATH = "/validate"
_JSON = b"application/json"


class HotPath:
    """Answers reviews by ``review``; everything else goes to ``app``.

    Args:
        accepts: whether the last part of the path is the one that only the API server knows.
    """

    def __init__(
        self, app: ASGIApp, review: Callable[[bytes], Awaitable[bytes]], accepts: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._review = review
        self._accepts = accepts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
        elif not self._accepts(scope["path"][len(PATH) :]):
            await _respond(send, 404, b'{"detail":"Not Found"}')
        elif scope["method"] != "POST":
            await _respond(send, 405, b'{"detail":"Method Not Allowed"}', (b"allow", b"POST"))
        else:
            await self._validate(scope, receive, send)

    async def _validate(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _content_length(scope) > MAX_REVIEW_BYTES:
            await _respond_too_large(send)
            return
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > MAX_REVIEW_BYTES:
                await _respond_too_large(send)
                return
            chunks.append(chunk)
            if not message.get("more_body", False):
                break
        await _respond(send, 200, await self._review(chunks[0] if len(chunks) == 1 else b"".join(chunks)))


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


async def _respond_too_large(send: Send) -> None:
    body = answer.errored("", 413, "RequestEntityTooLarge", "the review is larger than 7 MiB", "too-large")
    await _respond(send, 413, body, (b"connection", b"close"))


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", _JSON), length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})
