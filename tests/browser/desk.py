"""Somebody at a terminal whose browser is the test's: `kubectl elevate` runs, and its link is opened in Chromium."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

from tests.chromium import Tab
from tests.people import ROOT, Person

SECONDS = 60.0
OPENER = Path(__file__).parent / "opener.py"


class Elevating:
    """One run of `kubectl elevate` that waits for its page."""

    def __init__(self, person: Person, *arguments: str, automatic: bool = False) -> None:
        self._links = person.deployment.folder / f"links-{secrets.token_hex(4)}"
        self._errors = person.deployment.folder / f"errors-{secrets.token_hex(4)}"
        environment = person.cluster.environment(person.name, person.groups)
        environment["PYTHONPATH"] = str(ROOT)
        environment["BROWSER"] = f"{sys.executable} {OPENER} {self._links} %s"
        if automatic:
            environment |= person.answers_by_itself()
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "webhook.cli.elevate", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self.output = ""

    @property
    def errors(self) -> str:
        """What it has told the person so far."""
        return self._errors.read_text()

    def link(self) -> str:
        """The link that its browser was told to open."""
        deadline = time.monotonic() + SECONDS
        while not self._links.exists() or not self._links.read_text().endswith("\n"):
            assert self._process.poll() is None, self.errors
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.02)
        return self._links.read_text().strip()

    def words(self) -> str:
        """The two words that it shows."""
        found = re.search(r"shows the words: (\w+ \w+)", self.errors)
        assert found, self.errors
        return found[1]

    def opened_in(self, tab: Tab) -> str:
        """Open the link; the words that the page shows."""
        tab.page.goto(self.link())
        tab.page.locator("main:not([data-kind=opening]) h1").wait_for()
        return tab.page.locator(".pair").inner_text()

    def end(self) -> int:
        """Its exit code."""
        self.output, _ = self._process.communicate(timeout=SECONDS)
        return self._process.returncode

    def interrupt(self) -> None:
        """End it, whatever it waits for."""
        if self._process.poll() is None:
            self._process.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._process.communicate()


def ticket_for(person: Person) -> str:
    """A one-time ticket from an operator."""
    operator = Person(person.deployment, "operator", ("system:masters",))
    answer, ticket = operator.create("enrollmenttickets", {"username": person.name}, "EnrollmentTicket")
    answer.checked()
    return str(ticket["status"]["ticket"])


def enrolled(person: Person, tab: Tab, name: str = "laptop") -> str:
    """Enrol a passkey with a ticket, on the page; what the terminal printed."""
    running = Elevating(person, "enroll", "--factor", "webauthn", "--name", name, "--ticket", ticket_for(person))
    assert running.opened_in(tab) == running.words()
    tab.use_passkey()
    tab.ends_with("Done")
    assert running.end() == 0, running.errors
    return running.output
