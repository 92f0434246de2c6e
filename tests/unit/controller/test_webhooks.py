"""The webhook configuration as a text: what it says, and how it is kept. Whether the API server reads it so: tests/cluster."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.adapters.ground import API_SERVICE
from webhook.adapters.kube import AnswerError
from webhook.controller.coverage import Area, Coverage
from webhook.controller.observed import Observed
from webhook.controller.trust import Trust
from webhook.controller.webhooks import WebhookConfiguration, render
from webhook.errors import StoreUnavailableError
from webhook.settings import BreakGlassSettings, ControllerIdentities, ControllerSettings, Settings

PROD = Coverage(Area(frozenset({"prod"})), Area(frozenset({"prod", "audited"})))
EVERYWHERE = Coverage(Area(every_namespace=True, cluster_scoped=True), Area(every_namespace=True, cluster_scoped=True))
PATH = "p" * 43
STORED = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/kube-stepup"
ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/kube-stepup-controller"
JTI = "[0].startsWith('JTI=')"
X509 = "[0].startsWith('X509SHA256=')"


def settings(controllers: ControllerIdentities | None = None, **options: Any) -> Settings:
    identities = controllers or ControllerIdentities()
    return Settings(audience="test", controllers=identities, controller=ControllerSettings(**options))


def rendered(coverage: Coverage = PROD, chosen: Settings | None = None) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in render(coverage, chosen or settings(), "CA", PATH)}


def conditions(entry: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["expression"] for one in entry["matchConditions"]}


def test_guarded_fails_closed_and_watchful_does_not() -> None:
    entries = rendered()
    told = {name: (one["failurePolicy"], one["timeoutSeconds"], one["sideEffects"]) for name, one in entries.items()}
    assert told == {
        "guarded.kube-stepup.io": ("Fail", 5, "NoneOnDryRun"),
        "watchful.kube-stepup.io": ("Ignore", 2, "NoneOnDryRun"),
    }


@pytest.mark.parametrize("name", ["guarded.kube-stepup.io", "watchful.kube-stepup.io"])
def test_rules_are_broad_and_selectors_select_everything(name: str) -> None:
    entry = rendered()[name]
    assert entry["rules"] == [
        {
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE", "DELETE", "CONNECT"],
            "resources": ["*/*"],
            "scope": "*",
        }
    ]
    assert entry["namespaceSelector"] == entry["objectSelector"] == {}
    assert entry["matchPolicy"] == "Equivalent"


def test_there_is_no_guarded_entry_while_nothing_is_guarded() -> None:
    assert list(rendered(Coverage())) == ["watchful.kube-stepup.io"]


def test_the_two_entries_share_everything_but_where_they_apply() -> None:
    guarded, watchful = (conditions(one) for one in rendered().values())
    where = guarded.pop("guarded")
    assert watchful.pop("not-guarded") == f"!({where})"
    assert guarded == watchful


@pytest.mark.parametrize(
    ("coverage", "texts"),
    [
        (PROD, ['in ["prod"]']),
        (EVERYWHERE, ["!= ''", "!(", 'in ["kube-node-lease", "kube-system"]', "== ''"]),
        (Coverage(Area(cluster_scoped=True)), ["== ''"]),
        (
            Coverage(Area(kinds=frozenset({"core/nodes"}))),
            ['request.resource.group == ""', 'request.resource.resource == "nodes"', "['DELETE', 'UPDATE']"],
        ),
    ],
)
def test_where_guarded_applies(coverage: Coverage, texts: list[str]) -> None:
    expression = conditions(rendered(coverage)["guarded.kube-stepup.io"])["guarded"]
    assert all(text in expression for text in texts)


def with_glass(**people: Any) -> Settings:
    return settings().model_copy(update={"break_glass": BreakGlassSettings(**people)})


def test_who_breaks_the_glass_is_left_out_where_it_fails_closed_and_asked_where_it_does_not() -> None:
    entries = rendered(chosen=with_glass(users=("erika",), groups=("incident",)))
    assert list(entries) == ["guarded.kube-stepup.io", "break-glass.kube-stepup.io", "watchful.kube-stepup.io"]
    guarded, glass, watchful = entries.values()
    assert (glass["failurePolicy"], glass["timeoutSeconds"]) == ("Ignore", 2)
    left_out, loud = conditions(guarded).pop("not-break-glass"), conditions(glass)["break-glass"]
    assert left_out == f"!({loud})"
    assert conditions(guarded)["guarded"] == conditions(glass)["guarded"]
    assert "break-glass" not in str(conditions(watchful))


def test_glass_is_broken_by_name_and_credential_together_and_never_by_an_account() -> None:
    loud = conditions(rendered(chosen=with_glass(groups=("incident",)))["break-glass.kube-stepup.io"])["break-glass"]
    assert 'group in ["incident"]' in loud
    assert "has(request.userInfo.groups)" in loud
    assert JTI in loud
    assert X509 in loud
    assert ".startsWith('system:serviceaccount:')" in loud


def test_without_break_glass_people_there_is_no_entry_for_them() -> None:
    assert "break-glass.kube-stepup.io" not in rendered()
    assert "not-break-glass" not in conditions(rendered()["guarded.kube-stepup.io"])
    assert list(rendered(Coverage(), with_glass(users=("erika",)))) == ["watchful.kube-stepup.io"]


@pytest.mark.parametrize("name", ["", "dev*", "system:authenticated", "system:serviceaccounts:ci", "system:nodes"])
def test_a_glass_that_would_be_broken_from_the_start_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"exact|few people"):
        BreakGlassSettings(groups=(name,))


def test_with_watchful_off_what_policies_match_and_our_own_objects_are_still_asked_about() -> None:
    expression = conditions(rendered(chosen=settings(watchful=False))["watchful.kube-stepup.io"])["not-guarded"]
    assert 'in ["audited", "prod"]' in expression
    assert "request.resource.group == 'kube-stepup.io'" in expression


def test_a_controller_is_left_out_by_name_group_uid_and_credential_together() -> None:
    expression = conditions(rendered()["guarded.kube-stepup.io"])["not-a-controller"]
    assert '"system:serviceaccount:kube-system:replicaset-controller"' in expression
    assert '"system:serviceaccounts:kube-system" in request.userInfo.groups' in expression
    assert "request.userInfo.uid != ''" in expression
    assert JTI in expression
    assert "kube-system:*" not in expression


def test_accounts_of_several_namespaces_need_their_own_namespaces_group() -> None:
    chosen = settings(ControllerIdentities(service_accounts=("kube-system/a", "ci/b")))
    expression = conditions(rendered(chosen=chosen)["guarded.kube-stepup.io"])["not-a-controller"]
    a, b = expression.index('"system:serviceaccount:ci:b"'), expression.index('"system:serviceaccount:kube-system:a"')
    assert (
        a
        < expression.index('"system:serviceaccounts:ci"')
        < b
        < expression.index('"system:serviceaccounts:kube-system"')
    )


def test_kubelets_and_components_are_left_out_by_their_certificates() -> None:
    found = conditions(rendered()["guarded.kube-stepup.io"])
    assert X509 in found["not-a-kubelet"]
    assert '"system:nodes" in request.userInfo.groups' in found["not-a-kubelet"]
    assert X509 in found["not-a-component"]
    assert '["system:kube-controller-manager", "system:kube-scheduler"]' in found["not-a-component"]


def test_the_api_server_itself_is_left_out_whatever_is_configured() -> None:
    nobody = ControllerIdentities(service_accounts=(), certificate_users=(), nodes_by_certificate=False)
    found = conditions(rendered(chosen=settings(nobody))["guarded.kube-stepup.io"])
    assert "not-the-api-server" in found
    assert not {"not-a-controller", "not-a-component", "not-a-kubelet"} & found.keys()


def test_our_own_accounts_are_left_out_for_our_own_objects_alone() -> None:
    assert "not-our-own" not in conditions(rendered()["guarded.kube-stepup.io"])
    chosen = settings(own_service_accounts=("kube-stepup/kube-stepup-admission",))
    expression = conditions(rendered(chosen=chosen)["guarded.kube-stepup.io"])["not-our-own"]
    assert '"system:serviceaccount:kube-stepup:kube-stepup-admission"' in expression
    assert JTI in expression
    assert "request.resource.group == 'kube-stepup.io'" in expression


@pytest.mark.parametrize("evil", ['x"] || true || "" in ["', "back\\slash", "new\nline", "ü"])
def test_a_name_cannot_break_out_of_its_expression(evil: str) -> None:
    chosen = settings(ControllerIdentities(certificate_users=(evil,)))
    expression = conditions(rendered(chosen=chosen)["guarded.kube-stepup.io"])["not-a-component"]
    quoted = {'x"] || true || "" in ["': r'["x\"] || true || \"\" in [\""]', "back\\slash": r'["back\\slash"]'}
    assert quoted.get(evil, {"new\nline": r'["new\nline"]', "ü": '["ü"]'}.get(evil)) in expression


def test_every_condition_tests_a_field_before_it_reads_it() -> None:
    for expression in conditions(rendered(EVERYWHERE)["guarded.kube-stepup.io"]).values():
        for field in ("userInfo.username", "userInfo.uid", "userInfo.groups", "userInfo.extra", "namespace", "name"):
            if f"request.{field} " in expression or f"request.{field}[" in expression:
                assert f"has(request.{field})" in expression


def test_the_client_is_a_service_or_a_url_with_the_secret_path() -> None:
    bundle = base64.b64encode(b"CA").decode()
    by_service = rendered()["guarded.kube-stepup.io"]["clientConfig"]
    assert by_service == {
        "caBundle": bundle,
        "service": {
            "name": "kube-stepup-admission",
            "namespace": "kube-stepup",
            "path": f"/validate/{PATH}",
            "port": 443,
        },
    }
    by_url = rendered(chosen=settings(webhook_url="https://10.0.0.1:8443/"))["guarded.kube-stepup.io"]["clientConfig"]
    assert by_url == {"caBundle": bundle, "url": f"https://10.0.0.1:8443/validate/{PATH}"}


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Loop:
    """The loop over a fake API server, with a policy on `prod`."""

    def __init__(self, kube: FakeKube | None = None, **options: Any) -> None:
        self.kube = kube or FakeKube()
        self.clock = Clock()
        self.applied: list[tuple[Coverage, dict[str, int]]] = []
        self.observed = Observed(self.kube, lambda: None)  # type: ignore[arg-type]
        self.trust = Trust(admission="CA", elevation="CA", path_secret=PATH)
        self.loop = WebhookConfiguration(
            self.kube,  # type: ignore[arg-type]
            settings(**options),
            self.observed,
            self.trust,
            on_applied=lambda coverage, generations, _: self.applied.append((coverage, generations)),
            monotonic=self.clock,
        )

    def sync(self) -> None:
        for watch in self.observed.watches:
            watch._synced.set()

    def policy(self, *namespaces: str) -> None:
        self.observed.put_policy(
            {
                "metadata": {"name": "p", "uid": "u", "generation": 3, "resourceVersion": "1"},
                "spec": {"match": {"namespaces": list(namespaces)}, "rules": [{"name": "r", "operations": ["exec"]}]},
            }
        )

    async def role(self) -> dict[str, Any]:
        body = {
            "metadata": {
                "name": "kube-stepup-controller",
                "labels": {"app.kubernetes.io/managed-by": "Helm", "team": "x"},
                "annotations": {"meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": "n", "other": "x"},
            }
        }
        return await self.kube.create(ROLE.rsplit("/", 1)[0], body)

    def stored(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.kube.objects[STORED].get("webhooks") or []}


@pytest.fixture
def loop() -> Loop:
    found = Loop()
    found.sync()
    found.observed.put_namespace("prod", {})
    return found


async def chart(loop: Loop) -> None:
    """What the chart makes: the object without entries."""
    await loop.kube.create(STORED.rsplit("/", 1)[0], {"metadata": {"name": "kube-stepup", "labels": {"a": "b"}}})


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_nothing_is_written_before_everything_is_known() -> None:
    loop = Loop()
    await loop.loop.step()
    loop.sync()
    loop.trust.admission = ""
    await loop.loop.step()
    assert loop.kube.objects == {}


async def test_the_charts_object_is_filled_and_its_metadata_stays(loop: Loop) -> None:
    await chart(loop)
    loop.policy("prod")
    await loop.loop.step()
    assert list(loop.stored()) == ["guarded.kube-stepup.io", "watchful.kube-stepup.io"]
    assert loop.kube.objects[STORED]["metadata"]["labels"] == {"a": "b"}
    assert loop.applied[-1][1] == {"u": 3}
    assert loop.applied[-1][0].guarded == Area(frozenset({"prod"}))


async def test_what_is_right_is_not_written_again(loop: Loop) -> None:
    await chart(loop)
    await loop.loop.step()
    loop.kube.calls.clear()
    await loop.loop.step()
    assert {method for method, _ in loop.kube.calls} == {"GET"}


async def test_a_change_by_hand_is_put_back(loop: Loop) -> None:
    await chart(loop)
    await loop.loop.step()
    loop.kube.objects[STORED]["webhooks"][0]["failurePolicy"] = "Nonsense"
    await loop.loop.step()
    assert loop.stored()["watchful.kube-stepup.io"]["failurePolicy"] == "Ignore"


async def test_what_somebody_else_changed_is_drift_and_what_we_change_is_not(loop: Loop) -> None:
    await chart(loop)
    await loop.loop.step()
    loop.policy("prod")
    await loop.loop.step()
    assert loop.loop.drift == 0
    loop.kube.objects[STORED]["webhooks"][0]["failurePolicy"] = "Nonsense"
    await loop.loop.step()
    del loop.kube.objects[STORED]
    await loop.loop.step()
    await loop.loop.step()
    assert loop.loop.drift == 2


async def test_nothing_is_written_while_a_stranger_answers_for_our_api_group(loop: Loop) -> None:
    await chart(loop)
    loop.kube.objects[API_SERVICE] = {"metadata": {}, "spec": {"service": {"namespace": "x", "name": "y"}}}
    await loop.loop.step()
    assert "webhooks" not in loop.kube.objects[STORED]
    assert loop.applied == []


async def test_what_is_no_longer_matched_stays_guarded_for_a_while(loop: Loop) -> None:
    await chart(loop)
    loop.policy("prod")
    await loop.loop.step()
    loop.policy("nowhere")
    await loop.loop.step()
    assert "guarded.kube-stepup.io" in loop.stored()
    loop.clock.seconds = 31
    await loop.loop.step()
    assert "guarded.kube-stepup.io" not in loop.stored()


async def test_without_an_owner_a_missing_configuration_is_made_at_once(loop: Loop) -> None:
    await loop.loop.step()
    assert loop.stored()
    assert "ownerReferences" not in loop.kube.objects[STORED]["metadata"]


async def test_with_an_owner_a_missing_configuration_is_made_after_a_while_and_belongs_to_it_and_to_helm() -> None:
    loop = Loop(owner_cluster_role="kube-stepup-controller")
    loop.sync()
    role = await loop.role()
    await loop.loop.step()
    assert STORED not in loop.kube.objects
    assert loop.applied == []
    loop.clock.seconds = 10
    await loop.loop.step()
    metadata = loop.kube.objects[STORED]["metadata"]
    assert [one["uid"] for one in metadata["ownerReferences"]] == [role["metadata"]["uid"]]
    assert metadata["labels"] == {"app.kubernetes.io/managed-by": "Helm"}
    assert metadata["annotations"] == {"meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": "n"}


async def test_while_we_are_uninstalled_no_configuration_is_made() -> None:
    loop = Loop(owner_cluster_role="kube-stepup-controller")
    loop.sync()
    await loop.loop.step()
    loop.clock.seconds = 1000
    await loop.loop.step()
    assert STORED not in loop.kube.objects


async def test_a_role_that_is_being_deleted_owns_nothing_new() -> None:
    loop = Loop(owner_cluster_role="kube-stepup-controller", recreate_delay_seconds=0)
    loop.sync()
    await loop.role()
    loop.kube.objects[ROLE]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await loop.loop.step()
    assert STORED not in loop.kube.objects


async def test_the_owner_is_added_and_takes_the_place_of_an_earlier_one_of_its_name() -> None:
    loop = Loop(owner_cluster_role="kube-stepup-controller")
    loop.sync()
    role = await loop.role()
    await chart(loop)
    dead = {"kind": "ClusterRole", "name": "kube-stepup-controller", "uid": "dead"}
    other = {"kind": "ConfigMap", "name": "x", "uid": "other"}
    loop.kube.objects[STORED]["metadata"]["ownerReferences"] = [dead, other]
    await loop.loop.step()
    owners = loop.kube.objects[STORED]["metadata"]["ownerReferences"]
    assert [one["uid"] for one in owners] == ["other", role["metadata"]["uid"]]


class Refusing(FakeKube):
    """An API server that quotes what it refuses."""

    async def create(self, path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        error = AnswerError(422, "Invalid", "POST", path)
        error.message = f"webhooks[0].clientConfig: {body['webhooks'][0]['clientConfig']}"
        raise error


async def test_the_path_does_not_get_into_an_error_and_so_not_into_the_log() -> None:
    loop = Loop(kube=Refusing())
    loop.sync()
    with pytest.raises(StoreUnavailableError) as caught:
        await loop.loop.step()
    assert "clientConfig" in caught.value.message
    assert PATH not in str(caught.value)
    assert loop.applied == []
