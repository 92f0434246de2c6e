"""`kubectl elevate`: fresh proof for one operation, in one command and six digits.

kubectl elevate -- kubectl delete deploy/web -n prod       run it; step up if it is refused; run it again
kubectl elevate delete deploy/web -n prod                  step up beforehand
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

from webhook.cli import flags
from webhook.cli.exits import INTERRUPTED, OK, TABLE, USAGE, ElevateError
from webhook.cli.kubectl import Kubectl
from webhook.cli.targets import OPERATIONS, Wanted, operations_of

COMPLETE_VARIABLE: Final = "_KUBECTL_ELEVATE_COMPLETE"
RAW_COMMAND: Final = "raw"  # stands for `update:cnpg.io/clusters` and the like, which have too many names to list
RAW_FORM: Final = "VERB:GROUP/RESOURCE, such as kubectl elevate update:cnpg.io/clusters clusters.cnpg.io/db"
FACTORS: Final = ("webauthn", "totp", "recovery-code")
ENROLLED: Final = ("totp", "webauthn")
CARRIERS: Final = ("auto", "record", "annotation")
HELP: Final = f"""Fresh proof for what a policy guards: one command, six digits.

kubectl elevate -- kubectl delete deploy/web -n prod

kubectl elevate delete deploy/web -n prod --reason OPS-7

kubectl's own flags (--context, --kubeconfig, --as, -n …) are passed on to it. {TABLE}"""


def _targets(context: typer.Context, incomplete: str) -> list[str]:
    from webhook.cli.completion import targets

    return targets(_kubectl(), _Run.namespace, context.params.get("targets") or [], incomplete)


Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="TARGET...", help="deploy/web, or deploy web db", autocompletion=_targets),
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; recorded, and demanded by some policies.")]
Change = Annotated[str, typer.Option("--change", help="Digest of the change, as the refusal names it.")]
Shows = Annotated[
    list[str] | None, typer.Option("--shows", help="What the change is, as the refusal words it; approvers read it.")
]
Scope = Annotated[str, typer.Option("--scope", help="object, resource (a kind in a namespace) or namespace.")]
Selector = Annotated[str, typer.Option("--selector", "-l", help="Objects by label.")]
Files = Annotated[list[str] | None, typer.Option("--filename", "-f", help="Objects of a manifest.")]
Carrier = Annotated[str, typer.Option("--carrier", help="auto, record or annotation: where the assertion is put.")]
Factor = Annotated[str, typer.Option("--factor", help="webauthn, totp or recovery-code; the best one here by default.")]
Output = Annotated[str, typer.Option("--output", "-o", help="json for one machine-readable object.")]

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


class _Run:
    """What kubectl's flags of this run say; set before a command begins."""

    flags: tuple[str, ...] = ()
    namespace: str = ""
    command: tuple[str, ...] = ()


def _kubectl() -> Kubectl:
    return Kubectl(_Run.flags)


def _check_factor(factor: str, allowed: tuple[str, ...]) -> None:
    if factor and factor not in allowed:
        raise ElevateError(f"--factor: must be one of {', '.join(allowed)}", USAGE)


def _is_json(output: str) -> bool:
    if output not in {"", "json"}:
        raise ElevateError("-o: must be json", USAGE)
    return output == "json"


def _wanted(
    operations: tuple[str, ...],
    targets: list[str] | None,
    change: str,
    scope: str,
    selector: str,
    files: list[str] | None,
) -> Wanted:
    from webhook.cli.targets import SCOPES

    if scope not in SCOPES:
        raise ElevateError(f"--scope: must be one of {', '.join(SCOPES)}", USAGE)
    return Wanted(
        operations=operations,
        targets=tuple(targets or ()),
        namespace=_Run.namespace,
        changes=tuple(change.split(",")) if change else (),
        scope=scope,
        selector=selector,
        files=tuple(files or ()),
    )


def _elevate(  # one set of options for all five operations
    operations: str,
    targets: list[str] | None,
    reason: str,
    change: str,
    shows: list[str] | None,
    scope: str,
    selector: str,
    files: list[str] | None,
    carrier: str,
    factor: str,
    output: str,
) -> None:
    from dataclasses import replace

    from webhook.cli.elevation import annotate, can_be_annotated, say, step_up
    from webhook.cli.targets import PLACEHOLDER, details_of

    if carrier not in CARRIERS:
        raise ElevateError(f"--carrier: must be one of {', '.join(CARRIERS)}", USAGE)
    as_json = _is_json(output)
    _check_factor(factor, FACTORS)
    wanted = replace(
        _wanted(operations_of(operations), targets, change, scope, selector, files), shows=tuple(shows or ())
    )
    kubectl = _kubectl()
    details = details_of(wanted, kubectl)
    result = step_up(kubectl, details, "" if reason == PLACEHOLDER else reason, factor)
    if result.assertion and can_be_annotated(details, carrier):
        result = replace(result, annotated=annotate(kubectl, details, result.assertion))
    if result.assertion and carrier == "annotation" and not result.annotated:
        say("it could not be put on the object; its record carries it all the same")
    if as_json:
        print(result.to_json())
    elif not result.name:
        say(f"{result.why_not}; just do it")
    else:
        say(f"stepped up until {result.expires_at} to {wanted.described()}")


def _add(operation: str, *, hidden: bool = False) -> None:
    @app.command(operation, help=f"Step up to {operation}.", hidden=hidden)
    def step(
        targets: Targets = None,
        reason: Reason = "",
        change: Change = "",
        shows: Shows = None,
        scope: Scope = "object",
        selector: Selector = "",
        filename: Files = None,
        carrier: Carrier = "auto",
        factor: Factor = "",
        output: Output = "",
    ) -> None:
        operations = typer_operations or operation
        if not operations_of(operations):
            raise ElevateError(f"name it: {RAW_FORM}", USAGE)
        _elevate(operations, targets, reason, change, shows, scope, selector, filename, carrier, factor, output)


typer_operations = ""
for _operation in OPERATIONS:
    _add(_operation)
_add(RAW_COMMAND, hidden=True)


@app.command("run", hidden=True)
def run_command(reason: Reason = "", carrier: Carrier = "auto", factor: Factor = "") -> None:
    """Run a command, stepping up when it is refused (`kubectl elevate -- COMMAND`)."""
    from webhook.cli import wrapper

    if not _Run.command:
        raise ElevateError("what is to be run? kubectl elevate -- COMMAND", USAGE)
    _check_factor(factor, FACTORS)
    own = [*_Run.flags, *([f"--namespace={_Run.namespace}"] if _Run.namespace else [])]
    raise typer.Exit(wrapper.run(_Run.command, reason=reason, carrier=carrier, factor=factor, own_flags=own))


@app.command()
def explain(
    operation: Annotated[str, typer.Argument(help="One of the operations above, or several with commas.")],
    targets: Targets = None,
    change: Change = "",
    scope: Scope = "object",
    selector: Selector = "",
    filename: Files = None,
    output: Output = "",
) -> None:
    """Which policies would ask you for a step-up, by which rule, for what; and which do not, and why."""
    from webhook.cli.reviews import explain as tell

    operations = operations_of(operation)
    if not operations:
        raise ElevateError(f"{operation!r} is no operation; they are {', '.join(OPERATIONS)}", USAGE)
    wanted = _wanted(operations, targets, change, scope, selector, filename)
    tell(_kubectl(), wanted, as_json=_is_json(output))


@app.command()
def enroll(
    ticket: Annotated[str, typer.Option(help="The one-time ticket that an operator gave you, for the first one.")] = "",
    factor: Annotated[
        str, typer.Option(help="totp (an authenticator app) or webauthn (a passkey or security key).")
    ] = "totp",
    name: Annotated[str, typer.Option(help="What you call it.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Give the first code of the secret that was shown.")] = False,
    output: Output = "",
) -> None:
    """Bind an authenticator app (a QR code, one code) or a passkey (on a page); the first gives ten recovery codes."""
    from webhook.cli.enrol import enrol

    if resume and ticket:
        raise ElevateError("--resume needs no ticket, and spends none", USAGE)
    _check_factor(factor, ENROLLED)
    enrol(_kubectl(), ticket, factor=factor, label=name, as_json=_is_json(output), resume=resume)


@app.command()
def factors(
    action: Annotated[str, typer.Argument(metavar="[remove NAME]", help="Without it, they are listed.")] = "",
    name: Annotated[str, typer.Argument(metavar="", help="Its name, or what you call it.")] = "",
    last: Annotated[bool, typer.Option("--yes-the-last", help="Remove it even if it is the last one.")] = False,
    factor: Factor = "",
    output: Output = "",
) -> None:
    """Your authenticators: list them, or remove one (which needs a step-up)."""
    from webhook.cli import factors as mine

    _check_factor(factor, FACTORS)
    if not action:
        mine.show(_kubectl(), as_json=_is_json(output))
    elif action == "remove" and name:
        mine.remove(_kubectl(), name, factor=factor, last=last)
    else:
        raise ElevateError("kubectl elevate factors [remove NAME]", USAGE)


@app.command()
def page() -> None:
    """See your factors and elevations in the browser."""
    from webhook.cli import page as pages

    pages.home(_kubectl())


@app.command()
def status(output: Output = "") -> None:
    """Are you enrolled, and which elevations are in force?"""
    from webhook.cli import records

    records.status(_kubectl(), as_json=_is_json(output))


@app.command("list")
def list_all(output: Output = "") -> None:
    """Your elevations on record."""
    from webhook.cli import records

    records.show_all(_kubectl(), as_json=_is_json(output))


@app.command()
def revoke(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are in force.")] = False,
) -> None:
    """Revoke elevations of yours before they expire."""
    from webhook.cli import records

    records.revoke(_kubectl(), names or [], everything=everything)


def _add_approving() -> None:
    from webhook.cli.approving import add_to

    add_to(app, _kubectl, _is_json)


_add_approving()


@app.command()
def completion(shell: Annotated[str, typer.Argument(help="bash, zsh, fish or powershell")]) -> None:
    """Print a completion script for `kubectl-elevate`; `kubectl elevate` is completed by kubectl's own completion."""
    from webhook.cli.completion import SHELLS, script

    if shell not in SHELLS:
        raise ElevateError(f"must be {', '.join(SHELLS[:-1])} or {SHELLS[-1]}", USAGE)
    print(script(shell))


@app.command()
def version() -> None:
    """Print the version."""
    from webhook import __version__

    print(__version__)


def main() -> None:
    """Entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run with arguments; the exit code (see ``exits``)."""
    try:
        if arguments[:1] == ["__complete"] or COMPLETE_VARIABLE in os.environ:
            return _complete(arguments)
        return _run(arguments)
    except ElevateError as error:
        sys.stderr.write(f"kube-stepup: {error.message}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    global typer_operations  # noqa: PLW0603 - `scale,deploy` is two commands at once, which typer has no word for
    if "--version" in arguments[:1]:
        arguments = ["version"]
    words = arguments
    command: tuple[str, ...] = ()
    if "--" in arguments:
        at = arguments.index("--")
        words, command = arguments[:at], tuple(arguments[at + 1 :])
    taken = flags.split(words)
    _Run.flags, _Run.namespace, _Run.command = taken.flags, taken.namespace, command
    rest = list(taken.rest)
    typer_operations = ""
    if command:
        rest = ["run", *rest]
    elif rest and ("," in rest[0] or ":" in rest[0]) and operations_of(rest[0]):
        typer_operations = rest[0]
        first = operations_of(rest[0])[0]
        rest[0] = first if first in OPERATIONS else RAW_COMMAND
    try:
        result = app(rest, prog_name="kubectl elevate", standalone_mode=False)
    except typer.Exit as end:
        return int(end.exit_code)
    except typer.Abort:
        return INTERRUPTED
    except ElevateError:
        raise
    except Exception as error:
        shown = getattr(error, "show", None)  # usage errors know how to show themselves
        if shown is None:
            raise
        shown()
        return USAGE
    return result if isinstance(result, int) else OK


def _complete(arguments: list[str]) -> int:
    import contextlib
    import io

    from webhook.cli import completion

    words = completion.prepare(arguments)
    _Run.flags, _Run.namespace = words.flags, words.namespace
    found = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(found):
        app([], prog_name="kubectl-elevate", complete_var=COMPLETE_VARIABLE)
    sys.stdout.write("".join(line for line in found.getvalue().splitlines(keepends=True) if line.strip()))
    if arguments[:1] == ["__complete"]:
        print(completion.NO_FILES)
    return OK


if __name__ == "__main__":
    main()
