"""`kubectl elevate -- COMMAND`: run it, see the refusal, step up once for all that it named, run it again.

Everything else is as if the command had been run by itself: standard input (replayed for the second run), the terminal, the exit
code, signals. A refusal is only acted on when the command failed, and it is shown what the proof is for before it is given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from webhook.cli import flags
from webhook.cli.child import Child
from webhook.cli.elevation import annotate, can_be_annotated, say, step_up
from webhook.cli.exits import REFUSED, ElevateError
from webhook.cli.kubectl import Kubectl
from webhook.cli.refusals import Refusals
from webhook.cli.replay import Input
from webhook.cli.targets import Wanted, details_of

ROUNDS: Final = 5
STREAMS: Final = frozenset({"exec", "attach", "cp", "port-forward"})
HELM_UNINSTALL: Final = frozenset({"uninstall", "del", "delete", "un"})
HELM_DEBUG: Final = "HELM_DEBUG"


def run(command: Sequence[str], *, reason: str, carrier: str, own_flags: Sequence[str]) -> int:
    """Run a command with step-ups as it needs them; its exit code.

    Raises:
        ElevateError: it was refused and the step-up did not succeed; what it printed has been shown.
    """
    found = flags.of_command(command)
    kubectl = Kubectl([*found.flags, *own_flags])
    environment = _environment(found)
    source = Input()
    done: set[tuple[object, ...]] = set()
    try:
        for rounds_left in range(ROUNDS, -1, -1):
            child = Child(command, source, environment)
            refusals = Refusals(child.write, quiet_helm=environment is not None)
            exit_code = child.run(refusals)
            fresh = [one for one in _credible(refusals.wanted, found) if one.same_target not in done]
            if exit_code == 0 or not fresh or not rounds_left or child.was_interrupted:
                refusals.show()
                return exit_code
            try:
                _elevate(kubectl, fresh, reason, carrier)
            except BaseException:
                refusals.show()
                raise
            # Asked once for the same thing is enough: a change that differs at each try would ask for ever.
            done |= {one.same_target for one in fresh}
            source.rewind()
        raise AssertionError  # the last round has returned
    finally:
        source.close()


def _environment(found: flags.Split) -> Mapping[str, str] | None:
    """Helm says why it could not delete what a release holds only when it debugs; None where nothing is to be changed."""
    verb = _verb(found)
    if found.program != "helm" or verb not in HELM_UNINSTALL:
        return None
    if "--debug" in found.rest or os.environ.get(HELM_DEBUG):
        return None
    return {**os.environ, HELM_DEBUG: "true"}


def _verb(found: flags.Split) -> str:
    return next((word for word in found.rest if not word.startswith("-")), "")


def _credible(wanted: list[Wanted], found: flags.Split) -> list[Wanted]:
    """Refusals that this command can have met.

    What runs in a container writes to our error output, too: a stream into a pod is refused as `exec`, and nothing that it
    prints may ask for anything else.
    """
    if found.program in {"kubectl", "oc"} and _verb(found) in STREAMS:
        return [one for one in wanted if one.operations == ("exec",)]
    return wanted


def _elevate(kubectl: Kubectl, wanted: list[Wanted], reason: str, carrier: str) -> None:
    for one in wanted:
        say(f"{one.described()} needs a step-up")
    details: list[dict[str, Any]] = []
    for one in wanted:
        details += details_of(one, kubectl, must_exist=False)
    given = reason or next((one.reason for one in wanted if one.reason), "")
    result = step_up(kubectl, details, given)
    if not result.assertion:
        raise ElevateError(
            "the cluster that was asked wants no step-up for that; if the command talks to another one, give"
            " `kubectl elevate` the same --context or --kubeconfig",
            REFUSED,
        )
    if can_be_annotated(details, carrier):
        annotate(kubectl, details, result.assertion)
