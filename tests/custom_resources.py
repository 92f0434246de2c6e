"""Definitions of custom resources for tests, the policy that names them, and what an operator adds to the built-in tables."""

from __future__ import annotations

from typing import Any


def definition(group: str, plural: str, kind: str, *, replicas_path: str = "") -> dict[str, Any]:
    """A CustomResourceDefinition with a status, a scale where a path is given, and any field."""
    subresources: dict[str, Any] = {"status": {}}
    if replicas_path:
        subresources["scale"] = {"specReplicasPath": replicas_path, "statusReplicasPath": ".status.size"}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    fields = {"spec": schema, "status": schema, "operation": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}},
                }
            ],
        },
    }


DEFINITIONS = (
    definition("cnpg.io", "clusters", "Cluster", replicas_path=".spec.size"),
    definition("example.com", "servers", "Server"),
    definition("example.com", "orders", "Order"),
    definition("argoproj.io", "applications", "Application"),
)
RESTART = "example.com/restart"
_RESTART_OF = "{}.metadata.?annotations['" + RESTART + "'].orValue('')"


def by_name(match: dict[str, Any]) -> dict[str, Any]:
    """A policy of raw operations."""
    changed = f"{_RESTART_OF.format('object')} != {_RESTART_OF.format('oldObject')}"
    clusters = [f"{verb}:cnpg.io/clusters" for verb in ("create", "update", "delete")]
    rules = [
        {"name": "databases", "operations": [*clusters, "update:cnpg.io/clusters/status"]},
        {"name": "servers", "operations": ["*:example.com/servers"], "conditions": [{"expression": changed}]},
        {
            "name": "services",
            "operations": ["connect:core/services/proxy"],
            "conditions": [{"expression": "request.name.startsWith('raw')"}],
        },
    ]
    return {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "StepUpPolicy",
        "metadata": {"name": "raw-operations"},
        "spec": {"match": match, "rules": rules},
    }


CONFIGURATION: dict[str, Any] = {
    "apiVersion": "kube-stepup.io/v1alpha1",
    "kind": "StepUpConfiguration",
    "metadata": {"name": "default"},
    "spec": {
        "deadlyMetadata": [{"key": "example.com/delete-*"}],
        "deputies": [{"resource": "example.com/orders", "fields": ["spec.target"]}],
    },
}
