"""What proof is asked for, and how several demands are shown to a person as one challenge.

Each policy's requirement must be met by itself. Merging is for the screen alone: two reason patterns have no strictest.
Terms: NIST SP 800-63B (assurance), RFC 9470 (``acr_values``, ``max_age``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from webhook.core.approvals import ApprovalRule, rule_name
from webhook.core.durations import format_seconds
from webhook.core.workloads import Workloads

ASSURANCES: Final = ("aal1", "aal2", "aal3")  # NIST SP 800-63B-4 section 2, weakest first
USES: Final = ("Once", "Window")
SCOPES: Final = ("Object", "Resource", "Namespace")  # narrowest first
BINDINGS: Final = ("Credential", "Session", "User")


class Requirement(msgspec.Struct, frozen=True):
    """The proof that one rule of one policy asks for.

    Args:
        phishing_resistant: only a factor that no false page can relay will do (NIST SP 800-63B-4 section 3.2.5).
        bind: empty means: to the credential where there is one.
        reason_matches: compiled ``reason_pattern``; None when any reason will do.
        approvals: what others must agree to; None when nobody need.
        hold_seconds: how long a refused request is told to wait for a step-up that is under way; 0 not at all.
        workloads: pipelines that meet it in place of a person; None when a person must.
    """

    policy: str
    rule: str
    assurance: str = "aal2"
    phishing_resistant: bool = False
    max_age_seconds: int = 300
    use: str = "Once"
    scope: str = "Object"
    bind: str = ""
    reason_required: bool = False
    reason_pattern: str = ""
    reason_matches: Callable[[str], bool] | None = None
    approvals: ApprovalRule | None = None
    hold_seconds: int = 0
    workloads: Workloads | None = None

    @property
    def full_name(self) -> str:
        """``policy/rule``, as approvals name it."""
        return rule_name(self.policy, self.rule)

    @property
    def strength(self) -> tuple[int, bool, int]:
        """For comparison: how much proof it asks for, by assurance, then phishing resistance, then age."""
        return ASSURANCES.index(self.assurance), self.phishing_resistant, -self.max_age_seconds


class Challenge(msgspec.Struct, frozen=True, rename="camel"):
    """Several requirements as one thing to ask a person for."""

    assurance: str
    phishing_resistant: bool
    max_age_seconds: int
    use: str
    scope: str
    reason_required: bool
    reason_patterns: tuple[str, ...]
    policies: tuple[str, ...]
    approvals: tuple[ApprovalRule, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form: RFC 9470's ``acr_values`` and ``max_age``, and what they do not have a word for."""
        found: dict[str, Any] = {
            "acr_values": self.assurance,
            **({"phishingResistant": True} if self.phishing_resistant else {}),
            "max_age": self.max_age_seconds,
            "use": self.use,
            "scope": self.scope,
            "reason": {"required": self.reason_required, "patterns": list(self.reason_patterns)},
            "policies": list(self.policies),
        }
        return {**found, "approvals": [one.to_dict() for one in self.approvals]} if self.approvals else found

    def describe(self) -> str:
        """For people: ``aal2, at most 5m old, policy production``."""
        policies = ("policy " if len(self.policies) == 1 else "policies ") + ", ".join(self.policies)
        parts = [self.assurance, *(["phishing-resistant"] if self.phishing_resistant else [])]
        parts.append(f"at most {format_seconds(self.max_age_seconds)} old")
        return ", ".join([*parts, *(one.describe() for one in self.approvals), policies])


def merged(requirements: Iterable[Requirement]) -> Challenge:
    """The one challenge whose answer has a chance with all of them.

    Raises:
        ValueError: there are none.
    """
    demands = list(requirements)
    if not demands:
        raise ValueError("nothing is required")
    return Challenge(
        assurance=max((one.assurance for one in demands), key=ASSURANCES.index),
        phishing_resistant=any(one.phishing_resistant for one in demands),
        max_age_seconds=min(one.max_age_seconds for one in demands),
        use=min((one.use for one in demands), key=USES.index),
        scope=min((one.scope for one in demands), key=SCOPES.index),
        reason_required=any(one.reason_required for one in demands),
        reason_patterns=tuple(dict.fromkeys(one.reason_pattern for one in demands if one.reason_pattern)),
        policies=tuple(sorted({one.policy for one in demands})),
        approvals=_shown(one.approvals for one in demands if one.approvals is not None),
    )


def _shown(rules: Iterable[ApprovalRule]) -> tuple[ApprovalRule, ...]:
    """Each set of groups once, with the highest number."""
    found: dict[tuple[str, ...], ApprovalRule] = {}
    for one in rules:
        before = found.get(one.groups)
        if before is None or before.count < one.count:
            found[one.groups] = one
    return tuple(found.values())
