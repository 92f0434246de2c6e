"""Functions on lists and sets: Kubernetes' lists library, cel-go's lists (version 3) and sets extensions.

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-list-library
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cmp_to_key
from itertools import pairwise
from typing import Any, Final

from webhook.core.cel.operators import add
from webhook.core.cel.strings import index_of, last_index_of
from webhook.core.cel.values import (
    NONE,
    CelError,
    CelLimitError,
    Duration,
    Function,
    Optional,
    compare,
    contains,
    equal,
    no_overload,
)

MAX_RANGE: Final = 10_000


def _listed(name: str, *values: Any) -> None:
    for value in values:
        if type(value) is not list:
            raise no_overload(name, *values)


def _is_sorted(values: Any) -> bool:
    _listed("isSorted", values)
    return not any(_follows(left, right) for left, right in pairwise(values))


def _follows(left: Any, right: Any) -> bool:
    """Whether one comes after the other; what has no order does not, as in Kubernetes."""
    try:
        return compare(left, right) > 0
    except CelError:
        return False


def _sum(values: Any) -> Any:
    _listed("sum", values)
    if not values:
        return 0
    total = Duration(0) if type(values[0]) is Duration else type(values[0])(0)
    for value in values:
        total = add(total, value)
    return total


def _extreme(name: str, sign: int) -> Function:
    def found(values: Any) -> Any:
        _listed(name, values)
        if not values:
            raise CelError(f"{name} called on empty list")
        best = values[0]
        for value in values[1:]:
            if _follows(value, best) if sign > 0 else _follows(best, value):
                best = value
        return best

    return found


def _index_of(values: Any, *arguments: Any) -> int:
    if type(values) is str:
        return index_of(values, *arguments)
    _listed("indexOf", values)
    return next((at for at, value in enumerate(values) if equal(value, arguments[0])), -1)


def _last_index_of(values: Any, *arguments: Any) -> int:
    if type(values) is str:
        return last_index_of(values, *arguments)
    _listed("lastIndexOf", values)
    return next((at for at in reversed(range(len(values))) if equal(values[at], arguments[0])), -1)


def _slice(values: Any, start: Any, end: Any) -> list[Any]:
    _listed("slice", values)
    if type(start) is not int or type(end) is not int:
        raise no_overload("slice", values, start, end)
    if not 0 <= start <= end <= len(values):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(values)}")
    return list(values[start:end])


def _flatten(values: Any, depth: Any = 1) -> list[Any]:
    _listed("flatten", values)
    if type(depth) is not int or depth < 0:
        raise CelError("level must be non-negative")
    flat: list[Any] = []
    for value in values:
        if type(value) is list and depth > 0:
            flat += _flatten(value, depth - 1)
        else:
            flat.append(value)
    return flat


def _range(count: Any) -> list[int]:
    if type(count) is not int:
        raise no_overload("lists.range", count)
    if count > MAX_RANGE:
        raise CelLimitError(f"lists.range of more than {MAX_RANGE}")
    return list(range(count))


def _distinct(values: Any) -> list[Any]:
    _listed("distinct", values)
    found: list[Any] = []
    for value in values:
        if not contains(found, value):
            found.append(value)
    return found


def _reverse(values: Any) -> list[Any]:
    _listed("reverse", values)
    return list(reversed(values))


def _sort(values: Any) -> list[Any]:
    _listed("sort", values)
    if len({type(value) for value in values}) > 1:
        raise CelError("list elements must have the same type")
    for value in values[:1]:
        compare(value, value)
    return sorted(values, key=cmp_to_key(compare))


def _end(name: str, position: int) -> Function:
    def found(values: Any) -> Optional:
        _listed(name, values)
        return Optional.of(values[position]) if values else NONE

    return found


def _sets(name: str, test: Any) -> Function:
    def checked(left: Any, right: Any) -> bool:
        _listed(name, left, right)
        return bool(test(left, right))

    return checked


def _covers(left: list[Any], right: list[Any]) -> bool:
    return all(contains(left, value) for value in right)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "isSorted": _is_sorted,
    "sum": _sum,
    "min": _extreme("min", -1),
    "max": _extreme("max", 1),
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "slice": _slice,
    "flatten": _flatten,
    "lists.range": _range,
    "distinct": _distinct,
    "reverse": _reverse,
    "sort": _sort,
    "first": _end("first", 0),
    "last": _end("last", -1),
    "sets.contains": _sets("sets.contains", _covers),
    "sets.equivalent": _sets("sets.equivalent", lambda left, right: _covers(left, right) and _covers(right, left)),
    "sets.intersects": _sets("sets.intersects", lambda left, right: any(contains(right, one) for one in left)),
}
QUADRATIC: Final = frozenset({"distinct", "sets.contains", "sets.equivalent", "sets.intersects"})
