"""From a proof to an assertion, with the approvals that policies ask for in between.

The requester proves who they are first. Where others must agree, nothing is signed until they have: the record waits as
``AwaitingApproval``. The clock of ``maxAge`` runs from the requester's own proof all the while (docs/adr/0011): if that
is too old when the last approval comes, the record is ``Approved`` and the requester answers once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from webhook.adapters.elevation_store import ElevationStore
from webhook.core.approvals import Approval, approvers
from webhook.core.requirement import Requirement, merged
from webhook.elevation.factors import Proof
from webhook.elevation.lifecycle import APPROVED, AWAITING, rfc3339
from webhook.elevation.minting import Mint, Minted
from webhook.elevation.seals import Seals
from webhook.errors import ConflictError, RequestError

MIN_LEFT_SECONDS: Final = 60
"""What must be left of the requester's proof when the last approval comes, or half of ``maxAge`` where that is less."""

JSON = dict[str, Any]


class Missing(msgspec.Struct, frozen=True):
    """One rule's approvals: who has given one, of how many."""

    requirement: Requirement
    given: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether enough have."""
        return self.requirement.approvals is None or len(self.given) >= self.requirement.approvals.count


class Granting:
    """Signs and records, or lets the record wait.

    Args:
        approval_seconds: how long a request waits for approval.
    """

    def __init__(self, store: ElevationStore, mint: Mint, seals: Seals, approval_seconds: int) -> None:
        self._store = store
        self._mint = mint
        self._seals = seals
        self._approval_seconds = approval_seconds

    async def proven(self, elevation: JSON, proof: Proof, requirements: list[Requirement], now: float) -> Minted | None:
        """The requester has just proven who they are: the assertion, or None when others have to agree first.

        Raises:
            RequestError: the record was answered or revoked meanwhile.
        """
        requirements = _bounded(elevation, requirements)
        approvals = self.approvals_of(elevation)
        if is_complete(requirements, approvals, elevation):
            return await self._grant(elevation, proof, requirements, approvals, now, {})
        before = elevation.get("status") or {}
        status = {
            "phase": AWAITING,
            "proof": self._seals.of_proof(elevation, proof),
            "factor": proof.factor,
            "requirement": merged(requirements).to_dict(),
            "expiresAt": before.get("expiresAt") or rfc3339(now + self._approval_seconds),
        }
        await self._write(elevation, status)
        return None

    async def approved(
        self, elevation: JSON, requirements: list[Requirement], entries: list[JSON], now: float
    ) -> Minted | str:
        """Another approval is to be recorded: the assertion when it was the last one and the proof is fresh, else the phase.

        Args:
            entries: all approvals of the record, the new one included.

        Raises:
            ConflictError: somebody changed the record first.
        """
        requirements = _bounded(elevation, requirements)
        with_entries = {**elevation, "status": {**elevation["status"], "approvals": entries}}
        approvals = self.approvals_of(with_entries)
        proof = self._seals.proof_of(elevation)
        if not is_complete(requirements, approvals, elevation):
            await self._store.set_status(elevation, {"approvals": entries})
            return AWAITING
        if proof is None or not self._is_fresh(proof, requirements, now):
            await self._store.set_status(elevation, {"phase": APPROVED, "approvals": entries})
            return APPROVED
        return await self._signed(elevation, proof, requirements, approvals, now, {"approvals": entries})

    def approvals_of(self, elevation: JSON) -> list[Approval]:
        """The approvals in a record that we recorded ourselves."""
        return [one.approval for one in self._seals.approvals_of(elevation)]

    def _is_fresh(self, proof: Proof, requirements: Sequence[Requirement], now: float) -> bool:
        shortest = min(self._mint.max_lifetime_seconds, *(one.max_age_seconds for one in requirements))
        return shortest - (now - proof.authenticated_at) >= min(MIN_LEFT_SECONDS, shortest / 2)

    async def _grant(self, elevation: JSON, *arguments: Any) -> Minted:
        try:
            return await self._signed(elevation, *arguments)
        except ConflictError as error:
            raise changed_meanwhile() from error

    async def _signed(
        self,
        elevation: JSON,
        proof: Proof,
        requirements: list[Requirement],
        approvals: Sequence[Approval],
        now: float,
        more: JSON,
    ) -> Minted:
        minted = self._mint.sign(
            elevation, proof, requirements, now, authenticated_at=proof.authenticated_at, approvals=approvals
        )
        status = {
            **more,
            "phase": "Granted",
            "factor": proof.factor,
            "acr": minted.acr,
            "amr": list(minted.amr),
            **({"phishingResistant": True} if proof.phishing_resistant else {}),
            "authTime": rfc3339(minted.auth_time),
            "issuedAt": rfc3339(now),
            "expiresAt": rfc3339(minted.expires_at),
            "requirement": merged(requirements).to_dict(),
            "assertion": minted.token,
            "uses": [],
        }
        await self._store.set_status(elevation, status)
        return minted

    async def _write(self, elevation: JSON, status: JSON) -> None:
        try:
            await self._store.set_status(elevation, status)
        except ConflictError as error:
            raise changed_meanwhile() from error


def _bounded(elevation: JSON, requirements: list[Requirement]) -> list[Requirement]:
    """A pipeline's assertion lives no longer than its record says, however patient the policies are."""
    longest = (elevation["spec"].get("workload") or {}).get("lifetimeSeconds")
    if longest is None:
        return requirements
    return [msgspec.structs.replace(one, max_age_seconds=min(one.max_age_seconds, longest)) for one in requirements]


def missing(requirements: Sequence[Requirement], approvals: Sequence[Approval], elevation: JSON) -> list[Missing]:
    """Each rule that asks for approvals, with who has given theirs."""
    requester = elevation["spec"]["user"]
    others = [one for one in approvals if one.identity != requester.get("person", requester["username"]).casefold()]
    return [
        Missing(one, tuple(approvers(others, one.approvals, one.full_name, requester["username"])))
        for one in requirements
        if one.approvals is not None
    ]


def is_complete(requirements: Sequence[Requirement], approvals: Sequence[Approval], elevation: JSON) -> bool:
    """Whether every rule has the approvals that it asks for."""
    return all(one.is_complete for one in missing(requirements, approvals, elevation))


def changed_meanwhile() -> RequestError:
    """The refusal when compare-and-swap was lost."""
    text = "this request was answered or revoked meanwhile; ask again"
    return RequestError(text, code="not-pending", status=409, reason="Conflict")
