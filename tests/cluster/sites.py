"""A guarded namespace and one that is not, for one test."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from tests.controlplane.cluster import ADMIN
from tests.deployment import Deployment


@dataclass(frozen=True)
class Site:
    """A guarded namespace and one that is not, each with a Deployment `web` of two running pods."""

    deployment: Deployment
    prod: str
    staging: str

    def get(self, *arguments: str, namespace: str = "") -> str:
        """`kubectl get` as the administrator; what it prints."""
        where = namespace or self.prod
        return self.deployment.cluster.kubectl("get", *arguments, "-n", where, user=ADMIN).stdout.strip()

    def pod(self, namespace: str = "") -> str:
        """Name of a running pod of `web`."""
        return self.get("pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}", namespace=namespace)


def workload(
    namespace: str, name: str = "web", *, replicas: int = 2, image: str = "nginx:1", kind: str = "Deployment"
) -> str:
    """YAML of a workload whose pods run on the fake node."""
    containers = [{"name": "c", "image": image}]
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": containers},
        },
    }
    body = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    return str(yaml.safe_dump(body))
