"""Every page: clean to axe-core, usable by keyboard, and seen: screenshots in light, dark and phone width under build/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.desk import Elevating, enrolled, ticket_for
from tests.chromium import Chromium, Tab
from tests.cluster.sites import Site
from tests.people import Person

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1100, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1100, "height": 900}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "has_touch": True,
    },
}


def looked_at(tab: Tab, name: str) -> list[str]:
    """Take a screenshot in each look; what axe-core finds in any of them, and what does not fit the width."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    found = []
    for look, settings in LOOKS.items():
        tab.page.set_viewport_size(settings["viewport"])  # type: ignore[arg-type]
        tab.page.emulate_media(color_scheme=settings["color_scheme"])  # type: ignore[arg-type]
        tab.page.screenshot(path=SHOTS / f"{name}-{look}.png", full_page=True)
        found += [f"{look}: {one}" for one in tab.violations()]
        if tab.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append(f"{look}: wider than the screen")
    return found


@pytest.fixture
def running() -> Iterator[list[Elevating]]:
    found: list[Elevating] = []
    yield found
    for one in found:
        one.interrupt()


def test_enrol(bob: Person, tab: Tab, running: list[Elevating]) -> None:
    running.append(Elevating(bob, "enroll", "--factor", "webauthn", "--name", "YubiKey 5", "--ticket", ticket_for(bob)))
    running[0].opened_in(tab)
    assert looked_at(tab, "enrol") == []


def test_step_up_done_and_refused(
    site: Site, bob: Person, tab: Tab, chromium: Chromium, running: list[Elevating]
) -> None:
    enrolled(bob, tab)
    arguments = (
        "delete",
        "deploy/web",
        "-n",
        site.prod,
        "--reason",
        "OPS-1234: the old release must make room for the new one",
    )
    running.append(Elevating(bob, *arguments))
    running[0].opened_in(tab)
    assert looked_at(tab, "step-up") == []
    tab.verify_user(verified=False)
    tab.use_passkey()
    assert tab.problem()
    assert looked_at(tab, "step-up-problem") == []
    other = chromium.tab()
    other.page.goto(running[0].link())
    other.ends_with("Nothing to do here")
    assert looked_at(other, "opened-already") == []
    other.context.close()
    tab.verify_user(verified=True)
    tab.use_passkey()
    tab.ends_with("Done")
    assert looked_at(tab, "done") == []
    assert tab.page.evaluate("document.activeElement.tagName") == "H1", "a screen reader is told that it is over"


def test_what_is_mine(site: Site, bob: Person, tab: Tab, running: list[Elevating]) -> None:
    enrolled(bob, tab, "laptop")
    proof = Elevating(bob, "delete", "deploy/web", "-n", site.prod, "--reason", "OPS-7")
    proof.opened_in(tab)
    tab.use_passkey()
    assert proof.end() == 0
    running.append(Elevating(bob, "page"))
    tab.page.goto(running[0].link())
    tab.page.locator("#elevations-title").wait_for()
    assert looked_at(tab, "home") == []
    tab.page.get_by_role("button", name="Revoke").click()
    tab.page.get_by_text("Revoked.").wait_for()
    assert bob.kubectl("get", "elevationrequests", "-o", "name").stdout == ""


def test_the_keyboard_is_enough(site: Site, bob: Person, tab: Tab) -> None:
    enrolled(bob, tab)
    running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    running.opened_in(tab)
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.id") == "go"
    outline = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "where the focus is, is seen"
    tab.page.keyboard.press("Enter")
    tab.ends_with("Done")
    assert running.end() == 0, running.errors
