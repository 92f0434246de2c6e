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
from webhook.elevation.asking import MAX_RECORDED_GROUPS, check_reason, check_scope
from webhook.elevation.bodies import WantedExchange, invalid
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import rfc3339
from webhook.elevation.minting import Mint, Minted
from webhook.elevation.needs import Needs
from webhook.elevation.pace import Pace
from webhook.elevation.resources import GROUP_VERSION
from webhook.elevation.views import audit_elevation, wanted_spec
from webhook.errors import ConflictError, RequestError

BURST: Final = 20
PER_MINUTE: Final = 6.0
MAX_CLAIM_LETTERS: Final = 256
MIN_LEFT_SECONDS: Final = 5  # of a token, or its assertion would be over before it could be used
EXTRA: Final = "authentication.kubernetes.io/"
ISSUED_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"  # RFC 8693 section 3

JSON = dict[str, Any]


class PipelineToken:
    """Stands where a person's proof does."""

    name = "workload"
    acr = ACR
    amr: tuple[str, ...] = AMR
    phishing_resistant = False


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
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: ElevationStore,
        tokens: IdentityTokens,
        mint: Mint,
        needs: Needs,
        *,
        max_lifetime_seconds: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._mint = mint
        self._needs = needs
        self._max_lifetime_seconds = max_lifetime_seconds
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
            raise RequestError(text, code="no-credential", status=403, reason="Forbidden")
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
        self._mint.check_size(spec)
        elevation, minted = await self._granted(requester, spec, proof, taking)
        audit_elevation(
            "elevation-granted",
            requester,
            elevation,
            outcome="granted",
            factor=PipelineToken.name,
            acr=minted.acr,
            expires_at=rfc3339(minted.expires_at),
            workload=spec["workload"],
        )
        left = {one.policy for one in requirements} - {one.policy for one in taking}
        return {
            "phase": "Granted",
            "elevation": elevation["metadata"]["name"],
            "assertion": minted.token,
            "issuedTokenType": ISSUED_TYPE,
            "expiresAt": rfc3339(minted.expires_at),
            "policies": sorted({one.policy for one in taking}),
            "notMet": sorted(left),
            "challenge": merged(taking).to_dict(),
        }

    async def _proof(self, requester: Requester, wanted: WantedExchange) -> _Proof:
        if not wanted.subject_token:
            return self._own_proof(requester)
        token = await self._tokens.verify(wanted.subject_token)
        seconds = int(token.expires_at - self._clock())
        if seconds < MIN_LEFT_SECONDS:
            raise RequestError("the token ends at once", code="token-refused", status=403, reason="Forbidden")
        identity = WorkloadIdentity(issuer=token.issuer.issuer, subject=token.subject, claims=token.claims)
        recorded = _recorded(token.claims, token.issuer.recorded_claims)
        return _Proof(identity, seconds, recorded, _name_of(token.once))

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
        return _Proof(identity, self._max_lifetime_seconds, {"pod": pod["name"], "podUID": pod["uid"]})

    def _record(
        self,
        requester: Requester,
        wanted: WantedExchange,
        details: list[AuthorizationDetail],
        proof: _Proof,
        taking: list[Requirement],
    ) -> JSON:
        met = [one.workloads.key for one in taking if one.workloads]
        return {
            "user": {"username": requester.username, "groups": list(requester.user.groups[:MAX_RECORDED_GROUPS])},
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
            },
        }

    async def _granted(
        self, requester: Requester, spec: JSON, proof: _Proof, taking: list[Requirement]
    ) -> tuple[JSON, Minted]:
        try:
            elevation = await self._store.create(requester.username, spec, proof.name)
        except ConflictError as error:
            text = "this token was exchanged before; each is good once, so get a new one"
            raise RequestError(text, code="token-replayed", status=403, reason="Forbidden") from error
        longest = min(proof.seconds, self._max_lifetime_seconds)
        bounded = [msgspec.structs.replace(one, max_age_seconds=min(one.max_age_seconds, longest)) for one in taking]
        minted = self._mint.sign(elevation, PipelineToken(), bounded, self._clock())
        status = {
            "phase": "Granted",
            "factor": PipelineToken.name,
            "acr": minted.acr,
            "amr": list(minted.amr),
            "authTime": rfc3339(minted.auth_time),
            "issuedAt": rfc3339(minted.auth_time),
            "expiresAt": rfc3339(minted.expires_at),
            "requirement": merged(taking).to_dict(),
            "assertion": minted.token,
            "uses": [],
        }
        await self._store.set_status(elevation, status)
        return elevation, minted

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
