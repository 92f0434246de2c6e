"""Builders of AdmissionReviews, policies, keys and assertions for tests: defaults that pass, one thing changed at a time."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from webhook.adapters.verifier import key_id

CREDENTIAL = "X509SHA256=d806a480917a4e6e090d3d4eaad19dad34da6ef7f4bf44c4576b305d0cd47597"
CREDENTIAL_EXTRA = "authentication.kubernetes.io/credential-id"
ISSUER = "kube-stepup"
AUDIENCE = "test-cluster"
UID = "e4c523c8-7160-4e4a-9384-2d930c5673eb"
RESOURCES = {
    "Deployment": ("apps", "deployments"),
    "StatefulSet": ("apps", "statefulsets"),
    "ReplicaSet": ("apps", "replicasets"),
    "CronJob": ("batch", "cronjobs"),
    "Job": ("batch", "jobs"),
    "Pod": ("", "pods"),
    "Service": ("", "services"),
    "Node": ("", "nodes"),
    "Namespace": ("", "namespaces"),
    "ConfigMap": ("", "configmaps"),
    "Rollout": ("argoproj.io", "rollouts"),
}


def user(name: str = "alice", *groups: str, credential: str | None = CREDENTIAL, uid: str = "") -> dict[str, Any]:
    """``userInfo``: a person with a client certificate, or whatever is asked for."""
    extra = {CREDENTIAL_EXTRA: [credential]} if credential is not None else {}
    info: dict[str, Any] = {
        "username": name,
        "groups": [*(groups or ("devs",)), "system:authenticated"],
        "extra": extra,
    }
    return {**info, "uid": uid} if uid else info


def service_account(
    namespace: str, name: str, *, credential: str | None = "JTI=abc", uid: str = "u1"
) -> dict[str, Any]:
    """``userInfo`` of a service account with a bound token."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return user(f"system:serviceaccount:{namespace}:{name}", *groups, credential=credential, uid=uid)


def deployment(
    name: str = "web", *, replicas: int | None = 3, image: str = "nginx:1", **metadata: Any
) -> dict[str, Any]:
    """A Deployment; further arguments go into its metadata."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "prod", "uid": UID, **metadata},
        "spec": spec,
    }


def pod(name: str = "web-1", **spec: Any) -> dict[str, Any]:
    """A Pod; further arguments go into its spec."""
    containers = [{"name": "c", "image": "nginx:1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "prod", "uid": UID},
        "spec": {"containers": containers, **spec},
    }


def review(
    operation: str = "DELETE",
    *,
    kind: str = "Deployment",
    name: str | None = "web",
    namespace: str | None = "prod",
    sub_resource: str = "",
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
    who: dict[str, Any] | None = None,
    **fields: Any,
) -> bytes:
    """An AdmissionReview as the API server would post it."""
    group, resource = RESOURCES[kind]
    request: dict[str, Any] = {
        "uid": "5ba22ee6-e20b-4b29-b191-d4d34440de66",
        "kind": {"group": group, "version": "v1", "kind": kind},
        "resource": {"group": group, "version": "v1", "resource": resource},
        "operation": operation,
        "userInfo": who or user(),
        "object": new,
        "oldObject": old,
        "options": None,
        "dryRun": False,
        **fields,
    }
    optional = {"name": name, "namespace": namespace, "subResource": sub_resource}
    request.update({key: value for key, value in optional.items() if value})
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def deletion(**fields: Any) -> bytes:
    """Deletion of a Deployment in prod by alice, with changes."""
    return review("DELETE", old=fields.pop("old", deployment()), **fields)


def policy(name: str = "production", *, require: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A StepUpPolicy on namespaces with env=prod that asks for everything, with changes."""
    everything = ["delete", "scale", "exec", "restart", "deploy", "drain", "access", "guard"]
    body: dict[str, Any] = {
        "match": {"namespaceSelector": {"matchLabels": {"env": "prod"}}},
        "rules": [{"name": "everything", "operations": everything, "require": require or {}}],
        **spec,
    }
    return {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "StepUpPolicy",
        "metadata": {"name": name},
        "spec": body,
    }


class Signer:
    """An ES256 key that signs assertions in tests."""

    def __init__(self) -> None:
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        self.kid = key_id("ES256", self.private_key.public_key())

    def signing_key(self) -> dict[str, Any]:
        """The SigningKey object of the public half."""
        pem = self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return {
            "metadata": {"name": self.kid, "uid": "k"},
            "spec": {"algorithm": "ES256", "publicKey": pem, "notBefore": "2026-01-01T00:00:00Z"},
        }

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """A token."""
        fields = {"kid": self.kid, "typ": "stepup+jwt", **headers}
        return jwt.encode(claims, self.private_key, algorithm="ES256", headers=fields)


def detail(operation: str = "delete", **fields: Any) -> dict[str, Any]:
    """An authorization detail for deployments.apps/web in prod, with changes."""
    return {
        "type": "urn:kube-stepup:operation",
        "operation": operation,
        "group": "apps",
        "resource": "deployments",
        "namespace": "prod",
        "scope": "Object",
        "objects": [{"name": "web", "uid": UID}],
        **fields,
    }


def claims(now: float | None = None, **changes: Any) -> dict[str, Any]:
    """Claims of a fresh step-up of alice for deleting deployments.apps/web in prod, with changes; None removes one."""
    at = int(time.time() if now is None else now)
    found = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": "alice",
        "iat": at,
        "nbf": at,
        "exp": at + 300,
        "jti": "elv-aaaaaaaaaaaaaaaaaaaa",
        "auth_time": at,
        "acr": "aal2",
        "amr": ["otp"],
        "authorization_details": [detail()],
        "cnf": {"credential_id": CREDENTIAL},
        "reason": "OPS-7",
        **changes,
    }
    return {key: value for key, value in found.items() if value is not None}
