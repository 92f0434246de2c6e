"""Pipelines without a person on a real API server: a token exchanged, real helm let through, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.builders import policy
from tests.controlplane import ADMIN, ControlPlane, Programs
from tests.controlplane.cluster import Finished
from tests.deployment import AUDIENCE, ROOT, Deployment
from tests.fakes.issuer import Issuer
from tests.fakes.issuer_server import JOB_BEARER, IssuerServer
from tests.people import API, GROUP_VERSION, Person

REFUSED = "needs a step-up"
SECONDS = 30.0
MAIN = "claims.repository == 'acme/shop' && claims.ref == 'refs/heads/main'"
PEOPLE_DO = ["delete", "scale", "exec", "drain", "access"]
RUNNER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "runner-1", "namespace": "ci"},
    "spec": {"nodeName": "n1", "serviceAccountName": "deployer", "containers": [{"name": "c", "image": "i"}]},
}
OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ci"}},
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod", "labels": {"env": "prod"}}},
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "released", "labels": {"env": "released"}}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer", "namespace": "ci"}},
    RUNNER,
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "deployer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": "ci"}],
    },
]
TEMPLATE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {nodeName: n1, containers: [{name: c, image: "{{ .Values.image }}"}]}
"""


@dataclass(frozen=True)
class Site:
    """An installation that takes the tokens of one issuer."""

    deployment: Deployment
    server: IssuerServer
    authority: Path

    @property
    def issuer(self) -> Issuer:
        return self.server.issuer


@dataclass(frozen=True)
class Job:
    """A job of a pipeline: a service account's token in a kubeconfig, and what the runner puts into its environment."""

    site: Site
    kubeconfig: Path
    github: bool = True

    def run(self, *command: str, stdin: str | None = None, **environment: str) -> Finished:
        """A command of the job."""
        runner = {"ACTIONS_ID_TOKEN_REQUEST_URL": self.site.server.job_url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": JOB_BEARER}  # fmt: skip
        extra = {
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": str(ROOT),
            "SSL_CERT_FILE": str(self.site.authority),
            **(runner if self.github else {}),
            **environment,
        }
        return self.site.deployment.cluster.run(list(command), user=ADMIN, stdin=stdin, extra_environment=extra)

    def elevate(self, *command: str, options: tuple[str, ...] = (), **environment: str) -> Finished:
        """`stepup ci elevate -- COMMAND`."""
        words = [sys.executable, "-m", "webhook.cli.stepup", "ci", "elevate", "--audience", AUDIENCE, *options]
        return self.run(*words, "--", *command, **environment)

    def exchange(self, token: str) -> Finished:
        """Through the API alone, for a roll-out of deployments.apps/shop."""
        objects = [{"name": "shop"}]
        detail = {"operation": "deploy", "group": "apps", "resource": "deployments", "namespace": "prod", "objects": objects}  # fmt: skip
        spec = {"details": [detail], "subjectToken": token}
        body = json.dumps({"apiVersion": GROUP_VERSION, "kind": "TokenExchange", "spec": spec})
        return self.run("kubectl", "create", "--raw", f"{API}/tokenexchanges", "-f", "-", stdin=body)


@pytest.fixture(scope="module")
def site(programs: Programs) -> Iterator[Site]:
    """An installation of its own: issuers are a setting of the whole cluster."""
    with ControlPlane(programs) as cluster:
        pair = cluster.serving_cert("localhost")
        with IssuerServer(pair.certificate_file, pair.key_file) as server:
            authority = cluster.workdir / "issuer-ca.crt"
            authority.write_bytes(cluster.credentials.serving_ca.certificate)
            trusted = {"issuer": server.issuer.url, "caBundle": authority.read_text()}
            options = {"workloadIssuers": [trusted], "approvals": {"minFactorAgeSeconds": 0}}
            approvers = ("approvals.groups={sre-leads}",)
            with Deployment(cluster, overrides={"elevation": options}, values=approvers) as running:
                cluster.apply(yaml.safe_dump_all(OBJECTS))
                match = {"namespaceSelector": {"matchLabels": {"env": "prod"}}, "exempt": {"users": [ADMIN]}}
                workloads = [
                    {"issuer": server.issuer.url, "conditions": [{"expression": MAIN}]},
                    {
                        "serviceAccounts": ["ci/deployer"],
                        "conditions": [{"expression": "claims.pod.name == 'runner-1'"}],
                    },
                ]
                rules = [
                    {"name": "release", "operations": ["deploy", "restart"], "workloads": workloads},
                    {"name": "by-hand", "operations": PEOPLE_DO, "require": {"reason": {"required": True}}},
                ]
                running.apply_policy(policy(match=match, rules=rules))
                leads = {"count": 1, "groups": ["sre-leads"]}
                release = {**rules[0], "require": {"maxAge": "10m", "approvals": leads}}
                match = {**match, "namespaceSelector": {"matchLabels": {"env": "released"}}}
                running.apply_policy(policy("released", match=match, rules=[release]))
                running.wait_guarded("prod")
                running.wait_guarded("released")
                yield Site(running, server, authority)


@pytest.fixture
def job(site: Site, tmp_path: Path) -> Job:
    """A job of acme/shop on main."""
    site.server.job = {"repository": "acme/shop", "ref": "refs/heads/main"}
    return another(site, tmp_path)


@pytest.fixture
def chart(site: Site, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "shop"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 0.1.0\n")
    (folder / "values.yaml").write_text("image: shop:1\n")
    (folder / "templates" / "deployment.yaml").write_text(TEMPLATE)
    yield folder
    site.deployment.cluster.helm("uninstall", "shop", "-n", "prod", "--ignore-not-found", user=ADMIN)


def another(site: Site, folder: Path, *bound: str, github: bool = True) -> Job:
    """A job with a token of its own, and so another credential-id."""
    cluster = site.deployment.cluster
    command = ["create", "token", "deployer", "-n", "ci", *bound]
    found = yaml.safe_load(cluster.admin_kubeconfig.read_text())
    token = cluster.kubectl(*command, user=ADMIN, check=True).stdout.strip()
    found["users"] = [{"name": found["users"][0]["name"], "user": {"token": token}}]
    path = folder / f"{hashlib.sha256(token.encode()).hexdigest()[:8]}.kubeconfig"
    path.write_text(yaml.safe_dump(found))
    path.chmod(0o600)
    return Job(site, path, github)


def helm(site: Site, chart: Path, image: str) -> list[str]:
    program = str(site.deployment.cluster.programs.path("helm"))
    return [program, "upgrade", "--install", "shop", str(chart), "-n", "prod", "--set", f"image={image}"]


def image(site: Site) -> str:
    path = "jsonpath={.spec.template.spec.containers[0].image}"
    return site.deployment.cluster.kubectl("get", "deploy/shop", "-n", "prod", "-o", path, user=ADMIN).stdout


def test_a_pipeline_installs_and_upgrades_by_helm_and_does_nothing_else(site: Site, job: Job, chart: Path) -> None:
    refused = job.run(*helm(site, chart, "shop:1"))
    assert refused.returncode != 0
    assert REFUSED in refused.stderr
    for version in ("shop:1", "shop:2"):
        passed = job.elevate(*helm(site, chart, version))
        assert passed.returncode == 0, passed.stderr
        assert image(site) == version
    assert "deploy deployments.apps/shop in prod (policy production)" in passed.stderr
    # Neither another change, nor another operation, with or without a token of its own.
    assert REFUSED in job.run(*helm(site, chart, "shop:3")).stderr
    for command in (["delete", "deploy/shop"], ["scale", "deploy/shop", "--replicas=0"]):
        ended = job.elevate("kubectl", *command, "-n", "prod")
        assert ended.returncode == 3, ended.stderr
        assert "takes no pipeline with such a token" in ended.stderr
    assert image(site) == "shop:2"
    (record,) = [line for line in site.deployment.audit(lambda one: one["event"] == "decision") if line.get("acr") == ["workload"]][-1:]  # fmt: skip
    assert (record["user"], record["outcome"]) == ("system:serviceaccount:ci:deployer", "allowed")


def test_what_was_exchanged_is_for_one_credential(site: Site, job: Job, chart: Path, tmp_path: Path) -> None:
    site.deployment.cluster.run(helm(site, chart, "shop:1"), user=ADMIN, groups=("system:masters",), check=True)
    answer = job.exchange(site.issuer.token())
    assert answer.returncode == 0, answer.stderr
    command = ("kubectl", "set", "image", "deploy/shop", "c=shop:2", "-n", "prod")
    refused = another(site, tmp_path).run(*command)
    assert REFUSED in refused.stderr  # the same change, from the same account by another token
    alice = site.deployment.cluster.kubectl("set", "image", "deploy/shop", "c=evil", "-n", "prod", user="alice")
    assert REFUSED in alice.stderr
    assert job.run(*command).returncode == 0
    assert image(site) == "shop:2"
    assert REFUSED in job.run("kubectl", "set", "image", "deploy/shop", "c=shop:3", "-n", "prod").stderr


def hmac_of_the_public_key(issuer: Issuer) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': 'HS256', 'kid': 'rsa-1', 'typ': 'JWT'})}.{part(issuer.claims())}"
    pem = issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = base64.urlsafe_b64encode(hmac.digest(pem, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()
    return f"{signed}.{signature}"


def test_tokens_that_do_not_do(site: Site, job: Job) -> None:
    issuer = site.issuer
    genuine = issuer.token()
    assert job.exchange(genuine).returncode == 0
    now = int(issuer.clock())
    tokens = {
        "workload-not-accepted": [issuer.token(repository="acme/other"), issuer.token(ref="refs/heads/topic")],
        "token-refused": [
            issuer.token(aud="other-cluster"),
            issuer.token(iat=now - 100, nbf=now - 100, exp=now - 10),
            genuine.rpartition(".")[0] + ".",
            hmac_of_the_public_key(issuer),
            issuer.token(alg="ES256", kid="rsa-1"),
        ],
        "untrusted-issuer": [issuer.token(iss="https://issuer.example.com")],
        "token-replayed": [genuine],
    }
    for code, wrong in tokens.items():
        for token in wrong:
            refused = job.exchange(token)
            assert refused.returncode != 0
            assert f"(code: {code})" in refused.stderr
            assert token not in refused.stderr
    assert genuine not in site.deployment.logs()


def test_a_token_in_a_variable_is_kept_from_the_command(site: Site, tmp_path: Path, chart: Path) -> None:
    job = another(site, tmp_path, github=False)
    command = ["sh", "-c", 'echo "in its environment: ${STEPUP_ID_TOKEN:-nothing}"; "$@"', "sh"]
    passed = job.elevate(*command, *helm(site, chart, "shop:1"), STEPUP_ID_TOKEN=site.issuer.token())
    assert "in its environment: nothing" in passed.stdout


def test_a_service_account_in_its_pod_needs_no_other_token(site: Site, tmp_path: Path, chart: Path) -> None:
    uid = site.deployment.cluster.kubectl("get", "pod/runner-1", "-n", "ci", "-o", "jsonpath={.metadata.uid}", user=ADMIN).stdout  # fmt: skip
    bound = ("--bound-object-kind=Pod", "--bound-object-name=runner-1", f"--bound-object-uid={uid}")
    inside, outside = another(site, tmp_path, *bound, github=False), another(site, tmp_path, github=False)
    refused = outside.elevate(*helm(site, chart, "shop:1"), options=("--issuer", "pod"))
    assert refused.returncode == 3
    assert "spec.subjectToken" in refused.stderr
    passed = inside.elevate(*helm(site, chart, "shop:1"), options=("--issuer", "pod"))
    assert passed.returncode == 0, passed.stderr
    assert image(site) == "shop:1"


def test_a_person_releases_what_a_pipeline_deploys(site: Site, job: Job) -> None:
    leader = Person(site.deployment, groups=("devs", "sre-leads")).enrol()
    command = ("kubectl", "create", "deployment", "shop", "--image=shop:1", "-n", "released")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.elevate, *command)
        deadline = time.monotonic() + SECONDS
        while not (names := re.findall(r"elv-[a-z2-7]{20}", leader.elevate("approvals").stdout)):
            assert not waiting.done(), waiting.result().stderr
            assert time.monotonic() < deadline
            time.sleep(0.2)
        approved = leader.elevate("approve", names[0])
        assert approved.returncode == 0, approved.stderr
        assert "it is a pipeline: repo:acme/shop:ref:refs/heads/main" in approved.stdout + approved.stderr
        passed = waiting.result(SECONDS)
    assert passed.returncode == 0, passed.stderr
    assert "deployment.apps/shop created" in passed.stdout
