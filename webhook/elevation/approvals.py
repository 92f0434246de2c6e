"""Approvals: who may see a waiting request, approve it with a proof of their own, or deny it.

RBAC says who may call this at all; which group a policy wants is checked here, as is that the approver is somebody else. The
browser page calls the same functions: ``approve`` with a code, ``record`` when it has the approver's proof by other means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from webhook.adapters.authenticator_store import AuthenticatorStore
from webhook.adapters.elevation_store import ElevationStore
from webhook.core.approvals import Approval
from webhook.core.assertion import AuthorizationDetail
from webhook.core.request import CREDENTIAL_ID, UserInfo
from webhook.core.requirement import ASSURANCES, Requirement, merged
from webhook.elevation.approval_notices import ApprovalNotices
from webhook.elevation.approval_views import approval_request, seen
from webhook.elevation.approvers import USERNAME, check_factor_age, check_person, person_of, refusal
from webhook.elevation.attempts import Attempts
from webhook.elevation.bodies import ApprovalAnswer, Denial, check_reason, invalid
from webhook.elevation.factors import CodeFactor, Factor, WrongAnswerError
from webhook.elevation.granting import Granting, Missing, changed_meanwhile, missing
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import AWAITING, Lifecycle, rfc3339
from webhook.elevation.minting import Minted
from webhook.elevation.needs import Needs
from webhook.elevation.resources import GROUP_VERSION
from webhook.elevation.seals import Seals, credential_hash
from webhook.elevation.views import audit_elevation, not_found, refused_answer
from webhook.errors import ConflictError, RequestError, StepUpError, StoreUnavailableError
from webhook.settings import ApprovalSettings

SWAP_ATTEMPTS: Final = 5

JSON = dict[str, Any]


class Approvals:
    """The service behind ``approvalrequests`` and ``elevationrequests/approve`` and ``/deny``.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        people: AuthenticatorStore,
        factors: dict[str, Factor],
        attempts: Attempts,
        needs: Needs,
        lifecycle: Lifecycle,
        granting: Granting,
        seals: Seals,
        settings: ApprovalSettings,
        notices: ApprovalNotices,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._people = people
        self._factors = factors
        self._attempts = attempts
        self._needs = needs
        self._lifecycle = lifecycle
        self._granting = granting
        self._seals = seals
        self._settings = settings
        self._notices = notices
        self._clock = clock

    async def all_open(self, approver: Requester) -> list[JSON]:
        """The waiting requests that this person could approve, oldest first."""
        found = []
        for elevation in await self._store.awaiting_approval():
            try:
                requirements, rules = self._asked_of(approver, elevation)
            except RequestError:
                continue
            found.append(approval_request(elevation, AWAITING, requirements, rules))
        return found

    async def get(self, approver: Requester, name: str) -> JSON:
        """One waiting request, exactly.

        Raises:
            RequestError: there is none, it waits no more, or it is not this person's to approve.
        """
        elevation = await self._read(name)
        requirements, rules = self._asked_of(approver, elevation)
        return approval_request(elevation, AWAITING, requirements, rules)

    async def approve(self, approver: Requester, name: str, given: ApprovalAnswer) -> JSON:
        """Approve with a proof of one's own. Everything is checked before a code is spent.

        A wrong answer is a result, not an error, so that a program sees why.

        Raises:
            RequestError: this person cannot approve it, it waits no more, or it is not what they were shown.
        """
        check_reason(given.reason)
        elevation = await self._read(name)
        factor = self._factors.get(given.factor)
        if not isinstance(factor, CodeFactor):
            codes = (name for name, one in self._factors.items() if isinstance(one, CodeFactor))
            raise invalid("spec.factor", f"must be one of {', '.join(codes)}")
        try:
            await self._check(approver, elevation, factor, given.seen)
        except RequestError as error:
            self._audit("approval-refused", approver, elevation, outcome="refused", code=error.code, factor=factor.name)
            raise
        try:
            await self._attempts.check(approver, factor, given.code, self._clock())
        except (WrongAnswerError, RequestError) as error:
            self._audit("approval-refused", approver, elevation, outcome="refused", code=error.code, factor=factor.name)
            return _result(name, refused_answer(error))
        return await self.record(approver, name, factor, given.seen, given.reason)

    async def record(self, approver: Requester, name: str, factor: CodeFactor, shown: str, reason: str = "") -> JSON:
        """Note the approval of somebody who has just proven who they are; the last one grants.

        Args:
            shown: ``status.seen`` of what the approver was shown.

        Raises:
            RequestError: as for ``approve``; also when somebody withdrew or denied it meanwhile.
        """
        for _ in range(SWAP_ATTEMPTS):
            elevation = await self._read(name)
            requirements = await self._check(approver, elevation, factor, shown)
            try:
                outcome = await self._write(approver, elevation, factor, requirements, reason)
            except ConflictError:
                continue
            return self._approved(approver, elevation, factor, outcome, reason)
        raise StoreUnavailableError("the elevation keeps changing")

    async def deny(self, approver: Requester, name: str, given: Denial) -> JSON:
        """Refuse a waiting request for good. It takes no code: saying no grants nothing.

        Raises:
            RequestError: it is not this person's to approve, or it waits no more.
        """
        check_reason(given.reason)
        elevation = await self._read(name)
        self._asked_of(approver, elevation)
        status = {
            "phase": "Denied",
            "deniedBy": approver.username,
            "deniedAt": rfc3339(self._clock()),
            "message": given.reason,
        }
        try:
            await self._store.set_status(elevation, status)
        except ConflictError as error:
            raise changed_meanwhile() from error
        self._audit("approval-denied", approver, elevation, outcome="denied", why=given.reason)
        self._notices.denied(elevation, approver, given.reason)
        return _result(name, {"accepted": True, "phase": "Denied"}, "ApprovalDenial")

    async def _read(self, name: str) -> JSON:
        elevation = await self._store.read(name)
        if elevation is None:
            raise not_found(name)
        return elevation

    def _asked_of(self, approver: Requester, elevation: JSON) -> tuple[list[Requirement], list[Missing]]:
        """What the request has to meet, and each rule's approvals so far.

        Raises:
            RequestError: it waits no more, or this person cannot be one of its approvers.
        """
        phase = self._lifecycle.phase(elevation, self._clock())
        if phase != AWAITING:
            raise _waits_no_more(phase)
        check_person(approver, elevation, self._settings.person_key)
        requirements = self._requirements(elevation)
        rules = missing(requirements, self._granting.approvals_of(elevation), elevation)
        if not any(one.requirement.approvals.fits(approver.user.groups) for one in rules if one.requirement.approvals):
            groups = " and ".join(one.describe() for one in merged(requirements).approvals) if requirements else "none"
            raise refusal(f"this needs {groups}; you are in none of these groups", "not-an-approver")
        return requirements, rules

    def _requirements(self, elevation: JSON) -> list[Requirement]:
        spec = elevation["spec"]
        credential: dict[str, tuple[str, ...]] = (
            {CREDENTIAL_ID: (spec["credentialID"],)} if spec.get("credentialID") else {}
        )
        asked = spec["user"]
        user = UserInfo(
            username=asked["username"], uid=asked.get("uid", ""), groups=tuple(asked["groups"]), extra=credential
        )
        return self._needs.of(user, msgspec.convert(spec["details"], list[AuthorizationDetail]))

    async def _check(self, approver: Requester, elevation: JSON, factor: CodeFactor, shown: str) -> list[Requirement]:
        """All that can be wrong with an approver but the proof; what the request has to meet when nothing is.

        Raises:
            RequestError: naming what it is.
        """
        requirements, rules = self._asked_of(approver, elevation)
        if shown != seen(elevation, requirements):
            text = "this is not what you were shown, or a policy has changed since; look at it again"
            raise RequestError(text, code="changed-since-shown", field="spec.seen", status=409, reason="Conflict")
        self._check_new(approver, elevation, rules)
        needed = merged(requirements).assurance
        if ASSURANCES.index(factor.acr) < ASSURANCES.index(needed):
            raise refusal(
                f"this needs an approver's proof of {needed}; {factor.name} is {factor.acr}", "assurance-too-low"
            )
        record = await self._people.read(approver.username)
        check_factor_age(record, factor.name, self._clock(), self._settings.min_factor_age_seconds)
        return requirements

    def _check_new(self, approver: Requester, elevation: JSON, rules: list[Missing]) -> None:
        """Each person once, whichever of their names and credentials they come with; and only where one is missing."""
        mine = self._approval(approver, ()).identity
        credential = credential_hash(approver.credential_id)
        for one in self._seals.approvals_of(elevation):
            same = one.approval.by.casefold() == approver.username.casefold() or one.approval.identity == mine
            if same or one.credential == credential:
                raise RequestError(
                    "you have approved this already", code="already-approved", status=409, reason="Conflict"
                )
        groups = approver.user.groups
        wanted = (one for one in rules if not one.is_complete and one.requirement.approvals)
        if not any(one.requirement.approvals and one.requirement.approvals.fits(groups) for one in wanted):
            raise refusal("what is missing are approvals of other groups than yours", "not-an-approver")

    async def _write(
        self, approver: Requester, elevation: JSON, factor: CodeFactor, requirements: list[Requirement], reason: str
    ) -> Minted | str:
        asking = [one for one in requirements if one.approvals and one.approvals.fits(approver.user.groups)]
        approval = self._approval(approver, asking)
        entry = {
            "by": approval.by,
            "at": rfc3339(approval.at),
            "factor": factor.name,
            "reason": reason,
            "sealed": self._seals.of_approval(elevation, approval, approver.credential_id),
        }
        entries = [*(elevation["status"].get("approvals") or []), entry]
        return await self._granting.approved(elevation, requirements, entries, self._clock())

    def _approval(self, approver: Requester, asking: list[Requirement] | tuple[()]) -> Approval:
        matching = [group for one in asking if one.approvals for group in one.approvals.matching(approver.user.groups)]
        person = person_of(approver.user, self._settings.person_key)
        return Approval(
            by=approver.username,
            at=int(self._clock()),
            rules=tuple(one.full_name for one in asking),
            groups=tuple(dict.fromkeys(matching)),
            person="" if self._settings.person_key == USERNAME else person,
        )

    def _approved(
        self, approver: Requester, elevation: JSON, factor: CodeFactor, outcome: Minted | str, reason: str
    ) -> JSON:
        phase = outcome if isinstance(outcome, str) else "Granted"
        self._audit("approval-given", approver, elevation, outcome=phase, factor=factor.name, why=reason)
        if isinstance(outcome, Minted):
            audit_elevation(
                "elevation-granted",
                _requester_of(elevation),
                elevation,
                outcome="granted",
                factor=elevation["status"].get("factor", ""),
                acr=outcome.acr,
                expires_at=rfc3339(outcome.expires_at),
                approvers=[one["by"] for one in elevation["status"].get("approvals") or []] + [approver.username],
            )
        self._notices.given(elevation, approver, phase)
        return _result(elevation["metadata"]["name"], {"accepted": True, "phase": phase})

    @staticmethod
    def _audit(event: str, approver: Requester, elevation: JSON, **fields: Any) -> None:
        audit_elevation(event, approver, elevation, owner=elevation["spec"]["user"]["username"], **fields)


def _requester_of(elevation: JSON) -> Requester:
    spec = elevation["spec"]
    user = UserInfo(username=spec["user"]["username"], extra={CREDENTIAL_ID: (spec.get("credentialID", ""),)})
    return Requester(user, spec.get("clientAddress", ""), spec.get("userAgent", ""))


def _waits_no_more(phase: str) -> StepUpError:
    text = (
        "this request has lapsed" if phase == "Expired" else f"this request is {phase}; it does not wait for approval"
    )
    return RequestError(text, code="not-awaiting-approval", status=409, reason="Conflict")


def _result(name: str, status: JSON, kind: str = "Approval") -> JSON:
    return {"apiVersion": GROUP_VERSION, "kind": kind, "metadata": {"name": name}, "status": status}
