"""What a wrapped command is about, as far as its command line tells: a refusal of something else is none that it can have met.

What runs in a container, or whoever wrote the logs, prints through kubectl as well. Where that can be, a refusal counts only
as kubectl's own last words (see ``refusals``), and only about what was typed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from webhook.cli.exits import ElevateError
from webhook.cli.flags import Split

KUBECTL: Final = frozenset({"kubectl", "oc"})
# They change nothing, so nothing asks for proof of them.
READS: Final = frozenset(
    {
        "api-resources", "api-versions", "cluster-info", "completion", "config", "describe", "events", "explain", "get",
        "help", "kustomize", "logs", "options", "plugin", "proxy", "top", "version", "wait", "whoami",
    }
)  # fmt: skip
STREAMS: Final = frozenset({"attach", "cp", "exec", "port-forward", "rsh", "rsync"})
# Each makes a pod, or a container in one, and then shows what runs there.
MAKES: Final = frozenset({"debug", "run"})
NODES: Final = frozenset({"cordon", "drain", "uncordon"})
WITH_SUBCOMMAND: Final = frozenset({"certificate", "rollout", "set"})
# The target is made, or found in what is read, so its kind is not on the command line.
ANY_KIND: Final = frozenset({"adm", "apply", "auth", "autoscale", "create", "drain", "expose", "replace"})
NAMED: Final = frozenset(
    {"annotate", "certificate", "delete", "edit", "label", "patch", "rollout", "scale", "set", "taint"}
)
OF_FILES: Final = frozenset({"-f", "--filename", "-k", "--kustomize"})
BY_LABEL: Final = frozenset({"-l", "--selector", "--all", "--field-selector"})
EVERYWHERE: Final = frozenset({"-A", "--all-namespaces", "--raw"})
WITH_VALUE: Final = frozenset(
    {
        *OF_FILES, "-l", "--selector", "--field-selector", "-c", "--container", "-o", "--output", "--patch", "--patch-file",
        "--type", "--replicas", "--current-replicas", "--resource-version", "--timeout", "--grace-period", "--field-manager",
        "--image", "--copy-to", "--target", "--profile", "--custom", "--env", "-e", "--labels", "--annotations", "--port",
        "--overrides", "--override-type", "--restart", "--image-pull-policy", "--pod-running-timeout", "--subresource",
        "--to-revision", "--revision", "--serviceaccount", "--from", "--template", "--min", "--max", "--cpu-percent",
        "--name", "--limits", "--requests", "--chunk-size", "--pod-selector", "--skip-wait-for-delete-timeout", "--retries",
        "--address", "--raw", "--set-image", "--keys", "--list-kinds",
    }
)  # fmt: skip


@dataclass(frozen=True)
class About:
    """A command line, taken apart.

    Args:
        verb: ``delete``; the first word that is no flag.
        words: the others, up to ``--``; without the values of flags that are known to take one.
        options: names of the flags, and the value of each that has one.
        namespace: as typed; empty when none is.
    """

    program: str
    verb: str
    words: tuple[str, ...]
    options: dict[str, str]
    namespace: str

    @property
    def relays(self) -> bool:
        """Whether what others print comes through its error output, so that only its own last words count.

        What a plugin prints, nobody knows.
        """
        known = READS | ANY_KIND | NODES | NAMED
        return self.program == "helm" or (self.program in KUBECTL and self.verb not in known)

    @property
    def is_exact(self) -> bool:
        """Whether it says a refusal exactly as kubectl does."""
        return self.program in KUBECTL and self.verb in STREAMS | MAKES

    def described(self) -> str:
        """For people: ``kubectl exec``."""
        return f"{self.program} {self.verb}".strip()


@dataclass(frozen=True)
class Cluster:
    """What only the cluster, or the person's kubeconfig, knows; asked when it matters.

    Args:
        namespace: gives the one that kubectl takes when none is typed.
        resource: gives group and plural name of a kind as typed; raises ElevateError when there is none.
    """

    namespace: Callable[[], str]
    resource: Callable[[str], tuple[str, str]]


@dataclass(frozen=True)
class Claim:
    """What a refusal says that it refused: operations, and ``deployments.apps`` by name, and in which namespace."""

    operations: frozenset[str]
    kind: str
    name: str
    namespace: str

    @property
    def is_pod(self) -> bool:
        """Whether it is about a pod."""
        return self.kind == "pods"


def about(found: Split) -> About:
    """Take a command line apart, once its global flags are out of it."""
    words: list[str] = []
    options: dict[str, str] = {}
    rest = list(found.rest)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        takes = name in WITH_VALUE or (name == "-p" and words[:1] == ["patch"])
        options[name] = value if equals or not takes or not rest else rest.pop(0)
        if not word.startswith("--") and not equals and word[:2] in WITH_VALUE and len(word) > 2:
            options[word[:2]] = word[2:]  # -lapp=web
    verb, *others = words or [""]
    return About(found.program, verb, tuple(others), options, found.namespace)


def objection(claim: Claim, command: About, cluster: Cluster) -> str:
    """Why the command cannot have met this refusal; empty when it can have."""
    if command.program not in KUBECTL:
        return ""
    if command.verb in READS:
        return f"`{command.described()}` changes nothing, so nothing refuses it"
    namespaces = _namespaces(command, cluster)
    if claim.namespace and namespaces is not None and claim.namespace not in namespaces:
        return f"`{command.described()}` is about the namespace {' or '.join(sorted(namespaces))}"
    if command.verb in STREAMS:
        fits = claim.is_pod and _are(claim, {"exec", "guard"}, "connect:core/pods/") and _is_stream_into(claim, command)
    elif command.verb in MAKES:
        fits = _is_made_by(claim, command)
    elif command.verb in NAMED | NODES:
        fits = _is_named(claim, command, cluster)
    else:
        return ""
    return "" if fits else f"`{command.described()}` as it was typed is not about that"


def _namespaces(command: About, cluster: Cluster) -> set[str] | None:
    """The namespaces that it can be about; None when that can be any."""
    if command.verb == "cp" and (of_pods := {one[0] for one in _copied(command) if one[0]}):
        return of_pods
    if EVERYWHERE & command.options.keys() or command.verb == "drain":
        return None
    if command.namespace:
        return {command.namespace}
    is_known = command.verb in STREAMS | MAKES | NAMED
    return {cluster.namespace()} if is_known and not OF_FILES & command.options.keys() else None


def _copied(command: About) -> list[tuple[str, str]]:
    """Namespace (empty where none is typed) and pod of each `NAMESPACE/POD:PATH`."""
    found = []
    for word in command.words:
        pod, colon, _ = word.partition(":")
        if colon:
            namespace, slash, name = pod.partition("/")
            found.append((namespace, name) if slash else ("", pod))
    return found


def _is_stream_into(claim: Claim, command: About) -> bool:
    if command.verb == "cp":
        return claim.name in {name for _, name in _copied(command)}
    if command.verb == "rsync":
        return claim.name in {word.partition(":")[0] for word in command.words}
    if not command.words:
        return True  # it is in a file, or what starts the command adds it
    kind, slash, name = command.words[0].partition("/")
    if not slash:
        return claim.name == kind
    # Of a workload or a service, kubectl chooses the pod.
    return claim.name == name or kind.lower() not in {"pod", "pods", "po"}


def _are(claim: Claim, classes: set[str], raw: str) -> bool:
    """Whether all operations are of these classes, or raw ones (`connect:core/pods/exec`) that begin like this."""
    return all(one in classes or one.startswith(raw) for one in claim.operations)


def _is_made_by(claim: Claim, command: About) -> bool:
    first = command.words[0] if command.words else ""
    kind, slash, name = first.partition("/")
    name = name if slash else kind
    if command.verb == "run":
        if claim.kind == "services":
            return "--expose" in command.options and claim.name == name
        allowed = {"deploy", "access", "exec", "guard", "restart", "delete"}
        return claim.is_pod and claim.name == name and _are(claim, allowed, "create:core/pods")
    names = {name, command.options.get("--copy-to") or name, f"{name}-debug"}
    is_node = claim.name.startswith(f"node-debugger-{name}-")  # its last letters are made up by kubectl
    return claim.is_pod and (claim.name in names or is_node or claim.name == "node-debugger-*")


def _is_named(claim: Claim, command: About, cluster: Cluster) -> bool:
    if {"--raw", *OF_FILES} & command.options.keys() or command.verb == "drain":
        return True
    words = command.words[1:] if command.verb in WITH_SUBCOMMAND else command.words
    if not words:
        return True  # the rest is not typed: xargs adds it, or a program
    kinds, names = _typed(words, command.verb)
    if kinds and claim.kind not in {_plural(kind, cluster, claim) for kind in kinds}:
        return False
    return bool(BY_LABEL & command.options.keys()) or not names or claim.name in names


def _typed(words: tuple[str, ...], verb: str) -> tuple[set[str], set[str]]:
    """Kinds and names, of `KIND/NAME…` or `KIND[,KIND] NAME…`."""
    if verb in NODES:
        return {"nodes"}, {word.rpartition("/")[2] for word in words}
    if verb == "certificate":
        return {"csr"}, {word.rpartition("/")[2] for word in words}
    if "/" in words[0].partition("=")[0]:
        pairs = [word.partition("/") for word in words if "/" in word and "=" not in word.partition("/")[0]]
        return {kind for kind, _, _ in pairs}, {name for _, _, name in pairs}
    return set(words[0].split(",")), set(words[1:])


def _plural(kind: str, cluster: Cluster, claim: Claim) -> str:
    """``deploy`` → ``deployments.apps``; a word that is no kind (`all`) is whatever is claimed."""
    try:
        group, plural = cluster.resource(kind)
    except ElevateError:
        return claim.kind
    return f"{plural}.{group}" if group else plural
