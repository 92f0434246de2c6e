"""``stepup policy explain``: which policies ask for what, and why, or why not; from files, or from the cluster."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import typer

from webhook.cli import files as given
from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kinds import resource_of, usual
from webhook.cli.kubectl import Kubectl, error_of
from webhook.cli.offline import OWN_NAMESPACE, asked, standard_controllers, with_target
from webhook.cli.operator import KubectlFlags, kubectl_with
from webhook.cli.suites.document import NamespaceEntry, SuiteError, UserEntry
from webhook.cli.suites.review import review_of
from webhook.cli.suites.typed import Typed
from webhook.cli.suites.typed import asked as typed_request
from webhook.cli.suites.world import World
from webhook.core.applicable import PolicyIndex, Subject
from webhook.core.assertion import DETAIL_TYPE, AuthorizationDetail, DetailObject
from webhook.core.decision import Question
from webhook.core.explain import explain
from webhook.core.explanation import Explanation
from webhook.core.guard import Guard
from webhook.core.operation import GUARD, OPERATIONS
from webhook.core.planning import actions_of
from webhook.core.policy import Policy
from webhook.core.request import UserInfo, decode

ME: Final = "me"
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


class Asking(NamedTuple):
    """Who asks for what.

    Args:
        controller: whether it is a controller of the cluster, which is never asked.
        whole: whether the request is known as the API server would tell it; else only class and target are.
    """

    user: UserInfo
    explanation: Explanation
    controller: bool
    whole: bool


class _Source(NamedTuple):
    policies: list[Policy]
    namespaces: dict[str, NamespaceEntry]
    objects: list[dict[str, Any]]
    resource: Callable[[str], tuple[str, str, bool]]


def explain_request(
    context: typer.Context,
    user: Annotated[str, typer.Option("--as", help="Who asks; in a cluster you yourself by default.")] = "",
    groups: Annotated[list[str] | None, typer.Option("--as-group", help="A group of theirs; may be repeated.")] = None,
    service_account: Annotated[str, typer.Option(help="A service account asks: NAMESPACE/NAME.")] = "",
    impersonated: Annotated[
        bool, typer.Option("--impersonated", help="They come by impersonation, without a credential of their own.")
    ] = False,
    policy: Annotated[
        list[Path] | None, typer.Option(help="File with StepUpPolicies, instead of those of the cluster.")
    ] = None,
    namespace_labels: Annotated[str, typer.Option(help="With --policy: labels of the namespace, k=v,k=v.")] = "",
    objects: Annotated[
        list[Path] | None, typer.Option("--object", help="With --policy: file with the object as it is.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
    kubectl: KubectlFlags = None,
) -> None:
    """Explain a request: `stepup policy explain --as alice delete deploy/web -n prod`.

    The request is a class (delete, scale, exec, restart, deploy, drain, access, guard) and an object, or what is typed after
    kubectl: `scale deploy/web --replicas=0`, `set image deploy/web c=nginx:2`. Exit code 0: explained; 2: bad input.
    """
    from webhook.cli.explained import as_json, as_text

    if output not in {"text", "json"}:
        given.bad_input("--output: must be text or json")
    words = context.args
    if not words:
        given.bad_input("what is to be explained? such as: delete deploy/web -n prod")
    typed = _typed(words)
    if policy is None and (namespace_labels or objects):
        given.bad_input("--namespace-labels and --object go with --policy")
    if policy is not None:
        who = _user(user, groups or [], service_account, impersonated=impersonated)
        source = _from_files(policy, namespace_labels, objects or [], typed)
    else:
        client = kubectl_with(kubectl)
        named = user or service_account
        who = _user(user, groups or [], service_account, impersonated=impersonated) if named else _myself(client)
        source = _from_cluster(client, typed)
    try:
        found = asking(source, typed, who)
    except SuiteError as error:
        given.bad_input(error.message)
    typer.echo(as_json(found) if output == "json" else as_text(found))


def asking(source: _Source, typed: Typed, user: dict[str, Any]) -> Asking:
    """What policies say to a request.

    Raises:
        SuiteError: it is not clear what is asked.
    """
    world = World(source.namespaces, {ME: UserEntry()}, source.objects, source.policies)
    index, controllers = world.index, standard_controllers()
    question = _whole(world, typed, user, index) if source.objects or _is_namespace(typed) else None
    if question is None:
        return _planned(source, typed, user, index)
    explanation = explain(index, question.user, question.actions, question.subject)
    return Asking(question.user, explanation, controllers.includes(question.user), whole=True)


def _whole(world: World, typed: Typed, user: dict[str, Any], index: PolicyIndex) -> Question | None:
    """The request as the API server would tell it; None when the command does not say enough."""
    try:
        made = typed_request(typed.line, world, "")
    except SuiteError:
        return None
    request = decode(msgspec.json.encode(review_of(made, user)))
    question = asked(request, index, standard_controllers())
    if request.sub_resource and question.actions:
        question = with_target(question, world.meta(question.actions[0].target))
    return question


def _planned(source: _Source, typed: Typed, user: dict[str, Any], index: PolicyIndex) -> Asking:
    """What is known of a class and a target alone: conditions and labels count as matching."""
    operation, kind, name = _named(typed)
    group, resource, namespaced = source.resource(kind)
    namespace = typed.flags.get("namespace", "") if namespaced else ""
    if namespaced and not namespace:
        raise SuiteError("", f"{kind} are in a namespace: say -n NAMESPACE")
    detail = AuthorizationDetail(
        type=DETAIL_TYPE,
        operation=operation,
        scope="Object",
        group=group,
        resource=resource,
        namespace=namespace,
        objects=(DetailObject(name),),
    )
    actions = actions_of(detail)
    info = msgspec.convert(user, UserInfo)
    controllers = standard_controllers()
    guard = Guard(index, OWN_NAMESPACE, controllers.accounts)
    weakened = guard.planned(actions[0].target) if operation == GUARD else ()
    labels = _labels(source, resource, namespace, name)
    explanation = explain(index, info, actions, Subject(labels=labels, weakened=weakened))
    return Asking(info, explanation, controllers.includes(info), whole=False)


def _labels(source: _Source, resource: str, namespace: str, name: str) -> tuple[dict[str, str], ...] | None:
    for one in source.objects:
        known, metadata = usual(str(one.get("kind", ""))), one.get("metadata") or {}
        if (
            known
            and known[1] == resource
            and (metadata.get("namespace", ""), metadata.get("name")) == (namespace, name)
        ):
            return (metadata.get("labels") or {},)
    return None


def _typed(words: Sequence[str]) -> Typed:
    line = list(words)
    if line[0] == "exec" and "--" not in line:
        # The shell of options has swallowed the -- in front of the command.
        places = [number for number, word in enumerate(line) if not word.startswith("-")]
        rest = next(
            (one for one in places[2:] if line[one - 1] not in {"-n", "--namespace", "-c", "--container"}), None
        )
        if rest is not None:
            line.insert(rest, "--")
    try:
        return Typed(shlex.join(line), "")
    except SuiteError as error:
        given.bad_input(error.message)


def _named(typed: Typed) -> tuple[str, str, str]:
    """Class, type and name of what is typed.

    Raises:
        SuiteError: one of them is missing.
    """
    verb = typed.words[0]
    operation = _CLASSES.get(verb, verb)
    if operation not in OPERATIONS:
        raise SuiteError("", f"{verb}: must be one of {', '.join(OPERATIONS)}, or begin as a command of kubectl's does")
    rest = typed.words[2 if verb in _TWO_WORDS else 1 :]
    kind, slash, name = rest[0].partition("/") if rest else ("", "", "")
    if not slash and verb in _DEFAULT_TYPES and len(rest) == 1:
        kind, name = _DEFAULT_TYPES[verb], rest[0]
    elif not slash:
        name = rest[1] if len(rest) > 1 else ""
    if not kind or not name:
        raise SuiteError("", "names no object: TYPE/NAME is missing")
    return operation, kind, name


def _is_namespace(typed: Typed) -> bool:
    known = usual(typed.words[1].partition("/")[0]) if len(typed.words) > 1 else None
    return known is not None and known[1] == "namespaces"


def _namespace_of(typed: Typed) -> str:
    try:
        return _named(typed)[2] if _is_namespace(typed) else typed.flags.get("namespace", "")
    except SuiteError:
        return typed.flags.get("namespace", "")


def _user(name: str, groups: list[str], service_account: str, *, impersonated: bool) -> dict[str, Any]:
    if bool(name) == bool(service_account):
        given.bad_input("who asks? say --as or --service-account, one of them")
    if service_account and service_account.count("/") != 1:
        given.bad_input("--service-account: must be NAMESPACE/NAME")
    credential: Any = "none" if impersonated else ""
    entry = UserEntry(username=name, groups=tuple(groups), service_account=service_account, credential=credential)
    return World({}, {ME: entry}, [], []).user(ME)


def _from_files(policies: list[Path], labels: str, objects: list[Path], typed: Typed) -> _Source:
    namespace = _namespace_of(typed)
    entries = {namespace: NamespaceEntry(labels=given.labels(labels))} if namespace else {}
    listed = [one for file in objects for one in given.documents(file)]
    return _Source(given.policies(policies), entries, listed, _written)


def _written(kind: str) -> tuple[str, str, bool]:
    """A kind by its plural name and group, as nobody can be asked about it."""
    known = usual(kind)
    if known is not None:
        return known
    plural, _, group = kind.partition(".")
    if not group:
        raise SuiteError("", f"there is no kind {kind}: write it in full, such as clusters.example.com")
    return group, plural, True


def _myself(client: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = _json(client, "auth", "whoami", "-o", "json")["status"]["userInfo"]
    return found


def _from_cluster(client: Kubectl, typed: Typed) -> _Source:
    """Policies, namespaces and the object, as the person may read them."""
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
    return _Source([Policy.parse(one) for one in items], entries, _object(client, typed), _discovered(client))


def _object(client: Kubectl, typed: Typed) -> list[dict[str, Any]]:
    try:
        _, kind, name = _named(typed)
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
