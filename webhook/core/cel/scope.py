"""Variables and costs of one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from webhook.core.cel.values import CelError, CelLimitError

MAX_COST: Final = 100_000
"""Nodes evaluated and pieces read for one request, by all conditions together: some 20 ms at most."""


class Scope(dict[str, Any]):
    """Variables while an expression is evaluated; those of the request are fetched when they are first read.

    Args:
        load: gives a variable by its name; raises CelError when it is not known.
        cost: what the request has cost already.
    """

    __slots__ = ("_load", "cost")

    def __init__(self, load: Callable[[str], Any], cost: int = 0) -> None:
        super().__init__()
        self._load = load
        self.cost = cost

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._load(name)
        return value

    def spend(self, cost: int) -> None:
        """Count a cost.

        Raises:
            CelLimitError: that is too much.
        """
        self.cost += cost
        if self.cost > MAX_COST:
            raise CelLimitError("it costs too much to evaluate")


Step: TypeAlias = Callable[[Scope], Any]
"""What a node of a tree becomes."""


class Failed:
    """An error that waits in an accumulator until it is read."""

    __slots__ = ("error",)

    def __init__(self, error: CelError) -> None:
        self.error = error
