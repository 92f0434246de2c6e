"""Calls the cluster by the person's own kubectl: kubeconfig, context, `--as`, credential plugins, OIDC and proxies are as there.

No Kubernetes library is loaded, so this program starts in a few hundredths of a second.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any, Final

from webhook.cli.exits import FAILED, REFUSED, UNREACHABLE, ElevateError

API: Final = "/apis/elevation.kube-stepup.io/v1alpha1"
GROUP_VERSION: Final = "elevation.kube-stepup.io/v1alpha1"
PROGRAM_VARIABLE: Final = "KUBECTL_ELEVATE_KUBECTL"
BODY: Final = "BODY"  # stands in a command for the file that the body is read from
CHUNK_BYTES: Final = 64 * 1024
# Warnings and log lines may come before.
_SERVER_ERROR: Final = re.compile(
    r"^Error from server(?: \((?P<reason>\w+)\))?: (?P<text>.*)\Z", re.DOTALL | re.MULTILINE
)
_INVALID: Final = re.compile(
    r"^The (?:\S+(?: \"[^\"]*\")?|request) is invalid: (?P<text>.*)\Z", re.DOTALL | re.MULTILINE
)
_CLUSTER_DOWN: Final = re.compile(
    r"^.*(?:Unable to connect to the server|The connection to the server .* was refused|i/o timeout|"
    r"TLS handshake timeout|no such host|couldn't get current server API group list).*$",
    re.MULTILINE,
)
# What kubectl itself has to say is read, not shown; all else that comes is a credential plugin talking to the person.
_OWN_WORDS: Final = re.compile(
    rb"^(?:Error|error|Warning|The |Unable|couldn't|[EWIF]\d{4} |\* |Flag |No resources|See 'kubectl)"
)
_LONGEST_OWN_WORD: Final = 14
_CODE: Final = re.compile(r" \(code: (?P<code>[a-z-]+)\)$")
_DOWN: Final = ("ServiceUnavailable", "Timeout", "GatewayTimeout", "InternalError")
_GENERIC_NOT_FOUND: Final = "the server could not find the requested resource"


class Kubectl:
    """The person's kubectl with the global flags of this run."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self._command = [os.environ.get(PROGRAM_VARIABLE) or "kubectl", *flags]

    def run(
        self, *arguments: str, stdin: str | None = None, body: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it; its output is captured.

        A credential plugin finds our terminal on its standard input and can ask there, as under kubectl itself; that is why
        what is sent goes by a pipe of its own, in place of the argument ``BODY``. It is never on the command line, which
        everybody on the machine can read.

        Raises:
            ElevateError: there is no kubectl.
        """
        passed: tuple[int, ...] = ()
        write_end = -1
        if body is not None:
            read_end, write_end = os.pipe()
            passed = (read_end,)
            arguments = tuple(f"/dev/fd/{read_end}" if one == BODY else one for one in arguments)
        try:
            process = subprocess.Popen(  # noqa: S603 - the person's own program, no shell
                [*self._command, *arguments],
                stdin=subprocess.PIPE if stdin is not None else _terminal_or_nothing(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=passed,
            )
        except FileNotFoundError as error:
            raise ElevateError("there is no kubectl on the PATH") from error
        finally:
            for descriptor in passed:
                os.close(descriptor)
        pipe = os.fdopen(write_end, "wb") if body is not None else process.stdin
        return _captured(process, pipe, stdin if body is None else body)

    def create(self, resource: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        """POST an object of the elevation API; its answer.

        Raises:
            ElevateError: refused, or not reachable.
        """
        body = json.dumps({"apiVersion": GROUP_VERSION, "kind": kind, "spec": spec})
        return _json(self.run("create", "--raw", f"{API}/{resource}", "-f", BODY, body=body))

    def get(self, resource: str) -> dict[str, Any]:
        """GET from the elevation API.

        Raises:
            ElevateError: refused, or not reachable.
        """
        return _json(self.run("get", "--raw", f"{API}/{resource}"))

    def delete(self, resource: str) -> None:
        """DELETE from the elevation API.

        Raises:
            ElevateError: refused, or not reachable.
        """
        _json(self.run("delete", "--raw", f"{API}/{resource}"))


def _terminal_or_nothing() -> int | None:
    """Our terminal for kubectl, but never a pipe or file, which is the wrapped command's."""
    return None if os.isatty(0) else subprocess.DEVNULL


def _captured(
    process: subprocess.Popen[bytes], pipe: IO[bytes] | None, text: str | None
) -> subprocess.CompletedProcess[str]:
    """Feed it, and hear it out."""
    told: list[bytes] = []
    with process:
        threads = [threading.Thread(target=_listen, args=(process.stderr, told))]
        if pipe is not None:
            threads.append(threading.Thread(target=_send, args=(pipe, text or "")))
        for thread in threads:
            thread.start()
        output = process.stdout.read() if process.stdout is not None else b""
        for thread in threads:
            thread.join()
    errors = b"".join(told).decode(errors="replace")
    return subprocess.CompletedProcess(process.args, process.returncode, output.decode(errors="replace"), errors)


def _send(pipe: IO[bytes], text: str) -> None:
    try:
        with pipe:
            pipe.write(text.encode())
    except BrokenPipeError:
        return  # it has ended without reading; its exit code says why


def _listen(pipe: IO[bytes], told: list[bytes]) -> None:
    """Keep all, and hand on at once what a credential plugin says, also the beginning of a line: it may be a question."""
    pending = b""
    shown = 0
    is_own = False
    while chunk := os.read(pipe.fileno(), CHUNK_BYTES):
        told.append(chunk)
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            is_own = is_own or (not shown and _OWN_WORDS.match(line) is not None)
            if not is_own:
                _tell(line[shown:] + b"\n")
            # A log line is one line; an error goes on to the end.
            is_own = is_own and re.match(rb"^(?:[EWIF]\d{4} |Warning|Flag )", line) is None
            shown = 0
        could_be_own = not shown and (len(pending) < _LONGEST_OWN_WORD or _OWN_WORDS.match(pending) is not None)
        if pending and not is_own and not could_be_own:
            _tell(pending[shown:])
            shown = len(pending)
    if pending and not is_own and not _OWN_WORDS.match(pending):
        _tell(pending[shown:])


def _tell(text: bytes) -> None:
    sys.stderr.flush()
    os.write(2, text)


def _json(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if result.returncode != 0:
        raise error_of(result.stderr.strip())
    try:
        found: dict[str, Any] = json.loads(result.stdout)
    except ValueError as error:
        raise ElevateError("the elevation service gave an answer that is not JSON", UNREACHABLE) from error
    return found


def error_of(stderr: str) -> ElevateError:
    """What kubectl's error text means for the person."""
    match = _SERVER_ERROR.search(stderr) or _INVALID.search(stderr)
    if match is None:
        down = _CLUSTER_DOWN.search(stderr)
        if down is not None:
            return ElevateError(f"the API server cannot be reached: {down[0].strip()}", UNREACHABLE)
        return ElevateError(stderr or "kubectl failed without a word", FAILED)
    reason = match.groupdict().get("reason") or ""
    text = match["text"].strip()
    found = _CODE.search(text)
    if found:
        exit_code = UNREACHABLE if reason in _DOWN else REFUSED
        return ElevateError(text[: found.start()], exit_code, found["code"])
    if text == _GENERIC_NOT_FOUND or (reason == "NotFound" and "elevation" not in text):
        return ElevateError(
            "kube-stepup is not installed in this cluster (its elevation service has no APIService)", UNREACHABLE
        )
    if reason in _DOWN or "unable to handle the request" in text:
        text = "the elevation service is down, so nobody can step up just now; what was proven before stays good"
        return ElevateError(text, UNREACHABLE)
    if "cannot create resource" in text or "cannot get resource" in text or "cannot list resource" in text:
        return ElevateError(f"RBAC does not let you do that here: {text}", REFUSED, "forbidden")
    return ElevateError(text, REFUSED)
