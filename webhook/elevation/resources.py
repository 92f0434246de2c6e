"""The resources of the aggregated API in one table: discovery, OpenAPI and routing are made from it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

GROUP: Final = "elevation.kube-stepup.io"
VERSION: Final = "v1alpha1"
GROUP_VERSION: Final = f"{GROUP}/{VERSION}"
JSON = dict[str, Any]


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One resource or subresource.

    Args:
        name: as in paths and RBAC, ``elevationrequests/answer`` for a subresource.
        spec, status: JSON schemas of the two halves of the object.
    """

    name: str
    kind: str
    description: str
    verbs: tuple[str, ...]
    spec: JSON
    status: JSON
    short_names: tuple[str, ...] = ()
    singular: str = ""


def _text(description: str, **more: Any) -> JSON:
    return {"type": "string", "description": description, **more}


def _object(description: str, **properties: JSON) -> JSON:
    return {"type": "object", "description": description, "properties": properties}


def _array(description: str, items: JSON) -> JSON:
    return {"type": "array", "description": description, "items": items}


_TARGET = _object(
    "One object.",
    name=_text("Name of the object."),
    uid=_text("Its uid; the proof is then good for that very object."),
    digest=_text("Digest of the change; the proof is then good for that very change."),
    change=_text("The change in words, as the refusal has them; an approver reads them."),
)
_DETAIL = _object(
    "One operation on named objects, on a kind in a namespace, or on a namespace (RFC 9396).",
    operation=_text(
        "access, delete, deploy, drain, exec, guard, restart, scale, or a raw one: update:cnpg.io/clusters."
    ),
    group=_text("API group; empty for core."),
    resource=_text("Plural resource name."),
    namespace=_text("Namespace; empty for cluster-scoped objects."),
    scope=_text("Object, Resource or Namespace.", default="Object"),
    objects=_array("The objects, with scope Object.", _TARGET),
)
_STRINGS: JSON = {"type": "object", "description": "By name.", "additionalProperties": {"type": "string"}}
_ACCEPTED = {"type": "boolean", "description": "Whether the code was right."}
_CODE = _text("Stable code of the problem, such as wrong-code or too-many-attempts.")
_CREDENTIAL = {
    "type": "object",
    "description": "What the browser of a page on localhost gave (PublicKeyCredential as JSON); a page elsewhere takes it itself.",
    "x-kubernetes-preserve-unknown-fields": True,
}
_SECONDS = {"type": "integer", "format": "int32", "description": "Seconds to wait before the next try."}
_USERNAME = _text("Name that the cluster knows the person by.")

RESOURCES: Final = (
    Resource(
        name="elevationrequests",
        kind="ElevationRequest",
        singular="elevationrequest",
        short_names=("elev",),
        verbs=("create", "delete", "get", "list"),
        description="A step-up that you ask for, and what became of it. You see your own only; deleting one revokes it.",
        spec=_object(
            "What you want to do, and why.",
            details=_array("The operations.", _DETAIL),
            reason=_text("Why; some policies demand a certain form."),
        ),
        status=_object(
            "What is asked of you, and what came of it.",
            phase=_text("Pending, AwaitingApproval, Approved, Granted, Used, Expired, Denied, Revoked or NotRequired."),
            challenge=_object(
                "What policies ask for, in RFC 9470's terms (acr_values, max_age), and the factors that do."
            ),
            factor=_text("Factor that was used."),
            acr=_text("Assurance reached (NIST SP 800-63B)."),
            expiresAt=_text("When it ends.", format="date-time"),
            uses={"type": "integer", "format": "int32", "description": "How often a Once proof was used."},
            usesLeft={"type": "integer", "format": "int32", "description": "How often a Once proof can be used still."},
            message=_text("Why nothing is required, with phase NotRequired."),
        ),
    ),
    Resource(
        name="elevationrequests/answer",
        kind="ChallengeAnswer",
        verbs=("create",),
        description="Your answer to the challenge of an ElevationRequest.",
        spec=_object(
            "The proof.",
            factor=_text("webauthn, totp or recovery-code.", default="totp"),
            code=_text("The code of totp or recovery-code."),
            page=_text("Name of the Page, with webauthn."),
            credential=_CREDENTIAL,
        ),
        status=_object(
            "Whether it did, and the assertion, this once.",
            accepted=_ACCEPTED,
            code=_CODE,
            message=_text("What is wrong, and the way out."),
            retryAfterSeconds=_SECONDS,
            phase=_text("AwaitingApproval when others have to agree first."),
            elevation=_text("Name of the Elevation, and the assertion's jti."),
            assertion=_text("The signed assertion (JWT)."),
            expiresAt=_text("When it ends.", format="date-time"),
        ),
    ),
    Resource(
        name="elevationrequests/approve",
        kind="Approval",
        verbs=("create",),
        description="Your approval of somebody else's request, with a proof of your own.",
        spec=_object(
            "The proof, and what you were shown.",
            factor=_text("totp or recovery-code.", default="totp"),
            code=_text("The code."),
            seen=_text("status.seen of the ApprovalRequest."),
            reason=_text("Why; recorded."),
        ),
        status=_object(
            "What became of it.",
            accepted=_ACCEPTED,
            code=_CODE,
            message=_text("What is wrong, and the way out."),
            retryAfterSeconds=_SECONDS,
            phase=_text("AwaitingApproval (more are needed), Approved (the requester proves once more) or Granted."),
        ),
    ),
    Resource(
        name="elevationrequests/deny",
        kind="ApprovalDenial",
        verbs=("create",),
        description="Your refusal of somebody else's request, for good.",
        spec=_object("Why.", reason=_text("Shown to the requester.")),
        status=_object("What became of it.", phase=_text("Denied.")),
    ),
    Resource(
        name="approvalrequests",
        kind="ApprovalRequest",
        singular="approvalrequest",
        verbs=("get", "list"),
        description="Requests of others that wait for an approval which you can give.",
        spec=_object(
            "What it is for, exactly.",
            requester=_object("Who asks: username, clientAddress, userAgent; of a pipeline, workload."),
            reason=_text("Why, in their words."),
            operations=_array(
                "Each operation on each target, with its change where that is bound; otherwise: any change.",
                _object("One operation.", operation=_text("What."), target=_text("To what."), change=_text("Which.")),
            ),
        ),
        status=_object(
            "What is asked for.",
            phase=_text("AwaitingApproval."),
            approvals=_array(
                "Each rule: policy, rule, count, groups, and who has approved (given).", _object("One rule.")
            ),
            expiresAt=_text("When it lapses.", format="date-time"),
            seen=_text("Digest of what is shown here; an approval names it."),
        ),
    ),
    Resource(
        name="elevationrequests/revoke",
        kind="ElevationRevocation",
        verbs=("create",),
        description="Revokes anybody's elevation; for operators.",
        spec=_object("Nothing is needed."),
        status=_object("What became of it.", phase=_text("Revoked.")),
    ),
    Resource(
        name="elevationreviews",
        kind="ElevationReview",
        singular="elevationreview",
        verbs=("create",),
        description="Tells which policies would ask you for a step-up, by which rule and for what. Nothing is stored.",
        spec=_object(
            "What you would do.",
            details=_array("The operations.", _DETAIL),
            reason=_text("Not looked at."),
            object=_object(
                "Metadata of the one object, as far as you may read it; what depends on it is unknown otherwise.",
                labels=_STRINGS,
                annotations=_STRINGS,
            ),
        ),
        status=_object(
            "What policies say to it.",
            required={"type": "boolean", "description": "Whether a step-up is asked for."},
            satisfied={"type": "boolean", "description": "Whether those that you have do for all of it."},
            challenge=_object("All that is asked for, in RFC 9470's terms."),
            actions=_array(
                "Each operation on each object.",
                _object(
                    "One of them.", policies=_array("Policies that have a say.", _object("Verdict, why, and rules."))
                ),
            ),
        ),
    ),
    Resource(
        name="tokenexchanges",
        kind="TokenExchange",
        singular="tokenexchange",
        verbs=("create",),
        description="Exchanges a pipeline's token for an assertion, where a policy takes that pipeline (RFC 8693).",
        spec=_object(
            "The pipeline's token, and what it wants to do.",
            details=_array("The operations.", _DETAIL),
            reason=_text("Why; some policies demand a certain form."),
            subjectToken=_text("The OIDC token; none for a service account whose own token is bound to a pod."),
            subjectTokenType=_text("RFC 8693's name of its type: …:id_token or …:jwt."),
        ),
        status=_object(
            "What came of it; the assertion is shown this once.",
            phase=_text("Granted or NotRequired."),
            elevation=_text("Name of the Elevation, and the assertion's jti."),
            assertion=_text("The signed assertion (JWT)."),
            issuedTokenType=_text("RFC 8693's name of its type."),
            expiresAt=_text("When it ends.", format="date-time"),
            policies=_array("Policies that it meets.", {"type": "string"}),
            notMet=_array("Policies that may ask, and take no such pipeline.", {"type": "string"}),
            challenge=_object("What was asked for."),
            message=_text("Why nothing is required, with phase NotRequired."),
        ),
    ),
    Resource(
        name="authenticators",
        kind="Authenticator",
        singular="authenticator",
        verbs=("create", "delete", "get", "list"),
        description="Your authenticators. Creating one starts its enrolment; its secret is shown that once.",
        spec=_object(
            "What to bind.",
            type=_text("totp or webauthn.", default="totp"),
            name=_text("What you call it."),
            ticket=_text("One-time ticket from an operator, for the first one."),
            assertion=_text("Assertion of a step-up for access to authenticators/new, for a further one."),
        ),
        status=_object(
            "Where the enrolment stands.",
            phase=_text("Pending or Confirmed."),
            provisioningURI=_text("otpauth:// URI for your app."),
            secret=_text("The same as text (base32)."),
            enrolmentSecret=_text("With webauthn: opens the page on which the passkey is made."),
            lastUsedAt=_text("When it last proved something.", format="date-time"),
            webauthn=_object("What a passkey is like: rpID, aaguid, transports, backupEligible, attested, suspended …"),
            recoveryCodesLeft={"type": "integer", "format": "int32", "description": "Recovery codes not used yet."},
        ),
    ),
    Resource(
        name="authenticators/confirm",
        kind="AuthenticatorConfirmation",
        verbs=("create",),
        description="The first code of a new authenticator, which ends its enrolment.",
        spec=_object(
            "The proof.",
            code=_text("The first code of an app."),
            page=_text("Name of the Page on which the passkey was made."),
            credential=_CREDENTIAL,
        ),
        status=_object(
            "Whether it did.",
            accepted=_ACCEPTED,
            code=_CODE,
            message=_text("What is wrong, and the way out."),
            retryAfterSeconds=_SECONDS,
            recoveryCodes=_array("Ten one-time codes, shown this once.", {"type": "string"}),
        ),
    ),
    Resource(
        name="pages",
        kind="Page",
        singular="page",
        verbs=("create",),
        description="A page for your browser: to step up or enrol with a passkey, or to see what is yours.",
        spec=_object(
            "What it is about.",
            elevation=_text("Name of an ElevationRequest of yours."),
            authenticator=_text("Name of an Authenticator of yours that waits for its passkey."),
            enrolmentSecret=_text("With authenticator: what its creation told."),
            localOrigin=_text("http://localhost:PORT, where your terminal can serve it."),
        ),
        status=_object(
            "The page.",
            words=_text("Two words that the page shows, too."),
            expiresAt=_text("When it ends.", format="date-time"),
            url=_text("Link to it, good once."),
            document=_object("The page itself, to be served on localhost."),
        ),
    ),
    Resource(
        name="enrollmenttickets",
        kind="EnrollmentTicket",
        singular="enrollmentticket",
        verbs=("create",),
        description="A one-time ticket with which a person binds their first authenticator; for operators.",
        spec=_object(
            "For whom.",
            username=_USERNAME,
            ttlSeconds={"type": "integer", "format": "int32", "default": 3600, "description": "60 to 86400 seconds."},
        ),
        status=_object("The ticket, shown this once.", ticket=_text("The ticket."), expiresAt=_text("Its end.")),
    ),
    Resource(
        name="authenticatorunlocks",
        kind="AuthenticatorUnlock",
        singular="authenticatorunlock",
        verbs=("create",),
        description="Forgets a person's wrong codes, so that they need not wait; for operators.",
        spec=_object("Whose.", username=_USERNAME),
        status=_object("What was done.", cleared={"type": "boolean", "description": "Whether there were any."}),
    ),
    Resource(
        name="authenticatorresets",
        kind="AuthenticatorReset",
        singular="authenticatorreset",
        verbs=("create",),
        description="Removes all authenticators and tickets of a person, and revokes their elevations; for operators.",
        spec=_object("Whose.", username=_USERNAME),
        status=_object(
            "What was done.",
            removed={"type": "boolean", "description": "Whether there were any."},
            elevationsRevoked={"type": "integer", "format": "int32", "description": "Elevations that were in force."},
        ),
    ),
)
