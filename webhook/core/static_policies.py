"""ValidatingAdmissionPolicies that hold what our webhook cannot: what the API server never sends to webhooks, and what we stand
on while none of us answers.

Everything held is for one sealed break-glass identity and, where they have work there, for our own accounts and the
cluster's. Loaded from files on the control plane (manifest-based admission control, KEP-5793) they hold for everybody
with any rights; as objects of the API they hold as long as nobody deletes them. Pure text: names in, documents out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from webhook.core.static_identities import Installation, literal, variables_of

GROUP: Final = "admissionregistration.k8s.io"
STATIC_SUFFIX: Final = ".static.k8s.io"  # reserved: only files may use it, and files must
WRITES: Final = ("CREATE", "UPDATE", "DELETE")

_NAME: Final = "(oldObject != null ? oldObject : object).metadata.name"


@dataclass(frozen=True)
class Hold:
    """One policy.

    Args:
        about: what it holds, why, and for whom: a comment.
        rules: (API group, resources, operations).
        ours: CEL; which of the objects are held.
        allowed: CEL; who may all the same.
        hidden: whether only a file can do this, since the API server shows these objects to no policy of the API.
    """

    name: str
    about: str
    rules: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    ours: str
    allowed: str
    hidden: bool = False


def holds(installation: Installation) -> list[Hold]:
    """Everything that is held, in the order of the document."""
    return [*_configuration(installation), *_identity(installation), *_cluster()]


def _configuration(installation: Installation) -> list[Hold]:
    named = f"{_NAME} == {literal(installation.name)}"
    prefixed = f"({named} || {_NAME}.startsWith({literal(installation.name + '-')}))"
    reaches = (
        "has({0}.webhooks) && {0}.webhooks.exists(w, has(w.rules) &&\n"
        "w.rules.exists(r, r.apiGroups.exists(g, g in ['*', 'kube-stepup.io'])))"
    )
    mutates = (
        "has({0}.spec.matchConstraints.resourceRules) &&\n"
        "{0}.spec.matchConstraints.resourceRules.exists(r, r.apiGroups.exists(g, g in ['*', 'kube-stepup.io']))"
    )
    return [
        Hold(
            "configuration",
            "Our webhook configuration. The controller keeps it; nobody else changes it, and nobody deletes it.",
            ((GROUP, ("validatingwebhookconfigurations",), WRITES),),
            named,
            "variables.sealed || (request.operation != 'DELETE' && variables.controller)",
        ),
        Hold(
            "policies",
            "Our admission policies (the one that tells of break-glass). No policy of the API is shown these objects.",
            ((GROUP, ("validatingadmissionpolicies", "validatingadmissionpolicybindings"), WRITES),),
            prefixed,
            "variables.sealed",
            hidden=True,
        ),
        _mutation("mutating-webhooks", "mutatingwebhookconfigurations", reaches, hidden=False),
        _mutation("mutating-policies", "mutatingadmissionpolicies", mutates, hidden=True),
        Hold(
            "definitions",
            "The definitions and API registrations of our kinds: whoever takes one over answers in our name.",
            (
                ("apiextensions.k8s.io", ("customresourcedefinitions", "customresourcedefinitions/status"), WRITES),
                ("apiregistration.k8s.io", ("apiservices", "apiservices/status"), WRITES),
            ),
            f"{_NAME}.endsWith('.kube-stepup.io')",
            "variables.sealed || variables.apiserver ||\n"
            "(variables.controller && request.operation == 'UPDATE' && request.resource.resource == 'apiservices')",
        ),
        Hold(
            "records",
            "Public keys and records of step-ups are our servers' alone. (StepUpPolicies are yours: changing them asks for proof.)",
            (("kube-stepup.io", ("signingkeys", "elevations", "elevations/status"), WRITES),),
            "true",
            "variables.sealed || variables.servers",
        ),
        Hold(
            "roles",
            "Our cluster roles. The end of the one that owns the webhook configuration would be the end of both.",
            (("rbac.authorization.k8s.io", ("clusterroles", "clusterrolebindings"), WRITES),),
            prefixed,
            "variables.sealed",
        ),
    ]


def _mutation(name: str, resource: str, reaches: str, *, hidden: bool) -> Hold:
    new, old = reaches.format("object"), reaches.format("oldObject")
    return Hold(
        name,
        "What may change our objects on their way to storage could put back a use or swap a key: nobody lets such a thing\n"
        "reach our kinds anew. What reached them before may go on changing.",
        ((GROUP, (resource,), ("CREATE", "UPDATE")),),
        new,
        f"variables.sealed || (oldObject != null && {old})",
        hidden=hidden,
    )


def _identity(installation: Installation) -> list[Hold]:
    namespace = literal(installation.namespace)
    kept = ("secrets", "configmaps", "serviceaccounts", "serviceaccounts/token", "services", "endpoints")
    pods = ("pods", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "pods/ephemeralcontainers")
    return [
        Hold(
            "namespace",
            "What our servers run as and with. Our webhook is asked about it as well, with a step-up as the way through, but not\n"
            "while it is down. Upgrades are the sealed identity's.",
            (
                ("", kept, WRITES),
                ("", (*pods, "services/proxy"), ("CREATE", "UPDATE", "CONNECT")),
                ("apps", ("deployments", "deployments/scale", "replicasets", "replicasets/scale"), WRITES),
                ("discovery.k8s.io", ("endpointslices",), WRITES),
                ("rbac.authorization.k8s.io", ("roles", "rolebindings"), WRITES),
            ),
            f"request.namespace == {namespace}",
            "variables.sealed || variables.cluster || variables.kubelet || variables.apiserver || variables.helpers ||\n"
            "(variables.servers && request.resource.resource == 'secrets')",
        ),
        Hold(
            "namespace-itself",
            "With the namespace everything in it would go.",
            (("", ("namespaces", "namespaces/finalize"), ("UPDATE", "DELETE")),),
            f"{_NAME} == {namespace}",
            "variables.sealed || variables.cluster ||\n(request.operation == 'UPDATE' && variables.apiserver)",
        ),
    ]


def _cluster() -> list[Hold]:
    return [
        Hold(
            "controller-tokens",
            "Tokens for the accounts of kube-system: kube-controller-manager and kubelets make their own; whoever else has one\n"
            "passes for a controller of the cluster.",
            (("", ("serviceaccounts/token",), ("CREATE",)),),
            "request.namespace == 'kube-system'",
            "variables.sealed || variables.component || variables.kubelet || variables.apiserver",
        ),
        Hold(
            "controller-pods",
            "The accounts of kube-controller-manager run no pods; a pod in their name would be handed their token.",
            (("", ("pods",), ("CREATE",)),),
            "request.namespace == 'kube-system' && has(object.spec.serviceAccountName) &&\n"
            "('system:serviceaccount:kube-system:' + object.spec.serviceAccountName) in variables.controllers",
            "variables.sealed",
        ),
        Hold(
            "certificates",
            "Client certificates: one in the name of kube-controller-manager or a node would pass for it, and one in the sealed\n"
            "identity's for that, unless it is pinned. What kubelets ask for is another signer's.",
            (("certificates.k8s.io", ("certificatesigningrequests/approval",), ("UPDATE",)),),
            "object.spec.signerName == 'kubernetes.io/kube-apiserver-client'",
            "variables.sealed",
        ),
    ]


def documents(hold: Hold, installation: Installation, *, static: bool) -> list[dict[str, Any]]:
    """The policy and its binding."""
    suffix = STATIC_SUFFIX if static else ""
    name = f"{installation.name}-hold-{hold.name}{suffix}"
    rules = [
        {"apiGroups": [group], "apiVersions": ["*"], "operations": list(operations), "resources": list(resources)}
        for group, resources, operations in hold.rules
    ]
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "variables": _variables(hold, installation),
        "validations": [
            {
                "expression": f"!({hold.ours}) ||\n{hold.allowed}",
                "message": f"held by {installation.name}: only the sealed break-glass identity may; see `stepup guard render`",
                "reason": "Forbidden",
            }
        ],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        {"apiVersion": f"{GROUP}/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec},
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": f"{installation.name}-hold-{hold.name}-binding{suffix}"},
            "spec": binding,
        },
    ]


def _variables(hold: Hold, installation: Installation) -> list[dict[str, str]]:
    """Those that the policy reads, and what they read in turn, in the order in which they are made."""
    every = variables_of(installation)
    wanted: set[str] = set()
    texts = [hold.ours, hold.allowed]
    while texts:
        new = set(re.findall(r"variables\.(\w+)", texts.pop())) - wanted
        wanted |= new
        texts += [every[name] for name in sorted(new)]
    return [{"name": name, "expression": text} for name, text in every.items() if name in wanted]
