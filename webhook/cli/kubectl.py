"""Calls the cluster by the person's own kubectl: kubeconfig, context, `--as`, credential plugins, OIDC and proxies are as there.

No Kubernetes library is loaded, so this program starts in a few hundredths of a second.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from webhook.cli.exits import FAILED, REFUSED, UNREACHABLE, ElevateError

API: Final = "/apis/elevation.kube-stepup.io/v1alpha1"
GROUP_VERSION: Final = "elevation.kube-stepup.io/v1alpha1"
PROGRAM_VARIABLE: Final = "KUBECTL_ELEVATE_KUBECTL"
_SERVER_ERROR: Final = re.compile(r"^Error from server(?: \((?P<reason>\w+)\))?: (?P<text>.*)$", re.DOTALL)
_INVALID: Final = re.compile(r"^The (?:\S+(?: \"[^\"]*\")?|request) is invalid: (?P<text>.*)$", re.DOTALL)
_CODE: Final = re.compile(r" \(code: (?P<code>[a-z-]+)\)$")
_DOWN: Final = ("ServiceUnavailable", "Timeout", "GatewayTimeout", "InternalError")
_GENERIC_NOT_FOUND: Final = "the server could not find the requested resource"


class Kubectl:
    """The person's kubectl with the global flags of this run."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self._command = [os.environ.get(PROGRAM_VARIABLE) or "kubectl", *flags]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it; its output is captured.

        Raises:
            ElevateError: there is no kubectl.
        """
        try:
            return subprocess.run(  # noqa: S603 - the person's own program, no shell
                [*self._command, *arguments],
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise ElevateError("there is no kubectl on the PATH") from error

    def create(self, resource: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        """POST an object of the elevation API; its answer.

        Raises:
            ElevateError: refused, or not reachable.
        """
        body = json.dumps({"apiVersion": GROUP_VERSION, "kind": kind, "spec": spec})
        return _json(self.run("create", "--raw", f"{API}/{resource}", "-f", "-", stdin=body))

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
    match = _SERVER_ERROR.match(stderr) or _INVALID.match(stderr)
    if match is None:
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
        return ElevateError(f"RBAC does not let you step up here: {text}", REFUSED, "forbidden")
    return ElevateError(text, REFUSED)
