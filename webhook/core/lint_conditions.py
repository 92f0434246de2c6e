"""Conditions that say the same of every request, or that cannot all be true."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from webhook.core.cel import Activation, Condition, Facts
from webhook.core.cel.ast import Call, Const, Ident, Node, Select, children
from webhook.core.cel.fields import ROOTS
from webhook.core.policy import Policy, Rule
from webhook.core.request import AdmissionRequest, GroupVersionKind, GroupVersionResource, UserInfo

_AND: Final = "_&&_"
_EQUALS: Final = "_==_"
_NOBODY: Final = AdmissionRequest(
    uid="lint", kind=GroupVersionKind(), resource=GroupVersionResource(), operation="CREATE"
)


def condition_warnings(policy: Policy, rule: Rule) -> Iterator[tuple[str, str, str]]:
    """Code, field and text of each mistake in a rule's conditions."""
    conditions = rule.conditions.all
    constant = {one: _value(one) for one in conditions if _is_constant(one.node)}
    for one, value in constant.items():
        if value is None:
            yield "constant-condition", one.field, "can never be evaluated, so it counts as true"
        elif value:
            yield "constant-condition", one.field, "is true whatever is done: leave it out"
        else:
            yield "matches-nothing", one.field, "is false whatever is done: the rule never applies"
    wanted: dict[Node, Const] = {}
    for path, literal, where in _equalities(conditions):
        other = wanted.setdefault(path, literal)
        if other.value != literal.value:
            text = f"cannot be true together with {other.value!r}: the rule applies only where neither can be evaluated"
            yield "matches-nothing", where, text
        elif path == Select(Ident("operation"), "class", test_only=False) and literal.value not in rule.operations:
            yield "matches-nothing", where, f"the rule is not about {literal.value}: it never applies"
        elif _is_exempt(policy, path, literal.value):
            yield "exempt-swallows", where, f"{literal.value} is exempt: the rule never applies"


def _is_constant(node: Node) -> bool:
    if isinstance(node, Ident):
        return node.name not in ROOTS and not node.name.startswith("variables.")
    return all(map(_is_constant, children(node)))


def _value(condition: Condition) -> bool | None:
    """What it comes to; None when it fails."""
    facts = Facts(_NOBODY, lambda _: None)
    value = condition.holds(Activation(facts))
    return None if facts.failures else value


def _equalities(conditions: Iterable[Condition]) -> Iterator[tuple[Node, Const, str]]:
    """Paths that must equal a literal for the rule to apply, with the field that says so."""
    for condition in conditions:
        waiting = [condition.node]
        while waiting:
            node = waiting.pop(0)
            if isinstance(node, Call) and node.function == _AND:
                waiting += node.arguments
            elif isinstance(node, Call) and node.function == _EQUALS:
                left, right = node.arguments
                for path, literal in ((left, right), (right, left)):
                    if _is_path(path) and isinstance(literal, Const):
                        yield path, literal, condition.field


def _is_path(node: Node) -> bool:
    if isinstance(node, Ident):
        return node.name in ROOTS or node.name.startswith("variables.")
    return isinstance(node, Select) and not node.test_only and _is_path(node.operand)


def _is_exempt(policy: Policy, path: Node, value: Any) -> bool:
    """Whether whoever has this username passes as exempt, whatever credential they come with."""
    username = Select(Select(Ident("request"), "userInfo", test_only=False), "username", test_only=False)
    if path != username or not isinstance(value, str):
        return False
    return policy.exempt.include(msgspec.structs.replace(UserInfo(), username=value))
