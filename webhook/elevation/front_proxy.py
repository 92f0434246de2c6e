"""Recognises kube-apiserver's front proxy: whose CA signed its client certificate, and its common name.

TLS proves that the peer holds the key; here it is checked at each connection against what is believed now, so that a CA
that was taken out of the ConfigMap is not believed any more, and a second CA put there by hand never is where CAs are pinned.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from webhook.adapters.kube import KubeClient, object_path
from webhook.errors import ConfigurationError, StoreUnavailableError
from webhook.settings import RequestHeaderSettings

REFRESH_SECONDS: Final = 30.0
REMEMBERED: Final = 64

log = structlog.get_logger("front-proxy")


class FrontProxy:
    """Believed CAs and names.

    Args:
        context: the server's TLS context; believed CAs are added to what it accepts.
        now: the present, aware.
    """

    def __init__(
        self,
        kube: KubeClient,
        settings: RequestHeaderSettings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._now = now
        self._authorities: list[x509.Certificate] = []
        self._names: frozenset[str] = frozenset()
        self._source = ""
        self._answers: dict[bytes, bool] = {}
        self.context: ssl.SSLContext | None = None

    @property
    def ready(self) -> bool:
        """Whether any CA is believed."""
        return bool(self._authorities)

    def believes(self, certificate_der: bytes | None) -> bool:
        """Whether the peer with this client certificate (DER) is the front proxy."""
        if not certificate_der:
            return False
        key = hashlib.sha256(certificate_der).digest()
        known = self._answers.get(key)
        if known is None:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            known = self._answers[key] = self._check(certificate_der)
        return known and self._in_time(certificate_der)

    async def run(self) -> None:
        """Follow the ConfigMap until cancelled."""
        while True:
            try:
                await self.refresh()
            except StoreUnavailableError as error:
                log.warning("front-proxy-unreadable", code=error.code, problem=error.message)
                await asyncio.sleep(1.0 if not self.ready else REFRESH_SECONDS)
                continue
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read CAs and names anew.

        Raises:
            StoreUnavailableError: they cannot be read; what was believed stays.
        """
        if self._settings.ca_file:
            pem, names = await asyncio.to_thread(_read_file, self._settings.ca_file), list(self._settings.allowed_names)
        else:
            pem, names = await self._from_config_map()
        source = json.dumps([pem, sorted(names)])
        if source != self._source:
            self._believe(pem, names)
            self._source = source

    async def _from_config_map(self) -> tuple[str, list[str]]:
        namespace, _, name = self._settings.config_map.partition("/")
        stored = await self._kube.get(object_path("", "v1", "configmaps", namespace=namespace, name=name))
        data: dict[str, Any] = (stored or {}).get("data") or {}
        pem = data.get("requestheader-client-ca-file") or ""
        if not pem:
            raise StoreUnavailableError(f"{self._settings.config_map} has no requestheader-client-ca-file")
        try:
            # Kubernetes writes null, too, for "any name".
            names = msgspec.json.decode(data.get("requestheader-allowed-names") or "[]", type=list[str] | None)
        except msgspec.MsgspecError as error:
            raise StoreUnavailableError(f"{self._settings.config_map}: allowed names are not a JSON list") from error
        return pem, names or []

    def _believe(self, pem: str, names: list[str]) -> None:
        try:
            found = x509.load_pem_x509_certificates(pem.encode())
        except ValueError as error:
            raise StoreUnavailableError("the request-header CA is not a PEM certificate") from error
        pins = {pin.replace(":", "").lower() for pin in self._settings.ca_fingerprints}
        believed = [one for one in found if not pins or _fingerprint(one) in pins]
        if len(believed) < len(found):
            log.error("front-proxy-ca-not-pinned", code="unpinned-ca", ignored=len(found) - len(believed))
        self._authorities, self._names = believed, frozenset(names)
        self._answers.clear()
        if self.context is not None and believed:
            bundle = b"".join(one.public_bytes(Encoding.PEM) for one in believed).decode()
            self.context.load_verify_locations(cadata=bundle)
        log.info("front-proxy-known", authorities=len(believed), names=sorted(self._names))

    def _check(self, certificate_der: bytes) -> bool:
        try:
            certificate = x509.load_der_x509_certificate(certificate_der)
            names = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            if self._names and (len(names) != 1 or names[0] not in self._names):
                log.warning("front-proxy-refused", code="wrong-common-name")
                return False
            return _is_client(certificate) and any(_issued(certificate, one) for one in self._authorities)
        except (ValueError, x509.DuplicateExtension):  # parts of a certificate are parsed when they are looked at
            return False

    def _in_time(self, certificate_der: bytes) -> bool:
        certificate = x509.load_der_x509_certificate(certificate_der)
        return certificate.not_valid_before_utc <= self._now() <= certificate.not_valid_after_utc


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_client(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def _read_file(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnavailableError("elevation.requestHeader.caFile cannot be read") from error


def _fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def require_form(config_map: str) -> None:
    """Refuse a ConfigMap name without its namespace.

    Raises:
        ConfigurationError: naming the setting.
    """
    if config_map.count("/") != 1:
        raise ConfigurationError("must be namespace/name", field="elevation.requestHeader.configMap")
