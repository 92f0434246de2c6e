"""Google's engine (``cel-expr-python``): it parses and checks expressions when a policy is read, and says what is wrong.

It is loaded when the first condition is: most policies have none. It does not evaluate here. cel-expr-python 0.1.3 cannot
hand values of Kubernetes' types to Python, leaks the arguments of every Python function, loses references to None until
the process aborts, and cuts strings off at a NUL; ``program.py`` evaluates instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from webhook.core.cel.ast import Call, Comprehension, Const, Ident, ListOf, MapOf, Node, Select, children, decode
from webhook.core.cel.fields import ROOTS
from webhook.core.cel.library import FUNCTIONS, REPLACED, declarations
from webhook.core.cel.values import CelError
from webhook.errors import PolicyError

MAX_LENGTH: Final = 1024
MAX_DEPTH: Final = 100
MAX_NESTED_COMPREHENSIONS: Final = 4

_RESOURCE_FIELDS: Final = ("group", "version", "resource")
KNOWN_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "request": (
        "kind",
        "resource",
        "subResource",
        "requestKind",
        "requestResource",
        "requestSubResource",
        "name",
        "namespace",
        "operation",
        "userInfo",
        "dryRun",
        "options",
    ),
    "request.kind": ("group", "version", "kind"),
    "request.resource": _RESOURCE_FIELDS,
    "request.requestKind": ("group", "version", "kind"),
    "request.requestResource": _RESOURCE_FIELDS,
    "request.userInfo": ("username", "uid", "groups", "extra"),
    "namespaceObject": ("metadata",),
    "namespaceObject.metadata": ("name", "labels", "annotations"),
    "operation": ("class", "classes", "target", "targets", "replicasFrom", "replicasTo"),
    "operation.target": ("group", "resource", "namespace", "name", "uid"),
}
_NOT_TEXT: Final = {
    "request.dryRun": "bool",
    "request.userInfo.groups": "texts",
    "request.userInfo.extra": "text lists",
    "namespaceObject.metadata.labels": "text map",
    "namespaceObject.metadata.annotations": "text map",
    "operation.classes": "texts",
    "operation.replicasFrom": "int",
    "operation.replicasTo": "int",
}
_DYNAMIC: Final = frozenset({"request.options", "operation.targets"})
_UNAVAILABLE: Final = {
    "authorizer": "authorization checks cannot be had in a step-up policy",
    "includes": "list.includes() cannot be had; use `value in list`",
    "sortBy": "list.sortBy() cannot be had; use sort()",
    "transformList": "comprehensions with two variables cannot be had; use map()",
    "transformMap": "comprehensions with two variables cannot be had",
    "transformMapEntry": "comprehensions with two variables cannot be had",
    "existsOne": "comprehensions with two variables cannot be had; use exists_one()",
    "params": "policies have no parameters",
    "jsonpatch": "JSON patches cannot be had in a step-up policy",
}
_TWO_VARIABLES: Final = re.compile(r"\.\s*(?:all|exists|exists_one)\s*\(\s*\w+\s*,\s*\w+\s*,")
_PROBLEM: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_HAS: Final = re.compile(r"\bhas\s*\(")
_PRESENCE: Final = re.compile(r"\bhas\s*\(\s*variables\s*\.\s*\w+\s*\)")
_DRY_RUN: Final = Select(Ident("request"), "dryRun", test_only=False)
_LITERALS: Final = {
    "matches": 2,
    "find": 2,
    "findAll": 2,
    **dict.fromkeys(("duration", "timestamp", "int", "uint", "double"), 1),
}


def checked(
    expression: str, field: str, variables: Mapping[str, Any], *, boolean: bool, roots: tuple[str, ...] = ROOTS
) -> tuple[Node, Any]:
    """The tree of an expression, and the type of its result.

    Args:
        variables: types of the rule's named expressions, by name.
        roots: the variables that there are besides; nothing is known of what is below any but the usual ones.

    Raises:
        PolicyError: it cannot be used; the text says why and, where it is known, at which place.
    """
    if not expression.strip():
        raise PolicyError("must not be empty", field=field)
    if len(expression) > MAX_LENGTH:
        raise PolicyError(f"must have at most {MAX_LENGTH} characters", field=field)
    if _PRESENCE.search(expression):
        raise PolicyError("has() is for a field of a variable; the variable itself is always there", field=field)
    try:
        expression.encode()
        compiled = _environment(variables, roots=roots).compile(expression)
        if roots == ROOTS and not _HAS.search(expression):
            _environment(variables, typed=True).compile(expression)
    except UnicodeEncodeError as error:
        raise PolicyError("is not valid Unicode", field=field) from error
    except RuntimeError as error:
        raise PolicyError(_explained(str(error), expression, roots), field=field) from error
    node, kind = decode(compiled.serialize()), compiled.return_type()
    if boolean and kind.name() != "BOOL" and node != _DRY_RUN:
        raise PolicyError(f"must be true or false (bool), not {kind.name().lower()}", field=field)
    _refuse_unbounded(node, field)
    _check(node, field)
    return node, kind


def _environment(variables: Mapping[str, Any], *, typed: bool = False, roots: tuple[str, ...] = ROOTS) -> Any:
    """What the engine checks against.

    Args:
        typed: with the types of what is below request, namespaceObject and operation, so that ``request.name == 1`` is
            refused. ``has()`` of these would be lost (the engine takes a declared path for a variable), so such trees are
            not evaluated.
    """
    if variables:
        return _new_environment(variables, typed=typed, roots=roots)
    return _plain_environment(typed, roots)


@cache
def _plain_environment(typed: bool, roots: tuple[str, ...]) -> Any:
    return _new_environment({}, typed=typed, roots=roots)


def _new_environment(variables: Mapping[str, Any], *, typed: bool, roots: tuple[str, ...]) -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_optional

    own = {f"variables.{name}": _redeclarable(kind) for name, kind in variables.items()}
    excluded = "".join(f"\n    - name: {name}" for name in REPLACED)
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(f"stdlib:\n  exclude_functions:{excluded}\n"),
        variables={**(_typed_roots() if typed else _roots(roots)), **own},
        extensions=[ext_optional.ExtOptional()],
        functions=declarations(),
    )


def _redeclarable(kind: Any) -> Any:
    """A result's type as the type of a variable; the engine does not take its own optional types back."""
    from cel_expr_python import cel

    return cel.Type.DYN if "optional_type" in kind.name() else kind


def _roots(names: tuple[str, ...] = ROOTS) -> dict[str, Any]:
    from cel_expr_python import cel

    return dict.fromkeys(names, cel.Type.DYN)


@cache
def _typed_roots() -> dict[str, Any]:
    from cel_expr_python import cel

    kind = cel.Type
    texts = kind.List(kind.STRING)
    types = {
        "bool": kind.BOOL,
        "int": kind.INT,
        "texts": texts,
        "text map": kind.Map(kind.STRING, kind.STRING),
        "text lists": kind.Map(kind.STRING, texts),
    }
    found = _roots()
    for name, fields in KNOWN_FIELDS.items():
        found[name] = kind.DYN
        for below in fields:
            path = f"{name}.{below}"
            is_dynamic = path in KNOWN_FIELDS or path in _DYNAMIC
            found[path] = kind.DYN if is_dynamic else types.get(_NOT_TEXT.get(path, ""), kind.STRING)
    return found


def _explained(text: str, expression: str, roots: tuple[str, ...] = ROOTS) -> str:
    if _TWO_VARIABLES.search(expression):
        return "comprehensions with two variables cannot be had: name one, as in list.all(x, …)"
    problems = _PROBLEM.findall(text)
    if not problems:
        return "is not a CEL expression, or is nested too deeply"
    for name in (name for _, _, problem in problems for name in _UNDECLARED.findall(problem)):
        if name in _UNAVAILABLE:
            return _UNAVAILABLE[name]
    line, column, problem = problems[0]
    undeclared = _UNDECLARED.search(problem)
    if undeclared is not None:
        problem = _unknown(undeclared.group(1), expression, roots)
    return f"line {line}, column {column}: {problem.removesuffix(' [INVALID_ARGUMENT]')}"


def _unknown(name: str, expression: str, roots: tuple[str, ...]) -> str:
    if name.startswith("variables"):
        return "this variable is not defined by an earlier entry of `variables`"
    if re.search(rf"\b{re.escape(name)}\s*\(", expression):
        return f"there is no function {name}(), or not for these values"
    if roots != ROOTS:
        return f"there is no variable {name}; there is {', '.join(roots)}"
    return f"there is no variable {name}; there are {', '.join(ROOTS)} and variables"


def _refuse_unbounded(root: Node, field: str) -> None:
    """Bound the depth before anything recurses into the tree."""
    waiting = [(root, 1, 0)]
    while waiting:
        node, depth, loops = waiting.pop()
        loops += isinstance(node, Comprehension)
        if depth > MAX_DEPTH:
            raise PolicyError(f"is nested more than {MAX_DEPTH} deep; split it up with variables", field=field)
        if loops > MAX_NESTED_COMPREHENSIONS:
            text = f"has more than {MAX_NESTED_COMPREHENSIONS} comprehensions (all, exists, map, filter …) inside each other"
            raise PolicyError(text, field=field)
        waiting += [(child, depth + 1, loops) for child in children(node)]


def _path(node: Node) -> str:
    if isinstance(node, Ident):
        return node.name
    return f"{_path(node.operand)}.{node.field}" if isinstance(node, Select) else ""


def _check(node: Node, field: str, *, formatted: bool = False) -> None:
    if isinstance(node, Select):
        above = _path(node.operand)
        known = KNOWN_FIELDS.get(above)
        if known is not None and node.field not in known:
            raise PolicyError(f"{above} has no {node.field}; it has {', '.join(known)}", field=field)
    if isinstance(node, ListOf | MapOf) and node.mixed and not formatted:
        raise PolicyError("a list or map literal must have elements of one type", field=field)
    if isinstance(node, Call) and (position := _LITERALS.get(node.function, 0)):
        _check_literal(node, position, field)
    formatted = isinstance(node, Call) and node.function == "format"
    for child in children(node):
        _check(child, field, formatted=formatted)


def _check_literal(node: Call, position: int, field: str) -> None:
    """Kubernetes refuses numbers, durations, timestamps and patterns that cannot be read; so does this."""
    literal = node.arguments[position - 1] if len(node.arguments) >= position else None
    if not isinstance(literal, Const):
        return
    arguments = [""] * (position - 1) + [literal.value]
    try:
        FUNCTIONS[node.function](*arguments)
    except CelError as error:
        raise PolicyError(str(error), field=field) from error
