"""A suite as it is written in YAML: its fields, and a clear word on those that are wrong.

``docs/policy-suite.schema.json`` is made from these classes: ``stepup policy test --print-schema``.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from webhook.core.durations import parse_seconds

Text = Annotated[str, msgspec.Meta(min_length=1)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Json = dict[str, Any]
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


class SuiteError(Exception):
    """A suite cannot be used.

    Args:
        field: path into the suite, such as ``cases[2].expect.outcome``; empty for the whole file.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    pass


class NamespaceEntry(_Strict, frozen=True, kw_only=True):
    """A namespace that there is."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class UserEntry(_Strict, frozen=True, kw_only=True):
    """Who can ask: a person, or a service account (``namespace/name``).

    Args:
        username: the entry's own name by default.
        credential: what the API server told them by; ``none`` is what an impersonated user has.
    """

    username: str = ""
    groups: tuple[str, ...] = ()
    service_account: Annotated[str, msgspec.Meta(pattern="^([^/]+/[^/]+)?$")] = ""
    credential: Literal["certificate", "token", "none", ""] = ""


class Proof(_Strict, frozen=True, kw_only=True):
    """A step-up that the person has made.

    Args:
        age: how long ago; a duration such as ``2m``.
        scope: how wide it was asked for.
        operations: classes that it is for; those of the request by default.
        used: whether, and for which change, it has been used a minute ago.
        credential: the one that asked for it.
    """

    assurance: Literal["aal1", "aal2", "aal3"] = "aal2"
    age: str = "0s"
    scope: Literal["Object", "Resource", "Namespace"] = "Object"
    operations: tuple[str, ...] = ()
    used: Literal["never", "for-this", "for-another"] = "never"
    credential: Literal["own", "another"] = "own"
    reason: str = ""


class ExpectedReason(_Strict, frozen=True, kw_only=True):
    """What a reason is expected to be; fields that are absent are not looked at."""

    required: bool | None = None
    patterns: tuple[str, ...] | None = None


class ExpectedRequirement(_Strict, frozen=True, kw_only=True):
    """What is expected to be asked for; fields that are absent are not looked at."""

    assurance: str | None = None
    max_age: str | None = None
    use: str | None = None
    scope: str | None = None
    reason: ExpectedReason = ExpectedReason()


class Expected(_Strict, frozen=True, kw_only=True):
    """What policies should say; fields that are absent are not looked at.

    Args:
        policies: all that have a say, those that exempt too, in any order.
        rule: the one rule that asks, or all that do, in any order.
        operations: the classes of the request, in any order.
        code: the stable code of the answer.
    """

    outcome: Literal["allow", "refuse", "warn", "audit"]
    policies: tuple[str, ...] | None = None
    rule: str | tuple[str, ...] | None = None
    operations: tuple[str, ...] | None = None
    code: str | None = None
    requirement: ExpectedRequirement = ExpectedRequirement()


class Case(_Strict, frozen=True, kw_only=True):
    """A request, and what is expected. The request is one of ``do``, ``review``, or ``object`` and ``oldObject``.

    Args:
        user: name of an entry of ``users``; with ``review`` it may be absent, and is the recorded one then.
        do: as it is typed after ``kubectl``, such as ``delete deployments.apps/web -n prod``.
        review: file with a recorded AdmissionReview (JSON).
        operation: by default CREATE with ``object`` alone, UPDATE with both, DELETE with ``oldObject`` alone.
        resource: plural name and group (``clusters.cnpg.io``), where the kind does not tell it.
        at: when; the suite's time by default.
    """

    name: Text
    user: str = msgspec.field(default="", name="as")
    do: str = ""
    review: str = ""
    operation: Literal["CREATE", "UPDATE", "DELETE", ""] = ""
    object: Json | None = None
    old_object: Json | None = None
    resource: str = ""
    at: Moment | None = None
    proof: Proof | None = None
    expect: Expected


class Suite(_Strict, frozen=True, kw_only=True):
    """A suite of cases for policies.

    Args:
        policies: files, relative to the suite's own.
        namespaces: those that there are, by name.
        objects: those that there are: in place, or files relative to the suite's own.
        at: when the cases happen; the present by default.
    """

    name: str = ""
    policies: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    namespaces: dict[str, NamespaceEntry] = {}
    users: dict[str, UserEntry] = {}
    objects: tuple[Json | str, ...] = ()
    at: Moment | None = None
    cases: Annotated[tuple[Case, ...], msgspec.Meta(min_length=1)]


def read_suite(text: bytes) -> Suite:
    """Read a suite.

    Raises:
        SuiteError: it cannot be used; ``field`` says where.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise SuiteError(f"line {mark.line + 1}" if mark else "", "is not YAML") from error
    try:
        suite = msgspec.convert(value, Suite)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    _check(suite)
    return suite


def schema() -> Json:
    """The JSON schema of suites (draft 2020-12)."""
    found = msgspec.json.schema(Suite)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kube-stepup policy suite", **found}


def beside(suite_file: Path, name: str) -> Path:
    """A file that a suite names."""
    return suite_file.parent / name


def _explained(text: str) -> SuiteError:
    problem, _, path = text.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    for pattern, message in ((_UNKNOWN, "there is no such field"), (_MISSING, "is required")):
        if found := pattern.fullmatch(problem):
            return SuiteError(f"{field}.{found[1]}".lstrip("."), message)
    return SuiteError(field, problem[:1].lower() + problem[1:])


def _check(suite: Suite) -> None:
    seen: set[str] = set()
    for position, case in enumerate(suite.cases):
        field = f"cases[{position}]"
        if case.name in seen:
            raise SuiteError(f"{field}.name", f"there are two cases called {case.name!r}")
        seen.add(case.name)
        inline = case.object is not None or case.old_object is not None
        if bool(case.do) + bool(case.review) + inline != 1:
            raise SuiteError(field, "needs a request: one of `do`, `review`, or `object` and `oldObject`")
        if not case.user and not case.review:
            raise SuiteError(f"{field}.as", "is required")
        if case.user and case.user not in suite.users:
            raise SuiteError(f"{field}.as", f"{case.user} is none of `users`")
        if (case.operation or case.resource) and not inline:
            raise SuiteError(field, "`operation` and `resource` go with `object` and `oldObject`")
        _check_duration(case.proof.age if case.proof else "0s", f"{field}.proof.age")
        _check_duration(case.expect.requirement.max_age or "0s", f"{field}.expect.requirement.maxAge")


def _check_duration(text: str, field: str) -> None:
    try:
        parse_seconds(text)
    except ValueError as error:
        raise SuiteError(field, str(error)) from error
