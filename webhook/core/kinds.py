"""Effects of particular kinds, one line each: a new road is a function and a line in a table (docs/bypasses.md).

What goes by the shape of objects (replicas, pod templates) or of metadata is not here but in ``classify`` and ``metadata``.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from webhook.core.operation import ACCESS, DELETE, DEPLOY, DRAIN, SCALE, digest

JSON = Mapping[str, Any]
Change = Callable[[JSON, JSON], str]
"""(new, old) → what changes, for people; empty when nothing does. ``old`` is empty for CREATE, ``new`` for DELETE."""

CHANGED_FIELDS: Final = ("spec", "data", "rules", "subjects", "roleRef", "type")
"""What a change consists of, for its digest; status and metadata move by themselves."""

NO_EXECUTE: Final = "NoExecute"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
TOKEN_SECRET: Final = "kubernetes.io/service-account-token"  # noqa: S105 - the type of a Secret
HELM_RELEASE: Final = "helm.sh/release.v1"
MAX_RELEASE_BYTES: Final = 8 * 1024 * 1024  # a Secret has 1 MiB; what does not fit unpacked counts as changed
TRUST_CONFIG_MAPS: Final = frozenset(
    {("kube-system", "aws-auth"), ("kube-system", "extension-apiserver-authentication")}
)


def cordoned(new: JSON, old: JSON) -> str:
    """A Node that will take no pods."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    return "cordon" if spec.get("unschedulable") and not before.get("unschedulable") else ""


def tainted(new: JSON, old: JSON) -> str:
    """A Node that throws out the pods that it has."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    known = [_taint(one) for one in before.get("taints") or []]
    evil = [one for one in spec.get("taints") or [] if _taint(one) not in known and _evicts(one)]
    return "taint " + ", ".join(str(one.get("key")) for one in evil) if evil else ""


def adopts(new: JSON, old: JSON) -> str:
    """A ReplicaSet made by hand: naked pods that fit its selector are its own from then on, and those too many are deleted."""
    return "" if old or not new else "pods that fit its selector are adopted, and deleted where they are too many"


def adopts_to_delete(new: JSON, old: JSON) -> str:
    """A StatefulSet that wants none: it deletes what it adopts. One that wants some adopts pods by name alone."""
    return adopts(new, old) if (new.get("spec") or {}).get("replicas") == 0 else ""


def job_that_adopts(new: JSON, old: JSON) -> str:
    """A Job that chooses its pods by a selector of its own."""
    return adopts(new, old) if (new.get("spec") or {}).get("manualSelector") else ""


def sealed_token(new: JSON, old: JSON) -> str:
    """A SealedSecret that becomes a token for a service account."""
    template = (new.get("spec") or {}).get("template") or {}
    changed = new.get("spec") != old.get("spec")
    return "token for a service account" if changed and template.get("type") == TOKEN_SECRET else ""


def helm_release(new: JSON, old: JSON) -> str:
    """A release as Helm stores it, with another chart or other manifests: what a rollback, or a controller, makes real.

    Helm writes the same release several times with another status; that is no change of it.
    """
    if new.get("type") != HELM_RELEASE:
        return ""
    after = _release(new)
    if old and after and after == _release(old):
        return ""
    return f"helm release {(after or digest(new.get('data')))[:16]}"


def permissions(new: JSON, old: JSON) -> str:
    """Rules, subjects or role of an RBAC object."""
    fields = ("rules", "subjects", "roleRef", "aggregationRule")
    changed = [field for field in fields if (new.get(field) or None) != (old.get(field) or None)]
    return "changed " + ", ".join(changed) if changed else ""


def token_secret(new: JSON, old: JSON) -> str:
    """A Secret that becomes a token for a service account."""
    before = (old.get("type"), _account(old))
    after = (new.get("type"), _account(new))
    return f"token for {after[1]}" if new.get("type") == TOKEN_SECRET and before != after else ""


def minted_token(_new: JSON, _old: JSON) -> str:
    """`kubectl create token`."""
    return "token for a service account"


def signed_certificate(new: JSON, old: JSON) -> str:
    """A CertificateSigningRequest that is made, approved or signed."""
    if not old:
        return f"certificate for {(new.get('spec') or {}).get('signerName', '')}"
    return "certificate approved" if new.get("status") != old.get("status") else ""


def trust_data(new: JSON, old: JSON) -> str:
    """Data that says whom the cluster believes."""
    return "changed" if new.get("data") != old.get("data") or new.get("spec") != old.get("spec") else ""


def trust_config_map(new: JSON, old: JSON) -> str:
    """The same for the two ConfigMaps that hold such data."""
    metadata = (new or old).get("metadata") or {}
    return trust_data(new, old) if (metadata.get("namespace"), metadata.get("name")) in TRUST_CONFIG_MAPS else ""


def autoscaled(new: JSON, old: JSON) -> str:
    """Bounds of an autoscaler: one below the present number scales down by itself."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    names = ("minReplicas", "maxReplicas", "minReplicaCount", "maxReplicaCount", "scaleTargetRef")
    changed = [f"{name} {before.get(name)} → {spec.get(name)}" for name in names if spec.get(name) != before.get(name)]
    return ", ".join(changed)


def job_ended(new: JSON, old: JSON) -> str:
    """A Job that will end, or be deleted, because of what is written into it."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    names = ("ttlSecondsAfterFinished", "activeDeadlineSeconds", "completions")
    changed = [name for name in names if old and spec.get(name) != before.get(name)]
    if spec.get("suspend") and not before.get("suspend") and old:
        changed.append("suspend")
    return "changed " + ", ".join(changed) if changed else ""


def parallelism(new: JSON, old: JSON) -> str:
    """How many pods a Job runs, or whether a CronJob runs at all."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    names = [name for name in ("parallelism", "suspend") if old and spec.get(name) != before.get(name)]
    return ", ".join(f"{name} {before.get(name)} → {spec.get(name)}" for name in names)


def volume_released(new: JSON, old: JSON) -> str:
    """A PersistentVolume whose claim is taken away, or whose data goes with its claim from now on."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if old and _claim(before) and _claim(spec) != _claim(before):
        return "claim taken away"
    policy = "persistentVolumeReclaimPolicy"
    deletes = old and spec.get(policy) == "Delete" and before.get(policy) != "Delete"
    return "reclaim policy Delete" if deletes else ""


def claims_deleted(new: JSON, old: JSON) -> str:
    """A StatefulSet that deletes its claims from now on."""
    field = "persistentVolumeClaimRetentionPolicy"
    after, before = (new.get("spec") or {}).get(field) or {}, (old.get("spec") or {}).get(field) or {}
    changed = [key for key, value in after.items() if value == "Delete" and before.get(key) != "Delete"]
    return "claims are deleted: " + ", ".join(changed) if changed and old else ""


def definition_emptied(new: JSON, old: JSON) -> str:
    """A CustomResourceDefinition that stops serving, moves its storage or converts by somebody else's program."""
    if not old:
        return ""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if after.get("versions") != before.get("versions") or after.get("conversion") != before.get("conversion"):
        return "versions or conversion"
    stored = "storedVersions"
    return stored if (new.get("status") or {}).get(stored) != (old.get("status") or {}).get(stored) else ""


def namespace_finalized(new: JSON, old: JSON) -> str:
    """A Namespace whose own finalizer is taken off, so that what is inside is left to nobody."""
    after, before = (new.get("spec") or {}).get("finalizers") or [], (old.get("spec") or {}).get("finalizers") or []
    gone = [one for one in before if one not in after]
    return "finalizer taken off: " + ", ".join(map(str, gone)) if gone else ""


def workload_resumed(new: JSON, old: JSON) -> str:
    """A rollout that was held back goes on: a template that was approved long ago becomes real."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if before.get("paused") and not spec.get("paused"):
        return "rollout resumed"
    strategy, was = spec.get("updateStrategy") or {}, before.get("updateStrategy") or {}
    if old and was and strategy != was:
        return "update strategy"
    return ""


def _taint(one: Any) -> tuple[Any, Any]:
    return (one.get("key"), one.get("effect")) if isinstance(one, dict) else (None, None)


def _evicts(one: Any) -> bool:
    return isinstance(one, dict) and (one.get("effect") == NO_EXECUTE or one.get("key") == OUT_OF_SERVICE)


def _account(secret: JSON) -> str:
    annotations = (secret.get("metadata") or {}).get("annotations") or {}
    return str(annotations.get("kubernetes.io/service-account.name", ""))


def _claim(spec: JSON) -> tuple[Any, Any] | None:
    reference = spec.get("claimRef") or {}
    return (reference.get("namespace"), reference.get("name")) if reference else None


def _release(secret: JSON) -> str:
    """SHA-256 of a release's chart, manifests, hooks and values; empty when it cannot be read."""
    try:
        packed = base64.b64decode(base64.b64decode((secret.get("data") or {})["release"]))
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)  # gzip
        text = unpacker.decompress(packed, MAX_RELEASE_BYTES)
        if not unpacker.eof:
            return ""
        release = msgspec.json.decode(text)
        return digest([release.get(field) for field in ("name", "chart", "config", "manifest", "hooks")])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, zlib.error, msgspec.MsgspecError):
        return ""


class KindChange(NamedTuple):
    """An effect of one kind.

    Args:
        operation: its class.
        change: looks for it.
        subresources: through which it comes; empty for the object itself.
        also: classes whose rules ask as well.
        fields: what the change consists of, for its digest, besides what it says for people.
    """

    operation: str
    change: Change
    subresources: frozenset[str] = frozenset({""})
    also: tuple[str, ...] = ()
    fields: tuple[str, ...] = CHANGED_FIELDS


_WITH_STATUS = frozenset({"", "status"})
_RBAC = "rbac.authorization.k8s.io"
_PERMISSIONS = (KindChange(ACCESS, permissions),)
BY_KIND: Final[Mapping[tuple[str, str], tuple[KindChange, ...]]] = {
    ("", "configmaps"): (KindChange(ACCESS, trust_config_map),),
    ("", "namespaces"): (KindChange(DELETE, namespace_finalized, frozenset({"finalize"})),),
    ("", "nodes"): (KindChange(DRAIN, cordoned, _WITH_STATUS), KindChange(DRAIN, tainted, _WITH_STATUS, (DELETE,))),
    ("", "persistentvolumes"): (KindChange(DELETE, volume_released),),
    ("", "replicationcontrollers"): (KindChange(DELETE, adopts),),
    ("", "secrets"): (KindChange(ACCESS, token_secret), KindChange(DEPLOY, helm_release, fields=("type",))),
    ("", "serviceaccounts"): (KindChange(ACCESS, minted_token, frozenset({"token"})),),
    (_RBAC, "clusterrolebindings"): _PERMISSIONS,
    (_RBAC, "clusterroles"): _PERMISSIONS,
    (_RBAC, "rolebindings"): _PERMISSIONS,
    (_RBAC, "roles"): _PERMISSIONS,
    ("apiextensions.k8s.io", "customresourcedefinitions"): (KindChange(DELETE, definition_emptied, _WITH_STATUS),),
    ("apps", "daemonsets"): (KindChange(DEPLOY, workload_resumed),),
    ("apps", "deployments"): (KindChange(DEPLOY, workload_resumed),),
    ("apps", "replicasets"): (KindChange(DELETE, adopts),),
    ("apps", "statefulsets"): (
        KindChange(DELETE, claims_deleted),
        KindChange(DELETE, adopts_to_delete),
        KindChange(DEPLOY, workload_resumed),
    ),
    ("autoscaling", "horizontalpodautoscalers"): (KindChange(SCALE, autoscaled),),
    ("batch", "cronjobs"): (KindChange(SCALE, parallelism),),
    ("batch", "jobs"): (
        KindChange(DELETE, job_ended),
        KindChange(DELETE, job_that_adopts),
        KindChange(SCALE, parallelism),
    ),
    ("bitnami.com", "sealedsecrets"): (KindChange(ACCESS, sealed_token),),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        KindChange(ACCESS, signed_certificate, frozenset({"", "approval", "status"})),
    ),
    ("certificates.k8s.io", "clustertrustbundles"): (KindChange(ACCESS, trust_data),),
    ("keda.sh", "scaledobjects"): (KindChange(SCALE, autoscaled),),
}
