"""People of a test: a client certificate, an enrolled authenticator, and the commands that they type."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import pyotp

from tests.controlplane import Finished
from tests.deployment import Deployment

API = "/apis/elevation.kube-stepup.io/v1alpha1"
GROUP_VERSION = "elevation.kube-stepup.io/v1alpha1"
PYTHON = sys.executable
ROOT = Path(__file__).parent.parent


class Person:
    """Somebody with a credential and, once enrolled, an authenticator.

    Args:
        name: username; a new one by default, so that no test waits for another's next one-time code.
    """

    def __init__(self, deployment: Deployment, name: str = "", groups: tuple[str, ...] = ("devs",)) -> None:
        self.deployment = deployment
        self.cluster = deployment.cluster
        self.name = name or f"person-{secrets.token_hex(4)}"
        self.groups = groups
        self.secret = ""
        self.recovery_codes: list[str] = []
        self._codes = deployment.folder / f"{self.name}.codes"

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = False) -> Finished:
        """The real kubectl as this person."""
        return self.cluster.kubectl(*arguments, user=self.name, groups=self.groups, stdin=stdin, check=check)

    def elevate(self, *arguments: str, stdin: str | None = None, check: bool = False) -> Finished:
        """The real `kubectl elevate` as this person, whose authenticator answers by itself."""
        return self.run([PYTHON, "-m", "webhook.cli.elevate", *arguments], stdin=stdin, check=check)

    def run(self, command: list[str], *, stdin: str | None = None, check: bool = False) -> Finished:
        """Any command as this person."""
        extra = {"PYTHONPATH": str(ROOT), **self.answers_by_itself()}
        return self.cluster.run(
            command, user=self.name, groups=self.groups, stdin=stdin, check=check, extra_environment=extra
        )

    def answers_by_itself(self) -> dict[str, str]:
        """The environment in which a program gives this person's codes."""
        return {"KUBECTL_ELEVATE_CODE_COMMAND": f"{PYTHON} -m tests.authenticator {self._codes}"}

    def create(
        self, resource: str, spec: dict[str, Any], kind: str = "ElevationRequest"
    ) -> tuple[Finished, dict[str, Any]]:
        """POST to the aggregated API; the answer's JSON is empty when it was refused."""
        body = json.dumps({"apiVersion": GROUP_VERSION, "kind": kind, "spec": spec})
        answer = self.kubectl("create", "--raw", f"{API}/{resource}", "-f", "-", stdin=body)
        return answer, json.loads(answer.stdout) if answer.returncode == 0 else {}

    def enrol(self) -> Person:
        """Bind a TOTP authenticator with an operator's ticket, as `kubectl elevate enroll` does."""
        operator = Person(self.deployment, "operator", ("system:masters",))
        answer, ticket = operator.create("enrollmenttickets", {"username": self.name}, "EnrollmentTicket")
        answer.checked()
        spec = {"type": "totp", "ticket": ticket["status"]["ticket"]}
        answer, authenticator = self.create("authenticators", spec, "Authenticator")
        answer.checked()
        self.secret = authenticator["status"]["secret"]
        name = authenticator["metadata"]["name"]
        code = pyotp.TOTP(self.secret).at(
            int(time.time()) - 30
        )  # the step before, so that the present one is still free
        answer, confirmed = self.create(f"authenticators/{name}/confirm", {"code": code}, "AuthenticatorConfirmation")
        answer.checked()
        self.recovery_codes = confirmed["status"]["recoveryCodes"]
        self._codes.write_text("\n".join([self.code(), self.code(1), *self.recovery_codes]))
        return self

    def code(self, steps_ahead: int = 0) -> str:
        """The one-time code of now, or of a later time step."""
        return pyotp.TOTP(self.secret).at(int(time.time()) + 30 * steps_ahead)

    def prove(self, *details: dict[str, Any], reason: str = "OPS-7") -> str:
        """Step up through the API alone; the assertion."""
        spec = {"details": list(details), "reason": reason}
        answer, request = self.create("elevationrequests", spec)
        answer.checked()
        name = request["metadata"]["name"]
        code = self.recovery_codes.pop()
        given = {"factor": "recovery-code", "code": code}
        answer, result = self.create(f"elevationrequests/{name}/answer", given, "ChallengeAnswer")
        answer.checked()
        assertion: str = result["status"]["assertion"]
        return assertion
