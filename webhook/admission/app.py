"""The admission server's application: FastAPI for health, the hot path in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from webhook.adapters.background import Background
from webhook.adapters.cluster_state import ClusterState
from webhook.adapters.kube import KubeClient
from webhook.admission.events import BrokenGlassEvents
from webhook.admission.hot_path import ASGIApp, HotPath
from webhook.admission.live import Live
from webhook.admission.path_secrets import PathSecrets
from webhook.admission.service import Admission
from webhook.core.assertion import Expected
from webhook.core.identity import BreakGlass, Controllers, ImpersonatingProxies
from webhook.settings import Settings


def health(
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]], waiting_for: Callable[[], list[str]]
) -> FastAPI:
    """``/livez`` and ``/readyz``; the latter fails, and says what it waits for, until all watches are in, and when one is lost.

    A replica that does not hear of new policies and revocations is one that the Service should not send to while others do;
    whatever reaches it all the same is decided with what was known last.
    """
    app = FastAPI(title="kube-stepup admission", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        waiting = waiting_for()
        status = "waiting" if waiting else "ok"
        return JSONResponse({"status": status, "waitingFor": waiting}, status_code=503 if waiting else 200)

    return app


def create_app(settings: Settings, kube: KubeClient, path_secrets: PathSecrets) -> ASGIApp:
    """The whole application over one Kubernetes client, which it closes when it ends."""
    options = settings.admission
    state = ClusterState(kube, stall_seconds=options.watch_stall_seconds)
    live = Live(
        kube,
        state.elevations,
        read_seconds=options.live_read_timeout_seconds,
        write_seconds=options.use_write_timeout_seconds,
    )
    identities = settings.controllers
    controllers = Controllers(
        (*identities.service_accounts, *settings.controller.own_service_accounts),
        identities.certificate_users,
        nodes_by_certificate=identities.nodes_by_certificate,
    )
    expected = Expected(settings.issuer, settings.audience, settings.session_extra_key)
    events = BrokenGlassEvents(kube)
    admission = Admission(
        state,
        live,
        controllers,
        expected,
        settings.namespace,
        glass=BreakGlass(settings.break_glass.users, settings.break_glass.groups),
        proxies=ImpersonatingProxies(settings.impersonating_proxies.credential_extra_keys),
        on_broken_glass=events.tell,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with kube, Background(state.run()), Background(events.run()):
            yield

    def waiting_for() -> list[str]:
        waiting = state.waiting_for
        return [*waiting, *([] if waiting or state.verifier.key_ids else ["a signing key"]), *state.lost]

    return HotPath(health(lifespan, waiting_for), admission.review, path_secrets.accept)
