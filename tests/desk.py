"""Real processes: `kubectl elevate` with a kubectl that plays the cluster, with a terminal or without."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FAKE = ROOT / "tests" / "fakes" / "kubectl.py"
SECONDS = 20.0


class Terminal:
    """A command at a terminal of its own, and somebody who types."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._ours, theirs = os.openpty()

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - one call to the kernel, which no thread of ours minds
        )
        os.close(theirs)
        self.shown = ""
        self._read_until = 0

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str) -> None:
        """Until something is shown that was not waited for before."""
        deadline = time.monotonic() + SECONDS
        while text not in self.shown[self._read_until :]:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.shown}"
            if not self._read():
                raise AssertionError(f"it ended before it said {text!r}:\n{self.shown}")
        self._read_until = self.shown.index(text, self._read_until) + len(text)

    def end(self) -> int:
        """Its exit code, with everything shown."""
        deadline = time.monotonic() + SECONDS
        while self._read():
            assert time.monotonic() < deadline, self.shown
        os.close(self._ours)
        return self.process.wait(SECONDS)

    def has_echo(self) -> bool:
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], 0.1)
        if not ready:
            return self.process.poll() is None
        try:
            data = os.read(self._ours, 65536)
        except OSError:
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


class Desk:
    """Where somebody works: a folder with programs of their own, and a cluster behind kubectl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        self._state = folder / "state.json"
        self._browser = folder / "browser.json"
        self.set(objects=["web", "api"], codes=["123456"], namespace="dev")
        self.program("kubectl", f'#!/bin/sh\nexec "{sys.executable}" -S "{FAKE}" "$@"\n')
        self.environment = {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "FAKE_STATE": str(self._state),
            **{key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")},
        }

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._state.read_text())
        return found

    def set(self, **values: Any) -> None:
        before = self.state if self._state.exists() else {}
        self._state.write_text(json.dumps({**before, **values}))

    def program(self, name: str, text: str) -> str:
        """Put a program on the PATH; its path."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def prints(self, code: str) -> None:
        """No person, but a program that knows the code."""
        self.environment["KUBECTL_ELEVATE_CODE_COMMAND"] = f"echo {code}"

    def browses(self, *does: Any) -> None:
        """Give the person a browser, which does this on the page: [path, body] each."""
        self._browser.write_text(json.dumps({"do": does}))
        browser = ROOT / "tests" / "fakes" / "browser.py"
        self.environment["BROWSER"] = f"{sys.executable} {browser} %s"
        self.environment["FAKE_BROWSER"] = str(self._browser)

    @property
    def browser(self) -> dict[str, Any]:
        """What the browser was told and has seen, once it is done."""
        deadline = time.monotonic() + SECONDS
        while "saw" not in (found := json.loads(self._browser.read_text() or "{}")):
            assert time.monotonic() < deadline, "the browser never came back"
            time.sleep(0.02)
        return dict(found)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "webhook.cli.elevate", *arguments]

    def run(
        self, *arguments: str, stdin: Any = subprocess.DEVNULL, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it where there is no terminal at all."""
        given: dict[str, Any] = {"input": text} if text is not None else {"stdin": stdin}
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            start_new_session=True,
            **given,
        )

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **more,
        )

    def at_terminal(self, *arguments: str) -> Terminal:
        return Terminal(self.command(*arguments), self.environment)
