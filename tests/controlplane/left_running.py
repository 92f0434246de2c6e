"""One control plane that outlives the command that started it: a keeper process holds it until `down`."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from tests.controlplane.cluster import ControlPlane
from tests.controlplane.process import ControlPlaneError
from tests.controlplane.programs import Programs
from tests.controlplane.progress import elapsed
from tests.controlplane.shell import ADMIN

REPOSITORY = Path(__file__).parents[2]
WAIT_SECONDS = 120.0
POLL_SECONDS = 0.1


class State(TypedDict):
    """What the keeper says about itself once the control plane is ready."""

    pid: int
    server: str
    workdir: str
    path: str
    user_kubeconfig: str
    admin_kubeconfig: str
    started: float


def state_folder() -> Path:
    """Only its owner may read it, as it leads to an administrator's key. Raises ControlPlaneError if others may."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime, "kube-stepup") if runtime else Path(tempfile.gettempdir(), f"kube-stepup.{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ControlPlaneError(f"{folder} belongs to somebody else, or others may enter it: remove it")
    return folder


def running(folder: Path) -> State | None:
    """The state of the control plane that runs, if one does and is ready."""
    if not _keeper_lives(folder):
        return None
    try:
        state: State = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return None
    return state


def up() -> int:
    """Start it unless it runs, and print what to set."""
    folder = state_folder()
    if running(folder) is None:
        Programs().control_plane()  # here, where its progress can be seen
        _start_keeper(folder)
    state = running(folder)
    if state is None:
        raise ControlPlaneError(f"the control plane ended again; see {folder / 'keeper.log'}")
    _print_usage(state)
    return 0


def down() -> int:
    """Stop it, also while it starts, and wait until nothing of it is left."""
    folder = state_folder()
    if not _keeper_lives(folder):
        print("No control plane is running.")
        return 0
    _wait(lambda: (folder / "lock").read_text() != "")
    pid = int((folder / "lock").read_text())
    os.kill(pid, signal.SIGTERM)
    if not _wait(lambda: not _keeper_lives(folder)):
        raise ControlPlaneError(f"process {pid} does not stop; see {folder / 'keeper.log'}")
    print("The control plane is stopped, and its folder is gone.")
    return 0


def status() -> int:
    """Say whether it runs: 0, or 3 if not (as in the LSB's status of an init script)."""
    state = running(state_folder())
    if state is None:
        print("No control plane is running.")
        return 3
    print(f"# process {state['pid']}, up for {elapsed(time.time() - state['started'])}")
    _print_usage(state)
    return 0


def keep() -> int:
    """Be the keeper: hold the lock and the control plane until SIGTERM."""
    folder = state_folder()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print(os.getpid(), file=lock, flush=True)
        state_file = folder / "state.json"
        state_file.unlink(missing_ok=True)
        try:
            with ControlPlane() as control_plane:
                temporary = folder / "state.json.new"
                temporary.write_text(json.dumps(_state(control_plane)))
                temporary.rename(state_file)
                while True:
                    signal.pause()
        finally:
            state_file.unlink(missing_ok=True)


def _state(control_plane: ControlPlane) -> State:
    return {
        "pid": os.getpid(),
        "server": control_plane.server,
        "workdir": str(control_plane.workdir),
        "path": os.pathsep.join(dict.fromkeys(str(path.parent) for path in Programs().control_plane().values())),
        "user_kubeconfig": str(control_plane.kubeconfig("alice")),
        "admin_kubeconfig": str(control_plane.kubeconfig(ADMIN)),
        "started": time.time(),
    }


def _start_keeper(folder: Path) -> None:
    if _keeper_lives(folder):  # another `up` is starting it
        _wait(lambda: running(folder) is not None or not _keeper_lives(folder))
        return
    with (folder / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.controlplane", "keep"],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if not _wait(lambda: running(folder) is not None or keeper.poll() is not None):
        keeper.terminate()
    if running(folder) is None:
        raise ControlPlaneError(f"it did not start:\n{(folder / 'keeper.log').read_text()}")


def _keeper_lives(folder: Path) -> bool:
    """Whoever keeps it holds the lock, which the kernel releases however the keeper ends."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _print_usage(state: State) -> None:
    """Lines for a shell: `eval "$(make --silent cluster)"` works."""
    print(f"# A control plane runs at {state['server']}. You are alice, of the group devs, who may do everything.")
    print(f"export KUBECONFIG={shlex.quote(state['user_kubeconfig'])}")
    print(f'export PATH={shlex.quote(state["path"])}:"$PATH"')
    print(f"# As a member of system:masters instead: export KUBECONFIG={shlex.quote(state['admin_kubeconfig'])}")
    print("# Stop it with `make cluster-down`. Logs: " + state["workdir"])
