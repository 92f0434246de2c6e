"""Orders to controllers, metadata that add-ons obey, and what operators add to both."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from tests.builders import deployment, policy, review
from webhook.core.applicable import PolicyIndex
from webhook.core.catalog import BUILT_IN, DEPUTIES, Catalog
from webhook.core.classify import classify
from webhook.core.configuration import MAX_ENTRIES, Configuration
from webhook.core.guard import Guard
from webhook.core.kinds import MAX_RELEASE_BYTES
from webhook.core.operation import Action
from webhook.core.policy import Policy
from webhook.core.request import decode
from webhook.errors import PolicyError

OBJECT = {"metadata": {"name": "one", "namespace": "prod", "uid": "u"}, "spec": {"source": {"revision": "a"}, "n": 1}}


def configuration(name: str = "default", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "StepUpConfiguration",
        "metadata": {"name": name},
        "spec": spec,
    }


def extended(**spec: Any) -> Catalog:
    return BUILT_IN.extended_by(Configuration.parse(configuration(**spec)))


def actions(
    resource: str, operation: str = "UPDATE", *, catalog: Catalog = BUILT_IN, sub_resource: str = "", **objects: Any
) -> list[Action]:
    group, _, plural = resource.partition("/")
    body = json.loads(review(operation, name="one", sub_resource=sub_resource, **objects))
    body["request"]["resource"] = {"group": "" if group == "core" else group, "version": "v1", "resource": plural}
    return list(classify(decode(json.dumps(body).encode()), catalog))


def classes(resource: str, operation: str = "UPDATE", **fields: Any) -> list[str]:
    return [one.operation for one in actions(resource, operation, **fields)]


def with_spec(**spec: Any) -> dict[str, Any]:
    return {**OBJECT, "spec": {**OBJECT["spec"], **spec}}


class TestDeputies:
    @pytest.mark.parametrize("deputy", DEPUTIES, ids=lambda one: f"{one.resource} {one.operation}")
    def test_each_is_an_order(self, deputy: Any) -> None:
        resource = deputy.resource.replace("*", "x")
        wanted = {verb.upper(): deputy.operation for verb in deputy.verbs}
        for operation, expected in wanted.items():
            objects = {"new": with_spec(n=2)} if operation != "DELETE" else {}
            old = {"old": OBJECT} if operation != "CREATE" else {}
            assert expected in classes(resource, operation, **objects, **old)

    @pytest.mark.parametrize(
        "change", [{"status": {"health": "Healthy"}}, {"metadata": {**OBJECT["metadata"], "annotations": {"a": "b"}}}]
    )
    def test_status_and_metadata_are_none(self, change: dict[str, Any]) -> None:
        assert classes("argoproj.io/applications", new={**OBJECT, **change}, old=OBJECT) == []
        assert classes("argoproj.io/applications", new=with_spec(n=2), old=OBJECT, sub_resource="status") == []

    def test_an_order_may_stand_beside_the_spec(self) -> None:
        assert classes("argoproj.io/applications", new={**OBJECT, "operation": {"sync": {}}}, old=OBJECT) == ["deploy"]

    def test_the_digest_is_of_the_order(self) -> None:
        (first,) = actions("velero.io/restores", "CREATE", new=OBJECT)
        (again,) = actions("velero.io/restores", "CREATE", new={**OBJECT, "status": {"phase": "New"}})
        (other,) = actions("velero.io/restores", "CREATE", new=with_spec(n=2))
        assert first.change == again.change != other.change

    def test_other_kinds_are_none(self) -> None:
        assert classes("example.com/orders", new=with_spec(n=2), old=OBJECT) == []


class TestConfiguration:
    def test_adds_kinds(self) -> None:
        catalog = extended(deputies=[{"resource": "example.com/orders", "operation": "scale", "verbs": ["delete"]}])
        assert classes("example.com/orders", "DELETE", catalog=catalog, old=OBJECT) == ["delete", "scale"]
        assert classes("example.com/orders", catalog=catalog, new=with_spec(n=2), old=OBJECT) == []
        assert classes("argoproj.io/applications", "CREATE", catalog=catalog, new=OBJECT) == ["deploy"]

    def test_of_which_only_some_fields_are_an_order(self) -> None:
        catalog = extended(deputies=[{"resource": "*.com/orders", "fields": ["spec.source", "spec.none.at.all"]}])
        assert classes("example.com/orders", catalog=catalog, new=with_spec(n=2), old=OBJECT) == []
        assert classes("example.com/orders", catalog=catalog, new=with_spec(source={}), old=OBJECT) == ["deploy"]

    @pytest.mark.parametrize(
        ("when", "expected"),
        [("object.spec.n > 1", ["deploy"]), ("object.spec.n > 9", []), ("object.spec.missing == 1", ["deploy"])],
    )
    def test_of_which_only_some_objects_are_one(self, when: str, expected: list[str]) -> None:
        catalog = extended(deputies=[{"resource": "example.com/orders", "when": when}])
        assert classes("example.com/orders", catalog=catalog, new=with_spec(n=2), old=OBJECT) == expected

    def test_adds_metadata_with_the_class_of_its_effect(self) -> None:
        catalog = extended(
            deadlyMetadata=[{"key": "example.com/drop-*"}, {"key": "example.com/size", "class": "scale"}]
        )
        annotations = {"example.com/drop-at": "noon", "example.com/size": "0", "example.com/else": "x"}
        (delete, scale) = actions(
            "apps/deployments", catalog=catalog, new=deployment(annotations=annotations), old=deployment()
        )
        assert (delete.operation, scale.operation) == ("delete", "scale")
        assert "example.com/drop-at" in delete.details
        assert "example.com/size" in scale.details
        assert classes("apps/deployments", new=deployment(annotations=annotations), old=deployment()) == []

    def test_two_roads_to_one_effect_are_one_action(self) -> None:
        catalog = extended(deadlyMetadata=[{"key": "x", "class": "scale"}])
        new = deployment(replicas=0, annotations={"x": "y"})
        (only,) = actions("apps/deployments", catalog=catalog, new=new, old=deployment())
        assert (only.operation, only.replicas_to) == ("scale", 0)

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"deadlyMetadata": [{"key": "a b"}]}, "spec.deadlyMetadata[0].key"),
            ({"deadlyMetadata": [{"key": "a", "class": "guard"}]}, "spec.deadlyMetadata[0].class"),
            ({"deadlyMetadata": [{"key": "a"}] * (MAX_ENTRIES + 1)}, "spec.deadlyMetadata"),
            ({"deputies": [{"resource": "orders"}]}, "spec.deputies[0].resource"),
            ({"deputies": [{"resource": "a/b", "operation": "explode"}]}, "spec.deputies[0].operation"),
            ({"deputies": [{"resource": "a/b", "verbs": []}]}, "spec.deputies[0].verbs"),
            ({"deputies": [{"resource": "a/b", "verbs": ["patch"]}]}, "spec.deputies[0].verbs[0]"),
            ({"deputies": [{"resource": "a/b", "fields": ["spec[0]"]}]}, "spec.deputies[0].fields[0]"),
            ({"deputies": [{"resource": "a/b", "when": "object.spec +"}]}, "spec.deputies[0].when"),
            ({"deputies": [{"resource": "a/b", "colour": "red"}]}, "spec.deputies[0]"),
            ({"deputees": []}, "spec"),
        ],
    )
    def test_a_wrong_one_is_refused_with_its_field(self, spec: dict[str, Any], field: str) -> None:
        with pytest.raises(PolicyError) as error:
            Configuration.parse(configuration(**spec))
        assert error.value.field == field

    def test_there_is_but_one(self) -> None:
        with pytest.raises(PolicyError) as error:
            Configuration.parse(configuration("other"))
        assert error.value.field == "metadata.name"


class TestGuard:
    def weakened(self, operation: str, new: Any = None, old: Any = None, sub_resource: str = "") -> bool:
        index = PolicyIndex()
        index.put_policy(Policy.parse(policy()))
        body = json.loads(
            review(operation, name="default", namespace=None, new=new, old=old, sub_resource=sub_resource)
        )
        body["request"]["resource"] = {"group": "kube-stepup.io", "version": "v1", "resource": "stepupconfigurations"}
        return bool(Guard(index, "kube-stepup").weakened_by(decode(json.dumps(body).encode())))

    def test_adding_is_free(self) -> None:
        less = configuration(deputies=[{"resource": "a/b"}])
        more = configuration(deputies=[{"resource": "c/d"}, {"resource": "a/b"}], deadlyMetadata=[{"key": "x"}])
        assert not self.weakened("CREATE", new=less)
        assert not self.weakened("UPDATE", new=more, old=less)

    def test_taking_away_is_not(self) -> None:
        more = configuration(deputies=[{"resource": "a/b"}], deadlyMetadata=[{"key": "x"}])
        assert self.weakened("DELETE", old=more)
        assert self.weakened("UPDATE", new=configuration(deputies=[{"resource": "a/b"}]), old=more)
        narrower = configuration(deputies=[{"resource": "a/b", "when": "false"}], deadlyMetadata=[{"key": "x"}])
        assert self.weakened("UPDATE", new=narrower, old=more)
        assert self.weakened("UPDATE", new=more, old=more, sub_resource="status")
        assert self.weakened("UPDATE", new=more, old=configuration(deputies=[{"resource": "unreadable"}]))


class TestScalePaths:
    def test_replicas_are_where_the_definition_says(self) -> None:
        catalog = Catalog()
        catalog.put_definition("cnpg.io", "clusters", [".spec.size", ".spec.replicas"])
        (scale,) = actions("cnpg.io/clusters", catalog=catalog, new=with_spec(size=0), old=with_spec(size=3))
        assert (scale.operation, scale.replicas_from, scale.replicas_to) == ("scale", 3, 0)
        assert classes("cnpg.io/clusters", catalog=catalog, new=with_spec(replicas=0), old=OBJECT) == ["scale"]
        assert classes("cnpg.io/clusters", catalog=catalog, new=with_spec(other=0), old=OBJECT) == []
        assert classes("cnpg.io/clusters", new=with_spec(size=0), old=with_spec(size=3)) == []

    def test_only_what_is_unusual_is_kept(self) -> None:
        catalog = Catalog()
        catalog.put_definition("cnpg.io", "clusters", [".spec.size"])
        catalog.put_definition("example.com", "servers", [".spec.replicas"])
        catalog.put_definition("example.com", "orders", [])
        assert list(catalog.scale_paths) == [("cnpg.io", "clusters")]
        catalog.put_definition("cnpg.io", "clusters", [])
        assert catalog.scale_paths == {}
        catalog.put_definition("cnpg.io", "clusters", [".spec.size"])
        catalog.remove_definition("cnpg.io", "clusters")
        assert catalog.scale_paths == {}

    def test_another_configuration_keeps_them(self) -> None:
        catalog = Catalog()
        catalog.put_definition("cnpg.io", "clusters", [".spec.size"])
        assert catalog.extended_by(None).scale_paths is catalog.scale_paths


def release(text: bytes = b"", **fields: Any) -> dict[str, Any]:
    packed = text or gzip.compress(json.dumps({"name": "web", "manifest": "a", **fields}).encode(), mtime=0)
    data = base64.b64encode(base64.b64encode(packed)).decode()
    return {"metadata": {"name": "sh.helm.release.v1.web.v1"}, "type": "helm.sh/release.v1", "data": {"release": data}}


class TestHelmRelease:
    def test_what_it_would_install_is_a_deployment(self) -> None:
        assert classes("core/secrets", "CREATE", new=release()) == ["deploy"]
        assert classes("core/secrets", new=release(manifest="b"), old=release()) == ["deploy"]
        assert classes("core/secrets", new=release(config={"a": 1}), old=release()) == ["deploy"]

    def test_what_helm_notes_is_not(self) -> None:
        assert classes("core/secrets", new=release(info={"status": "deployed"}), old=release(info={})) == []

    def test_the_same_release_at_another_try_is_the_same_change(self) -> None:
        first, again = (actions("core/secrets", "CREATE", new=release(info={"at": at}))[0] for at in (1, 2))
        assert first.change == again.change

    @pytest.mark.parametrize("packed", [b"junk", gzip.compress(b" " * (MAX_RELEASE_BYTES + 1)), gzip.compress(b"[]")])
    def test_one_that_cannot_be_read_is_changed(self, packed: bytes) -> None:
        assert classes("core/secrets", new=release(packed), old=release()) == ["deploy"]
        assert classes("core/secrets", new=release(packed), old=release(packed)) == ["deploy"]

    def test_other_secrets_are_nothing(self) -> None:
        assert classes("core/secrets", new={**OBJECT, "data": {"a": "Yg=="}}, old=OBJECT) == []


def test_a_sealed_secret_that_becomes_a_token_is_access() -> None:
    token = with_spec(template={"type": "kubernetes.io/service-account-token"})
    assert set(classes("bitnami.com/sealedsecrets", "CREATE", new=token)) == {"access", "deploy"}
