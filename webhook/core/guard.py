"""What would switch a guard off, or make it laxer: such a write needs proof at the level of what it weakens.

Making things stricter needs none. Webhook configurations and admission policies are never sent to webhooks: what protects
those is RBAC and the API server's static policies (docs/threat-model.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from webhook.core.applicable import NAMESPACES, PolicyIndex
from webhook.core.classify import target_of
from webhook.core.metadata import changed_labels
from webhook.core.operation import GUARD, Action, Target, digest
from webhook.core.policy import API_VERSION, ENFORCEMENTS, KIND, Policy
from webhook.core.request import AdmissionRequest
from webhook.errors import PolicyError

OWN_GROUP: Final = "kube-stepup.io"
OWN_GROUPS: Final = (".kube-stepup.io", ".elevation.kube-stepup.io")
DEFINITIONS: Final = frozenset(
    {("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")}
)
OWN_KINDS: Final = frozenset(
    {
        ("", "configmaps"),
        ("", "endpoints"),
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
    """

    def __init__(self, index: PolicyIndex, namespace: str) -> None:
        self._index = index
        self._namespace = namespace

    def weakened_by(self, request: AdmissionRequest) -> tuple[Policy, ...]:
        """The denying policies that this request would switch off or make laxer; empty when it does neither."""
        kind = (request.resource.group, request.resource.resource)
        if kind == NAMESPACES:
            return self._by_namespace(request)
        if request.resource.group == OWN_GROUP:
            return self._by_own_object(request)
        if kind in DEFINITIONS and request.operation != "CREATE" and _is_own_definition(request):
            return self._strictest()
        if request.namespace == self._namespace and kind in OWN_KINDS:
            return self._strictest()
        return self._by_object_labels(request) if request.operation == "UPDATE" else ()

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
            or kind in DEFINITIONS
            or (target.namespace == self._namespace and kind in OWN_KINDS)
        ):
            return self._strictest()
        labels = self._index.namespaces.get(target.namespace)
        return tuple(
            one
            for one in self._denying()
            if one.object_selector is not None and one.can_match_namespace(target.namespace, labels)
        )

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

    def _by_own_object(self, request: AdmissionRequest) -> tuple[Policy, ...]:
        if request.resource.resource != "stepuppolicies":
            return self._strictest()
        policy = self._index.policies.get(target_of(request).name)
        if policy is None or policy.enforcement != "Deny" or request.operation == "CREATE" or request.sub_resource:
            return ()
        if request.operation == "UPDATE" and _is_no_laxer(request.body(), policy):
            return ()
        return (policy,)

    def _denying(self) -> list[Policy]:
        return [policy for policy in self._index.policies.values() if policy.enforcement == "Deny"]

    def _strictest(self) -> tuple[Policy, ...]:
        """The one policy whose level guards what all of them stand on."""

        def strictness(policy: Policy) -> tuple[str, int]:
            requirement = policy.guarding_requirements[0]
            return requirement.assurance, -requirement.max_age_seconds

        denying = self._denying()
        return (max(denying, key=strictness),) if denying else ()


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
