"""Commands that people run against a control plane, each with a client certificate of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.controlplane.kubeconfig import Kubeconfigs
from tests.controlplane.pki import KeyPair
from tests.controlplane.process import ControlPlaneError
from tests.controlplane.programs import Programs

ADMIN = "admin"
ADMIN_GROUPS = ("system:masters",)
DEVELOPERS = ("devs",)  # may do everything, so that whatever is refused was not refused by RBAC
COMMAND_SECONDS = 60.0
HELM_SECONDS = 300.0  # the first use may build it


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    command: str
    returncode: int
    stdout: str
    stderr: str

    def checked(self) -> Self:
        """Itself, if it succeeded. Raises ControlPlaneError otherwise."""
        if self.returncode != 0:
            raise ControlPlaneError(f"`{self.command}` ended with {self.returncode}\n{self.stdout}{self.stderr}")
        return self


class Shell:
    """Runs kubectl, helm or anything else as somebody. Users are in DEVELOPERS unless their groups are given."""

    def __init__(self, programs: Programs, folder: Path, kubeconfigs: Kubeconfigs) -> None:
        self.programs = programs
        self.kubeconfigs = kubeconfigs
        self._home = folder / "home"
        self._home.mkdir(exist_ok=True)

    def kubeconfig(self, user: str = "alice", groups: Sequence[str] | None = None) -> Path:
        """A kubeconfig with a client certificate; the same one whenever user and groups are the same."""
        return self.kubeconfigs.path(user, _groups(user, groups))

    def another_kubeconfig(self, user: str = "alice", groups: Sequence[str] | None = None) -> Path:
        """A new certificate for the same user, and so another credential-id."""
        return self.kubeconfigs.another(user, _groups(user, groups))

    def client_certificate(self, user: str = "alice", groups: Sequence[str] | None = None) -> KeyPair:
        """The files in the user's kubeconfig, for clients other than kubectl."""
        return self.kubeconfigs.certificate(user, _groups(user, groups))

    @property
    def admin_kubeconfig(self) -> Path:
        """For a member of system:masters, whom RBAC never refuses."""
        return self.kubeconfig(ADMIN)

    def environment(
        self, user: str = "alice", groups: Sequence[str] | None = None, *, with_helm: bool = False
    ) -> dict[str, str]:
        """All that a user's commands need: nothing of the caller's cluster, proxies or home is in it."""
        programs = [*self.programs.control_plane().values(), *([self.programs.path("helm")] if with_helm else [])]
        folders = dict.fromkeys(str(path.parent) for path in programs)
        return {
            "PATH": os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]),
            "HOME": str(self._home),
            "KUBECONFIG": str(self.kubeconfig(user, groups)),
            "LANG": "C.UTF-8",
        }

    def run(
        self,
        command: Sequence[str],
        *,
        user: str = "alice",
        groups: Sequence[str] | None = None,
        stdin: str | None = None,
        check: bool = False,
        timeout_seconds: float = COMMAND_SECONDS,
        extra_environment: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run a command in somebody's `environment`.

        Raises ControlPlaneError when it takes longer than `timeout_seconds`, or when it fails and `check` is set.
        """
        shown = " ".join([Path(command[0]).name, *command[1:]])
        try:
            result = subprocess.run(
                command,
                env=self.environment(user, groups) | dict(extra_environment or {}),
                input=stdin or "",
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            output = (error.stdout or b"") + (error.stderr or b"")
            raise ControlPlaneError(f"`{shown}` did not end within {timeout_seconds} s\n{output!r}") from error
        finished = Finished(shown, result.returncode, result.stdout, result.stderr)
        return finished.checked() if check else finished

    def kubectl(
        self,
        *arguments: str,
        user: str = "alice",
        groups: Sequence[str] | None = None,
        stdin: str | None = None,
        check: bool = False,
        timeout_seconds: float = COMMAND_SECONDS,
    ) -> Finished:
        """Run the real kubectl as somebody; see `run`."""
        command = [str(self.programs.path("kubectl")), *arguments]
        return self.run(command, user=user, groups=groups, stdin=stdin, check=check, timeout_seconds=timeout_seconds)

    def helm(
        self, *arguments: str, user: str = "alice", groups: Sequence[str] | None = None, check: bool = False
    ) -> Finished:
        """Run the real helm as somebody; see `run`."""
        command = [str(self.programs.path("helm")), *arguments]
        return self.run(command, user=user, groups=groups, check=check, timeout_seconds=HELM_SECONDS)

    def apply(self, manifests: str, *, user: str = ADMIN) -> Finished:
        """`kubectl apply --server-side` of YAML. Raises ControlPlaneError when it is refused."""
        return self.kubectl("apply", "--server-side", "-f", "-", user=user, stdin=manifests, check=True)


def _groups(user: str, groups: Sequence[str] | None) -> tuple[str, ...]:
    if groups is not None:
        return tuple(groups)
    return ADMIN_GROUPS if user == ADMIN else DEVELOPERS
