"""The command lines and configuration files of the four programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.controlplane.pki import Authority, KeyPair, signing_key_pair, write_private
from tests.controlplane.process import free_ports

LOOPBACK = "127.0.0.1"
SERVICE_ADDRESSES = "10.96.0.0/16"
FIRST_SERVICE_ADDRESS = "10.96.0.1"  # of the Service `kubernetes`
FRONT_PROXY_USER = "front-proxy-client"

FILES = Path(__file__).parent / "files"

# What a pod's fake kubelet does: exec runs the command on this machine, logs and attach show one file, and a
# forwarded port sends back what it is sent. The stages that make nodes ready and pods run are kwok's own defaults.
KWOK_CONFIGURATION = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterExec
metadata: {{name: everything}}
spec:
  execs: [{{local: {{workDir: "{folder}"}}}}]
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterLogs
metadata: {{name: everything}}
spec:
  logs: [{{logsFile: "{log}", previousLogsFile: "{log}"}}]
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterAttach
metadata: {{name: everything}}
spec:
  attaches: [{{logsFile: "{log}"}}]
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: ClusterPortForward
metadata: {{name: everything}}
spec:
  forwards: [{{command: [cat]}}]
"""
CONTAINER_LOG = "2026-01-01T00:00:00.000000000Z stdout F {line}\n"  # the format of the CRI
CONTAINER_LOG_LINE = "kwok: this container writes one line"


@dataclass(frozen=True)
class Ports:
    """Where everything listens on LOOPBACK."""

    etcd: int
    etcd_peer: int
    apiserver: int
    kubelet: int

    @classmethod
    def choose(cls) -> Ports:
        """Free ones."""
        return cls(*free_ports(4))


class Credentials:
    """All keys that the programs need, made when the control plane is."""

    def __init__(self, folder: Path) -> None:
        self.cluster_ca = Authority(folder, "cluster-ca")
        self.front_proxy_ca = Authority(folder, "front-proxy-ca")
        self.serving_ca = Authority(folder, "serving-ca")
        self.service_accounts = signing_key_pair(folder, "service-accounts")
        hosts = [LOOPBACK, FIRST_SERVICE_ADDRESS, "localhost", "kubernetes", "kubernetes.default"]
        hosts += ["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        self.apiserver = self.cluster_ca.server("kube-apiserver", hosts)
        self.kubelet = self.cluster_ca.server("kubelet", [LOOPBACK, "localhost"])
        self.apiserver_to_kubelet = self.cluster_ca.client("apiserver-to-kubelet", "kube-apiserver-kubelet-client")
        self.front_proxy = self.front_proxy_ca.client("front-proxy", FRONT_PROXY_USER)


def etcd(program: Path, folder: Path, ports: Ports) -> list[str]:
    """Durability is what a test does not need of etcd."""
    client, peer = f"http://{LOOPBACK}:{ports.etcd}", f"http://{LOOPBACK}:{ports.etcd_peer}"
    return [
        str(program),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def kube_apiserver(
    program: Path,
    folder: Path,
    ports: Ports,
    credentials: Credentials,
    admission_control_config: Path | None,
    extra: Sequence[str],
) -> list[str]:
    """RBAC, an aggregator with a front proxy CA of its own, and an audit log. `extra` comes last, so it wins."""
    arguments = [
        str(program),
        f"--etcd-servers=http://{LOOPBACK}:{ports.etcd}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={ports.apiserver}",
        f"--advertise-address={LOOPBACK}",
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
        *(
            []
            if any(one.startswith("--authorization-config=") for one in extra)
            else ["--authorization-mode=Node,RBAC"]
        ),
        "--disable-admission-plugins=ServiceAccount",  # kwok's pods mount nothing, so they need no token
        "--allow-privileged=true",
        f"--client-ca-file={credentials.cluster_ca.files.certificate_file}",
        *_pair("tls-cert-file", "tls-private-key-file", credentials.apiserver),
        "--service-account-issuer=https://kubernetes.default.svc",
        *_pair("service-account-key-file", "service-account-signing-key-file", credentials.service_accounts),
        *_pair("kubelet-client-certificate", "kubelet-client-key", credentials.apiserver_to_kubelet),
        f"--kubelet-certificate-authority={credentials.cluster_ca.files.certificate_file}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={credentials.front_proxy_ca.files.certificate_file}",
        f"--requestheader-allowed-names={FRONT_PROXY_USER}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        *_pair("proxy-client-cert-file", "proxy-client-key-file", credentials.front_proxy),
        f"--audit-policy-file={FILES / 'audit-policy.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
        "--audit-log-maxsize=1000",  # MiB; a rotated log would be read only in part
    ]
    if admission_control_config is not None:
        arguments.append(f"--admission-control-config-file={admission_control_config}")
    return [*arguments, *extra]


def kube_controller_manager(program: Path, kubeconfig: Path, credentials: Credentials) -> list[str]:
    """Controllers run under accounts of their own, as in every cluster that kubeadm or a cloud makes."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--secure-port=0",  # nobody asks it anything
        "--leader-elect=false",
        "--node-monitor-grace-period=24h",  # kwok renews no lease: after 50 s its node, and the pods there, would fall
        "--kube-api-qps=1000",  # the default of 20 makes it take 5 s to start
        "--kube-api-burst=1000",
        "--use-service-account-credentials=true",
        f"--root-ca-file={credentials.cluster_ca.files.certificate_file}",
        f"--service-account-private-key-file={credentials.service_accounts.key_file}",
        *_pair("cluster-signing-cert-file", "cluster-signing-key-file", credentials.cluster_ca.files),
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
    ]


def kwok(program: Path, folder: Path, ports: Ports, kubeconfig: Path, credentials: Credentials) -> list[str]:
    """The kubelet of every node."""
    pods = folder / "pods"
    pods.mkdir(exist_ok=True)
    log = folder / "container.log"
    write_private(log, CONTAINER_LOG.format(line=CONTAINER_LOG_LINE).encode())
    configuration = folder / "kwok.yaml"
    configuration.write_text(KWOK_CONFIGURATION.format(folder=pods, log=log))
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--config={configuration}",
        "--manage-all-nodes",
        f"--node-ip={LOOPBACK}",
        f"--node-port={ports.kubelet}",
        f"--server-address={LOOPBACK}:{ports.kubelet}",
        *_pair("tls-cert-file", "tls-private-key-file", credentials.kubelet),
    ]


def _pair(certificate_flag: str, key_flag: str, pair: KeyPair) -> list[str]:
    return [f"--{certificate_flag}={pair.certificate_file}", f"--{key_flag}={pair.key_file}"]
