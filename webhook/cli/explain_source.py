"""What a request is explained from: the words that are typed, and the policies, namespaces and objects of files or a cluster."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import typer

from webhook.cli import files as given
from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kinds import resource_of, usual
from webhook.cli.kubectl import Kubectl, error_of
from webhook.cli.suites.document import NamespaceEntry, SuiteError
from webhook.cli.suites.typed import Typed
from webhook.core.operation import OPERATIONS
from webhook.core.policy import Policy
from webhook.errors import PolicyError

_CLASSES: Final = {
    "evict": "delete",
    "attach": "exec",
    "port-forward": "exec",
    "set": "deploy",
    "rollout": "restart",
    "cordon": "drain",
    "uncordon": "drain",
    "taint": "drain",
    "create": "access",
}
_DEFAULT_TYPES: Final = {"evict": "pods", "exec": "pods", "attach": "pods", "port-forward": "pods", "cordon": "nodes", "uncordon": "nodes", "create": "serviceaccounts"}  # fmt: skip
_TWO_WORDS: Final = frozenset({"set", "rollout", "create"})


class Source(NamedTuple):
    """Policies, namespaces by name, objects, and what a kind is: group, plural name, whether it is in a namespace."""

    policies: list[Policy]
    namespaces: dict[str, NamespaceEntry]
    objects: list[dict[str, Any]]
    resource: Callable[[str], tuple[str, str, bool]]


def typed_words(words: Sequence[str]) -> Typed:
    """The command that the words are."""
    line = list(words)
    if "--" not in line and (place := _command_of_exec(line)):
        line.insert(place, "--")
    try:
        return Typed(shlex.join(line), "")
    except SuiteError as error:
        given.bad_input(error.message)


def _command_of_exec(words: Sequence[str]) -> int:
    """Where the command begins that `exec` runs; 0 where there is none. Whoever took our options has swallowed the --."""
    plain: list[int] = []
    for number, word in enumerate(words):
        is_value = number > 0 and words[number - 1] in {"-n", "--namespace", "-c", "--container"}
        if not word.startswith("-") and not is_value:
            plain.append(number)
    return plain[2] if len(plain) > 2 and words[plain[0]] == "exec" else 0


def named(typed: Typed) -> tuple[str, str, str]:
    """Class, type and name of what is typed.

    Raises:
        SuiteError: one of them is missing.
    """
    verb = typed.words[0] if typed.words else ""
    operation = _CLASSES.get(verb, verb)
    if operation not in OPERATIONS:
        raise SuiteError("", f"{verb}: must be one of {', '.join(OPERATIONS)}, or begin as a command of kubectl's does")
    return operation, *_target(typed)


def _target(typed: Typed) -> tuple[str, str]:
    """Type and name.

    Raises:
        SuiteError: they are missing.
    """
    verb = typed.words[0] if typed.words else ""
    rest = typed.words[2 if verb in _TWO_WORDS else 1 :]
    kind, slash, name = rest[0].partition("/") if rest else ("", "", "")
    if not slash and verb in _DEFAULT_TYPES and len(rest) == 1:
        kind, name = _DEFAULT_TYPES[verb], rest[0]
    elif not slash:
        name = rest[1] if len(rest) > 1 else ""
    if not kind or not name:
        raise SuiteError("", "names no object: TYPE/NAME is missing")
    return kind, name


def is_namespace(typed: Typed) -> bool:
    """Whether it is about a Namespace itself."""
    known = usual(typed.words[1].partition("/")[0]) if len(typed.words) > 1 else None
    return known is not None and known[1] == "namespaces"


def _namespace_of(typed: Typed) -> str:
    """The namespace that a request is in, or about."""
    if not is_namespace(typed):
        return typed.flags.get("namespace", "")
    _, slash, name = typed.words[1].partition("/")
    return name if slash else "".join(typed.words[2:3])


def from_files(policies: list[Path], labels: str, objects: list[Path], typed: Typed) -> Source:
    """Policies and objects of files; the one namespace that is typed has the labels (``k=v,k=v``)."""
    namespace = _namespace_of(typed)
    entries = {namespace: NamespaceEntry(labels=given.labels(labels))} if namespace else {}
    listed = [one for file in objects for one in given.documents(file)]
    return Source(given.policies(policies), entries, listed, _written)


def _written(kind: str) -> tuple[str, str, bool]:
    """A kind by its plural name and group, as nobody can be asked about it."""
    known = usual(kind)
    if known is not None:
        return known
    plural, _, group = kind.partition(".")
    if not group:
        raise SuiteError("", f"there is no kind {kind}: write it in full, such as clusters.example.com")
    return group, plural, True


def myself(client: Kubectl) -> dict[str, Any]:
    """``userInfo`` of whoever runs kubectl.

    Raises:
        ElevateError: the cluster does not tell.
    """
    found: dict[str, Any] = _json(client, "auth", "whoami", "-o", "json")["status"]["userInfo"]
    return found


def from_cluster(client: Kubectl, typed: Typed) -> Source:
    """Policies, the namespace and the object, as the person may read them.

    Raises:
        ElevateError: the policies cannot be read.
    """
    items = _json(client, "get", "stepuppolicies.kube-stepup.io", "-o", "json")["items"]
    if not typed.flags.get("namespace"):
        own = client.run("config", "view", "--minify", "-o", "jsonpath={..namespace}").stdout.strip()
        typed.flags["namespace"] = own or "default"
    namespace = _namespace_of(typed)
    entries: dict[str, NamespaceEntry] = {}
    read = client.run("get", "namespace", namespace, "-o", "json")
    if read.returncode == 0:
        metadata = json.loads(read.stdout)["metadata"]
        entries[namespace] = NamespaceEntry(
            labels=metadata.get("labels") or {}, annotations=metadata.get("annotations") or {}
        )
    return Source(_readable(items), entries, _object(client, typed), _discovered(client))


def _readable(items: list[dict[str, Any]]) -> list[Policy]:
    """The policies that can be used; of the others it is said that they cannot."""
    found = []
    for one in items:
        try:
            found.append(Policy.parse(one))
        except PolicyError as error:
            name = (one.get("metadata") or {}).get("name", "")
            text = f"policy {name} is left out, it cannot be used: {error}; what was in force of it before still is"
            typer.echo(f"stepup: {text}", err=True)
    return found


def namespaces_of(client: Kubectl) -> dict[str, dict[str, str]]:
    """Labels of the namespaces of the cluster, by name.

    Raises:
        ElevateError: they cannot be read.
    """
    items = _json(client, "get", "namespaces", "-o", "json")["items"]
    return {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in items}


def _object(client: Kubectl, typed: Typed) -> list[dict[str, Any]]:
    try:
        kind, name = _target(typed)
    except SuiteError:
        return []
    read = client.run("get", kind, name, "-n", typed.flags["namespace"], "-o", "json")
    return [json.loads(read.stdout)] if read.returncode == 0 else []


def _discovered(client: Kubectl) -> Callable[[str], tuple[str, str, bool]]:
    return lambda kind: resource_of(kind, client)


def _json(client: Kubectl, *arguments: str) -> dict[str, Any]:
    done = client.run(*arguments)
    if done.returncode != 0:
        raise error_of(done.stderr.strip())
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise ElevateError("kubectl gave an answer that is not JSON", USAGE) from error
    return found
