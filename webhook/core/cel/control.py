"""What is not a plain function: logic that absorbs failures, choices, looking up fields, and optional values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from webhook.core.cel.scope import Scope, Step
from webhook.core.cel.values import NONE, NUMBERS, CelError, Optional, is_key, no_overload


def has(value: Any, field: str) -> bool:
    """``has(value.field)``."""
    if type(value) is dict:
        return field in value
    if type(value) is Optional:
        return value.present and has(value.value, field)
    if type(value) is list:
        raise no_overload(f"has {field}", value)
    return False  # null and scalars have no fields, as Kubernetes sees it


def _index(value: Any, key: Any) -> Any:
    if type(value) is dict:
        if not is_key(key) or key not in value:
            raise CelError(f"no such key: {str(key)[:100]}")
        return value[key]
    if type(value) is list and type(key) in NUMBERS:
        if key != int(key) or not 0 <= key < len(value):
            raise CelError(f"index out of bounds: {key}")
        return value[int(key)]
    if type(value) is Optional:
        return optional_index(value, key)
    raise no_overload("_[_]", value, key)


def optional_index(value: Any, key: Any) -> Optional:
    """``value[?key]``, and ``value.?key``."""
    if type(value) is Optional:
        return optional_index(value.value, key) if value.present else NONE
    if type(value) is dict:
        return Optional.of(value[key]) if is_key(key) and key in value else NONE
    if type(value) is list and type(key) in NUMBERS:
        found = key == int(key) and 0 <= key < len(value)
        return Optional.of(value[int(key)]) if found else NONE
    if type(value) is list:
        raise no_overload("_?._", value, key)
    return NONE  # null and scalars have no fields, as Kubernetes sees it


def is_present(value: Any) -> bool:
    """Whether an optional entry of a list or map is there."""
    if type(value) is not Optional:
        raise no_overload("optional entry", value)
    return bool(value.present)


def _and(left: Step, right: Step) -> Step:
    return _logical("_&&_", left, right, absorbing=False)


def _or(left: Step, right: Step) -> Step:
    return _logical("_||_", left, right, absorbing=True)


def _logical(name: str, left: Step, right: Step, *, absorbing: bool) -> Step:
    def decide(scope: Scope) -> bool:
        failure: CelError | None = None
        for side in (left, right):
            try:
                value = side(scope)
            except CelError as error:
                failure = failure or error
                continue
            if value is absorbing:
                return bool(absorbing)
            if type(value) is not bool:
                failure = failure or no_overload(name, value)
        if failure is not None:
            raise failure
        return not absorbing

    return decide


def _choice(condition: Step, positive: Step, negative: Step) -> Step:
    def choose(scope: Scope) -> Any:
        value = condition(scope)
        if type(value) is not bool:
            raise no_overload("_?_:_", value)
        return positive(scope) if value else negative(scope)

    return choose


def _not_strictly_false(step: Step) -> Step:
    def test(scope: Scope) -> bool:
        try:
            return step(scope) is not False
        except CelError:
            return True

    return test


def _optional(step: Step, name: str) -> Callable[[Scope], Optional]:
    def checked(scope: Scope) -> Optional:
        value = step(scope)
        if type(value) is not Optional:
            raise no_overload(name, value)
        return value

    return checked


def _value(step: Step) -> Step:
    optional = _optional(step, "value")

    def read(scope: Scope) -> Any:
        found = optional(scope)
        if not found.present:
            raise CelError("optional.none() dereference")
        return found.value

    return read


def _or_value(step: Step, other: Step) -> Step:
    optional = _optional(step, "orValue")

    def read(scope: Scope) -> Any:
        found = optional(scope)
        return found.value if found.present else other(scope)

    return read


def _or_optional(step: Step, other: Step) -> Step:
    optional = _optional(step, "or")

    def read(scope: Scope) -> Any:
        found = optional(scope)
        return found if found.present else other(scope)

    return read


def _has_value(step: Step) -> Step:
    optional = _optional(step, "hasValue")
    return lambda scope: optional(scope).present


def _indexed(operand: Step, key: Step) -> Step:
    return lambda scope: _index(operand(scope), key(scope))


def _optionally_indexed(operand: Step, key: Step) -> Step:
    return lambda scope: optional_index(operand(scope), key(scope))


SPECIAL: Final[Mapping[str, Callable[..., Step]]] = {
    "_&&_": _and,
    "_||_": _or,
    "_?_:_": _choice,
    "@not_strictly_false": _not_strictly_false,
    "_[_]": _indexed,
    "_?._": _optionally_indexed,
    "_[?_]": _optionally_indexed,
    "value": _value,
    "hasValue": _has_value,
    "or": _or_optional,
    "orValue": _or_value,
}
