"""Where the API server must ask us, from policies and namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from webhook.controller.coverage import MAX_NAMES_LETTERS, Area, Coverage, Narrowing, coverage_of
from webhook.core.policy import Policy

NAMESPACES = {
    "prod": {"env": "prod"},
    "payments-eu": {},
    "payments-us": {"env": "prod"},
    "staging": {"env": "test"},
    "kube-system": {},
}


def policy(enforcement: str = "Deny", **match: Any) -> Policy:
    rules = [{"name": "r", "operations": ["exec"]}]
    return Policy.parse(
        {
            "apiVersion": "kube-stepup.io/v1alpha1",
            "kind": "StepUpPolicy",
            "metadata": {"name": "p"},
            "spec": {"enforcement": enforcement, "match": match, "rules": rules},
        }
    )


LABELLED = policy(namespaceSelector={"matchLabels": {"env": "prod"}})
PAYMENTS = policy(namespaces=["payments-*"])
ANYWHERE = policy(subjects={"groups": ["devs"]})


def covered(*policies: Policy, max_namespaces: int = 400, namespaces: Any = None) -> Coverage:
    return coverage_of(
        policies,
        NAMESPACES if namespaces is None else namespaces,
        excluded_namespaces=("kube-system",),
        max_namespaces=max_namespaces,
    )


def names(*values: str) -> Area:
    return Area(frozenset(values))


@pytest.mark.parametrize(
    ("policies", "guarded"),
    [
        ((), Area()),
        ((LABELLED,), names("prod", "payments-us")),
        ((PAYMENTS,), names("payments-eu", "payments-us")),
        ((LABELLED, PAYMENTS), names("prod", "payments-eu", "payments-us")),
        ((ANYWHERE,), Area(every_namespace=True, cluster_scoped=True)),
        ((LABELLED, ANYWHERE), Area(every_namespace=True, cluster_scoped=True)),
        ((policy(namespaces=["kube-system", "prod"]),), names("prod")),
        ((policy(namespaces=["kube-*"]),), Area()),
        ((policy(namespaces=["does-not-exist"]),), Area()),
    ],
)
def test_guarded_is_where_a_policy_that_denies_can_match(policies: tuple[Policy, ...], guarded: Area) -> None:
    assert covered(*policies).guarded == guarded


def test_policies_that_never_refuse_do_not_refuse_in_an_outage_either() -> None:
    found = covered(policy("Audit", namespaces=["prod"]), policy("Warn", namespaces=["staging"]))
    assert found.guarded.is_empty
    assert found.matched == names("prod", "staging")


def test_excluded_namespaces_are_matched_but_not_guarded() -> None:
    found = covered(policy(namespaces=["kube-*"]))
    assert found == Coverage(Area(), names("kube-system"))


def test_more_namespaces_than_allowed_guard_all_of_them() -> None:
    assert covered(LABELLED, max_namespaces=2).guarded == names("prod", "payments-us")
    assert covered(LABELLED, PAYMENTS, max_namespaces=2).guarded == Area(every_namespace=True)


def test_more_letters_than_an_expression_may_have_guard_all_namespaces() -> None:
    long = {f"{number:063}": {"env": "prod"} for number in range(MAX_NAMES_LETTERS // 67 + 1)}
    assert covered(LABELLED, namespaces=long, max_namespaces=5000).guarded == Area(every_namespace=True)


@pytest.mark.parametrize(
    ("larger", "smaller", "contains"),
    [
        (names("a", "b"), names("a"), True),
        (names("a"), names("a", "b"), False),
        (Area(every_namespace=True), names("a"), True),
        (names("a"), Area(every_namespace=True), False),
        (Area(every_namespace=True), Area(cluster_scoped=True), False),
        (Area(cluster_scoped=True), Area(), True),
    ],
)
def test_whether_one_area_contains_another(larger: Area, smaller: Area, contains: bool) -> None:
    assert larger.contains(smaller) is contains


def test_joining_areas_drops_names_where_all_namespaces_are_meant() -> None:
    assert names("a").union(Area(every_namespace=True)) == Area(every_namespace=True)
    assert names("a").union(Area(names("b").namespaces, cluster_scoped=True)) == Area(
        frozenset({"a", "b"}), cluster_scoped=True
    )


def both(*values: str) -> Coverage:
    return Coverage(names(*values), names(*values))


def test_the_first_coverage_is_taken_as_it_is() -> None:
    assert Narrowing(30, 400).next(both("a"), 0) == both("a")


def test_a_wider_coverage_is_taken_at_once() -> None:
    narrowing = Narrowing(30, 400)
    narrowing.next(both("a"), 0)
    assert narrowing.next(both("a", "b"), 1) == both("a", "b")


def test_a_narrower_coverage_is_taken_when_it_was_wanted_for_long_enough() -> None:
    narrowing = Narrowing(30, 400)
    narrowing.next(both("a", "b"), 0)
    assert narrowing.next(both("a"), 10) == both("a", "b")
    assert narrowing.next(both("a"), 39) == both("a", "b")
    assert narrowing.next(both("a"), 40) == both("a")


def test_what_comes_is_guarded_at_once_while_what_goes_stays_for_a_while() -> None:
    narrowing = Narrowing(30, 400)
    narrowing.next(both("a"), 0)
    assert narrowing.next(both("b"), 10) == both("a", "b")
    assert narrowing.next(both("b"), 41) == both("b")


def test_what_goes_and_comes_back_starts_the_wait_anew() -> None:
    narrowing = Narrowing(30, 400)
    narrowing.next(both("a", "b"), 0)
    narrowing.next(both("a"), 10)
    assert narrowing.next(both("a", "b"), 20) == both("a", "b")
    assert narrowing.next(both("a"), 45) == both("a", "b")
    assert narrowing.next(both("a"), 75) == both("a")


def test_a_change_on_the_way_to_narrower_never_ends_the_wait_early() -> None:
    narrowing = Narrowing(30, 400)
    narrowing.next(both("a", "b"), 0)
    narrowing.next(both("a"), 1)
    assert narrowing.next(both("a", "c"), 30) == both("a", "b", "c")
    assert narrowing.next(both("a", "c"), 32) == both("a", "b", "c")
    assert narrowing.next(both("a", "c"), 60) == both("a", "c")


def test_both_together_still_keep_the_limit() -> None:
    narrowing = Narrowing(30, 2)
    narrowing.next(both("a", "b"), 0)
    assert narrowing.next(both("c", "d"), 1).guarded == Area(every_namespace=True)


ENDS = frozenset({"apiextensions.k8s.io/customresourcedefinitions", "core/nodes", "core/persistentvolumes"})


def asking(*operations: str, resources: tuple[str, ...] = ("*",), **match: Any) -> Policy:
    obj = {
        "apiVersion": "kube-stepup.io/v1alpha1",
        "kind": "StepUpPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "match": match or {"namespaces": ["prod"]},
            "rules": [{"name": "r", "operations": list(operations), "resources": list(resources)}],
        },
    }
    return Policy.parse(obj)


@pytest.mark.parametrize(
    ("found", "kinds"),
    [
        (asking("delete"), ENDS),
        (asking("delete", resources=("secrets",)), {"apiextensions.k8s.io/customresourcedefinitions"}),
        (asking("delete:cnpg.io/clusters"), {"apiextensions.k8s.io/customresourcedefinitions"}),
        (asking("drain"), {"core/nodes"}),
        (asking("drain", resources=("secrets",)), set()),
        (asking("scale", "exec", "update:core/pods"), set()),
        (asking("delete", namespaces=["does-not-exist"]), set()),
    ],
)
def test_cluster_scoped_kinds_that_take_guarded_objects_along_are_guarded(found: Policy, kinds: set[str]) -> None:
    assert covered(found).guarded.kinds == kinds


def test_kinds_are_joined_compared_and_dropped_where_everything_cluster_scoped_is_meant() -> None:
    nodes, volumes = Area(kinds=frozenset({"core/nodes"})), Area(kinds=frozenset({"core/persistentvolumes"}))
    both = nodes.union(volumes)
    assert both.kinds == nodes.kinds | volumes.kinds
    assert both.contains(nodes)
    assert not nodes.contains(both)
    assert Area(cluster_scoped=True).contains(both)
    assert not nodes.is_empty
    assert both.union(Area(cluster_scoped=True)) == Area(cluster_scoped=True)
