"""What the policies in force ask of somebody for what they want to do; asked anew at each answer, since policies change."""

from __future__ import annotations

from collections.abc import Iterable

from webhook.core.applicable import PolicyIndex
from webhook.core.assertion import AuthorizationDetail
from webhook.core.planning import demands_for, requirements_for
from webhook.core.refusal import only_warns
from webhook.core.request import UserInfo
from webhook.core.requirement import Requirement


class Needs:
    """The policies, and the identities that they are judged with."""

    def __init__(self, index: PolicyIndex, own_namespace: str, controllers: Iterable[str]) -> None:
        self._index = index
        self._own_namespace = own_namespace
        self._controllers = tuple(controllers)

    def of(self, user: UserInfo, details: list[AuthorizationDetail]) -> list[Requirement]:
        """Every requirement that must be met; none where no policy asks for anything."""
        return requirements_for(self._index, user, details, self._own_namespace, self._controllers)

    def why_none(self, user: UserInfo, details: list[AuthorizationDetail]) -> str:
        """Why there are none, for people; policies that audit in silence stay silent."""
        demands = demands_for(self._index, user, details, self._own_namespace, self._controllers)
        warning = {one.requirement.policy for one in demands if one.enforcement == "Warn"}
        return only_warns(warning) if warning else "no policy asks for a step-up"
