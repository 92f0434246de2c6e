"""What is taken from a command's error output, and what is not."""

from __future__ import annotations

import pytest

from webhook.cli.refusals import HELD_BYTES, MOST_WANTED, Refusals

WEBHOOK = 'admission webhook "guarded.kube-stepup.io" denied the request: '
TEXT = (
    "kube-stepup: {0} deployments.apps/{1} in prod needs a step-up (aal2, at most 5m old, policy production): no. Run:"
)
COMMAND = "  kubectl elevate {0} deployments.apps/{1} -n prod"


def refusal(
    name: str, operation: str = "delete", more: str = "", before: str = "Error from server (Forbidden): "
) -> str:
    return f"{before}{WEBHOOK}{TEXT.format(operation, name)}\n{COMMAND.format(operation, name)}{more}\n"


def read(text: str, *, quiet_helm: bool = False) -> tuple[Refusals, str]:
    """What was found, and what was handed on."""
    passed = bytearray()
    refusals = Refusals(passed.extend, quiet_helm=quiet_helm)
    for line in text.encode().splitlines(keepends=True):
        refusals.line(line)
    refusals.idle()
    return refusals, passed.decode()


def names(refusals: Refusals) -> list[str]:
    return [target.partition("/")[2] for one in refusals.wanted for target in one.targets]


def test_one_refusal_is_taken_and_kept_back() -> None:
    refusals, passed = read(refusal("web"))
    (wanted,) = refusals.wanted
    assert (wanted.operations, wanted.targets, wanted.namespace) == (("delete",), ("deployments.apps/web",), "prod")
    assert passed == ""
    assert refusals.held.decode() == refusal("web")


@pytest.mark.parametrize(
    "operation", ["update:cnpg.io/clusters", "connect:core/pods/exec", "scale,update:cnpg.io/clusters/scale"]
)
def test_an_operation_by_verb_and_resource(operation: str) -> None:
    (wanted,) = read(refusal("web", operation))[0].wanted
    assert wanted.operations == tuple(operation.split(","))


@pytest.mark.parametrize("operation", ["update:cnpg.io/*", "-x:a/b", "update:a/b;id", "update:--as/x", "patch:a/b"])
def test_what_is_no_operation_is_not_taken(operation: str) -> None:
    assert [one.operations for one in read(refusal("web", operation))[0].wanted if "--" in one.operations[0][:2]] == []
    found = read(refusal("web", operation))[0].wanted
    assert all(
        name.partition(":")[0] in {"create", "update", "delete", "connect"} for one in found for name in one.operations
    )


def test_several_refusals_with_other_text_between() -> None:
    refusals, passed = read(f"one\n{refusal('web')}two\n{refusal('api')}three")
    assert names(refusals) == ["web", "api"]
    assert passed == "one\ntwo\nthree"


def test_the_same_refusal_twice_is_one() -> None:
    assert names(read(refusal("web") * 2)[0]) == ["web"]


def test_several_effects_on_one_target_with_their_changes_and_a_reason() -> None:
    (wanted,) = read(refusal("web", "scale,deploy", " --change 00112233445566ff,- --reason OPS-7"))[0].wanted
    assert wanted.operations == ("scale", "deploy")
    assert wanted.changes == ("00112233445566ff", "-")
    assert wanted.reason == "OPS-7"


def test_a_placeholder_is_no_reason() -> None:
    (wanted,) = read(refusal("web", more=" --reason '…'"))[0].wanted
    assert wanted.reason == ""


def test_a_cluster_scoped_target_whose_name_has_a_colon() -> None:
    header = (
        f"{WEBHOOK}kube-stepup: delete clusterroles.rbac.authorization.k8s.io/system:x needs a step-up (aal2): no. Run:"
    )
    (wanted,) = read(f"{header}\n  kubectl elevate delete clusterroles.rbac.authorization.k8s.io/system:x\n")[0].wanted
    assert wanted.targets == ("clusterroles.rbac.authorization.k8s.io/system:x",)
    assert wanted.namespace == ""


def test_helm_joins_refusals_to_one_line() -> None:
    second = f"{WEBHOOK}{TEXT.format('deploy', 'api')}\n{COMMAND.format('deploy', 'api')}\n"
    text = f"{refusal('web', 'deploy').rstrip()} --change 00112233445566ff && server-side apply failed: {second}"
    refusals, passed = read(text.replace("Error from server (Forbidden)", "Error: UPGRADE FAILED"))
    assert names(refusals) == ["web", "api"]
    assert refusals.wanted[0].changes == ("00112233445566ff",)
    assert passed == ""


def test_helm_logs_a_refusal_on_one_line() -> None:
    quoted = refusal("web", before="").rstrip().replace('"', '\\"').replace("\n", "\\n")
    refusals, passed = read(f'level=WARN msg="upgrade failed" name=shop error="failed to create resource: {quoted}"\n')
    assert names(refusals) == ["web"]
    assert passed == ""


def test_helm_tells_why_an_uninstallation_failed_only_when_it_debugs() -> None:
    quoted = (
        " ".join(refusal(name, before="").rstrip() for name in ("web", "api")).replace('"', '\\"').replace("\n", "\\n")
    )
    text = f'level=DEBUG msg="deleting"\nlevel=DEBUG msg="Failed to delete release" error="[{quoted}]"\n'
    verdict = "Error: failed to delete release: shop\n"
    refusals, passed = read(text + verdict, quiet_helm=True)
    assert names(refusals) == ["web", "api"]
    assert passed == ""
    assert (
        read('level=DEBUG msg="x"\nlevel=WARN msg="y"\n' + verdict, quiet_helm=True)[1]
        == f'level=WARN msg="y"\n{verdict}'
    )


def test_what_kubectl_apply_tells_before_a_refusal_is_kept_back_with_it() -> None:
    lead = 'Error from server (Forbidden): error when applying patch:\n{"spec":{}}\nto:\nName: "web"\n'
    end = refusal("web", before='for: "web.yaml": error when patching "web.yaml": ')
    refusals, passed = read(f"Warning: x\n{lead}{end}after\n")
    assert names(refusals) == ["web"]
    assert passed == "Warning: x\nafter\n"


@pytest.mark.parametrize("end", ['for: "web.yaml": somebody else refused\n', ""])
def test_what_kubectl_apply_tells_before_something_else_is_handed_on(end: str) -> None:
    lead = 'Error from server (Forbidden): error when applying patch:\n{"spec":{}}\nto:\nName: "web"\n'
    assert read(lead + end)[1] == lead + end


@pytest.mark.parametrize(
    "text",
    [
        "  kubectl elevate delete deployments.apps/web -n prod\n",
        f"kube-stepup: hello\n{COMMAND.format('delete', 'web')}\n",
        f"{WEBHOOK}{TEXT.format('delete', 'web')}\nsomething else\n{COMMAND.format('delete', 'web')}\n",
        f"{WEBHOOK}{TEXT.format('delete', 'web')}\nkubectl elevate delete deployments.apps/web -n prod\n",
        f"{WEBHOOK}{TEXT.format('explode', 'web')}\n{COMMAND.format('explode', 'web')}\n",
        f"Warning: {TEXT.format('delete', 'web').replace('needs', 'would need')}\n{COMMAND.format('delete', 'web')}\n",
    ],
)
def test_what_is_not_the_form_of_a_refusal_asks_for_nothing(text: str) -> None:
    assert read(text)[0].wanted == []


@pytest.mark.parametrize(
    "command",
    [
        "exec pods/--server=https://evil.example -n prod",
        "exec pods/-f=https://evil.example",
        "exec --kubeconfig=/tmp/x -n prod",
        "exec -A/web",
        "exec pods/web -n --server=https://evil.example",
        "exec pods/web --kubeconfig /tmp/x",
        "exec pods/$(id) -n prod",
        "exec pods/web\x1b[2J -n prod",
        "enroll pods/web",
    ],
)
def test_a_flag_can_not_be_smuggled_in(command: str) -> None:
    """What a program in a container prints must not reach kubectl's command line as a flag."""
    refusals, _ = read(
        f"kube-stepup: exec pods/x in prod needs a step-up (aal2): no. Run:\n  kubectl elevate {command}\n"
    )
    assert refusals.wanted == []


def test_memory_is_bounded() -> None:
    header = f"{WEBHOOK}{TEXT.format('delete', 'web')}\n"
    refusals, passed = read(header * (2 * HELD_BYTES // len(header)))
    assert len(refusals.held) <= HELD_BYTES
    assert len(passed) > HELD_BYTES // 2
    assert len(read("".join(refusal(f"web-{n}") for n in range(2 * MOST_WANTED)))[0].wanted) == MOST_WANTED
