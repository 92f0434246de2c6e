"""What a step-up is for: from `deploy/web`, `deploy web db`, `-l app=web`, `-f file` or a refusal to authorization details."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kinds import resource_of
from webhook.cli.kubectl import Kubectl

OPERATIONS: Final = ("access", "delete", "deploy", "drain", "exec", "guard", "restart", "scale")
SCOPES: Final = {"object": "Object", "resource": "Resource", "namespace": "Namespace"}
PLACEHOLDER: Final = "…"
_OWN_NAMESPACE: Final = ("config", "view", "--minify", "-o", "jsonpath={..namespace}")
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

    @property
    def same_target(self) -> tuple[object, ...]:
        """What stays the same when the command is tried again."""
        return self.operations, self.targets, self.namespace

    def described(self) -> str:
        """For people: ``delete deployments.apps/web in prod``."""
        where = f" in {self.namespace}" if self.namespace else ""
        what = " ".join(self.targets) or self.selector or " ".join(self.files) or "everything"
        return f"{' and '.join(self.operations)} {what}{where}"


@dataclass
class _Found:
    group: str
    resource: str
    namespace: str
    objects: list[dict[str, str]] = field(default_factory=list)


def operations_of(text: str) -> tuple[str, ...]:
    """The operations of `scale,deploy`; empty when it is something else."""
    names = tuple(text.split(","))
    return names if all(name in OPERATIONS for name in names) else ()


def parse_line(words: Sequence[str]) -> Wanted | None:
    """What a refusal's `kubectl elevate …` asks to run (the words after those two); None when it is not ours."""
    if len(words) < 2 or not operations_of(words[0]):
        return None
    options: dict[str, str] = {}
    rest = list(words[2:])
    while rest:
        name = rest.pop(0)
        if name not in {"-n", "--change", "--reason"} or not rest:
            return None
        options[name] = rest.pop(0)
    return Wanted(
        operations=operations_of(words[0]),
        targets=(words[1],),
        namespace=options.get("-n", ""),
        changes=tuple(options["--change"].split(",")) if "--change" in options else (),
        reason="" if options.get("--reason") == PLACEHOLDER else options.get("--reason", ""),
    )


def parse_text(line: str) -> Wanted | None:
    """The same from a line of text."""
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    return parse_line(words[2:]) if words[:2] == ["kubectl", "elevate"] else None


def details_of(wanted: Wanted, kubectl: Kubectl) -> list[dict[str, Any]]:
    """Authorization details, with the uids of objects that the person may read.

    Raises:
        ElevateError: it is not clear what is meant.
    """
    if wanted.scope == "namespace":
        namespace = wanted.namespace or _own_namespace(kubectl)
        return [{"operation": one, "scope": "Namespace", "namespace": namespace} for one in wanted.operations]
    if wanted.scope == "resource":
        kinds = [target.partition("/")[0] for target in wanted.targets]
        found = [_kind(kind, wanted, kubectl) for kind in dict.fromkeys(kinds)]
    elif wanted.selector or wanted.files:
        found = _listed(wanted, kubectl)
    else:
        found = _named(wanted, kubectl)
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
        objects = [{**one, "digest": change} if change != "-" else one for one in found.objects]
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


def _kind(kind: str, wanted: Wanted, kubectl: Kubectl) -> _Found:
    group, resource, namespaced = resource_of(kind, kubectl)
    namespace = (wanted.namespace or _own_namespace(kubectl)) if namespaced else ""
    return _Found(group, resource, namespace)


def _named(wanted: Wanted, kubectl: Kubectl) -> list[_Found]:
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
        uids = _uids(one, names, kubectl)
        one.objects = [{"name": name, "uid": uids[name]} if name in uids else {"name": name} for name in names]
        found.append(one)
    return found


def _uids(one: _Found, names: list[str], kubectl: Kubectl) -> dict[str, str]:
    """Uids by name; empty when the person may not read them: the proof is then good for the name."""
    kind = f"{one.resource}.{one.group}" if one.group else one.resource
    where = ["-n", one.namespace] if one.namespace else []
    columns = "custom-columns=NAME:.metadata.name,UID:.metadata.uid"
    result = kubectl.run("get", kind, *names, *where, "--ignore-not-found", "--no-headers", "-o", columns)
    rows = [line.split() for line in result.stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _listed(wanted: Wanted, kubectl: Kubectl) -> list[_Found]:
    where = ["-n", wanted.namespace] if wanted.namespace else []
    what = [*wanted.targets, *(word for file in wanted.files for word in ("-f", file))]
    selector = ["-l", wanted.selector] if wanted.selector else []
    result = kubectl.run("get", *what, *selector, *where, "--ignore-not-found", "-o", "json")
    if result.returncode != 0:
        raise ElevateError(result.stderr.strip() or "kubectl get failed", USAGE)
    listed = json.loads(result.stdout) if result.stdout.strip() else {}
    items = listed.get("items", [listed] if listed else [])
    if not items:
        raise ElevateError("nothing matches; there is nothing to step up for", USAGE)
    found: dict[tuple[str, str, str], _Found] = {}
    for item in items:
        group = item["apiVersion"].rpartition("/")[0]
        kind = f"{item['kind'].lower()}.{group}" if group else item["kind"].lower()
        _, resource, _ = resource_of(kind, kubectl)
        metadata = item["metadata"]
        key = (group, resource, metadata.get("namespace", ""))
        found.setdefault(key, _Found(*key)).objects.append({"name": metadata["name"], "uid": metadata["uid"]})
    return list(found.values())


def _own_namespace(kubectl: Kubectl) -> str:
    return kubectl.run(*_OWN_NAMESPACE).stdout.strip() or "default"
