"""What the policies in force ask of somebody for what they want to do; asked anew at each answer, since policies change.

Changing one's own factors is asked about whatever policies say.
"""

from __future__ import annotations

from collections.abc import Iterable

from webhook.adapters.authenticator_store import AuthenticatorStore
from webhook.core.applicable import PolicyIndex
from webhook.core.assertion import AuthorizationDetail
from webhook.core.planning import demands_for, requirements_for
from webhook.core.refusal import only_warns
from webhook.core.request import UserInfo
from webhook.core.requirement import Requirement
from webhook.elevation.factors import Factor
from webhook.elevation.own_step_up import is_own, requirement_for


class Needs:
    """The policies, and the identities that they are judged with."""

    def __init__(
        self,
        index: PolicyIndex,
        own_namespace: str,
        controllers: Iterable[str],
        people: AuthenticatorStore,
        factors: Iterable[Factor],
    ) -> None:
        self._index = index
        self._people = people
        self._factors = tuple(factors)
        self._own_namespace = own_namespace
        self._controllers = tuple(controllers)

    def of(self, user: UserInfo, details: list[AuthorizationDetail]) -> list[Requirement]:
        """Every requirement of a policy."""
        return requirements_for(self._index, user, details, self._own_namespace, self._controllers)

    async def of_person(self, user: UserInfo, details: list[AuthorizationDetail]) -> list[Requirement]:
        """Every requirement that must be met; none where nothing asks for anything."""
        found = self.of(user, details)
        if any(map(is_own, details)):
            record = await self._people.read(user.username)
            mine = [strength for factor in self._factors for strength in factor.strengths(record)]
            found += requirement_for(details, mine)
        return found

    def why_none(self, user: UserInfo, details: list[AuthorizationDetail]) -> str:
        """Why there are none, for people; policies that audit in silence stay silent."""
        demands = demands_for(self._index, user, details, self._own_namespace, self._controllers)
        warning = {one.requirement.policy for one in demands if one.enforcement == "Warn"}
        return only_warns(warning) if warning else "no policy asks for a step-up"
