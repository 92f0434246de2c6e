"""Values of CEL in Python, what they are called, when they are equal and how they are ordered.

null, bool, int, double, string, bytes, list and map are Python's own, so that decoded JSON needs no conversion; the rest
have a class here. https://github.com/google/cel-spec/blob/master/doc/langdef.md#equality
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
UINT_MAX: Final = 2**64 - 1
NANOS: Final = 1_000_000_000


class CelError(Exception):
    """An evaluation failed; ``||`` and ``&&`` may still make something of it."""


class UnsupportedExpressionError(Exception):
    """Something in an expression that Kubernetes evaluates and a step-up policy does not; the text says what."""


class CelLimitError(Exception):
    """An evaluation would cost too much; nothing absorbs this."""


class Uint(int):
    """An unsigned integer."""

    __slots__ = ()


class Timestamp(msgspec.Struct, frozen=True):
    """A moment: nanoseconds since the epoch."""

    nanos: int


class Duration(msgspec.Struct, frozen=True):
    """A length of time in nanoseconds."""

    nanos: int


class Optional(msgspec.Struct, frozen=True):
    """A value that may be absent."""

    present: bool
    value: Any = None

    @staticmethod
    def of(value: Any) -> Optional:
        """A value that is there."""
        return Optional(True, value)


NONE: Final = Optional(False)


class TypeValue(msgspec.Struct, frozen=True):
    """What ``type(x)`` gives."""

    name: str


class Opaque:
    """Base of the types that Kubernetes' libraries add. ``type_name`` is the type's name in CEL."""

    type_name = ""
    __slots__ = ()


_NAMES: Final[dict[type, str]] = {
    type(None): "null_type",
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    Optional: "optional_type",
    TypeValue: "type",
}
TYPE_NAMES: Final = frozenset(_NAMES.values())
NUMBERS: Final = frozenset({int, Uint, float})
_ORDERED: Final[frozenset[type]] = frozenset({str, bytes, bool})


def type_name(value: Any) -> str:
    """What CEL calls the type of a value."""
    return value.type_name if isinstance(value, Opaque) else _NAMES[type(value)]


def no_overload(function: str, *values: Any) -> CelError:
    """The error for a function that is not defined for these types."""
    return CelError(f"no such overload: {function}({', '.join(map(type_name, values))})")


def no_conversion(value: Any, kind: str) -> CelError:
    """The error for a value that is not one of another type."""
    return CelError(f"a value of type {type_name(value)} cannot be converted to {kind}, or not this one")


def equal(left: Any, right: Any) -> bool:
    """``left == right``: numbers by value whatever their type; values of different types are not equal.

    Raises:
        CelError: a value of one of Kubernetes' types is compared with one of another type.
    """
    kind = type(left)
    if kind is not type(right):
        if kind in NUMBERS and type(right) in NUMBERS:
            return bool(left == right)
        if isinstance(left, Opaque) and right is not None:
            raise no_overload("_==_", left, right)
        return False
    if kind is list:
        return len(left) == len(right) and all(map(equal, left, right))
    if kind is dict:
        return len(left) == len(right) and all(key in right and equal(left[key], right[key]) for key in left)
    if kind is Optional:
        return left.present == right.present and (not left.present or equal(left.value, right.value))
    return bool(left == right)


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1.

    Raises:
        CelError: the two have no order.
    """
    kind = type(left)
    if kind in NUMBERS and type(right) in NUMBERS:
        if (kind is float and math.isnan(left)) or (type(right) is float and math.isnan(right)):
            raise CelError("NaN values cannot be ordered")
        return int(left > right) - int(left < right)
    if kind is type(right):
        if kind in _ORDERED:
            return int(left > right) - int(left < right)
        if kind is Timestamp or kind is Duration:
            return int(left.nanos > right.nanos) - int(left.nanos < right.nanos)
    raise no_overload("compare", left, right)


def contains(container: Any, element: Any) -> bool:
    """``element in container``."""
    if type(container) is list:
        return any(equal(one, element) for one in container)
    if type(container) is dict:
        return is_key(element) and element in container
    raise no_overload("@in", element, container)


def is_key(value: Any) -> bool:
    """Whether a value can be looked up in a map; booleans cannot, as Python takes them for 0 and 1."""
    return type(value) is str or type(value) in NUMBERS


def checked_int(value: int) -> int:
    """An int, if it fits into 64 bits."""
    if not INT_MIN <= value <= INT_MAX:
        raise CelError("integer overflow")
    return value


def checked_uint(value: int) -> Uint:
    """A uint, if it fits into 64 bits."""
    if not 0 <= value <= UINT_MAX:
        raise CelError("unsigned integer overflow")
    return Uint(value)


def weight(value: Any) -> int:
    """Roughly how much there is to read in a value: characters, elements and what is in them."""
    kind = type(value)
    if kind is str or kind is bytes:
        return 1 + len(value) // 10
    if kind is list:
        return 1 + sum(map(weight, value))
    if kind is dict:
        return 1 + len(value) + sum(map(weight, value.values()))
    return 1


def expect(function: str, kind: type, *values: Any) -> None:
    """Raise CelError unless all values are of one type."""
    for value in values:
        if type(value) is not kind:
            raise no_overload(function, *values)


Function = Callable[..., Any]
