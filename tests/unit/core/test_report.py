"""Counts of what policies matched and refused: complete, bounded, and never going back."""

from __future__ import annotations

from typing import Any

from webhook.core.applicable import Applicable, Demand
from webhook.core.decision import Decision
from webhook.core.operation import Action, Target
from webhook.core.report import (
    MAX_LINES_A_DAY,
    MAX_USER_LETTERS,
    Batch,
    Line,
    Lines,
    merged_day,
    merged_totals,
    read_lines,
    shortened,
)
from webhook.core.requirement import Requirement

NOON = 1_764_000_000.0  # 2025-11-24T16:00:00Z
ACTION = Action("delete", Target("apps", "deployments", "prod", "web"), "")


def demand(policy: str = "production", rule: str = "destroy", enforcement: str = "Deny") -> Demand:
    requirement = Requirement(
        policy=policy, rule=rule, assurance="aal2", max_age_seconds=300, use="Once", scope="Object"
    )
    return Demand(ACTION, requirement, enforcement)


def refused(*demands: Demand) -> Decision:
    would = tuple(one for one in demands if one.enforcement != "Deny")
    unmet = tuple(one for one in demands if one.enforcement == "Deny")
    return Decision(
        allowed=not unmet, code="step-up-required", applicable=Applicable(demands), unmet=unmet, would_deny=would
    )


def line(user: str = "alice", count: int = 1, at: str = "2025-11-24T16:00:00Z", policy: str = "production") -> Line:
    return Line(policy, "destroy", "delete", user, "refused", count, at, at)


def test_a_refusal_is_counted_for_its_policy_and_told_with_rule_and_person() -> None:
    batch = Batch()
    batch.note(refused(demand()), "alice", NOON)
    batch.note(refused(demand()), "alice", NOON + 60)
    (total,) = batch.totals.values()
    assert (total.matched, total.refused, total.would_refuse, total.last_refused_at) == (
        2,
        2,
        0,
        "2025-11-24T16:01:00Z",
    )
    (found,) = batch.days["2025-11-24"]
    assert found == Line(
        "production", "destroy", "delete", "alice", "refused", 2, "2025-11-24T16:00:00Z", "2025-11-24T16:01:00Z"
    )


def test_a_policy_that_only_warns_would_have_refused() -> None:
    batch = Batch()
    batch.note(refused(demand(), demand("trial", "r", "Audit")), "alice", NOON)
    assert (batch.totals["trial"].refused, batch.totals["trial"].would_refuse) == (0, 1)
    assert {(one.policy, one.outcome) for one in batch.days["2025-11-24"]} == {
        ("production", "refused"),
        ("trial", "would-refuse"),
    }


def test_one_request_counts_once_for_a_policy_however_many_rules_refuse_it() -> None:
    batch = Batch()
    batch.note(refused(demand(rule="a"), demand(rule="b"), demand(rule="b")), "alice", NOON)
    assert batch.totals["production"].refused == 1
    assert sorted((one.rule, one.count) for one in batch.days["2025-11-24"]) == [("a", 1), ("b", 1)]


def test_what_passes_is_matched_and_nothing_more() -> None:
    batch = Batch()
    batch.note(Decision(allowed=True, code="step-up-satisfied", applicable=Applicable((demand(),))), "alice", NOON)
    assert (batch.totals["production"].matched, batch.totals["production"].refused) == (1, 0)
    assert batch.days == {}


def test_what_finds_no_place_is_counted_together() -> None:
    lines = Lines(2)
    for name in ("a", "b", "c", "d", "a"):
        lines.add(line(name))
    assert {one.user: one.count for one in lines} == {"a": 2, "b": 1, "": 2}
    assert sum(one.count for one in lines) == 5


def test_a_day_is_bounded_whatever_is_added() -> None:
    stored: dict[str, Any] = {}
    for part in range(3):
        stored = {"lines": merged_day(stored, [line(f"user-{part}-{number}") for number in range(600)])}
    assert len(stored["lines"]) == MAX_LINES_A_DAY + 1
    assert sum(one["count"] for one in stored["lines"]) == 1800


def test_days_of_two_replicas_add_up() -> None:
    one = {"lines": merged_day({}, [line(count=2, at="2025-11-24T10:00:00Z")])}
    (both,) = read_lines({"lines": merged_day(one, [line(count=3, at="2025-11-24T09:00:00Z")])})
    assert (both.count, both.first, both.last) == (5, "2025-11-24T09:00:00Z", "2025-11-24T10:00:00Z")


def test_totals_add_up_and_begin_anew_with_a_policy_that_was_made_anew() -> None:
    batch = Batch()
    batch.note(refused(demand()), "alice", NOON)
    stored = {"policies": merged_totals({}, batch.totals, lambda _: "u1")}
    stored = {"policies": merged_totals(stored, batch.totals, lambda _: "u1")}
    (known,) = stored["policies"]
    assert (known["matched"], known["refused"], known["uid"]) == (2, 2, "u1")
    (again,) = merged_totals(stored, batch.totals, lambda _: "u2")
    assert (again["refused"], again["uid"]) == (1, "u2")
    (gone,) = merged_totals(stored, batch.totals, lambda _: "")
    assert (gone["refused"], gone["uid"]) == (3, "u1"), "a policy that is gone meanwhile is still the same"


def test_what_could_not_be_stored_is_kept() -> None:
    first, second = Batch(), Batch()
    first.note(refused(demand()), "alice", NOON)
    second.note(refused(demand()), "alice", NOON + 5)
    second.merge(first)
    assert second.totals["production"].refused == 2
    assert second.totals["production"].since == "2025-11-24T16:00:00Z"
    assert [one.count for one in second.days["2025-11-24"]] == [2]


def test_a_username_without_end_is_cut_and_nonsense_is_passed_over() -> None:
    assert len(shortened("x" * 5000)) == MAX_USER_LETTERS
    assert read_lines({"lines": [{"policy": 7}, "x", None]}) == []
    assert read_lines({"lines": "x"}) == []
