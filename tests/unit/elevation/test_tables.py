"""What `kubectl get` prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes.elevation import Person, wanted
from webhook.elevation.tables import now, table

NOW = datetime(2026, 9, 21, 12, 0, tzinfo=UTC)


def request(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "elv-1", "creationTimestamp": "2026-09-21T11:58:30Z"},
        "spec": {"details": [wanted()], "reason": "OPS-7"},
        "status": {"phase": "Granted", "expiresAt": "2026-09-21T12:03:30Z", **status},
    }


def cells(obj: dict[str, Any], kind: str = "ElevationRequest", at: datetime = NOW) -> list[Any]:
    (row,) = table(kind, [obj], at)["rows"]
    found: list[Any] = row["cells"]
    return found


def test_a_request_in_one_line() -> None:
    assert cells(request()) == ["elv-1", "Granted", "delete deployments/web -n prod", "OPS-7", "210s", "90s"]


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ([wanted(objects=[{"name": "a"}, {"name": "b"}])], "delete deployments/a,b -n prod"),
        ([wanted(scope="Resource", objects=[])], "delete deployments/* -n prod"),
        ([wanted(scope="Namespace", group="", resource="", objects=[])], "delete */* -n prod"),
        ([wanted(namespace="", resource="nodes", objects=[{"name": "n"}])], "delete nodes/n"),
        ([wanted(), wanted(operation="scale")], "delete deployments/web -n prod; scale deployments/web -n prod"),
    ],
)
def test_what_it_is_for(details: list[dict[str, Any]], text: str) -> None:
    assert cells({**request(), "spec": {"details": details}})[2:4] == [text, ""]


@pytest.mark.parametrize(
    ("status", "left"),
    [
        ({"phase": "Used"}, "210s"),
        ({"phase": "Expired"}, ""),
        ({"phase": "Pending"}, ""),
        ({"expiresAt": None}, ""),
        ({"expiresAt": "2026-09-21T11:00:00Z"}, "0s"),
    ],
)
def test_how_long_it_lasts(status: dict[str, Any], left: str) -> None:
    assert cells(request(**status))[4] == left


@pytest.mark.parametrize(
    ("created", "age"),
    [
        ("2026-09-21T12:00:05Z", "0s"),
        ("2026-09-21T11:58:01Z", "119s"),
        ("2026-09-21T11:58:00Z", "2m"),
        ("2026-09-21T10:00:01Z", "119m"),
        ("2026-09-21T10:00:00Z", "2h"),
        ("2026-09-19T12:00:01Z", "47h"),
        ("2026-09-19T12:00:00Z", "2d"),
        (None, ""),
    ],
)
def test_how_old_it_is(created: str | None, age: str) -> None:
    metadata = {"name": "elv-1", **({"creationTimestamp": created} if created else {})}
    assert cells({**request(), "metadata": metadata})[5] == age


def test_an_authenticator_in_one_line() -> None:
    obj = {
        "metadata": {"name": "totp-1", "creationTimestamp": "2026-09-21T11:58:30Z"},
        "spec": {"type": "totp"},
        "status": {"phase": "Confirmed", "recoveryCodesLeft": 9},
    }
    assert cells(obj, "Authenticator") == ["totp-1", "totp", "Confirmed", 9, "90s"]
    assert cells({**obj, "status": {"phase": "Pending"}}, "Authenticator")[3] == ""


def test_rows_carry_their_metadata_and_nothing_else_of_the_object() -> None:
    found = table("ElevationRequest", [request()], NOW)
    assert (found["kind"], found["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert found["columnDefinitions"][0]["format"] == "name"
    assert found["rows"][0]["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": request()["metadata"],
    }


async def test_authenticators_too(alice: Person) -> None:
    found = (await alice.get("authenticators", Accept="application/json;as=Table;g=meta.k8s.io;v=v1")).json()
    assert [column["name"] for column in found["columnDefinitions"]] == ["Name", "Type", "Phase", "Recovery-Codes", "Age"]  # fmt: skip
    assert found["rows"][0]["cells"][1:4] == ["totp", "Confirmed", 10]


def test_the_present_knows_its_time_zone() -> None:
    assert now().tzinfo is UTC
