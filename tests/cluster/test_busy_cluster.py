"""What must not be hit: a busy cluster with guarded namespaces, and not one refusal; and hardly a review is a controller's.

A recorder with a copy of our entries sees who is sent to us; the API server's audit log has all writes there were.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.builders import policy
from tests.cluster.actors import MERGE, Actors, Api, lease
from tests.controlplane import ADMIN, ControlPlane, Programs
from tests.deployment import Deployment
from tests.people import Person
from tests.recording_webhook import Asked, RecordingWebhook

BUSY_SECONDS = 120.0  # a CronJob of every minute runs at least once
GUARDED = ("shop", "batch", "gone")
OTHERS = ("staging", "dev")
ARGO = "argocd/application-controller"
CERTS = "cert-manager/cert-manager"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
"""
SETUP = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: busy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
- {kind: ServiceAccount, namespace: argocd, name: application-controller}
- {kind: ServiceAccount, namespace: cert-manager, name: cert-manager}
"""
MATCH = {
    "namespaceSelector": {"matchLabels": {"env": "prod"}},
    "exempt": {"users": ["admin"], "serviceAccounts": [ARGO, CERTS]},
}
# (whose, verb, resource): what must have happened in that time, or the test shows nothing.
HAPPENED = (
    ("system:serviceaccount:kube-system:deployment-controller", "create", "replicasets"),
    ("system:serviceaccount:kube-system:replicaset-controller", "create", "pods"),
    ("system:serviceaccount:kube-system:replicaset-controller", "delete", "pods"),
    ("system:serviceaccount:kube-system:horizontal-pod-autoscaler", "update", "deployments/scale"),
    ("system:serviceaccount:kube-system:job-controller", "create", "pods"),
    ("system:serviceaccount:kube-system:cronjob-controller", "create", "jobs"),
    ("system:serviceaccount:kube-system:ttl-after-finished-controller", "delete", "jobs"),
    ("system:serviceaccount:kube-system:generic-garbage-collector", "delete", "pods"),
    ("system:serviceaccount:kube-system:namespace-controller", "deletecollection", "configmaps"),
    ("system:serviceaccount:kube-system:namespace-controller", "update", "namespaces/finalize"),
    ("system:serviceaccount:kube-system:endpointslice-controller", "update", "endpointslices"),
    ("system:kube-scheduler", "create", "pods/binding"),
    ("system:kube-scheduler", "update", "leases"),
    ("system:node:n1", "patch", "pods/status"),
    ("system:node:n1", "patch", "nodes/status"),
    ("system:node:n1", "update", "leases"),
    ("system:serviceaccount:argocd:application-controller", "patch", "deployments"),
    ("system:serviceaccount:argocd:application-controller", "delete", "configmaps"),
    ("system:serviceaccount:cert-manager:cert-manager", "patch", "secrets"),
    ("system:serviceaccount:cert-manager:cert-manager", "delete", "secrets"),
    ("system:serviceaccount:cert-manager:cert-manager", "update", "leases"),
)


@dataclass(frozen=True)
class Busy:
    """What was seen."""

    failures: list[str]
    deleted: str
    reviews: list[Asked]
    writes: list[dict[str, Any]]
    decisions: list[dict[str, Any]]

    def by(self, user: str) -> list[Asked]:
        return [one for one in self.reviews if one.user == user]


def is_controller(username: str) -> bool:
    """By name alone, so that whom our conditions do not know counts as well."""
    prefixes = ("system:serviceaccount:kube-system:", "system:node:", "system:kube-", "system:apiserver")
    return username.startswith(prefixes)


@pytest.fixture(scope="module")
def busy(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    file = tmp_path_factory.mktemp("audit") / "policy.yaml"
    file.write_text(AUDIT_POLICY)
    with (
        ControlPlane(programs, apiserver_arguments=[f"--audit-policy-file={file}"]) as cluster,
        Deployment(cluster) as deployment,
        RecordingWebhook(cluster.serving_cert()) as recorder,
    ):
        tokens = furnished(cluster)
        deployment.apply_policy(policy(match=MATCH))
        for name in GUARDED:
            deployment.wait_guarded(name)
        alice = Person(deployment).enrol()
        record(deployment, recorder)
        began = len(cluster.audit_events())
        actors = Actors()
        cast(actors, cluster, tokens)
        with actors:
            ends = time.monotonic() + BUSY_SECONDS
            time.sleep(10)
            alice.prove(deletion_of(cluster, "gone"))
            deleted = alice.kubectl("delete", "namespace", "gone", "--timeout=60s")
            time.sleep(max(0.0, ends - time.monotonic()))
        writes = [one for one in cluster.audit_events()[began:] if one["verb"] in WRITES]
        told = deleted.stderr if deleted.returncode else ""
        seen = Busy(
            actors.failures, told, recorder.take(), writes, deployment.audit(lambda one: one["event"] == "decision")
        )
        print(report(seen))
        yield seen


def furnished(cluster: ControlPlane) -> dict[str, str]:
    """Namespaces and accounts, before any policy; the accounts' tokens."""
    for name in (*GUARDED, *OTHERS, "argocd", "cert-manager"):
        labels = {"env": "prod" if name in GUARDED else "dev"}
        cluster.apply(
            yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        )
    cluster.apply(SETUP)
    tokens = {}
    for account in (ARGO, CERTS):
        namespace, name = account.split("/")
        cluster.kubectl("create", "serviceaccount", name, "-n", namespace, user=ADMIN, check=True)
        token = cluster.kubectl("create", "token", name, "-n", namespace, "--duration=1h", user=ADMIN, check=True)
        tokens[account] = token.stdout.strip()
    return tokens


def deletion_of(cluster: ControlPlane, namespace: str) -> dict[str, Any]:
    found = cluster.kubectl("get", "namespace", namespace, "-o", "jsonpath={.metadata.uid}", user=ADMIN, check=True)
    objects = [{"name": namespace, "uid": found.stdout}]
    return {"operation": "delete", "group": "", "resource": "namespaces", "namespace": "", "scope": "Object", "objects": objects}  # fmt: skip


def record(deployment: Deployment, recorder: RecordingWebhook) -> None:
    """Have the recorder asked exactly when we are, by the same conditions."""
    client = {"url": f"{recorder.url}/copy", "caBundle": deployment.cluster.ca_bundle}
    entries = [{**entry, "clientConfig": client, "failurePolicy": "Ignore"} for entry in deployment.webhooks()]
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "recorder"},
        "webhooks": entries,
    }
    deployment.cluster.apply(json.dumps(body))
    deadline = time.monotonic() + 20
    while not recorder.take():
        assert time.monotonic() < deadline, "the recorder is not asked"
        deployment.cluster.kubectl("create", "configmap", "canary", "-n", "shop", "--dry-run=server", user=ADMIN)


def cast(actors: Actors, cluster: ControlPlane, tokens: dict[str, str]) -> None:
    """Everybody, each with a credential and a connection of their own."""
    actors.add("argo", 2.0, Api(cluster, token=tokens[ARGO]), sync)
    actors.add("jobs", 2.0, Api(cluster, token=tokens[ARGO]), run_job)
    actors.add("cert-manager", 0.5, Api(cluster, token=tokens[CERTS]), renew)
    actors.add("kubelet", 0.5, Api(cluster, "system:node:n1", ("system:nodes",)), report_node)
    actors.add("scheduler", 0.2, Api(cluster, "system:kube-scheduler", ()), schedule)
    actors.add("people", 0.4, Api(cluster, "bob"), write)


def sync(api: Api, number: int) -> None:
    """A GitOps controller: a rollout, an autoscaler's floor, something pruned, a Service, a CronJob."""
    pod = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": f"nginx:{number // 3}"}]},
    }
    namespace = "/namespaces/shop"
    api.apply(
        f"/apis/apps/v1{namespace}/deployments/web",
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": pod}},
    )  # fmt: skip
    api.apply(
        f"/api/v1{namespace}/services/web",
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}},
    )  # fmt: skip
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    floor = 2 + number // 5 % 3
    api.apply(
        f"/apis/autoscaling/v2{namespace}/horizontalpodautoscalers/web",
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {"scaleTargetRef": target, "minReplicas": floor, "maxReplicas": floor}},
    )  # fmt: skip
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"settings-{number}"}, "data": {"a": "b"}}
    api.apply(f"/api/v1{namespace}/configmaps/settings-{number}", settings)
    api.call("DELETE", f"/api/v1{namespace}/configmaps/settings-{number - 1}")
    job = {"ttlSecondsAfterFinished": 5, "template": {"spec": job_pod()}}
    api.apply(
        "/apis/batch/v1/namespaces/batch/cronjobs/minutely",
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "minutely"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}},
    )  # fmt: skip
    lease(api, "argocd", "application-controller", "argo")


def job_pod() -> dict[str, Any]:
    return {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}


def run_job(api: Api, number: int) -> None:
    """A Job that is cleaned up by the cluster itself."""
    spec = {"ttlSecondsAfterFinished": 1, "template": {"spec": job_pod()}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"job-{number}"}, "spec": spec}
    api.call("POST", "/apis/batch/v1/namespaces/batch/jobs", body)


def renew(api: Api, number: int) -> None:
    """A certificate controller: Secrets written and thrown away, a lease to lead by."""
    path, name = "/api/v1/namespaces/shop/secrets", f"tls-{number % 4}"
    content = {"tls.crt": base64.b64encode(str(number).encode()).decode(), "tls.key": ""}
    api.apply(f"{path}/{name}", {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name}, "data": content})  # fmt: skip
    if number % 4 == 3:
        api.call("DELETE", f"{path}/tls-0")
    lease(api, "shop", "cert-manager", "cert-manager")


def report_node(api: Api, _: int) -> None:
    """A kubelet: its lease, and its node's status."""
    lease(api, "kube-node-lease", "n1", "n1")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    heartbeat = {
        "type": "MemoryPressure",
        "status": "False",
        "lastHeartbeatTime": now,
        "reason": "busy",
        "message": now,
    }
    api.call("PATCH", "/api/v1/nodes/n1/status", {"status": {"conditions": [heartbeat]}}, "application/strategic-merge-patch+json")  # fmt: skip


def schedule(api: Api, _: int) -> None:
    """A scheduler: what has no node is bound to the only one."""
    for pod in api.call("GET", "/api/v1/namespaces/shop/pods?fieldSelector=spec.nodeName%3D")["items"]:
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": "n1"}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        api.call("POST", f"/api/v1/namespaces/shop/pods/{name}/binding", body)
    lease(api, "kube-system", "kube-scheduler", "scheduler")


def write(api: Api, number: int) -> None:
    """Somebody who works: where nothing is guarded, and what no policy asks about where something is."""
    for namespace in (*OTHERS, "shop"):
        name = f"notes-{number % 5}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": str(number)}}
        api.apply(f"/api/v1/namespaces/{namespace}/configmaps/{name}", body)
    path = "/apis/apps/v1/namespaces/staging/deployments"
    pod = {"metadata": {"labels": {"app": "web"}}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
    spec = {"replicas": number % 3, "selector": {"matchLabels": {"app": "web"}}, "template": pod}
    api.apply(f"{path}/web", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    api.call("PATCH", f"{path}/web/scale", {"spec": {"replicas": 1}}, MERGE)
    if number % 10 == 9:
        api.call("DELETE", f"{path}/web")


def report(seen: Busy) -> str:
    """Figures for the log."""
    users = Counter(one["user"]["username"] for one in seen.writes)
    controllers = sum(count for user, count in users.items() if is_controller(user))
    reviewed = sum(is_controller(one.user) for one in seen.reviews)
    return (
        f"{len(seen.writes)} writes, {controllers} by controllers and kubelets; {len(seen.reviews)} reviews, "
        f"{reviewed} of those; {len(seen.decisions)} decisions; {users.most_common(12)}"
    )


def test_everything_happened_that_makes_a_cluster_busy(busy: Busy) -> None:
    done = set()
    for one in busy.writes:
        about = one.get("objectRef") or {}
        resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
        if one["responseStatus"]["code"] < 300:
            done.add((one["user"]["username"], one["verb"], resource))
    assert [one for one in HAPPENED if one not in done] == []


def test_nobody_was_refused(busy: Busy) -> None:
    assert busy.failures == []
    assert busy.deleted == "", "the namespace was not deleted although it was proven"
    assert [one for one in busy.decisions if one["outcome"] != "allowed"] == []
    told = [one["responseStatus"].get("message", "") for one in busy.writes]
    assert [one for one in told if "kube-stepup" in one] == []


def test_hardly_a_review_is_a_controllers(busy: Busy) -> None:
    controllers = [one for one in busy.reviews if is_controller(one.user)]
    written = [one for one in busy.writes if is_controller(one["user"]["username"])]
    assert len(busy.reviews) >= 200, "too few to tell"
    assert len(written) > len(busy.reviews), "controllers were hardly busy"
    assert len(controllers) * 50 < len(busy.reviews), Counter((one.user, one.about) for one in controllers)


def test_exempt_accounts_are_known_by_their_own_tokens(busy: Busy) -> None:
    exempt = [one for one in busy.decisions if one["code"] == "exempt"]
    assert {one["user"] for one in exempt} == {
        "system:serviceaccount:argocd:application-controller",
        "system:serviceaccount:cert-manager:cert-manager",
    }
    assert all(one["credential_id"].startswith("JTI=") for one in exempt)
