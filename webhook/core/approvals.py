"""Approvals (four eyes): what a rule asks of others than the requester, and whether the approvals at hand are that.

Each rule's demand stays a demand of its own: two groups of approvers have no strictest. Who may be an approver at all (a
person with a factor of their own, never the requester) is established by the elevation service and signed into the
assertion; what is counted here are distinct people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from webhook.core.selectors import any_glob

MIN_COUNT: Final = 1
MAX_COUNT: Final = 5
MAX_GROUPS: Final = 16


class ApprovalRule(msgspec.Struct, frozen=True):
    """How many others must agree, and of which groups (globs; none: any approver).

    Args:
        includes: whether a group is one of them.
    """

    count: int
    groups: tuple[str, ...]
    includes: Callable[[str], bool]

    @classmethod
    def of(cls, count: int, groups: Iterable[str] = ()) -> ApprovalRule:
        """Compile the groups."""
        names = tuple(groups)
        return cls(count, names, any_glob(names) if names else _anybody)

    def fits(self, groups: Iterable[str]) -> bool:
        """Whether somebody who is in these groups may approve."""
        return not self.groups or any(map(self.includes, groups))

    def matching(self, groups: Iterable[str]) -> list[str]:
        """Those of somebody's groups that make them an approver."""
        return [one for one in groups if self.groups and self.includes(one)]

    def describe(self) -> str:
        """For people: ``2 approvals of sre-leads``."""
        text = "1 approval" if self.count == 1 else f"{self.count} approvals"
        return f"{text} of {' or '.join(self.groups)}" if self.groups else text

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"count": self.count, "groups": list(self.groups)}


class Approval(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One approval, as an assertion carries it.

    Args:
        by: username of the approver.
        at: seconds since the epoch.
        rules: ``policy/rule`` of each demand that the approver was shown.
        groups: the approver's groups that those demands name.
        person: who that is behind the name, where the cluster can tell; the name itself when empty.
    """

    by: str
    at: int
    rules: tuple[str, ...]
    groups: tuple[str, ...] = ()
    person: str = ""

    @property
    def identity(self) -> str:
        """What two approvals of one person have in common."""
        return (self.person or self.by).casefold()


def rule_name(policy: str, rule: str) -> str:
    """``policy/rule``, as approvals name a demand; neither half has a slash."""
    return f"{policy}/{rule}"


def approvers(approvals: Iterable[Approval], rule: ApprovalRule, name: str, requester: str) -> list[str]:
    """Names of the distinct people who approve what one rule asks for; the requester is never one of them."""
    found: dict[str, str] = {}
    for one in approvals:
        if one.by.casefold() != requester.casefold() and name in one.rules and rule.fits(one.groups):
            found.setdefault(one.identity, one.by)
    found.pop(requester.casefold(), None)
    return list(found.values())


def _anybody(_: str) -> bool:
    return True
