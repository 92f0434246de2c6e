"""Mints assertions: the one place that signs (RFC 7519; the claims are described in ``core/assertion.py``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import jwt
import msgspec

from webhook.adapters.signing_keys import SigningKeys
from webhook.core.approvals import Approval
from webhook.core.assertion import DETAIL_TYPE, MAX_TOKEN_BYTES, TOKEN_TYPE, AuthorizationDetail
from webhook.core.requirement import Requirement
from webhook.core.workloads import WorkloadClaims
from webhook.elevation.factors import Strength
from webhook.errors import RequestError

APPROVER_LETTERS: Final = 160  # two names and a time
OTHER_LETTERS: Final = 512  # header, signature, name, times and factor: some 400 letters, whatever is asked for


class Minted(msgspec.Struct, frozen=True):
    """An assertion and when it was authenticated, and expires (seconds since the epoch)."""

    token: str
    auth_time: int
    expires_at: int
    acr: str
    amr: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Minted(expires_at={self.expires_at})"


class Mint:
    """Signs what the elevation service has established.

    Args:
        max_lifetime_seconds: the longest life of an assertion, whatever policies allow.
    """

    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str, max_lifetime_seconds: int) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self.max_lifetime_seconds = max_lifetime_seconds

    def check_size(self, spec: dict[str, Any], requirements: Iterable[Requirement] = ()) -> None:
        """Refuse what could not be signed, before anybody spends a code on it, or an approval.

        Raises:
            RequestError: ``too-many-targets``.
        """
        claims = self._claims(spec, "", "", (), 0, 0)
        letters = len(json.dumps(claims, separators=(",", ":"))) * 4 / 3  # as PyJWT writes them, in base64
        if letters + OTHER_LETTERS + _approval_letters(requirements) > MAX_TOKEN_BYTES:
            raise _too_large()

    def sign(
        self,
        elevation: dict[str, Any],
        proof: Strength,
        requirements: list[Requirement],
        now: float,
        *,
        authenticated_at: float | None = None,
        approvals: Sequence[Approval] = (),
    ) -> Minted:
        """The assertion of an Elevation whose person was authenticated as strongly as ``proof`` says: just now, unless it is said when.

        It lives as long as the most patient of the policies that asked would accept it, and never longer than the setting.

        Raises:
            RequestError: ``too-many-targets``: it would be larger than any carrier takes.
        """
        lifetime = max((one.max_age_seconds for one in requirements), default=0)
        at, seconds = (
            int(now if authenticated_at is None else authenticated_at),
            min(lifetime, self.max_lifetime_seconds),
        )
        claims = self._claims(elevation["spec"], elevation["metadata"]["name"], proof.acr, proof.amr, at, seconds)
        claims["iat"] = claims["nbf"] = int(now)
        if proof.phishing_resistant:
            claims["phishing_resistant"] = True
        if approvals:
            claims["approvals"] = [msgspec.to_builtins(one) for one in approvals]
        signer = self._keys.signer()
        headers = {"kid": signer.kid, "typ": TOKEN_TYPE}
        token = jwt.encode(claims, signer.private_key, algorithm=signer.algorithm, headers=headers)
        if len(token) > MAX_TOKEN_BYTES:
            raise _too_large()
        return Minted(token, at, at + seconds, proof.acr, proof.amr)

    def _claims(
        self, spec: dict[str, Any], name: str, acr: str, amr: tuple[str, ...], at: int, seconds: int
    ) -> dict[str, Any]:
        confirmation = {
            key: value
            for key, value in (("credential_id", spec.get("credentialID")), ("session_id", spec.get("sessionID")))
            if value
        }
        return {
            "iss": self._issuer,
            "aud": [self._audience],
            "sub": spec["user"]["username"],
            "iat": at,
            "nbf": at,
            "exp": at + seconds,
            "jti": name,
            "auth_time": at,
            "acr": acr,
            "amr": list(amr),
            "authorization_details": [_claim(detail) for detail in spec["details"]],
            **({"cnf": confirmation} if confirmation else {}),
            **({"reason": spec["reason"]} if spec.get("reason") else {}),
            **({"workload": _workload(spec["workload"])} if spec.get("workload") else {}),
        }


def _workload(recorded: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(msgspec.convert(recorded, WorkloadClaims))
    return found


def _approval_letters(requirements: Iterable[Requirement]) -> float:
    """What the approvals will add, with names of usual length."""
    asking = [one for one in requirements if one.approvals is not None]
    rules = sum(len(one.full_name) + 3 for one in asking)
    groups = sum(len(group) + 3 for one in asking if one.approvals for group in one.approvals.groups)
    count = sum(one.approvals.count for one in asking if one.approvals)
    return count * (rules + groups + APPROVER_LETTERS) * 4 / 3


def _too_large() -> RequestError:
    text = "these are too many targets, or too long a reason, for one step-up; name fewer"
    return RequestError(text, code="too-many-targets", field="spec.details", status=422, reason="Invalid")


def _claim(detail: dict[str, Any]) -> dict[str, Any]:
    typed = msgspec.convert({**detail, "type": DETAIL_TYPE}, AuthorizationDetail)
    found: dict[str, Any] = msgspec.to_builtins(typed)
    return found
