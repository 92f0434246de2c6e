"""One step-up: ask for it, answer the challenge, put the assertion where the operation can carry it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from webhook.cli import prompt
from webhook.cli.exits import REFUSED, WRONG_CODE, ElevateError
from webhook.cli.kubectl import BODY, Kubectl
from webhook.cli.waiting import APPROVED, AWAITING, wait_for_approval

ANNOTATION: Final = "kube-stepup.io/assertion"
TRIES: Final = 3
LONGEST_WAIT_SECONDS: Final = 10
PERIOD_SECONDS: Final = 30  # of one-time codes (RFC 6238)
CODES: Final = ("totp", "recovery-code")
PASSKEY: Final = "webauthn"
FACTORS: Final = (PASSKEY, *CODES)


@dataclass(frozen=True)
class SteppedUp:
    """What came of it; ``name`` is empty when no policy asks for a step-up.

    ``assertion`` is empty as well when somebody else's approval has granted it: its record carries it.
    """

    name: str = ""
    expires_at: str = ""
    assertion: str = field(default="", repr=False)
    challenge: dict[str, Any] = field(default_factory=dict)
    annotated: bool = False
    why_not: str = "no policy asks for a step-up here"

    def to_json(self) -> str:
        """The machine-readable form (`-o json`)."""
        found = {
            "required": bool(self.name),
            "elevation": self.name,
            "expiresAt": self.expires_at,
            "challenge": self.challenge,
            "assertion": self.assertion,
            "annotated": self.annotated,
        }
        return json.dumps(found, indent=2)


def say(text: str) -> None:
    """Tell the person; standard output is for results alone."""
    sys.stderr.write(f"kube-stepup: {text}\n")
    sys.stderr.flush()


def step_up(kubectl: Kubectl, details: list[dict[str, Any]], reason: str, factor: str = "") -> SteppedUp:
    """Ask for an elevation and answer its challenge, with a certain factor or the one that is best here.

    Raises:
        ElevateError: refused, wrong codes, not reachable, or the person gave up.
    """
    request = _request(kubectl, details, reason)
    status = request["status"]
    if status["phase"] == "NotRequired":
        return SteppedUp(why_not=printable(status.get("message") or "no policy asks for a step-up here"))
    name = request["metadata"]["name"]
    for line in described(request):
        say(line)
    offered = status["challenge"].get("factors") or list(CODES)
    answer = status if status["phase"] == AWAITING else _by_factor(kubectl, name, offered, factor)
    while answer.get("phase") == AWAITING:
        answer = wait_for_approval(kubectl, name, answer.get("message", ""))
        if answer["phase"] == APPROVED:
            say("it is approved; your own proof is too old by now, so prove it once more")
            answer = _by_factor(kubectl, name, offered, factor)
    return SteppedUp(name, answer["expiresAt"], answer.get("assertion", ""), status["challenge"])


def described(request: dict[str, Any]) -> list[str]:
    """What a step-up is for, by the elevation service's own answer: the person gives a code for this, whatever asked for it."""
    policies = ", ".join((request["status"].get("challenge") or {}).get("policies") or [])
    asked_by = f" (polic{'ies' if ', ' in policies else 'y'} {policies})" if policies else ""
    found = []
    for detail in request["spec"]["details"]:
        kind = kind_of(detail)
        names = [one["name"] for one in detail.get("objects") or []]
        what = " ".join(f"{kind}/{name}" for name in names) or f"all {kind or 'objects'}"
        where = f" in {detail['namespace']}" if detail.get("namespace") else ""
        found.append(printable(f"{detail['operation']} {what}{where}{asked_by}"))
    return found


def kind_of(detail: dict[str, Any]) -> str:
    """``deployments.apps``, ``pods``; empty where it is any kind."""
    group, resource = detail.get("group", ""), detail.get("resource", "")
    return f"{resource}.{group}" if group else str(resource)


def printable(text: str) -> str:
    """Without anything that a terminal would act on."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def annotate(kubectl: Kubectl, details: list[dict[str, Any]], assertion: str) -> bool:
    """Put the assertion on its one target; whether the person may. The record carries it all the same.

    It goes by a pipe: what is on a command line, everybody on the machine can read.
    """
    (detail,) = details
    (target,) = detail["objects"]
    kind = f"{detail['resource']}.{detail['group']}" if detail["group"] else detail["resource"]
    where = ["-n", detail["namespace"]] if detail.get("namespace") else []
    patch = json.dumps({"metadata": {"annotations": {ANNOTATION: assertion}}})
    arguments = ["patch", kind, *where, "--type=merge", "--patch-file", BODY, "--", target["name"]]
    return kubectl.run(*arguments, body=patch).returncode == 0


def can_be_annotated(details: list[dict[str, Any]], carrier: str) -> bool:
    """Whether an annotation is wanted: on one existing object, by default only where it is about to be deleted."""
    if carrier == "record" or len(details) != 1 or len(details[0].get("objects") or []) != 1:
        return False
    return carrier == "annotation" or (
        details[0]["operation"] == "delete" and bool(details[0]["objects"][0].get("uid"))
    )


def _request(kubectl: Kubectl, details: list[dict[str, Any]], reason: str) -> dict[str, Any]:
    spec = {"details": details, "reason": reason}
    for _ in range(TRIES):
        try:
            return kubectl.create("elevationrequests", "ElevationRequest", spec)
        except ElevateError as error:
            if "spec.reason" not in error.message or not prompt.has_terminal():
                raise
            say(error.message.removeprefix("spec.reason: ").removesuffix(" (--reason)"))
            spec["reason"] = prompt.ask_line("Reason")
    raise ElevateError("the reason does not do", REFUSED, "reason-mismatch")


def _by_factor(kubectl: Kubectl, name: str, offered: list[str], wanted: str) -> dict[str, Any]:
    """A passkey where there is one and a browser, else a code; whatever was asked for, if it is offered."""
    if wanted and wanted not in offered:
        raise ElevateError(f"--factor: you cannot use {wanted} here, but {', '.join(offered)}", REFUSED)
    codes: list[str] = [one for one in CODES if one in offered]
    if wanted == PASSKEY or (not wanted and PASSKEY in offered and (not codes or _is_page_better())):
        from webhook.cli import page

        try:
            return page.step_up(kubectl, name)
        except ElevateError as error:
            if error.code != "no-page" or wanted or not codes:
                raise
    path = f"elevationrequests/{name}/answer"
    return answered(kubectl, path, "ChallengeAnswer", {}, [wanted] if wanted else codes)


def _is_page_better() -> bool:
    from webhook.cli import browser

    return browser.is_here() and not prompt.is_automatic()


def answered(
    kubectl: Kubectl, path: str, kind: str, more: dict[str, Any], factors: Sequence[str] = CODES
) -> dict[str, Any]:
    """Ask for a code and post it, with what else belongs to the answer, until it is accepted; the answer's status.

    Raises:
        ElevateError: wrong codes, refused, or the person gave up.
    """
    message, code = "", ""
    for attempt in range(TRIES):
        given, factor = prompt.ask_code_of(factors)
        status = kubectl.create(path, kind, {"factor": factor, "code": given, **more})["status"]
        if status["accepted"]:
            answer: dict[str, Any] = status
            return answer
        message, code = status.get("message", "refused"), status.get("code", "")
        wait = _wait_seconds(status, is_first=attempt == 0)
        if wait is None or attempt + 1 == TRIES:
            break
        say(message)
        time.sleep(wait)
    raise ElevateError(message, WRONG_CODE, code)


def _wait_seconds(status: dict[str, Any], *, is_first: bool) -> float | None:
    """How long to wait before the next try; None when there is to be none."""
    if prompt.is_automatic():
        # A program gives the same code until the next one is due: wait for that, once. A wrong code stays wrong.
        used = status.get("code") == "code-already-used" and is_first
        return PERIOD_SECONDS - time.time() % PERIOD_SECONDS + 1 if used else None
    wait = int(status.get("retryAfterSeconds") or 0)
    return wait if wait <= LONGEST_WAIT_SECONDS else None
