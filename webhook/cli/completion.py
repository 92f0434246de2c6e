"""Shell completion: of `kubectl-elevate` by typer's scripts, of `kubectl elevate` by kubectl's own, with targets from the cluster."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Final

from webhook.cli import flags
from webhook.cli.kubectl import Kubectl

SHELLS: Final = ("bash", "zsh", "fish", "powershell")
PROGRAM: Final = "kubectl-elevate"
VARIABLE: Final = "_KUBECTL_ELEVATE_COMPLETE"
NO_FILES: Final = ":4"  # cobra's ShellCompDirectiveNoFileComp
RECIPE: Final = """\
# This completes `kubectl-elevate`. `kubectl elevate <TAB>` is completed by kubectl's own completion (1.26 and later), which
# asks the program `kubectl_complete-elevate` that is installed beside this one.
"""


def script(shell: str) -> str:
    """A completion script for `kubectl-elevate`, and how kubectl's own completion gets to know the same."""
    from typer._completion_shared import get_completion_script

    return RECIPE + get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell)


def prepare(arguments: Sequence[str]) -> flags.Split:
    """Set up what typer reads (bash's variables), without kubectl's global flags, which it does not know.

    Args:
        arguments: ``__complete`` and the words so far, the last one incomplete; empty where a shell has set the variables.
    """
    from typer._completion_classes import completion_init

    completion_init()
    if arguments[:1] == ["__complete"]:
        *words, incomplete = arguments[1:] or [""]
        os.environ[VARIABLE] = "complete_bash"
    elif os.environ[VARIABLE] == "complete_bash":
        typed = os.environ["COMP_WORDS"].split()
        at = int(os.environ["COMP_CWORD"])
        words, incomplete = typed[1:at], typed[at] if at < len(typed) else ""
    else:
        return flags.Split((), "", ())
    found = flags.split(words)
    typed = [PROGRAM, *found.rest, incomplete]
    os.environ["COMP_WORDS"] = shlex.join(typed)
    os.environ["COMP_CWORD"] = str(len(typed) - 1)
    return found


def targets(kubectl: Kubectl, namespace: str, before: Sequence[str], incomplete: str) -> list[str]:
    """What `kubectl get` would complete: kinds, or names of the person's objects."""
    where = ["-n", namespace] if namespace else []
    result = kubectl.run("__complete", "get", *where, *before, incomplete)
    lines = [line.partition("\t")[0] for line in result.stdout.splitlines()]
    return [line for line in lines if line and not line.startswith((":", "-"))]
