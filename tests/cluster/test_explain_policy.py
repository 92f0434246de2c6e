"""`stepup policy explain` against a real cluster says beforehand what admission says when it is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.sites import Site
from tests.people import PYTHON, Person


def explained(person: Person, *words: str) -> dict[str, Any]:
    command = [PYTHON, "-m", "webhook.cli.stepup", "policy", "explain", "-o", "json", *words]
    return dict(json.loads(person.run(command, check=True).stdout))


def verdict(found: dict[str, Any]) -> str:
    """What the policy that every site stands under says."""
    (one,) = [policy for policy in found["actions"][0]["policies"] if policy["policy"] == "production"]
    return str(one["verdict"])


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "deploy/web"),
        ("scale", "deploy/web", "--replicas=0"),
        ("set", "image", "deploy/web", "c=nginx:8"),
        ("rollout", "restart", "deploy/web"),
        ("label", "deploy/web", "a=b"),
        ("delete", "serviceaccount/default"),
    ],
    ids=" ".join,
)
def test_it_says_what_admission_says(words: tuple[str, ...], site: Site) -> None:
    somebody = Person(site.deployment)
    for namespace in (site.prod, site.staging):
        found = explained(somebody, *words, "-n", namespace)
        assert found["user"]["username"] == somebody.name
        assert found["complete"] is True
        asked = found["requirement"] is not None
        refused = somebody.kubectl(*words, "-n", namespace)
        assert ("needs a step-up" in refused.stderr) == asked == (refused.returncode != 0), refused.stderr
        lines = site.deployment.audit(lambda line: line.get("user") == somebody.name and line["event"] == "decision")
        assert not asked or lines[-1]["requirement"] == found["requirement"]


def test_of_somebody_who_is_exempt_and_of_somebody_in_their_name(site: Site) -> None:
    somebody = Person(site.deployment)
    words = ("delete", "deploy/web", "-n", site.prod)
    exempt = explained(somebody, "--service-account", "argocd/controller", *words)
    assert verdict(exempt) == "exempt"
    worn = explained(somebody, "--as", "robot", "--impersonated", *words)
    assert verdict(worn) == "applies"


def test_lint_looks_at_the_namespaces_of_the_cluster(site: Site) -> None:
    policy = json.dumps(
        {
            "apiVersion": "kube-stepup.io/v1alpha1",
            "kind": "StepUpPolicy",
            "metadata": {"name": "a"},
            "spec": {
                "match": {"namespaces": [site.prod, "gone-*"]},
                "rules": [{"name": "a", "operations": ["delete"]}],
            },
        }
    )
    command = [PYTHON, "-m", "webhook.cli.stepup", "policy", "lint", "--cluster", "-o", "json", "-"]
    told = Person(site.deployment).run(command, stdin=policy, check=True)
    (line,) = map(json.loads, told.stdout.splitlines())
    assert (line["code"], line["field"]) == ("no-such-namespace", "spec.match.namespaces[1]")
