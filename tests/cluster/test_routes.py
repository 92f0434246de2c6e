"""Every road of `tests/routes.py`: refused without proof, the effect not happened; passed with proof; staging left alone."""

from __future__ import annotations

import time

import pytest

from tests import routes
from tests.cluster.sites import Site
from tests.people import Person
from tests.routes import ROUTES, Route

EFFECT_SECONDS = 15.0
REFUSED = "needs a step-up"


def prepared(route: Route, site: Site, namespace: str) -> list[str]:
    """The command, once everything that it needs is there."""
    robot = Person(site.deployment, "robot")
    pod = site.pod(namespace)
    if route.before is not None:
        robot.kubectl("apply", "-f", "-", stdin=route.before(site, namespace), check=True)
    for command in route.prepare:
        robot.kubectl(*filled(command, namespace, pod), check=True)
    return filled(route.command, namespace, pod)


def filled(command: list[str], namespace: str, pod: str) -> list[str]:
    return [word.format(ns=namespace, pod=pod) for word in command]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_refused_without_proof_and_passed_with_it(route: Route, site: Site, alice: Person) -> None:
    command = prepared(route, site, site.prod)
    stdin = route.stdin(site, site.prod) if route.stdin else None
    before = route.probe(site, site.prod) if route.probe else ""
    refused = alice.kubectl(*command, stdin=stdin)
    assert refused.returncode != 0, f"it was not refused: {refused.stdout}"
    assert f"kube-stepup: {route.refusal} " in refused.stderr, refused.stderr
    assert REFUSED in refused.stderr
    if route.probe:
        assert route.probe(site, site.prod) == before, "the effect happened although it was refused"
    if not route.passes:
        return
    passed = alice.elevate("--reason", "OPS-7", "--", "kubectl", *command, stdin=stdin)
    assert passed.returncode == 0, passed.stderr
    deadline = time.monotonic() + EFFECT_SECONDS
    while route.probe and route.probe(site, site.prod) == before:
        assert time.monotonic() < deadline, "the effect did not happen although it was allowed"
        time.sleep(0.1)


@pytest.mark.parametrize(
    "route", [one for one in ROUTES if one.passes and not one.shared], ids=lambda route: route.name
)
def test_staging_is_left_alone(route: Route, site: Site) -> None:
    command = prepared(route, site, site.staging)
    stdin = route.stdin(site, site.staging) if route.stdin else None
    passed = Person(site.deployment).kubectl(*command, stdin=stdin)
    assert passed.returncode == 0, passed.stderr


def test_the_document_is_in_step_with_the_table() -> None:
    assert routes.DOCUMENT.read_text(encoding="utf-8") == routes.document(), "run: python -m tests.routes"


def test_there_are_at_least_seventy_roads_and_each_is_named_once() -> None:
    names = [route.name for route in ROUTES]
    assert len(names) >= 70
    assert len(set(names)) == len(names)
