"""kubectl's global flags: taken out of any command line, so that an elevation uses the same cluster and credential.

helm's flags of the same meaning are translated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Final, NamedTuple

WITH_VALUE: Final = frozenset(
    {
        "--as", "--as-group", "--as-uid", "--as-user-extra", "--cache-dir", "--certificate-authority", "--client-certificate",
        "--client-key", "--cluster", "--context", "--kubeconfig", "--namespace", "-n", "--password", "--request-timeout",
        "--server", "-s", "--tls-server-name", "--token", "--user", "--username",
    }
)  # fmt: skip
SWITCHES: Final = frozenset({"--insecure-skip-tls-verify", "--disable-compression"})
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


class Split(NamedTuple):
    """A command line taken apart: kubectl's global flags, its namespace (empty when none is given), and the rest."""

    flags: tuple[str, ...]
    namespace: str
    rest: tuple[str, ...]


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
        if word.startswith("-n") and len(word) > 2 and not word.startswith("--") and not equals:
            name, equals, value = "-n", "=", word[2:]
        if name in WITH_VALUE and (equals or words):
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
    """The flags of a wrapped command: kubectl's, helm's, or none for any other program."""
    program = PurePath(command[0]).name.removesuffix(".exe")
    if program == "helm":
        return split(_translated(command[1:]))
    return split(command[1:]) if program in {"kubectl", "oc"} else Split((), "", tuple(command[1:]))


def _translated(arguments: Sequence[str]) -> list[str]:
    found = []
    for word in arguments:
        name, equals, value = word.partition("=")
        found.append(f"{HELM[name]}{equals}{value}" if name in HELM else word)
    return found
