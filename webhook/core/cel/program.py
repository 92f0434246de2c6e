"""A checked tree turned into Python functions that evaluate it, on decoded JSON as it is.

Failures are exceptions; ``&&``, ``||``, ``all`` and ``exists`` absorb them as the specification says
(https://github.com/google/cel-spec/blob/master/doc/langdef.md#logical-operators). Costs are counted where they can grow:
a turn of a comprehension costs the nodes of its body, a function what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from webhook.core.cel import lists
from webhook.core.cel.ast import (
    Call,
    Comprehension,
    Const,
    Ident,
    ListOf,
    MapOf,
    Message,
    Node,
    Select,
    size,
)
from webhook.core.cel.control import SPECIAL, has, is_present, optional_index
from webhook.core.cel.library import FUNCTIONS
from webhook.core.cel.scope import Failed, Scope, Step
from webhook.core.cel.values import (
    TYPE_NAMES,
    CelError,
    Optional,
    TypeValue,
    UnsupportedExpressionError,
    is_key,
    no_overload,
    type_name,
    weight,
)

_RESULT: Final = "@result"
_COSTLESS: Final = frozenset({"-_", "!_", "size", "type", "dyn", "optional.of", "optional.none"})
_SCALARS: Final = frozenset({type(None), bool, int, float})


Names: TypeAlias = Mapping[str, str]


def compiled(node: Node) -> Step:
    """The function that evaluates a tree.

    Raises:
        UnsupportedExpressionError: something in it cannot be evaluated here.
    """
    return _Compiler().step(node, {})


class _Compiler:
    def __init__(self) -> None:
        self._slots = 0

    def step(self, node: Node, names: Names) -> Step:
        match node:
            case Const():
                value = node.value
                return lambda _: value
            case Ident():
                return _ident(node.name, names)
            case Select():
                return self._select(node, names)
            case Call():
                return self._call(node, names)
            case ListOf():
                return self._list(node, names)
            case MapOf():
                return self._map(node, names)
            case Comprehension():
                return self._comprehension(node, names)
            case Message():
                raise UnsupportedExpressionError(f"messages such as {node.name}{{}}")

    def _select(self, node: Select, names: Names) -> Step:
        operand, field = self.step(node.operand, names), node.field
        if node.test_only:
            return lambda scope: has(operand(scope), field)

        def select(scope: Scope) -> Any:
            value = operand(scope)
            if type(value) is dict:
                try:
                    return value[field]
                except KeyError:
                    raise CelError(f"no such key: {field}") from None
            if type(value) is Optional:
                return optional_index(value, field)
            raise no_overload(f"select {field}", value)

        return select

    def _call(self, node: Call, names: Names) -> Step:
        name = node.function
        steps = [self.step(one, names) for one in node.arguments]
        special = SPECIAL.get(name)
        if special is not None:
            return special(*steps)
        if name == "_+_" and isinstance(node.arguments[0], Ident) and node.arguments[0].name == _RESULT:
            return _growing(names[_RESULT], steps[1], FUNCTIONS[name])
        function = FUNCTIONS.get(name)
        if function is None:
            raise UnsupportedExpressionError(f"the function {name}")
        return _applied(name, function, steps)

    def _list(self, node: ListOf, names: Names) -> Step:
        steps = [self.step(one, names) for one in node.elements]
        optional = node.optional
        if not optional:
            return lambda scope: [step(scope) for step in steps]

        def build(scope: Scope) -> list[Any]:
            found = []
            for position, step in enumerate(steps):
                value = step(scope)
                if position not in optional:
                    found.append(value)
                elif is_present(value):
                    found.append(value.value)
            return found

        return build

    def _map(self, node: MapOf, names: Names) -> Step:
        steps = [(self.step(key, names), self.step(value, names), optional) for key, value, optional in node.entries]

        def build(scope: Scope) -> dict[Any, Any]:
            found: dict[Any, Any] = {}
            for key_of, value_of, optional in steps:
                key, value = key_of(scope), value_of(scope)
                if not is_key(key) or type(key) is float:
                    raise CelError(f"a map key cannot be a {type_name(key)}")
                if key in found:
                    raise CelError("the same key twice in a map")
                if not optional:
                    found[key] = value
                elif is_present(value):
                    found[key] = value.value
            return found

        return build

    def _comprehension(self, node: Comprehension, names: Names) -> Step:
        self._slots += 1
        variable, result = f"{node.variable}#{self._slots}", f"{node.accumulator}#{self._slots}"
        inner = {**names, node.variable: variable, node.accumulator: result}
        values_of = self.step(node.range, names)
        initial = self.step(node.initial, names)
        condition, step = self.step(node.condition, inner), self.step(node.step, inner)
        last = self.step(node.result, {**names, node.accumulator: result})
        cost = size(node.step) + size(node.condition)

        def run(scope: Scope) -> Any:
            values = values_of(scope)
            if type(values) is not list and type(values) is not dict:
                raise no_overload("a comprehension over", values)
            try:
                scope[result] = initial(scope)
            except CelError as error:
                scope[result] = Failed(error)
            for value in values:
                scope.spend(cost)
                scope[variable] = value
                if not condition(scope):
                    break
                try:
                    scope[result] = step(scope)
                except CelError as error:
                    scope[result] = Failed(error)
            return last(scope)

        return run


def _ident(name: str, names: Names) -> Step:
    slot = names.get(name)
    if slot is None:
        if name in TYPE_NAMES:
            value = TypeValue(name)
            return lambda _: value
        return lambda scope: scope[name]

    def local(scope: Scope) -> Any:
        value = scope[slot]
        if type(value) is Failed:
            raise value.error
        return value

    return local


def _applied(name: str, function: Callable[..., Any], steps: list[Step]) -> Step:
    if len(steps) == 1:
        return _unary(name, function, steps[0])
    if len(steps) == 2:
        return _binary(_COSTS.get(name, _reading), function, *steps)

    def apply(scope: Scope) -> Any:
        values = [step(scope) for step in steps]
        scope.spend(sum(map(weight, values)))
        return function(*values)

    return apply


def _unary(name: str, function: Callable[..., Any], only: Step) -> Step:
    power = 2 if name in lists.QUADRATIC else 0 if name in _COSTLESS else 1

    def unary(scope: Scope) -> Any:
        value = only(scope)
        if power and type(value) not in _SCALARS:
            scope.spend(weight(value) ** power)
        return function(value)

    return unary


def _binary(cost: Callable[[Any, Any], int], function: Callable[..., Any], first: Step, second: Step) -> Step:
    def binary(scope: Scope) -> Any:
        left, right = first(scope), second(scope)
        if type(left) not in _SCALARS or type(right) not in _SCALARS:
            scope.spend(cost(left, right))
        return function(left, right)

    return binary


def _reading(left: Any, right: Any) -> int:
    return weight(left) + weight(right)


def _comparing(left: Any, right: Any) -> int:
    return weight(left) if type(left) is type(right) else 0


def _looking_up(element: Any, container: Any) -> int:
    return 0 if type(container) is dict else weight(element) * len(container) if type(container) is list else 1


def _crossing(left: Any, right: Any) -> int:
    return weight(left) * weight(right)


def _growing(slot: str, added: Step, plus: Callable[..., Any]) -> Step:
    """``@result + …``, which only macros write: their list is nobody else's, so it grows in place."""

    def grow(scope: Scope) -> Any:
        result = scope[slot]
        if type(result) is Failed:
            raise result.error
        value = added(scope)
        if type(result) is list and type(value) is list:
            result += value
            return result
        return plus(result, value)

    return grow


_COSTS: Final[Mapping[str, Callable[[Any, Any], int]]] = {
    **dict.fromkeys(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"), _comparing),
    **dict.fromkeys(lists.QUADRATIC, _crossing),
    "@in": _looking_up,
}
