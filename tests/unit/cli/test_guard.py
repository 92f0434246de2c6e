"""`stepup guard render`: what it writes, and what it refuses. Whether it holds: tests/cluster/test_guard_render.py."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from webhook.cli.exits import USAGE, ElevateError
from webhook.cli.stepup import app

FILES = ["admission-configuration.yaml", "authorization-configuration.yaml", "nowhere.kubeconfig"]


def render(folder: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["guard", "render", "--output", str(folder), *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def policies(folder: Path, file: str = "policies/kube-stepup.yaml") -> dict[str, dict[str, Any]]:
    documents = list(yaml.safe_load_all((folder / file).read_text()))
    return {one["metadata"]["name"]: one for one in documents}


def expressions(folder: Path) -> str:
    return str([one["spec"] for one in policies(folder).values()])


def test_two_renders_are_the_same(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        render(tmp_path / folder, "--group", "two", "--group", "one", "--user", "u")
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert {str(one) for one in files} == {*FILES, "policies/kube-stepup.yaml"}
    for file in files:
        assert (tmp_path / "a" / file).read_text() == (tmp_path / "b" / file).read_text()


def test_every_policy_has_its_binding_its_comment_and_the_suffix_that_files_must_have(tmp_path: Path) -> None:
    render(tmp_path, "--group", "incident")
    found = policies(tmp_path)
    assert all(name.endswith(".static.k8s.io") for name in found)
    bound = {one["spec"]["policyName"] for one in found.values() if one["kind"].endswith("Binding")}
    assert bound == {name for name, one in found.items() if one["kind"] == "ValidatingAdmissionPolicy"}
    # The API server takes what is between two separators for an object: a comment must not stand alone.
    for document in (tmp_path / "policies/kube-stepup.yaml").read_text().split("---\n")[1:]:
        assert yaml.safe_load(document)["kind"]
        if "kind: ValidatingAdmissionPolicy\n" in document:
            assert document.startswith("# ")


def test_each_policy_reads_only_what_it_defines(tmp_path: Path) -> None:
    render(tmp_path, "--user", "sealed")
    for one in policies(tmp_path).values():
        seen: set[str] = set()
        for variable in one["spec"].get("variables", []):
            assert set(_read(variable["expression"])) <= seen
            seen.add(variable["name"])
        for validation in one["spec"].get("validations", []):
            assert set(_read(validation["expression"])) <= seen


def _read(text: str) -> list[str]:
    return re.findall(r"variables\.(\w+)", text)


def test_a_certificate_is_pinned_by_its_fingerprint_as_the_api_server_names_it(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sealed")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "sealed.crt"
    file.write_bytes(b"a comment\n" + made.public_bytes(serialization.Encoding.PEM))
    render(tmp_path, "--certificate", str(file))
    assert f'"X509SHA256={made.fingerprint(hashes.SHA256()).hex()}"' in expressions(tmp_path)
    assert "system:" not in str(policies(tmp_path)["kube-stepup-hold-roles.static.k8s.io"]), "no name is needed besides"


def test_a_name_cannot_break_out_of_its_expression(tmp_path: Path) -> None:
    render(tmp_path, "--user", 'x"] || true || "" in ["')
    assert r'["x\"] || true || \"\" in [\""]' in expressions(tmp_path).replace("\\\\", "\\")


def test_another_release_is_held_by_its_own_names(tmp_path: Path) -> None:
    arguments = ("--name", "guard", "--namespace", "sec", "--directory", "/x/", "--service-account", "cert-manager/cm")
    told = render(tmp_path, "--group", "incident", *arguments)
    text = (tmp_path / "policies/guard.yaml").read_text()
    assert '"system:serviceaccount:sec:guard-controller"' in text
    assert '"system:serviceaccount:cert-manager:cm"' in text
    assert "kube-stepup-" not in text
    for file in FILES[:2]:
        assert ": /x/" in (tmp_path / file).read_text()
    assert "/x/admission-configuration.yaml" in told


def test_for_a_managed_cluster_it_says_what_stays_open(tmp_path: Path) -> None:
    told = render(tmp_path, "--group", "incident", "--managed")
    found = policies(tmp_path, "kube-stepup-hold.yaml")
    assert not any(name.endswith("static.k8s.io") for name in found)
    assert not any("validatingadmissionpolicies" in str(one) for one in found.values()), "no policy is shown these"
    assert "JTI=" in str(found["kube-stepup-hold-roles"]), "there may be no client certificates"
    assert "Still open" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kube-stepup-hold.yaml"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--user, --group or --certificate"),
        (("--group", "system:authenticated"), "not an identity of few people"),
        (("--user", "system:serviceaccount:a:b"), "not an identity of few people"),
        (("--user", "a\nb"), "--user: must be a name"),
        (("--user", ""), "--user: must be a name"),
        (("--user", "u", "--name", "Not_DNS"), "--name: 'Not_DNS'"),
        (("--user", "u", "--namespace", "a/b"), "--namespace: 'a/b'"),
        (("--user", "u", "--service-account", "a"), "--service-account: 'a'"),
        (("--user", "u", "--directory", "relative"), "--directory: must be an absolute path"),
        (("--certificate", "/nowhere.crt"), "cannot read /nowhere.crt"),
        (("--certificate", __file__), "has no PEM certificate"),
        (tuple(word for number in range(51) for word in ("--user", f"u{number}")), "--user: at most 50"),
    ],
)
def test_what_cannot_work_is_refused_by_its_option(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(ElevateError) as refused:
        render(tmp_path, *arguments)
    assert told in refused.value.message
    assert refused.value.exit_code == USAGE
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ElevateError, match="--output: cannot write"):
        render(tmp_path / "file", "--user", "u")
