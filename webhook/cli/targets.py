"""What a step-up is for: from `deploy/web`, `deploy web db`, `-l app=web`, `-f file` or a refusal to authorization details."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kinds import resource_of
from webhook.cli.kubectl import Kubectl

OPERATIONS: Final = ("access", "delete", "deploy", "drain", "exec", "guard", "restart", "scale")
# A verb and a resource by name (docs/policy.md); nothing that a shell would act on.
RAW: Final = re.compile(r"(?:create|update|delete|connect):[a-z0-9.-]+/[a-z0-9.-]+(?:/[A-Za-z0-9-]+)?")
SCOPES: Final = {"object": "Object", "resource": "Resource", "namespace": "Namespace"}
PLACEHOLDER: Final = "…"
_OWN_NAMESPACE: Final = ("config", "view", "--minify", "-o", "jsonpath={..namespace}")
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# A review of `exec` names the pod, so proof for what made it would be good for nothing.
_MAKE_PODS: Final = frozenset(
    {"cronjobs", "daemonsets", "deployments", "jobs", "replicasets", "replicationcontrollers", "statefulsets"}
)
# Their objects may be about to be created.
_MAY_CREATE: Final = frozenset({"access", "deploy", "guard"})
_OTHER_NAMESPACE: Final = "does not match the namespace"
_CHANGE: Final = re.compile(r"^(-|[0-9a-f]{16,64})$")


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to be good for, as typed."""

    operations: tuple[str, ...]
    targets: tuple[str, ...] = ()
    namespace: str = ""
    changes: tuple[str, ...] = ()
    scope: str = "object"
    selector: str = ""
    files: tuple[str, ...] = ()
    reason: str = ""
    shows: tuple[str, ...] = ()

    @property
    def same_target(self) -> tuple[object, ...]:
        """What stays the same when the command is tried again."""
        return self.operations, self.targets, self.namespace

    def described(self) -> str:
        """For people: ``delete deployments.apps/web in prod``."""
        where = f" in {self.namespace}" if self.namespace else ""
        what = " ".join((*self.targets, *filter(None, [self.selector]), *self.files)) or "everything"
        return f"{' and '.join(self.operations)} {what}{where}"


@dataclass
class _Found:
    group: str
    resource: str
    namespace: str
    objects: list[dict[str, str]] = field(default_factory=list)


def operations_of(text: str) -> tuple[str, ...]:
    """The operations of `scale,deploy` or `update:cnpg.io/clusters`; empty when it is something else.

    To delete by a raw name is the class `delete`.
    """
    names = tuple(text.split(","))
    if not all(name in OPERATIONS or RAW.fullmatch(name) for name in names):
        return ()
    return tuple("delete" if name.startswith("delete:") and name.count("/") == 1 else name for name in names)


def _may_create(operations: tuple[str, ...]) -> bool:
    return any(name in _MAY_CREATE or name.startswith("create:") for name in operations)


def details_of(wanted: Wanted, kubectl: Kubectl, *, must_exist: bool = True) -> list[dict[str, Any]]:
    """Authorization details, with the uids of objects that the person may read.

    Args:
        must_exist: refuse names that there are none of, unless they may be about to be created: a code is not spent on a typo.

    Raises:
        ElevateError: it is not clear what is meant.
    """
    if wanted.scope == "namespace":
        namespace = wanted.namespace or own_namespace(kubectl)
        return [{"operation": one, "scope": "Namespace", "namespace": namespace} for one in wanted.operations]
    if wanted.scope == "resource":
        kinds = [target.partition("/")[0] for target in wanted.targets]
        found = [_kind(kind, wanted, kubectl) for kind in dict.fromkeys(kinds)]
    elif wanted.files and _may_create(wanted.operations):
        found = _described_by_files(replace(wanted, targets=()), kubectl)
        found += _named(wanted, kubectl, must_exist=False) if wanted.targets else []
    elif wanted.selector or wanted.files:
        found = _listed(wanted, kubectl)
    else:
        found = _named(wanted, kubectl, must_exist=must_exist and not _may_create(wanted.operations))
    if not found:
        raise ElevateError("name what you want to step up for, such as deploy/web", USAGE)
    return [detail for one in found for detail in _details(wanted, one)]


def _details(wanted: Wanted, found: _Found) -> list[dict[str, Any]]:
    scope = SCOPES[wanted.scope]
    details = []
    for position, operation in enumerate(wanted.operations):
        change = wanted.changes[position] if position < len(wanted.changes) else "-"
        if not _CHANGE.match(change):
            raise ElevateError(f"--change: {change!r} is not a digest; copy the line of the refusal", USAGE)
        objects = [{**one, **_bound(wanted, change)} for one in found.objects]
        detail: dict[str, Any] = {
            "operation": operation,
            "group": found.group,
            "resource": found.resource,
            "scope": scope,
        }
        if found.namespace:
            detail["namespace"] = found.namespace
        details.append({**detail, "objects": objects} if scope == "Object" else detail)
    if wanted.changes and len(found.objects) != 1:
        raise ElevateError("--change belongs to one object", USAGE)
    return details


def _bound(wanted: Wanted, change: str) -> dict[str, str]:
    """The change that a proof is bound to: its digest, and its words where a refusal gave them (one for each digest)."""
    if change == "-":
        return {}
    digests = [one for one in wanted.changes if one != "-"]
    if wanted.shows and len(wanted.shows) != len(digests):
        raise ElevateError("--shows: as many as there are changes; copy the line of the refusal", USAGE)
    words = wanted.shows[digests.index(change)] if wanted.shows else PLACEHOLDER
    return {"digest": change, **({"change": words} if words != PLACEHOLDER else {})}


def _kind(kind: str, wanted: Wanted, kubectl: Kubectl) -> _Found:
    group, resource, namespaced = resource_of(kind, kubectl)
    namespace = (wanted.namespace or own_namespace(kubectl)) if namespaced else ""
    return _Found(group, resource, namespace)


def _named(wanted: Wanted, kubectl: Kubectl, *, must_exist: bool) -> list[_Found]:
    by_kind: dict[str, list[str]] = {}
    if wanted.targets and "/" not in wanted.targets[0]:
        first, *names = wanted.targets
        if not names:
            if wanted.operations != ("exec",):
                raise ElevateError(f"which {first}? Name it: {first}/NAME", USAGE)
            first, names = "pods", [first]
        for kind in first.split(","):
            by_kind.setdefault(kind, []).extend(names)
    else:
        for target in wanted.targets:
            kind, slash, name = target.partition("/")
            if not slash or not name:
                raise ElevateError(f"{target!r}: write KIND/NAME for each, or KIND NAME…", USAGE)
            by_kind.setdefault(kind, []).append(name)
    found = []
    for kind, names in by_kind.items():
        one = _kind(kind, wanted, kubectl)
        if wanted.operations == ("exec",) and one.resource in _MAKE_PODS:
            raise ElevateError(
                f"{kind} is none to run a command in: name the pod, or let kubectl choose it:"
                f" kubectl elevate -- kubectl exec {kind}/{names[0]} …",
                USAGE,
            )
        _add(one, names, kubectl, must_exist=must_exist)
        found.append(one)
    return found


def _add(one: _Found, names: list[str], kubectl: Kubectl, *, must_exist: bool) -> None:
    uids, readable = _uids(one, names, kubectl)
    missing = [name for name in names if name not in uids]
    if missing and readable and must_exist:
        where = f" in {one.namespace}" if one.namespace else ""
        raise ElevateError(f"there is no {one.resource} {' '.join(missing)}{where}", USAGE)
    one.objects += [{"name": name, "uid": uids[name]} if name in uids else {"name": name} for name in names]


def _uids(one: _Found, names: list[str], kubectl: Kubectl) -> tuple[dict[str, str], bool]:
    """Uids by name, and whether the person may read them; without one the proof is good for the name."""
    kind = f"{one.resource}.{one.group}" if one.group else one.resource
    where = ["-n", one.namespace] if one.namespace else []
    columns = "custom-columns=NAME:.metadata.name,UID:.metadata.uid"
    result = kubectl.run("get", kind, *where, "--ignore-not-found", "--no-headers", "-o", columns, "--", *names)
    rows = [line.split() for line in result.stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}, result.returncode == 0


def _listed(wanted: Wanted, kubectl: Kubectl) -> list[_Found]:
    selector = ["-l", wanted.selector] if wanted.selector else []
    items = _items(wanted, kubectl, "get", *selector, "--ignore-not-found")
    if not items:
        raise ElevateError("nothing matches; there is nothing to step up for", USAGE)
    found: dict[tuple[str, str, str], _Found] = {}
    for item in items:
        group, resource, _ = _resource_of_item(item, kubectl)
        metadata = item["metadata"]
        key = (group, resource, metadata.get("namespace", ""))
        found.setdefault(key, _Found(*key)).objects.append({"name": metadata["name"], "uid": metadata["uid"]})
    return list(found.values())


def _described_by_files(wanted: Wanted, kubectl: Kubectl) -> list[_Found]:
    """What manifests name, whether it is there already or not."""
    named: dict[tuple[str, str, str], list[str]] = {}
    for item in _items(wanted, kubectl, "create", "--dry-run=client", "--validate=false"):
        group, resource, namespaced = _resource_of_item(item, kubectl)
        namespace = item["metadata"].get("namespace") or wanted.namespace
        key = (group, resource, (namespace or own_namespace(kubectl)) if namespaced else "")
        named.setdefault(key, []).append(item["metadata"].get("name", ""))
    found = []
    for key, names in named.items():
        if not all(names):
            raise ElevateError("a manifest has an object without a name; it gets one only when it is created", USAGE)
        one = _Found(*key)
        _add(one, names, kubectl, must_exist=False)
        found.append(one)
    return found


def _items(wanted: Wanted, kubectl: Kubectl, verb: str, *arguments: str) -> list[dict[str, Any]]:
    where = ["-n", wanted.namespace] if wanted.namespace else []
    what = [*wanted.targets, *(word for file in wanted.files for word in ("-f", file))]
    given = sys.stdin.read() if "-" in wanted.files else None
    result = kubectl.run(verb, *what, *where, *arguments, "-o", "json", stdin=given)
    if result.returncode != 0 and where and _OTHER_NAMESPACE in result.stderr:
        # A manifest that names several namespaces; the given one is for what is named beside it.
        result = kubectl.run(verb, *what, *arguments, "-o", "json", stdin=given)
    if result.returncode != 0:
        raise ElevateError(result.stderr.strip() or f"kubectl {verb} failed", USAGE)
    return [item for document in _documents(result.stdout) for item in document.get("items", [document])]


def _documents(text: str) -> list[dict[str, Any]]:
    """Kubectl prints a list, or one object, or (from a dry run) several one after the other."""
    decoder = json.JSONDecoder()
    found = []
    position = 0
    text = text.strip()
    while position < len(text):
        document, end = decoder.raw_decode(text, position)
        found.append(document)
        position = len(text) - len(text[end:].lstrip())
    return found


def _resource_of_item(item: dict[str, Any], kubectl: Kubectl) -> tuple[str, str, bool]:
    group = item["apiVersion"].rpartition("/")[0]
    return resource_of(f"{item['kind'].lower()}.{group}" if group else item["kind"].lower(), kubectl)


def own_namespace(kubectl: Kubectl) -> str:
    """The namespace that kubectl takes when none is given: the context's, or inside a pod (client-go) the pod's own."""
    result = kubectl.run(*_OWN_NAMESPACE)
    if result.returncode == 0:
        return result.stdout.strip() or "default"
    own = os.environ.get("POD_NAMESPACE", "")
    if not own and os.environ.get("KUBERNETES_SERVICE_HOST") and _POD_NAMESPACE.exists():
        own = _POD_NAMESPACE.read_text().strip()
    return own or "default"
