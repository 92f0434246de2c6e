"""Every road to each effect that we know, in one table: the tests drive it, and `docs/bypasses.md` is written from it.

`python -m tests.routes` writes the document.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.sites import Site, workload
from tests.custom_resources import definition

DOCUMENT = Path(__file__).parent.parent / "docs" / "bypasses.md"
Text = Callable[[Site, str], str]
"""(site, namespace) → text."""


@dataclass(frozen=True)
class Route:
    """One road to one effect.

    Args:
        effect: the operation class.
        name: unique; also the test's.
        command: what a person types; `{ns}` and `{pod}` are filled in.
        shows: what the review shows.
        closed: what finds it.
        names: operations that the refusal names, as it does.
        probe: reads what differs once the effect has happened; None where the refusal itself shows that it has not.
        stdin: what is piped into it.
        before: objects that must be there first (YAML).
        prepare: commands that somebody exempt runs first.
        passes: whether it is also tried with proof (a stream has no end to wait for).
        shared: whether it reaches into all namespaces, so that staging is not left alone.
    """

    effect: str
    name: str
    command: list[str]
    shows: str
    closed: str
    names: str = ""
    probe: Text | None = None
    stdin: Text | None = None
    before: Text | None = None
    prepare: tuple[list[str], ...] = ()
    passes: bool = True
    shared: bool = False

    @property
    def refusal(self) -> str:
        return self.names or self.effect


def get(*arguments: str) -> Text:
    """What `kubectl get` prints."""
    return lambda site, namespace: site.get(*arguments, namespace=namespace)


def dump(*objects: dict[str, Any]) -> Text:
    """Objects as a List; `{ns}` in them is the namespace."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    return lambda _, namespace: text.replace("{ns}", namespace)


def raw(obj: dict[str, Any]) -> Text:
    """One object as JSON, for raw requests; `{ns}` and `{pod}` in it are filled in."""
    text = json.dumps(obj)
    return lambda site, namespace: text.replace("{ns}", namespace).replace("{pod}", site.pod(namespace))


def named(kind: str, api: str, name: str, **body: Any) -> dict[str, Any]:
    """An object in the site's namespace."""
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": "{ns}", **body.pop("metadata", {})},
        **body,
    }


def pod(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "nginx:1"}]
    return named("Pod", "v1", name, metadata={"labels": labels or {}}, spec={"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": containers, **spec})  # fmt: skip


def job(name: str, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    return named("Job", "batch/v1", name, spec={"template": template, **spec})


def set_of(name: str = "db", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "nginx:1"}]}}  # fmt: skip
    return named("StatefulSet", "apps/v1", name, spec={"serviceName": name, "replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template, **spec})  # fmt: skip


def autoscaler(**spec: Any) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return named("HorizontalPodAutoscaler", "autoscaling/v2", "web", spec={"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 4, **spec})  # fmt: skip


CRONJOB = named("CronJob", "batch/v1", "nightly", spec={"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}})  # fmt: skip
JUNK_OWNER = '[{{"apiVersion":"v1","kind":"ConfigMap","name":"junk","uid":"00000000-0000-0000-0000-000000000001"}}]'
OWNED = f'{{{{"metadata":{{{{"ownerReferences":{JUNK_OWNER}}}}}}}}}'
PODS = "/api/v1/namespaces/{ns}/pods/{pod}"
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "{pod}", "namespace": "{ns}"}}
ROLE = named("Role", "rbac.authorization.k8s.io/v1", "reader", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])  # fmt: skip
BINDING = named("RoleBinding", "rbac.authorization.k8s.io/v1", "readers", roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, subjects=[{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}])  # fmt: skip
TOKEN = named("Secret", "v1", "stolen", type="kubernetes.io/service-account-token", metadata={"annotations": {"kubernetes.io/service-account.name": "default"}})  # fmt: skip
KEPT = named("ConfigMap", "v1", "kept", metadata={"finalizers": ["example.com/kept"]})

DEPLOYMENTS = get("deployments", "-o", "jsonpath={.items[*].metadata.uid}")
POD_UIDS = get("pods", "-o", "jsonpath={.items[*].metadata.uid}")
REPLICAS = get("deploy/web", "-o", "jsonpath={.spec.replicas}")
TEMPLATE = get("deploy/web", "-o", "jsonpath={.spec.template}")
IMAGES = get("pods", "-o", "jsonpath={.items[*].spec.containers[*].image}")
DEBUGGERS = get("pods", "-o", "jsonpath={.items[*].spec.ephemeralContainers[*].image}")
POD_OWNERS = get("pods", "-o", "jsonpath={.items[*].metadata.ownerReferences[*].name}")
JOB_SPEC = get("job/batch", "-o", "jsonpath={.spec}")


def namespace_state(site: Site, namespace: str) -> str:
    return site.get("ns", namespace, "-o", "jsonpath={.status.phase} {.metadata.labels.env} {.spec.finalizers}")


NAME, OLD, SPEC, META = "name and oldObject", "oldObject", "spec, before and after", "metadata, before and after"
DELETE, DIFFER, SHAPE, KIND = "the operation", "differ of metadata", "shape: replicas or pod template", "table of kinds"
PATCH = ["patch", "-n", "{ns}", "--type=merge"]

DELETES = [
    Route("delete", "delete by name", ["delete", "deploy/web", "-n", "{ns}"], NAME, DELETE, probe=DEPLOYMENTS),
    Route("delete", "delete by label", ["delete", "pods", "-l", "app=web", "-n", "{ns}"], NAME, DELETE, probe=POD_UIDS),
    Route("delete", "delete all", ["delete", "deploy", "--all", "-n", "{ns}"], NAME, DELETE, probe=DEPLOYMENTS),
    Route("delete", "delete by manifest", ["delete", "-f", "-"], NAME, DELETE, probe=DEPLOYMENTS, stdin=lambda _, ns: workload(ns)),
    Route("delete", "delete and orphan", ["delete", "deploy/web", "-n", "{ns}", "--cascade=orphan"], NAME, DELETE, probe=DEPLOYMENTS),
    Route("delete", "delete in the foreground", ["delete", "deploy/web", "-n", "{ns}", "--cascade=foreground", "--wait=false"], NAME, DELETE, probe=DEPLOYMENTS),
    Route("delete", "delete now", ["delete", "pod/{pod}", "-n", "{ns}", "--grace-period=0", "--force"], NAME, DELETE, probe=POD_UIDS),
    Route("delete", "replace by force", ["replace", "--force", "-f", "-"], NAME, DELETE, probe=DEPLOYMENTS, stdin=lambda _, ns: workload(ns)),
    Route("delete", "collection", ["delete", "--raw", "/api/v1/namespaces/{ns}/pods?labelSelector=app%3Dweb"], "oldObject; the name is empty", DELETE, probe=POD_UIDS, passes=False),
    Route("delete", "eviction", ["create", "--raw", PODS + "/eviction", "-f", "-"], "the Eviction; its inner delete is not sent", "subresource", probe=POD_UIDS, stdin=raw(EVICTION)),
    Route("delete", "namespace", ["delete", "namespace", "{ns}", "--wait=false"], OLD, "cascade: asks for what any rule inside asks", probe=namespace_state),
    Route("delete", "replica set of a deployment", ["delete", "rs", "--all", "-n", "{ns}"], NAME, DELETE, probe=get("rs", "-o", "jsonpath={.items[*].metadata.uid}")),
    Route("delete", "service account, and its tokens", ["delete", "sa/builder", "-n", "{ns}"], NAME, DELETE, probe=get("sa", "-o", "name"), before=dump(named("ServiceAccount", "v1", "builder"))),
    Route("delete", "secret", ["delete", "secret/s", "-n", "{ns}"], NAME, DELETE, probe=get("secrets", "-o", "name"), before=dump(named("Secret", "v1", "s"))),
    Route("delete", "config map", ["delete", "cm/c", "-n", "{ns}"], NAME, DELETE, probe=get("cm", "-o", "name"), before=dump(named("ConfigMap", "v1", "c"))),
    Route("delete", "service", ["delete", "svc/s", "-n", "{ns}"], NAME, DELETE, probe=get("svc", "-o", "name"), before=dump(named("Service", "v1", "s", spec={"ports": [{"port": 80}]}))),
    Route("delete", "autoscaler", ["delete", "hpa/web", "-n", "{ns}"], NAME, DELETE, probe=get("hpa", "-o", "name"), before=dump(autoscaler())),
    Route("delete", "owner that is dead", [*PATCH, "deploy/web", "-p", OWNED], META, DIFFER, probe=DEPLOYMENTS),
    Route("delete", "owner that is dead, through the status", [*PATCH, "deploy/web", "--subresource=status", "-p", OWNED], META, DIFFER, probe=DEPLOYMENTS),
    Route("delete", "owner of a pod replaced", [*PATCH, "pod/{pod}", "-p", OWNED], META, DIFFER, probe=POD_OWNERS, passes=False),
    Route("delete", "owner added by server-side apply", ["apply", "--server-side", "--force-conflicts", "--field-manager=x", "--validate=ignore", "-f", "-"], META, DIFFER, probe=DEPLOYMENTS, stdin=dump(named("Deployment", "apps/v1", "web", metadata={"ownerReferences": json.loads(JUNK_OWNER.replace("{{", "{").replace("}}", "}"))}))),
    Route("delete", "finalizer taken off while terminating", [*PATCH, "cm/kept", "-p", '{{"metadata":{{"finalizers":null}}}}'], META, DIFFER, probe=get("cm", "-o", "name"), before=dump(KEPT), prepare=(["delete", "cm/kept", "-n", "{ns}", "--wait=false"],)),
    Route("delete", "finalizer taken off beforehand", [*PATCH, "cm/kept", "-p", '{{"metadata":{{"finalizers":null}}}}'], META, DIFFER, probe=get("cm/kept", "-o", "jsonpath={.metadata.finalizers}"), before=dump(KEPT)),
    Route("delete", "namespace finalized", ["replace", "--raw", "/api/v1/namespaces/{ns}/finalize", "-f", "-"], "spec.finalizers", KIND, probe=namespace_state, stdin=lambda _, ns: json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns, "labels": {"env": ns.split("-")[0], "kubernetes.io/metadata.name": ns}}, "spec": {"finalizers": []}})),
    Route("delete", "time to live for Kyverno", ["label", "deploy/web", "cleanup.kyverno.io/ttl=1m", "-n", "{ns}"], META, "list of deadly metadata", probe=get("deploy/web", "-o", "jsonpath={.metadata.labels}")),
    Route("delete", "time to live for the janitor", ["annotate", "deploy/web", "janitor/ttl=1m", "-n", "{ns}"], META, "list of deadly metadata", probe=get("deploy/web", "-o", "jsonpath={.metadata.annotations.janitor/ttl}")),
    Route("delete", "adopted by Argo CD, which prunes", ["annotate", "deploy/web", "argocd.argoproj.io/tracking-id=x", "-n", "{ns}"], META, "list of deadly metadata", probe=get("deploy/web", "-o", "jsonpath={.metadata.annotations}")),
    Route("delete", "adopted by an ApplySet, which prunes", ["label", "deploy/web", "applyset.kubernetes.io/part-of=x", "-n", "{ns}"], META, "list of deadly metadata", probe=get("deploy/web", "-o", "jsonpath={.metadata.labels}")),
    Route("delete", "claims deleted with their stateful set", [*PATCH, "sts/db", "-p", '{{"spec":{{"persistentVolumeClaimRetentionPolicy":{{"whenScaled":"Delete"}}}}}}'], SPEC, KIND, probe=get("sts/db", "-o", "jsonpath={.spec.persistentVolumeClaimRetentionPolicy.whenScaled}"), before=dump(set_of())),
    Route("delete", "job with a time to live", [*PATCH, "job/batch", "-p", '{{"spec":{{"ttlSecondsAfterFinished":0}}}}'], SPEC, KIND, probe=JOB_SPEC, before=dump(job("batch"))),
    Route("delete", "job with a deadline", [*PATCH, "job/batch", "-p", '{{"spec":{{"activeDeadlineSeconds":1}}}}'], SPEC, KIND, probe=JOB_SPEC, before=dump(job("batch"))),
    Route("delete", "job suspended, its pods go", [*PATCH, "job/batch", "-p", '{{"spec":{{"suspend":true}}}}'], SPEC, KIND, names="delete and scale", probe=JOB_SPEC, before=dump(job("batch"))),
    Route("delete", "adoption by a replica set that wants none", ["create", "-f", "-"], SPEC, "creation of a workload with no replicas", names="deploy and scale and delete", probe=get("pod/naked", "-o", "name"), before=dump(pod("naked", labels={"naked": "yes"})), stdin=dump(named("ReplicaSet", "apps/v1", "eater", spec={"replicas": 0, "selector": {"matchLabels": {"naked": "yes"}}, "template": {"metadata": {"labels": {"naked": "yes"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}))),
]  # fmt: skip

SCALES = [
    Route("scale", "scale", ["scale", "deploy/web", "-n", "{ns}", "--replicas=0"], "Scale; zero is left out", SHAPE, probe=REPLICAS),
    Route("scale", "patch of replicas", ["patch", "deploy/web", "-n", "{ns}", "-p", '{{"spec":{{"replicas":0}}}}'], SPEC, SHAPE, probe=REPLICAS),
    Route("scale", "JSON patch of replicas", ["patch", "deploy/web", "-n", "{ns}", "--type=json", "-p", '[{{"op":"replace","path":"/spec/replicas","value":0}}]'], SPEC, SHAPE, probe=REPLICAS),
    Route("scale", "patch of the scale subresource", [*PATCH, "deploy/web", "--subresource=scale", "-p", '{{"spec":{{"replicas":0}}}}'], "Scale", SHAPE, probe=REPLICAS),
    Route("scale", "apply of replicas", ["apply", "-f", "-"], SPEC, SHAPE, probe=REPLICAS, stdin=lambda _, ns: workload(ns, replicas=0)),
    Route("scale", "server-side apply of replicas", ["apply", "--server-side", "--force-conflicts", "-f", "-"], SPEC, SHAPE, probe=REPLICAS, stdin=lambda _, ns: workload(ns, replicas=0)),
    Route("scale", "replace with other replicas", ["replace", "-f", "-"], SPEC, SHAPE, probe=REPLICAS, stdin=lambda _, ns: workload(ns, replicas=0)),
    Route("scale", "apply that deploys and scales", ["apply", "-f", "-"], SPEC, SHAPE, names="scale and deploy", probe=TEMPLATE, stdin=lambda _, ns: workload(ns, replicas=0, image="nginx:2")),
    Route("scale", "stateful set", ["scale", "sts/db", "-n", "{ns}", "--replicas=0"], "Scale", SHAPE, probe=get("sts/db", "-o", "jsonpath={.spec.replicas}"), before=dump(set_of())),
    Route("scale", "workload created with no replicas", ["create", "-f", "-"], SPEC, SHAPE, names="deploy and scale", probe=get("deploy", "-o", "name"), stdin=lambda _, ns: workload(ns, "empty", replicas=0)),
    Route("scale", "autoscaler created", ["create", "-f", "-"], SPEC, KIND, stdin=dump(autoscaler()), probe=get("hpa", "-o", "name")),
    Route("scale", "autoscaler with a lower ceiling", [*PATCH, "hpa/web", "-p", '{{"spec":{{"maxReplicas":1}}}}'], SPEC, KIND, probe=get("hpa/web", "-o", "jsonpath={.spec.maxReplicas}"), before=dump(autoscaler())),
    Route("scale", "autoscaler pointed elsewhere", [*PATCH, "hpa/web", "-p", '{{"spec":{{"scaleTargetRef":{{"name":"other"}}}}}}'], SPEC, KIND, probe=get("hpa/web", "-o", "jsonpath={.spec.scaleTargetRef.name}"), before=dump(autoscaler())),
    Route("scale", "cron job suspended", [*PATCH, "cronjob/nightly", "-p", '{{"spec":{{"suspend":true}}}}'], SPEC, KIND, probe=get("cronjob/nightly", "-o", "jsonpath={.spec.suspend}"), before=dump(CRONJOB)),
    Route("scale", "job with fewer pods", [*PATCH, "job/batch", "-p", '{{"spec":{{"parallelism":0}}}}'], SPEC, KIND, probe=JOB_SPEC, before=dump(job("batch"))),
]  # fmt: skip

EXECS = [
    Route("exec", "exec", ["exec", "-n", "{ns}", "{pod}", "--", "true"], "PodExecOptions", "subresource"),
    Route("exec", "exec through a deployment", ["exec", "-n", "{ns}", "deploy/web", "--", "true"], "PodExecOptions", "subresource"),
    Route("exec", "attach", ["attach", "-n", "{ns}", "{pod}"], "PodAttachOptions", "subresource", passes=False),
    Route("exec", "copy", ["cp", "-n", "{ns}", "{pod}:/etc/hostname", "/dev/null"], "PodExecOptions (tar)", "subresource", passes=False),
    Route("exec", "port-forward", ["create", "--raw", PODS + "/portforward", "-f", "/dev/null"], "PodPortForwardOptions", "subresource", passes=False),
    Route("exec", "port-forward by kubectl", ["port-forward", "-n", "{ns}", "{pod}", ":80"], "PodPortForwardOptions, by WebSocket", "subresource", passes=False),
    Route("exec", "pod proxy", ["get", "--raw", PODS + "/proxy/"], "PodProxyOptions", "subresource", passes=False),
    Route("exec", "pod proxy with a port", ["get", "--raw", PODS + ":8080/proxy/"], "the name has the port", "subresource", passes=False),
    Route("exec", "pod proxy with scheme and port", ["get", "--raw", "/api/v1/namespaces/{ns}/pods/https:{pod}:8443/proxy/"], "the name has both", "subresource", passes=False),
    Route("exec", "service proxy", ["get", "--raw", "/api/v1/namespaces/{ns}/services/s:80/proxy/"], "ServiceProxyOptions", "subresource", before=dump(named("Service", "v1", "s", spec={"ports": [{"port": 80}]})), passes=False),
    Route("exec", "debug container", ["debug", "{pod}", "-n", "{ns}", "--image=busybox", "--target=c", "--attach=false"], "Pods, before and after", "subresource", probe=DEBUGGERS),
    Route("exec", "pod that mounts the host", ["create", "-f", "-"], SPEC, "host access of a new pod", names="deploy and exec", probe=get("pods", "-o", "name"), stdin=dump(pod("host", volumes=[{"name": "h", "hostPath": {"path": "/"}}]))),
    Route("exec", "pod in the host's namespaces", ["create", "-f", "-"], SPEC, "host access of a new pod", names="deploy and exec", probe=get("pods", "-o", "name"), stdin=dump(pod("host", hostPID=True, hostNetwork=True))),
    Route("exec", "workload in the host's namespaces", [*PATCH, "deploy/web", "-p", '{{"spec":{{"template":{{"spec":{{"hostPID":true}}}}}}}}'], SPEC, "host access of a template", names="deploy and exec", probe=TEMPLATE),
    Route("exec", "privileged pod", ["create", "-f", "-"], SPEC, "host access of a new pod", names="deploy and exec", probe=get("pods", "-o", "name"), stdin=dump(pod("host", containers=[{"name": "c", "image": "i", "securityContext": {"privileged": True}}]))),
]  # fmt: skip

DEPLOYS = [
    Route("restart", "rollout restart", ["rollout", "restart", "deploy/web", "-n", "{ns}"], SPEC, SHAPE, probe=TEMPLATE),
    Route("deploy", "set image", ["set", "image", "deploy/web", "c=nginx:2", "-n", "{ns}"], SPEC, SHAPE, probe=TEMPLATE),
    Route("deploy", "set env", ["set", "env", "deploy/web", "A=b", "-n", "{ns}"], SPEC, SHAPE, probe=TEMPLATE),
    Route("deploy", "set resources", ["set", "resources", "deploy/web", "--limits=cpu=1", "-n", "{ns}"], SPEC, SHAPE, probe=TEMPLATE),
    Route("deploy", "set service account", ["set", "serviceaccount", "deploy/web", "builder", "-n", "{ns}"], SPEC, SHAPE, probe=TEMPLATE),
    Route("deploy", "annotation of the template", [*PATCH, "deploy/web", "-p", '{{"spec":{{"template":{{"metadata":{{"annotations":{{"restart":"now"}}}}}}}}}}'], SPEC, SHAPE, probe=TEMPLATE),
    Route("deploy", "image of a pod in place", ["set", "image", "pod/{pod}", "c=nginx:2", "-n", "{ns}"], SPEC, SHAPE, probe=IMAGES),
    Route("deploy", "a new pod", ["run", "extra", "--image=nginx", "-n", "{ns}"], SPEC, SHAPE, probe=get("pods", "-o", "name")),
    Route("deploy", "a copy of a pod for debugging", ["debug", "{pod}", "-n", "{ns}", "--copy-to=copy", "--image=busybox", "--attach=false"], SPEC, SHAPE, probe=get("pods", "-o", "name"), passes=False),
    Route("deploy", "a new deployment", ["create", "deployment", "extra", "--image=nginx", "-n", "{ns}"], SPEC, SHAPE, probe=get("deploy", "-o", "name")),
    Route("deploy", "job from a cron job", ["create", "job", "now", "--from=cronjob/nightly", "-n", "{ns}"], SPEC, SHAPE, probe=get("jobs", "-o", "name"), before=dump(CRONJOB)),
    Route("deploy", "template of a cron job", ["set", "image", "cronjob/nightly", "c=other", "-n", "{ns}"], SPEC, SHAPE, probe=get("cronjob/nightly", "-o", "jsonpath={.spec.jobTemplate}"), before=dump(CRONJOB)),
    Route("deploy", "stateful set's template", ["set", "image", "sts/db", "c=nginx:2", "-n", "{ns}"], SPEC, SHAPE, probe=get("sts/db", "-o", "jsonpath={.spec.template}"), before=dump(set_of())),
    Route("deploy", "stateful set's partition", [*PATCH, "sts/db", "-p", '{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"partition":3}}}}}}}}'], SPEC, KIND, probe=get("sts/db", "-o", "jsonpath={.spec.updateStrategy}"), before=dump(set_of())),
    Route("deploy", "rollout undone", ["rollout", "undo", "deploy/web", "-n", "{ns}"], SPEC, SHAPE, probe=TEMPLATE, prepare=(["set", "image", "deploy/web", "c=nginx:2", "-n", "{ns}"],)),
    Route("deploy", "rollout resumed", ["rollout", "resume", "deploy/web", "-n", "{ns}"], SPEC, KIND, probe=get("deploy/web", "-o", "jsonpath={.spec.paused}"), prepare=(["rollout", "pause", "deploy/web", "-n", "{ns}"],)),
]  # fmt: skip

ACCESSES = [
    Route("access", "token of a service account", ["create", "token", "default", "-n", "{ns}"], "TokenRequest", "table of kinds (subresource)"),
    Route("access", "secret that becomes a token", ["create", "-f", "-"], "type of a Secret", KIND, probe=get("secrets", "-o", "name"), stdin=dump(TOKEN)),
    Route("access", "role binding", ["create", "-f", "-"], "subjects, roleRef", KIND, probe=get("rolebindings", "-o", "name"), stdin=dump(BINDING)),
    Route("access", "subject added to a role binding", ["patch", "rolebinding/readers", "-n", "{ns}", "--type=json", "-p", '[{{"op":"replace","path":"/subjects/0/name","value":"eve"}}]'], "subjects", KIND, probe=get("rolebinding/readers", "-o", "jsonpath={.subjects[0].name}"), before=dump(BINDING)),
    Route("access", "role", ["create", "-f", "-"], "rules", KIND, probe=get("roles", "-o", "name"), stdin=dump(ROLE)),
    Route("access", "role widened", ["patch", "role/reader", "-n", "{ns}", "--type=json", "-p", '[{{"op":"replace","path":"/rules/0/verbs","value":["*"]}}]'], "rules", KIND, probe=get("role/reader", "-o", "jsonpath={.rules[0].verbs}"), before=dump(ROLE)),
    Route("access", "pod security relaxed", ["label", "namespace", "{ns}", "pod-security.kubernetes.io/enforce=privileged"], META, DIFFER, probe=lambda site, ns: site.get("ns", ns, "-o", "jsonpath={.metadata.labels}")),
]  # fmt: skip

GUARDS = [
    Route("guard", "namespace relabelled", ["label", "namespace", "{ns}", "env-"], "labels, before and after", "guard", probe=namespace_state),
    Route("guard", "namespace relabelled through the status", ["patch", "namespace", "{ns}", "--subresource=status", "--type=merge", "-p", '{{"metadata":{{"labels":{{"env":null}}}}}}'], META, "guard", probe=namespace_state),
    Route("guard", "namespace relabelled through finalize", ["replace", "--raw", "/api/v1/namespaces/{ns}/finalize", "-f", "-"], META, "guard", probe=namespace_state, stdin=lambda _, ns: json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns, "labels": {"env": "dev"}}, "spec": {"finalizers": ["kubernetes"]}})),
    Route("guard", "policy deleted", ["delete", "stepuppolicies.kube-stepup.io/production"], OLD, "guard", probe=lambda site, _: site.get("stepuppolicies.kube-stepup.io", "-o", "name"), passes=False),
    Route("guard", "policy made laxer", ["patch", "stepuppolicies.kube-stepup.io/production", "--type=merge", "-p", '{{"spec":{{"enforcement":"Audit"}}}}'], SPEC, "guard", probe=lambda site, _: site.get("stepuppolicies.kube-stepup.io/production", "-o", "jsonpath={.spec.enforcement}"), passes=False),
    Route("guard", "exemption added", ["patch", "stepuppolicies.kube-stepup.io/production", "--type=merge", "-p", '{{"spec":{{"match":{{"exempt":{{"groups":["devs"]}}}}}}}}'], SPEC, "guard", probe=lambda site, _: site.get("stepuppolicies.kube-stepup.io/production", "-o", "jsonpath={.spec.match.exempt.groups}"), passes=False),
    Route("guard", "definition of our objects deleted", ["delete", "crd/stepuppolicies.kube-stepup.io", "--wait=false"], OLD, "guard", probe=lambda site, _: site.get("crd/stepuppolicies.kube-stepup.io", "-o", "jsonpath={.metadata.deletionTimestamp}"), passes=False, names="delete and guard"),
    Route("guard", "our API taken over", ["patch", "apiservice/v1alpha1.kube-stepup.io", "--type=merge", "-p", '{{"metadata":{{"labels":{{"kube-aggregator.kubernetes.io/automanaged":null}}}}}}'], META, "guard", probe=lambda site, _: site.get("apiservice/v1alpha1.kube-stepup.io", "-o", "jsonpath={.metadata.labels}"), passes=False),
    Route("guard", "signing key of somebody else", ["create", "-f", "-"], SPEC, "guard", probe=lambda site, _: site.get("signingkeys.kube-stepup.io", "-o", "name"), passes=False, stdin=lambda _, __: json.dumps({"apiVersion": "kube-stepup.io/v1alpha1", "kind": "SigningKey", "metadata": {"name": "es256-" + "0" * 40}, "spec": {"algorithm": "ES256", "notBefore": "2026-01-01T00:00:00Z", "publicKey": "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"}})),
    Route("guard", "the role that owns the webhook configuration", ["delete", "clusterrole/kube-stepup-controller"], "labels of oldObject", "guard", probe=lambda site, _: site.get("clusterrole/kube-stepup-controller", "-o", "name"), passes=False),
    Route("guard", "our own secrets", ["delete", "secret/kube-stepup-signing-keys", "-n", "kube-stepup"], OLD, "guard", probe=lambda site, _: site.get("secrets", "-o", "name", namespace="kube-stepup"), passes=False),
]  # fmt: skip

CLUSTER = named("Cluster", "cnpg.io/v1", "db", spec={"size": 3, "storage": "1Gi"})
SERVER = named("Server", "example.com/v1", "one", spec={})
ORDER = named("Order", "example.com/v1", "one", spec={"target": "a"})
APPLICATION = named("Application", "argoproj.io/v1", "shop", spec={"source": {"targetRevision": "v1"}})
SPARE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "{ns}"}}
THINGS = definition("{ns}.example.com", "things", "Thing")
VOLUME = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "{ns}"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}, "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "{ns}", "name": "data"}}}  # fmt: skip
DATABASES = get("clusters.cnpg.io", "-o", "jsonpath={.items[*].spec}")
RELEASE = named("Secret", "v1", "sh.helm.release.v1.web.v1", type="helm.sh/release.v1", data={"release": base64.b64encode(base64.b64encode(gzip.compress(b'{"name":"web","manifest":"a"}', mtime=0))).decode()})  # fmt: skip
RAW, DEPUTY, ALONG = "raw operation", "table of deputies", "table of cascades"

RAWS = [
    Route("raw", "database created", ["create", "-f", "-"], "verb and resource", RAW, names="create:cnpg.io/clusters", probe=DATABASES, stdin=dump(CLUSTER)),
    Route("raw", "database changed", [*PATCH, "clusters.cnpg.io/db", "-p", '{{"spec":{{"storage":"2Gi"}}}}'], "verb and resource", RAW, names="update:cnpg.io/clusters", probe=DATABASES, before=dump(CLUSTER)),
    Route("raw", "database changed by server-side apply", ["apply", "--server-side", "--force-conflicts", "-f", "-"], "verb and resource", RAW, names="update:cnpg.io/clusters", probe=DATABASES, before=dump(CLUSTER), stdin=dump(named("Cluster", "cnpg.io/v1", "db", spec={"size": 3, "storage": "3Gi"}))),
    Route("raw", "status of a database", [*PATCH, "clusters.cnpg.io/db", "--subresource=status", "-p", '{{"status":{{"phase":"gone"}}}}'], "verb, resource and subresource", RAW, names="update:cnpg.io/clusters/status", probe=get("clusters.cnpg.io", "-o", "jsonpath={.items[*].status}"), before=dump(CLUSTER)),
    Route("raw", "database deleted", ["delete", "clusters.cnpg.io/db", "-n", "{ns}"], NAME, RAW, names="delete", probe=DATABASES, before=dump(CLUSTER)),
    Route("raw", "server restarted by an annotation", ["annotate", "servers.example.com/one", "example.com/restart=now", "-n", "{ns}"], META, "raw operation with a condition", names="update:example.com/servers", probe=get("servers.example.com", "-o", "jsonpath={.items[*].metadata.annotations}"), before=dump(SERVER)),
    Route("raw", "connection by name", ["get", "--raw", "/api/v1/namespaces/{ns}/services/raw:80/proxy/"], "ServiceProxyOptions", "raw operation with a condition", names="exec and connect:core/services/proxy", before=dump(named("Service", "v1", "raw", spec={"ports": [{"port": 80}]})), passes=False),
    Route("scale", "replicas of a custom resource where it has them", [*PATCH, "clusters.cnpg.io/db", "-p", '{{"spec":{{"size":0}}}}'], SPEC, "specReplicasPath of its definition", names="scale and update:cnpg.io/clusters", probe=DATABASES, before=dump(CLUSTER)),
    Route("scale", "scale of a custom resource", ["scale", "clusters.cnpg.io/db", "--replicas=1", "-n", "{ns}"], "Scale", SHAPE, names="scale and update:cnpg.io/clusters/scale", probe=DATABASES, before=dump(CLUSTER)),
    Route("deploy", "Argo CD application made", ["create", "-f", "-"], SPEC, DEPUTY, probe=get("applications.argoproj.io", "-o", "name"), stdin=dump(APPLICATION)),
    Route("deploy", "Argo CD application changed", [*PATCH, "applications.argoproj.io/shop", "-p", '{{"spec":{{"source":{{"targetRevision":"v2"}}}}}}'], SPEC, DEPUTY, probe=get("applications.argoproj.io", "-o", "jsonpath={.items[*].spec}"), before=dump(APPLICATION)),
    Route("deploy", "order to a controller that operators named", [*PATCH, "orders.example.com/one", "-p", '{{"spec":{{"target":"b"}}}}'], SPEC, "StepUpConfiguration", probe=get("orders.example.com", "-o", "jsonpath={.items[*].spec}"), before=dump(ORDER)),
    Route("deploy", "release that Helm has stored", [*PATCH, "secret/sh.helm.release.v1.web.v1", "-p", '{{"data":{{"release":"eA=="}}}}'], "data, before and after", KIND, probe=get("secret/sh.helm.release.v1.web.v1", "-o", "jsonpath={.data}"), before=dump(RELEASE)),
    Route("delete", "metadata that operators named", ["annotate", "deploy/web", "example.com/delete-after=1h", "-n", "{ns}"], META, "StepUpConfiguration", probe=get("deploy/web", "-o", "jsonpath={.metadata.annotations}")),
    Route("delete", "definition of custom resources deleted", ["delete", "crd/things.{ns}.example.com", "--wait=false"], NAME, ALONG, probe=lambda site, ns: site.get(f"crd/things.{ns}.example.com", "-o", "jsonpath={.metadata.deletionTimestamp}{.metadata.name}"), before=dump(THINGS), shared=True),
    Route("delete", "definition of custom resources that is served no more", ["patch", "crd/things.{ns}.example.com", "--type=json", "-p", '[{{"op":"replace","path":"/spec/versions/0/served","value":false}}]'], SPEC, ALONG, probe=lambda site, ns: site.get(f"crd/things.{ns}.example.com", "-o", "jsonpath={.spec.versions[0].served}"), before=dump(THINGS), shared=True),
    Route("delete", "node", ["delete", "node/{ns}", "--wait=false"], NAME, ALONG, probe=lambda site, ns: site.get("node", ns, "-o", "name"), before=dump(SPARE), shared=True),
    Route("drain", "node that throws its pods out", ["taint", "node", "{ns}", "gone=now:NoExecute"], SPEC, ALONG, probe=lambda site, ns: site.get("node", ns, "-o", "jsonpath={.spec.taints[?(@.key=='gone')].key}"), before=dump(SPARE), shared=True),
    Route("delete", "volume that a claim has", ["delete", "pv/{ns}", "--wait=false"], "claimRef of oldObject", ALONG, probe=lambda site, ns: site.get("pv", ns, "-o", "jsonpath={.metadata.name}{.metadata.deletionTimestamp}"), before=dump(VOLUME)),
]  # fmt: skip

ROUTES = [*DELETES, *SCALES, *EXECS, *DEPLOYS, *ACCESSES, *RAWS, *GUARDS]

RENDER = "[`stepup guard render`](operations.md#hold-what-admission-never-sees)"
OPEN = [
    ("exec", "logs, `get secret` and every other read", "admission is asked about writes and connections only", "RBAC; the API server's audit log"),
    ("exec", "a stream that is open already", "it was asked about when it began", "short-lived pods; `kubectl delete pod`"),
    ("exec", "the kubelet's own port, a static pod, a runtime socket", "goes past the API server", "node access is root; firewall the port"),
    ("delete", "writes to etcd, or a restored backup", "goes past the API server", "encrypt and guard etcd; revoke after a restore"),
    ("delete", "unreadable objects (`ignoreStoreReadErrorWithClusterBreakingPotential`)", "the API server skips admission", "RBAC on the verb `unsafe-delete-ignore-read-errors`"),
    ("delete", "preemption by a pod of higher priority in another namespace", "the write is not about the guarded pod", "a policy on the other namespace, or quotas on priority classes"),
    ("access", "a service account's token that was minted before", "it is the account, to every part of Kubernetes", "guard minting (class access); exempt few accounts"),
    ("access", "impersonation with `userextras`, or of `system:apiserver` with a uid", "the review shows what the impersonator chose", f"closed by {RENDER} (its authorizer), but for system:masters; on managed clusters RBAC: nobody needs `impersonate` on userextras and uids"),
    ("guard", "webhook configurations and admission policies", "never sent to webhooks", f"closed by {RENDER} from 1.37; on managed clusters it holds webhook configurations, and RBAC the policies that do so"),
    ("guard", "our namespace and definitions while admission is down", "asked about by the entry that fails open, so that they can be repaired", f"closed by {RENDER}"),
    ("guard", "a mutating webhook or policy that changes our objects on their way", "never sent to webhooks", f"closed by {RENDER}; on managed clusters for webhooks alone"),
    ("delete", "a Service's selector, an emptied ConfigMap, a denying NetworkPolicy", "out of service, still there: no class of its own", "raw operations, such as update:core/services, with a condition"),
    ("deploy", "a mutable tag, or a ConfigMap that a pod runs as code", "nothing of the workload changes", "digests in images; immutable ConfigMaps"),
    ("deploy", "a custom resource that an exempt controller acts on, and that no table names", "the exempt controller does the deed", "name it in the StepUpConfiguration; do not exempt deputies"),
    ("deploy", "what an order points to (a Git branch, a chart, an image tag)", "nothing of the order changes", "pin revisions; guard the sources"),
    ("delete", "adoption by a DaemonSet, or by a StatefulSet that wants some", "it may be an ordinary new workload", "a rule on deploy"),
]  # fmt: skip


def document() -> str:
    """The text of docs/bypasses.md."""
    rows = [f"| {one.effect} | {one.name} | `{_shown(one.command)}` | {one.shows} | {one.closed} |" for one in ROUTES]
    gaps = [f"| {effect} | {route} | {why} | {remedy} |" for effect, route, why, remedy in OPEN]
    return "\n".join(
        [
            "# Roads to each effect",
            "",
            "A class is an effect, and every road to the effect belongs to it. Each row is a test: the request is sent by the",
            "real kubectl to a real kube-apiserver with its controller manager; without proof it is refused and the effect is",
            "seen not to have happened, with proof it passes. Written by `python -m tests.routes` from the table that",
            "`tests/cluster/test_routes.py` drives; the row's second column is the test's name. `…` stands for a body.",
            "",
            f"## Closed: {len(ROUTES)}",
            "",
            "| effect | road | request | what the review shows | what finds it |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"## Open: {len(OPEN)}",
            "",
            "What admission cannot see, or what has no class yet, and what an operator does about it.",
            "",
            "| effect | road | why | what to do |",
            "| --- | --- | --- | --- |",
            *gaps,
            "",
        ]
    )


def _shown(command: list[str]) -> str:
    words = [
        word.replace("{{", "{").replace("}}", "}").replace("{ns}", "NS").replace("{pod}", "POD") for word in command
    ]
    return "kubectl " + " ".join(words).replace("|", "\\|")


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
