"""`stepup guard render`: files that hold what admission is never asked about, for the API server or for `kubectl apply`."""

from __future__ import annotations

import hashlib
import re
import ssl
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import typer
import yaml

from webhook.cli.exits import USAGE, ElevateError
from webhook.core.static_identities import MAX_NAMES, Installation, Sealed
from webhook.core.static_policies import Hold, documents, holds

app = typer.Typer(help="Hold what admission never sees.", no_args_is_help=True, rich_markup_mode=None)

DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")
ACCOUNT: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
MAX_NAME_LETTERS: Final = 256
CERTIFICATE_END: Final = "-----END CERTIFICATE-----"
POLICIES: Final = "policies"
NOT_SEALED: Final = ("system:authenticated", "system:unauthenticated", "system:serviceaccount", "system:node")

NOWHERE: Final = "https://127.0.0.1:1"  # nothing listens there: asking it fails, and a failure denies
# Whoever could put on a credential-id would be anybody whom we know by one; the name of the API server itself has none.
# Many extras at once are authorized as `*` first.
FORGED: Final = """\
has(request.resourceAttributes) && request.resourceAttributes.verb.startsWith('impersonate') &&
((request.resourceAttributes.resource == 'userextras' &&
request.resourceAttributes.subresource in ['authentication.kubernetes.io/credential-id', '*']) ||
(request.resourceAttributes.resource == 'users' && request.resourceAttributes.name in ['system:apiserver', '*']))"""

STATIC_STEPS: Final = """\
On every control plane node (Kubernetes 1.37, or 1.36 with the feature gate ManifestBasedAdmissionControlConfig):
  1. copy {output} to {directory}, readable by kube-apiserver alone, and mount it into its pod;
  2. start kube-apiserver with --admission-control-config-file={directory}/admission-configuration.yaml
     (it has such a file already: add the plugin to that one instead);
  3. in place of --authorization-mode=Node,RBAC, start it with
     --authorization-config={directory}/authorization-configuration.yaml
     Without it a cluster-admin can impersonate the sealed identity with a credential-id of their choice, and the holds
     do not hold them. (It has such a file already: put the authorizer no-forged-credentials first in that one.)
  4. try both: these two must be refused.
     kubectl delete validatingwebhookconfiguration {name} --dry-run=server
     kubectl auth whoami --as=x --as-user-extra=authentication.kubernetes.io/credential-id=x
A changed file in {directory}/policies is read by itself within a minute. Upgrades, uninstalls and repairs are the sealed
identity's from now on.
Still open: root on a control plane node, and etcd; members of system:masters, whom the API server authorizes unasked, can
impersonate anybody. Lock their certificates away."""

MANAGED_STEPS: Final = """\
The cluster takes no flags of yours, so this holds by objects of the API:
  1. kubectl apply --server-side -f {output}/{name}-hold.yaml
  2. try it: kubectl delete validatingwebhookconfiguration {name} --dry-run=server must be refused.
Still open:
  - whoever may change validatingadmissionpolicies or validatingadmissionpolicybindings can take the holds away first: no
    webhook and no policy of the API is shown these. Nor mutatingadmissionpolicies, which could change our objects.
    Give these rights to the sealed identity alone: no cluster-admin and no `*` for people, pipelines or GitOps
    (a role with every resource but these: list its API groups). See who has them:
    kubectl auth can-i delete validatingadmissionpolicies --as USER
  - whoever may impersonate userextras can put on a credential-id, and whoever may impersonate users and uids the API
    server itself: the same advice for the verb impersonate.
  - what the provider's own accounts do. Alert on your audit log:
    verb in (create, update, patch, delete, deletecollection) on admissionregistration.k8s.io."""


@app.callback()
def group() -> None:
    """Hold what admission never sees."""


@app.command()
def render(
    output: Annotated[Path, typer.Option(help="Folder to write to; made where it is not there.")],
    user: Annotated[list[str] | None, typer.Option(help="Username of the sealed identity; may be repeated.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group of the sealed identity; may be repeated.")] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(help="Client certificate (PEM) of the sealed identity, and no other; may be repeated."),
    ] = None,
    name: Annotated[str, typer.Option(help="Full name of the release.")] = "kube-stepup",
    namespace: Annotated[str, typer.Option(help="Its namespace.")] = "kube-stepup",
    service_account: Annotated[
        list[str] | None,
        typer.Option(
            help="NAMESPACE/NAME of an account that writes there too, such as cert-manager's; may be repeated."
        ),
    ] = None,
    directory: Annotated[
        str, typer.Option(help="Where the files will be on the control plane node.")
    ] = "/etc/kubernetes/kube-stepup",
    nodes_without_certificates: Annotated[
        bool, typer.Option("--nodes-without-certificates", help="Kubelets come without a client certificate.")
    ] = False,
    managed: Annotated[
        bool, typer.Option("--managed", help="For clusters whose API server takes no flags (EKS, GKE, AKS).")
    ] = False,
) -> None:
    """Write policies that hold our configuration, definitions, keys and identity for one sealed break-glass identity."""
    from webhook.settings import KUBE_SYSTEM_CONTROLLERS

    sealed = _sealed(user or [], group or [], certificate or [], by_token=managed)
    installation = Installation(
        _checked("--name", name, DNS_LABEL),
        _checked("--namespace", namespace, DNS_LABEL),
        sealed,
        tuple(f"system:serviceaccount:kube-system:{one}" for one in KUBE_SYSTEM_CONTROLLERS),
        tuple(_checked("--service-account", one, ACCOUNT) for one in service_account or []),
        nodes_by_certificate=not nodes_without_certificates,
    )
    if not PurePosixPath(directory).is_absolute():
        raise ElevateError("--directory: must be an absolute path", USAGE)
    chosen = [one for one in holds(installation) if not (managed and one.hidden)]
    files = {f"{name}-hold.yaml" if managed else f"{POLICIES}/{name}.yaml": _policies(chosen, installation, managed)}
    if not managed:
        files["admission-configuration.yaml"] = _admission_configuration(directory)
        files["authorization-configuration.yaml"] = _authorization_configuration(directory)
        files["nowhere.kubeconfig"] = _nowhere()
    for file, text in files.items():
        _write(output / file, text)
    steps = MANAGED_STEPS if managed else STATIC_STEPS
    typer.echo(steps.format(output=output, directory=directory.rstrip("/"), name=name))


def _sealed(users: list[str], groups: list[str], certificates: list[Path], *, by_token: bool) -> Sealed:
    for option, names in (("--user", users), ("--group", groups)):
        if len(names) > MAX_NAMES:
            raise ElevateError(f"{option}: at most {MAX_NAMES}", USAGE)
        for name in names:
            if not name.isprintable() or not 0 < len(name) <= MAX_NAME_LETTERS:
                raise ElevateError(f"{option}: must be a name of 1 to {MAX_NAME_LETTERS} printable letters", USAGE)
            if name.startswith(NOT_SEALED):
                raise ElevateError(f"{option}: {name} is not an identity of few people", USAGE)
    if not (users or groups or certificates):
        raise ElevateError("say who may still do all this: --user, --group or --certificate", USAGE)
    fingerprints = tuple(_fingerprint(file) for file in certificates)
    return Sealed(tuple(users), tuple(groups), fingerprints, by_token)


def _fingerprint(file: Path) -> str:
    """SHA-256 of the first certificate in a file, as the API server names the credential."""
    try:
        text = file.read_text(encoding="ascii")
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(CERTIFICATE_END) + len(CERTIFICATE_END)]
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
    except OSError as error:
        raise ElevateError(f"--certificate: cannot read {file}: {error.strerror}", USAGE) from error
    except ValueError as error:
        raise ElevateError(f"--certificate: {file} has no PEM certificate", USAGE) from error


def _checked(option: str, value: str, form: re.Pattern[str]) -> str:
    if not form.fullmatch(value):
        raise ElevateError(f"{option}: {value!r} cannot be a name in Kubernetes", USAGE)
    return value


def _policies(chosen: list[Hold], installation: Installation, managed: bool) -> str:
    parts = []
    for hold in chosen:
        comment = "".join(f"# {line}\n" for line in hold.about.splitlines())
        bodies = [_yaml(one) for one in documents(hold, installation, static=not managed)]
        parts.append("---\n" + comment + "---\n".join(bodies))
    return "".join(parts)


def _admission_configuration(directory: str) -> str:
    plugin = {
        "name": "ValidatingAdmissionPolicy",
        "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyConfiguration",
            "staticManifestsDir": f"{directory.rstrip('/')}/{POLICIES}",
        },
    }
    body = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [plugin]}
    return (
        "# For kube-apiserver --admission-control-config-file. Policies in files cannot be deleted through the API.\n"
        + _yaml(body)
    )


def _authorization_configuration(directory: str) -> str:
    """An authorizer that is asked about forged credentials alone, and that nobody answers for: so they are denied."""
    webhook = {
        "timeout": "1s",
        "subjectAccessReviewVersion": "v1",
        "matchConditionSubjectAccessReviewVersion": "v1",
        "authorizedTTL": "1s",
        "unauthorizedTTL": "1s",
        "failurePolicy": "Deny",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": f"{directory.rstrip('/')}/nowhere.kubeconfig"},
        "matchConditions": [{"expression": FORGED}],
    }
    forged = {"type": "Webhook", "name": "no-forged-credentials", "webhook": webhook}
    others = [{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"}]
    body = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": [forged, *others],
    }
    return (
        "# For kube-apiserver --authorization-config. The first authorizer denies the impersonation of a credential-id, and of the\n"
        "# API server itself, to everybody but system:masters; it is asked about nothing else.\n" + _yaml(body)
    )


def _nowhere() -> str:
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "nowhere", "cluster": {"server": NOWHERE}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
        "current-context": "nowhere",
    }
    return "# Where nobody listens, on purpose: what is asked of it is denied.\n" + _yaml(body)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ElevateError(f"--output: cannot write {path}: {error.strerror}") from error


class _Blocks(yaml.SafeDumper):
    """CEL of several lines stays readable, and nothing is folded or referred to."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Blocks.add_representer(str, _text)


def _yaml(body: dict[str, Any]) -> str:
    text: str = yaml.dump(body, Dumper=_Blocks, sort_keys=False, width=10_000, allow_unicode=True)
    return text
