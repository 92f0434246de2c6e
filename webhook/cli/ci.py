"""`stepup ci elevate -- COMMAND`: what `kubectl elevate -- COMMAND` is for people, for pipelines: nobody is asked for anything."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from webhook.cli.elevation import SteppedUp, described, printable, say
from webhook.cli.exits import REFUSED, USAGE, ElevateError
from webhook.cli.kubectl import Kubectl
from webhook.cli.operator import KubectlFlags, kubectl_flags
from webhook.cli.pipeline_tokens import Source, source_of
from webhook.cli.waiting import APPROVED, AWAITING, wait_for_approval

SCOPES: Final = ("object", "namespace")

app = typer.Typer(help="Steps up in a pipeline, by its own token (docs/ci.md).", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Step up in a pipeline, by its own token (docs/ci.md)."""


@app.command()
def elevate(
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What is to be run.")] = None,
    audience: Annotated[str, typer.Option(help="The cluster's name, which the token is to be for.")] = "",
    issuer: Annotated[
        str, typer.Option(help="Where the token is from: auto, github, gitlab, buildkite, env, file, pod.")
    ] = "auto",
    token_env: Annotated[
        list[str] | None, typer.Option("--token-env", metavar="NAME", help="A variable with a token; may be repeated.")
    ] = None,
    token_file: Annotated[str, typer.Option("--token-file", help="A file with a token, read for each exchange.")] = "",
    scope: Annotated[
        str,
        typer.Option(help="object, or namespace: one exchange for all that is done there, where policies allow it."),
    ] = "object",
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; recorded, and demanded by some policies.")] = "",
    kubectl: KubectlFlags = None,
) -> None:
    """Run a command; where it is refused, exchange the pipeline's token for a proof, and run it again."""
    from webhook.cli import wrapper

    if not command:
        raise ElevateError("what is to be run? stepup ci elevate --audience CLUSTER -- COMMAND", USAGE)
    if scope not in SCOPES:
        raise ElevateError(f"--scope: must be {' or '.join(SCOPES)}", USAGE)
    source = source_of(issuer, audience, token_env or [], token_file)
    code = wrapper.run(
        command,
        reason=reason,
        carrier="record",
        own_flags=kubectl_flags(kubectl),
        prove=Exchanges(source, whole_namespace=scope == SCOPES[1]),
    )
    raise typer.Exit(code)


class Exchanges:
    """Proves by exchanging tokens of a source, one for each proof.

    Args:
        whole_namespace: prove each operation for all of its namespace, so that one token does for a command.
    """

    def __init__(self, source: Source, *, whole_namespace: bool = False) -> None:
        self._source = source
        self._whole_namespace = whole_namespace

    def __call__(self, kubectl: Kubectl, details: list[dict[str, Any]], reason: str) -> SteppedUp:
        """Prove what is to be done.

        Raises:
            ElevateError: there is no token, or it does not do.
        """
        details = _widened(details) if self._whole_namespace else details
        token = self._source()
        spec = {"details": details, "reason": reason, **({"subjectToken": token} if token else {})}
        status = kubectl.create("tokenexchanges", "TokenExchange", spec)["status"]
        if status["phase"] == "NotRequired":
            return SteppedUp(why_not=printable(status.get("message") or "no policy asks for a step-up here"))
        for line in described({"spec": spec, "status": status}):
            say(line)
        if status.get("notMet"):
            say(f"policy {printable(', '.join(status['notMet']))} takes no such pipeline: a person may have to step up")
        if status["phase"] == AWAITING:
            status = {**status, **wait_for_approval(kubectl, status["elevation"], status.get("message", ""))}
        if status["phase"] == APPROVED:
            text = "it was approved when the pipeline's proof was too old already; run it again, or have maxAge longer"
            raise ElevateError(text, REFUSED, "authentication-too-old")
        return SteppedUp(status["elevation"], status["expiresAt"], status.get("assertion", ""), status["challenge"])


def _widened(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pairs = dict.fromkeys((one["operation"], one["namespace"]) for one in details if one.get("namespace"))
    wide = [{"operation": operation, "namespace": name, "scope": "Namespace"} for operation, name in pairs]
    return [*wide, *(one for one in details if not one.get("namespace"))]
