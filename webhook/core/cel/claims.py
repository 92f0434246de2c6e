"""Conditions on the verified claims of a pipeline's token, in the same CEL, with ``claims`` as the one variable.

Unlike a rule's own conditions these let somebody through, so one that cannot be evaluated is false.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from webhook.core.cel.condition import MAX_CONDITIONS, evaluator
from webhook.core.cel.engine import checked
from webhook.core.cel.scope import Scope, Step
from webhook.core.cel.values import CelError, CelLimitError
from webhook.errors import PolicyError

ROOTS: Final = ("claims",)


class ClaimConditions:
    """Expressions that must all be true of a token's claims.

    Args:
        field: the entry that they belong to, such as ``spec.rules[0].workloads[0]``.

    Raises:
        PolicyError: one of them cannot be used.
    """

    def __init__(self, expressions: Iterable[str], field: str) -> None:
        steps: list[Step] = []
        for position, expression in enumerate(expressions):
            where = f"{field}.conditions[{position}].expression"
            node, _ = checked(expression, where, {}, boolean=True, roots=ROOTS)
            steps.append(evaluator(node, where))
        if len(steps) > MAX_CONDITIONS:
            raise PolicyError(f"must have at most {MAX_CONDITIONS} entries", field=f"{field}.conditions")
        self._steps = tuple(steps)

    def hold(self, claims: Mapping[str, Any]) -> bool:
        """Whether every condition is true. One that cannot be evaluated (a claim is missing) is not."""
        scope = Scope({"claims": dict(claims)}.__getitem__)
        try:
            return all(step(scope) is True for step in self._steps)
        except (CelError, CelLimitError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            return False
