"""Discovery and OpenAPI documents: static, so that they answer while Kubernetes does not.

While the discovery of an APIService fails, no namespace can finish deleting: these documents need nothing but this process.
"""

from __future__ import annotations

from typing import Any, Final

from webhook import __version__
from webhook.elevation.resources import GROUP, GROUP_VERSION, RESOURCES, VERSION, Resource

JSON = dict[str, Any]
_VERSION: Final = {"groupVersion": GROUP_VERSION, "version": VERSION}
API_GROUP: Final[JSON] = {
    "kind": "APIGroup",
    "apiVersion": "v1",
    "name": GROUP,
    "versions": [_VERSION],
    "preferredVersion": _VERSION,
}
API_GROUP_LIST: Final[JSON] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [API_GROUP]}
API_RESOURCE_LIST: Final[JSON] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": GROUP_VERSION,
    "resources": [
        {
            "name": one.name,
            "singularName": one.singular,
            "namespaced": False,
            "kind": one.kind,
            "verbs": list(one.verbs),
            **({"shortNames": list(one.short_names)} if one.short_names else {}),
        }
        for one in RESOURCES
    ],
}
BASE_PATH: Final = f"/apis/{GROUP_VERSION}"


def openapi_v3_index() -> JSON:
    """``/openapi/v3``: where the document of the group is."""
    return {"paths": {BASE_PATH[1:]: {"serverRelativeURL": f"/openapi/v3{BASE_PATH}?hash={__version__}"}}}


def openapi_v3() -> JSON:
    """``/openapi/v3/apis/…``: what `kubectl explain` reads."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "kube-stepup elevation", "version": __version__},
        "paths": {path: item for one in RESOURCES for path, item in _paths(one).items()},
        "components": {"schemas": {_schema_name(one): _schema(one) for one in RESOURCES}},
    }


def openapi_v2() -> JSON:
    """``/openapi/v2``: definitions alone, for clients that still read it."""
    return {
        "swagger": "2.0",
        "info": {"title": "kube-stepup elevation", "version": __version__},
        "paths": {},
        "definitions": {_schema_name(one): _schema(one) for one in RESOURCES},
    }


def _schema_name(resource: Resource) -> str:
    return f"io.kube-stepup.elevation.{VERSION}.{resource.kind}"


def _schema(resource: Resource) -> JSON:
    return {
        "type": "object",
        "description": resource.description,
        "properties": {
            "apiVersion": {"type": "string", "description": GROUP_VERSION},
            "kind": {"type": "string", "description": resource.kind},
            "metadata": {"type": "object", "description": "Standard metadata; names are made by the server."},
            "spec": resource.spec,
            "status": resource.status,
        },
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": resource.kind}],
    }


def _paths(resource: Resource) -> dict[str, JSON]:
    parent, _, subresource = resource.name.partition("/")
    collection = f"{BASE_PATH}/{parent}"
    single = f"{collection}/{{name}}"
    if subresource:
        return {f"{single}/{subresource}": {"parameters": [_NAME], "post": _operation(resource, "create")}}
    paths: dict[str, JSON] = {collection: {}}
    if "list" in resource.verbs:
        paths[collection]["get"] = _operation(resource, "list")
    if "create" in resource.verbs:
        paths[collection]["post"] = _operation(resource, "create")
    if "get" in resource.verbs:
        paths[single] = {"parameters": [_NAME], "get": _operation(resource, "get")}
        if "delete" in resource.verbs:
            paths[single]["delete"] = _operation(resource, "delete")
    return paths


_NAME: Final[JSON] = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def _operation(resource: Resource, verb: str) -> JSON:
    reference = {"$ref": f"#/components/schemas/{_schema_name(resource)}"}
    content = {"application/json": {"schema": reference}}
    operation: JSON = {
        "operationId": f"{verb}{resource.kind}",
        "responses": {"200": {"description": "OK", "content": content}},
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": resource.kind},
    }
    if verb == "create":
        operation["requestBody"] = {"content": content}
    return operation
