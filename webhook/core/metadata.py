"""One differ of metadata for every UPDATE, subresources too: what a changed line of metadata will make a controller do.

A status or finalize subresource changes metadata as well as the object itself does (ROUTES rule 2). So whoever may not
delete may still add an owner that is about to go, take a finalizer off, or write what an add-on takes for an order.
"""

from __future__ import annotations

import fnmatch
from typing import Final

from webhook.core.request import ObjectHead, ObjectMeta

DEADLY: Final = (
    # Annotations and labels that make an add-on delete the object, or adopt and then prune it.
    "cleanup.kyverno.io/ttl",
    "janitor/ttl",
    "janitor/expires",
    "argocd.argoproj.io/tracking-id",
    "app.kubernetes.io/part-of-applyset",
    "applyset.kubernetes.io/part-of",
    "kustomize.toolkit.fluxcd.io/prune",
    "strimzi.io/delete-*",
    "cnpg.io/hibernation",
    "kubevirt.io/delete-*",
    "machine.cluster.x-k8s.io/delete-machine",
    "cluster.x-k8s.io/delete-machine",
)
POD_SECURITY_PREFIX: Final = "pod-security.kubernetes.io/"
AGGREGATE_PREFIX: Final = "rbac.authorization.k8s.io/aggregate-to-"


def deadly_change(new: ObjectHead, old: ObjectHead) -> str:
    """What in the metadata leads to the object's end, for people; empty when nothing does."""
    return _owners(new.metadata, old.metadata) or _finalizers(new.metadata, old.metadata) or _deadly(new, old)


def changed_labels(new: ObjectHead, old: ObjectHead) -> dict[str, tuple[str, str]]:
    """Labels that differ: (before, after), empty for absent."""
    before, after = old.metadata.labels or {}, new.metadata.labels or {}
    keys = before.keys() | after.keys()
    return {key: (before.get(key, ""), after.get(key, "")) for key in keys if before.get(key) != after.get(key)}


def _owners(new: ObjectMeta, old: ObjectMeta) -> str:
    known = {owner.uid for owner in old.owner_references}
    added = [owner for owner in new.owner_references if owner.uid not in known]
    return "owner added: " + ", ".join(f"{owner.kind} {owner.name}" for owner in added) if added else ""


def _finalizers(new: ObjectMeta, old: ObjectMeta) -> str:
    gone = [one for one in old.finalizers if one not in new.finalizers]
    return "finalizer taken off: " + ", ".join(gone) if gone else ""


def _deadly(new: ObjectHead, old: ObjectHead) -> str:
    changed = changed_labels(new, old)
    before, after = old.metadata.annotations or {}, new.metadata.annotations or {}
    keys = [*changed, *(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))]
    found = sorted({key for key in keys if any(fnmatch.fnmatchcase(key, pattern) for pattern in DEADLY)})
    return "metadata that an add-on obeys: " + ", ".join(found) if found else ""
