"""What a refused person reads, and what a program finds in ``status.details``.

The text names what is needed, what came closest, and the line to run; it discloses nothing that the person could not
know. The challenge uses RFC 9470's terms: ``insufficient_user_authentication``, ``acr_values``, ``max_age``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any, Final

from webhook.core.applicable import Demand
from webhook.core.decision import Decision
from webhook.core.operation import CHANGE_PREFIX_LENGTH, DELETE, Action
from webhook.core.requirement import Challenge, merged

CHALLENGE: Final = "insufficient_user_authentication"  # RFC 9470 section 3


def command(actions: Sequence[Action], challenge: Challenge) -> str:
    """The one line that a person runs to step up for all effects of a request; they share their target."""
    target = actions[0].target
    words = ["kubectl", "elevate", ",".join(action.operation for action in actions), target.argument]
    if target.namespace:
        words += ["-n", target.namespace]
    changes = [_change(action) for action in actions]
    if any(changes):
        words += ["--change", ",".join(change or "-" for change in changes)]
    if any(changes) and challenge.approvals:
        # Approvers are shown what exactly it is, and what they were shown has to be what is done.
        words += [word for action in actions if _change(action) for word in ("--shows", action.shown or "…")]
    if challenge.reason_required:
        words += ["--reason", "…"]
    return shlex.join(words)


def message(decision: Decision) -> str:
    """The text of a refusal: what needs what, why not, and the line to run."""
    return f"kube-stepup: {_needs(decision.unmet, 'needs')}: {decision.message}. Run:\n  {_command(decision.unmet)}"


def warning(decision: Decision) -> str:
    """The text of a warning: what an enforcing policy would have refused."""
    policies = {demand.requirement.policy: None for demand in decision.would_deny}
    return f"kube-stepup: {_needs(decision.would_deny, 'would need')}: {only_warns(policies)}"


def only_warns(policies: Iterable[str]) -> str:
    """That a person has nothing to do about these policies."""
    names = sorted(policies)
    return f"polic{'y' if len(names) == 1 else 'ies'} {', '.join(names)} only warn{'s' if len(names) == 1 else ''}; nothing is needed"


def causes(decision: Decision) -> list[dict[str, str]]:
    """``status.details.causes``: the challenge for programs."""
    challenge = merged(demand.requirement for demand in decision.unmet)
    found = [
        _cause("code", decision.code),
        _cause("acr_values", challenge.assurance),
        *([_cause("phishing_resistant", "true")] if challenge.phishing_resistant else []),
        _cause("max_age", str(challenge.max_age_seconds)),
        _cause("policies", ",".join(challenge.policies)),
    ]
    if challenge.reason_required:
        found.append(_cause("reason", " ".join(challenge.reason_patterns) or "required"))
    if challenge.approvals:
        found.append(_cause("approvals", ", ".join(one.describe() for one in challenge.approvals)))
    return [*found, _cause("command", _command(decision.unmet))]


def audit_annotations(decision: Decision) -> dict[str, str]:
    """What the API server writes into its own audit log with the request."""
    found: dict[str, Any] = {
        "code": decision.code,
        "operations": ",".join(sorted({action.operation for action in decision.actions})),
        "policies": ",".join(decision.applicable.policies),
    }
    claims = list({one.claims.jti: one.claims for one in decision.satisfied}.values())
    if claims:
        found["jti"] = ",".join(one.jti for one in claims)
        found["acr"] = ",".join(one.acr for one in claims)
        found["amr"] = ",".join(" ".join(one.amr) for one in claims)
        found["reason"] = " | ".join(one.reason for one in claims if one.reason)
        found["approvers"] = ",".join(dict.fromkeys(one.by for claim in claims for one in claim.approvals))
    if decision.applicable.broken_by:
        found["break-glass"] = ",".join(decision.applicable.broken_by)
    if decision.would_deny:
        found["would-deny"] = ",".join(sorted({demand.requirement.policy for demand in decision.would_deny}))
    return {key: value for key, value in found.items() if value}


def _needs(demands: Sequence[Demand], verb: str) -> str:
    challenge = merged(demand.requirement for demand in demands)
    operations = " and ".join(dict.fromkeys(demand.action.operation for demand in demands))
    return f"{operations} {demands[0].action.target.describe()} {verb} a step-up ({challenge.describe()})"


def _command(demands: Sequence[Demand]) -> str:
    actions = {demand.action.operation: demand.action for demand in demands}
    return command(list(actions.values()), merged(demand.requirement for demand in demands))


def _change(action: Action) -> str:
    """The digest that a step-up is bound to; empty where it says nothing, or would be another at the next try."""
    return action.change[:CHANGE_PREFIX_LENGTH] if action.repeatable and action.operation != DELETE else ""


def _cause(field: str, text: str) -> dict[str, str]:
    return {"reason": CHALLENGE, "field": field, "message": text}
