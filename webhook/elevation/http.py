"""The gate in front of every route: body size, identity headers only from the front proxy, errors as Status objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar

import msgspec
import structlog
from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from webhook.adapters.kube import JSONObject
from webhook.core.identity import ImpersonatingProxies
from webhook.elevation.bodies import spec_of
from webhook.elevation.front_proxy import FrontProxy
from webhook.elevation.identity import Requester, has_identity_headers, requester_of, unauthenticated
from webhook.elevation.status import failure
from webhook.errors import RequestError, StepUpError, StoreUnavailableError

MAX_BODY_BYTES: Final = 1024 * 1024
PEER: Final = "stepup.peer_certificate"

log = structlog.get_logger("elevation")
Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Any, Any], Awaitable[None]]
Body = TypeVar("Body")


class Gate:
    """ASGI middleware: whoever claims an identity must be the front proxy, on every path."""

    def __init__(self, app: ASGIApp, front_proxy: FrontProxy, proxies: ImpersonatingProxies | None = None) -> None:
        self._app = app
        self._front_proxy = front_proxy
        self._proxies = proxies or ImpersonatingProxies()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] == "http":
            trusted = self._front_proxy.believes(scope.get(PEER))
            scope.setdefault("state", {}).update(front_proxy=trusted, proxies=self._proxies)
            if not trusted and has_identity_headers(scope["headers"]):
                log.warning("identity-headers-refused", code="not-the-front-proxy")
                answer = json_response(failure(unauthenticated("identity headers are for the API server alone")), 401)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def requester(request: Request) -> Requester:
    """Who asks.

    Raises:
        RequestError: ``unauthenticated``: the request did not come through the API server.
    """
    if not request.state.front_proxy:
        raise unauthenticated("ask through the API server: kubectl get elevationrequests")
    who = requester_of(request.headers.raw)
    return msgspec.structs.replace(who, user=request.state.proxies.seen(who.user))


async def posted(request: Request, kind: str, form: type[Body]) -> tuple[Requester, Body]:
    """Who posted an object, and its ``spec``. Nothing is read from somebody who is not known.

    Raises:
        RequestError: ``unauthenticated``, ``too-large``, ``malformed`` or ``invalid``.
    """
    who = requester(request)
    return who, spec_of(await body_of(request), kind, form)


async def body_of(request: Request, empty: Any = None) -> Any:
    """The JSON of a body; ``empty`` where there is none and that will do.

    Raises:
        RequestError: ``too-large`` or ``malformed``.
    """
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise RequestError(
                    "the body is larger than 1 MiB", code="too-large", status=413, reason="RequestEntityTooLarge"
                )
            chunks.append(chunk)
        return msgspec.json.decode(b"".join(chunks)) if size or empty is None else empty
    except ClientDisconnect as error:
        raise RequestError("the body broke off", code="malformed") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("the body is not JSON", code="malformed") from error


def json_response(content: JSONObject, status_code: int = 200) -> Response:
    """A JSON answer that no cache keeps."""
    headers = {"Cache-Control": "no-store"}
    if status_code == 429 and (seconds := (content.get("details") or {}).get("retryAfterSeconds")):
        headers["Retry-After"] = str(seconds)
    return Response(msgspec.json.encode(content), status_code, headers, "application/json")


async def on_error(_: Request, error: Exception) -> Response:
    """Every error as a Status; what the person cannot act on is told to the log only."""
    if isinstance(error, RequestError):
        return json_response(failure(error), error.status)
    if isinstance(error, HTTPException):  # the framework's own: a method that no route has
        shown = RequestError(
            "this cannot be done here", code="method-not-allowed", status=error.status_code, reason="MethodNotAllowed"
        )
        return json_response(failure(shown), error.status_code)
    if isinstance(error, StoreUnavailableError):
        log.error("store-unavailable", code=error.code, problem=error.message)
        text = "the step-up could not be recorded just now; try again"
        shown = RequestError(text, code=error.code, status=503, reason="ServiceUnavailable", retry_after_seconds=1)
        return json_response(failure(shown), 503)
    log.error("request-crashed", code="internal-error", exc_info=error)
    code = error.code if isinstance(error, StepUpError) else "internal-error"
    shown = RequestError("the request failed", code=code, status=500, reason="InternalError")
    return json_response(failure(shown), 500)
