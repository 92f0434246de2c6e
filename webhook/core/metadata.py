"""One differ of metadata for every UPDATE, subresources too: what a changed line of metadata will make a controller do.

A status or finalize subresource changes metadata as well as the object itself does (ROUTES rule 2). So whoever may not
delete may still add an owner that is about to go, take a finalizer off, or write what an add-on takes for an order.
"""

from __future__ import annotations

from typing import Final

from webhook.core.request import ObjectHead, ObjectMeta

POD_SECURITY_PREFIX: Final = "pod-security.kubernetes.io/"
AGGREGATE_PREFIX: Final = "rbac.authorization.k8s.io/aggregate-to-"


def deadly_change(new: ObjectHead, old: ObjectHead) -> str:
    """What in the metadata leads to the object's end, for people; empty when nothing does."""
    return _owners(new.metadata, old.metadata) or _finalizers(new.metadata, old.metadata)


def changed_labels(new: ObjectHead, old: ObjectHead) -> dict[str, tuple[str, str]]:
    """Labels that differ: (before, after), empty for absent."""
    before, after = old.metadata.labels or {}, new.metadata.labels or {}
    keys = before.keys() | after.keys()
    return {key: (before.get(key, ""), after.get(key, "")) for key in keys if before.get(key) != after.get(key)}


def changed_keys(new: ObjectHead, old: ObjectHead) -> list[str]:
    """Keys of the labels and annotations that differ."""
    before, after = old.metadata.annotations or {}, new.metadata.annotations or {}
    annotations = (key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [*changed_labels(new, old), *annotations]


def _owners(new: ObjectMeta, old: ObjectMeta) -> str:
    known = {owner.uid for owner in old.owner_references}
    added = [owner for owner in new.owner_references if owner.uid not in known]
    return "owner added: " + ", ".join(f"{owner.kind} {owner.name}" for owner in added) if added else ""


def _finalizers(new: ObjectMeta, old: ObjectMeta) -> str:
    gone = [one for one in old.finalizers if one not in new.finalizers]
    return "finalizer taken off: " + ", ".join(gone) if gone else ""
