"""Step-ups for what is one's own: a further factor, or the removal of one, needs fresh proof by a factor there is.

They are ordinary ElevationRequests, for `access` to an object of our own `authenticators`: asked for here, whatever policies
say, answered like any other, and spent here instead of at admission, which never sees this API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from webhook.adapters.elevation_store import ElevationStore
from webhook.adapters.signing_keys import SigningKeys
from webhook.adapters.verifier import Verifier
from webhook.core.assertion import AssertionClaims, AuthorizationDetail, Expected, check
from webhook.core.operation import ACCESS, Action, Target
from webhook.core.requirement import Requirement
from webhook.elevation.factors import Strength
from webhook.elevation.identity import Requester
from webhook.elevation.resources import GROUP
from webhook.errors import ConflictError, RequestError

RESOURCE: Final = "authenticators"
NEW: Final = "new"  # the object of a step-up for a factor that is not there yet
MAX_AGE_SECONDS: Final = 300

JSON = dict[str, Any]


def requirement_for(details: Iterable[AuthorizationDetail], mine: Iterable[Strength]) -> list[Requirement]:
    """What changing one's own factors asks for, beside what policies do.

    Whoever has a factor that cannot be phished must use it: a phished code must not bind a passkey of the phisher's.
    """
    if not any(is_own(one) for one in details):
        return []
    resistant = any(one.phishing_resistant for one in mine)
    return [
        Requirement(
            policy="kube-stepup",
            rule=RESOURCE,
            assurance="aal2",
            phishing_resistant=resistant,
            max_age_seconds=MAX_AGE_SECONDS,
        )
    ]


def is_own(detail: AuthorizationDetail) -> bool:
    """Whether a step-up is for one's own factors."""
    return (detail.operation, detail.group, detail.resource) == (ACCESS, GROUP, RESOURCE)


class OwnStepUps:
    """Spends step-ups on one's own factors.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self, store: ElevationStore, keys: SigningKeys, expected: Expected, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._keys = keys
        self._expected = expected
        self._clock = clock

    async def spend_assertion(
        self, requester: Requester, unverified_assertion: str, object_name: str, mine: Iterable[Strength]
    ) -> str:
        """Use up a step-up of this terminal for one authenticator; the name of its Elevation.

        The assertion was told to the terminal that proved it, and to nobody else: whoever has the same credential sees that
        there is a step-up, and must not be faster than the person.

        Raises:
            RequestError: ``step-up-required``: there is none, or it is for something else, too old, too weak, or used.
        """
        if not unverified_assertion:
            raise step_up_required(object_name, "")
        claims = self._verifier().verify(unverified_assertion)
        if not isinstance(claims, AssertionClaims):
            raise step_up_required(object_name, claims.message)
        await self._spend(requester, claims, object_name, mine)
        return claims.jti

    async def spend(
        self, requester: Requester, elevation_name: str, object_name: str, mine: Iterable[Strength]
    ) -> None:
        """The same by the name of the Elevation: enough where the object itself is named, and only goes.

        Raises:
            RequestError: as ``spend_assertion``.
        """
        elevation = await self._own(requester, elevation_name) if elevation_name else None
        if elevation is None:
            raise step_up_required(object_name, "there is no such step-up of yours" if elevation_name else "")
        claims = self._verifier().verify(str((elevation.get("status") or {}).get("assertion") or ""))
        if not isinstance(claims, AssertionClaims) or claims.jti != elevation_name:
            raise step_up_required(object_name, "that step-up was not granted")
        await self._spend(requester, claims, object_name, mine)

    async def _spend(
        self, requester: Requester, claims: AssertionClaims, object_name: str, mine: Iterable[Strength]
    ) -> None:
        action = Action(ACCESS, Target(GROUP, RESOURCE, "", object_name, ""), "")
        required = requirement_for(claims.authorization_details, mine) or [Requirement("kube-stepup", RESOURCE)]
        for requirement in required:
            problem = check(claims, requirement, action, requester.user, self._expected, self._clock())
            if problem is not None:
                raise step_up_required(object_name, problem.message)
        elevation = await self._own(requester, claims.jti)
        if elevation is None or (elevation.get("status") or {}).get("phase") != "Granted":
            raise step_up_required(object_name, "that step-up was used already, or revoked")
        try:
            await self._store.set_status(elevation, {"phase": "Used"})
        except ConflictError as error:
            raise step_up_required(object_name, "that step-up was used or revoked meanwhile") from error

    async def _own(self, requester: Requester, name: str) -> JSON | None:
        elevation = await self._store.read(name)
        if elevation is None or elevation["spec"]["user"]["username"] != requester.username:
            return None
        return elevation

    def _verifier(self) -> Verifier:
        found = Verifier()
        for key in self._keys.published():
            found.put(key)
        return found


def step_up_required(object_name: str, why: str) -> RequestError:
    """A refusal for want of a step-up, with the line to run."""
    text = "this needs a step-up with a factor that you have"
    how = f"kubectl elevate access {RESOURCE}.{GROUP}/{object_name}"
    text = f"{text}: {why}. Run: {how}" if why else f"{text}. Run: {how}"
    return RequestError(text, code="step-up-required", status=403, reason="Forbidden")
