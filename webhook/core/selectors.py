"""Kubernetes label selectors and globs, compiled once.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from webhook.errors import PolicyError

Labels = Mapping[str, str]
Matcher = Callable[[str], bool]


class SelectorRequirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of ``matchExpressions``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``metav1.LabelSelector``; an empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorRequirement, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it selects everything."""
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(_holds(requirement, labels) for requirement in self.match_expressions)

    def check(self, field: str) -> None:
        """Refuse operators that do not exist and values that they do not take.

        Raises:
            PolicyError: naming the field.
        """
        for position, requirement in enumerate(self.match_expressions):
            where = f"{field}.matchExpressions[{position}]"
            if requirement.operator not in {"In", "NotIn", "Exists", "DoesNotExist"}:
                raise PolicyError("must be In, NotIn, Exists or DoesNotExist", field=f"{where}.operator")
            if requirement.operator in {"In", "NotIn"} and not requirement.values:
                raise PolicyError(f"{requirement.operator} needs at least one value", field=f"{where}.values")
            if requirement.operator in {"Exists", "DoesNotExist"} and requirement.values:
                raise PolicyError(f"{requirement.operator} takes no values", field=f"{where}.values")


def _holds(requirement: SelectorRequirement, labels: Labels) -> bool:
    match requirement.operator:
        case "In":
            return labels.get(requirement.key) in requirement.values
        case "NotIn":
            return labels.get(requirement.key) not in requirement.values
        case "Exists":
            return requirement.key in labels
        case _:
            return requirement.key not in labels


def any_glob(patterns: Iterable[str]) -> Matcher:
    """A function that tells whether a text matches one of the globs (``*``, ``?``, ``[…]``; case matters)."""
    exact: set[str] = set()
    globs: list[str] = []
    for pattern in patterns:
        if pattern == "*":
            return _always
        if any(letter in pattern for letter in "*?["):
            globs.append(fnmatch.translate(pattern))
        else:
            exact.add(pattern)
    if not globs:
        return exact.__contains__
    compiled = re.compile("|".join(globs))
    return lambda text: text in exact or compiled.match(text) is not None


def _always(_: str) -> bool:
    return True
