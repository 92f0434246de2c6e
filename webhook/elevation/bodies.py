"""What people send to the aggregated API, checked field by field. Everything here is unverified until it has been read."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from webhook.core.assertion import DETAIL_TYPE, AuthorizationDetail
from webhook.core.operation import OPERATIONS, plain
from webhook.core.preview import KnownObject
from webhook.core.raw import FORM, canonical, is_concrete, is_raw, kind_of
from webhook.core.requirement import SCOPES
from webhook.errors import RequestError

MAX_OBJECTS: Final = 50
MAX_REASON_LETTERS: Final = 1024
MAX_NAME_LETTERS: Final = 253
MAX_TOKEN_LETTERS: Final = 16 * 1024
SUBJECT_TOKEN_TYPES: Final = (  # RFC 8693 section 3
    "urn:ietf:params:oauth:token-type:id_token",
    "urn:ietf:params:oauth:token-type:jwt",
)
# All for fullmatch: `$` would let a newline at the end pass.
DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
UID: Final = re.compile(r"[!-~]{0,64}")
DIGEST: Final = re.compile(r"[0-9a-f]{16,64}")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class WantedObject(_Strict, frozen=True):
    """One object by name."""

    name: str
    uid: str = ""
    digest: str = ""
    change: str = ""


class WantedDetail(_Strict, frozen=True):
    """One operation that somebody wants to be good for."""

    operation: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    scope: str = "Object"
    objects: tuple[WantedObject, ...] = ()

    def checked(self, field: str) -> None:
        """Refuse what cannot be meant.

        Raises:
            RequestError: ``invalid``, naming the field.
        """
        self._check_operation(f"{field}.operation")
        _expect(self.scope in SCOPES, f"{field}.scope", f"must be one of {', '.join(SCOPES)}")
        _expect(
            not self.group or DNS_NAME.fullmatch(self.group),
            f"{field}.group",
            "must be an API group, or empty for core",
        )
        _expect(
            not self.namespace or DNS_LABEL.fullmatch(self.namespace),
            f"{field}.namespace",
            "must be a namespace, or empty",
        )
        if self.scope == "Namespace":
            _expect(bool(self.namespace), f"{field}.namespace", "is required with scope Namespace")
            _expect(not self.resource and not self.group, f"{field}.resource", "must be empty with scope Namespace")
        else:
            _expect(DNS_LABEL.fullmatch(self.resource), f"{field}.resource", "must be a plural resource name")
        if self.scope == "Object":
            _expect(1 <= len(self.objects) <= MAX_OBJECTS, f"{field}.objects", f"must name 1 to {MAX_OBJECTS} objects")
        else:
            _expect(not self.objects, f"{field}.objects", f"must be empty with scope {self.scope}")
        for position, one in enumerate(self.objects):
            where = f"{field}.objects[{position}]"
            _expect(_is_name(one.name), f"{where}.name", "must be the name of an object")
            _expect(UID.fullmatch(one.uid), f"{where}.uid", "must be a uid")
            _expect(
                not one.digest or DIGEST.fullmatch(one.digest), f"{where}.digest", "must be 16 to 64 hexadecimal digits"
            )
            _expect(one.change == plain(one.change), f"{where}.change", "must be as the refusal words it")
            _expect(one.digest or not one.change, f"{where}.change", "needs the digest of the change beside it")

    def _check_operation(self, field: str) -> None:
        known = self.operation in OPERATIONS or is_concrete(self.operation)
        _expect(known, field, f"must be one of {', '.join(OPERATIONS)}, or {FORM} without wildcards")
        if is_raw(self.operation) and self.scope != "Namespace":
            same = kind_of(self.operation) == (self.group, self.resource)
            _expect(same, field, "must be about the same group and resource as the objects")


class WantedElevation(_Strict, frozen=True):
    """``spec`` of an ElevationRequest."""

    details: tuple[WantedDetail, ...]
    reason: str = ""

    def checked(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            RequestError: ``invalid``, naming the field.
        """
        _expect(1 <= len(self.details) <= MAX_OBJECTS, "spec.details", f"must have 1 to {MAX_OBJECTS} entries")
        for position, one in enumerate(self.details):
            one.checked(f"spec.details[{position}]")
        total = sum(len(one.objects) for one in self.details)
        _expect(total <= MAX_OBJECTS, "spec.details", f"name {total} objects; {MAX_OBJECTS} at most")
        _expect(
            len(self.reason) <= MAX_REASON_LETTERS, "spec.reason", f"must have at most {MAX_REASON_LETTERS} letters"
        )
        printable = all(letter.isprintable() for letter in self.reason)
        _expect(printable, "spec.reason", "must be one line of printable letters")

    def authorization_details(self) -> list[AuthorizationDetail]:
        """The details in the form that policies and assertions use."""
        plain = [
            {**msgspec.to_builtins(one), "operation": canonical(one.operation), "type": DETAIL_TYPE}
            for one in self.details
        ]
        return msgspec.convert(plain, list[AuthorizationDetail])


class WantedExchange(WantedElevation, frozen=True):
    """``spec`` of a TokenExchange (RFC 8693, in the form of the Kubernetes API)."""

    subject_token: str = ""
    subject_token_type: str = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - the name of a type

    def checked(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            RequestError: ``invalid``, naming the field.
        """
        super().checked()
        known = self.subject_token_type in SUBJECT_TOKEN_TYPES
        _expect(known, "spec.subjectTokenType", f"must be {' or '.join(SUBJECT_TOKEN_TYPES)}")
        _expect(len(self.subject_token) <= MAX_TOKEN_LETTERS, "spec.subjectToken", "is too large for a token")

    def __repr__(self) -> str:
        return f"WantedExchange(details={self.details!r})"


class WantedMetadata(_Strict, frozen=True):
    """What the person can read of the one object that a review is about."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class WantedReview(WantedElevation, frozen=True):
    """``spec`` of an ElevationReview."""

    object: WantedMetadata | None = None

    def checked(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            RequestError: ``invalid``, naming the field.
        """
        super().checked()
        names = {(one.namespace, one.resource, target.name) for one in self.details for target in one.objects}
        _expect(
            self.object is None or len(names) == 1,
            "spec.object",
            "is of one object, and the details name another number",
        )

    def known_object(self) -> KnownObject | None:
        """The object's metadata in the form that policies are asked with."""
        return None if self.object is None else KnownObject(self.object.labels, self.object.annotations)


class Answer(_Strict, frozen=True):
    """``spec`` of a ChallengeAnswer: a code, or what came of a page.

    Args:
        page: name of the page.
        credential: what the browser gave (PublicKeyCredential as JSON); None where the page was answered elsewhere.
    """

    code: str = ""
    factor: str = "totp"
    page: str = ""
    credential: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _require_code_or_page(self.code, self.page)

    def __repr__(self) -> str:
        return f"Answer(factor={self.factor!r})"


class ApprovalAnswer(_Strict, frozen=True):
    """``spec`` of an Approval: the approver's own proof, and what they were shown (``status.seen``)."""

    code: str
    seen: str
    factor: str = "totp"
    reason: str = ""

    def __repr__(self) -> str:
        return f"ApprovalAnswer(factor={self.factor!r})"


class Denial(_Strict, frozen=True):
    """``spec`` of an ApprovalDenial."""

    reason: str = ""


def check_reason(reason: str) -> None:
    """Refuse a reason that is no line of text.

    Raises:
        RequestError: ``invalid``.
    """
    _expect(len(reason) <= MAX_REASON_LETTERS, "spec.reason", f"must have at most {MAX_REASON_LETTERS} letters")
    _expect(all(map(str.isprintable, reason)), "spec.reason", "must be one line of printable letters")


class WantedAuthenticator(_Strict, frozen=True):
    """``spec`` of an Authenticator."""

    type: str = "totp"
    name: str = ""
    ticket: str = ""
    assertion: str = ""

    def __repr__(self) -> str:
        return f"WantedAuthenticator(type={self.type!r})"


class ConfirmationCode(_Strict, frozen=True):
    """``spec`` of an AuthenticatorConfirmation: the first code, or what came of a page."""

    code: str = ""
    page: str = ""
    credential: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _require_code_or_page(self.code, self.page)

    def __repr__(self) -> str:
        return "ConfirmationCode()"


class WantedPage(_Strict, frozen=True):
    """``spec`` of a Page: what it is to be about, and the local address at which it could be served.

    Args:
        elevation, authenticator: one of them; neither for the page of what is one's own.
        enrolment_secret: what the beginning of the authenticator's enrolment told.
        local_origin: ``http://localhost:PORT`` of the terminal.
    """

    elevation: str = ""
    authenticator: str = ""
    enrolment_secret: str = ""
    local_origin: str = ""

    def __repr__(self) -> str:
        return f"WantedPage(elevation={self.elevation!r}, authenticator={self.authenticator!r})"


class Username(_Strict, frozen=True):
    """``spec`` of what operators do to somebody's authenticators."""

    username: str
    ttl_seconds: int = 3600


Body = TypeVar("Body")


def spec_of(body: Any, kind: str, form: type[Body]) -> Body:
    """The ``spec`` of a posted object.

    Raises:
        RequestError: ``invalid``, naming the field.
    """
    if not isinstance(body, dict) or body.get("kind") not in (None, kind):
        raise invalid("kind", f"must be {kind}")
    try:
        return msgspec.convert(body.get("spec") or {}, form)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise invalid("spec" + path.rstrip("`"), text[:1].lower() + text[1:]) from error


def invalid(field: str, text: str) -> RequestError:
    """A refusal of a field."""
    return RequestError(text, code="invalid", field=field, status=422, reason="Invalid")


def _require_code_or_page(code: str, page: str) -> None:
    if not code and not page:
        raise ValueError("must have a code or a page")  # a ValidationError to whoever converts


def _is_name(text: str) -> bool:
    # As loose as Kubernetes is (RBAC allows nearly everything), but nothing that a terminal would act on.
    return 1 <= len(text) <= MAX_NAME_LETTERS and text.isprintable() and "/" not in text


def _expect(holds: object, field: str, text: str) -> None:
    if not holds:
        raise invalid(field, text)
