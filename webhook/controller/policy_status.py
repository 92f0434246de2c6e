"""The conditions of each StepUpPolicy: *Accepted* (it can be used) and *Enforced* (the API server asks about all of it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from webhook.adapters.kube import AnswerError, JSONObject, KubeClient, own_path
from webhook.controller.canary import FAILED, Sighting
from webhook.controller.coverage import Area, Coverage, area_of
from webhook.controller.observed import Observed, ObservedPolicy
from webhook.core.selectors import Labels
from webhook.errors import ConflictError
from webhook.settings import ControllerSettings

OURS: Final = ("Accepted", "Enforced")
NOT_FOUND: Final = 404
MAX_NAMES_SHOWN: Final = 5

log = structlog.get_logger("policy-status")


@dataclass(frozen=True, slots=True)
class Applied:
    """A configuration: its coverage, the generation of each policy (by uid) that went into it, and its digest."""

    coverage: Coverage
    generations: Mapping[str, int]
    configuration: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition without its times."""

    type: str
    status: str
    reason: str
    message: str


def verdicts(
    policy: ObservedPolicy,
    applied: Applied | None,
    namespaces: Mapping[str, Labels],
    options: ControllerSettings,
    doubt: Sighting | None = None,
) -> list[Verdict]:
    """What is to be said of a policy now.

    Args:
        applied: the newest configuration that a canary has seen in the API server.
        doubt: what the last canary did not find; None when it found all.
    """
    if policy.problem is not None:
        kept = " The generation before it stays in force." if policy.in_force is not None else ""
        return [
            Verdict("Accepted", "False", "Invalid", f"{policy.problem}.{kept}"),
            Verdict("Enforced", "False", "NotAccepted", "This generation of the policy cannot be used."),
        ]
    return [
        Verdict("Accepted", "True", "Valid", "The policy can be used."),
        _enforced(policy, applied, namespaces, options, doubt),
    ]


def conditions(stored: list[JSONObject], generation: int, wanted: list[Verdict], now: datetime) -> list[JSONObject]:
    """All conditions as they should be stored; those of others are kept, and times change only with the status."""
    by_type = {one.get("type"): one for one in stored}
    text = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = []
    for verdict in wanted:
        before = by_type.get(verdict.type) or {}
        same = before.get("status") == verdict.status and before.get("lastTransitionTime")
        ours.append(
            {
                "type": verdict.type,
                "status": verdict.status,
                "observedGeneration": generation,
                "lastTransitionTime": before["lastTransitionTime"] if same else text,
                "reason": verdict.reason,
                "message": verdict.message,
            }
        )
    return [*ours, *(one for one in stored if one.get("type") not in OURS)]


class PolicyStatus:
    """The loop over the status of all policies; writes only what changed.

    Args:
        now: aware UTC.
    """

    def __init__(
        self,
        kube: KubeClient,
        options: ControllerSettings,
        observed: Observed,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._options = options
        self._observed = observed
        self._now = now
        self.applied: Applied | None = None  # seen by a canary
        self.doubt: Sighting | None = None
        self.counts: Callable[[ObservedPolicy], JSONObject] = lambda _: {}

    async def step(self) -> None:
        """Write the status of every policy whose conditions are not what they should be.

        Raises:
            StoreUnavailableError: the API server refused, or was not there.
        """
        if not self._observed.synced or self._observed.ground.problem:
            return  # a stranger would read what we write
        for policy in list(self._observed.objects.values()):
            wanted = verdicts(policy, self.applied, self._observed.namespaces, self._options, self.doubt)
            status = {
                "observedGeneration": policy.generation,
                "conditions": conditions(policy.status.get("conditions") or [], policy.generation, wanted, self._now()),
                **self.counts(policy),
            }
            if all(policy.status.get(key) == value for key, value in status.items()):
                continue
            await self._write(policy, status)

    def states(self) -> dict[str, float]:
        """How many policies are in which state."""
        found = {"accepted": 0.0, "invalid": 0.0, "enforced": 0.0}
        for policy in self._observed.objects.values():
            found["invalid" if policy.problem is not None else "accepted"] += 1
            stored = policy.status.get("conditions") or []
            found["enforced"] += any(one.get("type") == "Enforced" and one.get("status") == "True" for one in stored)
        return {**found, "vanished": float(len(self._observed.vanished))}

    async def _write(self, policy: ObservedPolicy, status: JSONObject) -> None:
        body = {"metadata": {"resourceVersion": policy.resource_version}, "status": status}
        try:
            written = await self._kube.merge_patch(own_path("stepuppolicies", policy.name, "status"), body)
        except ConflictError:
            return  # a newer version is on its way to us
        except AnswerError as error:
            if error.status != NOT_FOUND:
                raise
            return  # deleted meanwhile
        # Ours until the watch brings the same: the next step must not write it again.
        policy.status = written.get("status") or status
        policy.resource_version = written["metadata"]["resourceVersion"]
        log.info("policy-status-written", policy=policy.name, generation=policy.generation)


def _enforced(
    policy: ObservedPolicy,
    applied: Applied | None,
    namespaces: Mapping[str, Labels],
    options: ControllerSettings,
    doubt: Sighting | None,
) -> Verdict:
    if not options.manage_webhook_configuration:
        return Verdict("Enforced", "Unknown", "NotManaged", "The webhook configuration is managed elsewhere.")
    if doubt is not None and doubt.reason == FAILED:
        return Verdict("Enforced", "False", FAILED, doubt.message)
    if policy.in_force is None or applied is None or applied.generations.get(policy.uid) != policy.generation:
        return _not_yet(doubt, "No API server is known to have a webhook configuration with this generation yet.")
    if doubt is not None and doubt.configuration == applied.configuration:
        return Verdict("Enforced", "False", doubt.reason, doubt.message)
    area = area_of(policy.in_force, namespaces)
    if policy.in_force.enforcement != "Deny":
        text = (
            f"The API server asks about it; {policy.in_force.enforcement} policies never refuse, not even in an outage."
        )
        return Verdict("Enforced", "True", "Observed", text)
    excluded = frozenset(options.excluded_namespaces)
    left_out = sorted(area.namespaces & excluded) if not area.every_namespace else sorted(excluded & namespaces.keys())
    inside = Area(area.namespaces - excluded, area.every_namespace, area.cluster_scoped, area.kinds)
    if not applied.coverage.guarded.contains(inside):
        return _not_yet(doubt, "A namespace has just come under it and is not guarded yet.")
    text = f"Guarded: {_described(inside)}."
    if left_out:
        text += f" Not guarded in an outage of kube-stepup (excluded): {', '.join(left_out)}."
    return Verdict("Enforced", "True", "Guarded", text)


def _not_yet(doubt: Sighting | None, text: str) -> Verdict:
    return Verdict("Enforced", "False", doubt.reason if doubt is not None else "Pending", text)


def _described(area: Area) -> str:
    if area.every_namespace:
        return "all namespaces and cluster-scoped objects" if area.cluster_scoped else "all namespaces"
    if not area.namespaces:
        return "no namespace fits at present"
    names = sorted(area.namespaces)
    shown = ", ".join(names[:MAX_NAMES_SHOWN])
    more = len(names) - MAX_NAMES_SHOWN
    return f"{shown} and {more} more namespaces" if more > 0 else shown
