"""What a command line is about, in all the forms that people type, and which refusals it can have met."""

from __future__ import annotations

import shlex

import pytest

from webhook.cli import flags
from webhook.cli.about import About, Claim, Cluster, about, objection
from webhook.cli.exits import ElevateError

KINDS = {
    "cm": ("", "configmaps"),
    "csr": ("certificates.k8s.io", "certificatesigningrequests"),
    "deploy": ("apps", "deployments"),
    "deployment": ("apps", "deployments"),
    "deployments.apps": ("apps", "deployments"),
    "node": ("", "nodes"),
    "nodes": ("", "nodes"),
    "ns": ("", "namespaces"),
    "po": ("", "pods"),
    "pods": ("", "pods"),
    "sts": ("apps", "statefulsets"),
    "svc": ("", "services"),
    "wd": ("example.com", "widgets"),
}


def resource(kind: str) -> tuple[str, str]:
    if kind not in KINDS:
        raise ElevateError(f"no kind {kind}")
    return KINDS[kind]


CLUSTER = Cluster(lambda: "dev", resource)


def parsed(line: str) -> About:
    return about(flags.of_command(shlex.split(line)))


def claim(text: str) -> Claim:
    """``delete deployments.apps/web -n prod``."""
    operations, target, *where = text.split()
    kind, _, name = target.partition("/")
    return Claim(frozenset(operations.split(",")), kind, name, where[1] if where else "")


@pytest.mark.parametrize(
    ("line", "verb", "words", "namespace"),
    [
        ("kubectl delete deploy/web -n prod", "delete", "deploy/web", "prod"),
        ("kubectl -n prod delete deploy/web", "delete", "deploy/web", "prod"),
        ("kubectl -nprod delete deploy/web", "delete", "deploy/web", "prod"),
        ("kubectl --namespace=prod delete deploy web", "delete", "deploy web", "prod"),
        ("kubectl --namespace prod delete deploy/web svc/x", "delete", "deploy/web svc/x", "prod"),
        ("kubectl --context c --kubeconfig=/k delete deploy/web", "delete", "deploy/web", ""),
        ("kubectl delete deploy/web --context=c --as alice", "delete", "deploy/web", ""),
        ("kubectl delete -l app=web deploy", "delete", "deploy", ""),
        ("kubectl delete deploy -lapp=web --all", "delete", "deploy", ""),
        ("kubectl delete -f file.yaml -n prod", "delete", "", "prod"),
        ("kubectl delete -f - --grace-period 0 --force", "delete", "", ""),
        ("kubectl scale --replicas 0 deploy/web", "scale", "deploy/web", ""),
        ("kubectl patch deploy web -p {} --type merge", "patch", "deploy web", ""),
        ("kubectl exec -it -c main web-1 -- sh -n other", "exec", "web-1", ""),
        ("kubectl logs -p web-1", "logs", "web-1", ""),
        ("/usr/local/bin/kubectl rollout restart deploy/web", "rollout", "restart deploy/web", ""),
        ("timeout 60 kubectl -v 6 delete po web-1", "delete", "po web-1", ""),
        ("sudo -E oc rsh -n prod web-1", "rsh", "web-1", "prod"),
        ("kubectl argo rollouts restart web -n prod", "argo", "rollouts restart web", "prod"),
        ("helm upgrade shop ./chart -n prod -f values.yaml --kube-context c", "upgrade", "shop ./chart", "prod"),
        ("helm -n prod uninstall shop", "uninstall", "shop", "prod"),
        ("argocd app sync shop", "app", "sync shop", ""),
        ("kubectl", "", "", ""),
    ],
)
def test_a_command_line_taken_apart(line: str, verb: str, words: str, namespace: str) -> None:
    found = parsed(line)
    assert (found.verb, " ".join(found.words), found.namespace) == (verb, words, namespace)


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("kubectl delete deploy/web -n prod", "delete deployments.apps/web -n prod"),
        ("kubectl delete deploy web api -n prod", "delete deployments.apps/api -n prod"),
        ("kubectl delete deploy/web svc/x -n prod", "delete services/x -n prod"),
        ("kubectl delete deploy,svc web -n prod", "delete services/web -n prod"),
        ("kubectl delete deployments.apps web", "delete deployments.apps/web -n dev"),
        ("kubectl delete wd/web", "delete widgets.example.com/web -n dev"),
        ("kubectl delete all --all -n prod", "delete deployments.apps/web -n prod"),
        ("kubectl delete pods -l app=web -n prod", "delete,drain pods/web-1 -n prod"),
        ("kubectl delete pods --all -n prod", "delete pods/web-1 -n prod"),
        ("kubectl delete pods --all -A", "delete pods/web-1 -n prod"),
        ("kubectl delete ns prod", "delete namespaces/prod"),
        ("kubectl delete -f file.yaml", "delete secrets/x -n anywhere"),
        ("kubectl delete -k overlay -n prod", "delete secrets/x -n prod"),
        ("kubectl delete --raw /api/v1/namespaces/prod/pods", "delete pods/web-1 -n prod"),
        ("kubectl replace --force -f -", "delete deployments.apps/web -n prod"),
        ("kubectl apply -f - -n prod", "scale,deploy deployments.apps/web -n prod"),
        ("kubectl create token builder -n prod", "access serviceaccounts/builder -n prod"),
        (
            "kubectl autoscale deploy web --min 1 --max 2 -n prod",
            "scale horizontalpodautoscalers.autoscaling/web -n prod",
        ),
        ("kubectl scale --replicas=0 deploy/web -n prod", "scale deployments.apps/web -n prod"),
        ("kubectl set image deploy/web c=nginx:2 -n prod", "deploy deployments.apps/web -n prod"),
        ("kubectl set image deployment web c=nginx:2 -n prod", "deploy deployments.apps/web -n prod"),
        ("kubectl rollout restart deploy/web -n prod", "restart deployments.apps/web -n prod"),
        ("kubectl rollout undo deploy web -n prod", "deploy deployments.apps/web -n prod"),
        ("kubectl label ns prod env-", "guard namespaces/prod"),
        ("kubectl label deploy web tier=x -n prod", "guard deployments.apps/web -n prod"),
        ("kubectl annotate deploy/web example.com/a=b -n prod", "delete deployments.apps/web -n prod"),
        ("kubectl certificate approve bob", "access certificatesigningrequests.certificates.k8s.io/bob"),
        ("kubectl cordon n1", "drain nodes/n1"),
        ("kubectl taint nodes n1 a=b:NoExecute", "drain nodes/n1"),
        ("kubectl drain n1 --ignore-daemonsets", "delete,drain pods/web-1 -n anywhere"),
        ("kubectl drain node/n1", "drain nodes/n1"),
        ("kubectl exec -it deploy/web -n prod -- sh", "exec pods/web-85cb44fc5d-pqjnz -n prod"),
        ("kubectl exec web-1 -n prod -- sh", "exec,guard pods/web-1 -n prod"),
        ("kubectl exec -f pod.yaml -n prod -- sh", "exec pods/web-1 -n prod"),
        ("kubectl port-forward web-1 :80", "exec pods/web-1 -n dev"),
        ("kubectl cp web-1:/x . -n prod", "exec pods/web-1 -n prod"),
        ("kubectl cp . other/web-1:/x", "exec pods/web-1 -n other"),
        ("oc rsync ./x web-1:/x -n prod", "exec pods/web-1 -n prod"),
        ("kubectl run x --image i --expose --port 80 -n prod", "guard services/x -n prod"),
        ("kubectl debug web-1 --copy-to web-2 -n prod", "deploy pods/web-2 -n prod"),
        ("kubectl debug node/n1 -n prod --image i", "deploy,exec pods/node-debugger-n1-abcde -n prod"),
        ("oc debug deploy/web -n prod", "deploy pods/web-debug -n prod"),
        ("kubectl argo rollouts restart web -n prod", "restart rollouts.argoproj.io/web -n prod"),
        ("helm upgrade shop ./chart -n prod", "deploy deployments.apps/web -n elsewhere"),
        ("argocd app sync shop", "deploy deployments.apps/web -n prod"),
        ("make deploy", "deploy deployments.apps/web -n prod"),
        ("xargs kubectl delete -n prod", "delete secrets/x -n prod"),
    ],
)
def test_what_a_command_can_have_been_refused(line: str, refused: str) -> None:
    assert objection(claim(refused), parsed(line), CLUSTER) == ""


@pytest.mark.parametrize(
    ("line", "refused", "why"),
    [
        ("kubectl delete deploy/web -n prod", "delete deployments.apps/web -n staging", "about the namespace prod"),
        ("kubectl delete deploy/web", "delete deployments.apps/web -n prod", "about the namespace dev"),
        ("kubectl delete deploy/web -n prod", "delete deployments.apps/api -n prod", "not about that"),
        ("kubectl delete deploy/web -n prod", "delete statefulsets.apps/web -n prod", "not about that"),
        ("kubectl delete deploy/web svc/x -n prod", "delete secrets/x -n prod", "not about that"),
        ("kubectl delete pods -l app=web -n prod", "delete secrets/x -n prod", "not about that"),
        ("kubectl delete ns prod", "delete namespaces/other", "not about that"),
        ("kubectl delete ns prod", "delete clusterroles.rbac.authorization.k8s.io/x", "not about that"),
        ("kubectl delete -f file.yaml -n prod", "delete secrets/x -n other", "about the namespace prod"),
        ("kubectl scale deploy/web --replicas=0 -n prod", "scale statefulsets.apps/db -n prod", "not about that"),
        ("kubectl patch deploy web -p {} -n prod", "deploy deployments.apps/{} -n prod", "not about that"),
        ("kubectl rollout restart deploy/web -n prod", "restart deployments.apps/api -n prod", "not about that"),
        ("kubectl cordon n1", "drain nodes/n2", "not about that"),
        ("kubectl cordon n1", "delete pods/web-1 -n prod", "not about that"),
        (
            "kubectl certificate approve bob",
            "access rolebindings.rbac.authorization.k8s.io/bob -n dev",
            "not about that",
        ),
        ("kubectl exec web-1 -n prod -- sh", "exec pods/web-2 -n prod", "not about that"),
        ("kubectl exec web-1 -n prod -- sh", "delete pods/web-1 -n prod", "not about that"),
        ("kubectl exec po/web-1 -n prod -- sh", "exec pods/web-2 -n prod", "not about that"),
        ("kubectl exec deploy/web -n prod -- sh", "exec services/web -n prod", "not about that"),
        ("kubectl cp prod/web-1:/x .", "exec pods/web-1 -n dev", "about the namespace prod"),
        ("kubectl run x --image i -n prod", "delete pods/y -n prod", "not about that"),
        ("kubectl run x --image i -n prod", "deploy services/x -n prod", "not about that"),
        ("kubectl debug node/n1 -n prod --image i", "deploy pods/node-debugger-n2-abcde -n prod", "not about that"),
        ("kubectl logs web-1 -n prod", "exec pods/web-1 -n prod", "changes nothing"),
        ("kubectl get deploy -A", "delete deployments.apps/web -n prod", "changes nothing"),
        ("kubectl wait --for=delete deploy/web", "delete deployments.apps/web -n dev", "changes nothing"),
    ],
)
def test_what_a_command_cannot_have_been_refused(line: str, refused: str, why: str) -> None:
    assert why in objection(claim(refused), parsed(line), CLUSTER)


@pytest.mark.parametrize(
    ("line", "relays", "is_exact"),
    [
        ("kubectl exec web -- sh", True, True),
        ("kubectl attach web", True, True),
        ("kubectl run x --image i -it", True, True),
        ("kubectl debug web", True, True),
        ("oc rsh web", True, True),
        ("kubectl tail web", True, False),
        ("kubectl argo rollouts restart web", True, False),
        ("helm test shop --logs", True, False),
        ("kubectl delete deploy/web", False, False),
        ("kubectl apply -f -", False, False),
        ("kubectl drain n1", False, False),
        ("make deploy", False, False),
    ],
)
def test_what_prints_for_others(line: str, *, relays: bool, is_exact: bool) -> None:
    assert (parsed(line).relays, parsed(line).is_exact) == (relays, is_exact)
