"""Operators, conversions and the functions of time: CEL's standard library, with the limits that Kubernetes' engine has.

https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from webhook.core.cel.times import TIME_PARTS, checked_timestamp, rfc3339, to_duration, to_timestamp
from webhook.core.cel.values import (
    INT_MAX,
    INT_MIN,
    NANOS,
    NUMBERS,
    CelError,
    Duration,
    Function,
    Opaque,
    Timestamp,
    TypeValue,
    Uint,
    checked_int,
    checked_uint,
    compare,
    contains,
    equal,
    no_conversion,
    no_overload,
    type_name,
)

_INT: Final = re.compile(r"[+-]?[0-9]+")
_UINT: Final = re.compile(r"[0-9]+")
_DOUBLE: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?|nan", re.IGNORECASE
)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def add(left: Any, right: Any) -> Any:
    """``left + right``."""
    kind, other = type(left), type(right)
    if kind is other:
        if kind is int:
            return checked_int(left + right)
        if kind in {float, str, list, bytes}:
            return left + right
        if kind is Uint:
            return checked_uint(int(left) + int(right))
        if kind is Duration:
            return Duration(checked_int(left.nanos + right.nanos))
    if kind is Timestamp and other is Duration:
        return checked_timestamp(left.nanos + right.nanos)
    if kind is Duration and other is Timestamp:
        return checked_timestamp(left.nanos + right.nanos)
    raise no_overload("_+_", left, right)


def subtract(left: Any, right: Any) -> Any:
    """``left - right``."""
    kind, other = type(left), type(right)
    if kind is other:
        if kind is int:
            return checked_int(left - right)
        if kind is float:
            return left - right
        if kind is Uint:
            return checked_uint(int(left) - int(right))
        if kind is Duration or kind is Timestamp:
            return Duration(checked_int(left.nanos - right.nanos))
    if kind is Timestamp and other is Duration:
        return checked_timestamp(left.nanos - right.nanos)
    raise no_overload("_-_", left, right)


def multiply(left: Any, right: Any) -> Any:
    """``left * right``."""
    kind = type(left)
    if kind is type(right):
        if kind is int:
            return checked_int(left * right)
        if kind is float:
            return left * right
        if kind is Uint:
            return checked_uint(int(left) * int(right))
    raise no_overload("_*_", left, right)


def divide(left: Any, right: Any) -> Any:
    """``left / right``; integers are cut off towards zero."""
    kind = type(left)
    if kind is type(right):
        if kind is float:
            return _divide_doubles(left, right)
        if kind in {int, Uint}:
            if right == 0:
                raise CelError("division by zero")
            quotient = abs(int(left)) // abs(int(right))
            return checked_uint(quotient) if kind is Uint else checked_int(_signed(quotient, left, right))
    raise no_overload("_/_", left, right)


def modulo(left: Any, right: Any) -> Any:
    """``left % right``, with the sign of the left side."""
    kind = type(left)
    if kind is type(right) and kind in {int, Uint}:
        if right == 0:
            raise CelError("modulus by zero")
        rest = abs(int(left)) % abs(int(right))
        return Uint(rest) if kind is Uint else rest if left >= 0 else -rest
    raise no_overload("_%_", left, right)


def negate(value: Any) -> Any:
    """``-value``."""
    if type(value) is int:
        return checked_int(-value)
    if type(value) is float:
        return -value
    if type(value) is Duration:
        return Duration(checked_int(-value.nanos))
    raise no_overload("-_", value)


def invert(value: Any) -> bool:
    """``!value``."""
    if value is True or value is False:
        return not value
    raise no_overload("!_", value)


def length(value: Any) -> int:
    """``size(value)``: code points of a string, bytes, elements."""
    if type(value) in {str, bytes, list, dict}:
        return len(value)
    raise no_overload("size", value)


def to_int(value: Any) -> int:
    """``int(value)``."""
    kind = type(value)
    if kind is int:
        return int(value)
    if kind is Uint:
        return checked_int(int(value))
    if kind is float:
        if not math.isfinite(value) or not INT_MIN < value < INT_MAX:
            raise CelError("integer overflow")
        return int(value)
    if kind is str and _INT.fullmatch(value) and len(value) <= 20:
        return checked_int(int(value))
    if kind is Timestamp:
        return int(value.nanos // NANOS)
    if kind is Duration:
        return int(value.nanos)
    raise no_conversion(value, "int")


def to_uint(value: Any) -> Uint:
    """``uint(value)``."""
    kind = type(value)
    if kind in {int, Uint}:
        return checked_uint(int(value))
    if kind is float and math.isfinite(value):
        return checked_uint(int(value))
    if kind is str and _UINT.fullmatch(value) and len(value) <= 20:
        return checked_uint(int(value))
    raise no_conversion(value, "uint")


def to_double(value: Any) -> float:
    """``double(value)``."""
    if type(value) in NUMBERS:
        return float(value)
    if type(value) is str and len(value) <= 400 and _DOUBLE.fullmatch(value):
        return float(value)
    raise no_conversion(value, "double")


def to_bool(value: Any) -> bool:
    """``bool(value)``."""
    if type(value) is bool:
        return value
    if type(value) is str and (value in _TRUE or value in _FALSE):
        return value in _TRUE
    raise no_conversion(value, "bool")


def to_bytes(value: Any) -> bytes:
    """``bytes(value)``."""
    if type(value) is bytes:
        return value
    if type(value) is str:
        return value.encode()
    raise no_conversion(value, "bytes")


def to_string(value: Any) -> str:
    """``string(value)``."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind in {int, Uint}:
        return str(int(value))
    if kind is float:
        return shortest(value)
    if kind is bytes:
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from error
    if kind is Timestamp:
        return rfc3339(value)
    if kind is Duration:
        return decimal(value.nanos / NANOS) + "s"
    if isinstance(value, Opaque) and value.type_name in {"net.IP", "net.CIDR"}:
        return str(value)
    raise no_conversion(value, "string")


def decimal(value: float) -> str:
    """A double without exponent and without needless digits, as Go's ``FormatFloat(v, 'f', -1, 64)``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(value, "f") if value == int(value) else repr(value)
    if "e" in text:
        digits = max(0, -int(text.partition("e")[2]) + len(text.partition("e")[0].partition(".")[2]))
        text = format(value, f".{digits}f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def shortest(value: float) -> str:
    """A double as Go's ``%g`` has it: with an exponent from a million on, and below a ten-thousandth."""
    if not math.isfinite(value) or value == 0:
        return decimal(value)
    exponent = int(format(Decimal(repr(value)), "e").partition("e")[2])
    if -4 <= exponent < 6:
        return decimal(value)
    digits, _, _ = format(Decimal(repr(value)).normalize(), "e").partition("e")
    return f"{digits}e{exponent:+03d}"


def type_of(value: Any) -> TypeValue:
    """``type(value)``."""
    return TypeValue(type_name(value))


def _signed(value: int, left: int, right: int) -> int:
    return value if (left < 0) == (right < 0) else -value


def _divide_doubles(left: float, right: float) -> float:
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1, right)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "_+_": add,
    "_-_": subtract,
    "_*_": multiply,
    "_/_": divide,
    "_%_": modulo,
    "-_": negate,
    "!_": invert,
    "_==_": equal,
    "_!=_": lambda left, right: not equal(left, right),
    "_<_": lambda left, right: compare(left, right) < 0,
    "_<=_": lambda left, right: compare(left, right) <= 0,
    "_>_": lambda left, right: compare(left, right) > 0,
    "_>=_": lambda left, right: compare(left, right) >= 0,
    "@in": lambda element, container: contains(container, element),
    "size": length,
    "int": to_int,
    "uint": to_uint,
    "double": to_double,
    "bool": to_bool,
    "bytes": to_bytes,
    "string": to_string,
    "timestamp": to_timestamp,
    "duration": to_duration,
    "dyn": lambda value: value,
    "type": type_of,
    **TIME_PARTS,
}
