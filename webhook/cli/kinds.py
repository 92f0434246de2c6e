"""Plural names of the usual kinds, so that `deploy/web` costs no call; others are asked of the cluster's discovery."""

from __future__ import annotations

from typing import Final

from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kubectl import Kubectl, error_of

_USUAL: Final = """
apps daemonsets daemonset ds
apps deployments deployment deploy
apps replicasets replicaset rs
apps statefulsets statefulset sts
autoscaling horizontalpodautoscalers horizontalpodautoscaler hpa
batch cronjobs cronjob cj
batch jobs job
- configmaps configmap cm
- namespaces namespace ns
- nodes node no
- persistentvolumeclaims persistentvolumeclaim pvc
- persistentvolumes persistentvolume pv
- pods pod po
- replicationcontrollers replicationcontroller rc
- secrets secret
- serviceaccounts serviceaccount sa
- services service svc
networking.k8s.io ingresses ingress ing
networking.k8s.io networkpolicies networkpolicy netpol
policy poddisruptionbudgets poddisruptionbudget pdb
rbac.authorization.k8s.io clusterrolebindings clusterrolebinding
rbac.authorization.k8s.io clusterroles clusterrole
rbac.authorization.k8s.io rolebindings rolebinding
rbac.authorization.k8s.io roles role
apiextensions.k8s.io customresourcedefinitions customresourcedefinition crd crds
storage.k8s.io storageclasses storageclass sc
"""
CLUSTER_SCOPED: Final = frozenset(
    {
        "clusterrolebindings", "clusterroles", "customresourcedefinitions", "namespaces", "nodes", "persistentvolumes",
        "storageclasses",
    }
)  # fmt: skip


def _table() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for line in _USUAL.split("\n"):
        if line:
            group, plural, *names = line.split()
            group = "" if group == "-" else group
            for name in (plural, *names):
                found[name] = (group, plural)
                if group:
                    found[f"{name}.{group}"] = (group, plural)
    return found


_KNOWN: Final = _table()


def usual(kind: str) -> tuple[str, str, bool] | None:
    """Group, plural name, and whether it lives in a namespace, of a usual kind; None for all others."""
    known = _KNOWN.get(kind.lower())
    return None if known is None else (*known, known[1] not in CLUSTER_SCOPED)


def resource_of(kind: str, kubectl: Kubectl) -> tuple[str, str, bool]:
    """Group, plural name, and whether it lives in a namespace, of whatever kubectl would understand.

    Raises:
        ElevateError: the cluster has no such kind, or could not be asked.
    """
    known = usual(kind)
    if known is not None:
        return known
    listed = kubectl.run("api-resources", "--no-headers")
    for line in listed.stdout.splitlines():
        words = line.split()
        if len(words) < 4:
            continue
        plural, (api_version, namespaced, kind_name), short = words[0], words[-3:], words[1:-3]
        group = api_version.rpartition("/")[0]
        names = {plural, kind_name.lower(), *(name for text in short for name in text.split(","))}
        if kind.lower() in names | {f"{name}.{group}" for name in names}:
            return group, plural, namespaced == "true"
    if listed.returncode != 0:
        # A group whose own server is down hides its kinds alone; the others were listed.
        raise error_of(listed.stderr.strip())
    raise ElevateError(f"the cluster has no kind {kind!r}; `kubectl api-resources` lists those it has", USAGE)
