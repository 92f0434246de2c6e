"""Objects as answers: JSON, or the Table that `kubectl get` asks for."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from webhook.elevation.http import json_response
from webhook.elevation.options import selected_name
from webhook.elevation.resources import GROUP_VERSION
from webhook.elevation.tables import ACCEPTS_TABLE, now, table


def list_response(request: Request, kind: str, objects: list[dict[str, Any]]) -> Response:
    """Objects of one kind; a field selector for one name is heeded, as kubectl sends it."""
    if name := selected_name(request):
        objects = [one for one in objects if one["metadata"]["name"] == name]
    if ACCEPTS_TABLE in request.headers.get("accept", ""):
        return json_response(table(kind, objects, now()))
    found = {"apiVersion": GROUP_VERSION, "kind": f"{kind}List", "metadata": {"resourceVersion": "0"}, "items": objects}
    return json_response(found)


def one_response(request: Request, obj: dict[str, Any]) -> Response:
    """One object."""
    if ACCEPTS_TABLE in request.headers.get("accept", ""):
        return json_response(table(obj["kind"], [obj], now()))
    return json_response(obj)
