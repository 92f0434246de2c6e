"""Kubernetes' library of named formats of strings: format.dns1123Label().validate(text).

https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-format-library
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from webhook.core.cel.networks import parse_url
from webhook.core.cel.values import NONE, CelError, Function, Opaque, Optional, expect, no_overload


class Format(Opaque):
    """A named format of strings."""

    type_name = "kubernetes.NamedFormat"
    __slots__ = ("name", "problem")

    def __init__(self, name: str, problem: Function) -> None:
        self.name = name
        self.problem = problem

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Format) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_QUALIFIED: Final = r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"


def _shaped(expression: str, limit: int, *, prefix: bool = False) -> Function:
    shape = re.compile(expression, re.ASCII)

    def problem(text: str) -> bool:
        if prefix and len(text) > 1 and text.endswith("-"):
            text = text[:-2] + "a"
        return len(text.encode()) > limit or shape.fullmatch(text) is None

    return problem


def _is_no_qualified_name(text: str) -> bool:
    before, slash, name = text.rpartition("/")
    if slash and ("/" in before or _SUBDOMAIN(before)):
        return True
    return bool(_shaped(_QUALIFIED, 63)(name))


def _is_no_uri(text: str) -> bool:
    try:
        parse_url(text)
    except CelError:
        return True
    return False


def _is_no_date(text: str) -> bool:
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is None:
        return True
    try:
        date.fromisoformat(text)
    except ValueError:
        return True
    return False


def _is_no_datetime(text: str) -> bool:
    day, letter, time = text.lower().partition("t")
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)(?:.\d+)?(?:z|[+-]\d\d:\d\d)", time, re.ASCII)
    if not letter or match is None or _is_no_date(day):
        return True
    hour, minute, second = (int(part) for part in match.groups())
    return hour > 23 or minute > 59 or second > 59


_SUBDOMAIN: Final = _shaped(rf"{_LABEL}(?:\.{_LABEL})*", 253)
_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"
_UUID: Final = r"(?i:[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12})"
_ANY: Final = 1 << 24
FORMATS: Final[Mapping[str, Format]] = {
    name: Format(name, problem)
    for name, problem in {
        "dns1123Label": _shaped(_LABEL, 63),
        "dns1123LabelPrefix": _shaped(_LABEL, 63, prefix=True),
        "dns1123Subdomain": _SUBDOMAIN,
        "dns1123SubdomainPrefix": _shaped(rf"{_LABEL}(?:\.{_LABEL})*", 253, prefix=True),
        "dns1035Label": _shaped(r"[a-z](?:[-a-z0-9]*[a-z0-9])?", 63),
        "dns1035LabelPrefix": _shaped(r"[a-z](?:[-a-z0-9]*[a-z0-9])?", 63, prefix=True),
        "qualifiedName": _is_no_qualified_name,
        "labelValue": _shaped(rf"(?:{_QUALIFIED})?", 63),
        "uri": _is_no_uri,
        "uuid": _shaped(_UUID, _ANY),
        "byte": _shaped(_BASE64, _ANY),
        "date": _is_no_date,
        "datetime": _is_no_datetime,
    }.items()
}


def _named(name: Any) -> Optional:
    expect("format.named", str, name)
    return Optional.of(FORMATS[name]) if name in FORMATS else NONE


def _validate(form: Any, text: Any) -> Optional:
    if type(form) is not Format or type(text) is not str:
        raise no_overload("validate", form, text)
    return Optional.of([f"is not of the format {form.name}"]) if form.problem(text) else NONE


FUNCTIONS: Final[Mapping[str, Function]] = {
    "format.named": _named,
    "validate": _validate,
    **{f"format.{name}": (lambda form=form: form) for name, form in FORMATS.items()},
}
