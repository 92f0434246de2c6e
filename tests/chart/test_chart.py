"""The chart: what it renders, what it refuses, and that a real API server takes all of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane import ADMIN, ControlPlane, Programs
from webhook.settings import KUBE_SYSTEM_CONTROLLERS, Settings

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "kube-stepup"
MANIFESTS = ROOT / "manifests" / "kube-stepup.yaml"
NAMESPACE = "kube-stepup"
SERVERS = ("admission", "controller", "elevation")
Objects = list[dict[str, Any]]
Render = Callable[..., Objects]
VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "with its namespace": ("namespace.create=true",),
    "with a digest": (f"image.digest=sha256:{'0' * 64}", "image.repository=registry.example/kube-stepup"),
    "with everything switched off": (
        "crds.enabled=false",
        "users.bindAllAuthenticated=false",
        "rbac.aggregateView=false",
        "flowControl.enabled=false",
        "webhook.watchful=false",
        "webhook.excludeOwnNamespace=false",
        "webhook.excludedNamespaces=null",
    ),
    "with everything switched on": (
        "rbac.aggregateAdmin=true",
        "elevation.enrolmentTrustOnFirstUse=true",
        "controllers.extraServiceAccounts={kube-system/cloud-controller-manager}",
        "admission.priorityClassName=system-cluster-critical",
        "admission.nodeSelector.disk=ssd",
        "admission.podAnnotations.a=b",
        "commonLabels.team=platform",
        "image.pullSecrets[0].name=registry",
        "admission.tolerations[0].operator=Exists",
        "breakGlass.users={erika}",
        "breakGlass.groups={incident}",
        "impersonatingProxies.credentialExtraKeys={requesttokenid}",
        "metrics.enabled=true",
        "metrics.serviceAnnotations.a=b",
    ),
    "with a page": (
        "elevation.page.origin=https://stepup.example.com:8443",
        "elevation.page.rpId=example.com",
        "elevation.page.ingress.enabled=true",
        "elevation.page.ingress.className=nginx",
        "elevation.page.ingress.tlsSecret=stepup-page",
        "elevation.page.ingress.annotations.a=b",
        "elevation.assurance.recovery=aal1",
    ),
    "under another name": ("fullnameOverride=guard",),
}


@pytest.fixture(scope="session")
def helm(programs: Programs) -> Iterator[ControlPlane]:
    """A control plane for the chart alone: its objects are cluster-wide."""
    with ControlPlane(programs) as plane:
        plane.kubectl("create", "namespace", NAMESPACE, user=ADMIN, check=True)
        yield plane


@pytest.fixture(scope="session")
def render(helm: ControlPlane) -> Render:
    def rendered(*settings: str, name: str = "kube-stepup") -> Objects:
        arguments = itertools.chain.from_iterable(("--set", one) for one in ("clusterName=test", *settings))
        answer = helm.helm("template", name, str(CHART), "-n", NAMESPACE, *arguments, user=ADMIN, check=True)
        return [one for one in yaml.safe_load_all(answer.stdout) if one]

    return rendered


@pytest.fixture(scope="session")
def objects(render: Render) -> Objects:
    return render()


def of_kind(objects: Objects, kind: str) -> Objects:
    return [one for one in objects if one["kind"] == kind]


def named(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    return next(one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)


def settings_of(objects: Objects, name: str = "kube-stepup") -> Settings:
    return Settings.model_validate(yaml.safe_load(named(objects, "ConfigMap", name)["data"]["config.yaml"]))


def test_it_lints(helm: ControlPlane) -> None:
    helm.helm("lint", "--strict", str(CHART), "--set", "clusterName=test", user=ADMIN, check=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_real_api_server_takes_everything(helm: ControlPlane, render: Render, variant: str) -> None:
    found = render(*VARIANTS[variant])
    crds = of_kind(found, "CustomResourceDefinition")
    if crds:
        helm.apply(yaml.safe_dump_all(crds))
    arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    helm.kubectl(*arguments, user=ADMIN, stdin=yaml.safe_dump_all(found), check=True)


def test_pods_are_as_restricted_as_pod_security_demands(helm: ControlPlane, objects: Objects) -> None:
    helm.apply(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": "restricted",
                    "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                },
            }
        )
    )
    for deployment in of_kind(objects, "Deployment"):
        template = deployment["spec"]["template"]
        metadata = {"name": deployment["metadata"]["name"], "namespace": "restricted"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        answer = helm.kubectl("create", "--dry-run=server", "-f", "-", user=ADMIN, stdin=json.dumps(pod), check=True)
        assert "Warning" not in answer.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_servers_can_read_their_settings(render: Render, variant: str) -> None:
    name = "guard" if "fullnameOverride=guard" in VARIANTS[variant] else "kube-stepup"
    found = settings_of(render(*VARIANTS[variant]), name)
    assert found.audience == "test"
    assert found.controller.webhook_configuration == name
    assert f"{NAMESPACE}/{name}-admission" in found.controller.own_service_accounts


def test_the_program_reads_the_same_secrets_services_and_roles_that_the_chart_makes(render: Render) -> None:
    for name, found in (("kube-stepup", render()), ("guard", render("fullnameOverride=guard"))):
        options = settings_of(found, name).controller
        services = {one["metadata"]["name"] for one in of_kind(found, "Service")}
        assert {options.admission_service, options.elevation_service} == services
        assert named(found, "ClusterRole", options.owner_cluster_role)
        assert named(found, "ValidatingWebhookConfiguration", options.webhook_configuration)
        assert named(found, "APIService", options.api_service)
        mounted = {
            volume["secret"]["secretName"]
            for deployment in of_kind(found, "Deployment")
            for volume in deployment["spec"]["template"]["spec"]["volumes"]
            if "secret" in volume
        }
        made = {options.admission_certificate_secret, options.elevation_certificate_secret, options.path_secret}
        assert mounted == made
        role = named(found, "Role", f"{name}-controller")
        allowed = {one for rule in role["rules"] for one in rule.get("resourceNames", [])}
        assert made | {options.ca_secret, options.lease_name} == allowed


def test_the_defaults_are_the_programs_own(objects: Objects) -> None:
    found = settings_of(objects)
    ours = Settings(audience="test")
    assert found.controllers == ours.controllers
    assert found.elevation == ours.elevation
    differing = {
        key for key, value in found.controller.model_dump().items() if value != ours.controller.model_dump()[key]
    }
    assert differing == {"health_port", "owner_cluster_role", "own_service_accounts", "excluded_namespaces"}


def test_the_chart_knows_the_same_controllers_as_the_program() -> None:
    listed = (CHART / "files" / "kube-system-controllers.txt").read_text().split()
    assert listed == list(KUBE_SYSTEM_CONTROLLERS)


def test_extra_controllers_are_added_to_the_built_in_ones(render: Render) -> None:
    accounts = settings_of(
        render("controllers.extraServiceAccounts={kube-system/cloud-controller-manager}")
    ).controllers.service_accounts
    assert len(accounts) == len(KUBE_SYSTEM_CONTROLLERS) + 1
    assert accounts[-1] == "kube-system/cloud-controller-manager"


def test_our_own_namespace_is_excluded_unless_that_is_switched_off(render: Render) -> None:
    assert NAMESPACE in settings_of(render()).controller.excluded_namespaces
    assert NAMESPACE not in settings_of(render("webhook.excludeOwnNamespace=false")).controller.excluded_namespaces


def test_admission_can_read_no_secret_and_create_nothing_but_events_and_counts(objects: Objects) -> None:
    role = named(objects, "ClusterRole", "kube-stepup-admission")
    bound = {
        binding["roleRef"]["name"]
        for binding in of_kind(objects, "RoleBinding")
        for subject in binding["subjects"]
        if subject["name"] == "kube-stepup-admission"
    }
    assert bound == {"kube-stepup-admission"}
    (lease,) = named(objects, "Role", "kube-stepup-admission")["rules"]
    assert (lease["resources"], lease["verbs"]) == (["leases"], ["get"])
    for rule in role["rules"]:
        assert "secrets" not in rule["resources"]
        assert not {"delete", "*"} & set(rule["verbs"])
        assert "create" not in rule["verbs"] or rule["resources"] in (["events"], ["stepupreports"])
        assert "*" not in rule["resources"] + rule["apiGroups"]


def test_the_api_servers_own_voice_is_there_where_somebody_may_break_the_glass(
    objects: Objects, render: Render
) -> None:
    assert of_kind(objects, "ValidatingAdmissionPolicy") == []
    found = render("breakGlass.groups={incident}")
    spoken = named(found, "ValidatingAdmissionPolicy", "kube-stepup-break-glass")["spec"]
    assert spoken["failurePolicy"] == "Ignore"
    assert 'group in ["incident"]' in spoken["matchConditions"][0]["expression"]
    binding = named(found, "ValidatingAdmissionPolicyBinding", "kube-stepup-break-glass")["spec"]
    assert binding["validationActions"] == ["Warn", "Audit"], "it never refuses"
    assert settings_of(found).break_glass.groups == ("incident",)


def test_only_elevation_may_publish_keys(objects: Objects) -> None:
    writers = {
        role["metadata"]["name"]
        for role in of_kind(objects, "ClusterRole")
        for rule in role["rules"]
        if {"signingkeys", "*"} & set(rule["resources"]) and {"create", "patch", "update", "*"} & set(rule["verbs"])
    }
    assert writers == {"kube-stepup-elevation"}


def test_every_rule_names_its_verbs_and_resources(objects: Objects) -> None:
    for role in of_kind(objects, "ClusterRole") + of_kind(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"], role["metadata"]["name"]


def test_no_secret_is_rendered(objects: Objects) -> None:
    assert of_kind(objects, "Secret") == []


def test_two_renders_are_the_same(render: Render) -> None:
    assert render() == render()


def test_the_webhook_configuration_has_no_entries_and_the_api_service_no_bundle(objects: Objects) -> None:
    assert "webhooks" not in named(objects, "ValidatingWebhookConfiguration", "kube-stepup")
    assert "caBundle" not in named(objects, "APIService", "v1alpha1.elevation.kube-stepup.io")["spec"]


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_runs_twice_and_survives_a_drain(objects: Objects, server: str) -> None:
    deployment = named(objects, "Deployment", f"kube-stepup-{server}")
    budget = named(objects, "PodDisruptionBudget", f"kube-stepup-{server}")["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["replicas"] == 2
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert deployment["spec"]["selector"] == budget["selector"]
    assert budget["maxUnavailable"] == 1


@pytest.mark.parametrize("server", SERVERS)
def test_a_change_of_the_settings_restarts_a_server(render: Render, server: str) -> None:
    def checksum(*settings: str) -> str:
        deployment = named(render(*settings), "Deployment", f"kube-stepup-{server}")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum()
    assert checksum() != checksum("issuer=other")


def test_only_who_is_authenticated_is_bound_and_only_to_what_users_need(objects: Objects, render: Render) -> None:
    binding = named(objects, "ClusterRoleBinding", "kube-stepup-user")
    assert [one["name"] for one in binding["subjects"]] == ["system:authenticated"]
    role = named(objects, "ClusterRole", binding["roleRef"]["name"])
    assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"elevation.kube-stepup.io"}
    unbound = render("users.bindAllAuthenticated=false")
    assert "kube-stepup-user" not in {one["metadata"]["name"] for one in of_kind(unbound, "ClusterRoleBinding")}


def test_cert_manager_takes_the_certificates_over(render: Render) -> None:
    found = render("certificates.mode=cert-manager")
    certificates = {one["metadata"]["name"]: one["spec"] for one in of_kind(found, "Certificate")}
    options = settings_of(found).controller
    assert not options.manage_certificates
    assert certificates["kube-stepup-admission"]["secretName"] == options.admission_certificate_secret
    assert certificates["kube-stepup-elevation"]["secretName"] == options.elevation_certificate_secret
    assert certificates["kube-stepup-admission"]["dnsNames"][0] == "kube-stepup-admission.kube-stepup.svc"
    assert len(of_kind(found, "Issuer")) == 2

    issuer = ("certificates.mode=cert-manager", "certificates.certManager.issuerRef.name=corporate")
    foreign = render(*issuer)
    assert of_kind(foreign, "Issuer") == []
    assert {one["spec"]["issuerRef"]["name"] for one in of_kind(foreign, "Certificate")} == {"corporate"}


def test_the_page_is_on_a_port_and_service_of_its_own_where_there_is_an_origin(
    objects: Objects, render: Render
) -> None:
    assert "kube-stepup-page" not in {one["metadata"]["name"] for one in objects}
    found = render("elevation.page.origin=https://stepup.example.com", "elevation.page.ingress.enabled=true")
    (port,) = named(found, "Service", "kube-stepup-page")["spec"]["ports"]
    containers = named(found, "Deployment", "kube-stepup-elevation")["spec"]["template"]["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in containers[0]["ports"]}
    settings = settings_of(found)
    assert ports[port["targetPort"]] == settings.elevation.page.port != settings.elevation.port
    assert "kube-stepup-page.kube-stepup.svc" in settings.controller.serving_dns_names
    (rule,) = named(found, "Ingress", "kube-stepup-page")["spec"]["rules"]
    assert rule["host"] == settings.elevation.page.relying_party == "stepup.example.com"
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == "kube-stepup-page"


def test_without_cert_manager_none_of_its_objects_is_rendered(objects: Objects) -> None:
    assert not [one for one in objects if one["apiVersion"].startswith("cert-manager.io/")]


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("breakGlass.groups={system:authenticated}", "/breakGlass/groups"),
        ("breakGlass.users={*}", "/breakGlass/users"),
        ("impersonatingProxies.credentialExtraKeys={RequestTokenId}", "/impersonatingProxies/credentialExtraKeys"),
        ("clusterName=", "clusterName is required"),
        ("certificates.mode=none", "/certificates/mode"),
        ("admission.replicas=0", "/admission/replicas"),
        ("admission.replicas=many", "/admission/replicas"),
        ("image.tag=latest", "/image/tag"),
        ("image.digest=sha256:short", "/image/digest"),
        ("logLevel=verbose", "/logLevel"),
        ("webhook.excludedNamespaces={Kube_System}", "/webhook/excludedNamespaces/0"),
        ("controllers.extraServiceAccounts={no-namespace}", "/controllers/extraServiceAccounts/0"),
        ("admission.readTargets[0].resources={secrets}", "/admission/readTargets/0"),
        ("elevation.signingAlgorithm=HS256", "/elevation/signingAlgorithm"),
        ("elevation.requestHeader.caFingerprints={aa:bb}", "/elevation/requestHeader/caFingerprints/0"),
        ("elevation.page.origin=http://stepup.example.com", "/elevation/page/origin"),
        ("elevation.page.origin=https://stepup.example.com/path", "/elevation/page/origin"),
        ("elevation.page.ingress.enabled=true", "elevation.page.origin is required"),
        ("elevation.assurance.totp=aal4", "/elevation/assurance/totp"),
        ("elevation.assurance.sms=aal1", "sms"),
        ("elevation.webauthn.attestationRoots={yubico}", "/elevation/webauthn/attestationRoots/0"),
        ("admision.replicas=3", "admision"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(helm: ControlPlane, setting: str, where: str) -> None:
    arguments = ("template", "kube-stepup", str(CHART), "--set", "clusterName=test", "--set", setting)
    answer = helm.helm(*arguments, user=ADMIN)
    assert answer.returncode != 0
    assert where in answer.stderr


def test_every_value_is_explained_and_in_the_schema() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for previous, line in itertools.pairwise(lines):
        if line and not line.startswith((" ", "#")):
            group = line.endswith(":")  # its keys are explained instead
            assert previous.startswith("#") or group or line.split(":")[0] == "fullnameOverride", line
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}


def test_the_manifests_are_what_the_chart_renders(helm: ControlPlane) -> None:
    values = ("--set", "clusterName=my-cluster", "--set", "namespace.create=true")
    answer = helm.helm("template", "kube-stepup", str(CHART), "--namespace", NAMESPACE, *values, user=ADMIN, check=True)
    assert MANIFESTS.read_text() == answer.stdout, "run `make manifests`"


def test_the_manifests_are_taken_by_an_api_server(helm: ControlPlane) -> None:
    found = [one for one in yaml.safe_load_all(MANIFESTS.read_text()) if one]
    helm.apply(yaml.safe_dump_all(of_kind(found, "CustomResourceDefinition")))
    arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(MANIFESTS))
    helm.kubectl(*arguments, user=ADMIN, check=True)


def test_the_notes_say_what_to_do_next_and_how_to_uninstall(helm: ControlPlane) -> None:
    arguments = ("install", "kube-stepup", str(CHART), "-n", NAMESPACE, "--dry-run=client", "--set", "clusterName=test")
    notes = helm.helm(*arguments, user=ADMIN, check=True).stdout
    assert "kubectl delete validatingwebhookconfiguration kube-stepup" in notes
    assert "kind: StepUpPolicy" in notes
    assert "WARNING" not in notes
    loud = helm.helm(*arguments, "--set", "elevation.enrolmentTrustOnFirstUse=true", user=ADMIN, check=True).stdout
    assert "WARNING" in loud


def test_metrics_are_served_where_the_pods_say_so_and_only_when_they_are_wanted(render: Render) -> None:
    off = render()
    assert settings_of(off).metrics_port == 0
    assert "metrics" not in yaml.safe_dump_all(of_kind(off, "Deployment") + of_kind(off, "Service"))
    on = render("metrics.enabled=true", "metrics.port=9100")
    assert settings_of(on).metrics_port == 9100
    service = named(on, "Service", "kube-stepup-metrics")["spec"]
    for deployment in of_kind(on, "Deployment"):
        template = deployment["spec"]["template"]
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        assert {"name": "metrics", "containerPort": 9100} in template["spec"]["containers"][0]["ports"]
