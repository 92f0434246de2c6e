"""What is asked: an AdmissionReview (``admission.k8s.io/v1``), decoded only as far as the decision needs it.

The two objects stay raw bytes until somebody looks at them: most requests are decided by operation and resource alone.
Field names and meaning: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

from typing import Any

import msgspec

from webhook.errors import ReviewError

MAX_REVIEW_BYTES = 7 * 1024 * 1024
"""A request is at most 3 MiB, a review carries the object twice, and its envelope; controller-runtime uses the same cap."""

API_VERSION = "admission.k8s.io/v1"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_ABSENT = msgspec.Raw(b"null")


class UserInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as the API server authenticated it."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}

    @property
    def credential_id(self) -> str:
        """``X509SHA256=…`` or ``JTI=…``; empty under impersonation and for credentials that have none."""
        values = self.extra.get(CREDENTIAL_ID) or ()
        return values[0] if len(values) == 1 else ""

    def first_extra(self, key: str) -> str:
        """The only value of an extra attribute; empty when it is absent or ambiguous."""
        values = (self.extra.get(key) or ()) if key else ()
        return values[0] if len(values) == 1 else ""


class GroupVersionKind(msgspec.Struct, frozen=True):
    """A kind by group and version; the core group is empty."""

    group: str = ""
    version: str = ""
    kind: str = ""


class GroupVersionResource(msgspec.Struct, frozen=True):
    """A resource by group and version; the core group is empty."""

    group: str = ""
    version: str = ""
    resource: str = ""


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    """Whose end is the end of an object, too."""

    uid: str = ""
    kind: str = ""
    name: str = ""


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    """The metadata that decisions read."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


class ObjectHead(msgspec.Struct, frozen=True, rename="camel"):
    """Any object: its metadata, and its body still raw."""

    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
    spec: msgspec.Raw = _ABSENT
    template: msgspec.Raw = _ABSENT


class DeleteOptions(msgspec.Struct, frozen=True, rename="camel"):
    """How the objects that a deleted one owns are dealt with."""

    propagation_policy: str = ""
    orphan_dependents: bool | None = None


class AdmissionRequest(msgspec.Struct, rename="camel", kw_only=True, dict=True):
    """The request inside a review."""

    uid: str
    kind: GroupVersionKind
    resource: GroupVersionResource
    operation: str
    user_info: UserInfo = UserInfo()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    object: msgspec.Raw = _ABSENT
    old_object: msgspec.Raw = _ABSENT
    options: msgspec.Raw = _ABSENT
    dry_run: bool | None = None
    request_kind: GroupVersionKind | None = None
    request_resource: GroupVersionResource | None = None
    request_sub_resource: str = ""

    def new_head(self) -> ObjectHead | None:
        """Head of ``object``; None when the review has none."""
        head: ObjectHead | None = self.__dict__.get("_new", _UNREAD)
        if head is _UNREAD:
            head = self.__dict__["_new"] = _head(self.object)
        return head

    def old_head(self) -> ObjectHead | None:
        """Head of ``oldObject``; None when the review has none."""
        head: ObjectHead | None = self.__dict__.get("_old", _UNREAD)
        if head is _UNREAD:
            head = self.__dict__["_old"] = _head(self.old_object)
        return head

    def body(self) -> dict[str, Any]:
        """``object`` decoded whole; empty when the review has none."""
        return _mapping(self.object)

    def old_body(self) -> dict[str, Any]:
        """``oldObject`` decoded whole; empty when the review has none."""
        return _mapping(self.old_object)

    def delete_options(self) -> DeleteOptions:
        """``options`` of a DELETE; the defaults when there are none, or when they cannot be read."""
        try:
            return _options_decoder.decode(self.options)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return DeleteOptions()


class AdmissionReview(msgspec.Struct, rename="camel"):
    """The envelope that the API server posts."""

    api_version: str = ""
    kind: str = ""
    request: AdmissionRequest | None = None


class _UidOnly(msgspec.Struct):
    uid: str = ""


class _ReviewUid(msgspec.Struct):
    request: _UidOnly | None = None


_UNREAD: Any = object()
_review_decoder = msgspec.json.Decoder(AdmissionReview)
_uid_decoder = msgspec.json.Decoder(_ReviewUid)
_head_decoder = msgspec.json.Decoder(ObjectHead)
_options_decoder = msgspec.json.Decoder(DeleteOptions)
_any_decoder = msgspec.json.Decoder()


def decode(body: bytes) -> AdmissionRequest:
    """Read a review.

    Raises:
        ReviewError: with code ``too-large``, ``malformed-review`` or ``unknown-review-version``.
    """
    if len(body) > MAX_REVIEW_BYTES:
        raise ReviewError("the review is larger than 7 MiB", code="too-large")
    try:
        review = _review_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReviewError("the body is not an AdmissionReview", code="malformed-review") from error
    if review.api_version != API_VERSION or review.kind != "AdmissionReview":
        raise ReviewError(f"only AdmissionReview of {API_VERSION} is understood", code="unknown-review-version")
    if review.request is None or not review.request.uid:
        raise ReviewError("the review has no request, or the request has no uid", code="malformed-review")
    return review.request


def uid_of(body: bytes) -> str:
    """The request's uid out of a review that is otherwise unusable, so that the denial can echo it; empty if none."""
    try:
        review = _uid_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return review.request.uid if review.request else ""


def _head(raw: msgspec.Raw) -> ObjectHead | None:
    if bytes(raw) in {b"null", b""}:
        return None
    try:
        return _head_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReviewError("an object in the review has no readable metadata", code="malformed-review") from error


def _mapping(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        value = _any_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReviewError("an object in the review is not JSON", code="malformed-review") from error
    return value if isinstance(value, dict) else {}
