"""The one tree of errors.

Every error carries a stable kebab-case ``code`` for machines and a text for the person who must act. Internals (paths,
stack traces, texts of other programs) never go into either: they belong to the log.
"""

from __future__ import annotations


class StepUpError(Exception):
    """Base of every error that kube-stepup raises on purpose.

    Args:
        message: one or two sentences for the person who must act: what is wrong and the way out.
        code: stable kebab-case code; the class's own by default.
        field: path of the offending field, such as ``spec.rules[0].require.maxAge``; empty when there is none.
    """

    code = "internal-error"

    def __init__(self, message: str, *, code: str | None = None, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field
        if code is not None:
            self.code = code


class ConfigurationError(StepUpError):
    """The program was started with settings that cannot work."""

    code = "bad-configuration"


class PolicyError(StepUpError):
    """A StepUpPolicy cannot be used as it stands."""

    code = "bad-policy"


class ReviewError(StepUpError):
    """An AdmissionReview cannot be read; it is answered with a denial."""

    code = "bad-review"


class RequestError(StepUpError):
    """A person asked the elevation service for something that it cannot do.

    Args:
        status: the HTTP status and metav1.Status code of the answer.
        reason: the metav1.Status reason, such as ``Invalid``.
        retry_after_seconds: when trying again makes sense; None when it does not.
    """

    code = "bad-request"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str = "",
        status: int = 400,
        reason: str = "BadRequest",
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message, code=code, field=field)
        self.status = status
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailableError(StepUpError):
    """The Kubernetes API could not be reached, or refused us; nothing was decided and nothing was lost."""

    code = "store-unavailable"


class ConflictError(StoreUnavailableError):
    """Somebody else changed the object first (compare-and-swap lost); read again and decide again."""

    code = "conflict"
