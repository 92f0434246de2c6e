"""A small Kubernetes REST client over ``kubernetes.aio``: JSON in, JSON out, our own errors, a deadline on every call.

The generated model classes are not used: they cost memory and hide fields that they do not know. Authentication, TLS,
token refresh and connection pooling are the library's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from webhook.errors import ConfigurationError, ConflictError, StoreUnavailableError

GROUP = "kube-stepup.io"
VERSION = "v1alpha1"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_EVENT_BYTES = 8 * 1024 * 1024  # a request is at most 3 MiB; what the API server adds is less than as much again
HTTP_NOT_FOUND = 404
HTTP_CONFLICT = 409

JSONObject = dict[str, Any]


def own_path(resource: str, name: str = "", subresource: str = "") -> str:
    """Path of one of our own cluster-scoped objects, such as ``own_path("elevations", "elv-…", "status")``."""
    return object_path(GROUP, VERSION, resource, name=name, subresource=subresource)


def object_path(
    group: str, version: str, resource: str, *, namespace: str = "", name: str = "", subresource: str = ""
) -> str:
    """Path of any object or collection of the Kubernetes API; names are percent-encoded."""
    parts = ["", "apis", group, version] if group else ["", "api", version]
    if namespace:
        parts += ["namespaces", _segment(namespace)]
    parts += [_segment(part) for part in (resource, name, subresource) if part]
    return "/".join(parts)


def _segment(name: str) -> str:
    # HTTP clients resolve dot segments, also percent-encoded ones: encoded twice they name an object that cannot exist.
    return name.replace(".", "%252E") if name in {".", ".."} else quote(name, safe="")


class AnswerError(StoreUnavailableError):
    """The API server refused a call.

    Args:
        status: HTTP status.
        reason: ``reason`` of the metav1.Status, such as ``Forbidden``.
        text: its ``message``, for the log alone.
    """

    def __init__(self, status: int, reason: str, method: str, path: str, text: str = "") -> None:
        answer = f"{status} {reason}{f' ({text})' if text else ''}"
        super().__init__(f"the Kubernetes API answered {answer} to {method} {path.split('?', 1)[0]}")
        self.status = status
        self.reason = reason


class KubeClient:
    """Calls one API server with one identity; use as an async context manager."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls, kubeconfig: str = "") -> KubeClient:
        """Load the identity of a kubeconfig file, or the pod's own service account when the path is empty.

        Raises:
            ConfigurationError: there is no usable configuration.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = 100
        try:
            if kubeconfig:
                await load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
            else:
                load_incluster_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise ConfigurationError(f"no way to reach the Kubernetes API: {error}", field="kubeconfig") from error
        return cls(ApiClient(configuration))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def get(
        self, path: str, *, accept: str = "application/json", timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> JSONObject | None:
        """Read one object (or a page of a list); None when it does not exist.

        Raises:
            StoreUnavailableError: the API server could not be reached or refused.
        """
        try:
            return await self._call("GET", path, accept=accept, timeout_seconds=timeout_seconds)
        except AnswerError as error:
            if error.status == HTTP_NOT_FOUND:
                return None
            raise

    async def create(
        self, path: str, body: JSONObject, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> JSONObject:
        """Create an object.

        Raises:
            ConflictError: it exists already.
            StoreUnavailableError: anything else.
        """
        return await self._call("POST", path, body=body, timeout_seconds=timeout_seconds)

    async def replace(
        self, path: str, body: JSONObject, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> JSONObject:
        """Replace an object; with ``metadata.resourceVersion`` in the body this is a compare-and-swap.

        Raises:
            ConflictError: somebody changed it first.
            StoreUnavailableError: anything else.
        """
        return await self._call("PUT", path, body=body, timeout_seconds=timeout_seconds)

    async def merge_patch(
        self, path: str, body: JSONObject, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> JSONObject:
        """Apply a JSON merge patch (RFC 7386); with ``metadata.resourceVersion`` in it, a compare-and-swap."""
        return await self._call(
            "PATCH", path, body=body, content_type="application/merge-patch+json", timeout_seconds=timeout_seconds
        )

    async def warnings_of_dry_run(self, path: str, body: JSONObject, *, field_manager: str) -> list[str]:
        """Apply a JSON merge patch that is never stored; the warnings that came with the answer.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        query = urlencode({"dryRun": "All", "fieldManager": field_manager})
        headers = {"Accept": "application/json", "Content-Type": "application/merge-patch+json"}
        timeout = aiohttp.ClientTimeout(total=DEFAULT_TIMEOUT_SECONDS)
        response = await self._send("PATCH", f"{path}?{query}", body, headers, timeout)
        try:
            if response.status >= 300:
                raise await _refusal(response, "PATCH", path)
            return [str(value) for value in response.headers.getall("Warning", [])]
        finally:
            response.release()

    async def delete(
        self, path: str, *, resource_version: str = "", timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> bool:
        """Delete an object, only in that version if one is given; False when it was gone already.

        Raises:
            ConflictError: it changed since that version.
            StoreUnavailableError: anything else.
        """
        body: JSONObject = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if resource_version:
            body["preconditions"] = {"resourceVersion": resource_version}
        try:
            await self._call("DELETE", path, body=body, timeout_seconds=timeout_seconds)
        except AnswerError as error:
            if error.status == HTTP_NOT_FOUND:
                return False
            raise
        return True

    async def pages(self, path: str, *, limit: int = 500, form: type | None = None) -> AsyncIterator[JSONObject]:
        """The pages of a list, each a whole List object; ``path`` has no query.

        Args:
            form: a msgspec type of what is read of each item; the rest is never decoded. None for all of it.
        """
        token = ""
        decoder = msgspec.json.Decoder(_list_of(form)) if form is not None else None
        while True:
            query = {"limit": str(limit), **({"continue": token} if token else {})}
            page = await self._call("GET", f"{path}?{urlencode(query)}", timeout_seconds=60, decoder=decoder)
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    @asynccontextmanager
    async def watch(
        self, path: str, *, resource_version: str, timeout_seconds: int, stall_seconds: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A watch with bookmarks: an iterator of lines, each one JSON event.

        Raises:
            AnswerError: 410 when ``resource_version`` is too old.
            StoreUnavailableError: no byte for ``stall_seconds`` (also a connection that is open but dead), or no way.
        """
        query = urlencode(
            {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": resource_version,
                "timeoutSeconds": str(timeout_seconds),
            }
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=stall_seconds)
        response = await self._send("GET", f"{path}?{query}", None, {"Accept": "application/json"}, timeout)
        try:
            if response.status >= 300:
                raise await _refusal(response, "WATCH", path)
            yield _lines(response)
        finally:
            response.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: JSONObject | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        decoder: msgspec.json.Decoder[Any] | None = None,
    ) -> JSONObject:
        headers = {"Accept": accept, "Content-Type": content_type}
        response = await self._send(method, path, body, headers, aiohttp.ClientTimeout(total=timeout_seconds))
        try:
            if response.status >= 300:
                raise await _refusal(response, method, path)
            text = await response.read()
            answer: JSONObject = (
                msgspec.json.decode(text) if decoder is None else msgspec.to_builtins(decoder.decode(text))
            )
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreUnavailableError(f"the Kubernetes API's answer to {method} did not arrive whole") from error
        finally:
            response.release()
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        body: JSONObject | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own deadline, which covers the body too
    ) -> aiohttp.ClientResponse:
        try:
            # Reads the token anew when it is due, which may fail as well.
            request = await self._api.param_serialize(
                method, path, header_params=dict(headers), body=body, auth_settings=["BearerToken"]
            )
            answer = await self._api.call_api(*request, _request_timeout=timeout)
        except (aiohttp.ClientError, ConfigException, TimeoutError, OSError) as error:
            raise StoreUnavailableError("the Kubernetes API cannot be reached") from error
        response: aiohttp.ClientResponse = answer.response
        return response


def _list_of(form: type) -> Any:
    return msgspec.defstruct("_List", [("metadata", dict[str, Any], {}), ("items", list[form], [])])  # type: ignore[valid-type]


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # Not `readline`: that gives up at 128 KiB, and a CustomResourceDefinition can be many times that.
    rest = bytearray()
    try:
        async for chunk in response.content.iter_any():
            rest += chunk
            if b"\n" in chunk:
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    yield bytes(line)
            if len(rest) > MAX_EVENT_BYTES:
                raise StoreUnavailableError("a watch sent an event that is too large")
        if rest:
            yield bytes(rest)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise StoreUnavailableError("a watch broke off or went silent") from error


async def _refusal(response: aiohttp.ClientResponse, method: str, path: str) -> StoreUnavailableError:
    reason, text = response.reason or "", ""
    try:
        status = msgspec.json.decode(await response.read())
        reason, text = str(status.get("reason") or reason), str(status.get("message") or "")[:500]
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError, AttributeError):
        pass  # a proxy answered, not the API server: the HTTP status is all there is
    if response.status == HTTP_CONFLICT:
        return ConflictError(f"somebody else changed {path.split('?', 1)[0]} first")
    return AnswerError(response.status, reason, method, path, text)
