"""An https origin of its own: phishing-resistant, by a link that grants nothing to anybody but the terminal that asked."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.browser.desk import Elevating, enrolled
from tests.builders import policy
from tests.chromium import Chromium, Tab
from tests.cluster.sites import Site
from tests.controlplane.cluster import ADMIN
from tests.people import Person

NOBODY = f"v1.kek-1.{'A' * 60}"


@pytest.fixture
def strict(site: Site, with_origin: str) -> Iterator[Site]:
    """The namespace's own policy asks for phishing resistance."""
    name = f"strict-{site.prod}"
    obj = policy(name, match={"namespaces": [site.prod]}, require={"phishingResistant": True})
    site.deployment.apply_policy(obj)
    yield site
    site.deployment.cluster.kubectl("delete", "stepuppolicy", name, user="robot")
    site.deployment.cluster.kubectl("delete", "stepuppolicy", name, "--ignore-not-found", user=ADMIN)


def test_phishing_resistant_by_the_link_that_the_terminal_opens(strict: Site, bob: Person, tab: Tab) -> None:
    enrolled(bob, tab)
    running = Elevating(bob, "--", "kubectl", "delete", "deploy/web", "-n", strict.prod)
    assert running.opened_in(tab) == running.words()
    tab.use_passkey()
    tab.ends_with("Done")
    assert running.end() == 0, running.errors
    assert 'deployment.apps "web" deleted' in running.output
    assert tab.problems == []


def test_a_code_is_not_enough_there_and_says_what_is(strict: Site, bob: Person) -> None:
    refused = bob.enrol().elevate("delete", "deploy/web", "-n", strict.prod)
    assert refused.returncode == 3
    assert "a passkey on the page of this cluster" in refused.stderr
    direct = bob.kubectl("delete", "deploy/web", "-n", strict.prod)
    assert "phishing-resistant" in direct.stderr


def test_a_link_that_a_thief_sends_gives_the_thief_nothing(site: Site, with_origin: str, bob: Person, tab: Tab) -> None:
    """A stolen credential of bob's asks, and bob is sent the link: he sees other words, and what is asked for."""
    enrolled(bob, tab)
    mine = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    mine.link()
    spec = {"details": [{"operation": "exec", "resource": "pods", "namespace": site.prod, "objects": [{"name": "p"}]}]}
    _, request = bob.create("elevationrequests", spec)
    _, page = bob.create("pages", {"elevation": request["metadata"]["name"]}, "Page")
    tab.page.goto(page["status"]["url"])
    tab.page.locator(".pair").wait_for()
    assert tab.page.locator(".pair").inner_text() != mine.words()
    assert "exec" in tab.page.locator(".what").inner_text()
    tab.page.locator("#decline").click()
    tab.ends_with("Refused")
    answer, _ = bob.create(
        f"elevationrequests/{request['metadata']['name']}/answer",
        {"factor": "webauthn", "page": page["metadata"]["name"]},
        "ChallengeAnswer",
    )
    assert answer.returncode != 0
    mine.interrupt()


def test_what_was_proven_on_the_page_is_claimed_by_the_terminal_alone(
    site: Site, with_origin: str, bob: Person, tab: Tab
) -> None:
    enrolled(bob, tab)
    spec = {"details": [{"operation": "exec", "resource": "pods", "namespace": site.prod, "objects": [{"name": "p"}]}]}
    _, request = bob.create("elevationrequests", spec)
    name = request["metadata"]["name"]
    _, page = bob.create("pages", {"elevation": name}, "Page")
    tab.page.goto(page["status"]["url"])
    tab.use_passkey()
    tab.ends_with("Done")
    stored = json.loads(site.deployment.cluster.kubectl("get", "elevation", name, "-o", "json", user=ADMIN).stdout)
    assert "assertion" not in (stored.get("status") or {})
    answer, result = bob.create(
        f"elevationrequests/{name}/answer", {"factor": "webauthn", "page": page["metadata"]["name"]}, "ChallengeAnswer"
    )
    answer.checked()
    assert result["status"]["accepted"]
    again, _ = bob.create(
        f"elevationrequests/{name}/answer", {"factor": "webauthn", "page": page["metadata"]["name"]}, "ChallengeAnswer"
    )
    assert again.returncode != 0


def test_a_link_is_good_once_and_its_page_for_one_browser(
    site: Site, with_origin: str, bob: Person, tab: Tab, chromium: Chromium
) -> None:
    enrolled(bob, tab)
    running = Elevating(bob, "delete", "deploy/web", "-n", site.prod)
    running.opened_in(tab)
    assert "#" not in tab.page.url
    for link in (running.link(), tab.page.url):
        other = chromium.tab(ignore_https_errors=True)
        other.page.goto(link)
        other.ends_with("Nothing to do here")
        assert bob.name not in other.page.content()
        other.context.close()
    tab.page.reload()
    tab.use_passkey()
    assert running.end() == 0, running.errors


def test_a_passkey_of_localhost_is_of_no_use_there(strict: Site, with_origin: str, bob: Person, tab: Tab) -> None:
    bob.deployment.restart_elevation()
    enrolled(bob, tab)
    bob.deployment.restart_elevation(page={"origin": with_origin, "port": int(with_origin.rpartition(":")[2])})
    refused = bob.elevate("delete", "deploy/web", "-n", strict.prod)
    assert refused.returncode == 3
    assert "a passkey on the page of this cluster" in refused.stderr


def test_no_other_site_may_frame_or_read_the_page(with_origin: str) -> None:
    context = ssl._create_unverified_context()  # noqa: S323 - a certificate for another name
    url = with_origin.replace("stepup.test", "127.0.0.1")
    host = with_origin.removeprefix("https://")
    request = urllib.request.Request(f"{url}/p/{NOBODY}/{'0' * 20}/", headers={"Host": host})
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        headers = answer.headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Strict-Transport-Security"]
    for changes in ({"Host": "evil.example"}, {"Host": host, "Origin": "https://evil.example"}):
        request = urllib.request.Request(
            f"{url}/p/{NOBODY}/{'0' * 20}/open",
            b'{"secret": "x"}',
            {"Content-Type": "application/json", **changes},
            method="POST",
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, context=context, timeout=10)
        refused.value.close()
        assert refused.value.code in {403, 404}
