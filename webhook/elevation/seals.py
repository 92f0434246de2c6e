"""What has to stay true while a request waits: the requester's proof and the approvals, sealed into its record.

Records can be written by others than us (admission notes uses in them). What an assertion is signed on must not be, so that
each entry is encrypted with our own key and bound to the very record: name, uid and all that was asked for.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
import structlog

from webhook.adapters.envelope import Envelope, UnsealError
from webhook.core.approvals import Approval
from webhook.core.operation import digest
from webhook.elevation.factors import Proof

PROOF: Final = "elevation-proof"
APPROVAL: Final = "elevation-approval"

log = structlog.get_logger("elevation")
JSON = dict[str, Any]


class SealedApproval(msgspec.Struct, frozen=True):
    """An approval and the credential that gave it, hashed."""

    approval: Approval
    credential: str


class Seals:
    """Seals and opens."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope

    def of_proof(self, elevation: JSON, proof: Proof) -> str:
        """A proof for a record."""
        return self._envelope.seal(msgspec.json.encode(proof), PROOF, *_context(elevation))

    def proof_of(self, elevation: JSON) -> Proof | None:
        """The proof in a record; None when there is none that we sealed."""
        sealed = (elevation.get("status") or {}).get("proof")
        return self._opened(elevation, sealed, PROOF, Proof) if sealed else None

    def of_approval(self, elevation: JSON, approval: Approval, credential_id: str) -> str:
        """An approval for a record."""
        sealed = SealedApproval(approval, credential_hash(credential_id))
        return self._envelope.seal(msgspec.json.encode(sealed), APPROVAL, *_context(elevation))

    def approvals_of(self, elevation: JSON) -> list[SealedApproval]:
        """The approvals in a record that we sealed; others are said and do not count."""
        entries = (elevation.get("status") or {}).get("approvals") or []
        found = [self._opened(elevation, one.get("sealed", ""), APPROVAL, SealedApproval) for one in entries]
        return [one for one in found if one is not None]

    def _opened(self, elevation: JSON, sealed: str, purpose: str, form: type[Any]) -> Any:
        try:
            return msgspec.json.decode(self._envelope.open(sealed, purpose, *_context(elevation)), type=form)
        except (UnsealError, msgspec.MsgspecError):
            log.warning("record-not-ours", code="unreadable-secret", elevation=elevation["metadata"]["name"])
            return None


def credential_hash(credential_id: str) -> str:
    """What a credential is compared by; the id itself is not kept."""
    return hashlib.sha256(credential_id.encode()).hexdigest()


def _context(elevation: JSON) -> tuple[str, ...]:
    metadata = elevation["metadata"]
    return metadata["name"], str(metadata.get("uid", "")), digest(elevation["spec"])
