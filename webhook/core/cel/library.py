"""What expressions may call: every function's types, for the engine's checker, and its Python, for the evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from webhook.core.cel import amounts, formats, lists, networks, operators, strings
from webhook.core.cel.values import NONE, Function, Optional

FUNCTIONS: Final[Mapping[str, Function]] = {
    **operators.FUNCTIONS,
    **strings.FUNCTIONS,
    **lists.FUNCTIONS,
    **networks.FUNCTIONS,
    **amounts.FUNCTIONS,
    **formats.FUNCTIONS,
    "optional.of": Optional.of,
    "optional.none": lambda: NONE,
    "optional.ofNonZeroValue": lambda value: NONE if value in ZERO_VALUES else Optional.of(value),
}
"""By the name that a checked tree has."""

ZERO_VALUES: Final[tuple[Any, ...]] = (None, False, 0, "", b"", [], {})

REPLACED: Final = ("string",)
"""Functions of the engine that get further overloads here, and so have to be declared whole."""

# name, is it a method, result, parameters: one letter or word for each type, see _types(). An optional result is declared
# as dyn, since the engine does not recognise the optional types of others.
_SIGNATURES: Final = """
charAt . s s i
indexOf . i s s | i s s i | i L d
lastIndexOf . i s s | i s s i | i L d
join . s S | s S s
lowerAscii . s s
upperAscii . s s
trim . s s
replace . s s s s | s s s s i
split . S s s | S s s i
substring . s s i | s s i i
format . s s L
strings.quote - s s
find . s s s
findAll . S s s | S s s i
isSorted . b L
sum . d L
min . d L
max . d L
slice . L L i i
flatten . L L | L L i
lists.range - I i
distinct . L L
reverse . L L
sort . L L
sets.contains - b L L
sets.equivalent - b L L
sets.intersects - b L L
ip - IP s
ip . IP CIDR
isIP - b s
ip.isCanonical - b s
family . i IP
isUnspecified . b IP
isLoopback . b IP
isLinkLocalMulticast . b IP
isLinkLocalUnicast . b IP
isGlobalUnicast . b IP
string - s s | s i | s u | s f | s b | s B | s T | s D | s IP | s CIDR
cidr - CIDR s
isCIDR - b s
containsIP . b CIDR s | b CIDR IP
containsCIDR . b CIDR s | b CIDR CIDR
prefixLength . i CIDR
masked . CIDR CIDR
url - URL s
isURL - b s
getScheme . s URL
getHost . s URL
getHostname . s URL
getPort . s URL
getEscapedPath . s URL
getQuery . Q URL
quantity - QTY s
isQuantity - b s
sign - i QTY
isGreaterThan . b QTY QTY | b VER VER
isLessThan . b QTY QTY | b VER VER
compareTo . i QTY QTY | i VER VER
asApproximateFloat . f QTY
asInteger . i QTY
isInteger . b QTY
add . QTY QTY QTY | QTY QTY i
sub . QTY QTY QTY | QTY QTY i
semver - VER s | VER s b
isSemver - b s | b s b
major . i VER
minor . i VER
patch . i VER
format.named - d s
validate . d FORM s
"""


@cache
def declarations() -> list[Any]:
    """The functions that the engine does not know itself, declared for its checker."""
    from cel_expr_python import cel

    types = _types()
    lines = _SIGNATURES.strip().splitlines() + [f"format.{name} - FORM" for name in formats.FORMATS]
    found: dict[str, list[Any]] = {}
    for line in lines:
        name, method, signatures = line.split(" ", 2)
        for signature in signatures.split(" | "):
            result, *parameters = signature.split(" ")
            overloads = found.setdefault(name, [])
            overloads.append(
                cel.Overload(
                    f"stepup_{name.replace('.', '_')}_{len(overloads)}",
                    return_type=types[result],
                    parameters=[types[one] for one in parameters],
                    is_member=method == ".",
                )
            )
    return [cel.FunctionDecl(name, overloads) for name, overloads in found.items()]


def _types() -> dict[str, Any]:
    from cel_expr_python import cel

    kind = cel.Type
    texts = kind.List(kind.STRING)
    return {
        "b": kind.BOOL,
        "d": kind.DYN,
        "f": kind.DOUBLE,
        "i": kind.INT,
        "s": kind.STRING,
        "u": kind.UINT,
        "B": kind.BYTES,
        "D": kind.DURATION,
        "T": kind.TIMESTAMP,
        "I": kind.List(kind.INT),
        "L": kind.List(kind.DYN),
        "S": texts,
        "Q": kind.Map(kind.STRING, texts),
        "IP": kind.AbstractType("net.IP"),
        "CIDR": kind.AbstractType("net.CIDR"),
        "URL": kind.AbstractType("kubernetes.URL"),
        "QTY": kind.AbstractType("kubernetes.Quantity"),
        "VER": kind.AbstractType("kubernetes.Semver"),
        "FORM": kind.AbstractType("kubernetes.NamedFormat"),
    }
