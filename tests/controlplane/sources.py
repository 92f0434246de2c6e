"""Where a program can come from when it is not on this machine yet: Kubernetes' release downloads, or its Go modules."""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import shutil
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.controlplane.process import Watchdog
from tests.controlplane.progress import progress
from tests.controlplane.watchdog import signal_group

RELEASES = "https://dl.k8s.io"  # Kubernetes' own release host: a program beside its .sha256
CONNECT_SECONDS = 3.0  # offline must fall through to the build quickly
READ_SECONDS = 30.0  # silence on an open connection
CHUNK_BYTES = 1 << 20
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
BUILD_TOOL = "go"


class ProgramsError(Exception):
    """A program can be had from nowhere; the message says what to do about it."""


class UnreachableError(Exception):
    """A download could not even start, which is no fault: the next source is tried."""


class Stream(Protocol):
    """An open download."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""

    def close(self) -> None:
        """Give the connection back."""


class Fetch(Protocol):
    """The port through which downloads come."""

    def __call__(self, url: str) -> Stream:
        """Open `url`. Raises UnreachableError when that takes longer than CONNECT_SECONDS or is refused."""


class Run(Protocol):
    """The port through which the compiler is started."""

    def __call__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Run to the end. Raises ProgramsError when it fails."""


@dataclass(frozen=True)
class Group:
    """Programs that are built together, from one go.mod."""

    name: str
    programs: tuple[str, ...]
    module: str  # whose version in go.mod is the version of the programs
    version_variables: tuple[str, ...] = ()  # linker variables that take the version as it is
    number_variables: tuple[str, ...] = ()  # the two that take major and minor
    renamed: Mapping[str, str] = field(default_factory=dict)  # what the tool is called → what we call it
    released: bool = False  # whether RELEASES has it


GROUPS = {
    group.name: group
    for group in (
        Group("etcd", ("etcd",), "go.etcd.io/etcd/server/v3", renamed={"server": "etcd"}),
        Group(
            "kubernetes",
            ("kube-apiserver", "kube-controller-manager", "kubectl"),
            "k8s.io/kubernetes",
            ("k8s.io/component-base/version.gitVersion",),
            ("k8s.io/component-base/version.gitMajor", "k8s.io/component-base/version.gitMinor"),
            released=True,
        ),
        Group("kwok", ("kwok",), "sigs.k8s.io/kwok", ("sigs.k8s.io/kwok/pkg/consts.Version",)),
        Group("helm", ("helm",), "helm.sh/helm/v4", ("helm.sh/helm/v4/internal/version.version",)),
    )
}
CONTROL_PLANE = ("etcd", "kubernetes", "kwok")


def version(group: Group, modules: Path) -> str:
    """The version that the group's go.mod pins, as in `v1.37.2`."""
    for line in (modules / group.name / "go.mod").read_text().splitlines():
        words = line.removeprefix("require ").split()
        if len(words) >= 2 and words[0] == group.module and words[1].startswith("v"):
            return words[1]
    raise ProgramsError(f"{modules / group.name / 'go.mod'} requires no version of {group.module}")


def open_url(url: str) -> Stream:
    """Open `url` with one attempt, which includes the name look-up that a socket's timeout does not bound."""
    answer: queue.SimpleQueue[Stream | Exception] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=READ_SECONDS))
        except OSError as error:
            answer.put(error)

    threading.Thread(target=attempt, daemon=True, name="download").start()
    try:
        result = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise UnreachableError(f"no answer within {CONNECT_SECONDS:.0f} s") from None
    if isinstance(result, Exception):
        raise UnreachableError(str(result)) from result
    return result


def download(group: Group, folder: Path, fetch: Fetch, modules: Path) -> None:
    """Put the group's programs into `folder` from the release downloads.

    Raises UnreachableError when the host cannot be reached, and ProgramsError when what it sent does not have the checksum
    that it publishes.
    """
    release = version(group, modules)
    architecture = MACHINES.get(platform.machine().lower())
    if architecture is None or platform.system() != "Linux":
        raise UnreachableError(f"no control plane is released for {platform.system()} on {platform.machine()}")
    for program in group.programs:
        url = f"{RELEASES}/{release}/bin/linux/{architecture}/{program}"
        with closing(fetch(f"{url}.sha256")) as published:
            words = published.read(CHUNK_BYTES).decode("ascii", "replace").split()
        expected = words[0] if words else "nothing"
        actual = _save(url, folder / program, fetch)
        if actual != expected:
            (folder / program).unlink()
            raise ProgramsError(f"{url} has the SHA-256 {actual}, but {expected} is published beside it: refused")
        (folder / program).chmod(0o755)


def _save(url: str, target: Path, fetch: Fetch) -> str:
    """Stream `url` into `target` and return the SHA-256 of what came."""
    digest = hashlib.sha256()
    received = 0
    with (
        progress(f"downloading {url}", lambda: f"{received >> 20} MiB"),
        closing(fetch(url)) as stream,
        target.open("wb") as file,
    ):
        try:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
                received += len(chunk)
        except OSError as error:
            raise UnreachableError(f"{url} broke off after {received} bytes: {error}") from error
    return digest.hexdigest()


def build(group: Group, folder: Path, run: Run, modules: Path, environ: Mapping[str, str]) -> None:
    """Put the group's programs into `folder` by building them from Go modules.

    Raises ProgramsError when Go is missing or the build fails.
    """
    release = version(group, modules)
    numbers = release.removeprefix("v").split(".")
    values = dict.fromkeys(group.version_variables, release) | dict(
        zip(group.number_variables, numbers[:2], strict=False)
    )
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])
    # Only what is given here decides the build: a caller's GOFLAGS or workspace would make another program of it.
    environment = {**environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    command = [BUILD_TOOL, "build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", f"{folder}{os.sep}", "tool"]
    with progress(f"building {', '.join(group.programs)} {release} from Go modules"):
        run(command, modules / group.name, environment)
    for built, wanted in group.renamed.items():
        (folder / built).rename(folder / wanted)


def run_build(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run the compiler in `folder`, so that it stops when we are interrupted."""
    tool = shutil.which(command[0], path=environment.get("PATH"))
    if tool is None:
        raise ProgramsError(
            "Go is needed to build the control plane and is not on the PATH. Install Go 1.26 or later, or set "
            "KUBEBUILDER_ASSETS to a folder with kube-apiserver, kube-controller-manager, kubectl, etcd and kwok."
        )
    guard = Watchdog(None)  # a build that nobody waits for any more must not go on for minutes
    process = subprocess.Popen(
        [tool, *command[1:]], cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True
    )
    guard.add(process.pid)
    try:
        code = process.wait()
    except BaseException:
        signal_group(process.pid, signal.SIGTERM)
        process.wait()
        raise
    finally:
        guard.remove(process.pid)
        guard.close()
    if code != 0:
        raise ProgramsError(f"`{' '.join(command)}` in {folder} ended with status {code}; its output is above")
