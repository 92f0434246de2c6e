"""Options of the Kubernetes API that this API does not have are refused: whoever asks for a rehearsal, or for some of all,
must not get the deed, or all of them, instead.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import Request

from webhook.elevation.http import body_of, requester
from webhook.errors import RequestError

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
TRUE: Final = frozenset({"true", "1"})


async def refuse_unsupported(request: Request) -> None:
    """Refuse what would be ignored: dry runs, watches, selectors other than by name.

    Raises:
        RequestError: ``dry-run-unsupported``, ``watch-unsupported`` or ``selector-unsupported``; of a body, also as ``body_of``.
    """
    query = request.query_params
    if request.method in WRITES:
        if "dryRun" in query or (request.method == "DELETE" and await _asks_for_dry_run(request)):
            text = "this API has no dry run; nothing was done. Leave --dry-run out"
            raise RequestError(text, code="dry-run-unsupported", field="dryRun")
        return
    if query.get("watch", "").lower() in TRUE:
        text = "these cannot be watched; get them again"
        raise RequestError(text, code="watch-unsupported", status=405, reason="MethodNotAllowed", field="watch")
    if query.get("labelSelector"):
        text = "these have no labels to select by; select by name"
        raise RequestError(text, code="selector-unsupported", field="labelSelector")
    selected_name(request)


def selected_name(request: Request) -> str:
    """The name that a list is narrowed to; empty for none.

    Raises:
        RequestError: ``selector-unsupported``.
    """
    wanted = request.query_params.get("fieldSelector", "")
    field, _, name = wanted.replace("==", "=", 1).partition("=")
    if wanted and (field != "metadata.name" or not name or any(letter in name for letter in ",=!")):
        text = "these can be selected by metadata.name=NAME alone"
        raise RequestError(text, code="selector-unsupported", field="fieldSelector")
    return name


async def _asks_for_dry_run(request: Request) -> bool:
    """Whether the DeleteOptions say so, where kubectl puts it. Nothing is read from somebody who is not known."""
    requester(request)
    options: Any = await body_of(request, empty={})
    return not isinstance(options, dict) or bool(options.get("dryRun"))
