"""Pipelines that meet a rule without a person (``workloads`` of a rule): by an identity that somebody else has proven.

Who may, is judged once, when the pipeline's token is exchanged (RFC 8693). The assertion that comes of it names the rules
that took it, each with a digest of what the rule said of workloads: a rule that has changed since takes it no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from webhook.core.cel.claims import ClaimConditions
from webhook.core.selectors import any_glob

ACR: Final = "workload"  # no assurance of NIST SP 800-63B: nobody has been authenticated
AMR: Final[tuple[str, ...]] = ("workload",)  # RFC 8176 has no value for it
CLUSTER: Final = "urn:kube-stepup:service-account"
"""Stands for the issuer where the token is a service account's own, which the API server has verified."""
DIGEST_HEX_DIGITS: Final = 16


class WorkloadIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline whose token has been verified.

    Args:
        issuer: ``CLUSTER`` for a service account's own token.
        subject: ``sub`` of the token, or the username.
        claims: all that the token says, as JSON.
        service_account: ``namespace/name``, only for a service account's own token that is bound to a pod.
    """

    issuer: str
    subject: str
    claims: Mapping[str, Any]
    service_account: str = ""

    @property
    def audiences(self) -> tuple[str, ...]:
        """``aud`` of the token (RFC 7519 section 4.1.3: one, or several)."""
        found = self.claims.get("aud", ())
        return (found,) if isinstance(found, str) else tuple(found)


class WorkloadClaims(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an assertion says of the pipeline that it was minted for.

    Args:
        claims: those of the token's claims that are worth a record.
        met: keys of the rules that took the token (:attr:`Workloads.key`).
    """

    issuer: str
    subject: str
    met: tuple[str, ...]
    claims: dict[str, str] = {}


class Workloads:
    """The compiled ``workloads`` of one rule.

    Args:
        specs: entries as they are written (``policy_spec.WorkloadSpec``).
        field: the rule, such as ``spec.rules[0]``.

    Raises:
        PolicyError: a condition cannot be used.
    """

    def __init__(self, specs: Sequence[Any], policy: str, rule: str, field: str) -> None:
        self._entries = tuple(_Entry(one, f"{field}.workloads[{n}]") for n, one in enumerate(specs))
        text = msgspec.json.encode([msgspec.to_builtins(one) for one in specs])
        self.key = f"{policy}/{rule}#{hashlib.sha256(text).hexdigest()[:DIGEST_HEX_DIGITS]}"
        """Policy, rule, and what it says of workloads, as an assertion names it."""

    def accept(self, identity: WorkloadIdentity) -> bool:
        """Whether one of the entries takes this pipeline."""
        return any(one.accepts(identity) for one in self._entries)


class _Entry:
    def __init__(self, spec: Any, field: str) -> None:
        self._issuer = spec.issuer
        self._audience = spec.audience
        self._accounts = any_glob(spec.service_accounts)
        self._conditions = ClaimConditions((one.expression for one in spec.conditions), field)

    def accepts(self, identity: WorkloadIdentity) -> bool:
        if self._issuer:
            known = identity.issuer == self._issuer and not identity.service_account
            known = known and (not self._audience or self._audience in identity.audiences)
        else:
            known = identity.issuer == CLUSTER and bool(identity.service_account)
            known = known and self._accounts(identity.service_account)
        return known and self._conditions.hold(identity.claims)
