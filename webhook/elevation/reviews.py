"""ElevationReviews: would I be asked, by which rule, for what, and does a step-up that I have do already? Nothing is stored.

In the manner of a SelfSubjectAccessReview it is about the person who asks, and about nobody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import jwt
import msgspec

from webhook.adapters.elevation_cache import read_elevation
from webhook.adapters.elevation_store import ElevationStore
from webhook.core.applicable import PolicyIndex
from webhook.core.assertion import AssertionClaims, AuthorizationDetail, Expected
from webhook.core.decision import Candidate
from webhook.core.explanation import ActionSays, PolicySays, RuleSays, rule_to_dict
from webhook.core.guard import Guard
from webhook.core.operation import DELETE, Action
from webhook.core.preview import in_force, preview, regardless_of_change
from webhook.core.request import UserInfo
from webhook.core.requirement import merged
from webhook.elevation.bodies import WantedReview
from webhook.elevation.identity import Requester
from webhook.elevation.resources import GROUP_VERSION

JSON = dict[str, Any]


class ElevationReviews:
    """The service behind the resource.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        index: PolicyIndex,
        expected: Expected,
        *,
        own_namespace: str = "",
        controllers: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._index = index
        self._expected = expected
        self._guard = Guard(index, own_namespace, tuple(controllers))
        self._clock = clock

    async def review(self, requester: Requester, wanted: WantedReview) -> JSON:
        """What policies would say to this person, for what they say that they want to do.

        Raises:
            RequestError: a field is wrong.
        """
        wanted.checked()
        details = wanted.authorization_details()
        found = preview(self._index, requester.user, details, wanted.known_object(), self._guard).of_the_person()
        asked = [one.requirement for one in found.demands if one.enforcement == "Deny"]
        candidates = await self._candidates(requester.username) if asked else []
        actions = [self._action(one, requester.user, candidates) for one in found.actions]
        status: JSON = {
            "required": bool(asked),
            "satisfied": all(one["satisfied"] for one in actions),
            "actions": actions,
        }
        if asked:
            status["challenge"] = merged(asked).to_dict()
        return {
            "apiVersion": GROUP_VERSION,
            "kind": "ElevationReview",
            "metadata": {},
            "spec": {"details": [_without_type(one) for one in details]},
            "status": status,
        }

    async def _candidates(self, username: str) -> list[Candidate]:
        known = [read_elevation(one) for one in await self._store.of_user(username)]
        return [Candidate(_claims(one.unverified_token), one.record) for one in known if one is not None]

    def _action(self, one: ActionSays, user: UserInfo, candidates: list[Candidate]) -> JSON:
        target = one.action.target
        policies = [self._policy(policy, one.action, user, candidates) for policy in one.policies]
        rules = [rule for policy in policies if policy["enforcement"] == "Deny" for rule in policy["rules"]]
        return {
            "operation": one.action.operation,
            "group": target.group,
            "resource": target.resource,
            "namespace": target.namespace,
            "name": target.name,
            "required": any("satisfied" in rule for rule in rules),
            "satisfied": all(rule.get("satisfied", True) for rule in rules),
            "policies": policies,
        }

    def _policy(self, policy: PolicySays, action: Action, user: UserInfo, candidates: list[Candidate]) -> JSON:
        found = {key: getattr(policy, key) for key in ("policy", "enforcement", "verdict", "why")}
        rules = [rule_to_dict(rule) for rule in policy.rules]
        if policy.verdict == "applies":
            rules = [{**rule_to_dict(rule), **self._proof(rule, action, user, candidates)} for rule in policy.rules]
        return {**found, "notes": list(policy.notes), "rules": rules}

    def _proof(self, rule: RuleSays, action: Action, user: UserInfo, candidates: list[Candidate]) -> JSON:
        """Whether one of the person's step-ups does for a rule that applies."""
        if rule.verdict != "applies":
            return {}
        # The change is told only by the request; a deletion has none.
        of_any_change = not action.change and action.operation != DELETE
        usable = [regardless_of_change(one) for one in candidates] if of_any_change else candidates
        decision = in_force(rule.requirement, action, user, usable, self._expected, self._clock())
        if not decision.allowed:
            return {"satisfied": False, "problem": {"code": decision.code, "message": decision.message}}
        name = decision.satisfied[0].claims.jti
        changes = [one for one in candidates if one.claims.jti == name and _names_a_change(one)]
        only = {"onlyForItsChange": True} if of_any_change and changes else {}
        return {"satisfied": True, "elevation": name, **only}


def _claims(unverified_assertion: str) -> AssertionClaims:
    """Claims of an assertion in our own record. Its signature is not looked at: what is said of it here grants nothing."""
    return msgspec.convert(jwt.decode(unverified_assertion, options={"verify_signature": False}), AssertionClaims)


def _names_a_change(candidate: Candidate) -> bool:
    return any(one.digest for detail in candidate.claims.authorization_details for one in detail.objects)


def _without_type(detail: AuthorizationDetail) -> JSON:
    return {key: value for key, value in msgspec.to_builtins(detail).items() if key != "type"}
