"""What would switch a guard off, or make it laxer: such a write needs proof at the level of what it weakens.

Making things stricter needs none. Webhook configurations and admission policies are never sent to webhooks: what protects
those is RBAC and the API server's static policies (docs/threat-model.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from webhook.core.applicable import NAMESPACES, PolicyIndex
from webhook.core.classify import target_of
from webhook.core.configuration import KIND as CONFIGURATION
from webhook.core.configuration import Configuration
from webhook.core.kinds import TOKEN_SECRET
from webhook.core.metadata import changed_labels
from webhook.core.operation import GUARD, Action, Target, digest
from webhook.core.policy import API_VERSION, KIND, Policy
from webhook.core.policy_spec import ENFORCEMENTS
from webhook.core.request import AdmissionRequest
from webhook.core.templates import pod_template
from webhook.errors import PolicyError

OWN_GROUP: Final = "kube-stepup.io"
ACCOUNT_ANNOTATION: Final = "kubernetes.io/service-account.name"
OWN_GROUPS: Final = (".kube-stepup.io", ".elevation.kube-stepup.io")
DEFINITIONS: Final = frozenset(
    {("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")}
)
CLUSTER_RBAC: Final = frozenset(
    {("rbac.authorization.k8s.io", "clusterroles"), ("rbac.authorization.k8s.io", "clusterrolebindings")}
)
SHELLS: Final = frozenset({"exec", "attach", "ephemeralcontainers"})
PART_OF: Final = "app.kubernetes.io/part-of"
OWN_KINDS: Final = frozenset(
    {
        ("", "configmaps"),
        ("", "endpoints"),
        ("", "pods"),
        ("", "resourcequotas"),
        ("", "secrets"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("discovery.k8s.io", "endpointslices"),
        ("networking.k8s.io", "networkpolicies"),
        ("policy", "poddisruptionbudgets"),
        ("rbac.authorization.k8s.io", "rolebindings"),
        ("rbac.authorization.k8s.io", "roles"),
    }
)


class Guard:
    """Finds the policies that a request would weaken.

    Args:
        namespace: where kube-stepup itself runs.
        controllers: accounts (``namespace/name``) that pass as controllers of the cluster.
    """

    def __init__(self, index: PolicyIndex, namespace: str, controllers: Iterable[str] = ()) -> None:
        self._index = index
        self._namespace = namespace
        self._controllers = frozenset(controllers)

    def weakened_by(self, request: AdmissionRequest) -> tuple[Policy, ...]:
        """The denying policies that this request would switch off or make laxer; empty when it does neither."""
        kind = (request.resource.group, request.resource.resource)
        if kind == NAMESPACES:
            return self._by_namespace(request)
        if request.resource.group == OWN_GROUP:
            return self._by_own_object(request)
        if kind in DEFINITIONS and request.operation != "CREATE" and _is_own_definition(request):
            return self._strictest()
        if kind in CLUSTER_RBAC and _is_part_of_us(request):
            return self._strictest()
        if request.namespace == self._namespace and kind in OWN_KINDS:
            return self._strictest()
        if request.sub_resource in SHELLS and kind == ("", "pods"):
            return self._lent_in(request.namespace)  # whose token a pod holds, the review does not tell
        account = borrowed_account(request)
        lent = self._by_account(account) if account else ()
        relabelled = self._by_object_labels(request) if request.operation == "UPDATE" else ()
        return tuple(dict.fromkeys([*lent, *relabelled]))  # one request can do both

    def planned(self, target: Target) -> tuple[Policy, ...]:
        """The policies that a write on this target may weaken, going by the target alone; more rather than fewer."""
        if (target.group, target.resource) == NAMESPACES:
            if target.name == self._namespace:
                return self._strictest()
            labels = self._index.namespaces.get(target.name)
            return tuple(one for one in self._denying() if one.can_match_namespace(target.name, labels))
        if (target.group, target.resource) == (OWN_GROUP, "stepuppolicies"):
            policy = self._index.policies.get(target.name)
            return (policy,) if policy is not None and policy.enforcement == "Deny" else ()
        kind = (target.group, target.resource)
        if (
            target.group == OWN_GROUP
            or kind in DEFINITIONS | CLUSTER_RBAC
            or (target.namespace == self._namespace and kind in OWN_KINDS)
        ):
            return self._strictest()
        if kind == ("", "serviceaccounts"):
            return self._by_account(f"{target.namespace}/{target.name}")
        labels = self._index.namespaces.get(target.namespace)
        lent = self._lent_in(target.namespace)
        selecting = [
            one
            for one in self._denying()
            if one.object_selector is not None and one.can_match_namespace(target.namespace, labels)
        ]
        return tuple(dict.fromkeys([*lent, *selecting]))

    def _by_namespace(self, request: AdmissionRequest) -> tuple[Policy, ...]:
        new, old = request.new_head(), request.old_head()
        if request.operation == "DELETE":
            return self._strictest() if request.name == self._namespace else ()
        if request.operation != "UPDATE" or new is None or old is None or not changed_labels(new, old):
            return ()
        name, before, after = old.metadata.name or request.name, old.metadata.labels or {}, new.metadata.labels or {}
        return tuple(
            policy
            for policy in self._denying()
            if policy.can_match_namespace(name, before) and not policy.can_match_namespace(name, after)
        )

    def _by_object_labels(self, request: AdmissionRequest) -> tuple[Policy, ...]:
        new, old = request.new_head(), request.old_head()
        if new is None or old is None or not changed_labels(new, old):
            return ()
        before, after = old.metadata.labels or {}, new.metadata.labels or {}
        found = []
        for policy in self._denying():
            selector = policy.object_selector
            if selector is not None and selector.matches(before) and not selector.matches(after):
                found.append(policy)
        labels = self._index.namespaces.get(request.namespace)
        if request.namespace:
            return tuple(one for one in found if one.can_match_namespace(request.namespace, labels))
        return tuple(one for one in found if one.can_match_cluster_scoped)

    def _by_account(self, account: str) -> tuple[Policy, ...]:
        """Whoever can act as an account that is never asked is never asked: borrowing it is the moment to ask."""
        if account in self._controllers:
            return self._strictest()
        return tuple(policy for policy in self._denying() if policy.exempt.include_account(account))

    def _by_own_object(self, request: AdmissionRequest) -> tuple[Policy, ...]:
        if request.resource.resource == "stepupconfigurations" and not request.sub_resource and _only_adds(request):
            return ()
        if request.resource.resource != "stepuppolicies":
            return self._strictest()
        policy = self._index.policies.get(target_of(request).name)
        if policy is None or policy.enforcement != "Deny" or request.operation == "CREATE" or request.sub_resource:
            return ()
        if request.operation == "UPDATE" and _is_no_laxer(request.body(), policy):
            return ()
        return (policy,)

    def _lent_in(self, namespace: str) -> tuple[Policy, ...]:
        """What running a pod in a namespace could weaken: it may run as any account there."""
        if any(account.startswith(f"{namespace}/") for account in self._controllers):
            return self._strictest()
        return tuple(policy for policy in self._denying() if policy.exempt.has_account_in(namespace))

    def _denying(self) -> list[Policy]:
        return [policy for policy in self._index.policies.values() if policy.enforcement == "Deny"]

    def _strictest(self) -> tuple[Policy, ...]:
        """The one policy whose level guards what all of them stand on."""
        denying = self._denying()
        return (max(denying, key=lambda policy: policy.guarding_requirements[0].strength),) if denying else ()


def borrowed_account(request: AdmissionRequest) -> str:
    """The service account (``namespace/name``) that somebody will be able to act as after this request; empty if none.

    By a token (``serviceaccounts/token``, a Secret that becomes one) or by a pod that runs as it.
    """
    kind, sub_resource = (request.resource.group, request.resource.resource), request.sub_resource
    if kind == ("", "serviceaccounts") and sub_resource == "token":
        return f"{request.namespace}/{request.name}"
    if request.operation not in {"CREATE", "UPDATE"} or sub_resource:
        return ""
    if kind == ("", "secrets"):
        body = request.body()
        annotations = (body.get("metadata") or {}).get("annotations") or {}
        name = annotations.get(ACCOUNT_ANNOTATION, "") if body.get("type") == TOKEN_SECRET else ""
        return f"{request.namespace}/{name}" if name else ""
    return _runs_as(request)


def _runs_as(request: AdmissionRequest) -> str:
    new, old = request.new_head(), request.old_head()
    template = pod_template(new) if new is not None else None
    if template is None:
        return ""
    name = str(template.spec.get("serviceAccountName") or "default")
    before = pod_template(old) if old is not None else None
    if before is not None and before.raw == template.raw:
        return ""  # nothing that runs changes
    return f"{request.namespace}/{name}"


def guarding_action(request: AdmissionRequest) -> Action:
    """The action that weakens a guard; its change is the new labels, or the new object."""
    new = request.new_head()
    if request.operation == "UPDATE" and new is not None and request.resource.group != OWN_GROUP:
        change = digest(GUARD, request.operation, new.metadata.labels or {}, digest(request.body().get("spec")))
    else:
        change = digest(GUARD, request.operation, request.body().get("spec"))
    return Action(GUARD, target_of(request), change, details=f"{request.operation.lower()} that weakens a guard")


def _is_own_definition(request: AdmissionRequest) -> bool:
    return target_of(request).name.endswith(OWN_GROUPS)


def _is_part_of_us(request: AdmissionRequest) -> bool:
    """Whether an object that is there already says that it is one of ours; taking that label off is a change of it, too."""
    old = request.old_head()
    return old is not None and (old.metadata.labels or {}).get(PART_OF) == "kube-stepup"


def _only_adds(request: AdmissionRequest) -> bool:
    """Whether a StepUpConfiguration is made, or has all that it had: what it lists is only ever added to what is asked."""
    if request.operation != "UPDATE":
        return request.operation == "CREATE"
    form = {"apiVersion": API_VERSION, "kind": CONFIGURATION}
    try:
        new = Configuration.parse({**request.body(), **form})
    except PolicyError:
        return True  # it is refused anyhow
    try:
        return new.contains(Configuration.parse({**request.old_body(), **form}))
    except PolicyError:
        return False


def _is_no_laxer(body: Mapping[str, Any], old: Policy) -> bool:
    """Whether the new policy asks at least what the old one did: nothing taken away, nobody let through anew.

    Conservative: only what is plainly stricter (rules added, enforcement raised) needs no proof.
    """
    try:
        new = Policy.parse({**body, "apiVersion": API_VERSION, "kind": KIND})
    except PolicyError:
        return True  # it is refused anyhow
    if ENFORCEMENTS.index(new.enforcement) > ENFORCEMENTS.index(old.enforcement):
        return False
    return new.spec.match == old.spec.match and set(map(repr, old.spec.rules)) <= set(map(repr, new.spec.rules))
