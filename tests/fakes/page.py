"""The elevation service's part of a page, for the kubectl that plays the cluster.

State: `page` is `document`, `url` or `none`; `waits` how often a terminal is told to ask again; `lapses` seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

GOOD = {"id": "good"}
URL = "https://stepup.example.com/p/x/y/#secret"


def created(state: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any] | None:
    """A Page; None where there is none."""
    pages = state.setdefault("pages", [])
    pages.append(spec)
    kind = state.get("page", "document")
    if kind == "none" or (kind == "once" and len(pages) > 1):
        return None
    end = datetime.now(UTC) + timedelta(seconds=state.get("lapses", 300))
    status: dict[str, Any] = {"words": "amber falcon", "expiresAt": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if kind == "url":
        status["url"] = URL
    else:
        status["document"] = {
            "html": "<h1>the page</h1>",
            "opening": "<h1>opening</h1>",
            "headers": {"X-Frame-Options": "DENY"},
            "options": {"challenge": f"challenge-{len(pages)}"},
            "assets": {"/static/page.js": {"contentType": "text/javascript", "text": "// script"}},
        }
    return {"metadata": {"name": f"page-{len(pages)}"}, "status": status}


def refusal(state: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any] | None:
    """Why an answer from a page does not do; None when it does."""
    if "credential" in spec:
        if spec["credential"] == GOOD:
            return None
        return {"accepted": False, "code": "wrong-passkey", "message": "that passkey did not prove anything here"}
    state["waits"] = state.get("waits", 0) - 1
    if state["waits"] >= 0:
        return {"accepted": False, "code": "page-waiting", "message": "nobody has answered yet"}
    return state.get("claim")
