"""Which fields of the objects an expression reads, so that the rest of an object is never decoded.

The walk is over the checked tree and errs on the side of more: what is not a plain path counts as read whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from webhook.core.cel.ast import Call, Const, Ident, Node, Select, children

ROOTS: Final = ("request", "object", "oldObject", "namespaceObject", "operation")
Tree: TypeAlias = "dict[str, Tree] | None"
"""Fields below a field; None means the whole."""

_OF_NO_TARGET: Final = {"request": ("userInfo", "dryRun"), "operation": ("class", "classes")}
_INDEXING: Final = frozenset({"_[_]", "_?._", "_[?_]"})
_any = msgspec.json.Decoder()
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_by(nodes: Iterable[Node]) -> dict[str, Tree]:
    """What these expressions read of each variable."""
    found: dict[str, Tree] = {}
    for node in nodes:
        _walk(node, found)
    return found


def pruned(raw: msgspec.Raw, tree: Tree) -> Any:
    """Decoded JSON with the fields of the tree only.

    Raises:
        msgspec.DecodeError: it is not JSON.
    """
    if tree is None:
        return _any.decode(raw)
    try:
        fields = _raw_fields.decode(raw)
    except msgspec.ValidationError:
        return _any.decode(raw)  # null, or not an object after all
    return {name: pruned(fields[name], below) for name, below in tree.items() if name in fields}


def reads(tree: Tree, *path: str) -> bool:
    """Whether a tree holds a path, or all of what is above it, or something below it."""
    for name in path:
        if tree is None:
            return True
        if name not in tree:
            return False
        tree = tree[name]
    return True


def is_about_target(trees: Mapping[str, Tree]) -> bool:
    """Whether something is read that depends on the object of the request, rather than on who does what."""
    return any(
        tree is None or any(name not in _OF_NO_TARGET.get(root, ()) for name in tree) for root, tree in trees.items()
    )


def _walk(node: Node, found: dict[str, Tree]) -> None:
    path: list[str] = []
    below = node
    while True:
        match below:
            case Select():
                path.append(below.field)
                below = below.operand
            case Call(function, (operand, Const(str() as key))) if function in _INDEXING:
                path.append(key)
                below = operand
            case _:
                break
    if isinstance(below, Ident):
        if below.name in ROOTS:
            _add(found, [below.name, *reversed(path)])
        return
    for child in children(below):
        _walk(child, found)


def _add(tree: dict[str, Tree], path: list[str]) -> None:
    for name in path[:-1]:
        below = tree.setdefault(name, {})
        if below is None:
            return
        tree = below
    tree[path[-1]] = None
