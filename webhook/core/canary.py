"""The canary: a dry run by which the controller sees which webhook configuration the API server has loaded.

It is a patch of a policy's status that changes nothing and is never stored. Its field manager names the configuration;
the API server asks us about it only if that is the one it has (a match condition), and our answer says it back as a
warning. So one request shows that the entry is loaded, that we are reached by it, and that we answer.
"""

from __future__ import annotations

from typing import Final

import msgspec

from webhook.core.request import AdmissionRequest

MANAGER_PREFIX: Final = "kube-stepup-canary-"
_SEEN: Final = "kube-stepup has seen canary "


class _Options(msgspec.Struct, rename="camel"):
    field_manager: str = ""


def field_manager(configuration: str) -> str:
    """The field manager of a canary for a configuration (its digest)."""
    return MANAGER_PREFIX + configuration


def seen(configuration: str) -> str:
    """What a server answers that was asked about a canary."""
    return _SEEN + configuration


def configuration_of(request: AdmissionRequest) -> str:
    """The configuration that a canary is about; empty when the request is none. Only a dry run can be one."""
    resource = request.resource
    if not request.dry_run or request.sub_resource != "status" or resource.resource != "stepuppolicies":
        return ""
    try:
        manager = msgspec.json.decode(request.options, type=_Options).field_manager
    except msgspec.MsgspecError:
        return ""
    return manager.removeprefix(MANAGER_PREFIX) if manager.startswith(MANAGER_PREFIX) else ""
