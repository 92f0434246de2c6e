"""The rendered webhook configuration on a real API server: who is sent to us, to which entry, and who is not."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane import ADMIN, ControlPlane, Programs
from tests.recording_webhook import Asked, RecordingWebhook
from webhook.controller.coverage import MAX_NAMES_LETTERS, Area, Coverage
from webhook.controller.path_secret import FORM_FOR_SERVICE, RANDOM_BYTES
from webhook.controller.webhooks import render
from webhook.settings import ControllerSettings, Settings

MASTERS = ("system:masters",)
CONTROLLER = "system:serviceaccount:kube-system:namespace-controller"
CONTROLLER_GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system")
OWN_ACCOUNT = "kube-stepup/kube-stepup-admission"
GUARDED = "5s"  # the API server tells a webhook its entry's timeout
WATCHFUL = "2s"
PROD = Coverage(Area(frozenset({"prod"})), Area(frozenset({"prod"})))
EVERYTHING = Coverage(Area(every_namespace=True, cluster_scoped=True), Area(every_namespace=True, cluster_scoped=True))
APPLY_SECONDS = 20.0
CRDS = Path(__file__).parents[2] / "charts" / "kube-stepup" / "files" / "crds"
SETUP = """\
{apiVersion: v1, kind: Namespace, metadata: {name: prod, labels: {env: prod}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: staging}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-stepup}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: kube-stepup-admission, namespace: kube-stepup}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everything-for-those-who-are-told-apart}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
- {kind: ServiceAccount, name: kube-stepup-admission, namespace: kube-stepup}
- {kind: ServiceAccount, name: namespace-controller, namespace: kube-system}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:kube-controller-manager"}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:node:n1"}
"""
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: prod}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {nodeName: n1, terminationGracePeriodSeconds: 0, containers: [{name: web, image: nginx}]}
"""


class Guarded:
    """A control plane with our configuration and a webhook that records."""

    def __init__(self, plane: ControlPlane, webhook: RecordingWebhook) -> None:
        self.plane = plane
        self.webhook = webhook
        self.settings = Settings(
            audience="test",
            controller=ControllerSettings(webhook_url=webhook.url, own_service_accounts=(OWN_ACCOUNT,)),
        )
        self._canaries = 0

    def configure(self, coverage: Coverage, **options: Any) -> None:
        """Store the configuration and wait until the API server has it, which a canary in a path of its own shows."""
        self._canaries += 1
        path = f"{'canary' * 4}-{self._canaries}"
        self.apply(coverage, path, **options)
        deadline = time.monotonic() + APPLY_SECONDS
        while not any(
            one.path.endswith(path) for one in self.asked_when("create", "configmap", "canary", "-n", "prod")
        ):
            assert time.monotonic() < deadline, "the API server does not take the configuration"

    def apply(self, coverage: Coverage, path: str = "canary" * 4, **options: Any) -> None:
        controller = self.settings.controller.model_copy(update=options)
        settings = self.settings.model_copy(update={"controller": controller})
        bundle = self.plane.credentials.serving_ca.certificate.decode()
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "kube-stepup"},
            "webhooks": render(coverage, settings, bundle, path),
        }
        self.plane.apply(json.dumps(body))

    def remove(self) -> None:
        self.plane.kubectl(
            "delete", "validatingwebhookconfiguration", "kube-stepup", "--ignore-not-found", user=ADMIN, check=True
        )

    def asked_when(
        self, *arguments: str, user: str = "alice", groups: tuple[str, ...] | None = None, stdin: str | None = None
    ) -> list[Asked]:
        """What the webhook was asked while kubectl ran a write as a dry run."""
        return self.asked_during(*arguments, "--dry-run=server", user=user, groups=groups, stdin=stdin)

    def asked_during(
        self, *arguments: str, user: str = "alice", groups: tuple[str, ...] | None = None, stdin: str | None = None
    ) -> list[Asked]:
        self.webhook.take()
        self.plane.kubectl(*arguments, user=user, groups=groups, stdin=stdin, check=True)
        return self.webhook.take()

    def asked_with_token(self, token: str, *arguments: str) -> list[Asked]:
        """The same, with a bearer token instead of a certificate."""
        server = ["--server", self.plane.server, "--certificate-authority", str(self.plane.ca_file), "--token", token]
        self.webhook.take()
        self.plane.kubectl(
            *server, "--kubeconfig=/dev/null", *arguments, "--dry-run=server", user="nobody", groups=(), check=True
        )
        return self.webhook.take()


@pytest.fixture(scope="module")
def guarded(programs: Programs) -> Iterator[Guarded]:
    """A control plane of its own: a broad webhook is no good neighbour."""
    with ControlPlane(programs) as plane, RecordingWebhook(plane.serving_cert()) as webhook:
        plane.apply(SETUP)
        plane.apply("\n---\n".join(file.read_text() for file in sorted(CRDS.glob("*.yaml"))))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", user=ADMIN, check=True)
        plane.apply(WEB)
        plane.kubectl("rollout", "status", "deployment/web", "-n", "prod", check=True)
        yield Guarded(plane, webhook)


@pytest.fixture
def prod_is_guarded(guarded: Guarded) -> Iterator[Guarded]:
    guarded.configure(PROD)
    yield guarded
    guarded.remove()


CREATE = ("create", "configmap", "c", "-n", "prod")


def test_a_person_is_asked_about_once_by_the_entry_that_their_namespace_is_in(prod_is_guarded: Guarded) -> None:
    in_prod = prod_is_guarded.asked_when("create", "configmap", "c", "-n", "prod")
    in_staging = prod_is_guarded.asked_when("create", "configmap", "c", "-n", "staging")
    cluster_scoped = prod_is_guarded.asked_when("create", "clusterrole", "c", "--verb=get", "--resource=pods")

    assert [(one.about, one.timeout) for one in in_prod] == [("CREATE configmaps in prod", GUARDED)]
    assert [(one.about, one.timeout) for one in in_staging] == [("CREATE configmaps in staging", WATCHFUL)]
    assert [(one.about, one.timeout) for one in cluster_scoped] == [("CREATE clusterroles", WATCHFUL)]


def test_the_namespace_object_is_guarded_like_what_is_in_it(prod_is_guarded: Guarded) -> None:
    relabelled = prod_is_guarded.asked_when("label", "namespace", "prod", "env-")
    deleted = prod_is_guarded.asked_when("delete", "namespace", "prod")
    created = prod_is_guarded.asked_when("create", "namespace", "new")

    assert [(one.about, one.timeout) for one in relabelled] == [("UPDATE namespaces in prod", GUARDED)]
    assert [(one.about, one.timeout) for one in deleted] == [("DELETE namespaces in prod", GUARDED)]
    assert [one.timeout for one in created] == [WATCHFUL]


def test_connections_and_subresources_are_asked_about(prod_is_guarded: Guarded) -> None:
    pod = prod_is_guarded.plane.kubectl(
        "get", "pods", "-n", "prod", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}", check=True
    ).stdout
    ran = prod_is_guarded.asked_during("exec", "-n", "prod", pod, "--", "true")
    scaled = prod_is_guarded.asked_when("scale", "deployment/web", "-n", "prod", "--replicas=2")

    assert {(one.about, one.timeout) for one in ran} == {("CONNECT pods/exec in prod", GUARDED)}
    assert [(one.about, one.timeout) for one in scaled] == [("UPDATE deployments/scale in prod", GUARDED)]


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("events", ("create", "-f", "-")),
        ("access reviews", ("auth", "can-i", "delete", "pods", "-n", "prod")),
        ("who am I", ("auth", "whoami")),
    ],
)
def test_what_never_has_an_effect_is_left_alone(
    prod_is_guarded: Guarded, what: str, arguments: tuple[str, ...]
) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "prod"},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "prod"},
    }
    dry = ("--dry-run=server",) if what == "events" else ()
    assert prod_is_guarded.asked_during(*arguments, *dry, stdin=json.dumps(event)) == []


def test_leases_are_left_alone_except_those_that_make_a_node_look_dead(prod_is_guarded: Guarded) -> None:
    def lease(namespace: str) -> str:
        metadata = {"name": "l", "namespace": namespace}
        return json.dumps({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}})

    assert prod_is_guarded.asked_when("create", "-f", "-", stdin=lease("prod")) == []
    assert len(prod_is_guarded.asked_when("create", "-f", "-", stdin=lease("kube-node-lease"))) == 1


def test_impersonating_a_controller_does_not_make_one(prod_is_guarded: Guarded) -> None:
    groups = [f"--as-group={group}" for group in (*CONTROLLER_GROUPS, "system:masters")]
    asked = prod_is_guarded.asked_when(*CREATE, f"--as={CONTROLLER}", *groups, "--as-uid=u1", user=ADMIN)
    assert [(one.user, one.timeout) for one in asked] == [(CONTROLLER, GUARDED)]


@pytest.mark.parametrize(
    ("user", "group"),
    [("system:node:n1", "system:nodes"), ("system:kube-controller-manager", "system:authenticated")],
)
def test_impersonating_a_component_does_not_make_one(prod_is_guarded: Guarded, user: str, group: str) -> None:
    groups = [f"--as-group={one}" for one in (group, "system:masters")]
    assert [one.user for one in prod_is_guarded.asked_when(*CREATE, f"--as={user}", *groups, user=ADMIN)] == [user]


def test_a_certificate_in_a_controllers_name_is_a_persons(prod_is_guarded: Guarded) -> None:
    asked = prod_is_guarded.asked_when(*CREATE, user=CONTROLLER, groups=(*CONTROLLER_GROUPS, "system:masters"))
    assert [(one.user, one.timeout) for one in asked] == [(CONTROLLER, GUARDED)]


def test_a_certificate_in_the_api_servers_name_is_a_persons(prod_is_guarded: Guarded) -> None:
    asked = prod_is_guarded.asked_when(*CREATE, user="system:apiserver", groups=MASTERS)
    assert [one.user for one in asked] == ["system:apiserver"]


def test_a_legacy_token_of_a_controllers_account_is_a_persons(prod_is_guarded: Guarded) -> None:
    plane = prod_is_guarded.plane
    plane.apply(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/service-account-token",
                "metadata": {
                    "name": "legacy",
                    "namespace": "kube-system",
                    "annotations": {"kubernetes.io/service-account.name": "namespace-controller"},
                },
            }
        )
    )
    plane.kubectl("wait", "--for=jsonpath={.data.token}", "secret/legacy", "-n", "kube-system", user=ADMIN, check=True)
    shown = plane.kubectl("get", "secret/legacy", "-n", "kube-system", "-o", "json", user=ADMIN, check=True).stdout
    token = base64.b64decode(json.loads(shown)["data"]["token"]).decode()

    assert [one.user for one in prod_is_guarded.asked_with_token(token, *CREATE)] == [CONTROLLER]


def test_a_minted_token_is_a_controllers_own_so_minting_it_is_what_we_are_asked_about(
    prod_is_guarded: Guarded,
) -> None:
    mint = ("create", "token", "namespace-controller", "-n", "kube-system")
    asked = prod_is_guarded.asked_during(*mint)
    assert [(one.user, one.about) for one in asked] == [("alice", "CREATE serviceaccounts/token in kube-system")]

    token = prod_is_guarded.plane.kubectl(*mint, check=True).stdout.strip()
    assert prod_is_guarded.asked_with_token(token, *CREATE) == []


def test_a_token_of_another_account_of_kube_system_is_a_persons(prod_is_guarded: Guarded) -> None:
    plane = prod_is_guarded.plane
    plane.kubectl("create", "serviceaccount", "addon", "-n", "kube-system", user=ADMIN, check=True)
    plane.kubectl(
        "create", "clusterrolebinding", "addon", "--clusterrole=cluster-admin", "--serviceaccount=kube-system:addon",
        user=ADMIN, check=True,
    )  # fmt: skip
    token = plane.kubectl("create", "token", "addon", "-n", "kube-system", user=ADMIN, check=True).stdout.strip()
    assert len(prod_is_guarded.asked_with_token(token, *CREATE)) == 1


@pytest.mark.parametrize(
    ("user", "groups"), [("system:node:n1", ("system:nodes",)), ("system:kube-controller-manager", ())]
)
def test_a_component_with_its_certificate_is_left_alone(
    prod_is_guarded: Guarded, user: str, groups: tuple[str, ...]
) -> None:
    # The NodeRestriction plug-in is not on by default in kube-apiserver, so the node may.
    assert prod_is_guarded.asked_when(*CREATE, user=user, groups=groups) == []


def test_a_node_without_its_group_is_a_person(prod_is_guarded: Guarded) -> None:
    assert len(prod_is_guarded.asked_when(*CREATE, user="system:node:n1", groups=MASTERS)) == 1


def test_the_cascade_of_what_a_person_did_is_left_alone(prod_is_guarded: Guarded) -> None:
    plane = prod_is_guarded.plane
    prod_is_guarded.webhook.take()
    plane.kubectl("scale", "deployment/web", "-n", "prod", "--replicas=3", check=True)
    plane.kubectl("rollout", "status", "deployment/web", "-n", "prod", check=True)
    plane.kubectl("scale", "deployment/web", "-n", "prod", "--replicas=1", check=True)
    plane.kubectl("rollout", "status", "deployment/web", "-n", "prod", check=True)
    plane.kubectl("create", "namespace", "short-lived", check=True)
    plane.kubectl("create", "configmap", "c", "-n", "short-lived", check=True)
    plane.kubectl("delete", "namespace", "short-lived", check=True)

    assert {one.user for one in prod_is_guarded.webhook.take()} == {"alice"}


def test_our_own_writes_of_our_own_objects_are_left_alone_and_no_others(prod_is_guarded: Guarded) -> None:
    plane = prod_is_guarded.plane
    token = plane.kubectl(
        "create", "token", "kube-stepup-admission", "-n", "kube-stepup", user=ADMIN, check=True
    ).stdout.strip()
    elevation = {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "Elevation",
        "metadata": {"name": "elv-" + "a" * 20},
        "spec": {"user": {"username": "alice"}, "details": [{"operation": "delete", "scope": "Object"}]},
    }
    plane.apply(json.dumps(elevation))
    own = ("annotate", "elevations.kube-stepup.io", "elv-" + "a" * 20, "a=b")

    assert prod_is_guarded.asked_with_token(token, *own) == []
    assert prod_is_guarded.asked_with_token(token, "create", "secret", "generic", "s", "-n", "kube-stepup") == []
    assert len(prod_is_guarded.asked_with_token(token, "create", "secret", "generic", "s", "-n", "prod")) == 1
    assert len(prod_is_guarded.asked_with_token(token, *CREATE)) == 1
    assert len(prod_is_guarded.asked_when(*own)) == 1


def test_everything_can_be_guarded_but_what_is_excluded(guarded: Guarded) -> None:
    guarded.configure(EVERYTHING)
    try:
        cluster_scoped = guarded.asked_when("create", "clusterrole", "c", "--verb=get", "--resource=pods")
        staging = guarded.asked_when("create", "configmap", "c", "-n", "staging")
        excluded = guarded.asked_when("create", "configmap", "c", "-n", "kube-system")
    finally:
        guarded.remove()

    assert [one.timeout for one in cluster_scoped + staging + excluded] == [GUARDED, GUARDED, WATCHFUL]


def test_with_watchful_off_only_what_policies_match_is_asked_about(guarded: Guarded) -> None:
    coverage = replace(PROD, matched=Area(frozenset({"prod", "audited"})))
    guarded.plane.kubectl("create", "namespace", "audited", user=ADMIN, check=True)
    guarded.configure(coverage, watchful=False)
    policy = {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "StepUpPolicy",
        "metadata": {"name": "p"},
        "spec": {"rules": [{"name": "r", "operations": ["delete"]}]},
    }
    try:
        assert guarded.asked_when("create", "configmap", "c", "-n", "staging") == []
        assert [one.timeout for one in guarded.asked_when(*CREATE)] == [GUARDED]
        assert [one.timeout for one in guarded.asked_when("create", "configmap", "c", "-n", "audited")] == [WATCHFUL]
        applied = guarded.asked_when("create", "-f", "-", stdin=json.dumps(policy))
        assert [one.timeout for one in applied] == [GUARDED], "policies fail closed where anything does"
    finally:
        guarded.remove()


def test_the_api_server_takes_a_service_with_the_path_that_the_controller_makes(guarded: Guarded) -> None:
    path = secrets.token_hex(RANDOM_BYTES)
    assert FORM_FOR_SERVICE.match(path)
    guarded.apply(PROD, path, webhook_url="")
    guarded.remove()


@pytest.mark.parametrize("names", ["400 of the greatest length", "as many letters as an expression may have"])
def test_many_guarded_namespaces_fit(guarded: Guarded, names: str) -> None:
    count, length = (400, 63) if names.startswith("400") else (MAX_NAMES_LETTERS // 14, 10)
    many = {f"n{number:0{length - 1}}" for number in range(count - 1)} | {"prod"}
    area = Area(frozenset(many))
    guarded.plane.kubectl("create", "namespace", min(many - {"prod"}), user=ADMIN, check=True)
    guarded.configure(Coverage(area, area))
    try:
        first = guarded.asked_when("create", "configmap", "c", "-n", min(many - {"prod"}))
        last = guarded.asked_when(*CREATE)
        outside = guarded.asked_when("create", "configmap", "c", "-n", "staging")
    finally:
        guarded.remove()

    assert [one.timeout for one in first + last + outside] == [GUARDED, GUARDED, WATCHFUL]


def test_a_cluster_starts_and_works_while_we_are_down_and_everything_is_guarded(guarded: Guarded) -> None:
    plane = guarded.plane
    rights = _rights(plane, "system:basic-user")
    _take_rights_off(plane, "system:basic-user")
    nobody_listens = "https://127.0.0.1:1"
    guarded.settings = guarded.settings.model_copy(
        update={"controller": guarded.settings.controller.model_copy(update={"webhook_url": nobody_listens})}
    )
    guarded.apply(EVERYTHING)
    try:
        _eventually(lambda: plane.kubectl(*CREATE, "--dry-run=server").returncode != 0)
        refused = plane.kubectl(*CREATE, "--dry-run=server")
        assert "guarded.kube-stepup.io" in refused.stderr

        plane.restart("kube-apiserver")  # raises unless it becomes ready

        _eventually(lambda: _rights(plane, "system:basic-user") == rights)
        still = plane.kubectl(*CREATE, "--dry-run=server")
        assert "guarded.kube-stepup.io" in still.stderr
        _kubelet_loses_a_pod_and_the_controllers_replace_it(plane)
    finally:
        guarded.settings = guarded.settings.model_copy(
            update={"controller": guarded.settings.controller.model_copy(update={"webhook_url": guarded.webhook.url})}
        )
        guarded.remove()


def test_what_is_not_guarded_goes_on_while_we_are_down(guarded: Guarded) -> None:
    plane = guarded.plane
    nobody_listens = "https://127.0.0.1:1"
    guarded.apply(PROD, webhook_url=nobody_listens)
    try:
        _eventually(lambda: plane.kubectl(*CREATE, "--dry-run=server").returncode != 0)
        plane.kubectl("create", "configmap", "c", "-n", "staging", "--dry-run=server", check=True)
        plane.kubectl("create", "namespace", "new", check=True)
        plane.kubectl("delete", "namespace", "new", check=True)
    finally:
        guarded.remove()


def _take_rights_off(plane: ControlPlane, role: str) -> None:
    """kube-apiserver puts its own roles right when it starts, or does not start."""
    plane.kubectl("patch", "clusterrole", role, "--type=merge", "-p", '{"rules": []}', user=ADMIN, check=True)


def _rights(plane: ControlPlane, role: str) -> set[tuple[str, str, str]]:
    """Group, resource and verb: what kube-apiserver puts back is divided into rules in another way."""
    shown = plane.kubectl("get", "clusterrole", role, "-o", "json", user=ADMIN, check=True).stdout
    return {
        (group, resource, verb)
        for rule in json.loads(shown)["rules"] or []
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _kubelet_loses_a_pod_and_the_controllers_replace_it(plane: ControlPlane) -> None:
    def pods() -> set[str]:
        shown = plane.kubectl("get", "pods", "-n", "prod", "-l", "app=web", "-o", "name", user=ADMIN, check=True)
        return set(shown.stdout.split())

    before = pods()
    node = {"user": "system:node:n1", "groups": ("system:nodes",)}
    plane.kubectl("delete", *before, "-n", "prod", "--wait=false", **node, check=True)  # type: ignore[arg-type]
    _eventually(lambda: len(pods() - before) == len(before))
    plane.kubectl("rollout", "status", "deployment/web", "-n", "prod", user=ADMIN, check=True)


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + APPLY_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
