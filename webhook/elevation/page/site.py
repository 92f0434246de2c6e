"""The page at an https origin of its own: a small application on a port of its own, which knows nobody but by their link.

It is reached by browsers, so it has no part in the aggregated API: no identity header means anything here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from webhook.elevation.page.actions import Actions
from webhook.elevation.page.pages import opening
from webhook.elevation.page.render import HEADERS, asset
from webhook.errors import RequestError, StepUpError, StoreUnavailableError

MAX_BODY_BYTES: Final = 64 * 1024
MAX_AT_ONCE: Final = 64  # each is a read of a Secret, or two writes: more at once would be a flood
NAME: Final = re.compile(r"[0-9a-f]{20}")
PERSON: Final = re.compile(r"v1\.[a-z0-9-]{1,40}\.[A-Za-z0-9_-]{40,2048}")  # a sealed name
TRANSPORT_SECURITY: Final = "max-age=31536000"

log = structlog.get_logger("page")
JSON = dict[str, Any]


class Site:
    """The routes.

    Args:
        origin: https origin at which browsers see it; anything that comes from another one is refused.
    """

    def __init__(self, actions: Actions, origin: str, audience: str, is_ready: Callable[[], bool]) -> None:
        self._actions = actions
        self._origin = origin
        self._host = urlsplit(origin).netloc
        self._audience = audience
        self._is_ready = is_ready
        self._running = 0

    def app(self) -> FastAPI:
        """The application."""
        app = FastAPI(title="kube-stepup page", docs_url=None, redoc_url=None, openapi_url=None)
        for kind in (StepUpError, HTTPException, Exception):
            app.add_exception_handler(kind, _on_error)
        app.add_api_route("/livez", self._alive, methods=["GET"])
        app.add_api_route("/readyz", self._ready, methods=["GET"])
        app.add_api_route("/static/{name}", self._static, methods=["GET"])
        app.add_api_route("/p/{person}/{name}/", self._show, methods=["GET"])
        app.add_api_route("/p/{person}/{name}/{action}", self._act, methods=["POST"])
        return app

    async def _alive(self) -> Response:
        return _json({"status": "ok"})

    async def _ready(self) -> Response:
        return _json({"status": "ok"}) if self._is_ready() else _json({"status": "waiting"}, 503)

    async def _static(self, name: str) -> Response:
        found = asset(name)
        if found is None:
            raise _nothing_here()
        return Response(found.text, headers=_headers(), media_type=found.content_type)

    async def _show(self, request: Request, person: str, name: str) -> Response:
        self._check_names(request, person, name)
        session = _cookie(request, name)
        # Whoever has no session learns nothing, not even whether there is such a page.
        html = opening(self._audience, _base(person, name))
        if session:
            with self._room():
                html = await self._actions.show(person, name, session, _base(person, name))
        return Response(html, headers=_headers(), media_type="text/html; charset=utf-8")

    async def _act(self, request: Request, person: str, name: str, action: str) -> Response:
        self._check_names(request, person, name)
        if (
            request.headers.get("origin") != self._origin
            or request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
        ):
            raise RequestError("this was asked from another page", code="wrong-origin", status=403, reason="Forbidden")
        body = await _body(request)
        with self._room():
            if action == "open":
                session, seconds = await self._actions.open(person, name, _text(body, "secret"))
                cookie = f"{_cookie_name(name)}={session}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"
                return _json({}, headers={"Set-Cookie": cookie})
            return _json(await self._actions.do(action, person, name, _cookie(request, name), body, _address(request)))

    def _check_names(self, request: Request, person: str, name: str) -> None:
        if request.headers.get("host") != self._host or not PERSON.fullmatch(person) or not NAME.fullmatch(name):
            raise _nothing_here()

    def _room(self) -> _Room:
        return _Room(self)


class _Room:
    """Room for one more request, or a refusal."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __enter__(self) -> None:
        if self._site._running >= MAX_AT_ONCE:  # noqa: SLF001 - a part of the site
            raise RequestError("too many at once; try again", code="too-busy", status=503, reason="ServiceUnavailable")
        self._site._running += 1  # noqa: SLF001

    def __exit__(self, *_: object) -> None:
        self._site._running -= 1  # noqa: SLF001


def _base(person: str, name: str) -> str:
    return f"/p/{person}/{name}/"


def _cookie_name(name: str) -> str:
    return f"__Host-stepup-{name}"


def _cookie(request: Request, name: str) -> str:
    try:
        found = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    return found[_cookie_name(name)].value if _cookie_name(name) in found else ""


def _text(body: JSON, field: str) -> str:
    value = body.get(field)
    return value if isinstance(value, str) else ""


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


async def _body(request: Request) -> JSON:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RequestError("that is not what this page sends", code="malformed")
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise RequestError("too large", code="too-large", status=413, reason="RequestEntityTooLarge")
            chunks.append(chunk)
        return msgspec.json.decode(b"".join(chunks), type=JSON)
    except (ClientDisconnect, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("that is not what this page sends", code="malformed") from error


def _headers() -> dict[str, str]:
    return {**HEADERS, "Strict-Transport-Security": TRANSPORT_SECURITY}


def _json(content: JSON, status: int = 200, *, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(content), status, {**_headers(), **(headers or {})}, media_type="application/json"
    )


def _nothing_here() -> RequestError:
    return RequestError("there is nothing here", code="not-found", status=404, reason="NotFound")


async def _on_error(_: Request, error: Exception) -> Response:
    """Every error in words for people; what they cannot act on is told to the log only."""
    if isinstance(error, RequestError):
        return _json({"message": error.message, "code": error.code}, error.status)
    if isinstance(error, HTTPException):
        return _json({"message": "there is nothing here", "code": "not-found"}, error.status_code)
    if isinstance(error, StoreUnavailableError):
        log.error("store-unavailable", code=error.code, problem=error.message)
        return _json({"message": "it could not be recorded just now; try again", "code": error.code}, 503)
    log.error("request-crashed", code="internal-error", exc_info=error)
    return _json({"message": "the request failed", "code": "internal-error"}, 500)
