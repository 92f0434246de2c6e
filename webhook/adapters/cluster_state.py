"""What the servers know of the cluster: policies, namespaces, signing keys and elevations, kept in step by watches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog
from prometheus_client.core import Metric

from webhook.adapters.definitions import Definition, DefinitionSink
from webhook.adapters.elevation_cache import ElevationCache
from webhook.adapters.ground import Ground
from webhook.adapters.kube import KubeClient, object_path, own_path
from webhook.adapters.metrics import gauge, gauges
from webhook.adapters.verifier import Verifier
from webhook.adapters.watches import Watched
from webhook.core.applicable import PolicyIndex
from webhook.core.configuration import API_VERSION, KIND, NAME, Configuration
from webhook.core.policy import Policy
from webhook.errors import PolicyError

log = structlog.get_logger("state")


class PolicySink:
    """Puts watched policies in force; one that turns unreadable stays in force as it last was, and is reported."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index
        self._specs: dict[str, tuple[Any, ...]] = {}
        self.problems: dict[str, PolicyError] = {}

    def put(self, obj: dict[str, Any]) -> None:
        """Take in a StepUpPolicy object."""
        name = obj["metadata"]["name"]
        form = (obj["metadata"].get("uid"), obj["metadata"].get("generation"), obj.get("spec"))
        if self._specs.get(name) == form and name in self._index.policies and name not in self.problems:
            return  # only its status is news, and compiling it again costs milliseconds
        try:
            policy = Policy.parse({"apiVersion": "kube-stepup.io/v1alpha1", "kind": "StepUpPolicy", **obj})
        except PolicyError as error:
            self.problems[name] = error
            log.exception(
                "policy-unreadable",
                policy=name,
                code=error.code,
                problem=str(error),
                in_force=name in self._index.policies,
            )
            return
        self.problems.pop(name, None)
        self._specs[name] = form
        self._index.put_policy(policy)

    def remove(self, name: str) -> None:
        """Take a policy out of force."""
        self.problems.pop(name, None)
        self._specs.pop(name, None)
        self._index.remove_policy(name)


class NamespaceSink:
    """Keeps the labels of namespaces."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index

    def put(self, obj: dict[str, Any]) -> None:
        """Take in a Namespace object."""
        metadata = obj["metadata"]
        self._index.put_namespace(metadata["name"], metadata.get("labels") or {}, metadata.get("annotations") or {})

    def remove(self, name: str) -> None:
        """Forget a namespace."""
        self._index.remove_namespace(name)


class ConfigurationSink:
    """Puts the watched StepUpConfiguration in force; one that turns unreadable stays in force as it last was."""

    def __init__(self, index: PolicyIndex) -> None:
        self._index = index

    def put(self, obj: dict[str, Any]) -> None:
        """Take in a StepUpConfiguration object."""
        try:
            found = Configuration.parse({"apiVersion": API_VERSION, "kind": KIND, **obj})
        except PolicyError as error:
            log.exception("configuration-unreadable", code=error.code, problem=str(error))
            return
        self._index.catalog = self._index.catalog.extended_by(found)

    def remove(self, name: str) -> None:
        """Go back to the built-in tables."""
        if name == NAME:
            self._index.catalog = self._index.catalog.extended_by(None)


class ClusterState:
    """All watches of a server.

    Args:
        with_elevations: whether elevations, signing keys and what requests are sorted by are watched too (admission), or
            policies and namespaces alone.
    """

    def __init__(self, kube: KubeClient, *, stall_seconds: int = 90, with_elevations: bool = True) -> None:
        self.index = PolicyIndex()
        self.elevations = ElevationCache()
        self.verifier = Verifier()
        self.policies = PolicySink(self.index)
        self.vanished: dict[str, list[str]] = {}
        self.ground = Ground(kube, ("stepuppolicies", "signingkeys") if with_elevations else ("stepuppolicies",))

        def watched(path: str, sink: Any, *, retain: bool, form: type | None = None) -> Watched:
            ours = path.startswith(own_path(""))
            return Watched(
                kube,
                path,
                sink,
                retain=retain,
                stall_seconds=stall_seconds,
                on_vanished=self._report_vanished,
                form=form,
                ground=self.ground if ours else None,
            )

        self._watches = {
            "policies": watched(own_path("stepuppolicies"), self.policies, retain=True),
            "namespaces": watched(object_path("", "v1", "namespaces"), NamespaceSink(self.index), retain=True),
        }
        if with_elevations:
            configurations = own_path("stepupconfigurations")
            definitions = object_path("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            self._watches["configuration"] = watched(configurations, ConfigurationSink(self.index), retain=True)
            self._watches["definitions"] = watched(
                definitions, DefinitionSink(self.index), retain=False, form=Definition
            )
            self._watches["signing-keys"] = watched(own_path("signingkeys"), self.verifier, retain=True)
            self._watches["elevations"] = watched(own_path("elevations"), self.elevations, retain=False)

    @property
    def waiting_for(self) -> list[str]:
        """Names of what has not been listed yet; empty when everything is in."""
        return [name for name, watch in self._watches.items() if not watch.synced]

    @property
    def lost(self) -> list[str]:
        """What has been silent for too long, for people to read; what was known of it goes on being used."""
        return [
            f"{name}: nothing heard for {int(watch.silent_seconds)} s"
            for name, watch in self._watches.items()
            if watch.lost
        ]

    @property
    def silences(self) -> dict[str, float]:
        """The same for each watch, by its name."""
        return {name: watch.silent_seconds for name, watch in self._watches.items()}

    def metrics(self) -> Iterable[Metric]:
        """For ``/metrics``."""
        vanished = {kind: float(len(names)) for kind, names in self.vanished.items()}
        states = {
            "in-force": len(self.index.policies),
            "unreadable": len(self.policies.problems),
            "vanished": len(self.vanished.get("stepuppolicies", [])),
        }
        yield gauges("kube_stepup_policies", "Policies by state.", "state", states)
        yield gauges("kube_stepup_watch_silent_seconds", "Since a watch last heard anything.", "watch", self.silences)
        yield gauges("kube_stepup_vanished_objects", "Gone without a deletion; kept in force.", "kind", vanished)
        yield gauge(
            "kube_stepup_api_group_sound",
            "0 while our API group is not served from our definitions.",
            not self.ground.problem,
        )

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.ground.run())
            for watch in self._watches.values():
                group.create_task(watch.run())

    async def wait_synced(self) -> None:
        """Return when everything has been listed once."""
        for watch in self._watches.values():
            await watch.wait_synced()

    def _report_vanished(self, path: str, names: list[str]) -> None:
        kind = path.rsplit("/", 1)[-1]
        if names == self.vanished.get(kind, []):
            return
        if kind == "namespaces":
            self.vanished[kind] = names
            return
        if not names:
            log.warning("objects-back", kind=kind, names=self.vanished[kind])
        else:
            log.error("objects-vanished", kind=kind, names=names, code="vanished-without-delete", kept=True)
        self.vanished[kind] = names
