"""Exchanges a pipeline's token for an assertion (RFC 8693), for the Kubernetes credential that asks and for nothing else.

Two identities come together: whom the cluster knows the caller as (its credential will make the request, and the assertion
is bound to it), and which pipeline the token says it is (that is what policies judge). A token is good for one exchange: a
record under a name made of it is created before anything is signed, on whichever replica, and outlives the token.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

import msgspec

from webhook.adapters.audit import audit
from webhook.adapters.elevation_store import NAME_LETTERS, ElevationStore
from webhook.adapters.identity_tokens import IdentityTokens
from webhook.core.assertion import AuthorizationDetail
from webhook.core.identity import is_bound_service_account, service_account_of
from webhook.core.requirement import Requirement, merged
from webhook.core.workloads import ACR, AMR, CLUSTER, WorkloadIdentity
from webhook.elevation.approval_notices import ApprovalNotices
from webhook.elevation.approvers import USERNAME, person_of
from webhook.elevation.asking import MAX_RECORDED_GROUPS, check_reason, check_scope
from webhook.elevation.bodies import WantedExchange, invalid
from webhook.elevation.factors import Proof as FactorProof
from webhook.elevation.granting import Granting
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import AWAITING, rfc3339
from webhook.elevation.minting import Mint, Minted
from webhook.elevation.needs import Needs
from webhook.elevation.pace import Pace
from webhook.elevation.resources import GROUP_VERSION
from webhook.elevation.views import audit_elevation, wanted_spec
from webhook.errors import ConflictError, RequestError

FACTOR: Final = "workload"  # stands in records where a person's factor does
BURST: Final = 60  # jobs that share a service account may start together, and a helm upgrade takes a few
PER_MINUTE: Final = 30.0
MAX_CLAIM_LETTERS: Final = 256
MIN_LEFT_SECONDS: Final = 5  # of a token, or its assertion would be over before it could be used
EXTRA: Final = "authentication.kubernetes.io/"
ISSUED_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"  # RFC 8693 section 3

JSON = dict[str, Any]


class _Proof(msgspec.Struct, frozen=True):
    """A verified pipeline, how long its token is good for (seconds), what to record, and the name that is good once."""

    identity: WorkloadIdentity
    seconds: int
    recorded: dict[str, str]
    name: str = ""


class Exchange:
    """The service behind token exchanges.

    Args:
        max_lifetime_seconds: the longest life of a pipeline's assertion.
        person_key: what tells people apart, for approvals.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        tokens: IdentityTokens,
        mint: Mint,
        granting: Granting,
        needs: Needs,
        notices: ApprovalNotices,
        *,
        max_lifetime_seconds: int,
        person_key: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._mint = mint
        self._granting = granting
        self._needs = needs
        self._notices = notices
        self._longest = max_lifetime_seconds
        self._person_key = person_key
        self._clock = clock
        self._pace = Pace(BURST, PER_MINUTE, clock)

    async def exchange(self, requester: Requester, wanted: WantedExchange) -> JSON:
        """An assertion for what the pipeline wants to do, or that nothing asks for one; the status of the answer.

        Raises:
            RequestError: a field is wrong, the token does not do or was exchanged before, or no policy takes the pipeline.
        """
        wanted.checked()
        if not requester.credential_id:
            text = "your Kubernetes credential has no id (impersonation has none), so nothing can be bound to it"
            raise RequestError(text, code="no-credential-id", status=403, reason="Forbidden")
        self._pace.take(requester.username)
        try:
            return await self._exchange(requester, wanted)
        except RequestError as error:
            self._audit_refusal(requester, wanted, error)
            raise

    async def _exchange(self, requester: Requester, wanted: WantedExchange) -> JSON:
        proof = await self._proof(requester, wanted)
        details = wanted.authorization_details()
        requirements = self._needs.of(requester.user, details)
        if not requirements:
            return {"phase": "NotRequired", "message": self._needs.why_none(requester.user, details)}
        taking = [one for one in requirements if one.workloads and one.workloads.accept(proof.identity)]
        if not taking:
            raise _not_accepted(requirements)
        check_scope(details, merged(taking))
        check_reason(wanted.reason, taking)
        spec = self._record(requester, wanted, details, proof, taking)
        self._mint.check_size(spec, taking)
        elevation = await self._created(requester, spec, proof)
        now = self._clock()
        proven = FactorProof(FACTOR, ACR, AMR, phishing_resistant=False, authenticated_at=now)
        minted = await self._granting.proven(elevation, proven, taking, now)
        left = {one.policy for one in requirements} - {one.policy for one in taking}
        return {**self._outcome(requester, elevation, minted, taking), "notMet": sorted(left)}

    async def _proof(self, requester: Requester, wanted: WantedExchange) -> _Proof:
        if not wanted.subject_token:
            return self._own_proof(requester)
        token = await self._tokens.verify(wanted.subject_token)
        seconds = int(token.expires_at - self._clock())
        if seconds < MIN_LEFT_SECONDS:
            raise RequestError("the token ends at once", code="token-refused", status=403, reason="Forbidden")
        identity = WorkloadIdentity(issuer=token.issuer.issuer, subject=token.subject, claims=token.claims)
        recorded = _recorded(token.claims, token.issuer.recorded_claims)
        return _Proof(identity, min(seconds, self._longest), recorded, _name_of(token.once))

    def _own_proof(self, requester: Requester) -> _Proof:
        """The caller's own service account, whose token the API server has verified: it says in which pod it is."""
        user = requester.user
        pod = {key: user.first_extra(f"{EXTRA}pod-{key}") for key in ("name", "uid")}
        if not is_bound_service_account(user) or not all(pod.values()):
            text = "is required: the pipeline's own token. Only a service account with a token that is bound to a pod has none"
            raise invalid("spec.subjectToken", text)
        account = service_account_of(user)
        namespace, _, name = account.partition("/")
        node = {key: user.first_extra(f"{EXTRA}node-{key}") for key in ("name", "uid")}
        claims: JSON = {"sub": user.username, "namespace": namespace, "name": name, "uid": user.uid, "pod": pod}
        if all(node.values()):
            claims["node"] = node
        identity = WorkloadIdentity(issuer=CLUSTER, subject=user.username, claims=claims, service_account=account)
        return _Proof(identity, self._longest, {"pod": pod["name"], "podUID": pod["uid"]})

    def _record(
        self,
        requester: Requester,
        wanted: WantedExchange,
        details: list[AuthorizationDetail],
        proof: _Proof,
        taking: list[Requirement],
    ) -> JSON:
        met = [one.workloads.key for one in taking if one.workloads]
        groups = list(requester.user.groups[:MAX_RECORDED_GROUPS])
        # Nobody is behind a pipeline whom an approver could be: where people are told apart by more than names, it is itself.
        person = person_of(requester.user, self._person_key) or requester.username
        who = {} if self._person_key == USERNAME else {"person": person}
        return {
            "user": {"username": requester.username, "groups": groups, **who},
            "credentialID": requester.credential_id,
            "sessionID": "",
            "details": [msgspec.to_builtins(one) for one in details],
            "reason": wanted.reason,
            "clientAddress": requester.client_address,
            "userAgent": requester.user_agent,
            "workload": {
                "issuer": proof.identity.issuer,
                "subject": proof.identity.subject,
                "met": met,
                "claims": proof.recorded,
                "lifetimeSeconds": proof.seconds if not any(one.approvals for one in taking) else self._longest,
            },
        }

    async def _created(self, requester: Requester, spec: JSON, proof: _Proof) -> JSON:
        try:
            return await self._store.create(requester.username, spec, proof.name)
        except ConflictError as error:
            text = "this token was exchanged before; each is good once, so get a new one"
            raise RequestError(text, code="token-replayed", status=403, reason="Forbidden") from error

    def _outcome(self, requester: Requester, elevation: JSON, minted: Minted | None, taking: list[Requirement]) -> JSON:
        name, challenge = elevation["metadata"]["name"], merged(taking)
        found = {"elevation": name, "policies": list(challenge.policies), "challenge": challenge.to_dict()}
        if minted is None:
            approvals = [one.to_dict() for one in challenge.approvals]
            self._audit("approval-wanted", requester, elevation, outcome="pending", approvals=approvals)
            self._notices.wanted(elevation, taking)
            text = f"waits for {' and '.join(one.describe() for one in challenge.approvals)}"
            return {**found, "phase": AWAITING, "message": text}
        ends = rfc3339(minted.expires_at)
        self._audit("elevation-granted", requester, elevation, outcome="granted", acr=minted.acr, expires_at=ends)
        return {
            **found,
            "phase": "Granted",
            "assertion": minted.token,
            "issuedTokenType": ISSUED_TYPE,
            "expiresAt": ends,
        }

    @staticmethod
    def _audit(event: str, requester: Requester, elevation: JSON, **fields: Any) -> None:
        workload = elevation["spec"]["workload"]
        audit_elevation(event, requester, elevation, factor=FACTOR, workload=workload, **fields)

    def _audit_refusal(self, requester: Requester, wanted: WantedExchange, error: RequestError) -> None:
        audit(
            "exchange-refused",
            user=requester.username,
            credential_id=requester.credential_id,
            client_address=requester.client_address,
            user_agent=requester.user_agent,
            details=wanted_spec(wanted)["details"],
            reason=wanted.reason,
            outcome="refused",
            code=error.code,
            problem=error.message,
        )


def exchange_object(status: JSON) -> JSON:
    """The answer as an object of the aggregated API."""
    return {"apiVersion": GROUP_VERSION, "kind": "TokenExchange", "metadata": {}, "status": status}


def _not_accepted(requirements: list[Requirement]) -> RequestError:
    names = ", ".join(sorted({one.policy for one in requirements}))
    text = f"policy {names} asks for a step-up, and takes no pipeline with such a token"
    return RequestError(text, code="workload-not-accepted", status=403, reason="Forbidden")


def _recorded(claims: JSON, names: tuple[str, ...]) -> dict[str, str]:
    """Those claims that are plain values, as text."""
    found = {name: claims[name] for name in names if isinstance(claims.get(name), str | int | bool)}
    return {name: str(value)[:MAX_CLAIM_LETTERS] for name, value in found.items()}


def _name_of(once: str) -> str:
    """The name of the record of a token's one exchange."""
    return f"elv-{base64.b32encode(bytes.fromhex(once)).decode().lower()[:NAME_LETTERS]}"
