"""`kubectl elevate explain`: which policies ask for what before a thing is done, which do not and why, and what is proven already."""

from __future__ import annotations

import json
from typing import Any, Final

from webhook.cli.elevation import kind_of, printable
from webhook.cli.kubectl import Kubectl
from webhook.cli.targets import Wanted, details_of

JSON = dict[str, Any]
_SECONDS_OF: Final = (("h", 3600), ("m", 60))
# What is applied is a copy of the whole object, a Secret's data among it; no condition can want it.
_LEFT_OUT: Final = "kubectl.kubernetes.io/last-applied-configuration"
MOST_METADATA_LETTERS: Final = 64 * 1024


def explain(kubectl: Kubectl, wanted: Wanted, *, as_json: bool) -> None:
    """Ask the elevation service what policies say to what is wanted, and tell it; nothing is stored, no code is asked for.

    Raises:
        ElevateError: it is not clear what is meant, or the service cannot be asked.
    """
    details = details_of(wanted, kubectl)
    spec: JSON = {"details": details}
    if (known := _metadata(kubectl, details)) is not None:
        spec["object"] = known
    status = kubectl.create("elevationreviews", "ElevationReview", spec)["status"]
    if as_json:
        print(json.dumps(status, indent=2))
        return
    for line in lines(status):
        print(printable(line))


def lines(status: JSON) -> list[str]:
    """An answer for people."""
    found: list[str] = []
    for action in status["actions"]:
        where = f" in {action['namespace']}" if action.get("namespace") else ""
        found.append(f"{action['operation']} {kind_of(action)}/{action['name']}{where}: {_verdict(action)}")
        for policy in action["policies"]:
            found += _policy(policy)
    return found


def _verdict(action: JSON) -> str:
    if not action["required"]:
        return "no step-up is needed"
    return "needs a step-up, and one that you have does" if action["satisfied"] else "needs a step-up"


def _policy(policy: JSON) -> list[str]:
    head = f"  policy {policy['policy']}"
    notes = [f"      {note}" for note in policy["notes"]]
    if policy["verdict"] not in {"applies", "condition"}:
        return [f"{head}: asks for nothing: {policy['why']}", *notes]
    found = [head + (" (only warns)" if policy["enforcement"] == "Warn" else "")]
    for rule in policy["rules"]:
        applies = rule["verdict"] == "applies"
        takes = f"takes {_takes(rule['requires'])}" if applies else "does not apply"
        found.append(f"    rule {rule['rule']}: {takes}: {rule['why']}")
        found += [
            f"      {one['field']} is {one['value']}{': ' + one['problem'] if one.get('problem') else ''}"
            for one in rule.get("conditions") or []
        ]
        if policy["enforcement"] == "Deny" and "satisfied" in rule:
            found.append(f"      {_proof(rule)}")
    return [*found, *notes]


def _proof(rule: JSON) -> str:
    if not rule["satisfied"]:
        return f"not proven: {rule['problem']['message']}"
    only = ", for the change that it was given for" if rule.get("onlyForItsChange") else ""
    return f"proven: by {rule['elevation']}{only}"


def _takes(requires: JSON) -> str:
    reason = requires["reason"]
    why = f"a reason that matches {' and '.join(reason['patterns'])}" if reason["patterns"] else "a reason"
    used = "once" if requires["use"] == "Once" else "any number of times"
    parts = [requires["acr_values"], f"at most {_duration(requires['max_age'])} old", f"good {used}"]
    parts.append(f"scope {requires['scope']}")
    return ", ".join([*parts, why] if reason["required"] else parts)


def _duration(seconds: int) -> str:
    for unit, size in _SECONDS_OF:
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _metadata(kubectl: Kubectl, details: list[JSON]) -> JSON | None:
    """Labels and annotations of the one object, where there is one and the person may read it; never its contents."""
    names = {
        (one.get("namespace", ""), kind_of(one), two["name"]) for one in details for two in one.get("objects") or []
    }
    if len(names) != 1:
        return None
    ((namespace, kind, name),) = names
    where = ["-n", namespace] if namespace else []
    result = kubectl.run("get", kind, *where, "--ignore-not-found", "-o", "jsonpath={.metadata}", "--", name)
    if result.returncode != 0 or not result.stdout.strip():
        return None
    try:
        metadata = json.loads(result.stdout)
    except ValueError:
        return None
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _LEFT_OUT}
    found = {"labels": metadata.get("labels") or {}, "annotations": annotations}
    return found if len(json.dumps(found)) <= MOST_METADATA_LETTERS else None
