"""The README's example is what the real programs print, under the README's own policy."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from tests.cluster.sites import Site, workload
from tests.controlplane.cluster import ADMIN
from tests.people import Person

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
PROMPT = "Code: ••••••\n"


def example() -> list[tuple[str, str]]:
    """(command, what is printed) of the first console block that has a session in it."""
    blocks = re.findall(r"^```console\n(\$ kubectl delete.*?)^```", README, re.DOTALL | re.MULTILINE)
    sessions = re.findall(r"^\$ ([^\n]+)\n((?:(?!\$ )[^\n]*\n)*)", blocks[0], re.MULTILINE)
    return [(command.partition("#")[0].strip(), output) for command, output in sessions]


def pattern(shown: str) -> str:
    """As a pattern: `…` stands for anything, and long lines are broken."""
    words = [".*".join(map(re.escape, word.split("…"))) for word in shown.split()]
    return r"\s+".join(words)


def test_the_example_is_what_happens(site: Site, alice: Person) -> None:
    """In namespaces of its own: another policy guards those of the other tests."""
    cluster = site.deployment.cluster
    text = re.search(r"^```yaml\n(apiVersion: kube-stepup.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert text is not None
    policy = yaml.safe_load(text[1])
    policy["metadata"]["name"] = "readme"
    selector = {"matchLabels": {"env": "readme"}}
    policy["spec"]["match"] = {"namespaceSelector": selector, "exempt": {"users": ["admin", "robot"]}}
    names = {"prod": site.prod.replace("prod", "readme"), "staging": site.staging}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": names["prod"], "labels": {"env": "readme"}},
    }
    cluster.apply(yaml.safe_dump(namespace) + "---\n" + workload(names["prod"]), user="robot")
    site.deployment.apply_policy(policy)
    try:
        for command, shown in example():
            arguments = [names.get(word, word) for word in shlex.split(command)][1:]
            run = alice.elevate(*arguments[1:]) if arguments[0] == "elevate" else alice.kubectl(*arguments)
            printed = run.stderr + run.stdout
            for short, name in names.items():
                printed = printed.replace(name, short)
            printed = printed.replace("policy readme", "policy production")
            # A program gives the code here; at a terminal its bullets are shown.
            assert re.fullmatch(pattern(shown.replace(PROMPT, "")), printed.strip(), re.DOTALL), f"{command}\n{printed}"
    finally:
        for kind, name in (("stepuppolicies.kube-stepup.io", "readme"), ("namespace", names["prod"])):
            cluster.kubectl("delete", kind, name, "--wait=false", "--ignore-not-found", user=ADMIN)
