"""Finds, downloads or builds the programs of the control plane, once, into a cache that an interruption cannot spoil.

In this order: KUBEBUILDER_ASSETS (envtest's convention), the cache, Kubernetes' release downloads, a build from the Go
modules that the go.mod files in `programs/` pin.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.controlplane.progress import say
from tests.controlplane.sources import (
    CONTROL_PLANE,
    GROUPS,
    Fetch,
    Group,
    ProgramsError,
    Run,
    UnreachableError,
    build,
    download,
    open_url,
    run_build,
)

__all__ = ["Programs", "ProgramsError"]

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
MODULES = Path(__file__).parent / "programs"
HASH_CHARACTERS = 16  # 64 bits tell versions apart


class Programs:
    """The programs, by name. Asking for one makes it available first, which can take minutes."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        modules: Path = MODULES,
        fetch: Fetch = open_url,
        run: Run = run_build,
    ) -> None:
        self._environ = environ
        self._modules = modules
        self._fetch = fetch
        self._run = run
        base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
        self.cache = Path(base) / "kube-stepup" / "programs"

    def path(self, program: str) -> Path:
        """The executable. Raises ProgramsError when it can be had from nowhere."""
        assets = self._assets()
        if assets is not None and os.access(assets / program, os.X_OK):
            return assets / program
        group = next((group for group in GROUPS.values() if program in group.programs), None)
        if group is None:
            raise ProgramsError(f"no source for a program called {program}")
        return self.folder(group.name) / program

    def folder(self, group_name: str) -> Path:
        """The cache folder that holds a whole group: `etcd`, `kubernetes`, `kwok` or `helm`."""
        group = GROUPS[group_name]
        folder = self.cache / f"{group.name}-{self._hash(group)}"
        if not folder.is_dir():
            self._make(group, folder)
        return folder

    def control_plane(self) -> dict[str, Path]:
        """Everything that a control plane is made of."""
        return {program: self.path(program) for name in CONTROL_PLANE for program in GROUPS[name].programs}

    def _assets(self) -> Path | None:
        """The caller's own folder, if there is one. Raises ProgramsError when it is set and does not exist."""
        value = self._environ.get(ASSETS_VARIABLE)
        if not value:
            return None
        if not Path(value).is_dir():
            raise ProgramsError(f"{ASSETS_VARIABLE} is {value}, which is not a folder")
        return Path(value).resolve()

    def _hash(self, group: Group) -> str:
        """Changes with every version that goes into the group."""
        digest = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            content = (self._modules / group.name / name).read_bytes()
            digest.update(len(content).to_bytes(8, "big") + content)
        return digest.hexdigest()[:HASH_CHARACTERS]

    def _make(self, group: Group, folder: Path) -> None:
        """Fill a folder of another name and give it its own when it is whole, so that no half of it is ever used."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with _locked(self.cache / f"{folder.name}.lock", group.name):
            if folder.is_dir():
                return  # the process that we waited for made it
            for left_over in self.cache.glob(f"{folder.name}.partial-*"):
                shutil.rmtree(left_over)  # we hold the lock: whoever made it is gone
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=self.cache))
            try:
                self._fill(group, partial)
                _flush(partial)
                partial.chmod(0o755)
                partial.rename(folder)
                _flush_folder(self.cache)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise

    def _fill(self, group: Group, folder: Path) -> None:
        if group.released:
            try:
                download(group, folder, self._fetch, self._modules)
            except UnreachableError as reason:
                say(f"{group.name}: no release download ({reason}), so it is built")
            else:
                say(f"{group.name}: downloaded, checksums match")
                return
        build(group, folder, self._run, self._modules, self._environ)
        missing = [program for program in group.programs if not os.access(folder / program, os.X_OK)]
        if missing:
            raise ProgramsError(f"the build of {group.name} left no {', '.join(missing)}")


@contextmanager
def _locked(file: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock that ends with the process, saying so if another one has it."""
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{what}: waiting for another process that is making it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _flush(folder: Path) -> None:
    """Make the content durable before the name is: a power cut must not leave an empty program behind."""
    for file in folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
