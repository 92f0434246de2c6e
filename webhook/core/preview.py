"""An explanation before the request is made: what a person says that they want to do, judged as far as that can be known.

A condition that reads what only the request itself will tell is unknown, and counts as true, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from webhook.core.applicable import Applicable, Demand, LazyFacts, PolicyIndex, Subject
from webhook.core.assertion import AuthorizationDetail, DetailObject, Expected
from webhook.core.cel import Condition, Facts
from webhook.core.cel.fields import Tree
from webhook.core.decision import Candidate, Decision, Question, decide
from webhook.core.explain import explain
from webhook.core.explanation import ActionSays, Explanation
from webhook.core.guard import Guard
from webhook.core.operation import DELETE, GUARD, Action
from webhook.core.planning import actions_of
from webhook.core.request import AdmissionRequest, GroupVersionKind, GroupVersionResource, UserInfo
from webhook.core.requirement import Requirement

Path = tuple[str, ...]
KNOWN: Final[tuple[Path, ...]] = (
    ("namespaceObject",),
    ("request", "name"),
    ("request", "namespace"),
    ("request", "resource", "group"),
    ("request", "resource", "resource"),
    ("request", "userInfo", "groups"),
    ("request", "userInfo", "username"),
    ("operation", "class"),
    ("operation", "classes"),
    *(("operation", "target", field) for field in ("group", "name", "namespace", "resource")),
)
"""What the person's own words and the front proxy tell of any request."""
KNOWN_OF_DELETE: Final[tuple[Path, ...]] = (("request", "operation"), ("object",))
KNOWN_OF_OBJECT: Final[tuple[Path, ...]] = tuple(
    ("oldObject", "metadata", field) for field in ("annotations", "labels", "name", "namespace")
)


class KnownObject(msgspec.Struct, frozen=True):
    """What the person says of the one object that it is about; unverified, so that it is good for an explanation alone."""

    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


def preview(
    index: PolicyIndex,
    user: UserInfo,
    details: Iterable[AuthorizationDetail],
    unverified_object: KnownObject | None = None,
    guard: Guard | None = None,
) -> Explanation:
    """What policies will say to these details.

    Args:
        unverified_object: of the one object that they name; None where they name more, or nothing is known of it.
        guard: tells what an operation of the class ``guard`` would weaken.
    """
    return Explanation(
        tuple(_says(index, user, action, unverified_object, guard) for action in planned(details)),
    )


def _says(
    index: PolicyIndex, user: UserInfo, action: Action, known: KnownObject | None, guard: Guard | None
) -> ActionSays:
    weakened = guard.planned(action.target) if guard is not None and action.operation == GUARD else ()
    facts = LazyFacts(lambda: _facts(index, user, action, known))
    subject = Subject(labels=(known.labels,) if known is not None else None, weakened=weakened, facts=facts)
    paths = _known_of(action, known)
    (says,) = explain(
        index, user, [action], subject, can_be_known=lambda condition: _reads_only(condition, paths)
    ).actions
    return says


def planned(details: Iterable[AuthorizationDetail]) -> Iterator[Action]:
    """The actions of details, each with the uid and the change that was named."""
    for detail in details:
        objects: list[DetailObject | None] = [*detail.objects] or [None]
        for action, one in zip(actions_of(detail), objects, strict=False):
            yield action if one is None else msgspec.structs.replace(action.with_uid(one.uid), change=one.digest)


def in_force(
    requirement: Requirement,
    action: Action,
    user: UserInfo,
    candidates: Iterable[Candidate],
    expected: Expected,
    now: float,
) -> Decision:
    """Whether one of the person's step-ups already does for one requirement, and if not, what comes closest.

    Args:
        candidates: where the change is not known, with its digest taken out (``regardless_of_change``).
        now: seconds since the epoch.
    """
    applicable = Applicable((Demand(action, requirement, "Deny"),))
    return decide(Question(user, (action,), Subject()), applicable, candidates, (), expected, now)


def regardless_of_change(candidate: Candidate) -> Candidate:
    """A step-up as if it were for any change of its objects."""
    details = tuple(
        msgspec.structs.replace(
            detail, objects=tuple(msgspec.structs.replace(one, digest="") for one in detail.objects)
        )
        for detail in candidate.claims.authorization_details
    )
    claims = msgspec.structs.replace(candidate.claims, authorization_details=details)
    return msgspec.structs.replace(candidate, claims=claims)


def _facts(index: PolicyIndex, user: UserInfo, action: Action, known: KnownObject | None) -> Facts:
    target = action.target
    metadata = {"name": target.name, "namespace": target.namespace}
    if known is not None:
        metadata |= {"labels": known.labels, "annotations": known.annotations}  # type: ignore[dict-item]
    old = {"metadata": {key: value for key, value in metadata.items() if value}}
    request = AdmissionRequest(
        uid="",
        kind=GroupVersionKind(),
        resource=GroupVersionResource(target.group, "", target.resource),
        operation="DELETE" if action.operation == DELETE else "",
        user_info=user,
        name=target.name,
        namespace=target.namespace,
        old_object=msgspec.Raw(msgspec.json.encode(old)),
    )
    return Facts(request, index.namespace_facts, (action,))


def _known_of(action: Action, known: KnownObject | None) -> tuple[Path, ...]:
    found = KNOWN
    if action.target.name == "*":
        found = tuple(path for path in found if path[-1] != "name")
    if action.operation == DELETE:  # by the plain road; there are others to the same effect
        found += KNOWN_OF_DELETE
        found += KNOWN_OF_OBJECT if known is not None else ()
    return found


def _reads_only(condition: Condition, known: tuple[Path, ...]) -> bool:
    """Whether a condition reads nothing but what is known."""
    return all(any(path[: len(one)] == one for one in known) for path in _paths(condition.trees))


def _paths(tree: Mapping[str, Tree], above: Path = ()) -> Iterator[Path]:
    for name, below in tree.items():
        if below is None or not below:
            yield (*above, name)
        else:
            yield from _paths(below, (*above, name))
