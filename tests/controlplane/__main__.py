"""`python -m tests.controlplane`: get the programs, or leave a control plane running."""

from __future__ import annotations

import argparse
import sys

from tests.controlplane import left_running
from tests.controlplane.process import ControlPlaneError
from tests.controlplane.programs import Programs, ProgramsError


def programs() -> int:
    """Make the programs available and print the folders they are in."""
    for folder in dict.fromkeys(path.parent for path in Programs().control_plane().values()):
        print(folder)
    return 0


def helm() -> int:
    """Make helm available and print its path."""
    print(Programs().path("helm"))
    return 0


COMMANDS = {
    "programs": (programs, "find, download or build etcd, kube-apiserver, kubectl and the rest; print their folders"),
    "helm": (helm, "find or build helm; print its path"),
    "up": (left_running.up, "start a control plane and leave it running"),
    "down": (left_running.down, "stop it"),
    "status": (left_running.status, "say whether it runs"),
    "keep": (left_running.keep, "hold a control plane until SIGTERM (what `up` starts)"),
}


def main() -> int:
    """Run one command; errors are one message and status 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.controlplane", description=__doc__)
    choices = parser.add_subparsers(dest="command", required=True)
    for name, (_, description) in COMMANDS.items():
        choices.add_parser(name, help=description)
    command, _ = COMMANDS[parser.parse_args().command]
    try:
        return command()
    except (ControlPlaneError, ProgramsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
