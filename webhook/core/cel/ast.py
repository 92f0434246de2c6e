"""The checked syntax tree of an expression, read out of what the engine serializes.

The engine hands its result over as a protocol buffer only (``cel.expr.CheckedExpr`` in a ``google.protobuf.Any``,
https://github.com/google/cel-spec/blob/master/proto/cel/expr/checked.proto); the few fields needed are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import msgspec

from webhook.core.cel.values import Duration, Timestamp, Uint

_DYN: Final = b"\x0a\x00"
_Field: TypeAlias = "tuple[int, int | bytes]"


class Const(msgspec.Struct, frozen=True):
    """A literal."""

    value: Any


class Ident(msgspec.Struct, frozen=True):
    """A variable, or the name of a type."""

    name: str


class Select(msgspec.Struct, frozen=True):
    """``operand.field``; ``has(operand.field)`` when ``test_only``."""

    operand: Node
    field: str
    test_only: bool


class Call(msgspec.Struct, frozen=True):
    """A function or an operator; the target of a method comes first among the arguments."""

    function: str
    arguments: tuple[Node, ...]


class ListOf(msgspec.Struct, frozen=True):
    """A list literal; ``optional`` holds the positions of its ``?elements``."""

    elements: tuple[Node, ...]
    optional: frozenset[int]
    mixed: bool


class MapOf(msgspec.Struct, frozen=True):
    """A map literal: key, value, and whether it is a ``?key``."""

    entries: tuple[tuple[Node, Node, bool], ...]
    mixed: bool


class Message(msgspec.Struct, frozen=True):
    """A message literal."""

    name: str


class Comprehension(msgspec.Struct, frozen=True):
    """What ``all``, ``exists``, ``map``, ``filter`` and ``optMap`` expand to."""

    variable: str
    range: Node
    accumulator: str
    initial: Node
    condition: Node
    step: Node
    result: Node


Node: TypeAlias = "Const | Ident | Select | Call | ListOf | MapOf | Message | Comprehension"


def decode(serialized: bytes) -> Node:
    """The tree of an expression, from ``Expression.serialize()``."""
    checked = _bytes(dict(_fields(serialized))[2])
    types: dict[int, bytes] = {}
    root = b""
    for number, value in _fields(checked):
        if number == 3:
            entry = dict(_fields(_bytes(value)))
            types[int(entry.get(1, 0))] = _bytes(entry.get(2, b""))
        elif number == 4:
            root = _bytes(value)
    return _Reader(types).node(root)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below a node."""
    match node:
        case Select():
            return (node.operand,)
        case Call():
            return node.arguments
        case ListOf():
            return node.elements
        case MapOf():
            return tuple(part for key, value, _ in node.entries for part in (key, value))
        case Comprehension():
            return (node.range, node.initial, node.condition, node.step, node.result)
        case _:
            return ()


def size(node: Node) -> int:
    """How many nodes there are, this one included."""
    return 1 + sum(map(size, children(node)))


class _Reader:
    def __init__(self, types: dict[int, bytes]) -> None:
        self._types = types

    def node(self, raw: bytes) -> Node:
        for number, value in _fields(raw):
            if number == 2:
                continue
            body = _bytes(value)
            match number:
                case 3:
                    return Const(_constant(body))
                case 4:
                    return Ident(_text(dict(_fields(body)).get(1, b"")))
                case 5:
                    return self._select(body)
                case 6:
                    return self._call(body)
                case 7:
                    return self._list(body)
                case 8:
                    return self._struct(body)
                case 9:
                    return self._comprehension(body)
        raise ValueError("an expression of an unknown kind")

    def _select(self, body: bytes) -> Node:
        parts = dict(_fields(body))
        return Select(self.node(_bytes(parts[1])), _text(parts[2]), bool(parts.get(3, 0)))

    def _call(self, body: bytes) -> Node:
        function, target, arguments = "", [], []
        for number, value in _fields(body):
            if number == 1:
                target.append(self.node(_bytes(value)))
            elif number == 2:
                function = _text(value)
            else:
                arguments.append(self.node(_bytes(value)))
        return Call(function, (*target, *arguments))

    def _list(self, body: bytes) -> Node:
        raw: list[bytes] = []
        optional: set[int] = set()
        for number, value in _fields(body):
            if number == 1:
                raw.append(_bytes(value))
            elif isinstance(value, bytes):
                optional.update(_packed(value))
            else:
                optional.add(value)
        return ListOf(tuple(map(self.node, raw)), frozenset(optional), self._mixed(raw))

    def _struct(self, body: bytes) -> Node:
        raw_keys: list[bytes] = []
        raw_values: list[bytes] = []
        entries: list[tuple[Node, Node, bool]] = []
        for number, value in _fields(body):
            if number == 1:
                return Message(_text(value))
            parts = dict(_fields(_bytes(value)))
            raw_keys.append(_bytes(parts[3]))
            raw_values.append(_bytes(parts[4]))
            entries.append((self.node(raw_keys[-1]), self.node(raw_values[-1]), bool(parts.get(5, 0))))
        return MapOf(tuple(entries), self._mixed(raw_keys) or self._mixed(raw_values))

    def _comprehension(self, body: bytes) -> Node:
        parts = dict(_fields(body))
        nodes = {number: self.node(_bytes(parts[number])) for number in (2, 4, 5, 6, 7)}
        return Comprehension(
            _text(parts.get(1, b"")), nodes[2], _text(parts.get(3, b"")), nodes[4], nodes[5], nodes[6], nodes[7]
        )

    def _mixed(self, elements: list[bytes]) -> bool:
        """Whether elements are of different types one of which is a basic one, as in ``[1, 'a']`` and ``[1, dyn(1)]``."""
        found = {self._types.get(int(dict(_fields(raw)).get(2, 0)), _DYN) for raw in elements}
        basic = any(number == 3 for kind in found for number, _ in _fields(kind))
        return basic and len(found) > 1


def _constant(body: bytes) -> Any:
    for number, value in _fields(body):
        match number:
            case 1:
                return None
            case 2:
                return bool(value)
            case 3:
                return _signed(value)
            case 4:
                return Uint(int(value))
            case 5:
                return struct.unpack("<d", _bytes(value))[0]
            case 6:
                return _text(value)
            case 7:
                return _bytes(value)
            case 8 | 9:
                parts = dict(_fields(_bytes(value)))
                nanos = _signed(parts.get(1, 0)) * 1_000_000_000 + _signed(parts.get(2, 0))
                return Duration(nanos) if number == 8 else Timestamp(nanos)
    return None


def _fields(raw: bytes) -> Iterator[_Field]:
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        match key & 7:
            case 0:
                value, position = _varint(raw, position)
                yield key >> 3, value
            case 1:
                yield key >> 3, raw[position : position + 8]
                position += 8
            case 2:
                length, position = _varint(raw, position)
                yield key >> 3, raw[position : position + length]
                position += length
            case 5:
                yield key >> 3, raw[position : position + 4]
                position += 4
            case _:
                raise ValueError("not a protocol buffer")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def _packed(raw: bytes) -> Iterator[int]:
    position = 0
    while position < len(raw):
        value, position = _varint(raw, position)
        yield value


def _signed(value: int | bytes) -> int:
    number = int(value)
    return number - (1 << 64) if number >= 1 << 63 else number


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("not a protocol buffer of the expected shape")
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()
