"""Proves something on a page: opens it, waits, and goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from webhook.cli import browser
from webhook.cli.elevation import say
from webhook.cli.exits import INTERRUPTED, REFUSED, WRONG_CODE, ElevateError
from webhook.cli.kubectl import Kubectl
from webhook.cli.local_page import LocalPage

WAITING: Final = "page-waiting"
PAUSE_SECONDS: Final = 0.2  # the service itself holds the question for a while
TRIES: Final = 5

JSON = dict[str, Any]
Send = Callable[[str, JSON | None], JSON]
"""Sends what a page gave, or asks what became of it: name of the page, the browser's credential; the status that comes back."""


def step_up(kubectl: Kubectl, elevation: str) -> JSON:
    """Answer an ElevationRequest on a page; the status of the answer.

    Raises:
        ElevateError: refused, declined, not in time, or not reachable.
    """

    def send(page: str, credential: JSON | None) -> JSON:
        spec = {"factor": "webauthn", "page": page, **({"credential": credential} if credential is not None else {})}
        return _status(kubectl.create(f"elevationrequests/{elevation}/answer", "ChallengeAnswer", spec))

    return _prove(kubectl, {"elevation": elevation}, f"elevationrequests/{elevation}", send)


def enrol(kubectl: Kubectl, authenticator: str, secret: str) -> JSON:
    """Make a passkey on a page; the status of the confirmation.

    Raises:
        ElevateError: as ``step_up``.
    """

    def send(page: str, credential: JSON | None) -> JSON:
        spec = {"page": page, **({"credential": credential} if credential is not None else {})}
        return _status(kubectl.create(f"authenticators/{authenticator}/confirm", "AuthenticatorConfirmation", spec))

    about = {"authenticator": authenticator, "enrolmentSecret": secret}
    return _prove(kubectl, about, f"authenticators/{authenticator}", send)


def home(kubectl: Kubectl) -> None:
    """Show the person's own factors and elevations, until the page has expired or Ctrl-C.

    Raises:
        ElevateError: there is no page, or it is not reachable.
    """
    with closing(LocalPage()) as local:
        page = kubectl.create("pages", "Page", {"localOrigin": local.origin})
        status = page["status"]
        say(f"the page shows the words: {status['words']}")
        if "document" not in status:
            browser.show(status["url"], is_local=False)
            return

        def act(action: str, body: JSON) -> JSON:
            if action == "revoke":
                kubectl.delete(f"elevationrequests/{_name(body)}")
            return {}

        local.serve(status["document"], act)
        browser.show(local.url, is_local=True)
        say("Ctrl-C ends it")
        local.wait(_seconds_until(status["expiresAt"]))


class _Proof:
    """A page on localhost, and what came of it."""

    def __init__(self, kubectl: Kubectl, about: JSON, resource: str, send: Send, local: LocalPage, page: JSON) -> None:
        self._kubectl = kubectl
        self._about = about
        self._resource = resource
        self._send = send
        self._local = local
        self._page = page
        self._tries = 0
        self.status: JSON = {}
        self.error: ElevateError | None = None

    def act(self, action: str, body: JSON) -> JSON:
        """What the page does: hand in a credential, or decline."""
        if action == "decline":
            self._end(_declined())
            self._kubectl.delete(self._resource)
            return {}
        if action not in {"answer", "register"} or not isinstance(body.get("credential"), dict):
            raise ElevateError("that is not what this page sends")
        try:
            return self._answer(body["credential"])
        except ElevateError as error:
            self._end(error)
            raise

    def _answer(self, credential: JSON) -> JSON:
        self._tries += 1
        self.status = self._send(self._page["metadata"]["name"], credential)
        if self.status["accepted"]:
            self._local.end()
            return {"accepted": True}
        message = str(self.status.get("message", "refused"))
        options = self._next_options() if self._tries < TRIES else {}
        if not options:
            self._end(ElevateError(message, WRONG_CODE, str(self.status.get("code", ""))))
        return {"accepted": False, "message": message, "options": options}

    def _next_options(self) -> JSON:
        """A challenge is good once: another page, of which the browser needs the options alone; empty when there is none."""
        try:
            self._page = self._kubectl.create("pages", "Page", {**self._about, "localOrigin": self._local.origin})
        except ElevateError:
            return {}
        options: JSON = self._page["status"]["document"]["options"]
        return options

    def _end(self, error: ElevateError) -> None:
        self.error = error
        self._local.end()


def _prove(kubectl: Kubectl, about: JSON, resource: str, send: Send) -> JSON:
    with closing(LocalPage()) as local:
        page = kubectl.create("pages", "Page", {**about, "localOrigin": local.origin})
        status = page["status"]
        seconds = _seconds_until(status["expiresAt"])
        say(f"use your passkey on the page that shows the words: {status['words']}")
        if "document" not in status:
            browser.show(status["url"], is_local=False)
            return _claimed(page["metadata"]["name"], send, seconds)
        proof = _Proof(kubectl, about, resource, send, local, page)
        local.serve(status["document"], proof.act)
        browser.show(local.url, is_local=True)
        if not local.wait(seconds):
            raise _too_late()
        if proof.error is not None:
            raise proof.error
        return proof.status


def _claimed(page: str, send: Send, seconds: float) -> JSON:
    """Ask until somebody has answered on the page elsewhere: what was proven there, only this terminal can claim."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = send(page, None)
        if status["accepted"]:
            return status
        if status.get("code") != WAITING:
            raise ElevateError(str(status.get("message", "refused")), REFUSED, str(status.get("code", "")))
        time.sleep(PAUSE_SECONDS)
    raise _too_late()


def _status(answer: JSON) -> JSON:
    status: JSON = answer["status"]
    return status


def _name(body: JSON) -> str:
    name = body.get("name")
    if not isinstance(name, str) or not name.replace("-", "").isalnum():
        raise ElevateError("that is not what this page sends")
    return name


def _seconds_until(text: str) -> float:
    return max(0.0, (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds())


def _declined() -> ElevateError:
    return ElevateError("it was declined on the page", REFUSED, "page-declined")


def _too_late() -> ElevateError:
    return ElevateError("nobody answered on the page in time", INTERRUPTED)
