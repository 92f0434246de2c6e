"""No ingress, no DNS name: `kubectl elevate` serves the page on localhost, and a passkey is enough."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.browser.desk import Elevating, enrolled
from tests.chromium import SECURITY_KEY, Chromium, Tab
from tests.cluster.sites import Site
from tests.people import Person


def test_enrol_a_passkey_and_delete_with_a_touch(site: Site, bob: Person, tab: Tab) -> None:
    printed = enrolled(bob, tab)
    assert "Recovery codes" in printed
    running = Elevating(bob, "--", "kubectl", "delete", "deploy/web", "-n", site.prod)
    assert running.opened_in(tab) == running.words()
    shown = tab.page.locator("main").inner_text()
    for text in ("delete", "deployments.apps/web", site.prod, bob.name, "127.0.0.1"):
        assert text in shown
    tab.use_passkey()
    tab.ends_with("Done")
    assert running.end() == 0, running.errors
    assert 'deployment.apps "web" deleted' in running.output
    assert tab.problems == []
    assert all(url.startswith(running.link().partition("#")[0][:-1]) or "localhost" in url for url in tab.requested)
    (request,) = json.loads(bob.kubectl("get", "elevationrequests", "-o", "json").stdout)["items"]
    status = request["status"]
    assert (status["factor"], status["acr"], status["amr"]) == ("webauthn", "aal2", ["pop", "mfa", "user"])


def test_a_security_key_does_as_well(site: Site, bob: Person, chromium: Chromium) -> None:
    tab = chromium.tab(SECURITY_KEY)
    enrolled(bob, tab, "key")
    running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    running.opened_in(tab)
    tab.use_passkey()
    assert running.end() == 0, running.errors


def test_who_does_not_give_their_pin_proves_nothing(site: Site, bob: Person, tab: Tab) -> None:
    enrolled(bob, tab)
    running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    running.opened_in(tab)
    tab.verify_user(verified=False)
    tab.use_passkey()
    assert "Nothing was proven" in tab.problem()
    tab.verify_user(verified=True)
    tab.use_passkey()
    assert running.end() == 0, running.errors


def test_a_cloned_counter_suspends_the_authenticator(site: Site, bob: Person, tab: Tab) -> None:
    enrolled(bob, tab)
    (original,) = tab.credentials()
    for _ in range(2):
        running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
        running.opened_in(tab)
        tab.use_passkey()
        assert running.end() == 0, running.errors
    tab.cdp.send(
        "WebAuthn.removeCredential", {"authenticatorId": tab.authenticator, "credentialId": original["credentialId"]}
    )
    tab.put({**original, "signCount": 0})
    running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    running.opened_in(tab)
    tab.use_passkey()
    assert "suspended" in tab.problem()
    running.interrupt()
    (line,) = bob.deployment.audit(lambda one: one["event"] == "authenticator-suspended" and one["user"] == bob.name)
    assert line["code"] == "authenticator-suspended"
    assert "SUSPENDED" in bob.elevate("factors").stdout


def test_this_was_not_me(site: Site, bob: Person, tab: Tab) -> None:
    enrolled(bob, tab)
    running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    running.opened_in(tab)
    tab.page.locator("#decline").click()
    tab.ends_with("Refused")
    assert running.end() == 3
    assert "declined" in running.errors
    assert bob.kubectl("get", "elevationrequests", "-o", "name").stdout == ""


def test_a_link_is_good_for_one_browser(site: Site, bob: Person, tab: Tab, chromium: Chromium) -> None:
    enrolled(bob, tab)
    running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    running.opened_in(tab)
    other = chromium.tab()
    other.page.goto(running.link())
    other.ends_with("Nothing to do here")
    assert "opened already" in other.problem()
    assert bob.name not in other.page.content()
    tab.use_passkey()
    assert running.end() == 0, running.errors


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "OURS", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "OURS", "Content-Type": "text/plain"}, 400),
        ({"Origin": "OURS"}, 410),
    ],
)
def test_another_site_gets_nothing_done(bob: Person, headers: dict[str, str], status: int) -> None:
    running = Elevating(bob.enrol(), "page")
    origin = running.link().partition("/#")[0]
    sent: dict[str, Any] = {"Content-Type": "application/json"} | {
        name: origin if value == "OURS" else value for name, value in headers.items()
    }
    request = urllib.request.Request(f"{origin}/decline", b'{"a": 1}', sent, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    refused.value.close()
    running.interrupt()
    assert refused.value.code == status
