"""Settings of the servers: one YAML file, checked as a whole before anything starts.

Keys are camelCase in the file, as everywhere in Kubernetes. Times are seconds and say so in their names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from webhook.errors import ConfigurationError
from webhook.workload_settings import WorkloadIssuerSettings

CONFIG_VARIABLE = "KUBE_STEPUP_CONFIG"
_MAX_EXTRA_KEY_LETTERS = 256
_EVERYBODY = frozenset({"system:authenticated", "system:unauthenticated", "system:nodes", "system:anonymous"})

KUBE_SYSTEM_CONTROLLERS: tuple[str, ...] = (
    # The accounts that kube-controller-manager runs its loops under (--use-service-account-credentials), by name and
    # never `kube-system:*`: an account that is not a controller's must not inherit a controller's rights.
    "attachdetach-controller",
    "certificate-controller",
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "device-taint-eviction-controller",
    "disruption-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "endpointslicemirroring-controller",
    "ephemeral-volume-controller",
    "expand-controller",
    "generic-garbage-collector",
    "horizontal-pod-autoscaler",
    "job-controller",
    "legacy-service-account-token-cleaner",
    "namespace-controller",
    "node-controller",
    "persistent-volume-binder",
    "pod-garbage-collector",
    "pv-protection-controller",
    "pvc-protection-controller",
    "replicaset-controller",
    "replication-controller",
    "resource-claim-controller",
    "resourcequota-controller",
    "root-ca-cert-publisher",
    "route-controller",
    "selinux-warning-controller",
    "service-account-controller",
    "service-cidrs-controller",
    "service-controller",
    "statefulset-controller",
    "storage-version-migrator-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
    "vac-protection-controller",
    "volumeattributesclass-protection-controller",
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class ControllerIdentities(_Section):
    """Who counts as a controller of the cluster (never a person).

    ``service_accounts`` are ``namespace/name``; each needs a bound token (``JTI=``), its own uid and its namespace's
    group besides its name. ``certificate_users`` are the exact common names that components hold a certificate for.
    """

    service_accounts: tuple[str, ...] = tuple(f"kube-system/{name}" for name in KUBE_SYSTEM_CONTROLLERS)
    certificate_users: tuple[str, ...] = ("system:kube-controller-manager", "system:kube-scheduler")
    nodes_by_certificate: bool = True


class BreakGlassSettings(_Section):
    """Who passes everything, loudly, by a condition in the API server itself: also while nothing of ours runs.

    Exact names, and only with a credential-id. Groups that everybody of a kind is in are refused: such a glass would be
    broken from the start.
    """

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @field_validator("users", "groups")
    @classmethod
    def _exact(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not name or any(letter in name for letter in "*?["):
                raise ValueError("break-glass names are exact: no empty name and no pattern")
            if name in _EVERYBODY or name.startswith("system:serviceaccount"):
                raise ValueError(f"{name} is not a group of few people: name one that is empty until the emergency")
        return names


class ProxySettings(_Section):
    """Proxies that impersonate people (Rancher, Teleport and the like).

    ``credential_extra_keys`` are keys of user extra that such a proxy fills with the id of its session or token. Whoever
    may impersonate ``userextras/KEY`` can forge it: that right must be the proxy's alone.
    """

    credential_extra_keys: tuple[str, ...] = Field((), max_length=8)

    @field_validator("credential_extra_keys")
    @classmethod
    def _keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if not key or key != key.lower() or len(key) > _MAX_EXTRA_KEY_LETTERS:
                raise ValueError("a key of user extra is lower case, as the API server passes it on")
            if key.startswith("authentication.kubernetes.io/"):
                raise ValueError(f"{key} is the API server's own, and tells of no session of a proxy")
        return keys


class AdmissionSettings(_Section):
    """The admission server."""

    port: int = Field(8443, ge=0, le=65535)
    path_secret_file: str = ""
    keep_alive_seconds: int = Field(120, ge=95, le=3600)  # the API server keeps idle connections for 90 s
    graceful_shutdown_seconds: int = Field(5, ge=1, le=60)
    use_write_timeout_seconds: float = Field(2.0, gt=0, le=4.0)  # inside the webhook's 5 s
    live_read_timeout_seconds: float = Field(1.5, gt=0, le=4.0)
    watch_stall_seconds: int = Field(90, ge=10, le=3600)  # the API server sends a bookmark about every minute
    report_seconds: int = Field(60, ge=1, le=3600)  # between two times that counts are stored
    leader_check_seconds: int = Field(15, ge=1, le=300)
    leader_silent_seconds: int = Field(60, ge=1, le=3600)  # a Lease lasts 15 s


class RequestHeaderSettings(_Section):
    """How the front proxy (kube-apiserver's aggregation layer) is recognised.

    The CA and the allowed names come from ``config_map``; ``ca_file`` with ``allowed_names`` replaces it.
    ``ca_fingerprints`` (SHA-256 of the DER certificate, hex) pins which CAs of that ConfigMap are believed.
    """

    config_map: str = "kube-system/extension-apiserver-authentication"
    ca_file: str = ""
    allowed_names: tuple[str, ...] = ()
    ca_fingerprints: tuple[str, ...] = ()


class TotpSettings(_Section):
    """RFC 6238 parameters; the window is the number of time steps accepted on either side."""

    issuer: str = "kube-stepup"
    digits: int = Field(6, ge=6, le=8)
    period_seconds: int = Field(30, ge=15, le=120)
    window_steps: int = Field(1, ge=0, le=2)


class ApprovalSettings(_Section):
    """Approvals by others. ``person_key`` says who is behind a name: ``username``, ``uid``, or a key under user.extra."""

    lifetime_seconds: int = Field(3600, ge=60, le=24 * 3600)
    min_factor_age_seconds: int = Field(3600, ge=0, le=30 * 24 * 3600)
    person_key: str = Field("username", min_length=1, max_length=253)


class NoticeSettings(_Section):
    """Notices to people: a file of Apprise URLs, one a line; they are secrets. Empty: nobody is told."""

    urls_file: str = ""
    max_per_minute: int = Field(20, ge=1, le=600)


class AssuranceTable(_Section):
    """Which factor gives which assurance; the default is that of NIST SP 800-63B-4 sections 2 and 3.

    Each is given beside the credential of the cluster, so that a one-time code is a second factor. ``aal3`` needs a key that
    cannot leave its hardware, shown by attestation, and phishing resistance (section 2.3).
    """

    totp: str = Field("aal2", pattern="^aal[123]$")
    recovery: str = Field("aal2", pattern="^aal[123]$")
    webauthn: str = Field("aal2", pattern="^aal[123]$")
    webauthn_attested: str = Field("aal3", pattern="^aal[123]$")


class PageSettings(_Section):
    """The browser page: at an https origin of its own, on localhost by `kubectl elevate`, or both.

    ``origin`` is how browsers reach ``port`` (by an Ingress or a load balancer); empty: there is none. ``rp_id`` is the
    domain that passkeys are bound to, the host of the origin by default; changing it makes them useless.
    """

    origin: str = Field("", pattern=r"^(https://[a-z0-9.-]+(:\d{1,5})?)?$")
    rp_id: str = Field("", pattern=r"^[a-z0-9.-]*$")
    port: int = Field(8446, ge=0, le=65535)
    localhost: bool = True

    @property
    def relying_party(self) -> str:
        """The RP ID of ``origin``."""
        return self.rp_id or (urlsplit(self.origin).hostname or "")

    @model_validator(mode="after")
    def _rp_id_is_of_the_origin(self) -> Self:
        host = urlsplit(self.origin).hostname or ""
        if self.rp_id and host != self.rp_id and not host.endswith(f".{self.rp_id}"):
            raise ValueError("rpId must be the host of origin, or a domain above it")
        return self


class WebAuthnSettings(_Section):
    """Passkeys and security keys. ``attestation_roots`` are PEM certificates of makers that are trusted."""

    name: str = Field("kube-stepup", min_length=1, max_length=64)
    attestation_roots: tuple[str, ...] = ()
    require_attestation: bool = False


class ElevationSettings(_Section):
    """The elevation server."""

    port: int = Field(8444, ge=0, le=65535)
    request_header: RequestHeaderSettings = RequestHeaderSettings()
    enrolment_trust_on_first_use: bool = False
    assurance: AssuranceTable = AssuranceTable()
    totp: TotpSettings = TotpSettings()
    webauthn: WebAuthnSettings = WebAuthnSettings()
    page: PageSettings = PageSettings()
    encryption_key_secret: str = "kube-stepup-encryption-key"
    signing_keys_secret: str = "kube-stepup-signing-keys"
    signing_algorithm: str = Field("ES256", pattern="^(ES256|EdDSA)$")
    signing_key_rotation_seconds: int = Field(30 * 24 * 3600, ge=60)
    signing_key_propagation_seconds: int = Field(30, ge=0, le=3600)
    pending_lifetime_seconds: int = Field(300, ge=30, le=3600)
    max_pending_per_user: int = Field(20, ge=1, le=1000)
    keep_record_seconds: int = Field(7 * 24 * 3600, ge=3600)
    approvals: ApprovalSettings = ApprovalSettings()
    workload_issuers: tuple[WorkloadIssuerSettings, ...] = Field((), max_length=32)
    workload_max_lifetime_seconds: int = Field(900, ge=10, le=3600)

    @field_validator("workload_issuers")
    @classmethod
    def _different(cls, issuers: tuple[WorkloadIssuerSettings, ...]) -> tuple[WorkloadIssuerSettings, ...]:
        if len({one.issuer for one in issuers}) < len(issuers):
            raise ValueError("an issuer is there twice; give it several audiences instead")
        return issuers


class ControllerSettings(_Section):
    """The leader-elected loops: certificates, CA bundles, webhook configuration, policy status, expiry.

    With ``manage_certificates`` off, the certificate Secrets are somebody else's (cert-manager) and only their ``ca.crt``
    is read; ``ca_bundle_file`` replaces even that. ``owner_cluster_role`` is the ClusterRole that owns a webhook
    configuration which we make anew: where it is gone, we are being uninstalled.
    """

    health_port: int = Field(0, ge=0, le=65535)  # 0: no health checks are served
    lease_name: str = "kube-stepup-controller"
    sync_seconds: int = Field(5, ge=1, le=300)
    expiry_interval_seconds: int = Field(120, ge=1, le=3600)
    canary_seconds: int = Field(60, ge=1, le=3600)  # and at once after every change of the configuration
    counts_seconds: int = Field(30, ge=1, le=3600)  # between two looks at what admission has counted
    keep_report_days: int = Field(30, ge=1, le=400)
    manage_certificates: bool = True
    ca_secret: str = "kube-stepup-ca"
    ca_bundle_file: str = ""
    ca_lifetime_seconds: int = Field(5 * 365 * 24 * 3600, ge=3600)
    ca_overlap_seconds: int = Field(24 * 3600, ge=60)  # both CAs are trusted this long before the new one signs
    admission_certificate_secret: str = "kube-stepup-admission-cert"
    elevation_certificate_secret: str = "kube-stepup-elevation-cert"
    serving_certificate_lifetime_seconds: int = Field(90 * 24 * 3600, ge=600)
    serving_dns_names: tuple[str, ...] = ()  # besides the names of the Services; IP addresses are allowed
    cluster_domain: str = "cluster.local"
    admission_service: str = "kube-stepup-admission"
    elevation_service: str = "kube-stepup-elevation"
    webhook_configuration: str = "kube-stepup"
    manage_webhook_configuration: bool = True
    owner_cluster_role: str = ""
    recreate_delay_seconds: int = Field(10, ge=0, le=600)  # longer than an uninstall takes to stop us
    narrow_delay_seconds: int = Field(30, ge=0, le=3600)  # what is no longer matched stays guarded this long
    watchful: bool = True
    api_service: str = "v1alpha1.elevation.kube-stepup.io"  # empty: there is none
    webhook_url: str = ""  # for a server outside the cluster; a Service otherwise
    path_secret: str = "kube-stepup-webhook-path"
    path_secret_rotation_seconds: int = Field(24 * 3600, ge=0)  # 0: never
    own_service_accounts: tuple[str, ...] = ()
    excluded_namespaces: tuple[str, ...] = ("kube-system", "kube-node-lease")
    max_guarded_namespaces: int = Field(400, ge=1, le=5000)


class Settings(_Section):
    """Everything the servers can be told.

    ``audience`` names this cluster: an assertion made for another one is refused. It must differ between clusters.
    """

    audience: str = Field(min_length=1, max_length=253)
    issuer: str = "kube-stepup"
    namespace: str = "kube-stepup"
    kubeconfig: str = ""
    bind_address: str = "0.0.0.0"
    tls_cert_file: str = ""
    tls_key_file: str = ""
    metrics_port: int = Field(0, ge=0, le=65535)  # plain HTTP; 0: no metrics are served
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    assertion_max_lifetime_seconds: int = Field(3600, ge=10, le=24 * 3600)
    session_extra_key: str = ""
    controllers: ControllerIdentities = ControllerIdentities()
    break_glass: BreakGlassSettings = BreakGlassSettings()
    impersonating_proxies: ProxySettings = ProxySettings()
    admission: AdmissionSettings = AdmissionSettings()
    elevation: ElevationSettings = ElevationSettings()
    controller: ControllerSettings = ControllerSettings()
    notices: NoticeSettings = NoticeSettings()


def load(path: str | None = None) -> Settings:
    """Read settings from a YAML file, by default the one that ``KUBE_STEPUP_CONFIG`` names.

    Raises:
        ConfigurationError: no file, not YAML, or a key that is unknown or out of range (named in ``field``).
    """
    name = path or os.environ.get(CONFIG_VARIABLE, "")
    if not name:
        raise ConfigurationError(f"no settings: pass --config FILE or set {CONFIG_VARIABLE}")
    try:
        data = yaml.safe_load(Path(name).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name} is not YAML") from error
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(first["msg"], field=".".join(str(part) for part in first["loc"])) from error
