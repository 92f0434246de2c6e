"""The service behind `pages`: a terminal asks for a page, and gets a link to it, or the page itself to serve on localhost."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from webhook.adapters.authenticator_store import PersonRecord
from webhook.adapters.ceremonies import ENROL, HOME, STEP_UP, Ceremony
from webhook.adapters.passkey import LOCALHOST
from webhook.core.assertion import AuthorizationDetail
from webhook.core.requirement import merged
from webhook.elevation.bodies import WantedPage, invalid
from webhook.elevation.factors import suffices
from webhook.elevation.identity import Requester
from webhook.elevation.lifecycle import epoch_seconds, rfc3339
from webhook.elevation.needs import Needs
from webhook.elevation.page import shown
from webhook.elevation.page.render import ASSETS, HEADERS, asset, render
from webhook.elevation.page.sessions import Opened
from webhook.elevation.requests import ElevationRequests
from webhook.elevation.resources import GROUP_VERSION
from webhook.elevation.webauthn.passkeys import Passkeys
from webhook.elevation.webauthn.relying_party import Where
from webhook.errors import RequestError
from webhook.settings import ElevationSettings

LOCAL_ORIGIN: Final = re.compile(r"http://localhost:[1-9][0-9]{0,4}")
HOME_SECONDS: Final = 300
LOCAL_BASE: Final = "/"

JSON = dict[str, Any]


class Pages:
    """Opens pages and fills them.

    Args:
        audience: name of the cluster, shown on every page.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        requests: ElevationRequests,
        needs: Needs,
        passkeys: Passkeys,
        settings: ElevationSettings,
        audience: str,
        clock: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._needs = needs
        self._sessions = passkeys.sessions
        self._proving = passkeys.proving
        self._enrolment = passkeys.enrolment
        self._settings = settings.page
        self._pending_lifetime_seconds = settings.pending_lifetime_seconds
        self._audience = audience
        self._clock = clock

    async def create(self, requester: Requester, wanted: WantedPage) -> JSON:
        """A page for the terminal that asks: a link where there is an origin for it, else the page itself.

        Raises:
            RequestError: ``no-page``, ``not-found``, ``wrong-credential``, or a field is wrong.
        """
        if wanted.elevation and wanted.authenticator:
            raise invalid("spec.authenticator", "must be empty beside elevation")
        if wanted.local_origin and not LOCAL_ORIGIN.fullmatch(wanted.local_origin):
            raise invalid("spec.localOrigin", "must be http://localhost:PORT")
        now = self._clock()
        if wanted.elevation:
            opened = await self._for_step_up(requester, wanted, now)
        elif wanted.authenticator:
            await self._enrolment.check_pending(requester, wanted.authenticator, wanted.enrolment_secret)
            where = self._where(wanted)[0]
            expires_at = now + self._pending_lifetime_seconds
            opened = await self._sessions.start(requester, ENROL, wanted.authenticator, where, now, expires_at)
        else:
            where = self._where(wanted)[0]
            opened = await self._sessions.start(requester, HOME, "", where, now, now + HOME_SECONDS)
        return await self._object(requester, opened)

    async def html(self, record: PersonRecord, name: str, ceremony: Ceremony, base: str) -> str:
        """The page for whoever holds it."""
        common = {
            "cluster": self._audience,
            "base": base,
            "username": record.username,
            "words": ceremony.words,
            "client_address": ceremony.client_address,
            "expires_at": rfc3339(ceremony.expires_at),
        }
        if ceremony.kind == STEP_UP:
            elevation = await self._requests.stored(record.username, ceremony.subject)
            spec = elevation["spec"]
            return render(
                "step_up",
                **common,
                actions=shown.actions(spec["details"]),
                reason=spec.get("reason", ""),
                options=self._proving.options(record, name, elevation),
            )
        if ceremony.kind == ENROL:
            options = self._enrolment.options(record, name)
            label = shown.label_of(record, ceremony.subject)
            return render("enrol", **common, label=label, is_local=ceremony.rp_id == LOCALHOST, options=options)
        return render(
            "home",
            **common,
            options={},
            factors=[shown.factor(one) for one in record.authenticators if one.confirmed],
            recovery_codes_left=len(record.recovery),
            elevations=shown.elevations(await self._requests.all_of(record.username)),
        )

    async def options(self, record: PersonRecord, name: str, ceremony: Ceremony) -> JSON:
        """What a page asks the browser for now; empty when it asks for nothing, or not any more."""
        if ceremony.kind == STEP_UP:
            return self._proving.options(record, name, await self._requests.stored(record.username, ceremony.subject))
        return self._enrolment.options(record, name) if ceremony.kind == ENROL else {}

    async def _for_step_up(self, requester: Requester, wanted: WantedPage, now: float) -> Opened:
        elevation = await self._requests.answerable(requester, wanted.elevation)
        details = msgspec.convert(elevation["spec"]["details"], list[AuthorizationDetail])
        requirements = await self._needs.of_person(requester.user, details)
        if not requirements:
            raise RequestError("no policy asks for this any more", code="not-required", status=409, reason="Conflict")
        challenge = merged(requirements)
        record = await self._requests.person(requester.username)
        for where in self._where(wanted):
            mine = record.usable_passkeys(where.rp_id)
            if any(suffices(self._proving.strength(one), challenge) for one in mine):
                lapses_at = self._lapses_at(elevation, now)
                return await self._sessions.start(requester, STEP_UP, wanted.elevation, where, now, lapses_at)
        text = "none of your passkeys can be used on a page that can be served to you here; `kubectl elevate factors` shows them"
        raise RequestError(text, code="no-page", status=409, reason="Conflict")

    def _lapses_at(self, elevation: JSON, now: float) -> float:
        """With its request; one that others have approved since is answered once more, and not endlessly."""
        ends = (elevation.get("status") or {}).get("expiresAt")
        if ends:
            return min(epoch_seconds(ends), now + self._pending_lifetime_seconds)
        return epoch_seconds(elevation["metadata"]["creationTimestamp"]) + self._pending_lifetime_seconds

    def _where(self, wanted: WantedPage) -> list[Where]:
        """The places at which a page can be, the stronger one first.

        Raises:
            RequestError: ``no-page``: there is none.
        """
        found = []
        if self._settings.origin:
            found.append(Where(self._settings.origin, self._settings.relying_party))
        if self._settings.localhost and wanted.local_origin:
            found.append(Where(wanted.local_origin, LOCALHOST))
        if not found:
            text = "there is no page in this cluster: its operators have set no origin, and switched the page on localhost off"
            raise RequestError(text, code="no-page", status=409, reason="Conflict")
        return found

    async def _object(self, requester: Requester, opened: Opened) -> JSON:
        ceremony = opened.ceremony
        status: JSON = {"words": ceremony.words, "expiresAt": rfc3339(ceremony.expires_at)}
        if ceremony.rp_id == LOCALHOST and LOCAL_ORIGIN.fullmatch(ceremony.origin):
            html = await self.html(opened.record, opened.name, ceremony, LOCAL_BASE)
            options = await self.options(opened.record, opened.name, ceremony)
            status["document"] = {**_document(html, self._audience), "options": options}
        else:
            path = f"/p/{self._sessions.reference(requester.username)}/{opened.name}/"
            status["url"] = f"{ceremony.origin}{path}#{opened.link_secret}"
        spec = {"kind": ceremony.kind, "subject": ceremony.subject}
        return {
            "apiVersion": GROUP_VERSION,
            "kind": "Page",
            "metadata": {"name": opened.name},
            "spec": spec,
            "status": status,
        }


def opening(audience: str, base: str) -> str:
    """What whoever comes by a link sees first; it says nothing."""
    return render("opening", cluster=audience, base=base, options={})


def _document(html: str, audience: str) -> JSON:
    files = {name: asset(name) for name in ASSETS}
    return {
        "html": html,
        "opening": opening(audience, LOCAL_BASE),
        "headers": dict(HEADERS),
        "assets": {
            f"/static/{name}": {"contentType": one.content_type, "text": one.text}
            for name, one in files.items()
            if one is not None
        },
    }
