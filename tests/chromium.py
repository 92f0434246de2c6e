"""A real Chromium with virtual authenticators (WebDriver's of the DevTools protocol), for tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright

BROWSER_FOLDER = Path(__file__).parent / "browser"
AXE = BROWSER_FOLDER / "node_modules" / "axe-core" / "axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "the browser tests need Chromium and axe-core: run `make browser`"
SECURITY_KEY = {"transport": "usb", "protocol": "ctap2", "hasResidentKey": False}
PASSKEY = {"transport": "internal", "protocol": "ctap2", "hasResidentKey": True}


class BrowserMissingError(Exception):
    """What the tests need is not there."""


def executable() -> str:
    """Path of the browser.

    Raises:
        BrowserMissingError: it, or axe-core, is not there.
    """
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found or not AXE.is_file():
        raise BrowserMissingError(MISSING)
    return found


class Tab:
    """One page of a browser of its own, with one authenticator.

    Args:
        authenticator: options of `WebAuthn.addVirtualAuthenticator`.
    """

    def __init__(self, context: BrowserContext, authenticator: Mapping[str, Any]) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.cdp: CDPSession = context.new_cdp_session(self.page)
        self.cdp.send("WebAuthn.enable")
        self.authenticator = self.add(authenticator)

    def add(self, authenticator: Mapping[str, Any]) -> str:
        """Plug another authenticator in; its id."""
        options = {"hasUserVerification": True, "isUserVerified": True, "automaticPresenceSimulation": True}
        answer = self.cdp.send("WebAuthn.addVirtualAuthenticator", {"options": {**options, **authenticator}})
        return str(answer["authenticatorId"])

    def credentials(self) -> list[dict[str, Any]]:
        """What the authenticator holds."""
        found: list[dict[str, Any]] = self.cdp.send("WebAuthn.getCredentials", {"authenticatorId": self.authenticator})[
            "credentials"
        ]
        return found

    def put(self, credential: Mapping[str, Any]) -> None:
        """Put a credential into the authenticator, as a clone would have it."""
        self.cdp.send("WebAuthn.addCredential", {"authenticatorId": self.authenticator, "credential": dict(credential)})

    def verify_user(self, *, verified: bool) -> None:
        """Whether the person gives the right PIN or finger from now on."""
        self.cdp.send("WebAuthn.setUserVerified", {"authenticatorId": self.authenticator, "isUserVerified": verified})

    def use_passkey(self) -> None:
        """Press the button, once the page is there."""
        self.page.locator("#go").click()

    def ends_with(self, title: str) -> None:
        """Until the heading says so."""
        self.page.locator("h1", has_text=title).wait_for(timeout=15_000)

    def problem(self) -> str:
        """What the page complains about, once it does."""
        found = self.page.locator("#problem:not(:empty)")
        found.wait_for(timeout=15_000)
        return found.inner_text()

    def violations(self) -> list[str]:
        """What axe-core finds; ids of rules with the element."""
        # Injected by the debugger: the page's own policy forbids it.
        self.cdp.send("Page.setBypassCSP", {"enabled": True})
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("async () => (await axe.run()).violations")
        return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]


class Chromium:
    """A running browser; each `tab` is a profile of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    @classmethod
    @contextmanager
    def running(cls, *arguments: str) -> Iterator[Self]:
        """Start it, and stop it at the end."""
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable(), args=[*sandbox, *arguments])
            try:
                yield cls(browser)
            finally:
                browser.close()

    def tab(self, authenticator: Mapping[str, Any] = PASSKEY, **context: Any) -> Tab:
        """A new profile with one tab and one authenticator; `context` as Playwright's `new_context` has it."""
        return Tab(self._browser.new_context(**context), authenticator)
