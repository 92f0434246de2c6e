"""Kubernetes' libraries of quantities and versions: quantity() and semver().

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-quantity-library and the sections after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from webhook.core.cel.values import (
    INT_MAX,
    INT_MIN,
    CelError,
    Function,
    Opaque,
    expect,
    no_overload,
)

_QUANTITY: Final = re.compile(
    r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?", re.ASCII
)
_DECIMAL: Final = {"": 0, **dict(zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True))}
_BINARY: Final = {f"{letter}i": 10 * power for power, letter in enumerate("KMGTPE", start=1)}
_NANO_SCALE: Final = -9
_MAX_DIGITS: Final = 18  # of a number that surely fits into 64 bits
_SEMVER: Final = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?", re.ASCII
)


class Quantity(Opaque):
    """An amount such as ``500m`` or ``1Gi``.

    Args:
        scale: the power of ten that Kubernetes keeps it at in 64 bits; None when it needs more. Only what is kept at a scale
            that is not negative counts as an integer: ``1000m`` does not.
    """

    type_name = "kubernetes.Quantity"
    __slots__ = ("amount", "scale")

    def __init__(self, amount: Fraction, scale: int | None) -> None:
        self.amount = amount
        self.scale = scale

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.amount == other.amount

    def __hash__(self) -> int:
        return hash(self.amount)

    @property
    def whole(self) -> bool:
        """Whether Kubernetes can read it as an integer."""
        return self.scale is not None and self.scale >= 0 and INT_MIN <= self.amount <= INT_MAX

    def plus(self, other: Quantity, sign: int) -> Quantity:
        """The sum, or the difference."""
        amount = self.amount + sign * other.amount
        if self.scale is None or other.scale is None:
            return Quantity(amount, None)
        if not self.amount or not other.amount:
            return Quantity(amount, self.scale if self.amount else other.scale)
        scale = min(self.scale, other.scale)
        return Quantity(amount, scale if INT_MIN <= amount / Fraction(10) ** scale <= INT_MAX else None)


class Semver(Opaque):
    """A version by the rules of Semantic Versioning 2.0.0; ``order`` sorts as its section 11 says."""

    type_name = "kubernetes.Semver"
    __slots__ = ("numbers", "order")

    def __init__(self, numbers: tuple[int, ...], identifiers: tuple[str, ...]) -> None:
        self.numbers = numbers
        release = not identifiers
        self.order = (
            numbers,
            release,
            tuple((0, int(one), "") if one.isdigit() else (1, 0, one) for one in identifiers),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.order)


def parse_quantity(text: Any) -> Quantity:
    """``quantity(text)``: finer than a nano is rounded up, more than 2^63-1 is cut off."""
    expect("quantity", str, text)
    return _read_quantity(text)


@lru_cache(maxsize=256)
def _read_quantity(text: str) -> Quantity:
    match = _QUANTITY.fullmatch(text) if len(text) <= 400 else None
    if match is None:
        raise CelError(f"{text[:100]!r} is not a quantity")
    sign, (whole, _, fraction), suffix = match.group(1), match.group(2).partition("."), match.group(3) or ""
    number = (whole.lstrip("0") or "0") + fraction
    exponent = _exponent(suffix)
    if suffix in _BINARY:
        kept = 15 - len(number) - int(exponent * 0.3) - 1 >= 0 and not fraction
        unit, scale = Fraction(2) ** exponent, 0
    else:
        kept = _MAX_DIGITS - len(number) >= 0
        unit, scale = Fraction(10) ** exponent, exponent - len(fraction)
    kept = kept and scale >= _NANO_SCALE
    amount = int(number) * unit / 10 ** len(fraction)
    if not kept:
        amount = _rounded_up(amount)
        if suffix in _BINARY:
            amount = min(amount, Fraction(INT_MAX))
    return Quantity(-amount if sign == "-" else amount, scale if kept else None)


def _exponent(suffix: str) -> int:
    if suffix in _BINARY:
        return _BINARY[suffix]
    return _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])


def _rounded_up(amount: Fraction) -> Fraction:
    """To the next nano: some of a resource is wanted if some was asked for."""
    nano = Fraction(10) ** _NANO_SCALE
    return amount if amount % nano == 0 else (amount // nano + 1) * nano


def _of_quantity(name: str, read: Any) -> Function:
    def checked(value: Any) -> Any:
        if type(value) is not Quantity:
            raise no_overload(name, value)
        return read(value)

    return checked


def _as_integer(value: Quantity) -> int:
    if not value.whole:
        raise CelError("cannot convert value to integer")
    return int(value.amount)


def _sum(name: str, sign: int) -> Function:
    def checked(value: Any, other: Any) -> Quantity:
        if type(value) is not Quantity or type(other) not in {Quantity, int}:
            raise no_overload(name, value, other)
        return value.plus(other if type(other) is Quantity else Quantity(Fraction(other), 0), sign)

    return checked


def _order(name: str, value: Any, other: Any) -> int:
    if type(value) is type(other):
        if type(value) is Quantity:
            return int(value.amount > other.amount) - int(value.amount < other.amount)
        if type(value) is Semver:
            return int(value.order > other.order) - int(value.order < other.order)
    raise no_overload(name, value, other)


def parse_semver(text: Any, lenient: Any = False) -> Semver:
    """``semver(text, lenient)``; lenient takes a ``v`` in front, missing parts and leading zeros."""
    expect("semver", str, text)
    if type(lenient) is not bool:
        raise no_overload("semver", text, lenient)
    match = _SEMVER.fullmatch(_normalized(text) if lenient else text) if len(text) <= 400 else None
    identifiers = tuple(match.group(4).split(".")) if match and match.group(4) else ()
    build = match.group(5).split(".") if match and match.group(5) else []
    if match is None or not all(map(_is_identifier, identifiers)) or not all(build):
        raise CelError(f"{text[:100]!r} is not a semantic version")
    numbers = tuple(int(part) for part in match.group(1, 2, 3))
    if max(numbers) >= 1 << 64:
        raise CelError(f"{text[:100]!r} is not a semantic version")
    return Semver(numbers, identifiers)


def _is_identifier(text: str) -> bool:
    return bool(text) and not (text.isdigit() and len(text) > 1 and text.startswith("0"))


def _normalized(text: str) -> str:
    parts = text.removeprefix("v").split(".", 2)
    for position, part in enumerate(parts):
        if len(part) > 1:
            bare = part.lstrip("0")
            parts[position] = bare if bare[:1].isdigit() else "0" + bare
    if len(parts) < 3 and any(letter in parts[-1] for letter in "+-"):
        return ""
    return ".".join([*parts, "0", "0"][: max(3, len(parts))])


def _is(parse: Function) -> Function:
    def test(text: Any, *options: Any) -> bool:
        expect(parse.__name__, str, text)
        try:
            parse(text, *options)
        except CelError:
            return False
        return True

    return test


def _number(name: str, position: int) -> Function:
    def checked(value: Any) -> int:
        if type(value) is not Semver:
            raise no_overload(name, value)
        return int(value.numbers[position])

    return checked


FUNCTIONS: Final[Mapping[str, Function]] = {
    "quantity": parse_quantity,
    "isQuantity": _is(parse_quantity),
    "sign": _of_quantity("sign", lambda one: (one.amount > 0) - (one.amount < 0)),
    "isGreaterThan": lambda value, other: _order("isGreaterThan", value, other) > 0,
    "isLessThan": lambda value, other: _order("isLessThan", value, other) < 0,
    "compareTo": lambda value, other: _order("compareTo", value, other),
    "asApproximateFloat": _of_quantity("asApproximateFloat", lambda one: float(one.amount)),
    "asInteger": _of_quantity("asInteger", _as_integer),
    "isInteger": _of_quantity("isInteger", lambda one: one.whole),
    "add": _sum("add", 1),
    "sub": _sum("sub", -1),
    "semver": parse_semver,
    "isSemver": _is(parse_semver),
    "major": _number("major", 0),
    "minor": _number("minor", 1),
    "patch": _number("patch", 2),
}
