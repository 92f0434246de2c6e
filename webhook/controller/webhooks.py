"""The ValidatingWebhookConfiguration: what it should be (pure), and the loop that makes and keeps it so.

Two entries with broad rules and no selectors (ROUTES rule 1): *guarded* fails closed where a policy that denies can
match now; *watchful* is asked about the rest and fails open, so that a policy or namespace that is a second old is
judged already. Where somebody may break the glass, *guarded* leaves them out and *break-glass* is asked instead: it fails
open, so they pass while we are down, and are told of by us as long as we are not. Why the chart makes the object and this loop fills it: docs/adr/0002.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from webhook.adapters.kube import AnswerError, JSONObject, KubeClient, object_path
from webhook.controller.conditions import (
    CANARY,
    Condition,
    breaking_glass,
    canary_condition,
    identity_conditions,
    inside,
    own_conditions,
    resource_conditions,
    standing_on,
)
from webhook.controller.coverage import Coverage, Narrowing, coverage_of
from webhook.controller.observed import Observed
from webhook.controller.trust import Trust
from webhook.core.canary import MANAGER_PREFIX
from webhook.errors import StoreUnavailableError
from webhook.settings import Settings

GROUP: Final = "admissionregistration.k8s.io"
RBAC_GROUP: Final = "rbac.authorization.k8s.io"
API_VERSION: Final = f"{GROUP}/v1"
KIND: Final = "ValidatingWebhookConfiguration"
GUARDED: Final = "guarded.kube-stepup.io"
WATCHFUL: Final = "watchful.kube-stepup.io"
BREAK_GLASS: Final = "break-glass.kube-stepup.io"
GUARDED_TIMEOUT_SECONDS: Final = 5
WATCHFUL_TIMEOUT_SECONDS: Final = 2
DIGEST_LETTERS: Final = 16
HELM_ANNOTATIONS: Final = ("meta.helm.sh/release-name", "meta.helm.sh/release-namespace")

log = structlog.get_logger("webhooks")


def render(coverage: Coverage, settings: Settings, ca_bundle: str, path_secret: str) -> list[JSONObject]:
    """The entries for a coverage, with every default written out so that they compare equal to what is stored.

    Args:
        ca_bundle: PEM.
        path_secret: last part of the path, which only the API server knows.
    """
    options = settings.controller
    shared = [
        *identity_conditions(settings.controllers),
        *resource_conditions(),
        *own_conditions(options.own_service_accounts, settings.namespace),
    ]
    client = _client_config(settings, ca_bundle, path_secret)
    excluded = options.excluded_namespaces
    guarded = inside(coverage.guarded, excluded)
    entries = []
    if not coverage.guarded.is_empty:
        # Where anything fails closed, so do the policies, keys and records that it stands on, and the role whose end
        # would take this configuration with it.
        guarded = f"({guarded}) || {standing_on(options.owner_cluster_role)}"
        here = [*shared, {"name": "guarded", "expression": guarded}]
        if glass := breaking_glass(settings.break_glass):
            left_out = {"name": "not-break-glass", "expression": f"!({glass})"}
            entries.append(_entry(GUARDED, "Fail", GUARDED_TIMEOUT_SECONDS, client, [*here, left_out]))
            loud = {"name": "break-glass", "expression": glass}
            entries.append(_entry(BREAK_GLASS, "Ignore", WATCHFUL_TIMEOUT_SECONDS, client, [*here, loud]))
        else:
            entries.append(_entry(GUARDED, "Fail", GUARDED_TIMEOUT_SECONDS, client, here))
    elsewhere = f"!({guarded})"
    if not options.watchful:
        # Our own objects always: a policy that cannot work is refused when it is applied.
        elsewhere += f" && (request.resource.group == 'kube-stepup.io' || {inside(coverage.matched, ())})"
    condition = {"name": "not-guarded", "expression": elsewhere}
    entries.append(_entry(WATCHFUL, "Ignore", WATCHFUL_TIMEOUT_SECONDS, client, [*shared, condition]))
    canary = canary_condition(hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:DIGEST_LETTERS])
    for entry in entries:
        entry["matchConditions"].append(canary)
    return entries


def configuration_of(entries: list[JSONObject]) -> str:
    """The digest of rendered entries, by which a canary names them."""
    (expression,) = {
        one["expression"] for entry in entries for one in entry["matchConditions"] if one["name"] == CANARY
    }
    return str(expression.rpartition(MANAGER_PREFIX)[2][:DIGEST_LETTERS])


def _entry(
    name: str, failure_policy: str, timeout_seconds: int, client: JSONObject, conditions: list[Condition]
) -> JSONObject:
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "failurePolicy": failure_policy,
        "matchConditions": conditions,
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "rules": [
            {
                "apiGroups": ["*"],
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE", "DELETE", "CONNECT"],
                "resources": ["*/*"],
                "scope": "*",
            }
        ],
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": timeout_seconds,
    }


def _client_config(settings: Settings, ca_bundle: str, path_secret: str) -> JSONObject:
    path = f"/validate/{path_secret}"
    bundle = {"caBundle": base64.b64encode(ca_bundle.encode("ascii")).decode("ascii")}
    options = settings.controller
    if options.webhook_url:
        return {**bundle, "url": options.webhook_url.rstrip("/") + path}
    service = {"name": options.admission_service, "namespace": settings.namespace, "path": path, "port": 443}
    return {**bundle, "service": service}


class WebhookConfiguration:
    """Keeps the stored configuration equal to the rendered one.

    Args:
        on_applied: called with the coverage, the policies (uid → generation) that it was made from, and the digest of
            the entries, each time that it is known to be stored.
        monotonic: seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        kube: KubeClient,
        settings: Settings,
        observed: Observed,
        trust: Trust,
        *,
        on_applied: Callable[[Coverage, dict[str, int], str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._observed = observed
        self._trust = trust
        self._on_applied = on_applied
        self._monotonic = monotonic
        options = settings.controller
        self._narrowing = Narrowing(options.narrow_delay_seconds, options.max_guarded_namespaces)
        self._path = object_path(GROUP, "v1", "validatingwebhookconfigurations", name=options.webhook_configuration)
        self._missing_since: float | None = None
        self._stored: list[JSONObject] | None = None  # the entries as we left them
        self.drift = 0  # how often somebody else had changed or deleted them

    async def step(self) -> None:
        """Compare once, and write if something differs; waits for the certificates and for the first lists.

        Raises:
            StoreUnavailableError: the API server refused, or was not there; the next step tries again.
        """
        if not (self._observed.synced and self._trust.admission and self._trust.path_secret):
            return
        if not await self._observed.ground.look():
            return  # the policies that we know may be too few; what is stored stays
        options = self._settings.controller
        generations = self._observed.generations()
        wanted = coverage_of(
            self._observed.policies.values(),
            self._observed.namespaces,
            excluded_namespaces=options.excluded_namespaces,
            max_namespaces=options.max_guarded_namespaces,
        )
        coverage = self._narrowing.next(wanted, self._monotonic())
        entries = render(coverage, self._settings, self._trust.admission, self._trust.path_secret)
        try:
            stored = await self._store(entries)
        except AnswerError as error:
            # What the API server says of an entry that it refuses quotes the path.
            message = error.message.replace(self._trust.path_secret, "…")
            raise StoreUnavailableError(message, code=error.code) from None
        if stored:
            self._stored = entries
            self._on_applied(coverage, generations, configuration_of(entries))

    async def _store(self, entries: list[JSONObject]) -> bool:
        live = await self._kube.get(self._path)
        self._report_drift(live)
        if live is None:
            return await self._create(entries)
        await self._put_right(live, entries)
        return True

    def _report_drift(self, live: JSONObject | None) -> None:
        """Say that it is not as we left it; that it differs from what is wanted now is no drift."""
        if self._stored is None or (live is not None and live.get("webhooks") == self._stored):
            return
        self._stored = None
        self.drift += 1
        managers = sorted(
            {str(one.get("manager")) for one in ((live or {}).get("metadata") or {}).get("managedFields") or []}
        )
        log.error(
            "webhook-configuration-drift",
            code="configuration-drift",
            configuration=self._path.rpartition("/")[2],
            found="changed" if live is not None else "deleted",
            managers=managers,
        )

    async def _put_right(self, live: JSONObject, entries: list[JSONObject]) -> None:
        self._missing_since = None
        owner = await self._owner()
        metadata = live["metadata"]
        owners = metadata.get("ownerReferences") or []
        owned = owner is None or any(reference.get("uid") == owner["uid"] for reference in owners)
        if live.get("webhooks") == entries and owned:
            return
        if owner is not None and not owned:
            metadata = {**metadata, "ownerReferences": [*_alive(owners, owner), owner]}
        await self._kube.replace(self._path, {**live, "metadata": metadata, "webhooks": entries})
        log.info("webhook-configuration-written", name=metadata["name"], entries=[one["name"] for one in entries])

    async def _create(self, entries: list[JSONObject]) -> bool:
        """Make the configuration anew, unless we are being uninstalled; whether it is there now.

        ``helm uninstall`` deletes the configuration first and us a moment later. A configuration that fails closed and
        has no server behind it must not stay: so we wait, ask whether our ClusterRole is still there, and make it the
        owner, whose end takes the configuration with it.
        """
        options = self._settings.controller
        metadata: JSONObject = {"name": options.webhook_configuration}
        if options.owner_cluster_role:
            self._missing_since = self._missing_since if self._missing_since is not None else self._monotonic()
            if self._monotonic() - self._missing_since < options.recreate_delay_seconds:
                return False
            role = await self._cluster_role()
            if role is None or role["metadata"].get("deletionTimestamp"):
                log.warning("uninstalling", missing=options.owner_cluster_role)
                return False
            metadata |= _release_metadata(role)
            metadata["ownerReferences"] = [_reference(role)]
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "webhooks": entries}
        await self._kube.create(self._path.rsplit("/", 1)[0], body)
        self._missing_since = None
        log.warning("webhook-configuration-created", name=options.webhook_configuration)
        return True

    async def _owner(self) -> JSONObject | None:
        role = await self._cluster_role()
        return _reference(role) if role is not None else None

    async def _cluster_role(self) -> JSONObject | None:
        name = self._settings.controller.owner_cluster_role
        if not name:
            return None
        return await self._kube.get(object_path(RBAC_GROUP, "v1", "clusterroles", name=name))


def _reference(role: JSONObject) -> JSONObject:
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "ClusterRole",
        "name": role["metadata"]["name"],
        "uid": role["metadata"]["uid"],
    }


def _alive(owners: list[JSONObject], owner: JSONObject) -> list[JSONObject]:
    """Other owners; an earlier ClusterRole of the same name is none (a dead owner gets its object collected)."""
    return [one for one in owners if (one.get("kind"), one.get("name")) != (owner["kind"], owner["name"])]


def _release_metadata(role: JSONObject) -> dict[str, Any]:
    """Labels and annotations by which Helm knows an object as its own; the ClusterRole has the same."""
    labels = role["metadata"].get("labels") or {}
    annotations = role["metadata"].get("annotations") or {}
    return {
        "labels": {key: value for key, value in labels.items() if key.startswith(("app.kubernetes.io/", "helm.sh/"))},
        "annotations": {key: annotations[key] for key in HELM_ANNOTATIONS if key in annotations},
    }
