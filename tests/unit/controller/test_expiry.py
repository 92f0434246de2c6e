"""When a record is marked Expired, and when it is deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.adapters.kube import AnswerError
from webhook.controller.expiry import Due, Expiry, due
from webhook.errors import StoreUnavailableError
from webhook.settings import Settings

pytestmark = pytest.mark.anyio
COLLECTION = "/apis/kube-stepup.io/v1alpha1/elevations"
NAME = "elv-" + "a" * 20
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = Settings(audience="test")  # an assertion lives an hour at most, a record a week longer
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
SECOND = timedelta(seconds=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def record(phase: str = "", expires: timedelta | None = None) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": phase} if phase else {}
    if expires is not None:
        status["expiresAt"] = (CREATED + expires).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {"name": NAME, "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status}


@pytest.mark.parametrize(
    ("phase", "expires", "age", "expected"),
    [
        ("Granted", 300 * SECOND, 299 * SECOND, Due.NOTHING),
        ("Granted", 300 * SECOND, 300 * SECOND, Due.EXPIRE),
        ("Granted", None, HOUR - SECOND, Due.NOTHING),
        ("Granted", None, HOUR, Due.EXPIRE),
        ("Pending", None, 299 * SECOND, Due.NOTHING),
        ("Pending", None, 300 * SECOND, Due.EXPIRE),
        ("", None, 300 * SECOND, Due.EXPIRE),
        ("Used", 300 * SECOND, HOUR, Due.NOTHING),
        ("Revoked", 300 * SECOND, HOUR, Due.NOTHING),
        ("Denied", None, HOUR, Due.NOTHING),
        ("Expired", 300 * SECOND, HOUR + WEEK - SECOND, Due.NOTHING),
        ("Expired", 300 * SECOND, HOUR + WEEK, Due.DELETE),
        ("Used", 24 * HOUR, HOUR + WEEK, Due.NOTHING),
        ("Used", 24 * HOUR, 24 * HOUR + WEEK, Due.DELETE),
        ("Granted", 300 * SECOND, HOUR + WEEK, Due.DELETE),
        ("Pending", None, HOUR + WEEK, Due.DELETE),
        # Never answered: nothing could be done with it
        ("Expired", None, 300 * SECOND, Due.NOTHING),
        ("Expired", None, 1199 * SECOND, Due.NOTHING),
        ("Expired", None, 1200 * SECOND, Due.DELETE),
        ("Pending", None, 1200 * SECOND, Due.DELETE),
        ("Revoked", None, 0 * SECOND, Due.DELETE),
    ],
)
def test_what_is_due(phase: str, expires: timedelta | None, age: timedelta, expected: Due) -> None:
    assert due(record(phase, expires), SETTINGS, CREATED + age) is expected


@pytest.mark.parametrize("phase", ["Revoked", "Expired"])
def test_what_was_granted_is_kept_although_its_end_cannot_be_read(phase: str) -> None:
    found = record(phase)
    found["status"] |= {"issuedAt": "2026-01-01T00:00:00Z", "expiresAt": "nonsense"}
    assert due(found, SETTINGS, CREATED + HOUR) is Due.NOTHING


@pytest.mark.parametrize("text", ["nonsense", ""])
def test_a_time_that_cannot_be_read_counts_as_none(text: str) -> None:
    found = record("Granted")
    found["status"]["expiresAt"] = text
    assert due(found, SETTINGS, CREATED + HOUR - SECOND) is Due.NOTHING


def test_a_time_without_a_zone_is_utc() -> None:
    found = record("Granted")
    found["status"]["expiresAt"] = "2026-01-01T00:05:00"
    assert due(found, SETTINGS, CREATED + 300 * SECOND) is Due.EXPIRE


def test_a_record_without_an_age_is_left_alone() -> None:
    assert due({"metadata": {}}, SETTINGS, CREATED) is Due.NOTHING


async def stored(kube: FakeKube, found: dict[str, Any]) -> None:
    await kube.create(COLLECTION, found)


def loop(kube: FakeKube, now: datetime) -> Expiry:
    return Expiry(kube, SETTINGS, now=lambda: now)  # type: ignore[arg-type]


async def test_a_record_is_marked_and_later_deleted_and_the_rest_of_it_stays() -> None:
    kube = FakeKube()
    found = record("Granted", 300 * SECOND)
    found["status"]["uses"] = [{"key": "k"}]
    await stored(kube, found)
    await loop(kube, CREATED + HOUR).step()
    status = kube.objects[f"{COLLECTION}/{NAME}"]["status"]
    assert status["phase"] == "Expired"
    assert status["uses"] == [{"key": "k"}]
    await loop(kube, CREATED + HOUR + WEEK).step()
    assert kube.objects == {}


async def test_records_in_force_are_not_touched() -> None:
    kube = FakeKube()
    await stored(kube, record("Granted", HOUR))
    await loop(kube, CREATED + SECOND).step()
    assert {method for method, _ in kube.calls} == {"POST", "GET"}


class Changing(FakeKube):
    """An API server on which every object changes, or goes, between list and write."""

    def __init__(self, *, goes: bool) -> None:
        super().__init__()
        self.goes = goes

    def _checked(self, path: str, resource_version: str | None) -> dict[str, Any]:
        if self.goes:
            raise AnswerError(404, "NotFound", "PATCH", path)
        return super()._checked(path, "0")


@pytest.mark.parametrize("goes", [True, False])
async def test_a_record_that_was_used_or_went_meanwhile_is_left_alone(goes: bool) -> None:
    kube = Changing(goes=goes)
    await stored(kube, record("Granted", 300 * SECOND))
    await loop(kube, CREATED + HOUR).step()
    assert kube.objects[f"{COLLECTION}/{NAME}"]["status"]["phase"] == "Granted"


async def test_a_record_that_changed_meanwhile_is_not_deleted() -> None:
    kube = Changing(goes=False)
    await stored(kube, record("Expired", 300 * SECOND))
    await loop(kube, CREATED + 2 * WEEK).step()
    assert len(kube.objects) == 1


class Forbidding(FakeKube):
    def _checked(self, path: str, resource_version: str | None) -> dict[str, Any]:
        raise AnswerError(403, "Forbidden", "PATCH", path)


async def test_a_refusal_of_the_api_server_ends_the_step() -> None:
    kube = Forbidding()
    await stored(kube, record("Granted", 300 * SECOND))
    with pytest.raises(StoreUnavailableError):
        await loop(kube, CREATED + HOUR).step()
