"""What a step-up that somebody asks for will have to prove: the same policies, asked beforehand.

The elevation service knows less than a review tells (no labels of the object, no change), so what is unknown counts as
matching: a person may be asked for more than the request will need, never for less.
"""

from __future__ import annotations

from collections.abc import Iterable

from webhook.core.applicable import Demand, PolicyIndex, Subject
from webhook.core.assertion import AuthorizationDetail
from webhook.core.cascades import NODES, takes
from webhook.core.classify import CASCADES
from webhook.core.guard import Guard
from webhook.core.operation import DELETE, DEPLOY, DRAIN, GUARD, RESTART, Action, Target
from webhook.core.request import UserInfo
from webhook.core.requirement import Requirement


def requirements_for(
    index: PolicyIndex,
    user: UserInfo,
    details: Iterable[AuthorizationDetail],
    own_namespace: str = "",
    controllers: Iterable[str] = (),
) -> list[Requirement]:
    """The requirements that a step-up for these details will have to meet; empty when nothing asks for one."""
    return enforced(demands_for(index, user, details, own_namespace, controllers))


def enforced(demands: Iterable[Demand]) -> list[Requirement]:
    """The requirements of those demands that are not for show; each rule's once."""
    found = {(one.requirement.policy, one.requirement.rule): one for one in demands if one.enforcement == "Deny"}
    return [demand.requirement for demand in found.values()]


def demands_for(
    index: PolicyIndex,
    user: UserInfo,
    details: Iterable[AuthorizationDetail],
    own_namespace: str = "",
    controllers: Iterable[str] = (),
) -> list[Demand]:
    """What policies will say to these details, those that only warn or audit as well.

    Args:
        own_namespace: where kube-stepup itself runs.
        controllers: accounts that pass as controllers of the cluster.
    """
    guard = Guard(index, own_namespace, tuple(controllers))
    found: list[Demand] = []
    for action in (action for detail in details for action in actions_of(detail)):
        weakened = guard.planned(action.target) if action.operation == GUARD else ()
        found += index.applicable(user, [action], Subject(weakened=weakened)).demands
    return found


def actions_of(detail: AuthorizationDetail) -> list[Action]:
    """The actions that a step-up for a detail would be used for, with what is unknown left open."""
    if detail.scope == "Namespace":
        # Any kind in the namespace: what deleting everything inside could ask, as a Namespace's own deletion does.
        target = Target(detail.group, detail.resource or "*", detail.namespace, "*")
        return [Action(detail.operation, target, "", also=_ALSO.get(detail.operation, ()), cascade=True)]
    names = [one.name for one in detail.objects] or ["*"]
    kind = (detail.group, detail.resource)
    also = _ALSO.get(detail.operation, ()) if detail.operation != DELETE or kind in DRAINED else ()
    if detail.operation == DRAIN and kind == NODES:
        also = (DELETE,)  # a taint throws pods out
    ends = DELETE in {detail.operation, *also}
    return [
        Action(
            detail.operation,
            Target(detail.group, detail.resource, detail.namespace, name),
            "",
            also=also,
            cascade=kind in CASCADES,
            takes=takes(Target(*kind, detail.namespace, name)) if ends else None,
        )
        for name in names
    ]


_ALSO = {DEPLOY: (RESTART,), DELETE: (DRAIN,)}
DRAINED = frozenset({("", "pods"), ("", "nodes")})
