"""Routes of approvals in the aggregated API; RBAC on these resources says who may be an approver at all."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import Response

from webhook.elevation.approvals import Approvals
from webhook.elevation.bodies import ApprovalAnswer, Denial
from webhook.elevation.http import json_response, posted, requester
from webhook.elevation.listing import list_response, one_response


def add_approvals(app: FastAPI, base: str, service: Approvals, require_ready: Callable[[], None]) -> None:
    """Add them to an application."""
    requests, answers = f"{base}/approvalrequests", f"{base}/elevationrequests/{{name}}"

    @app.get(requests)
    async def list_open(request: Request) -> Response:
        who = requester(request)
        require_ready()
        return list_response(request, "ApprovalRequest", await service.all_open(who))

    @app.get(requests + "/{name}")
    async def get_open(request: Request, name: str) -> Response:
        who = requester(request)
        require_ready()
        return one_response(request, await service.get(who, name))

    @app.post(answers + "/approve")
    async def approve(request: Request, name: str) -> Response:
        who, given = await posted(request, "Approval", ApprovalAnswer)
        require_ready()
        return json_response(await service.approve(who, name, given), 201)

    @app.post(answers + "/deny")
    async def deny(request: Request, name: str) -> Response:
        who, given = await posted(request, "ApprovalDenial", Denial)
        require_ready()
        return json_response(await service.deny(who, name, given), 201)
