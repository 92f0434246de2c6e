"""``stepup policy``: try policies on recorded reviews, and look for mistakes in them, with no cluster at hand."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer
import yaml

from webhook.core.applicable import Applicable, PolicyIndex, lazy_facts, subject_of
from webhook.core.assertion import ANNOTATION, AssertionClaims, Expected, Problem
from webhook.core.classify import classify
from webhook.core.decision import Candidate, Decision, Question, Record, ask, decide
from webhook.core.guard import Guard, guarding_action
from webhook.core.identity import Controllers
from webhook.core.lint import Finding, findings
from webhook.core.policy import Policy
from webhook.core.request import AdmissionRequest, decode
from webhook.errors import PolicyError, ReviewError
from webhook.settings import ControllerIdentities

app = typer.Typer(help="Try and check StepUpPolicies.", no_args_is_help=True)

EXIT_DENIED: Final = 1
OWN_NAMESPACE: Final = "kube-stepup"
EXIT_BAD_INPUT: Final = 2
MEANINGS: Final = {
    "out-of-scope": "the request has no effect that a policy could ask about",
    "controller": "a controller of the cluster, shown by its credential",
    "not-required": "no policy asks for a step-up",
    "exempt": "every policy that matches exempts this user",
    "break-glass": "a policy lets this user break the glass",
    "step-up-satisfied": "the assertion in the review meets every requirement",
    "would-deny": "an enforcing policy would have refused it; this one only warns or audits",
}


@app.command("test")
def try_reviews(
    policy: Annotated[list[Path], typer.Option(help="File with StepUpPolicies (YAML, any number); may be repeated.")],
    review: Annotated[list[Path], typer.Option(help="File with an AdmissionReview (JSON); may be repeated.")],
    more_reviews: Annotated[list[Path] | None, typer.Argument(metavar="[REVIEW]...", help="Further reviews.")] = None,
    namespace_labels: Annotated[str, typer.Option(help="Labels of the namespaces: k=v,k=v.")] = "",
    now: Annotated[str, typer.Option(help="The time to decide at (RFC 3339); default: the present.")] = "",
    key: Annotated[list[Path] | None, typer.Option(help="Public key (PEM) that assertions may be signed with.")] = None,
    audience: Annotated[str, typer.Option(help="The cluster's name in assertions.")] = "kubernetes",
    issuer: Annotated[str, typer.Option(help="The issuer in assertions.")] = "kube-stepup",
) -> None:
    """Decide recorded reviews by policies: one JSON line a review.

    Exit code 0: all are allowed; 1: at least one is denied; 2: bad input.
    """
    labels = _labels(namespace_labels)
    at = _time(now)
    index = PolicyIndex()
    for one in _policies(policy):
        index.put_policy(one)
    files = [*review, *(more_reviews or [])]
    requests = [_review(file) for file in files]
    keys = [_read(file) for file in key or []]
    expected = Expected(issuer, audience)
    denied = False
    for file, request in zip(files, requests, strict=True):
        if request.namespace:
            index.put_namespace(request.namespace, labels)
        decision = _decide(request, index, keys, expected, at)
        denied = denied or not decision.allowed
        typer.echo(_line(file, decision))
    raise typer.Exit(EXIT_DENIED if denied else 0)


@app.command("lint")
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files with StepUpPolicies (YAML).")],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
) -> None:
    """Look for mistakes: what cannot work (errors), and what probably is not meant (warnings).

    Exit code 0: nothing found, or warnings only; 1: errors (with --strict, warnings too); 2: unreadable input.
    """
    found: list[tuple[str, Finding]] = []
    names: dict[str, str] = {}
    for file in files:
        for obj in _documents(file):
            name = str((obj.get("metadata") or {}).get("name", ""))
            if name and name in names:
                found.append(
                    (str(file), Finding("error", "duplicate-name", name, "metadata.name", f"also in {names[name]}"))
                )
            names[name] = str(file)
            found += [(str(file), finding) for finding in findings(obj)]
    for file_name, finding in found:
        if output == "json":
            typer.echo(msgspec.json.encode({"file": file_name, **msgspec.structs.asdict(finding)}).decode())
        else:
            typer.echo(
                f"{file_name}: {finding.severity}: {finding.policy}: {finding.field}: {finding.message} [{finding.code}]"
            )
    failing = [finding for _, finding in found if strict or finding.severity == "error"]
    raise typer.Exit(1 if failing else 0)


def _decide(
    request: AdmissionRequest, index: PolicyIndex, keys: list[bytes], expected: Expected, now: float
) -> Decision:
    identities = ControllerIdentities()
    controllers = Controllers(identities.service_accounts, identities.certificate_users)
    actions = classify(request)
    weakened = Guard(index, OWN_NAMESPACE, controllers.accounts).weakened_by(request)
    if weakened:
        actions = (*actions, guarding_action(request))
    facts = lazy_facts(request, index, actions)
    subject = msgspec.structs.replace(subject_of(request), weakened=weakened, facts=facts)
    question = Question(request.user_info, actions, subject)
    first = ask(question, index, controllers)
    if isinstance(first, Decision):
        return first
    return _prove(request, question, first, keys, expected, now)


def _prove(
    request: AdmissionRequest,
    question: Question,
    applicable: Applicable,
    keys: list[bytes],
    expected: Expected,
    now: float,
) -> Decision:
    from webhook.adapters.verifier import Verifier

    verifier = Verifier()
    for pem in keys:
        _trust(verifier, pem)
    candidates: list[Candidate] = []
    rejected: list[Problem] = []
    for head in (request.new_head(), request.old_head()):
        token = (head.metadata.annotations or {}).get(ANNOTATION, "") if head else ""
        claims = verifier.verify(token) if token else None
        if isinstance(claims, AssertionClaims):
            candidates.append(Candidate(claims, Record(claims.jti, username=claims.sub)))
        elif claims is not None:
            rejected.append(claims)
    return decide(question, applicable, candidates, rejected, expected, now)


def _trust(verifier: Any, pem: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from webhook.adapters.verifier import key_id

    try:
        public_key = load_pem_public_key(pem)
    except ValueError:
        _bad_input("--key: is not a public key in PEM form")
    algorithm = "ES256" if isinstance(public_key, EllipticCurvePublicKey) else "EdDSA"
    name = key_id(algorithm, public_key)  # type: ignore[arg-type]
    verifier.put({"metadata": {"name": name}, "spec": {"algorithm": algorithm, "publicKey": pem.decode()}})


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


def _policies(files: list[Path]) -> list[Policy]:
    found: dict[str, Policy] = {}
    for file in files:
        for obj in _documents(file):
            try:
                policy = Policy.parse(obj)
            except PolicyError as error:
                _bad_input(f"{file}: {error}")
            if policy.name in found:
                _bad_input(f"{file}: metadata.name: there are two policies called {policy.name}")
            found[policy.name] = policy
    if not found:
        _bad_input("--policy: no StepUpPolicy in these files")
    return list(found.values())


def _documents(file: Path) -> list[dict[str, Any]]:
    try:
        documents = [one for one in yaml.safe_load_all(_read(file)) if one is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        _bad_input(f"{file}{f':{mark.line + 1}' if mark else ''}: is not YAML")
    flat: list[dict[str, Any]] = []
    for one in documents:
        items = one.get("items") if isinstance(one, dict) and str(one.get("kind", "")).endswith("List") else [one]
        flat += items or []
    if not all(isinstance(one, dict) for one in flat):
        _bad_input(f"{file}: holds something that is not an object")
    return flat


def _review(file: Path) -> AdmissionRequest:
    try:
        return decode(_read(file))
    except ReviewError as error:
        _bad_input(f"{file}: {error.message}")


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        _bad_input(f"{file}: {error.strerror}")


def _labels(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not separator or not name for name, separator, _ in pairs):
        _bad_input("--namespace-labels: must be k=v,k=v")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _time(text: str) -> float:
    if not text:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _bad_input(f"--now: {text!r} is not a time such as 2026-11-24T12:00:00Z")
    if moment.tzinfo is None:
        _bad_input("--now: needs a time zone, such as the Z in 2026-11-24T12:00:00Z")
    return moment.timestamp()


def _bad_input(text: str) -> NoReturn:
    typer.echo(f"stepup: {text}", err=True)
    raise typer.Exit(EXIT_BAD_INPUT)
