"""kubectl's global flags: taken out of any command line, so that an elevation uses the same cluster and credential.

helm's flags of the same meaning are translated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final, NamedTuple

WITH_VALUE: Final = frozenset(
    {
        "--as", "--as-group", "--as-uid", "--as-user-extra", "--cache-dir", "--certificate-authority", "--client-certificate",
        "--client-key", "--cluster", "--context", "--kubeconfig", "--kuberc", "--namespace", "-n", "--password",
        "--request-timeout", "--server", "-s", "--tls-server-name", "--token", "--user", "--username",
    }
)  # fmt: skip
SWITCHES: Final = frozenset({"--insecure-skip-tls-verify", "--disable-compression", "--match-server-version"})
# Taken, and not passed on: what kubectl tells from level 8 on has codes and assertions in it, and a profile is of one call.
DROPPED: Final = frozenset({"-v", "--v", "--vmodule", "--log-flush-frequency", "--profile", "--profile-output"})
DROPPED_SWITCHES: Final = frozenset({"--warnings-as-errors"})
HELM: Final = {
    "--kube-apiserver": "--server",
    "--kube-as-group": "--as-group",
    "--kube-as-user": "--as",
    "--kube-ca-file": "--certificate-authority",
    "--kube-context": "--context",
    "--kube-tls-server-name": "--tls-server-name",
    "--kube-token": "--token",
    "--kubeconfig": "--kubeconfig",
    "--namespace": "--namespace",
    "-n": "--namespace",
}
# helm's environment names a cluster, too. HELM_KUBETOKEN is left out: it would have to go onto a command line.
HELM_ENVIRONMENT: Final = {
    "HELM_KUBEAPISERVER": "--server",
    "HELM_KUBEASGROUPS": "--as-group",
    "HELM_KUBEASUSER": "--as",
    "HELM_KUBECAFILE": "--certificate-authority",
    "HELM_KUBECONTEXT": "--context",
    "HELM_KUBETLS_SERVER_NAME": "--tls-server-name",
}
PROGRAMS: Final = frozenset({"kubectl", "oc", "helm"})


class Split(NamedTuple):
    """A command line taken apart: kubectl's global flags, its namespace (empty when none is given), and the rest.

    ``program`` is kubectl, oc or helm; empty for any other.
    """

    flags: tuple[str, ...]
    namespace: str
    rest: tuple[str, ...]
    program: str = ""


def split(arguments: Sequence[str]) -> Split:
    """Take kubectl's global flags out of arguments; nothing behind ``--`` is touched."""
    flags: list[str] = []
    rest: list[str] = []
    namespace = ""
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":
            return Split(tuple(flags), namespace, (*rest, word, *words))
        name, equals, value = word.partition("=")
        if word[:2] in {"-n", "-s", "-v"} and len(word) > 2 and not equals:
            name, equals, value = word[:2], "=", word[2:]
        if name in DROPPED_SWITCHES or (name in DROPPED and (equals or words)):
            if name in DROPPED and not equals:
                words.pop(0)
        elif name in WITH_VALUE and (equals or words):
            value = value if equals else words.pop(0)
            if name in {"-n", "--namespace"}:
                namespace = value
            else:
                flags.append(f"{'--server' if name == '-s' else name}={value}")
        elif name in SWITCHES:
            flags.append(word)
        else:
            rest.append(word)
    return Split(tuple(flags), namespace, tuple(rest))


def of_command(command: Sequence[str]) -> Split:
    """The flags of a wrapped command: kubectl's, helm's, or none for any other program.

    The program may stand behind others (`timeout 60 kubectl …`, `sudo -E kubectl …`).
    """
    for position, word in enumerate(command):
        if word == "--":
            break
        program = PurePath(word).name.removesuffix(".exe")
        if program in PROGRAMS:
            rest = command[position + 1 :]
            found = _of_helm(rest) if program == "helm" else split(rest)
            return found._replace(program=program)
    return Split((), "", tuple(command[1:]))


def _of_helm(arguments: Sequence[str]) -> Split:
    """Helm's own flags in kubectl's words; it has others of kubectl's names (`--username`) that mean something else."""
    flags: list[str] = []
    rest: list[str] = []
    namespace = ""
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--kube-insecure-skip-tls-verify":
            flags.append("--insecure-skip-tls-verify")
            continue
        name, equals, value = word.partition("=")
        if word[:2] == "-n" and len(word) > 2 and not equals:
            name, equals, value = "-n", "=", word[2:]
        if name not in HELM or not (equals or words):
            rest.append(word)
            continue
        value = value if equals else words.pop(0)
        if HELM[name] == "--namespace":
            namespace = value
        else:
            flags.append(f"{HELM[name]}={value}")
    return Split(tuple(_from_environment(flags)), namespace, tuple(rest))


def _from_environment(flags: Sequence[str]) -> list[str]:
    """What helm's environment adds to its flags; a flag wins over its variable."""
    given = {flag.partition("=")[0] for flag in flags}
    found = list(flags)
    for variable, flag in HELM_ENVIRONMENT.items():
        value = os.environ.get(variable, "")
        if value and flag not in given:
            found += [f"{flag}={one}" for one in (value.split(",") if flag == "--as-group" else [value])]
    return found
