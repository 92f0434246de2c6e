"""`stepup ticket`, `unlock`, `reset`, `revoke`: what operators do about other people's factors and elevations.

They go through the aggregated API by the operator's own kubectl, so RBAC says who may and the audit says who did.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

import typer

from webhook.cli import flags
from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.kubectl import Kubectl

KubectlFlags = Annotated[
    list[str] | None,
    typer.Option("--kubectl", metavar="FLAG", help="A global flag for kubectl, such as --kubectl=--context=prod."),
]
Username = Annotated[str, typer.Argument(help="The name that the cluster knows the person by.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command()(ticket)
    app.command()(unlock)
    app.command()(reset)
    app.command()(revoke)


def ticket(
    username: Username,
    ttl: Annotated[str, typer.Option(help="How long it is good: 10m, 1h … at most 24h.")] = "1h",
    kubectl: KubectlFlags = None,
) -> None:
    """Issue a one-time ticket with which somebody binds their first authenticator."""
    from webhook.core.durations import parse_seconds

    try:
        seconds = parse_seconds(ttl)
    except ValueError as error:
        raise ElevateError(f"--ttl: {error}", USAGE) from error
    spec = {"username": username, "ttlSeconds": seconds}
    status = kubectl_with(kubectl).create("enrollmenttickets", "EnrollmentTicket", spec)["status"]
    typer.echo(status["ticket"])
    typer.echo(
        f"For {username}, once, until {status['expiresAt']}: kubectl elevate enroll --ticket {status['ticket']}",
        err=True,
    )


def unlock(username: Username, kubectl: KubectlFlags = None) -> None:
    """Forget somebody's wrong codes, so that they need not wait."""
    status = kubectl_with(kubectl).create("authenticatorunlocks", "AuthenticatorUnlock", {"username": username})[
        "status"
    ]
    typer.echo(f"{username}: cleared" if status["cleared"] else f"{username}: there was nothing to clear")


def reset(username: Username, kubectl: KubectlFlags = None) -> None:
    """Remove all authenticators and tickets of somebody, and revoke their elevations; they enrol with a new ticket."""
    status = kubectl_with(kubectl).create("authenticatorresets", "AuthenticatorReset", {"username": username})["status"]
    revoked = status.get("elevationsRevoked", 0)
    ended = f", {revoked} elevation{'' if revoked == 1 else 's'} revoked" if revoked else ""
    typer.echo(f"{username}: {'removed' if status['removed'] else 'had none'}{ended}")


def revoke(
    names: Annotated[list[str] | None, typer.Argument(metavar="ELEVATION...")] = None,
    user: Annotated[str, typer.Option(help="All that are in force of this person.")] = "",
    kubectl: KubectlFlags = None,
) -> None:
    """Revoke anybody's elevations, by name or by person."""
    client = kubectl_with(kubectl)
    chosen = list(names or [])
    if user:
        label = f"kube-stepup.io/user={hashlib.sha256(user.encode()).hexdigest()[:40]}"
        listed = client.run("get", "elevations.kube-stepup.io", "-l", label, "-o", "json")
        if listed.returncode != 0:
            raise ElevateError(listed.stderr.strip())
        live = {"Granted", "Used", "Pending", ""}
        items = json.loads(listed.stdout)["items"]
        chosen += [one["metadata"]["name"] for one in items if (one.get("status") or {}).get("phase", "") in live]
    elif not chosen:
        raise ElevateError("name the elevations to revoke, or say --user", USAGE)
    for name in chosen:
        client.create(f"elevationrequests/{name}/revoke", "ElevationRevocation", {})
        typer.echo(f"{name} revoked")
    if not chosen:
        typer.echo(f"{user}: no elevations in force")


def kubectl_with(given: list[str] | None) -> Kubectl:
    """The operator's kubectl, with the global flags that were given.

    Raises:
        ElevateError: one is no global flag.
    """
    return Kubectl(kubectl_flags(given))


def kubectl_flags(given: list[str] | None) -> tuple[str, ...]:
    """The global flags that were given.

    Raises:
        ElevateError: one is none.
    """
    found = flags.split(given or [])
    if found.rest or found.namespace:
        # Left out, it would be another cluster that is operated on.
        raise ElevateError(f"--kubectl: {' '.join(found.rest) or '--namespace'} is no global flag of kubectl's", USAGE)
    return tuple(found.flags)
