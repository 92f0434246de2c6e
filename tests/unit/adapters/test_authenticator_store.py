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
    MAX_TICKETS,
    REGULARS_AT_ONCE,
    REGULARS_SECONDS,
    STRANGERS_AT_ONCE,
    STRANGERS_SECONDS,
    AuthenticatorStore,
    PersonRecord,
    accept_attempt,
    add_ticket,
    clear_attempts,
    count_attempt,
    delay_seconds,
    redeem_ticket,
    who_hash,
)
from webhook.adapters.elevation_cache import USER_LABEL, user_hash
from webhook.adapters.envelope import Envelope, UnsealError
from webhook.adapters.kube import object_path
from webhook.errors import ConflictError, RequestError, StoreUnavailableError

SECRETS = object_path("", "v1", "secrets", namespace="kube-stepup")
RECORD = f"{SECRETS}/authn-{user_hash('alice')}"
NOW = 1_790_000_000.0
DAY = 24 * 3600
ENVELOPE = Envelope({"kek-1": bytes(32)})


def stored(record: PersonRecord, envelope: Envelope = ENVELOPE, username: str = "alice") -> dict[str, str]:
    """`data` of a Secret that holds a record."""
    sealed = envelope.seal(
        json.dumps({"username": record.username, "recovery": record.recovery}).encode(), "person", username
    )
    return {"record": base64.b64encode(sealed.encode()).decode()}


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def store(kube: FakeKube) -> AuthenticatorStore:
    return AuthenticatorStore(kube, "kube-stepup", ENVELOPE)  # type: ignore[arg-type]


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
        found = kube.objects[RECORD]
        assert found["type"] == "kube-stepup.io/authenticator"
        assert found["metadata"]["labels"][USER_LABEL] == user_hash("alice")
        assert base64.b64decode(found["data"]["record"]).startswith(b"v1.kek-1.")

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
                kube.objects[RECORD]["data"] = stored(PersonRecord("alice", recovery=["b"]))
                kube.objects[RECORD]["metadata"]["resourceVersion"] = "999"
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

    async def test_one_that_was_copied_from_somebody_else_is_not_believed(
        self, store: AuthenticatorStore, kube: FakeKube
    ) -> None:
        await store.update("alice", add("a"))
        kube.objects[f"{SECRETS}/authn-{user_hash('bob')}"] = kube.objects[RECORD]
        with pytest.raises(UnsealError):
            await store.read("bob")

    @pytest.mark.parametrize(
        "data",
        [
            None,
            {},
            {"record": ""},
            {"record": "%%%"},
            {"record": base64.b64encode(b'{"username":"alice","recovery":["planted"]}').decode()},
            stored(PersonRecord("alice", recovery=["planted"]), Envelope({"kek-1": b"x" * 32})),
            stored(PersonRecord("alice", recovery=["planted"]), username="mallory"),
        ],
    )
    async def test_one_that_was_written_without_our_key_is_not_believed(
        self, store: AuthenticatorStore, kube: FakeKube, data: dict[str, str] | None
    ) -> None:
        await kube.create(SECRETS, {"metadata": {"name": RECORD.rsplit("/", 1)[1]}, "data": data})
        with pytest.raises(UnsealError) as error:
            await store.read("alice")
        assert error.value.code == "unreadable-secret"
        with pytest.raises(UnsealError):
            await store.update("alice", add("a"))
        assert kube.objects[RECORD]["data"] == data
        assert await store.forget("alice"), "an operator's reset needs no key"

    async def test_one_that_a_newer_replica_sealed_is_read(self, kube: FakeKube) -> None:
        keys = {"kek-1": bytes(32)}

        async def source(_: bool) -> dict[str, bytes]:
            return dict(keys)

        older = Envelope(source=source)
        await older.load()
        keys["kek-2"] = b"2" * 32
        newer = Envelope(keys)
        for envelope, code in ((newer, "a"), (older, "b")):
            await AuthenticatorStore(kube, "kube-stepup", envelope).update("alice", add(code))  # type: ignore[arg-type]
        assert (await AuthenticatorStore(kube, "kube-stepup", newer).read("alice")).recovery == ["a", "b"]  # type: ignore[arg-type]

    async def test_forgetting_says_whether_there_was_anything(self, store: AuthenticatorStore) -> None:
        await store.update("alice", add("a"))
        assert [await store.forget("alice"), await store.forget("alice")] == [True, False]
        assert await store.read("alice") == PersonRecord("alice")


class TestTickets:
    def test_each_is_new_and_good_once(self) -> None:
        record = PersonRecord("alice")
        tickets = {add_ticket(record, NOW, NOW + 60) for _ in range(MAX_TICKETS)}
        assert len(tickets) == MAX_TICKETS
        for ticket in tickets:
            assert redeem_ticket(record, ticket, NOW)
            assert not redeem_ticket(record, ticket, NOW)

    def test_only_a_hash_is_kept(self) -> None:
        record = PersonRecord("alice")
        ticket = add_ticket(record, NOW, NOW + 60)
        assert ticket not in str(record)

    def test_one_that_is_expired_is_no_good(self) -> None:
        record = PersonRecord("alice")
        ticket = add_ticket(record, NOW, NOW + 60)
        assert not redeem_ticket(record, ticket, NOW + 60)

    def test_those_that_are_expired_are_cleaned_up_when_another_is_made_or_used(self) -> None:
        record = PersonRecord("alice")
        for _ in range(3):
            add_ticket(record, NOW, NOW + 60)
        last = add_ticket(record, NOW + 60, NOW + 120)
        assert len(record.tickets) == 1
        add_ticket(record, NOW + 60, NOW + 90)
        assert redeem_ticket(record, last, NOW + 100)
        assert record.tickets == []

    def test_a_person_has_few(self) -> None:
        record = PersonRecord("alice")
        tickets = [add_ticket(record, NOW, NOW + 60) for _ in range(MAX_TICKETS + 1)]
        assert len(record.tickets) == MAX_TICKETS
        assert not redeem_ticket(record, tickets[0], NOW)
        assert redeem_ticket(record, tickets[-1], NOW)

    @pytest.mark.parametrize("text", ["", "record", "\udcff", "a" * 32])
    def test_what_nobody_issued_is_no_good(self, text: str) -> None:
        record = PersonRecord("alice")
        add_ticket(record, NOW, NOW + 60)
        assert not redeem_ticket(record, text, NOW)
        assert len(record.tickets) == 1


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
        record = PersonRecord("alice", known=[who_hash("a"), who_hash("b")])
        for _ in range(3):
            count_attempt(record, "a", NOW)
        with pytest.raises(RequestError) as error:
            count_attempt(record, "a", NOW)
        assert (error.value.code, error.value.status, error.value.retry_after_seconds) == ("too-many-attempts", 429, 3)
        count_attempt(record, "b", NOW)

    def test_the_wait_ends_when_it_was_said_to_end(self) -> None:
        record = PersonRecord("alice", known=[who_hash("a")])
        for _ in range(3):
            count_attempt(record, "a", NOW)
        with pytest.raises(RequestError):
            count_attempt(record, "a", NOW + 1.9)
        count_attempt(record, "a", NOW + 2)

    def test_a_clock_that_is_turned_back_shortens_nothing(self) -> None:
        record = PersonRecord("alice", known=[who_hash("a")])
        for _ in range(3):
            count_attempt(record, "a", NOW)
        with pytest.raises(RequestError):
            count_attempt(record, "a", NOW - 1000)

    def test_a_right_code_forgets_the_misses_of_its_credential_alone(self) -> None:
        record = PersonRecord("alice", known=[who_hash("a"), who_hash("b")])
        for credential in ("a", "a", "b"):
            count_attempt(record, credential, NOW)
        accept_attempt(record, "a")
        assert {key: misses.count for key, misses in record.misses.items()} == {who_hash("b"): 1}

    def test_strangers_share_a_budget_that_comes_back_one_by_one(self) -> None:
        record = PersonRecord("alice")
        for number in range(STRANGERS_AT_ONCE):
            count_attempt(record, str(number), NOW)
        with pytest.raises(RequestError) as error:
            count_attempt(record, "another", NOW + 100)
        assert error.value.retry_after_seconds == STRANGERS_SECONDS - 100 + 1
        count_attempt(record, "another", NOW + STRANGERS_SECONDS)
        with pytest.raises(RequestError):
            count_attempt(record, "yet another", NOW + STRANGERS_SECONDS)

    def test_a_clock_that_is_turned_back_gives_strangers_nothing(self) -> None:
        record = PersonRecord("alice")
        for number in range(STRANGERS_AT_ONCE):
            count_attempt(record, str(number), NOW)
        with pytest.raises(RequestError):
            count_attempt(record, "another", NOW - DAY)
        with pytest.raises(RequestError):
            count_attempt(record, "another", NOW + 1)

    def test_a_stranger_who_proves_to_be_the_person_gives_the_budget_back(self) -> None:
        record = PersonRecord("alice")
        count_attempt(record, "new", NOW)
        accept_attempt(record, "new")
        assert (record.strangers, record.known) == (NOW, [who_hash("new")])
        count_attempt(record, "new", NOW)
        assert (record.strangers, record.regulars) == (NOW, NOW + REGULARS_SECONDS)
        accept_attempt(record, "new")
        assert record.regulars == NOW

    def test_a_refused_attempt_spends_nothing(self) -> None:
        record = PersonRecord("alice", known=[who_hash("a")])
        for _ in range(3):
            count_attempt(record, "a", NOW)
        for _ in range(100):
            with pytest.raises(RequestError):
                count_attempt(record, "a", NOW)
        assert record.regulars == NOW + 3 * REGULARS_SECONDS

    def test_those_who_gave_a_right_code_before_have_a_budget_that_strangers_cannot_use_up(self) -> None:
        record = PersonRecord("alice", known=[who_hash("a")])
        self.guess_for(record, DAY, lambda number: f"stranger-{number}")
        count_attempt(record, "a", NOW + DAY)

    @pytest.mark.parametrize("days", [1, 3])
    @pytest.mark.parametrize("known", [1, MAX_REMEMBERED])
    def test_whatever_one_has_guesses_of_a_day_are_bounded(self, days: int, known: int) -> None:
        """The numbers that the comment at MAX_DELAY_SECONDS is about, which docs/threat-model.md tells."""
        record = PersonRecord("alice", known=[who_hash(str(number)) for number in range(known)])
        tried = self.guess_for(record, days * DAY, lambda number: str(number % (2 * MAX_REMEMBERED)))
        at_once, each_day = STRANGERS_AT_ONCE + REGULARS_AT_ONCE, DAY // STRANGERS_SECONDS + DAY // REGULARS_SECONDS
        assert (at_once, each_day) == (30, 36)
        assert tried <= at_once + days * each_day

    def test_that_is_so_although_the_person_proves_themselves_in_between(self) -> None:
        record = PersonRecord("alice", known=[who_hash("session")])
        tried = 0
        for minute in range(24 * 60):
            now = NOW + 60 * minute
            try:
                count_attempt(record, "session", now)
                tried += 1
            except RequestError:
                continue
            if minute % 10 == 0:
                tried -= 1
                accept_attempt(record, "session")
        assert tried <= REGULARS_AT_ONCE + DAY // REGULARS_SECONDS

    def test_the_odds_are_those_of_the_comment(self) -> None:
        each, year = 3 / 10**6, 30 + 365 * 36
        assert year == 13_170
        assert 1 - (1 - each) ** year == pytest.approx(0.039, abs=0.0005)
        assert 1 - (1 - each) ** 66 == pytest.approx(0.0002, abs=0.00005)
        assert 1 - (1 - each) ** (STRANGERS_AT_ONCE + 365 * 12) == pytest.approx(0.013, abs=0.0005)
        assert 1 - (1 - each) ** (REGULARS_AT_ONCE + 365 * 24) == pytest.approx(0.026, abs=0.0005)
        assert 1 - (1 - each / 100) ** year == pytest.approx(0.0004, abs=0.00005)

    @staticmethod
    def guess_for(record: PersonRecord, seconds: int, who: Any) -> int:
        """Guess every minute as somebody else; how often the code was looked at."""
        tried = 0
        for number, now in enumerate(range(0, seconds, 60)):
            try:
                count_attempt(record, who(number), NOW + now)
                tried += 1
            except RequestError:
                continue
        return tried

    def test_clearing_forgets_all_of_it(self) -> None:
        record = PersonRecord("alice", known=[who_hash("a")])
        assert not clear_attempts(record, NOW)
        for who in ("a", "b"):
            count_attempt(record, who, NOW)
        assert clear_attempts(record, NOW)
        assert (record.misses, record.strangers, record.regulars) == ({}, 0, 0)

    def test_what_is_remembered_is_bounded(self) -> None:
        record = PersonRecord("alice")
        for number in range(3 * MAX_REMEMBERED):
            count_attempt(record, str(number), NOW + STRANGERS_SECONDS * number)
        assert len(record.misses) == MAX_REMEMBERED
        for number in range(3 * MAX_REMEMBERED):
            accept_attempt(record, f"known-{number}")
        assert len(record.known) == MAX_REMEMBERED

    def test_the_misses_of_known_credentials_outlive_those_of_strangers(self) -> None:
        known = [f"known-{number}" for number in range(MAX_REMEMBERED)]
        record = PersonRecord("alice", known=[who_hash(one) for one in known])
        for number, credential in enumerate(known):
            count_attempt(record, credential, NOW + number * REGULARS_SECONDS)
        for number in range(STRANGERS_AT_ONCE):
            count_attempt(record, f"stranger-{number}", NOW + MAX_REMEMBERED * REGULARS_SECONDS)
        assert set(record.misses) == set(record.known)

    def test_credentials_themselves_are_not_kept(self) -> None:
        record = PersonRecord("alice")
        count_attempt(record, "X509SHA256=abc", NOW)
        accept_attempt(record, "X509SHA256=abc")
        assert "abc" not in "".join([*record.known, *record.misses])
