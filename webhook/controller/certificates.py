"""Keeps the CA and the serving certificates in Secrets, and tells the other loops whom to trust.

With ``manageCertificates`` off, somebody else (cert-manager) keeps the serving certificates and we only read whom to
trust; the CA that was trusted before stays trusted until it expires, so that a change of CA loses no request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from webhook.controller.authority import (
    Succession,
    advance,
    issue,
    key_pem,
    pem_of,
    read_authority,
    reissue_reason,
)
from webhook.controller.secrets import TLS, Secrets, StoredSecret
from webhook.controller.trust import Trust
from webhook.errors import ConfigurationError
from webhook.settings import Settings

CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = "ca.key"
NEXT_CERTIFICATE: Final = "next.crt"
NEXT_KEY: Final = "next.key"
RETIRED: Final = "retired.crt"

log = structlog.get_logger("certificates")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Certificates:
    """The loop over everything that is kept in our Secrets.

    Args:
        now: aware UTC.
    """

    def __init__(
        self, stored: Secrets, settings: Settings, trust: Trust, *, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._secrets = stored
        self._settings = settings
        self._trust = trust
        self._now = now

    async def step(self) -> None:
        """Make what is missing, renew what is due, and share what is to be trusted.

        Raises:
            StoreUnavailableError: the API server refused, was not there, or somebody else was faster.
            ConfigurationError: ``caBundleFile`` cannot be read.
        """
        options = self._settings.controller
        if options.ca_bundle_file:
            bundle = _read_bundle(options.ca_bundle_file)
            self._trust.learn(admission=bundle, elevation=bundle)
        elif options.manage_certificates:
            await self._managed()
        else:
            self._trust.learn(
                admission=await self._foreign(options.admission_certificate_secret, "admission"),
                elevation=await self._foreign(options.elevation_certificate_secret, "elevation"),
            )

    async def _managed(self) -> None:
        options = self._settings.controller
        stored = await self._secrets.read(options.ca_secret)
        before = _succession(stored)
        after = advance(
            before,
            self._now(),
            lifetime_seconds=options.ca_lifetime_seconds,
            overlap_seconds=options.ca_overlap_seconds,
        )
        if before is None:
            # The CA was lost. What is served now must go on being trusted until the new certificates are everywhere.
            after = replace(after, retired=await self._trusted_by_servers())
        if after is not before:
            await self._secrets.write(options.ca_secret, _as_data(after), replacing=stored)
            log.info("certificate-authority-written", successor=after.successor is not None, retired=len(after.retired))
        # Trusted first, used second: what is signed by a new CA must find it trusted.
        bundle = after.bundle()
        self._trust.learn(admission=bundle, elevation=bundle)
        for secret, service in (
            (options.admission_certificate_secret, options.admission_service),
            (options.elevation_certificate_secret, options.elevation_service),
        ):
            await self._serving(secret, self._names(service), after, bundle)

    async def _trusted_by_servers(self) -> tuple[x509.Certificate, ...]:
        options = self._settings.controller
        found: dict[bytes, x509.Certificate] = {}
        for name in (options.admission_certificate_secret, options.elevation_certificate_secret):
            serving = await self._secrets.read(name)
            for one in _certificates(serving.data.get(CA_CERTIFICATE, "")) if serving else []:
                if one.not_valid_after_utc > self._now():
                    found[one.fingerprint(hashes.SHA256())] = one
        return tuple(found.values())

    async def _serving(self, name: str, names: list[str], succession: Succession, bundle: str) -> None:
        stored = await self._secrets.read(name)
        data = stored.data if stored else {}
        now = self._now()
        certificate, key = data.get("tls.crt", ""), data.get("tls.key", "")
        reason = reissue_reason(certificate, key, succession.current, names, now) if stored else "there is none"
        if reason:
            lifetime_seconds = self._settings.controller.serving_certificate_lifetime_seconds
            certificate, key = issue(succession.current, names, now, lifetime_seconds)
        elif data.get(CA_CERTIFICATE) == bundle:
            return
        await self._secrets.write(
            name, {"tls.crt": certificate, "tls.key": key, CA_CERTIFICATE: bundle}, replacing=stored, kind=TLS
        )
        log.info("serving-certificate-written", secret_name=name, why=reason or "the CA bundle changed")

    def _names(self, service: str) -> list[str]:
        options = self._settings.controller
        namespace = self._settings.namespace
        full = f"{service}.{namespace}.svc"
        names = [full, f"{full}.{options.cluster_domain}", f"{service}.{namespace}", service]
        return list(dict.fromkeys([*names, *options.serving_dns_names]))

    async def _foreign(self, name: str, server: str) -> str | None:
        """Whom to trust for a certificate that somebody else keeps; None while it is not there."""
        serving = await self._secrets.read(name)
        present = _certificates(serving.data.get(CA_CERTIFICATE, "")) if serving else []
        if not present:
            log.warning("certificate-awaited", secret_name=name, key=CA_CERTIFICATE)
            return None
        options = self._settings.controller
        stored = await self._secrets.read(options.ca_secret)
        key = f"seen-{server}.crt"
        seen = _certificates(stored.data.get(key, "")) if stored else []
        now = self._now()
        trusted = [*present, *(one for one in seen if one not in present and one.not_valid_after_utc > now)]
        if trusted != seen:
            data = {**(stored.data if stored else {}), key: pem_of(trusted)}
            await self._secrets.write(options.ca_secret, data, replacing=stored)
        return pem_of(trusted)


def _succession(stored: StoredSecret | None) -> Succession | None:
    if stored is None or CA_CERTIFICATE not in stored.data:
        return None
    data = stored.data
    try:
        current = read_authority(data[CA_CERTIFICATE], data.get(CA_KEY, ""))
        successor = read_authority(data[NEXT_CERTIFICATE], data.get(NEXT_KEY, "")) if NEXT_CERTIFICATE in data else None
    except ValueError:
        log.exception("certificate-authority-unreadable", way_out="a new one is made", code="bad-certificate")
        return None
    return Succession(current, successor, tuple(_certificates(data.get(RETIRED, ""))))


def _as_data(succession: Succession) -> dict[str, str]:
    data = {
        CA_CERTIFICATE: pem_of([succession.current.certificate]),
        CA_KEY: key_pem(succession.current.key),
    }
    if succession.successor is not None:
        data |= {
            NEXT_CERTIFICATE: pem_of([succession.successor.certificate]),
            NEXT_KEY: key_pem(succession.successor.key),
        }
    if succession.retired:
        data[RETIRED] = pem_of(succession.retired)
    return data


def _certificates(pem: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode()) if pem.strip() else []
    except ValueError:
        return []


def _read_bundle(file: str) -> str:
    try:
        text = Path(file).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {file}", field="controller.caBundleFile") from error
    if not _certificates(text):
        raise ConfigurationError(f"{file} holds no PEM certificate", field="controller.caBundleFile")
    return text
