"""A kubectl with a cluster inside: plays the API server's part of an elevation, and the guarded command.

`FAKE_STATE` names a JSON file: what there is, which codes do, what was granted. Each call is added to it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import page  # beside this file: it is run without the site's packages

STATE = Path(os.environ["FAKE_STATE"])
API = "/apis/elevation.kube-stepup.io/v1alpha1/"
COMMAND = "kubectl elevate delete deployments.apps/{name} -n {namespace}"
WEBHOOK = 'admission webhook "guarded.kube-stepup.io" denied the request: '
TEXT = (
    "kube-stepup: delete deployments.apps/{name} in {namespace} needs a step-up"
    " (aal2, at most 5m old, policy production): you have not stepped up. Run:\n  " + COMMAND + "{reason}\n"
)


def fail(text: str) -> Any:
    sys.stderr.write(text)
    sys.exit(1)


def option(arguments: list[str], *names: str) -> str:
    return next((arguments[at + 1] for at, word in enumerate(arguments[:-1]) if word in names), "")


def names_of(arguments: list[str]) -> list[str]:
    return arguments[arguments.index("--") + 1 :] if "--" in arguments else []


def made(state: dict[str, Any], path: str, spec: dict[str, Any]) -> dict[str, Any]:
    if path == "elevationreviews":
        state.setdefault("reviewed", []).append(spec)
        return {"metadata": {}, "status": state["review"]}
    if spec.get("type") == "webauthn":
        if state.get("enrolled") and not spec.get("assertion"):
            fail("Error from server (Forbidden): this needs a step-up (code: step-up-required)\n")
        return {"metadata": {"name": "webauthn-1"}, "status": {"phase": "Pending", "enrolmentSecret": "MINE"}}
    status = {"provisioningURI": "otpauth://totp/x:alice?secret=ABCDEFGH", "secret": "ABCDEFGH", "phase": "Pending"}
    return {"metadata": {"name": "totp-1"}, "status": status}


def approval(state: dict[str, Any], path: str) -> dict[str, Any]:
    """What is said where others have to agree; nothing elsewhere."""
    if path.endswith("/answer") and state.get("approvers"):
        return {"accepted": True, "phase": "AwaitingApproval", "message": "waits for 1 approval"}
    return {"accepted": True, "phase": "Granted"} if path.endswith(("/approve", "/deny")) else {}


def elevation_request(state: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    if not spec["reason"] and state.get("reason"):
        fail(
            "The request is invalid: spec.reason: policy production asks for a reason (--reason) (code: reason-missing)\n"
        )
    state.setdefault("asked", []).append(spec["details"])
    if not state.get("required", True):
        return {"metadata": {}, "spec": spec, "status": {"phase": "NotRequired", **state.get("not_required", {})}}
    challenge = {"acr_values": "aal2", "max_age": 300, "use": "Once", "scope": "Object", "policies": ["production"]}
    challenge["factors"] = state.get("factors", ["totp", "recovery-code"])
    shown = state.get("shown") or spec
    return {"metadata": {"name": "elv-1"}, "spec": shown, "status": {"phase": "Pending", "challenge": challenge}}


def refusal(state: dict[str, Any], path: str, spec: dict[str, Any]) -> dict[str, Any] | None:
    if "page" in spec:
        return page.refusal(state, spec)
    if path.endswith(("/answer", "/confirm")) and spec["code"] not in state.get("codes", []):
        refusals = state.get("refusals") or [{"code": "wrong-code", "message": "that code is wrong"}]
        return {"accepted": False, **refusals[min(len(state["answers"]), len(refusals)) - 1]}
    return None


def create(state: dict[str, Any], path: str, spec: dict[str, Any]) -> dict[str, Any]:
    if state.get("error"):
        fail(state["error"])
    if path == "elevationrequests":
        return elevation_request(state, spec)
    if path in {"elevationreviews", "authenticators"}:
        return made(state, path, spec)
    if path == "pages":
        found = page.created(state, spec)
        return found if found is not None else fail("Error from server (Conflict): there is none (code: no-page)\n")
    state.setdefault("answers", []).append(spec)
    if (refused := refusal(state, path, spec)) is not None:
        return {"metadata": {}, "status": refused}
    if waits := approval(state, path):
        return {"metadata": {}, "status": waits}
    if path.endswith("/answer"):
        for detail in state["asked"][-1]:
            state.setdefault("granted", []).extend(one["name"] for one in detail.get("objects", []))
        more = {"assertion": "SECRET-ASSERTION", "expiresAt": "2026-11-24T12:00:00Z", "elevation": "elv-1"}
        return {"metadata": {}, "status": {"accepted": True, **more}}
    if path.endswith("/confirm"):
        return {"metadata": {}, "status": {"accepted": True, "recoveryCodes": [f"code-{n}" for n in range(10)]}}
    done = {"cleared": True, "removed": True, "elevationsRevoked": 2}
    return {"metadata": {}, "status": {"ticket": "T1", "expiresAt": "later", **done}}


def get(state: dict[str, Any], arguments: list[str]) -> None:
    output = option(arguments, "-o")
    path = arguments[1].removeprefix(API) if arguments[:1] == ["--raw"] else ""
    if path.startswith("approvalrequests/"):
        print(json.dumps(state["approvalrequest"]))
    elif "/" in path:
        statuses = state["approvers"]  # one status a look, the last one for good
        state["looks"] = state.get("looks", 0) + 1
        print(json.dumps({"status": statuses[min(state["looks"], len(statuses)) - 1]}))
    elif path:
        items = state.get(path, [])
        print(json.dumps({"items": items}))
    elif state.get("unreadable"):
        fail("Error from server (Forbidden): deployments.apps is forbidden\n")
    elif output == "jsonpath={.metadata}":
        print(json.dumps(state.get("metadata", {})))
    elif output.startswith("custom-columns"):
        for name in names_of(arguments):
            if name in state["objects"]:
                print(f"{name}   uid-{name}")
    else:
        metadata = [{"name": name, "namespace": "prod", "uid": f"uid-{name}"} for name in state["objects"]]
        print(
            json.dumps(
                {"items": [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": one} for one in metadata]}
            )
        )


def delete(state: dict[str, Any], arguments: list[str]) -> int:
    """The guarded command."""
    namespace = option(arguments, "-n") or state["namespace"] or "default"
    names = [word.partition("/")[2] for word in arguments if word.startswith("deploy/")]
    reason = " --reason '…'" if state.get("reason") else ""
    refused = False
    for name in names:
        if name in state.get("granted", []):
            print(f'deployment.apps "{name}" deleted')
        else:
            text = TEXT.format(name=name, namespace=namespace, reason=reason)
            sys.stderr.write(f"Error from server (Forbidden): {WEBHOOK}{text}")
            refused = True
    if not sys.stdin.isatty() and "-f" in arguments:
        print(f"stdin={sys.stdin.read()!r}")
    return int(refused)


def other(state: dict[str, Any], verb: str, rest: list[str]) -> int:
    """Small commands."""
    if verb == "patch":
        state["patched"] = json.loads(Path(option(rest, "--patch-file")).read_text())
        return int(bool(state.get("unpatchable")))
    namespace = state.get("manifest_namespace")
    if verb == "create" and namespace and "-n" in rest:
        fail(f'error: the namespace from the provided object "{namespace}" does not match the namespace "prod".\n')
    metadata = {"name": "fresh", **({"namespace": namespace} if namespace else {})}
    if verb == "config" and not state["namespace"]:
        fail("error: current-context must exist in order to minify\n")
    answers = {
        "config": state["namespace"],
        "api-resources": "widgets   wd   example.com/v1   true   Widget",
        "__complete": "deploy/web\tdesc\ndeploy/wet\n:4",
        "create": json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}),
    }
    print(answers[verb])
    return 0


def main() -> int:
    state = json.loads(STATE.read_text())
    state.setdefault("calls", []).append(sys.argv[1:])
    verb, *rest = [word for word in sys.argv[1:] if not word.startswith(("--context=", "--as=", "--server="))]
    try:
        if verb == "create" and rest[0] == "--raw":
            body = json.loads(Path(option(rest, "-f")).read_text())
            print(json.dumps(create(state, rest[1].removeprefix(API), body["spec"])))
        elif verb == "get":
            get(state, rest)
        elif verb == "delete" and rest[0] == "--raw":
            state.setdefault("revoked", []).append(rest[1].rpartition("/")[2])
            print("{}")
        elif verb == "delete":
            return delete(state, rest)
        else:
            return other(state, verb, rest)
    finally:
        STATE.write_text(json.dumps(state))
    return 0


if __name__ == "__main__":
    sys.exit(main())
