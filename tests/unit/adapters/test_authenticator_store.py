"""Records of people under compare-and-swap, and the arithmetic of wrong codes."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.adapters.authenticator_store import (
    MAX_DELAY_SECONDS,
    MAX_REMEMBERED,
    STRANGER_MISSES_PER_HOUR,
    AuthenticatorStore,
    PersonRecord,
    accept_attempt,
    count_attempt,
    credential_hash,
    delay_seconds,
)
from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.kube import object_path
from webhook.errors import ConflictError, RequestError, StoreUnavailableError

SECRETS = object_path("", "v1", "secrets", namespace="kube-stepup")
RECORD = f"{SECRETS}/authn-{user_hash('alice')}"
NOW = 1_790_000_000.0


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def store(kube: FakeKube) -> AuthenticatorStore:
    return AuthenticatorStore(kube, "kube-stepup")  # type: ignore[arg-type]


def add(code: str) -> Any:
    return lambda record: record.recovery.append(code)


class TestRecords:
    async def test_somebody_who_was_never_here_has_an_empty_one(self, store: AuthenticatorStore) -> None:
        assert await store.read("alice") == PersonRecord("alice")

    async def test_a_change_is_kept_in_a_secret_of_its_own_type(
        self, store: AuthenticatorStore, kube: FakeKube
    ) -> None:
        await store.update("alice", add("a"))
        assert (await store.read("alice")).recovery == ["a"]
        stored = kube.objects[RECORD]
        assert stored["type"] == "kube-stepup.io/authenticator"
        assert stored["metadata"]["labels"][USER_LABEL] == user_hash("alice")
        assert json.loads(base64.b64decode(stored["data"]["record"]))["username"] == "alice"

    async def test_people_do_not_share_one(self, store: AuthenticatorStore) -> None:
        await store.update("alice", add("a"))
        assert (await store.read("Alice")).recovery == []
        assert (await store.read("alice ")).recovery == []

    async def test_changes_at_the_same_time_are_all_kept(self, store: AuthenticatorStore) -> None:
        await asyncio.gather(*(store.update("alice", add(str(number))) for number in range(10)))
        assert sorted((await store.read("alice")).recovery) == [str(number) for number in range(10)]

    async def test_a_change_that_raises_changes_nothing(self, store: AuthenticatorStore, kube: FakeKube) -> None:
        def change(record: PersonRecord) -> None:
            record.recovery.append("a")
            raise RequestError("no")

        await store.update("alice", add("b"))
        before = kube.objects[RECORD]
        with pytest.raises(RequestError):
            await store.update("alice", change)
        assert kube.objects[RECORD] == before

    async def test_a_change_begins_from_what_is_stored_each_time_it_is_tried(
        self, store: AuthenticatorStore, kube: FakeKube
    ) -> None:
        seen: list[list[str]] = []

        def change(record: PersonRecord) -> None:
            seen.append(list(record.recovery))
            if len(seen) == 1:
                stored = kube.objects[RECORD]
                stored["data"]["record"] = base64.b64encode(b'{"username":"alice","recovery":["b"]}').decode()
                stored["metadata"]["resourceVersion"] = "999"
            record.recovery.append("c")

        await store.update("alice", add("a"))
        assert (await store.update("alice", change)).recovery == ["b", "c"]
        assert seen == [["a"], ["b"]]

    async def test_it_is_not_tried_for_ever(
        self, store: AuthenticatorStore, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def conflict(*_: Any, **__: Any) -> dict[str, Any]:
            raise ConflictError("changed")

        monkeypatch.setattr(kube, "create", conflict)
        with pytest.raises(StoreUnavailableError):
            await store.update("alice", add("a"))

    async def test_one_that_says_it_is_another_persons_is_not_believed(
        self, store: AuthenticatorStore, kube: FakeKube
    ) -> None:
        await store.update("alice", add("a"))
        kube.objects[f"{SECRETS}/authn-{user_hash('bob')}"] = kube.objects[RECORD]
        with pytest.raises(StoreUnavailableError):
            await store.read("bob")

    async def test_a_secret_without_a_record_is_an_empty_one(self, store: AuthenticatorStore, kube: FakeKube) -> None:
        await kube.create(SECRETS, {"metadata": {"name": RECORD.rsplit("/", 1)[1]}, "data": None})
        assert await store.read("alice") == PersonRecord("alice")

    async def test_forgetting_says_whether_there_was_anything(self, store: AuthenticatorStore) -> None:
        await store.update("alice", add("a"))
        assert [await store.forget("alice"), await store.forget("alice")] == [True, False]
        assert await store.read("alice") == PersonRecord("alice")


class TestTickets:
    async def test_each_is_new_and_good_once(self, store: AuthenticatorStore) -> None:
        tickets = {await store.issue_ticket("alice", NOW + 60) for _ in range(20)}
        assert len(tickets) == 20
        for ticket in tickets:
            assert await store.redeem_ticket("alice", ticket, NOW)
            assert not await store.redeem_ticket("alice", ticket, NOW)

    async def test_redeemed_ten_times_at_once_it_is_good_once(self, store: AuthenticatorStore) -> None:
        ticket = await store.issue_ticket("alice", NOW + 60)
        answers = await asyncio.gather(*(store.redeem_ticket("alice", ticket, NOW) for _ in range(10)))
        assert answers.count(True) == 1

    async def test_somebody_elses_is_no_good_and_stays(self, store: AuthenticatorStore) -> None:
        ticket = await store.issue_ticket("alice", NOW + 60)
        assert not await store.redeem_ticket("bob", ticket, NOW)
        assert await store.redeem_ticket("alice", ticket, NOW)

    async def test_an_expired_one_is_no_good_and_is_gone(self, store: AuthenticatorStore, kube: FakeKube) -> None:
        ticket = await store.issue_ticket("alice", NOW)
        assert not await store.redeem_ticket("alice", ticket, NOW)
        assert kube.objects == {}

    async def test_one_that_changes_while_it_is_redeemed_is_no_good(
        self, store: AuthenticatorStore, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def conflict(*_: Any, **__: Any) -> bool:
            raise ConflictError("changed")

        ticket = await store.issue_ticket("alice", NOW + 60)
        monkeypatch.setattr(kube, "delete", conflict)
        assert not await store.redeem_ticket("alice", ticket, NOW)

    async def test_a_record_is_no_ticket(self, store: AuthenticatorStore) -> None:
        await store.update("alice", add("a"))
        for text in ("", "record", f"../authn-{user_hash('alice')}", user_hash("alice")):
            assert not await store.redeem_ticket("alice", text, NOW)


class TestDelays:
    @pytest.mark.parametrize(
        ("misses", "seconds"),
        [
            (0, 0),
            (1, 0),
            (2, 0),
            (3, 2),
            (4, 4),
            (5, 8),
            (9, 128),
            (10, 256),
            (11, 512),
            (13, 2048),
            (14, 3600),
            (10_000, 3600),
        ],
    )
    def test_double_after_three_up_to_a_limit(self, misses: int, seconds: int) -> None:
        assert delay_seconds(misses) == seconds <= MAX_DELAY_SECONDS

    def test_each_credential_has_its_own_count(self) -> None:
        record = PersonRecord("alice", known=[credential_hash("a"), credential_hash("b")])
        for _ in range(3):
            count_attempt(record, "a", NOW)
        with pytest.raises(RequestError) as error:
            count_attempt(record, "a", NOW)
        assert (error.value.code, error.value.status, error.value.retry_after_seconds) == ("too-many-attempts", 429, 3)
        count_attempt(record, "b", NOW)

    def test_the_wait_ends_when_it_was_said_to_end(self) -> None:
        record = PersonRecord("alice", known=[credential_hash("a")])
        for _ in range(3):
            count_attempt(record, "a", NOW)
        with pytest.raises(RequestError):
            count_attempt(record, "a", NOW + 1.9)
        count_attempt(record, "a", NOW + 2)

    def test_a_clock_that_is_turned_back_shortens_nothing(self) -> None:
        record = PersonRecord("alice", known=[credential_hash("a")])
        for _ in range(3):
            count_attempt(record, "a", NOW)
        with pytest.raises(RequestError):
            count_attempt(record, "a", NOW - 1000)

    def test_a_right_code_forgets_the_misses_of_its_credential_alone(self) -> None:
        record = PersonRecord("alice", known=[credential_hash("a"), credential_hash("b")])
        for credential in ("a", "a", "b"):
            count_attempt(record, credential, NOW)
        accept_attempt(record, "a")
        assert {key: misses.count for key, misses in record.misses.items()} == {credential_hash("b"): 1}

    def test_strangers_share_a_budget_of_an_hour(self) -> None:
        record = PersonRecord("alice")
        for number in range(STRANGER_MISSES_PER_HOUR):
            count_attempt(record, str(number), NOW + number)
        with pytest.raises(RequestError) as error:
            count_attempt(record, "another", NOW + 100)
        assert error.value.retry_after_seconds == 3501
        count_attempt(record, "another", NOW + 3601)
        assert record.strangers.count == 1

    def test_a_stranger_who_proves_to_be_the_person_gives_the_budget_back(self) -> None:
        record = PersonRecord("alice")
        count_attempt(record, "new", NOW)
        accept_attempt(record, "new")
        assert (record.strangers.count, record.known) == (0, [credential_hash("new")])
        count_attempt(record, "new", NOW)
        assert record.strangers.count == 0

    def test_what_is_remembered_is_bounded(self) -> None:
        record = PersonRecord("alice")
        for number in range(3 * MAX_REMEMBERED):
            count_attempt(record, str(number), NOW + 3601 * number)
        assert len(record.misses) == MAX_REMEMBERED
        for number in range(3 * MAX_REMEMBERED):
            accept_attempt(record, f"known-{number}")
        assert len(record.known) == MAX_REMEMBERED

    def test_the_misses_of_known_credentials_outlive_those_of_strangers(self) -> None:
        known = [f"known-{number}" for number in range(MAX_REMEMBERED)]
        record = PersonRecord("alice", known=[credential_hash(one) for one in known])
        for credential in known:
            count_attempt(record, credential, NOW)
        for number in range(STRANGER_MISSES_PER_HOUR):
            count_attempt(record, f"stranger-{number}", NOW)
        assert set(record.misses) == set(record.known)

    def test_credentials_themselves_are_not_kept(self) -> None:
        record = PersonRecord("alice")
        count_attempt(record, "X509SHA256=abc", NOW)
        accept_attempt(record, "X509SHA256=abc")
        assert "abc" not in "".join([*record.known, *record.misses])
