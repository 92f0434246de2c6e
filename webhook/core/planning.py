"""What a step-up that somebody asks for will have to prove: the same policies, asked beforehand.

The elevation service knows less than a review tells (no labels of the object, no change), so what is unknown counts as
matching: a person may be asked for more than the request will need, never for less.
"""

from __future__ import annotations

from collections.abc import Iterable

from webhook.core.applicable import NAMESPACES, PolicyIndex, Subject
from webhook.core.assertion import AuthorizationDetail
from webhook.core.operation import Action, Target
from webhook.core.request import UserInfo
from webhook.core.requirement import Requirement


def requirements_for(index: PolicyIndex, user: UserInfo, details: Iterable[AuthorizationDetail]) -> list[Requirement]:
    """The requirements that a step-up for these details will have to meet; empty when nothing asks for one."""
    found: dict[tuple[str, str], Requirement] = {}
    for detail in details:
        applicable = index.applicable(user, _actions(detail), Subject())
        for demand in applicable.demands:
            if demand.enforcement == "Deny":
                found[demand.requirement.policy, demand.requirement.rule] = demand.requirement
    return list(found.values())


def _actions(detail: AuthorizationDetail) -> list[Action]:
    if detail.scope == "Namespace":
        # Any kind in the namespace: what deleting everything inside could ask, as a Namespace's own deletion does.
        target = Target(detail.group, detail.resource or "*", detail.namespace, "*")
        return [Action(detail.operation, target, "", cascade=True)]
    names = [one.name for one in detail.objects] or ["*"]
    cascade = (detail.group, detail.resource) == NAMESPACES
    return [
        Action(detail.operation, Target(detail.group, detail.resource, detail.namespace, name), "", cascade=cascade)
        for name in names
    ]
