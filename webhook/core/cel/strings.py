"""Functions on strings: CEL's own, its strings extension (version 2, as Kubernetes has it) and Kubernetes' find and findAll.

https://pkg.go.dev/github.com/google/cel-go/ext#Strings. Patterns are RE2, searched for anywhere in the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import re2

from webhook.core.cel.operators import to_string
from webhook.core.cel.values import (
    CelError,
    CelLimitError,
    Duration,
    Function,
    Timestamp,
    TypeValue,
    Uint,
    expect,
    no_overload,
    type_name,
)

MAX_STRING: Final = 4 * 1024 * 1024
"""Characters of a string that an expression makes; a request has at most 3 MiB."""

_SPACE: Final = " \t\n\v\f\r\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {lower: lower - 32 for lower in range(ord("a"), ord("z") + 1)}
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ESCAPES: Final = {7: r"\a", 8: r"\b", 12: r"\f", 10: r"\n", 13: r"\r", 9: r"\t", 11: r"\v", 92: r"\\", 34: r"\""}


@lru_cache(maxsize=512)
def pattern(text: str) -> Any:
    """A compiled RE2 pattern.

    Raises:
        CelError: it is not one, or needs too much memory.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(text, options)
    except re2.error as error:
        raise CelError(f"{text!r} is not a regular expression in RE2 syntax") from error


def bounded(length: int) -> None:
    """Refuse to make a string that is too long."""
    if length > MAX_STRING:
        raise CelLimitError("it makes a string of more than 4 MiB")


def _on_text(name: str, function: Function) -> Function:
    def checked(*values: Any) -> Any:
        expect(name, str, *values)
        return function(*values)

    return checked


def _position(name: str, text: Any, position: Any) -> int:
    if type(text) is not str or type(position) is not int:
        raise no_overload(name, text, position)
    if not 0 <= position <= len(text):
        raise CelError(f"index out of range: {position}")
    return position


def _char_at(text: Any, position: Any) -> str:
    at = _position("charAt", text, position)
    return str(text[at : at + 1])


def _substring(text: Any, start: Any, end: Any = None) -> str:
    first = _position("substring", text, start)
    last = len(text) if end is None else _position("substring", text, end)
    if first > last:
        raise CelError(f"invalid substring range: {first} to {last}")
    return str(text[first:last])


def index_of(text: str, part: Any, start: Any = 0) -> int:
    """``text.indexOf(part, start)``."""
    expect("indexOf", str, text, part)
    return start if not part else text.find(part, _position("indexOf", text, start))


def last_index_of(text: str, part: Any, start: Any = None) -> int:
    """``text.lastIndexOf(part, start)``."""
    expect("lastIndexOf", str, text, part)
    at = len(text) if start is None else _position("lastIndexOf", text, start)
    return at if not part else text.rfind(part, 0, at + len(part))


def _replace(text: Any, old: Any, new: Any, count: Any = -1) -> str:
    expect("replace", str, text, old, new)
    if type(count) is not int:
        raise no_overload("replace", text, old, new, count)
    found = text.count(old) if old else len(text) + 1
    found = found if count < 0 else min(found, count)
    bounded(len(text) + found * max(0, len(new) - len(old)))
    return str(text.replace(old, new, found))


def _split(text: Any, separator: Any, count: Any = -1) -> list[str]:
    expect("split", str, text, separator)
    if type(count) is not int:
        raise no_overload("split", text, separator, count)
    if count == 0:
        return []
    if count == 1:
        return [text]
    if not separator:
        parts = list(text)
        return parts if count < 0 or len(parts) <= count else [*parts[: count - 1], "".join(parts[count - 1 :])]
    return list(text.split(separator, count - 1 if count > 0 else -1))


def _join(parts: Any, separator: Any = "") -> str:
    if type(parts) is not list:
        raise no_overload("join", parts)
    expect("join", str, separator, *parts)
    bounded(sum(map(len, parts)) + len(separator) * len(parts))
    return str(separator.join(parts))


def _matches(text: Any, expression: Any) -> bool:
    expect("matches", str, text, expression)
    return pattern(expression).search(text) is not None


def _find(text: Any, expression: Any) -> str:
    expect("find", str, text, expression)
    found = pattern(expression).search(text)
    return str(found.group(0)) if found else ""


def _find_all(text: Any, expression: Any, count: Any = -1) -> list[str]:
    expect("findAll", str, text, expression)
    if type(count) is not int:
        raise no_overload("findAll", text, expression, count)
    found: list[str] = []
    for one in pattern(expression).finditer(text):
        if 0 <= count <= len(found):
            break
        found.append(one.group(0))
    return found


def _quote(text: Any) -> str:
    expect("strings.quote", str, text)
    return f'"{text.translate(_ESCAPES)}"'


def _format(template: Any, arguments: Any) -> str:
    if type(template) is not str or type(arguments) is not list:
        raise no_overload("format", template, arguments)
    parts: list[str] = []
    position, used, length = 0, 0, 0
    while position < len(template):
        percent = template.find("%", position)
        end = len(template) if percent < 0 else percent
        parts.append(template[position:end])
        if percent < 0:
            break
        if template[percent : percent + 2] == "%%":
            parts.append("%")
            position = percent + 2
            continue
        precision, verb, position = _clause(template, percent + 1)
        if used >= len(arguments):
            raise CelError(f"index {used} out of range")
        parts.append(_formatted(verb, precision, arguments[used]))
        used += 1
        length += len(parts[-1])
        bounded(length)
    return "".join(parts)


def _clause(template: str, position: int) -> tuple[int | None, str, int]:
    precision: int | None = None
    if template[position : position + 1] == ".":
        end = position + 1
        while template[end : end + 1].isdigit() and end - position < 5:
            end += 1
        precision = int(template[position + 1 : end] or 0)
        position = end
    return precision, template[position : position + 1], position + 1


def _formatted(verb: str, precision: int | None, value: Any) -> str:
    number = type(value) in {int, Uint}
    if verb == "s":
        return _shown(value)
    if verb == "d" and number:
        return str(int(value))
    if verb in {"f", "e"} and type(value) is float:
        return _in_english(verb, 6 if precision is None else min(precision, 100), value)
    if verb == "b" and (number or type(value) is bool):
        return format(int(value), "b")
    if verb in {"x", "X"} and (number or type(value) in {str, bytes}):
        if number:
            return format(int(value), verb)
        digits: str = (value.encode() if type(value) is str else value).hex()
        return digits.upper() if verb == "X" else digits
    if verb == "o" and number:
        return format(int(value), "o")
    raise CelError(f"%{verb} in a format does not take {type_name(value)}")


def _in_english(verb: str, precision: int, value: float) -> str:
    """A double as Go's message printer has it for English, where the precision of ``%e`` is taken for a width."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if verb == "f":
        return format(value, f",.{precision}f")
    digits, _, exponent = format(value, ".6e").partition("e")
    return f"{digits}\u00d710{exponent.removeprefix('+').translate(_SUPERSCRIPT)}".rjust(precision)


def _shown(value: Any) -> str:
    if type(value) is list:
        return "[" + ", ".join(map(_shown_inside, value)) + "]"
    if type(value) is dict:
        pairs = sorted((_shown_inside(key), _shown_inside(one)) for key, one in value.items())
        return "{" + ", ".join(f"{key}:{one}" for key, one in pairs) + "}"
    if value is None:
        return "null"
    if type(value) is TypeValue:
        return value.name
    if type(value) in {str, bool, int, Uint, float, bytes, Timestamp, Duration}:
        return to_string(value)
    raise CelError(f"%s in a format does not take {type_name(value)}")


def _shown_inside(value: Any) -> str:
    """The same for what is in a list or a map."""
    if type(value) is float and math.isfinite(value):
        return format(value, ".6f")
    if type(value) in {Timestamp, Duration}:
        return f'{"timestamp" if type(value) is Timestamp else "duration"}("{to_string(value)}")'
    if type(value) is str:
        return _quote(value)
    return f"b{_quote(_shown(value))}" if type(value) is bytes else _shown(value)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "contains": _on_text("contains", lambda text, part: part in text),
    "startsWith": _on_text("startsWith", lambda text, part: text.startswith(part)),
    "endsWith": _on_text("endsWith", lambda text, part: text.endswith(part)),
    "lowerAscii": _on_text("lowerAscii", lambda text: text.translate(_LOWER)),
    "upperAscii": _on_text("upperAscii", lambda text: text.translate(_UPPER)),
    "trim": _on_text("trim", lambda text: text.strip(_SPACE)),
    "charAt": _char_at,
    "substring": _substring,
    "replace": _replace,
    "split": _split,
    "join": _join,
    "matches": _matches,
    "find": _find,
    "findAll": _find_all,
    "strings.quote": _quote,
    "format": _format,
}
