"""The programs of the control plane: where they come from, and that no accident spoils the cache."""

from __future__ import annotations

import fcntl
import hashlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.controlplane.programs import MODULES, Programs
from tests.controlplane.sources import GROUPS, Group, ProgramsError, Stream, UnreachableError, run_build, version

RELEASED_PROGRAMS = GROUPS["kubernetes"].programs
BUILT_NAMES = {"etcd": ["server"], "kubernetes": list(RELEASED_PROGRAMS), "kwok": ["kwok"], "helm": ["helm"]}


class Compiler:
    """Stands in for `go build`: leaves files where `-o` says."""

    def __init__(self) -> None:
        self.builds: list[str] = []
        self.environments: list[Mapping[str, str]] = []
        self.commands: list[list[str]] = []
        self.fails_with: BaseException | None = None

    def __call__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.builds.append(folder.name)
        self.commands.append(command)
        self.environments.append(environment)
        target = Path(command[command.index("-o") + 1])
        for name in BUILT_NAMES[folder.name]:
            (target / name).write_text(f"built {name}")
            (target / name).chmod(0o755)
            if self.fails_with is not None:
                raise self.fails_with


class Releases:
    """Stands in for the release host, with `content` behind each URL that ends in its key."""

    def __init__(self, content: Mapping[str, bytes] | None = None) -> None:
        self.content = content
        self.asked: list[str] = []

    def __call__(self, url: str) -> Stream:
        self.asked.append(url)
        if self.content is None:
            raise UnreachableError("no network")
        return io.BytesIO(self.content[url.rpartition("/")[2]])


def releases_of(programs: tuple[str, ...]) -> dict[str, bytes]:
    """Each program and a matching checksum."""
    content = {}
    for program in programs:
        content[program] = f"released {program}".encode()
        content[f"{program}.sha256"] = hashlib.sha256(content[program]).hexdigest().encode() + b"\n"
    return content


class Broken(io.BytesIO):
    """A connection that breaks off after its first answer."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise ConnectionResetError("connection reset by peer")
        return super().read(4)


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path / "home"), "PATH": ""}


def programs_with(environ: Mapping[str, str], compiler: Compiler, releases: Releases | None = None) -> Programs:
    return Programs(environ, fetch=releases or Releases(), run=compiler)


def test_offline_everything_is_built_once_and_then_taken_from_the_cache(
    environ: dict[str, str], compiler: Compiler
) -> None:
    first = programs_with(environ, compiler).control_plane()
    second = programs_with(environ, compiler).control_plane()

    assert first == second
    assert set(first) == {"etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "kwok"}
    assert all(os.access(path, os.X_OK) for path in first.values())
    assert compiler.builds == ["etcd", "kubernetes", "kwok"]


def test_helm_is_built_only_when_it_is_asked_for(environ: dict[str, str], compiler: Compiler) -> None:
    assert programs_with(environ, compiler).path("helm").read_text() == "built helm"
    assert compiler.builds == ["helm"]


def test_the_cache_is_under_home_when_there_is_no_cache_variable(environ: dict[str, str], compiler: Compiler) -> None:
    del environ["XDG_CACHE_HOME"]
    assert programs_with(environ, compiler).cache == Path(environ["HOME"], ".cache", "kube-stepup", "programs")


def test_another_version_gets_another_folder(environ: dict[str, str], compiler: Compiler, tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    (modules / "kwok").mkdir(parents=True)
    (modules / "kwok" / "go.sum").write_text("")
    folders = []
    for number in ("v0.7.0", "v0.7.1"):
        (modules / "kwok" / "go.mod").write_text(f"module x\n\nrequire sigs.k8s.io/kwok {number}\n")
        folders.append(Programs(environ, modules=modules, fetch=Releases(), run=compiler).folder("kwok"))
    assert folders[0] != folders[1]
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("accident", [ProgramsError("no space"), KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_build_leaves_nothing_behind_and_is_made_again(
    environ: dict[str, str], compiler: Compiler, accident: BaseException
) -> None:
    compiler.fails_with = accident
    programs = programs_with(environ, compiler)
    with pytest.raises(type(accident)):
        programs.path("kubectl")
    assert [entry.name for entry in programs.cache.iterdir() if entry.suffix != ".lock"] == []

    compiler.fails_with = None
    assert programs.path("kubectl").read_text() == "built kubectl"


def test_what_a_killed_build_left_is_removed_and_never_used(environ: dict[str, str], compiler: Compiler) -> None:
    programs = programs_with(environ, compiler)
    finished_name = programs.path("kwok").parent.name
    programs.path("kwok").unlink()
    programs.path("kwok").parent.rename(programs.cache / f"{finished_name}.partial-killed")

    assert programs.path("kwok").read_text() == "built kwok"
    assert not list(programs.cache.glob("*.partial-*"))


def test_a_build_that_leaves_a_program_out_is_refused(
    environ: dict[str, str], compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUILT_NAMES, "kubernetes", ["kubectl"])
    with pytest.raises(ProgramsError, match="left no kube-apiserver, kube-controller-manager"):
        programs_with(environ, compiler).path("kubectl")


def test_builds_are_reproducible_and_ignore_the_go_settings_of_the_caller(
    environ: dict[str, str], compiler: Compiler
) -> None:
    environ |= {"GOFLAGS": "-mod=mod -tags=x", "GOWORK": "/somewhere/go.work", "CGO_ENABLED": "1"}
    programs_with(environ, compiler).path("kubectl")

    assert compiler.environments[0]["GOFLAGS"] == "-buildvcs=false"
    assert compiler.environments[0]["GOWORK"] == "off"
    assert compiler.environments[0]["CGO_ENABLED"] == "0"
    assert {"-mod=readonly", "-trimpath", "tool"} <= set(compiler.commands[0])
    release = version(GROUPS["kubernetes"], MODULES)
    assert f"-X k8s.io/component-base/version.gitVersion={release}" in " ".join(compiler.commands[0])


def test_two_at_once_make_it_once(
    environ: dict[str, str], compiler: Compiler, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = programs_with(environ, compiler)
    programs.cache.mkdir(parents=True)
    finished = programs.folder("etcd")
    elsewhere = finished.rename(programs.cache / "made-by-the-other")
    answers: list[Path] = []
    with (programs.cache / f"{finished.name}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: answers.append(programs.folder("etcd")))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        elsewhere.rename(finished)
    waiting.join(10)

    assert answers == [finished]
    assert compiler.builds == ["etcd"]
    assert "etcd: waiting for another process" in capsys.readouterr().err


def hold_and_die(lock: str) -> None:
    """Take the lock and end without releasing it."""
    handle = os.open(lock, os.O_WRONLY | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os._exit(0)


def test_a_process_that_dies_does_not_keep_the_lock(environ: dict[str, str], compiler: Compiler) -> None:
    programs = programs_with(environ, compiler)
    folder = programs.folder("etcd")
    folder.rename(folder.with_suffix(".away"))
    process = multiprocessing.get_context("fork").Process(
        target=hold_and_die, args=(str(programs.cache / f"{folder.name}.lock"),)
    )
    process.start()
    process.join()

    assert programs.folder("etcd") == folder
    assert compiler.builds == ["etcd", "etcd"]


def test_assets_of_the_caller_come_first_and_what_they_lack_comes_from_elsewhere(
    environ: dict[str, str], compiler: Compiler, tmp_path: Path
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).write_text("mine")
        (assets / name).chmod(0o755)
    (assets / "kwok").write_text("not executable")
    found = programs_with(environ | {"KUBEBUILDER_ASSETS": str(assets)}, compiler).control_plane()

    assert {name for name, path in found.items() if path.parent == assets} == {"etcd", "kube-apiserver", "kubectl"}
    assert compiler.builds == ["kubernetes", "kwok"]


def test_an_assets_variable_that_names_no_folder_is_an_error(environ: dict[str, str], compiler: Compiler) -> None:
    with pytest.raises(ProgramsError, match="KUBEBUILDER_ASSETS is /nowhere, which is not a folder"):
        programs_with(environ | {"KUBEBUILDER_ASSETS": "/nowhere"}, compiler).path("etcd")


def test_release_downloads_are_used_when_their_checksums_match(environ: dict[str, str], compiler: Compiler) -> None:
    releases = Releases(releases_of(RELEASED_PROGRAMS))
    programs = programs_with(environ, compiler, releases)

    assert programs.path("kubectl").read_text() == "released kubectl"
    assert os.access(programs.path("kube-apiserver"), os.X_OK)
    assert compiler.builds == []
    release = version(GROUPS["kubernetes"], MODULES)
    assert all(url.startswith(f"https://dl.k8s.io/{release}/bin/linux/") for url in releases.asked)


@pytest.mark.parametrize("published", [hashlib.sha256(b"another").hexdigest().encode(), b"", b"<html>"])
def test_a_download_with_another_checksum_is_refused_and_not_replaced_by_a_build(
    environ: dict[str, str], compiler: Compiler, published: bytes
) -> None:
    content = releases_of(RELEASED_PROGRAMS) | {"kubectl.sha256": published}
    programs = programs_with(environ, compiler, Releases(content))

    with pytest.raises(ProgramsError, match=r"kubectl has the SHA-256 .* refused"):
        programs.path("kubectl")
    assert not list(programs.cache.glob("*/kubectl"))
    assert compiler.builds == []


def test_when_offline_one_attempt_is_made_before_the_build(environ: dict[str, str], compiler: Compiler) -> None:
    releases = Releases()
    assert programs_with(environ, compiler, releases).path("kubectl").read_text() == "built kubectl"
    assert len(releases.asked) == 1


def test_a_download_that_breaks_off_is_followed_by_a_build(environ: dict[str, str], compiler: Compiler) -> None:
    content = releases_of(RELEASED_PROGRAMS)

    def fetch(url: str) -> Stream:
        name = url.rpartition("/")[2]
        return io.BytesIO(content[name]) if name.endswith(".sha256") else Broken(content[name])

    assert Programs(environ, fetch=fetch, run=compiler).path("kubectl").read_text() == "built kubectl"


def test_etcd_and_kwok_are_not_looked_for_among_the_releases(environ: dict[str, str], compiler: Compiler) -> None:
    releases = Releases(releases_of(RELEASED_PROGRAMS))
    programs_with(environ, compiler, releases).path("etcd")
    programs_with(environ, compiler, releases).path("kwok")
    assert releases.asked == []


def test_a_missing_go_is_named_together_with_the_way_out(environ: dict[str, str], tmp_path: Path) -> None:
    programs = Programs(environ | {"PATH": str(tmp_path)}, fetch=Releases(), run=run_build)
    with pytest.raises(ProgramsError, match=r"Go is needed .* Install Go .* KUBEBUILDER_ASSETS"):
        programs.path("etcd")


def test_a_failed_build_says_which(environ: dict[str, str], tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "go"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 7\n")
    tool.chmod(0o755)
    programs = Programs(environ | {"PATH": f"{tool.parent}:/usr/bin:/bin"}, fetch=Releases(), run=run_build)
    with pytest.raises(ProgramsError, match=r"`go build .*kwok ended with status 7"):
        programs.path("kwok")


def test_an_unknown_program_is_an_error(environ: dict[str, str], compiler: Compiler) -> None:
    with pytest.raises(ProgramsError, match="no source for a program called kubelet"):
        programs_with(environ, compiler).path("kubelet")


@pytest.mark.parametrize("group", GROUPS.values(), ids=lambda group: group.name)
def test_each_go_mod_pins_the_version_that_the_programs_report(group: Group) -> None:
    assert version(group, MODULES).startswith("v")


def test_a_go_mod_without_the_module_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kwok").mkdir()
    (tmp_path / "kwok" / "go.mod").write_text("module x\n")
    with pytest.raises(ProgramsError, match=r"requires no version of sigs\.k8s\.io/kwok"):
        version(GROUPS["kwok"], tmp_path)


BUILDER = """
import os, sys
from pathlib import Path
from tests.controlplane.sources import run_build
run_build(["go"], Path(sys.argv[1]), os.environ)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_build_ends_with_the_process_that_wanted_it(tmp_path: Path, number: int) -> None:
    tool = tmp_path / "go"
    tool.write_text("#!/bin/sh\necho $$ > pid.new; mv pid.new pid; sleep 600\n")
    tool.chmod(0o755)
    builder = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    build = Path("/proc", (tmp_path / "pid").read_text().strip())
    assert build.exists()
    builder.send_signal(number)
    builder.wait()
    while build.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not build.exists()
