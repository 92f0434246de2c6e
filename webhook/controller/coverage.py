"""Where policies can match now, and so where the API server must ask us. Pure: no Kubernetes client, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from webhook.core.selectors import Labels

# cel-go refuses an expression of more than 100,000 code points (ExpressionSizeCodePointLimit); the names share theirs
# with a few hundred letters around them.
MAX_NAMES_LETTERS: Final = 90_000
_QUOTES_LETTERS: Final = 4


class Scoped(Protocol):
    """What a policy must tell of itself."""

    enforcement: str

    @property
    def can_match_cluster_scoped(self) -> bool:
        """Whether it has no condition on namespaces: then it matches all of them, and what has none."""
        ...

    @property
    def taken_along(self) -> frozenset[str]:
        """Cluster-scoped kinds (``core/nodes``) whose end takes something along that it is about."""
        ...

    def can_match_namespace(self, name: str, labels: Labels | None) -> bool:
        """Whether objects of this namespace can be matched."""
        ...


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the cluster: namespaces by name or all of them, and what is in no namespace.

    ``kinds`` are cluster-scoped kinds whose end takes along what is in those namespaces.
    """

    namespaces: frozenset[str] = frozenset()
    every_namespace: bool = False
    cluster_scoped: bool = False
    kinds: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it."""
        return not (self.namespaces or self.every_namespace or self.cluster_scoped or self.kinds)

    def contains(self, other: Area) -> bool:
        """Whether all of another area is in this one."""
        return (self.every_namespace or (other.namespaces <= self.namespaces and not other.every_namespace)) and (
            self.cluster_scoped or not (other.cluster_scoped or other.kinds - self.kinds)
        )

    def union(self, other: Area) -> Area:
        """Both areas; names are dropped where all namespaces are in it."""
        every = self.every_namespace or other.every_namespace
        names = frozenset() if every else self.namespaces | other.namespaces
        scoped = self.cluster_scoped or other.cluster_scoped
        return Area(names, every, scoped, frozenset() if scoped else self.kinds | other.kinds)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the API server must ask us about.

    Args:
        guarded: where a policy that denies can match: when we cannot be asked, the request fails.
        matched: where any policy can match, those that only warn or record included.
    """

    guarded: Area = Area()
    matched: Area = Area()

    def contains(self, other: Coverage) -> bool:
        """Whether nothing of another coverage is lost with this one."""
        return self.guarded.contains(other.guarded) and self.matched.contains(other.matched)

    def union(self, other: Coverage, max_namespaces: int) -> Coverage:
        """Both coverages, still within the limit."""
        return Coverage(
            _limited(self.guarded.union(other.guarded), max_namespaces),
            _limited(self.matched.union(other.matched), max_namespaces),
        )


def coverage_of(
    policies: Iterable[Scoped],
    namespaces: Mapping[str, Labels],
    *,
    excluded_namespaces: Iterable[str],
    max_namespaces: int,
) -> Coverage:
    """Where these policies can match among these namespaces.

    Policies that only warn or record never stop a request, so they do not fail it either when we are away: their
    namespaces are in ``matched`` alone. Excluded namespaces are never guarded.

    Args:
        max_namespaces: with more names than this, all namespaces are guarded.
    """
    known = list(policies)
    excluded = frozenset(excluded_namespaces)
    denying = [policy for policy in known if policy.enforcement == "Deny"]
    guarded = _area(denying, {name: labels for name, labels in namespaces.items() if name not in excluded})
    return Coverage(_limited(guarded, max_namespaces), _limited(_area(known, namespaces), max_namespaces))


def area_of(policy: Scoped, namespaces: Mapping[str, Labels]) -> Area:
    """Where one policy can match."""
    return _area([policy], namespaces)


class Narrowing:
    """Widens at once and narrows late.

    A namespace that has just lost its label is still asked about while our replicas, and requests on their way, may
    not know of it.

    Args:
        delay_seconds: how long a narrower coverage must have been wanted before it is taken.
    """

    def __init__(self, delay_seconds: float, max_namespaces: int) -> None:
        self._delay_seconds = delay_seconds
        self._max_namespaces = max_namespaces
        self._current: Coverage | None = None
        self._narrower_since: float | None = None

    def next(self, wanted: Coverage, now_seconds: float) -> Coverage:
        """The coverage to apply now.

        Args:
            now_seconds: of a clock that only goes forward.
        """
        current = self._current
        if current is None or wanted.contains(current):
            self._narrower_since = None
            self._current = wanted
            return wanted
        if self._narrower_since is None or not current.contains(wanted):
            self._narrower_since = now_seconds
        if now_seconds - self._narrower_since >= self._delay_seconds:
            self._narrower_since = None
            self._current = wanted
            return wanted
        self._current = current.union(wanted, self._max_namespaces)
        return self._current


def _area(policies: list[Scoped], namespaces: Mapping[str, Labels]) -> Area:
    if any(policy.can_match_cluster_scoped for policy in policies):
        return Area(every_namespace=True, cluster_scoped=True)
    names: set[str] = set()
    kinds: frozenset[str] = frozenset()
    for policy in policies:
        found = {name for name, labels in namespaces.items() if policy.can_match_namespace(name, labels)}
        if found:  # a policy that is about nothing now loses nothing
            names |= found
            kinds |= policy.taken_along
    return Area(namespaces=frozenset(names), kinds=kinds)


def _limited(area: Area, max_namespaces: int) -> Area:
    letters = sum(len(name) + _QUOTES_LETTERS for name in area.namespaces)
    if len(area.namespaces) <= max_namespaces and letters <= MAX_NAMES_LETTERS:
        return area
    return Area(every_namespace=True, cluster_scoped=area.cluster_scoped, kinds=area.kinds)
