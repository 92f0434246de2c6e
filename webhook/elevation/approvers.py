"""Who may approve: a person of their own, with a credential and a factor of their own, and never the one who asks.

A cluster knows names and credentials, not people. What can tell two accounts of one person apart from two people is a
setting (``personKey``); what no cluster can tell is in docs/approvals.md.
"""

from __future__ import annotations

from typing import Any, Final

from webhook.adapters.authenticator_store import PersonRecord
from webhook.core.durations import format_seconds
from webhook.core.identity import SERVICE_ACCOUNT_PREFIX
from webhook.core.request import UserInfo
from webhook.elevation.identity import Requester
from webhook.errors import RequestError

USERNAME: Final = "username"
UID: Final = "uid"
SERVICE_ACCOUNTS_GROUP: Final = "system:serviceaccounts"
MAX_PERSON_LETTERS: Final = 1024

JSON = dict[str, Any]


def person_of(user: UserInfo, key: str) -> str:
    """Who is behind a name, by the field or extra that a setting names; empty where the cluster does not say.

    Args:
        key: ``username``, ``uid``, or a key under ``extra`` (which headers carry in small letters).
    """
    if key == USERNAME:
        return user.username
    found = user.uid if key == UID else user.first_extra(key) or user.first_extra(key.lower())
    return found[:MAX_PERSON_LETTERS]


def check_person(approver: Requester, elevation: JSON, person_key: str) -> None:
    """Refuse whoever cannot be told to be somebody else than the requester.

    Raises:
        RequestError: ``not-a-person``, ``no-credential-id``, ``unknown-person`` or ``own-request``.
    """
    user = approver.user
    if user.username.startswith(SERVICE_ACCOUNT_PREFIX) or SERVICE_ACCOUNTS_GROUP in user.groups:
        raise refusal("a service account cannot approve; approvals are of people", "not-a-person")
    if not approver.credential_id:
        text = "your credential has no id (impersonation has none): approve with your own client certificate or token"
        raise refusal(text, "no-credential-id")
    spec = elevation["spec"]
    asked = spec["user"]
    requester = asked["username"] if person_key == USERNAME else asked.get("person", "")
    mine = person_of(user, person_key)
    if not mine or not requester:
        whose = "the requester's" if mine else "your"
        text = f"the cluster does not say who is behind {whose} name ({person_key})"
        raise refusal(text, "unknown-person")
    pairs = (
        (user.username, asked["username"]),
        (mine, requester),
        (approver.credential_id, spec.get("credentialID", "")),
        (user.uid, asked.get("uid", "")),
    )
    if any(one and one.casefold() == other.casefold() for one, other in pairs):
        raise refusal("this is your own request: somebody else has to approve it", "own-request")


def check_factor_age(record: PersonRecord, factor: str, now: float, min_age_seconds: int) -> None:
    """Refuse a factor that was bound only just now: whoever can enrol must not be able to approve at once.

    Raises:
        RequestError: ``not-enrolled`` or ``factor-too-new``.
    """
    confirmed = [one for one in record.authenticators if one.confirmed]
    if not confirmed:
        raise refusal("an approver needs an authenticator: `kubectl elevate enroll`", "not-enrolled")
    same = [one for one in confirmed if one.type == factor] or confirmed
    age = now - min(one.created_at for one in same)
    if age < min_age_seconds:
        text = f"your authenticator is too new to approve with; it has to be {format_seconds(min_age_seconds)} old"
        raise refusal(text, "factor-too-new")


def refusal(text: str, code: str) -> RequestError:
    """A refusal of an approver."""
    return RequestError(text, code=code, status=403, reason="Forbidden")
