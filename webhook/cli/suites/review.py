"""The AdmissionReview of a case: recorded, or made as the API server would make it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from webhook.cli.suites.document import Case, SuiteError, beside
from webhook.cli.suites.typed import Asked, asked
from webhook.cli.suites.world import World
from webhook.core.applicable import NAMESPACES
from webhook.core.request import AdmissionRequest, decode
from webhook.errors import ReviewError

Json = dict[str, Any]
_UID = "5d0f6a9c-3f0b-4f55-9d3f-0e6f2a4f7a11"


def request_of(case: Case, world: World, suite_file: Path, field: str) -> AdmissionRequest:
    """The request of a case.

    Args:
        field: the case's path in its suite.

    Raises:
        SuiteError: it cannot be made.
    """
    if case.review:
        review, where = _recorded(case, world, suite_file, field), f"{field}.review"
    else:
        where = f"{field}.do" if case.do else field
        found = asked(case.do, world, where) if case.do else _written(case, world, field)
        review = review_of(found, world.user(case.user))
    try:
        request = decode(msgspec.json.encode(review))
        request.new_head()
        request.old_head()
    except (ReviewError, msgspec.ValidationError) as error:
        raise SuiteError(where, str(error)) from error
    if (request.resource.group, request.resource.resource) != NAMESPACES:
        world.check_namespace(request.namespace, where)
    return request


def _recorded(case: Case, world: World, suite_file: Path, field: str) -> Json:
    try:
        review: Json = msgspec.json.decode(beside(suite_file, case.review).read_bytes(), type=dict)
    except OSError as error:
        raise SuiteError(f"{field}.review", f"{case.review}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise SuiteError(f"{field}.review", f"{case.review}: is not JSON") from error
    request = review.get("request")
    if case.user and isinstance(request, dict):
        request["userInfo"] = world.user(case.user)
    return review


def _written(case: Case, world: World, field: str) -> Asked:
    new = world.thing(case.object, f"{field}.object", case.resource) if case.object is not None else None
    old = world.thing(case.old_object, f"{field}.oldObject", case.resource) if case.old_object is not None else None
    thing = new or old
    if thing is None:
        raise SuiteError(field, "needs an object")
    operation = case.operation or ("UPDATE" if new and old else "CREATE" if new else "DELETE")
    wanted = {"CREATE": (True, False), "UPDATE": (True, True), "DELETE": (False, True)}[operation]
    if (new is not None, old is not None) != wanted:
        needs = " and ".join(name for name, there in zip(("object", "oldObject"), wanted, strict=True) if there)
        raise SuiteError(f"{field}.operation", f"{operation} goes with {needs}, and nothing else")
    if new and old and (new.kind, new.name, new.namespace) != (old.kind, old.name, old.namespace):
        raise SuiteError(f"{field}.oldObject", "is another object than `object`")
    return Asked(thing, operation, new=new.body if new else None, old=old.body if old else None)


def review_of(found: Asked, user: Json) -> Json:
    """The review that the API server would post for a request of a user (``userInfo``)."""
    thing = found.thing
    version = str(thing.body["apiVersion"]).rpartition("/")[2]
    kind = found.kind or (thing.kind.group, version, str(thing.body["kind"]))
    is_namespace = (thing.kind.group, thing.kind.resource) == NAMESPACES
    kind_fields = dict(zip(("group", "version", "kind"), kind, strict=True))
    resource = {"group": thing.kind.group, "version": version, "resource": thing.kind.resource}
    request: Json = {
        "uid": _UID,
        "kind": kind_fields,
        "resource": resource,
        "requestKind": kind_fields,
        "requestResource": resource,
        "name": thing.name,
        "operation": found.operation,
        "userInfo": user,
        "object": found.new,
        "oldObject": found.old,
        "dryRun": False,
        "options": None,
    }
    if found.operation != "CONNECT":
        options = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}[found.operation]
        request["options"] = {"apiVersion": "meta.k8s.io/v1", "kind": options}
    if namespace := thing.name if is_namespace else thing.namespace:
        request["namespace"] = namespace
    if found.sub_resource:
        request.update(subResource=found.sub_resource, requestSubResource=found.sub_resource)
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
