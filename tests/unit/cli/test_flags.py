"""Which cluster and which credential an elevation is for: those of the command."""

from __future__ import annotations

import pytest

from webhook.cli import flags


@pytest.mark.parametrize(
    ("command", "expected", "namespace"),
    [
        ("kubectl --context x delete deploy/web -n y --as z", ("--context=x", "--as=z"), "y"),
        ("kubectl delete deploy/web --as=z --as-group=a --as-group=b", ("--as=z", "--as-group=a", "--as-group=b"), ""),
        ("kubectl delete deploy/web -nprod -shttps://x", ("--server=https://x",), "prod"),
        ("kubectl -v 8 --v=9 -v6 --kuberc f delete x", ("--kuberc=f",), ""),
        ("kubectl exec web --context x -- tool --context y", ("--context=x",), ""),
        ("/opt/kubectl --insecure-skip-tls-verify get x", ("--insecure-skip-tls-verify",), ""),
        ("timeout 60 kubectl --context x delete y", ("--context=x",), ""),
        ("helm uninstall shop -n prod --kube-context x --kubeconfig f", ("--context=x", "--kubeconfig=f"), "prod"),
        (
            "helm upgrade a b --kube-as-user=u --kube-insecure-skip-tls-verify",
            ("--as=u", "--insecure-skip-tls-verify"),
            "",
        ),
        ("make --context x", (), ""),
        ("sh -- kubectl --context x", (), ""),
    ],
)
def test_the_global_flags_of_a_wrapped_command(command: str, expected: tuple[str, ...], namespace: str) -> None:
    found = flags.of_command(command.split())
    assert (found.flags, found.namespace) == (expected, namespace)


def test_flags_of_helms_own_that_kubectl_has_too_are_not_taken_for_kubectls() -> None:
    """`--username` and `--password` are of a chart repository: they must not reach kubectl's command line."""
    found = flags.of_command(
        ["helm", "upgrade", "a", "oci://r/a", "--username", "u", "--password", "p", "-s", "templates/a.yaml"]
    )
    assert found.flags == ()


def test_helms_environment_names_a_cluster_and_its_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM_KUBECONTEXT", "from-environment")
    monkeypatch.setenv("HELM_KUBEASGROUPS", "a,b")
    assert flags.of_command(["helm", "list"]).flags == ("--as-group=a", "--as-group=b", "--context=from-environment")
    assert "--context=x" in flags.of_command(["helm", "list", "--kube-context=x"]).flags
    assert flags.of_command(["kubectl", "get"]).flags == ()
