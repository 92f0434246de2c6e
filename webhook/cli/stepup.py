"""`stepup`: the operators' command. Policies are tried and checked here; people's factors are issued and reset."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from webhook.cli import ci, guard, operator, policy
from webhook.cli.exits import ElevateError

app = typer.Typer(
    help="Operate kube-stepup: policies, enrolment tickets, revocation.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(policy.app, name="policy")
app.add_typer(guard.app, name="guard")
app.add_typer(ci.app, name="ci")
operator.add_to(app)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Operate kube-stepup: policies, enrolment tickets, revocation."""
    if version:
        from webhook import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point."""
    try:
        app(prog_name="stepup")
    except ElevateError as error:
        typer.echo(f"stepup: {error.message}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
