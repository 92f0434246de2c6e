"""From a review to its effects: every form of each class, and what has none."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.builders import UID, deletion, deployment, pod, review
from webhook.core.classify import classify
from webhook.core.operation import Action
from webhook.core.request import decode


def actions(body: bytes) -> tuple[Action, ...]:
    return classify(decode(body))


def operations(body: bytes) -> list[str]:
    return sorted(action.operation for action in actions(body))


def update(new: dict[str, Any], old: dict[str, Any], **fields: Any) -> bytes:
    return review("UPDATE", new=new, old=old, **fields)


def changed(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(obj)
    *parents, last = path.split("/")
    place = found
    for part in parents:
        place = place.setdefault(part, {})
    place[last] = value
    return found


class TestDelete:
    def test_a_deletion_names_its_target_with_uid(self) -> None:
        (action,) = actions(deletion())
        assert (action.operation, action.target.argument, action.target.namespace) == (
            "delete",
            "deployments.apps/web",
            "prod",
        )
        assert action.target.uid == UID

    def test_a_collection_is_named_by_the_old_object(self) -> None:
        (action,) = actions(deletion(name=None))
        assert action.target.name == "web"

    def test_a_namespace_is_cluster_scoped_and_takes_all_inside_with_it(self) -> None:
        old = {"metadata": {"name": "prod", "uid": "n1"}}
        (action,) = actions(review("DELETE", kind="Namespace", name="prod", namespace="prod", old=old))
        assert action.cascade
        assert (action.target.namespace, action.target.name) == ("", "prod")

    def test_an_eviction_deletes_its_pod(self) -> None:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-1", "namespace": "prod"}}
        (action,) = actions(review("CREATE", kind="Pod", name="web-1", sub_resource="eviction", new=eviction))
        assert (action.operation, action.target.argument) == ("delete", "pods/web-1")

    def test_an_eviction_without_name_in_the_request_is_named_by_its_body(self) -> None:
        eviction = {"metadata": {"name": "web-1", "namespace": "prod"}}
        (action,) = actions(review("CREATE", kind="Pod", name=None, sub_resource="eviction", new=eviction))
        assert action.target.name == "web-1"

    def test_the_uid_of_an_eviction_is_not_the_pods(self) -> None:
        eviction = {"metadata": {"name": "web-1", "uid": "not-the-pod"}}
        (action,) = actions(review("CREATE", kind="Pod", name="web-1", sub_resource="eviction", new=eviction))
        assert action.target.uid == ""


class TestScale:
    @pytest.mark.parametrize(("before", "after"), [(3, 0), (3, 5), (0, 1)])
    def test_changed_replicas_scale(self, before: int, after: int) -> None:
        (action,) = actions(update(deployment(replicas=after), deployment(replicas=before)))
        assert action.operation == "scale"
        assert (action.replicas_from, action.replicas_to) == (before, after)

    def test_the_scale_subresource_leaves_zero_out(self) -> None:
        old = {"metadata": {"name": "web", "uid": UID}, "spec": {"replicas": 2}}
        new = {"metadata": {"name": "web", "uid": UID}, "spec": {}}
        (action,) = actions(update(new, old, sub_resource="scale"))
        assert (action.operation, action.replicas_to, action.target.uid) == ("scale", 0, UID)

    def test_a_scale_to_the_same_number_is_nothing(self) -> None:
        old = {"metadata": {"name": "web"}, "spec": {"replicas": 2}}
        assert operations(update(old, old, sub_resource="scale")) == []

    def test_a_custom_resource_with_replicas_is_scaled(self) -> None:
        old = {"metadata": {"name": "web"}, "spec": {"replicas": 2}}
        new = {"metadata": {"name": "web"}, "spec": {"replicas": 0}}
        assert operations(update(new, old, kind="Rollout")) == ["scale"]

    def test_a_workload_created_with_no_replicas_is_scaled_to_zero(self) -> None:
        assert operations(review("CREATE", new=deployment(replicas=0))) == ["deploy", "scale"]

    @pytest.mark.parametrize("replicas", ["many", None, {"a": 1}])
    def test_replicas_that_are_no_number_are_not_a_scale(self, replicas: Any) -> None:
        old = {"metadata": {"name": "web"}, "spec": {"replicas": "few"}}
        new = {"metadata": {"name": "web"}, "spec": {"replicas": replicas}}
        assert operations(update(new, old, kind="Rollout")) == []

    def test_two_targets_of_the_same_number_are_the_same_change(self) -> None:
        (first,) = actions(update(deployment(replicas=0), deployment(replicas=1)))
        (second,) = actions(update(deployment(replicas=0), deployment(replicas=2)))
        (third,) = actions(update(deployment(replicas=4), deployment(replicas=2)))
        assert first.change == second.change != third.change


class TestExec:
    @pytest.mark.parametrize("sub_resource", ["exec", "attach", "portforward", "proxy"])
    def test_each_road_into_a_pod(self, sub_resource: str) -> None:
        options = {"kind": "PodExecOptions", "command": ["ls"], "container": "c"}
        (action,) = actions(review("CONNECT", kind="Pod", name="web-1", sub_resource=sub_resource, new=options))
        assert (action.operation, action.target.argument, action.target.uid) == ("exec", "pods/web-1", "")

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ("web-1", "web-1"),
            ("web-1:8080", "web-1"),
            ("https:web-1:8443", "web-1"),
            (":web-1:80", "web-1"),
            ("http:web-1:", "web-1"),
        ],
    )
    @pytest.mark.parametrize("kind", ["Pod", "Service", "Node"])
    def test_a_proxy_names_its_target_without_scheme_and_port(self, kind: str, given: str, name: str) -> None:
        namespace = None if kind == "Node" else "prod"
        body = review("CONNECT", kind=kind, name=given, namespace=namespace, sub_resource="proxy", new={"path": "/"})
        (action,) = actions(body)
        assert (action.operation, action.target.name) == ("exec", name)

    def test_another_command_is_another_change(self) -> None:
        def change(command: list[str], container: str = "c") -> str:
            options = {"command": command, "container": container}
            return actions(review("CONNECT", kind="Pod", sub_resource="exec", new=options))[0].change

        assert change(["ls"]) == change(["ls"])
        assert len({change(["ls"]), change(["sh"]), change(["l", "s"]), change(["ls"], "other")}) == 4

    def test_an_ephemeral_container_is_a_shell(self) -> None:
        new = pod(ephemeralContainers=[{"name": "debugger", "image": "busybox"}])
        (action,) = actions(update(new, pod(), kind="Pod", sub_resource="ephemeralcontainers"))
        assert (action.operation, action.target.uid) == ("exec", UID)
        assert "busybox" in action.details

    def test_the_name_that_kubectl_debug_makes_up_is_not_part_of_the_change(self) -> None:
        def change(name: str, image: str = "busybox", **old: Any) -> str:
            new = pod(ephemeralContainers=[*old.get("there", []), {"name": name, "image": image}])
            before = pod(ephemeralContainers=old.get("there", []))
            return actions(update(new, before, kind="Pod", sub_resource="ephemeralcontainers"))[0].change

        assert change("debugger-a") == change("debugger-b") != change("debugger-a", image="alpine")
        assert change("debugger-a") == change("debugger-b", there=[{"name": "earlier", "image": "busybox"}])

    def test_an_update_of_no_ephemeral_container_is_nothing(self) -> None:
        assert operations(update(pod(), pod(), kind="Pod", sub_resource="ephemeralcontainers")) == []

    @pytest.mark.parametrize(
        "spec",
        [
            {"hostPID": True},
            {"hostIPC": True},
            {"hostNetwork": True},
            {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
            {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]},
            {"initContainers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]},
        ],
    )
    def test_a_pod_that_reaches_out_of_its_box_is_a_shell_on_the_node(self, spec: dict[str, Any]) -> None:
        assert operations(review("CREATE", kind="Pod", new=pod(**spec))) == ["deploy", "exec"]

    def test_a_workload_whose_pods_reach_out_is_one_too_when_made_and_when_changed(self) -> None:
        reaching = deployment()
        reaching["spec"]["template"]["spec"]["hostPID"] = True
        assert operations(review("CREATE", new=reaching)) == ["deploy", "exec"]
        assert operations(update(reaching, deployment())) == ["deploy", "exec"]
        image = copy.deepcopy(reaching)
        image["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:2"
        assert operations(update(image, reaching)) == ["deploy"]


class TestRestartAndDeploy:
    RESTARTED = "spec/template/metadata/annotations"

    def test_rollout_restart(self) -> None:
        new = changed(deployment(), self.RESTARTED, {"kubectl.kubernetes.io/restartedAt": "2026-11-24T03:28:55Z"})
        (action,) = actions(update(new, deployment()))
        assert (action.operation, action.repeatable) == ("restart", False)

    def test_another_image_deploys(self) -> None:
        (action,) = actions(update(deployment(image="nginx:2"), deployment()))
        assert action.operation == "deploy"
        assert action.details == "image c: nginx:1 → nginx:2"

    def test_any_other_annotation_of_the_template_deploys(self) -> None:
        new = changed(deployment(), self.RESTARTED, {"restart": "now"})
        assert operations(update(new, deployment())) == ["deploy"]

    def test_one_apply_can_do_all_three(self) -> None:
        new = changed(
            deployment(replicas=0, image="nginx:2"), self.RESTARTED, {"kubectl.kubernetes.io/restartedAt": "now"}
        )
        assert operations(update(new, deployment())) == ["deploy", "restart", "scale"]

    def test_proof_for_one_image_is_not_proof_for_another(self) -> None:
        first = actions(update(deployment(image="a"), deployment()))[0].change
        second = actions(update(deployment(image="b"), deployment()))[0].change
        again = actions(update(deployment(image="a"), deployment(image="z")))[0].change
        assert first == again != second

    def test_the_image_of_a_pod_in_place(self) -> None:
        new = pod(containers=[{"name": "c", "image": "nginx:2"}])
        assert operations(update(new, pod(), kind="Pod", name="web-1")) == ["deploy"]

    def test_a_cronjobs_template_is_two_levels_down(self) -> None:
        def cronjob(image: str) -> dict[str, Any]:
            template = {"spec": {"containers": [{"name": "c", "image": image}]}}
            return {"metadata": {"name": "nightly"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}

        assert operations(update(cronjob("b"), cronjob("a"), kind="CronJob")) == ["deploy"]
        assert operations(review("CREATE", kind="CronJob", new=cronjob("a"))) == ["deploy"]

    def test_a_custom_resource_with_a_pod_template(self) -> None:
        assert operations(update(deployment(image="b"), deployment(image="a"), kind="Rollout")) == ["deploy"]

    @pytest.mark.parametrize("kind", ["Deployment", "Job", "Pod"])
    def test_what_runs_pods_is_deployed_when_created(self, kind: str) -> None:
        assert operations(review("CREATE", kind=kind, new=pod() if kind == "Pod" else deployment())) == ["deploy"]

    def test_a_name_that_is_made_up_at_each_try_is_its_prefix(self) -> None:
        new = pod()
        new["metadata"] = {"generateName": "job-", "name": "job-x7k2p"}
        (action,) = actions(review("CREATE", kind="Pod", name=None, new=new))
        assert action.target.name == "job-*"

    def test_resized_resources_of_a_pod(self) -> None:
        new = pod(containers=[{"name": "c", "image": "nginx:1", "resources": {"limits": {"cpu": "1m"}}}])
        assert operations(update(new, pod(), kind="Pod", sub_resource="resize")) == ["deploy"]


@pytest.mark.parametrize(
    "body",
    [
        update(deployment(labels={"a": "b"}), deployment()),
        update(deployment(), deployment()),
        update(changed(deployment(), "status", {"replicas": 1}), deployment(), sub_resource="status"),
        update(pod(), pod(), kind="Pod", sub_resource="resize"),
        review("CREATE", kind="ConfigMap", new={"metadata": {"name": "c"}, "data": {}}),
        update({"metadata": {"name": "c"}, "data": {"a": "b"}}, {"metadata": {"name": "c"}}, kind="ConfigMap"),
        update(
            {"metadata": {"name": "s"}, "spec": "text"}, {"metadata": {"name": "s"}, "spec": "other"}, kind="Rollout"
        ),
        review("CREATE", kind="Pod", name="web-1", sub_resource="binding", new={"metadata": {"name": "web-1"}}),
        review("CONNECT", kind="Pod", name="web-1", sub_resource="log", new={}),
        review("DELETE", kind="Pod", name="web-1", sub_resource="something", old=pod()),
        review("CREATE", kind="Deployment", new=None),
        review("UPDATE", kind="Deployment", new=deployment(), old=None),
        review("UNHEARD-OF", new=deployment()),
    ],
)
def test_what_has_no_effect_that_we_know_has_no_class(body: bytes) -> None:
    assert operations(body) == []
