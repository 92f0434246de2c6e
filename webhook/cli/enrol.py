"""`kubectl elevate enroll`: bind an authenticator app, and show ten recovery codes once."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

from webhook.cli import prompt
from webhook.cli.elevation import say
from webhook.cli.exits import REFUSED, WRONG_CODE, ElevateError
from webhook.cli.kubectl import Kubectl

TRIES: Final = 8  # the service makes one wait after three, twice as long each time
LONGEST_WAIT_SECONDS: Final = 60
RESUME: Final = "the secret stays good for 15 minutes: `kubectl elevate enroll --resume` asks for its first code again"
GROUP_LETTERS: Final = 4


def enrol(kubectl: Kubectl, ticket: str, *, as_json: bool, resume: bool = False) -> None:
    """Ask for a secret, show it, take the first code, show the recovery codes.

    Args:
        resume: no new secret, but the first code of the one that was shown before; the ticket is not needed again.

    Raises:
        ElevateError: refused, wrong codes, not reachable, or the person gave up.
    """
    if resume:
        name = _pending(kubectl)
    else:
        authenticator = kubectl.create("authenticators", "Authenticator", {"type": "totp", "ticket": ticket})
        name, status = authenticator["metadata"]["name"], authenticator["status"]
        _show_secret(status["provisioningURI"], status["secret"])
    try:
        confirmed = _confirm(kubectl, name)
    except ElevateError as error:
        raise ElevateError(f"{error.message}; {RESUME}", error.exit_code, error.code) from error
    codes = confirmed["recoveryCodes"]
    if as_json:
        print(json.dumps({"authenticator": name, "recoveryCodes": codes}, indent=2))
        return
    print("\nRecovery codes, each good once, for the day the phone is gone. They are not shown again:\n")
    half = (len(codes) + 1) // 2
    for left, right in zip(codes[:half], [*codes[half:], ""], strict=False):
        print(f"  {left}   {right}")
    print("\nEnrolled. The next code of your app is the first one that you can step up with.")


def _show_secret(uri: str, secret: str) -> None:
    import segno

    say("scan this with your authenticator app, or type the secret below it")
    segno.make(uri, error="m").terminal(out=sys.stderr, compact=True)
    letters = " ".join(secret[start : start + GROUP_LETTERS] for start in range(0, len(secret), GROUP_LETTERS))
    sys.stderr.write(f"\n  {letters}\n\n")
    sys.stderr.flush()


def _pending(kubectl: Kubectl) -> str:
    found = [one for one in kubectl.get("authenticators")["items"] if one["status"]["phase"] == "Pending"]
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
