"""`kubectl elevate enroll`: bind an authenticator app or a passkey, and show ten recovery codes once."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

from webhook.cli import prompt
from webhook.cli.elevation import say, step_up
from webhook.cli.exits import REFUSED, WRONG_CODE, ElevateError
from webhook.cli.factors import NEW, own
from webhook.cli.kubectl import Kubectl

TRIES: Final = 8  # the service makes one wait after three, twice as long each time
LONGEST_WAIT_SECONDS: Final = 60
RESUME: Final = "the secret stays good for 15 minutes: `kubectl elevate enroll --resume` asks for its first code again"
TOTP: Final = "totp"
GROUP_LETTERS: Final = 4


def enrol(kubectl: Kubectl, ticket: str, *, factor: str, label: str, as_json: bool, resume: bool = False) -> None:
    """Bind an authenticator app by its secret and first code, or a passkey on a page; show the recovery codes.

    Args:
        resume: no new secret, but the first code of the one that was shown before; the ticket is not needed again.

    Raises:
        ElevateError: refused, wrong codes, not reachable, or the person gave up.
    """
    if factor == TOTP:
        name, confirmed = _by_code(kubectl, ticket, label, resume=resume)
    else:
        authenticator = _begin(kubectl, {"type": factor, "name": label, "ticket": ticket})
        name, confirmed = authenticator["metadata"]["name"], _on_page(kubectl, authenticator)
    codes = confirmed["recoveryCodes"]
    if as_json:
        print(json.dumps({"authenticator": name, "recoveryCodes": codes}, indent=2))
        return
    if codes:
        _show_codes(codes)
    if factor != TOTP:
        print(f"Enrolled: {label or name}")
    else:
        print("\nEnrolled. The next code of your app is the first one that you can step up with.")


def _by_code(kubectl: Kubectl, ticket: str, label: str, *, resume: bool) -> tuple[str, dict[str, Any]]:
    if resume:
        name = _pending(kubectl)
    else:
        authenticator = _begin(kubectl, {"type": TOTP, "name": label, "ticket": ticket})
        name, status = authenticator["metadata"]["name"], authenticator["status"]
        _show_secret(status["provisioningURI"], status["secret"])
    try:
        return name, _confirm(kubectl, name)
    except ElevateError as error:
        raise ElevateError(f"{error.message}; {RESUME}", error.exit_code, error.code) from error


def _on_page(kubectl: Kubectl, authenticator: dict[str, Any]) -> dict[str, Any]:
    from webhook.cli import page

    return page.enrol(kubectl, authenticator["metadata"]["name"], authenticator["status"]["enrolmentSecret"])


def _begin(kubectl: Kubectl, spec: dict[str, Any]) -> dict[str, Any]:
    """Start; a further authenticator needs a step-up with one that is there."""
    try:
        return kubectl.create("authenticators", "Authenticator", spec)
    except ElevateError as error:
        if error.code != "step-up-required":
            raise
    say("a further authenticator needs a step-up with one that you have")
    spec["assertion"] = step_up(kubectl, [own(NEW)], "").assertion
    return kubectl.create("authenticators", "Authenticator", spec)


def _show_codes(codes: list[str]) -> None:
    print("\nRecovery codes, each good once, for the day the phone is gone. They are not shown again:\n")
    half = (len(codes) + 1) // 2
    for left, right in zip(codes[:half], [*codes[half:], ""], strict=False):
        print(f"  {left}   {right}")


def _show_secret(uri: str, secret: str) -> None:
    import segno

    say("scan this with your authenticator app, or type the secret below it")
    segno.make(uri, error="m").terminal(out=sys.stderr, compact=True)
    letters = " ".join(secret[start : start + GROUP_LETTERS] for start in range(0, len(secret), GROUP_LETTERS))
    sys.stderr.write(f"\n  {letters}\n\n")
    sys.stderr.flush()


def _pending(kubectl: Kubectl) -> str:
    items = kubectl.get("authenticators")["items"]
    found = [
        one for one in items if one["status"]["phase"] == "Pending" and one.get("spec", {}).get("type", TOTP) == TOTP
    ]
    if not found:
        raise ElevateError("no authenticator of yours waits for its first code; enrol with a ticket", REFUSED)
    return str(found[-1]["metadata"]["name"])


def _confirm(kubectl: Kubectl, name: str) -> dict[str, Any]:
    message, code = "", ""
    for attempt in range(TRIES):
        given, _ = prompt.ask_code_of(("totp",), "First code of the app")
        answer = kubectl.create(f"authenticators/{name}/confirm", "AuthenticatorConfirmation", {"code": given})
        status: dict[str, Any] = answer["status"]
        if status["accepted"]:
            return status
        message, code = status.get("message", "refused"), status.get("code", "")
        wait = int(status.get("retryAfterSeconds") or 0)
        if prompt.is_automatic() or wait > LONGEST_WAIT_SECONDS:
            break
        if attempt + 1 < TRIES:
            say(message)
            time.sleep(wait)
    raise ElevateError(message, WRONG_CODE, code)
