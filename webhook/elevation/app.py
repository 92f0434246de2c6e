"""The elevation server's application: routes of the aggregated API, health, and what runs beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from webhook.adapters.authenticator_store import AuthenticatorStore
from webhook.adapters.background import Background
from webhook.adapters.cluster_state import ClusterState
from webhook.adapters.elevation_store import ElevationStore
from webhook.adapters.envelope import Envelope
from webhook.adapters.identity_tokens import IdentityTokens
from webhook.adapters.issuers import Fetch, fetch_json
from webhook.adapters.kube import KubeClient
from webhook.adapters.notices import Notices
from webhook.adapters.signing_keys import SigningKeys
from webhook.core.assertion import Expected
from webhook.core.identity import ImpersonatingProxies
from webhook.elevation import discovery
from webhook.elevation.approval_notices import ApprovalNotices
from webhook.elevation.approval_routes import add_approvals
from webhook.elevation.bodies import (
    Answer,
    ConfirmationCode,
    Username,
    WantedAuthenticator,
    WantedElevation,
    WantedExchange,
    WantedPage,
    WantedReview,
)
from webhook.elevation.enrolment import Enrolment
from webhook.elevation.exchange import Exchange, exchange_object
from webhook.elevation.factors import available
from webhook.elevation.factors.totp import Totp
from webhook.elevation.front_proxy import FrontProxy
from webhook.elevation.granting import Granting
from webhook.elevation.http import ASGIApp, Gate, json_response, on_error, posted, requester
from webhook.elevation.listing import list_response, one_response
from webhook.elevation.minting import Mint
from webhook.elevation.needs import Needs
from webhook.elevation.operator_actions import OperatorActions
from webhook.elevation.options import refuse_unsupported
from webhook.elevation.own_step_up import OwnStepUps
from webhook.elevation.page.actions import Actions
from webhook.elevation.page.pages import Pages
from webhook.elevation.page.site import Site
from webhook.elevation.permission import Permission
from webhook.elevation.requests import ElevationRequests
from webhook.elevation.resources import GROUP_VERSION
from webhook.elevation.reviews import ElevationReviews
from webhook.elevation.seals import Seals
from webhook.elevation.status import success
from webhook.elevation.webauthn.passkeys import Passkeys
from webhook.errors import RequestError, StepUpError, StoreUnavailableError
from webhook.settings import Settings

BASE = discovery.BASE_PATH
PATIENCE_SECONDS: Final = 30  # a start takes two; a rollout that cannot work stops here
WAITING: Final = "waiting"
DISCOVERY_ONLY: Final = "discovery-only"


class Services:
    """Everything that the routes need, wired together.

    Args:
        clock: seconds since the epoch.
        fetch: reads the documents of issuers.
    """

    def __init__(
        self,
        settings: Settings,
        kube: KubeClient,
        envelope: Envelope,
        front_proxy: FrontProxy,
        *,
        clock: Callable[[], float] = time.time,
        fetch: Fetch = fetch_json,
    ) -> None:
        options = settings.elevation
        self._clock = clock
        self._started_at = clock()
        self.kube = kube
        self.envelope = envelope
        self.front_proxy = front_proxy
        self.state = ClusterState(kube, with_elevations=False)
        self.keys = SigningKeys(
            kube,
            envelope,
            namespace=settings.namespace,
            secret=options.signing_keys_secret,
            algorithm=options.signing_algorithm,
            propagation_seconds=options.signing_key_propagation_seconds,
            rotation_seconds=options.signing_key_rotation_seconds,
            max_lifetime_seconds=settings.assertion_max_lifetime_seconds,
            clock=clock,
        )
        people = AuthenticatorStore(kube, settings.namespace, envelope)
        self.notices = Notices(settings.notices)
        passkeys = Passkeys(people, settings)
        factors = available(settings, envelope, passkeys.factor)
        needs = Needs(
            self.state.index,
            settings.namespace,
            (*settings.controllers.service_accounts, *settings.controller.own_service_accounts),
            people,
            factors.values(),
        )
        mint = Mint(
            self.keys,
            issuer=settings.issuer,
            audience=settings.audience,
            max_lifetime_seconds=settings.assertion_max_lifetime_seconds,
        )
        elevations = ElevationStore(kube)
        self.requests = ElevationRequests(
            elevations,
            people,
            factors,
            mint,
            needs,
            options,
            Seals(envelope),
            tell=self.notices.tell,
            session_extra_key=settings.session_extra_key,
            clock=clock,
        )
        self.exchange = Exchange(
            ElevationStore(kube),
            IdentityTokens(
                options.workload_issuers,
                audience=settings.audience,
                longest_seconds=options.keep_record_seconds,
                clock=clock,
                fetch=fetch,
            ),
            mint,
            Granting(elevations, mint, Seals(envelope), options.approvals.lifetime_seconds),
            needs,
            ApprovalNotices(self.notices.tell),
            max_lifetime_seconds=options.workload_max_lifetime_seconds,
            person_key=options.approvals.person_key,
            clock=clock,
        )
        self.reviews = ElevationReviews(
            ElevationStore(kube),
            self.state.index,
            Expected(settings.issuer, settings.audience, settings.session_extra_key.lower()),
            own_namespace=settings.namespace,
            controllers=(*settings.controllers.service_accounts, *settings.controller.own_service_accounts),
            clock=clock,
        )
        self.proxies = ImpersonatingProxies(settings.impersonating_proxies.credential_extra_keys)
        self.operators = OperatorActions(people, self.requests.revoke_all_of, clock, self.notices.tell)
        expected = Expected(settings.issuer, settings.audience, settings.session_extra_key.lower())
        step_ups = OwnStepUps(elevations, self.keys, expected, clock)
        permission = Permission(people, step_ups, factors.values(), options)
        self.enrolment = Enrolment(
            people,
            Totp(options.totp, envelope),
            passkeys.enrolment,
            permission,
            session_extra_key=settings.session_extra_key,
            clock=clock,
            tell=self.notices.tell,
        )
        self.pages = Pages(self.requests, needs, passkeys, options, settings.audience, clock)
        actions = Actions(people, self.requests, self.pages, passkeys, settings.audience, clock)
        self.site = Site(actions, options.page.origin, settings.audience, lambda: not self.waiting_for())

    def waiting_for(self) -> list[str]:
        """What is missing before a person can be served; empty when nothing is."""
        waiting = list(self.state.waiting_for)
        waiting += [] if self.envelope.ready else ["the encryption key"]
        waiting += [] if self.keys.ready else ["a signing key"]
        return waiting + ([] if self.front_proxy.ready else ["the request-header CA"])

    def readiness(self) -> tuple[str, list[str]]:
        """How ready this replica is, and what it waits for.

        What it waits for in vain does not take it out of service for ever: a replica that can only answer discovery keeps
        the APIService available, without which no namespace of the cluster finishes deleting. Nobody steps up there.
        """
        waiting = self.waiting_for()
        if not waiting:
            return "ok", waiting
        late = self._clock() - self._started_at > PATIENCE_SECONDS
        return (DISCOVERY_ONLY if late and self.front_proxy.ready else WAITING), waiting

    def require_ready(self) -> None:
        """Refuse to judge by half a picture: without the policies nothing would seem to need a step-up.

        Raises:
            StoreUnavailableError: naming what is missing.
        """
        if waiting := self.waiting_for():
            raise StoreUnavailableError(f"not ready: waiting for {', '.join(waiting)}")
        if self.state.ground.problem:
            # Records would be written to whoever answers for our API group.
            raise StoreUnavailableError(f"not safe just now: {self.state.ground.problem}")

    async def run(self) -> None:
        """Everything that goes on beside the requests, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.envelope.run())
            group.create_task(self.state.run())
            group.create_task(self.keys.run())
            group.create_task(self.front_proxy.run())
            group.create_task(self.notices.run())


def create_app(services: Services) -> ASGIApp:
    """The whole application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with services.kube, Background(services.run()):
            yield

    app = FastAPI(title="kube-stepup elevation", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.router.dependencies.append(Depends(refuse_unsupported))
    for kind in (StepUpError, HTTPException, Exception):
        app.add_exception_handler(kind, on_error)
    _add_documents(app, services)
    _add_elevation_requests(app, services)
    add_approvals(app, BASE, services.requests.approvals, services.require_ready)
    _add_authenticators(app, services.enrolment)
    _add_pages(app, services)
    _add_operations(app, services.operators)
    return Gate(app, services.front_proxy, services.proxies)


def _add_documents(app: FastAPI, services: Services) -> None:
    documents = {
        "/apis": discovery.API_GROUP_LIST,
        f"/apis/{GROUP_VERSION.split('/', maxsplit=1)[0]}": discovery.API_GROUP,
        BASE: discovery.API_RESOURCE_LIST,
        "/openapi/v2": discovery.openapi_v2(),
        "/openapi/v3": discovery.openapi_v3_index(),
        f"/openapi/v3{BASE}": discovery.openapi_v3(),
    }
    for path, document in documents.items():
        app.add_api_route(path, _constant(document), methods=["GET"])

    @app.get("/livez")
    async def livez() -> Response:
        return json_response({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        status, waiting = services.readiness()
        return json_response({"status": status, "waitingFor": waiting}, 503 if status == WAITING else 200)


def _add_elevation_requests(app: FastAPI, services: Services) -> None:
    service, path = services.requests, f"{BASE}/elevationrequests"

    @app.post(path)
    async def create(request: Request) -> Response:
        who, wanted = await posted(request, "ElevationRequest", WantedElevation)
        services.require_ready()
        return json_response(await service.create(who, wanted), 201)

    @app.get(path)
    async def list_own(request: Request) -> Response:
        return list_response(request, "ElevationRequest", await service.all_own(requester(request)))

    @app.get(path + "/{name}")
    async def get_own(request: Request, name: str) -> Response:
        return one_response(request, await service.get(requester(request), name))

    @app.delete(path + "/{name}")
    async def revoke_own(request: Request, name: str) -> Response:
        await service.revoke_own(requester(request), name)
        return json_response(success(name, "elevationrequests"))

    @app.post(path + "/{name}/answer")
    async def answer(request: Request, name: str) -> Response:
        who, given = await posted(request, "ChallengeAnswer", Answer)
        services.require_ready()
        return json_response(await service.answer(who, name, given), 201)

    @app.post(f"{BASE}/elevationreviews")
    async def review(request: Request) -> Response:
        who, wanted = await posted(request, "ElevationReview", WantedReview)
        services.require_ready()
        return json_response(await services.reviews.review(who, wanted), 201)

    @app.post(f"{BASE}/tokenexchanges")
    async def exchange(request: Request) -> Response:
        who, wanted = await posted(request, "TokenExchange", WantedExchange)
        services.require_ready()
        return json_response(exchange_object(await services.exchange.exchange(who, wanted)), 201)

    @app.post(path + "/{name}/revoke")
    async def revoke_any(request: Request, name: str) -> Response:
        return json_response(await service.revoke_any(requester(request), name), 201)


def _add_pages(app: FastAPI, services: Services) -> None:
    @app.post(f"{BASE}/pages")
    async def create(request: Request) -> Response:
        who, wanted = await posted(request, "Page", WantedPage)
        services.require_ready()
        return json_response(await services.pages.create(who, wanted), 201)


def _add_authenticators(app: FastAPI, service: Enrolment) -> None:
    path = f"{BASE}/authenticators"

    @app.post(path)
    async def begin(request: Request) -> Response:
        who, wanted = await posted(request, "Authenticator", WantedAuthenticator)
        return json_response(await service.begin(who, wanted), 201)

    @app.get(path)
    async def list_own(request: Request) -> Response:
        return list_response(request, "Authenticator", await service.all_own(requester(request)))

    @app.get(path + "/{name}")
    async def get_own(request: Request, name: str) -> Response:
        return one_response(request, await service.get(requester(request), name))

    @app.delete(path + "/{name}")
    async def remove(request: Request, name: str) -> Response:
        query = request.query_params
        await service.remove(
            requester(request), name, elevation=query.get("elevation", ""), last=query.get("last", "") == "yes"
        )
        return json_response(success(name, "authenticators"))

    @app.post(path + "/{name}/confirm")
    async def confirm(request: Request, name: str) -> Response:
        who, given = await posted(request, "AuthenticatorConfirmation", ConfirmationCode)
        return json_response(await service.confirm(who, name, given), 201)


def _add_operations(app: FastAPI, service: OperatorActions) -> None:
    """What operators do to other people's authenticators; RBAC on these resources says who may."""

    @app.post(f"{BASE}/enrollmenttickets")
    async def issue_ticket(request: Request) -> Response:
        who, wanted = await posted(request, "EnrollmentTicket", Username)
        return json_response(await service.issue_ticket(who, wanted), 201)

    @app.post(f"{BASE}/authenticatorunlocks")
    async def unlock(request: Request) -> Response:
        who, wanted = await posted(request, "AuthenticatorUnlock", Username)
        return json_response(await service.unlock(who, wanted), 201)

    @app.post(f"{BASE}/authenticatorresets")
    async def reset(request: Request) -> Response:
        who, wanted = await posted(request, "AuthenticatorReset", Username)
        return json_response(await service.reset(who, wanted), 201)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def nothing_here(path: str) -> Response:
        raise RequestError(f"there is nothing at /{path}", code="not-found", status=404, reason="NotFound")


def _constant(document: dict[str, Any]) -> Any:
    response = json_response(document)

    async def show() -> Response:
        return response

    return show
