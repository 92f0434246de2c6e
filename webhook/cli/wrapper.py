"""`kubectl elevate -- COMMAND`: run it, see the refusal, step up once for all that it named, run it again.

Everything else is as if the command had been run by itself: standard input (replayed for the second run), the terminal, the exit
code, signals. A refusal is only acted on when the command failed and can have met it (``about``), and what the proof is for is
shown as the elevation service says it, before it is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from webhook.cli import flags
from webhook.cli.about import About, Claim, Cluster, about, objection
from webhook.cli.child import Child
from webhook.cli.elevation import SteppedUp, annotate, can_be_annotated, say, step_up
from webhook.cli.exits import REFUSED, ElevateError
from webhook.cli.kinds import resource_of
from webhook.cli.kubectl import Kubectl
from webhook.cli.refusals import Refusals
from webhook.cli.replay import Input
from webhook.cli.targets import Wanted, details_of, own_namespace

Prove = Callable[[Kubectl, list[dict[str, Any]], str], SteppedUp]
"""Steps up: with this kubectl, for these details, for this reason."""
ROUNDS: Final = 5
HELM_UNINSTALL: Final = frozenset({"uninstall", "del", "delete", "un"})
HELM_DEBUG: Final = "HELM_DEBUG"
HELM_RECORD: Final = (
    "helm's own record is guarded here, and helm names one refusal at a time and then cannot mend its record: nothing was asked."
    " Step up for everything first: `helm template …` with the same values into a file, then `kubectl elevate guard -f FILE"
    " secret/RECORD -n NAMESPACE`, then helm (docs/operations.md, Upgrade)"
)
MADE_UP: Final = "pods/node-debugger-"
NOT_REPLAYED: Final = (
    "its standard input was too long to be kept, so it is not run again: run it once more yourself, it passes now"
)


def run(
    command: Sequence[str],
    *,
    reason: str,
    carrier: str,
    factor: str = "",
    own_flags: Sequence[str],
    prove: Prove | None = None,
) -> int:
    """Run a command with step-ups as it needs them; its exit code.

    Args:
        prove: steps up; as a person does, by default.

    Raises:
        ElevateError: it was refused and the step-up did not succeed; what it printed has been shown.
    """
    found = flags.of_command(command)
    kubectl = Kubectl([*found.flags, *own_flags])
    command_line = about(found)
    judge = _Judge(command_line, _cluster(Kubectl(found.flags)))
    environment = _environment(found)
    source = Input()
    done: set[tuple[object, ...]] = set()
    try:
        for rounds_left in range(ROUNDS, -1, -1):
            child = Child(command, source, environment)
            refusals = Refusals(child.write, quiet_helm=environment is not None, only_last=command_line.relays)
            exit_code = child.run(refusals)
            if exit_code == 0 or not rounds_left or child.was_interrupted:
                refusals.show()
                return exit_code
            believed, doubts = judge.sort(refusals)
            fresh = [one for one in map(_as_it_will_be, believed) if one.same_target not in done]
            if not fresh:
                refusals.show()
            for doubt in doubts:
                say(doubt)
            if not fresh:
                return exit_code
            if command_line.program == "helm" and any(map(_is_helms_record, fresh)):
                refusals.show()
                say(HELM_RECORD)
                return exit_code
            try:
                _elevate(kubectl, fresh, reason, carrier, prove or _by_factor(factor))
            except BaseException:
                refusals.show()
                raise
            # Asked once for the same thing is enough: a change that differs at each try would ask for ever.
            done |= {one.same_target for one in fresh}
            if not source.can_be_replayed:
                say(NOT_REPLAYED)
                return exit_code
            source.rewind()
        raise AssertionError  # the last round has returned
    finally:
        source.close()


def _environment(found: flags.Split) -> Mapping[str, str] | None:
    """Helm says why it could not delete what a release holds only when it debugs; None where nothing is to be changed."""
    if found.program != "helm" or about(found).verb not in HELM_UNINSTALL:
        return None
    if "--debug" in found.rest or os.environ.get(HELM_DEBUG):
        return None
    return {**os.environ, HELM_DEBUG: "true"}


class _Judge:
    """Which refusals a command can have met."""

    def __init__(self, command: About, cluster: Cluster) -> None:
        self._command = command
        self._cluster = cluster

    def sort(self, refusals: Refusals) -> tuple[list[Wanted], list[str]]:
        """Those that it can have met, and what is to be said of the others."""
        heard = refusals.wanted
        if self._command.relays:
            heard = refusals.last_exact if self._command.is_exact else refusals.final
        believed, doubts = [], []
        for one in refusals.wanted:
            why = self._objection(one) if one in heard else "these were not the last words of the command itself"
            if why:
                doubts.append(f"its output names a step-up to {one.described()}, which is not acted on: {why}")
            else:
                believed.append(one)
        return believed, doubts

    def _objection(self, one: Wanted) -> str:
        return next(filter(None, (objection(claim, self._command, self._cluster) for claim in _claims(one))), "")


def _is_helms_record(one: Wanted) -> bool:
    return "guard" in one.operations and any(target.startswith("secrets/sh.helm.release.") for target in one.targets)


def _as_it_will_be(one: Wanted) -> Wanted:
    """What to ask for: `kubectl debug node/…` makes up another name for its pod at each try, so a proof for one is good for none."""
    if all(target.startswith(MADE_UP) for target in one.targets):
        return replace(one, scope="resource", targets=("pods",), changes=())
    return one


def _claims(one: Wanted) -> list[Claim]:
    pairs = [target.partition("/") for target in one.targets]
    return [Claim(frozenset(one.operations), kind, name, one.namespace) for kind, _, name in pairs]


def _cluster(kubectl: Kubectl) -> Cluster:
    def resource(kind: str) -> tuple[str, str]:
        group, plural, _ = resource_of(kind, kubectl)
        return group, plural

    return Cluster(cache(lambda: own_namespace(kubectl)), cache(resource))


def _by_factor(factor: str) -> Prove:
    return lambda kubectl, details, reason: step_up(kubectl, details, reason, factor)


def _elevate(kubectl: Kubectl, wanted: list[Wanted], reason: str, carrier: str, prove: Prove) -> None:
    details: list[dict[str, Any]] = []
    for one in wanted:
        details += details_of(one, kubectl, must_exist=False)
    given = reason or next((one.reason for one in wanted if one.reason), "")
    result = prove(kubectl, details, given)
    if not result.name:
        raise ElevateError(
            f"{result.why_not}; if the command talks to another cluster than this, give `kubectl elevate` the same --context or"
            " --kubeconfig",
            REFUSED,
        )
    if result.assertion and can_be_annotated(details, carrier):
        annotate(kubectl, details, result.assertion)
