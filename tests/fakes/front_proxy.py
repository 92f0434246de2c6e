"""Request-header CAs in memory, the certificates that they sign, and the ConfigMap that tells about them."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
COMMON_NAME = "front-proxy-client"
FROM = datetime(2020, 1, 1, tzinfo=UTC)
UNTIL = datetime(2100, 1, 1, tzinfo=UTC)


class Authority:
    """A CA. Two of the same name differ in their keys, as those of an impostor do."""

    def __init__(self, name: str = "front-proxy-ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._name, self._key, ca=True).sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @functools.cached_property
    def front_proxy(self) -> bytes:
        """The front proxy's own certificate, as DER."""
        return self.issue()

    def issue(
        self,
        *common_names: str,
        valid: tuple[datetime, datetime] = (FROM, UNTIL),
        usages: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    ) -> bytes:
        """A client certificate as DER; for the front proxy unless names are given."""
        names = [x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common_names or (COMMON_NAME,)]
        builder = self._sign(x509.Name(names), ec.generate_private_key(ec.SECP256R1()), valid=valid)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)

    def serving(self, key: ec.EllipticCurvePrivateKey) -> str:
        """A server's certificate for its key, as PEM."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elevation")])
        return self._sign(name, key).sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        valid: tuple[datetime, datetime] = (FROM, UNTIL),
        ca: bool = False,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(valid[0])
            .not_valid_after(valid[1])
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )


def config_map(*authorities: Authority, names: Any = (COMMON_NAME,)) -> dict[str, Any]:
    """`kube-system/extension-apiserver-authentication`; `names` that are a text stand there as they are."""
    data = {
        "requestheader-client-ca-file": "".join(one.pem for one in authorities),
        "requestheader-allowed-names": names if isinstance(names, str) else json.dumps(names),
    }
    return {"metadata": {"name": "extension-apiserver-authentication"}, "data": data}
