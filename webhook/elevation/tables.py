"""Tables: what `kubectl get` prints (meta.k8s.io/v1 Table)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

JSON = dict[str, Any]
ACCEPTS_TABLE: Final = "as=Table"
Column = tuple[str, str, Callable[[JSON, datetime], Any]]


def table(kind: str, objects: list[JSON], now: datetime) -> JSON:
    """A Table of objects of one kind."""
    columns = _COLUMNS[kind]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "0"},
        "columnDefinitions": [
            {"name": name, "type": form, "format": "name" if name == "Name" else "", "description": name, "priority": 0}
            for name, form, _ in columns
        ],
        "rows": [
            {
                "cells": [cell(one, now) for _, _, cell in columns],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": one["metadata"],
                },
            }
            for one in objects
        ],
    }


def _name(one: JSON, _: datetime) -> str:
    return str(one["metadata"].get("name", ""))


def _phase(one: JSON, _: datetime) -> str:
    return str(one["status"].get("phase", ""))


def _for(one: JSON, _: datetime) -> str:
    found = []
    for detail in one["spec"]["details"]:
        names = ",".join(target["name"] for target in detail.get("objects") or []) or "*"
        where = f" -n {detail['namespace']}" if detail.get("namespace") else ""
        found.append(f"{detail['operation']} {detail.get('resource') or '*'}/{names}{where}")
    return "; ".join(found)


def _reason(one: JSON, _: datetime) -> str:
    return str(one["spec"].get("reason", ""))


def _left(one: JSON, now: datetime) -> str:
    text = one["status"].get("expiresAt")
    if not text or one["status"].get("phase") not in {"Granted", "Used"}:
        return ""
    if one["status"].get("usesLeft") == 0:
        return "used up"
    seconds = int((datetime.fromisoformat(text) - now).total_seconds())
    return f"{max(0, seconds)}s"


def _age(one: JSON, now: datetime) -> str:
    text = one["metadata"].get("creationTimestamp")
    if not text:
        return ""
    seconds = int((now - datetime.fromisoformat(text)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def _type(one: JSON, _: datetime) -> str:
    return str(one["spec"].get("type", ""))


def _recovery(one: JSON, _: datetime) -> Any:
    return one["status"].get("recoveryCodesLeft", "")


def _requester(one: JSON, _: datetime) -> str:
    return str(one["spec"]["requester"]["username"])


def _operations(one: JSON, _: datetime) -> str:
    found = [f"{line['operation']} {line['target']} {line.get('change', '')}" for line in one["spec"]["operations"]]
    return "; ".join(text.strip() for text in found)


_COLUMNS: Final[dict[str, list[Column]]] = {
    "ElevationRequest": [
        ("Name", "string", _name),
        ("Phase", "string", _phase),
        ("For", "string", _for),
        ("Reason", "string", _reason),
        ("Left", "string", _left),
        ("Age", "string", _age),
    ],
    "ApprovalRequest": [
        ("Name", "string", _name),
        ("Requester", "string", _requester),
        ("For", "string", _operations),
        ("Reason", "string", _reason),
        ("Age", "string", _age),
    ],
    "Authenticator": [
        ("Name", "string", _name),
        ("Type", "string", _type),
        ("Phase", "string", _phase),
        ("Recovery-Codes", "string", _recovery),
        ("Age", "string", _age),
    ],
}


def now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)
