"""``stepup policy``: try policies on recorded reviews and in suites, and look for mistakes in them, with no cluster at hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from webhook.cli import files as given
from webhook.cli.explain import explain_request
from webhook.cli.explain_source import namespaces_of
from webhook.cli.offline import MEANINGS, annotated, decided
from webhook.cli.operator import KubectlFlags, kubectl_with
from webhook.cli.report import report
from webhook.core.applicable import PolicyIndex
from webhook.core.assertion import Expected
from webhook.core.decision import Decision
from webhook.core.lint import Finding, findings, findings_in

app = typer.Typer(help="Try, check and explain StepUpPolicies.", no_args_is_help=True)
app.command("report")(report)

app.command("explain", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(explain_request)

EXIT_DENIED: Final = 1
EXIT_FAILED: Final = 1


@app.command("test")
def try_policies(
    policy: Annotated[
        list[Path] | None, typer.Option(help="File with StepUpPolicies (YAML, any number); may be repeated.")
    ] = None,
    review: Annotated[
        list[Path] | None, typer.Option(help="File with an AdmissionReview (JSON); may be repeated.")
    ] = None,
    suite: Annotated[
        list[Path] | None, typer.Option(help="File with requests and what is expected (YAML); may be repeated.")
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Further reviews, or with --suite further suites.")
    ] = None,
    namespace_labels: Annotated[str, typer.Option(help="Labels of the namespaces: k=v,k=v.")] = "",
    now: Annotated[str, typer.Option(help="The time to decide at (RFC 3339); default: the present.")] = "",
    key: Annotated[list[Path] | None, typer.Option(help="Public key (PEM) that assertions may be signed with.")] = None,
    audience: Annotated[str, typer.Option(help="The cluster's name in assertions.")] = "kubernetes",
    issuer: Annotated[str, typer.Option(help="The issuer in assertions.")] = "kube-stepup",
    junit: Annotated[Path | None, typer.Option(help="Write the results of suites to this file, as JUnit XML.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Of suites: text or json.")] = "text",
    print_schema: Annotated[bool, typer.Option("--print-schema", help="Print the JSON schema of suites.")] = False,
) -> None:
    """Decide recorded reviews by policies (one JSON line a review), or run suites of requests.

    Exit code 0: all are allowed, or as expected; 1: at least one is not; 2: bad input.
    """
    if print_schema:
        from webhook.cli.suites.document import schema

        typer.echo(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode())
        return
    if suite:
        if policy or review or namespace_labels or now or key:
            given.bad_input(
                "--suite: a suite names its policies, namespaces and times itself; leave the other options out"
            )
        failed = _suites([*suite, *(more or [])], junit, output)
        raise typer.Exit(EXIT_FAILED if failed else 0)
    if not policy or not review:
        given.bad_input("needs --policy and --review, or --suite")
    if junit or output != "text":
        given.bad_input("--junit and --output go with --suite")
    labels, at = given.labels(namespace_labels), given.moment(now) if now else time.time()
    keys = [given.read(file) for file in key or []]
    denied = _reviews(policy, [*review, *(more or [])], labels, keys, Expected(issuer, audience), at)
    raise typer.Exit(EXIT_DENIED if denied else 0)


@app.command("lint")
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files with StepUpPolicies (YAML).")],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
    cluster: Annotated[bool, typer.Option("--cluster", help="Look at the namespaces of the cluster as well.")] = False,
    kubectl: KubectlFlags = None,
) -> None:
    """Look for mistakes: what cannot work (errors), what probably is not meant (warnings), what needs a setting (notes).

    Exit code 0: nothing found, or warnings and notes only; 1: errors (with --strict, warnings too); 2: unreadable input.
    """
    if output not in {"text", "json"}:
        given.bad_input("--output: must be text or json")
    namespaces = namespaces_of(kubectl_with(kubectl)) if cluster else None
    found: list[tuple[str, Finding]] = []
    names: dict[str, str] = {}
    for file in files:
        for obj in given.documents(file):
            name = str((obj.get("metadata") or {}).get("name", ""))
            if name and name in names:
                found.append(
                    (str(file), Finding("error", "duplicate-name", name, "metadata.name", f"also in {names[name]}"))
                )
            names[name] = str(file)
            told = findings(obj) + (findings_in(obj, namespaces) if namespaces is not None else [])
            found += [(str(file), finding) for finding in told]
    for file_name, finding in found:
        if output == "json":
            typer.echo(msgspec.json.encode({"file": file_name, **msgspec.structs.asdict(finding)}).decode())
        else:
            typer.echo(
                f"{file_name}: {finding.severity}: {finding.policy}: {finding.field}: {finding.message} [{finding.code}]"
            )
    failing = [finding for _, finding in found if finding.severity in ({"error", "warning"} if strict else {"error"})]
    raise typer.Exit(1 if failing else 0)


def _reviews(
    policies: list[Path], reviews: list[Path], labels: dict[str, str], keys: list[bytes], expected: Expected, now: float
) -> bool:
    """Decide reviews; whether one is denied."""
    index = PolicyIndex()
    for one in given.policies(policies):
        index.put_policy(one)
    requests = [given.review(file) for file in reviews]
    denied = False
    for file, request in zip(reviews, requests, strict=True):
        if request.namespace:
            index.put_namespace(request.namespace, labels)
        decision = decided(request, index, annotated(request, keys), expected, now)
        denied = denied or not decision.allowed
        typer.echo(_line(file, decision))
    return denied


def _suites(suites: list[Path], junit: Path | None, output: str) -> bool:
    """Run suites; whether a case is not as expected."""
    from webhook.cli.suites import output as told
    from webhook.cli.suites.document import SuiteError
    from webhook.cli.suites.verdict import SuiteRun

    if output not in {"text", "json"}:
        given.bad_input("--output: must be text or json")
    verdicts = []
    for file in suites:
        try:
            verdicts += list(SuiteRun(file).verdicts())
        except SuiteError as error:
            given.bad_input(f"{file}: {error}")
    if junit is not None:
        try:
            junit.write_bytes(told.junit(verdicts))
        except OSError as error:
            given.bad_input(f"--junit: {junit}: {error.strerror}")
    typer.echo("\n".join(map(told.json_line, verdicts)) if output == "json" else told.text(verdicts))
    return not all(one.passed for one in verdicts)


def _line(file: Path, decision: Decision) -> str:
    challenge = decision.challenge
    return msgspec.json.encode(
        {
            "review": str(file),
            "allowed": decision.allowed,
            "operations": sorted({action.operation for action in decision.actions}),
            "policies": list(decision.applicable.policies),
            "requirement": challenge.to_dict() if challenge else None,
            "code": decision.code,
            "reason": decision.message or MEANINGS.get(decision.code, decision.code),
        }
    ).decode()
