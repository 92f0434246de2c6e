"""Where a pipeline's token comes from: GitHub Actions, Buildkite, variables (GitLab), a file, or nowhere (a pod's own account).

A token is good for one exchange, so each is asked for anew, or taken from a list that is used up. None is ever printed, put
on a command line, or left in the environment of the command that is run.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from webhook.cli.exits import FAILED, REFUSED, USAGE, ElevateError

GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 - the name of a variable
DEFAULT_VARIABLE: Final = "STEPUP_ID_TOKEN"
SOURCES: Final = ("auto", "github", "gitlab", "buildkite", "env", "file", "pod")
TIMEOUT_SECONDS: Final = 15
MAX_ANSWER_BYTES: Final = 64 * 1024

Source = Callable[[], str]
"""Gives the next token; an empty one where the Kubernetes credential is the pipeline's own."""


def source_of(kind: str, audience: str, variables: Sequence[str], file: str) -> Source:
    """The source of tokens.

    Args:
        kind: one of ``SOURCES``.
        audience: what the tokens are for, where they can be asked for it.
        variables: names of environment variables, each with one token.

    Raises:
        ElevateError: it cannot be had here.
    """
    if kind not in SOURCES:
        raise ElevateError(f"--issuer: must be one of {', '.join(SOURCES)}", USAGE)
    kind = _found(variables, file) if kind == "auto" else kind
    if kind == "github":
        return _github(audience)
    if kind == "buildkite":
        return _buildkite(audience)
    if kind == "file":
        return _file(file)
    return _variables(variables) if kind in {"gitlab", "env"} else lambda: ""


def _found(variables: Sequence[str], file: str) -> str:
    if file:
        return "file"
    if variables or os.environ.get(DEFAULT_VARIABLE):
        return "env"
    if os.environ.get(GITHUB_URL):
        return "github"
    if os.environ.get("BUILDKITE") == "true":
        return "buildkite"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "pod"
    raise ElevateError(
        "no token of this pipeline is at hand. GitHub Actions: permissions: {id-token: write}. GitLab: id_tokens:"
        f" {DEFAULT_VARIABLE}. Elsewhere: --token-env or --token-file",
        USAGE,
    )


def _audience(audience: str) -> str:
    if not audience:
        raise ElevateError("--audience: is required, the clusterName that kube-stepup was installed with", USAGE)
    return audience


def _github(audience: str) -> Source:
    url, bearer = os.environ.get(GITHUB_URL, ""), os.environ.get(GITHUB_TOKEN, "")
    if not url or not bearer:
        raise ElevateError("GitHub gives this job no token: it needs permissions: {id-token: write}", USAGE)
    if urlsplit(url).scheme != "https":
        raise ElevateError(f"{GITHUB_URL} is no https:// URL", USAGE)
    whole = f"{url}{'&' if '?' in url else '?'}audience={quote(_audience(audience), safe='')}"

    def fetch() -> str:
        asked = urllib.request.Request(whole, headers={"Authorization": f"bearer {bearer}"})  # noqa: S310 - https, above
        try:
            with urllib.request.build_opener(_NoRedirect).open(asked, timeout=TIMEOUT_SECONDS) as answer:
                value = json.loads(answer.read(MAX_ANSWER_BYTES))["value"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ElevateError(f"GitHub gave no token ({type(error).__name__})", FAILED) from error
        return _checked(value)

    return fetch


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Nowhere: the bearer token is for this host alone."""


def _buildkite(audience: str) -> Source:
    command = ["buildkite-agent", "oidc", "request-token", "--audience", _audience(audience)]

    def ask() -> str:
        try:
            given = subprocess.run(  # noqa: S603 - the agent's own program
                command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ElevateError("buildkite-agent gave no token", FAILED) from error
        if given.returncode != 0:
            raise ElevateError("buildkite-agent gave no token", FAILED)
        return _checked(given.stdout.strip())

    return ask


def _file(name: str) -> Source:
    if not name:
        raise ElevateError("--token-file: is required with --issuer file", USAGE)

    def read() -> str:
        try:
            return _checked(Path(name).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ElevateError(f"--token-file: {name} cannot be read", USAGE) from error

    return read


def _variables(names: Sequence[str]) -> Source:
    # Out of the environment at once: the command that is run has no need of them.
    tokens = [token for token in (os.environ.pop(name, "") for name in names or (DEFAULT_VARIABLE,)) if token]
    if not tokens:
        raise ElevateError(f"--token-env: no token in {', '.join(names or (DEFAULT_VARIABLE,))}", USAGE)

    def take() -> str:
        if not tokens:
            text = (
                "the pipeline's tokens are used up: each is good for one exchange. Give it more (--token-env, several times),"
                " or a policy of scope Namespace and use Window"
            )
            raise ElevateError(text, REFUSED, "token-replayed")
        return _checked(tokens.pop(0))

    return take


def _checked(token: object) -> str:
    if not isinstance(token, str) or token.count(".") != 2 or not token.isascii() or not token.isprintable():
        raise ElevateError("what the pipeline gave is no token (a JWT)", FAILED)
    return token
