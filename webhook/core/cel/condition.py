"""A rule's conditions and named expressions, compiled together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from webhook.core.cel.activation import Activation, Failure
from webhook.core.cel.ast import Node
from webhook.core.cel.engine import checked
from webhook.core.cel.fields import Tree, is_about_target, read_by
from webhook.core.cel.program import compiled
from webhook.core.cel.scope import Scope, Step
from webhook.core.cel.values import CelError, CelLimitError, UnsupportedExpressionError
from webhook.errors import PolicyError

MAX_CONDITIONS: Final = 16
MAX_VARIABLES: Final = 16
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_VARIABLE: Final = "variables."


class NamedExpression:
    """One of the rule's ``variables``: an expression that conditions read as ``variables.NAME``."""

    def __init__(self, name: str, node: Node, kind: Any, field: str) -> None:
        self.name = name
        self.node = node
        self.kind = kind
        self.step = evaluator(node, field)


class Condition:
    """An expression that is true or false of a request. Make one with :meth:`compile`."""

    def __init__(self, expression: str, field: str, node: Node, named: Mapping[str, NamedExpression]) -> None:
        self.expression = expression
        self.field = field
        self.node = node
        self._named = named
        self._step = evaluator(node, field)
        self.trees: Mapping[str, Tree] = read_by([node, *(one.node for one in named.values())])
        self._is_about_target = is_about_target(self.trees)

    @classmethod
    def compile(cls, expression: str, field: str, named: Mapping[str, NamedExpression] | None = None) -> Condition:
        """Compile an expression.

        Args:
            field: where it stands in the policy, such as ``spec.rules[0].conditions[1].expression``.
            named: the rule's variables.

        Raises:
            PolicyError: it cannot be used.
        """
        named = named or {}
        node, _ = checked(expression, field, {name: one.kind for name, one in named.items()}, boolean=True)
        return cls(expression, field, node, named)

    def holds(self, activation: Activation, policy: str = "") -> bool:
        """Whether the condition is true. One that cannot be evaluated counts as true, and is noted in the facts' failures."""
        return self.holds_in(self.scope(activation), activation, policy)

    def scope(self, activation: Activation) -> Scope:
        """The variables of an evaluation."""
        return scope_for(activation, self._named, self.trees)

    def holds_in(self, scope: Scope, activation: Activation, policy: str = "") -> bool:
        """The same, with variables that other conditions of the rule have worked out already."""
        if self._is_about_target and activation.is_cascade:
            return True  # a Namespace takes objects with it of which the condition may be true
        try:
            value = self._step(scope)
        except (CelError, CelLimitError) as error:
            problem = str(error)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            # Nothing should come here; whatever does, the rule applies rather than that the decision fails.
            problem = f"{type(error).__name__} while evaluating"
        else:
            if type(value) is bool:
                return value
            problem = "it is neither true nor false"
        finally:
            activation.facts.cost = scope.cost
        activation.facts.failures[Failure(policy, self.field, problem)] = None
        return True


class Conditions:
    """All conditions of a rule; they hold when each of them does.

    Args:
        variables: name and expression, in the order in which they may use each other.
        field: the rule, such as ``spec.rules[0]``.

    Raises:
        PolicyError: one of them cannot be used.
    """

    def __init__(self, expressions: Iterable[str], variables: Iterable[tuple[str, str]], field: str) -> None:
        self._named: dict[str, NamedExpression] = {}
        for position, (name, expression) in enumerate(variables):
            self._name(name, expression, f"{field}.variables[{position}]")
        self.all = tuple(
            Condition.compile(expression, f"{field}.conditions[{position}].expression", self._named)
            for position, expression in enumerate(expressions)
        )
        for what, count, most in (
            ("conditions", len(self.all), MAX_CONDITIONS),
            ("variables", len(self._named), MAX_VARIABLES),
        ):
            if count > most:
                raise PolicyError(f"must have at most {most} entries", field=f"{field}.{what}")
        self._trees = read_by([*(one.node for one in self.all), *(one.node for one in self._named.values())])

    def __bool__(self) -> bool:
        return bool(self.all)

    def hold(self, activation: Activation, policy: str = "") -> bool:
        """Whether every condition is true; those that cannot be evaluated count as true."""
        scope = self.scope(activation)
        return all(one.holds_in(scope, activation, policy) for one in self.all)

    def scope(self, activation: Activation) -> Scope:
        """The variables of an evaluation of all of them, one after the other."""
        return scope_for(activation, self._named, self._trees)

    def _name(self, name: str, expression: str, field: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise PolicyError("must be an identifier, such as image_tag", field=f"{field}.name")
        if name in self._named:
            raise PolicyError("must be unique in the rule", field=f"{field}.name")
        kinds = {one.name: one.kind for one in self._named.values()}
        node, kind = checked(expression, f"{field}.expression", kinds, boolean=False)
        self._named[name] = NamedExpression(name, node, kind, f"{field}.expression")


def scope_for(activation: Activation, named: Mapping[str, NamedExpression], trees: Mapping[str, Tree]) -> Scope:
    """Variables that are fetched, and named expressions that are evaluated, when they are first read."""

    def load(name: str) -> Any:
        if name.startswith(_VARIABLE):
            return named[name.removeprefix(_VARIABLE)].step(scope)
        return activation.load(name, trees)

    scope = Scope(load, activation.facts.cost)
    return scope


def evaluator(node: Node, field: str) -> Step:
    """The function that evaluates a checked tree.

    Raises:
        PolicyError: it uses what cannot be had here.
    """
    try:
        return compiled(node)
    except UnsupportedExpressionError as error:
        raise PolicyError(f"{error} cannot be had in a step-up policy", field=field) from error
