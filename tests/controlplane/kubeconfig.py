"""Kubeconfigs with client certificates, and the environment in which a person runs kubectl."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tests.controlplane.pki import Authority, KeyPair, write_private

CLUSTER = "kube-stepup-tests"


class Kubeconfigs:
    """Makes one kubeconfig a user and set of groups, so that a user's credential-id stays the same."""

    def __init__(self, folder: Path, server: str, authority: Authority) -> None:
        self._folder = folder
        self._server = server
        self._authority = authority
        self._made: dict[tuple[str, tuple[str, ...]], tuple[KeyPair, Path]] = {}

    def certificate(self, user: str, groups: Sequence[str]) -> KeyPair:
        """The client certificate of a user."""
        return self._get(user, groups)[0]

    def path(self, user: str, groups: Sequence[str]) -> Path:
        """The kubeconfig of a user."""
        return self._get(user, groups)[1]

    def another(self, user: str, groups: Sequence[str]) -> Path:
        """A further kubeconfig of the same user, with a certificate and therefore a credential-id of its own."""
        return self._make(user, groups)[1]

    def _get(self, user: str, groups: Sequence[str]) -> tuple[KeyPair, Path]:
        key = (user, tuple(groups))
        if key not in self._made:
            self._made[key] = self._make(user, groups)
        return self._made[key]

    def _make(self, user: str, groups: Sequence[str]) -> tuple[KeyPair, Path]:
        number = sum(1 for _ in self._folder.glob("*.kubeconfig"))
        name = f"{re.sub(r'[^A-Za-z0-9.-]', '_', user)}-{number}"
        pair = self._authority.client(name, user, groups)
        path = self._folder / f"{name}.kubeconfig"
        write_private(path, json.dumps(self._content(user, pair), indent=2).encode())
        return pair, path

    def _content(self, user: str, pair: KeyPair) -> dict[str, object]:
        """JSON is YAML. Files are named, not embedded: every tool can read both, and this is easier to read."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": CLUSTER,
                    "cluster": {
                        "server": self._server,
                        "certificate-authority": str(self._authority.files.certificate_file),
                    },
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {"client-certificate": str(pair.certificate_file), "client-key": str(pair.key_file)},
                }
            ],
            "contexts": [{"name": CLUSTER, "context": {"cluster": CLUSTER, "user": user, "namespace": "default"}}],
            "current-context": CLUSTER,
        }
