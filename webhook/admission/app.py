"""The admission server's application: FastAPI for health, the hot path in front of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client.core import Metric

from webhook.adapters.background import Background
from webhook.adapters.cluster_state import ClusterState
from webhook.adapters.kube import KubeClient, object_path
from webhook.adapters.metrics import Metrics, counters, gauge
from webhook.adapters.notices import Notices
from webhook.admission.alarm import BreakGlassAlarm
from webhook.admission.events import BrokenGlassEvents
from webhook.admission.hot_path import ASGIApp, HotPath
from webhook.admission.leader_watch import LeaderWatch
from webhook.admission.live import Live
from webhook.admission.path_secrets import PathSecrets
from webhook.admission.reporting import Reporting
from webhook.admission.service import Admission
from webhook.core.assertion import Expected
from webhook.core.decision import Decision
from webhook.core.identity import BreakGlass, Controllers, ImpersonatingProxies
from webhook.core.request import AdmissionRequest
from webhook.settings import Settings

LAST_FLUSH_SECONDS = 2.0


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


def create_app(
    settings: Settings, kube: KubeClient, path_secrets: PathSecrets, metrics: Metrics | None = None
) -> ASGIApp:
    """The whole application over one Kubernetes client, which it closes when it ends."""
    metrics = metrics or Metrics()
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
    reporting = Reporting(kube, state.index, options.report_seconds)
    leader = LeaderWatch(
        kube,
        object_path(
            "coordination.k8s.io", "v1", "leases", namespace=settings.namespace, name=settings.controller.lease_name
        ),
        check_seconds=options.leader_check_seconds,
        silent_seconds=options.leader_silent_seconds,
        tell=reporting.tell,
    )
    notices = Notices(settings.notices)
    alarm = BreakGlassAlarm(notices.tell)

    def on_broken_glass(request: AdmissionRequest, decision: Decision) -> None:
        events.tell(request, decision)
        alarm.tell(request, decision)

    admission = Admission(
        state,
        live,
        controllers,
        expected,
        settings.namespace,
        glass=BreakGlass(settings.break_glass.users, settings.break_glass.groups),
        proxies=ImpersonatingProxies(settings.impersonating_proxies.credential_extra_keys),
        on_broken_glass=on_broken_glass,
        reporting=reporting,
        leader_missing=lambda: leader.missing,
    )
    metrics.add(lambda: _metrics(state, reporting, leader))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with kube:
            async with (
                Background(state.run()),
                Background(events.run()),
                Background(notices.run()),
                Background(reporting.run()),
                Background(leader.run()),
            ):
                yield
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_FLUSH_SECONDS):
                    await reporting.flush()

    def waiting_for() -> list[str]:
        waiting = state.waiting_for
        return [*waiting, *([] if waiting or state.verifier.key_ids else ["a signing key"]), *state.lost]

    return HotPath(health(lifespan, waiting_for), admission.review, path_secrets.accept)


def _metrics(state: ClusterState, reporting: Reporting, leader: LeaderWatch) -> Iterable[Metric]:
    yield from state.metrics()
    yield counters("kube_stepup_decisions", "Decisions that a policy had a say in.", "code", reporting.outcomes)
    missing = math.nan if leader.missing is None else float(leader.missing)
    yield gauge("kube_stepup_leader_missing", "1 while no controller renews its Lease.", missing)
    yield gauge("kube_stepup_leader_silent_seconds", "Since the controller's Lease was renewed.", leader.silent_seconds)
