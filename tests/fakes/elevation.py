"""Elevation servers over a `FakeKube`, asked as kube-apiserver's front proxy asks them: no socket, a clock that is set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx
import pyotp

from tests.builders import AUDIENCE, CREDENTIAL, CREDENTIAL_EXTRA, detail, policy
from tests.fakes.front_proxy import CONFIG_MAP, Authority, config_map
from tests.fakes.kube import FakeKube, until
from webhook.adapters.envelope import Envelope
from webhook.adapters.issuers import Fetch, fetch_json
from webhook.adapters.kube import object_path, own_path
from webhook.elevation.app import Services, create_app
from webhook.elevation.front_proxy import FrontProxy
from webhook.elevation.http import PEER
from webhook.settings import Settings

NAMESPACE = "kube-stepup"
API = "/apis/elevation.kube-stepup.io/v1alpha1"
GROUP_VERSION = "elevation.kube-stepup.io/v1alpha1"
KEK = b"0123456789abcdef0123456789abcdef"
STARTED = 1_790_000_020  # ten seconds into a time step
OPERATOR = "operator"
STEP_SECONDS = 30
Start = Callable[..., Awaitable["Server"]]


class Clock:
    """Seconds since the epoch, as long as nobody turns it."""

    def __init__(self, now: float = STARTED) -> None:
        self.now = float(now)

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Server:
    """One replica. All that shares a `FakeKube` shares a cluster.

    Args:
        elevation: settings of the section `elevation`.
        envelope: with the encryption key of the cluster by default.
        fetch: reads the documents of issuers.
        settings: other settings.
    """

    def __init__(
        self,
        kube: FakeKube,
        clock: Clock,
        authority: Authority,
        elevation: Mapping[str, Any] | None = None,
        envelope: Envelope | None = None,
        fetch: Fetch = fetch_json,
        **settings: Any,
    ) -> None:
        self.kube = kube
        self.clock = clock
        self.authority = authority
        self.settings = Settings.model_validate(
            {"audience": AUDIENCE, "namespace": NAMESPACE, "elevation": dict(elevation or {}), **settings}
        )
        front_proxy = FrontProxy(
            kube,  # type: ignore[arg-type]
            self.settings.elevation.request_header,
            now=lambda: datetime.fromtimestamp(clock(), UTC),
        )
        envelope = envelope or Envelope({"kek-1": KEK})
        self.services = Services(self.settings, kube, envelope, front_proxy, clock=clock, fetch=fetch)  # type: ignore[arg-type]
        self.app = create_app(self.services)
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start what runs beside the requests and wait until it is ready."""
        self._work = asyncio.create_task(self.services.run())
        await until(lambda: not self.services.waiting_for())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._work is not None
        self._work.cancel()
        with suppress(asyncio.CancelledError):
            await self._work

    async def request(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str | bytes]] | None = None,
        *,
        content: Any = b"",
        certificate: bytes | None = None,
    ) -> httpx.Response:
        """Any request on a connection with this client certificate."""

        async def connection(scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, PEER: certificate}, receive, send)

        transport = httpx.ASGITransport(connection, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://elevation") as client:
            sent = [
                (name.encode(), value.encode() if isinstance(value, str) else value) for name, value in headers or []
            ]
            return await client.request(method, path, headers=sent, content=content)

    def person(self, name: str = "alice", *groups: str, credential: str = CREDENTIAL, **headers: str) -> Person:
        """Somebody who asks through the API server."""
        return Person(self, name, groups or ("devs",), credential, headers)


class Person:
    """Somebody with a credential and, once enrolled, an authenticator."""

    def __init__(
        self, server: Server, name: str, groups: tuple[str, ...], credential: str, headers: Mapping[str, str]
    ) -> None:
        self.server = server
        self.name = name
        self.credential = credential
        self.secret = ""
        self.recovery_codes: list[str] = []
        self._certificate = server.authority.front_proxy
        self._groups = groups
        self._headers = dict(headers)

    def at(self, server: Server) -> Person:
        """The same person and credential, at another replica."""
        return self._same(server, self.credential)

    def with_credential(self, credential: str) -> Person:
        """The same person with another credential."""
        return self._same(self.server, credential)

    def _same(self, server: Server, credential: str) -> Person:
        found = Person(server, self.name, self._groups, credential, self._headers)
        found.secret, found.recovery_codes = self.secret, self.recovery_codes
        return found

    async def request(self, method: str, path: str, content: Any = b"", **headers: str) -> httpx.Response:
        """As kube-apiserver hands it on."""
        identity = [("X-Remote-User", self.name), *(("X-Remote-Group", group) for group in self._groups)]
        if self.credential:
            identity.append((f"X-Remote-Extra-{quote(CREDENTIAL_EXTRA, safe='')}", self.credential))
        sent = {"X-Forwarded-For": "203.0.113.7", **self._headers, **headers}
        return await self.server.request(
            method, path, [*identity, *sent.items()], content=content, certificate=self._certificate
        )

    async def post(self, resource: str, spec: Any, kind: str = "") -> httpx.Response:
        """Create an object."""
        body = {"apiVersion": GROUP_VERSION, "spec": spec, **({"kind": kind} if kind else {})}
        return await self.request("POST", f"{API}/{resource}", json.dumps(body).encode())

    async def get(self, resource: str, **headers: str) -> httpx.Response:
        return await self.request("GET", f"{API}/{resource}", **headers)

    async def delete(self, resource: str) -> httpx.Response:
        return await self.request("DELETE", f"{API}/{resource}")

    async def ticket(self, seconds: int = 3600) -> str:
        """A ticket for this person, from an operator."""
        operator = self.server.person(OPERATOR, credential="X509SHA256=operator")
        answer = await operator.post("enrollmenttickets", {"username": self.name, "ttlSeconds": seconds})
        return str(created(answer)["status"]["ticket"])

    async def begin(self, **spec: Any) -> httpx.Response:
        """Start an enrolment."""
        return await self.post("authenticators", {"type": "totp", **spec})

    async def confirm(self, name: str, code: str) -> dict[str, Any]:
        """Finish an enrolment; the status of the answer."""
        answer = created(await self.post(f"authenticators/{name}/confirm", {"code": code}))
        return dict(answer["status"])

    async def enrol(self) -> Person:
        """Bind an authenticator with a ticket, by the code of the step before this one."""
        started = created(await self.begin(ticket=await self.ticket()))
        self.secret = started["status"]["secret"]
        status = await self.confirm(started["metadata"]["name"], self.code(-1))
        self.recovery_codes = status["recoveryCodes"]
        return self

    def code(self, steps: int = 0) -> str:
        """The code of now, or of so many time steps later."""
        return pyotp.TOTP(self.secret).at(int(self.server.clock()) + STEP_SECONDS * steps)

    def wrong_code(self) -> str:
        """A code that is not right now."""
        right = {self.code(steps) for steps in range(-2, 3)}
        return next(code for code in (f"{number:06}" for number in range(10)) if code not in right)

    async def ask(self, *details: dict[str, Any], reason: str = "") -> str:
        """Ask for an elevation; its name."""
        answer = created(await self.post("elevationrequests", {"details": details or [wanted()], "reason": reason}))
        return str(answer["metadata"]["name"])

    async def answer(self, name: str, code: str, factor: str = "totp") -> dict[str, Any]:
        """Answer a challenge; the status of the answer."""
        spec = {"factor": factor, "code": code}
        return dict(created(await self.post(f"elevationrequests/{name}/answer", spec))["status"])

    async def step_up(self, *details: dict[str, Any], reason: str = "") -> tuple[str, str]:
        """Ask and answer with a recovery code; the name and the assertion."""
        name = await self.ask(*details, reason=reason)
        status = await self.answer(name, self.recovery_codes.pop(), "recovery-code")
        assert status["accepted"], status
        return name, str(status["assertion"])


def wanted(**fields: Any) -> dict[str, Any]:
    """One entry of `spec.details` of an ElevationRequest, with changes."""
    return {key: value for key, value in detail(**fields).items() if key != "type"}


def created(answer: httpx.Response) -> dict[str, Any]:
    """The object of a 201."""
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    """HTTP status, stable code and field of a refusal, which is a metav1.Status through and through."""
    status = answer.json()
    (cause,) = status["details"]["causes"]
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == answer.status_code
    assert status["reason"]
    assert status["message"].endswith(f" (code: {cause['reason']})")
    return answer.status_code, cause["reason"], "" if cause["field"] == "code" else cause["field"]


async def cluster(kube: FakeKube, authority: Authority, *policies: dict[str, Any]) -> None:
    """What a cluster holds before we start: the request-header CA, a guarded namespace and a free one, policies."""
    kube.objects[CONFIG_MAP] = config_map(authority)
    namespaces = object_path("", "v1", "namespaces")
    for name, labels in (("prod", {"env": "prod"}), ("staging", {"env": "staging"})):
        await kube.create(namespaces, {"metadata": {"name": name, "labels": labels}})
    for one in policies or (policy(),):
        await kube.create(own_path("stepuppolicies"), one)
