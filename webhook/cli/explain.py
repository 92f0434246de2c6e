"""``stepup policy explain``: which policies ask for what, and why, or why not; from files, or from the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import typer

from webhook.cli import files as given
from webhook.cli.explain_source import Source, from_cluster, from_files, is_namespace, myself, named, typed_words
from webhook.cli.kinds import usual
from webhook.cli.offline import OWN_NAMESPACE, asked, standard_controllers, with_target
from webhook.cli.operator import KubectlFlags, kubectl_with
from webhook.cli.suites.document import SuiteError, UserEntry
from webhook.cli.suites.review import review_of
from webhook.cli.suites.typed import Typed, requested
from webhook.cli.suites.world import World
from webhook.core.applicable import PolicyIndex, Subject
from webhook.core.assertion import DETAIL_TYPE, AuthorizationDetail, DetailObject
from webhook.core.decision import Question
from webhook.core.explain import explain
from webhook.core.explanation import Explanation
from webhook.core.guard import Guard
from webhook.core.operation import GUARD
from webhook.core.planning import actions_of
from webhook.core.request import UserInfo, decode

ME: Final = "me"


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
    typed = typed_words(words)
    if policy is None and (namespace_labels or objects):
        given.bad_input("--namespace-labels and --object go with --policy")
    if policy is not None:
        who = _user(user, groups or [], service_account, impersonated=impersonated)
        source = from_files(policy, namespace_labels, objects or [], typed)
    else:
        client = kubectl_with(kubectl)
        is_named = bool(user or service_account)
        who = _user(user, groups or [], service_account, impersonated=impersonated) if is_named else myself(client)
        source = from_cluster(client, typed)
    try:
        found = asking(source, typed, who)
    except SuiteError as error:
        given.bad_input(error.message)
    typer.echo(as_json(found) if output == "json" else as_text(found))


def asking(source: Source, typed: Typed, user: dict[str, Any]) -> Asking:
    """What policies say to a request.

    Raises:
        SuiteError: it is not clear what is asked.
    """
    world = World(source.namespaces, {ME: UserEntry()}, source.objects, source.policies)
    index, controllers = world.index, standard_controllers()
    question = _whole(world, typed, user, index) if source.objects or is_namespace(typed) else None
    if question is None:
        return _planned(source, typed, user, index)
    explanation = explain(index, question.user, question.actions, question.subject)
    return Asking(question.user, explanation, controllers.includes(question.user), whole=True)


def _whole(world: World, typed: Typed, user: dict[str, Any], index: PolicyIndex) -> Question | None:
    """The request as the API server would tell it; None when the command does not say enough."""
    try:
        made = requested(typed, world)
    except SuiteError:
        return None
    request = decode(msgspec.json.encode(review_of(made, user)))
    question = asked(request, index, standard_controllers())
    if request.sub_resource and question.actions:
        question = with_target(question, world.meta(question.actions[0].target))
    return question


def _planned(source: Source, typed: Typed, user: dict[str, Any], index: PolicyIndex) -> Asking:
    """What is known of a class and a target alone: conditions and labels count as matching."""
    operation, kind, name = named(typed)
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


def _labels(source: Source, resource: str, namespace: str, name: str) -> tuple[dict[str, str], ...] | None:
    for one in source.objects:
        known, metadata = usual(str(one.get("kind", ""))), one.get("metadata") or {}
        if (
            known
            and known[1] == resource
            and (metadata.get("namespace", ""), metadata.get("name")) == (namespace, name)
        ):
            return (metadata.get("labels") or {},)
    return None


def _user(name: str, groups: list[str], service_account: str, *, impersonated: bool) -> dict[str, Any]:
    if bool(name) == bool(service_account):
        given.bad_input("who asks? say --as or --service-account, one of them")
    if service_account and service_account.count("/") != 1:
        given.bad_input("--service-account: must be NAMESPACE/NAME")
    credential: Any = "none" if impersonated else ""
    entry = UserEntry(username=name, groups=tuple(groups), service_account=service_account, credential=credential)
    return World({}, {ME: entry}, [], []).user(ME)
