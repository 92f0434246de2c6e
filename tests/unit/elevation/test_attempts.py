"""Guessing: every attempt counts before its code is looked at, the wrong ones slow the next, and nobody locks others out."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.fakes.elevation import KEK, NAMESPACE, OPERATOR, Clock, Person, Server, Start, created
from tests.fakes.kube import FakeKube, until
from webhook.adapters.authenticator_store import (
    STRANGERS_AT_ONCE,
    STRANGERS_SECONDS,
    AuthenticatorStore,
    PersonRecord,
)
from webhook.adapters.envelope import Envelope
from webhook.elevation.attempts import Attempts, counted_as
from webhook.elevation.factors import WrongAnswerError
from webhook.elevation.identity import Requester
from webhook.errors import RequestError, StoreUnavailableError

OTHER = "X509SHA256=other"


async def miss(who: Person, name: str, times: int = 1) -> list[str]:
    """Wrong codes, one after the other; what each was answered."""
    return [str((await who.answer(name, who.wrong_code()))["code"]) for _ in range(times)]


class TestSlowingDown:
    async def test_three_are_free_then_each_waits_twice_as_long(self, alice: Person, clock: Clock) -> None:
        name = await alice.ask()
        assert await miss(alice, name, 3) == ["wrong-code"] * 3
        for seconds in (2, 4, 8, 16, 32, 64):
            status = await alice.answer(name, alice.code())
            assert (status["accepted"], status["code"], status["retryAfterSeconds"]) == (False, "too-many-attempts", seconds + 1)  # fmt: skip
            assert "stepup unlock" in status["message"]
            clock.advance(seconds)
            assert await miss(alice, name) == ["wrong-code"]

    async def test_the_right_code_does_not_cut_the_wait_short(self, alice: Person, clock: Clock) -> None:
        name = await alice.ask()
        await miss(alice, name, 3)
        assert not (await alice.answer(name, alice.code()))["accepted"]
        clock.advance(2)
        assert (await alice.answer(name, alice.code()))["accepted"]

    async def test_a_refused_attempt_does_not_lengthen_the_wait(self, alice: Person, clock: Clock) -> None:
        name = await alice.ask()
        await miss(alice, name, 3)
        assert await miss(alice, name, 20) == ["too-many-attempts"] * 20
        clock.advance(2)
        assert (await alice.answer(name, alice.code()))["accepted"]

    async def test_the_right_code_clears_the_count(self, alice: Person, clock: Clock) -> None:
        name = await alice.ask()
        await miss(alice, name, 2)
        assert (await alice.answer(name, alice.code()))["accepted"]
        clock.advance(30)
        assert await miss(alice, await alice.ask(), 3) == ["wrong-code"] * 3

    async def test_asking_anew_gives_no_new_tries(self, alice: Person) -> None:
        await miss(alice, await alice.ask(), 3)
        assert await miss(alice, await alice.ask()) == ["too-many-attempts"]

    async def test_nor_does_another_replica(self, alice: Person, start: Start) -> None:
        name = await alice.ask()
        await miss(alice, name, 3)
        assert await miss(alice.at(await start()), name) == ["too-many-attempts"]

    async def test_nor_do_recovery_codes(self, alice: Person) -> None:
        name = await alice.ask()
        for _ in range(3):
            assert (await alice.answer(name, "aaaa-aaaa-aaaa-aaaa", "recovery-code"))["code"] == "wrong-code"
        assert await miss(alice, name) == ["too-many-attempts"]
        refusal = await alice.answer(name, alice.recovery_codes[0], "recovery-code")
        assert refusal["code"] == "too-many-attempts"

    async def test_nor_do_a_hundred_guesses_at_once_on_two_replicas(self, alice: Person, start: Start) -> None:
        name, other = await alice.ask(), alice.at(await start())
        wrong = alice.wrong_code()
        answers: list[Any] = []
        for _ in range(10):  # as many at once as the compare-and-swap lets through
            answers += await asyncio.gather(*((alice, other)[number % 2].answer(name, wrong) for number in range(10)))
        codes = [answer["code"] for answer in answers]
        assert codes.count("wrong-code") == 3
        assert codes.count("too-many-attempts") == 97

    async def test_a_code_that_was_used_already_counts_as_wrong(self, alice: Person) -> None:
        await alice.answer(await alice.ask(), alice.code())
        name = await alice.ask()
        codes = [(await alice.answer(name, alice.code()))["code"] for _ in range(4)]
        assert codes == ["code-already-used"] * 3 + ["too-many-attempts"]


class TestOthers:
    async def test_a_known_credential_of_the_same_person_goes_on(self, alice: Person, clock: Clock) -> None:
        laptop = alice.with_credential(OTHER)
        assert (await laptop.answer(await laptop.ask(), laptop.code()))["accepted"]
        name = await alice.ask()
        await miss(alice, name, 3)
        assert await miss(alice, name) == ["too-many-attempts"]
        clock.advance(30)
        assert (await laptop.answer(await laptop.ask(), laptop.code()))["accepted"]

    async def test_other_people_go_on(self, alice: Person, server: Server) -> None:
        bob = await server.person("bob", credential="X509SHA256=bob").enrol()
        await miss(alice, await alice.ask(), 4)
        assert (await bob.answer(await bob.ask(), bob.code()))["accepted"]

    async def test_strangers_share_a_budget_so_that_new_credentials_gain_nothing(self, alice: Person) -> None:
        answered = []
        for number in range(STRANGERS_AT_ONCE + 5):
            stranger = alice.with_credential(f"JTI={number}")
            answered += await miss(stranger, await self.ask_once(stranger))
        assert answered == ["wrong-code"] * STRANGERS_AT_ONCE + ["too-many-attempts"] * 5

    async def test_strangers_who_used_up_their_budget_do_not_lock_the_known_out(self, alice: Person) -> None:
        await self.exhaust(alice)
        assert (await alice.answer(await alice.ask(), alice.code()))["accepted"]

    async def test_the_budget_comes_back_one_by_one(self, alice: Person, clock: Clock) -> None:
        stranger = await self.exhaust(alice)
        (refusal,) = [await stranger.answer(await self.ask_once(stranger), stranger.code())]
        assert (refusal["code"], refusal["retryAfterSeconds"]) == ("too-many-attempts", STRANGERS_SECONDS + 1)
        clock.advance(STRANGERS_SECONDS)
        assert (await stranger.answer(await self.ask_once(stranger), stranger.code()))["accepted"]

    async def test_a_stranger_who_gives_the_right_code_is_known_and_costs_no_budget(
        self, alice: Person, clock: Clock
    ) -> None:
        for number in range(STRANGERS_AT_ONCE + 5):
            stranger = alice.with_credential(f"JTI={number}")
            clock.advance(30)
            assert (await stranger.answer(await self.ask_once(stranger), stranger.code()))["accepted"], number

    async def test_wrong_codes_of_strangers_do_not_wipe_out_the_count_of_a_known_credential(
        self, alice: Person, clock: Clock
    ) -> None:
        name = await alice.ask()
        await miss(alice, name, 3)
        for seconds in (2, 4, 8, 16, 32, 64):
            clock.advance(seconds)
            await miss(alice, name)
        for number in range(STRANGERS_AT_ONCE):
            await miss(alice.with_credential(f"JTI={number}"), await self.ask_once(alice.with_credential(f"JTI={number}")))  # fmt: skip
        clock.advance(3600)
        for number in range(100, 110):
            await miss(alice.with_credential(f"JTI={number}"), await self.ask_once(alice.with_credential(f"JTI={number}")))  # fmt: skip
        name = await alice.ask()
        assert await miss(alice, name, 2) == ["wrong-code", "too-many-attempts"]

    async def exhaust(self, alice: Person) -> Person:
        """Use up the strangers' budget; the last of the strangers, who gave no wrong code."""
        for number in range(STRANGERS_AT_ONCE):
            stranger = alice.with_credential(f"JTI={number}")
            await miss(stranger, await self.ask_once(stranger))
        return alice.with_credential("JTI=last")

    @staticmethod
    async def ask_once(who: Person) -> str:
        """Ask, with no other request pending."""
        for one in (await who.get("elevationrequests")).json()["items"]:
            await who.delete(f"elevationrequests/{one['metadata']['name']}")
        return await who.ask()


class TestSessions:
    """Where the cluster names the session, its tokens are one: each would be a stranger otherwise."""

    KEY = "example.org/session"
    HEADER = "X-Remote-Extra-example.org%2fsession"

    @pytest.fixture
    async def server(self, start: Start) -> Server:
        return await start(session_extra_key=self.KEY.title())

    def token(self, alice: Person, server: Server, number: int, session: str) -> Person:
        """Alice with a fresh token of a session."""
        found = server.person("alice", credential=f"JTI={session}-{number}", **{self.HEADER: session})
        found.secret, found.recovery_codes = alice.secret, alice.recovery_codes
        return found

    async def test_a_thief_with_fresh_credentials_does_not_lock_the_person_out(
        self, alice: Person, server: Server, clock: Clock
    ) -> None:
        first = self.token(alice, server, 0, "hers")
        assert (await first.answer(await first.ask(), first.code()))["accepted"]
        clock.advance(30)
        answered = []
        for number in range(STRANGERS_AT_ONCE + 5):
            thief = self.token(alice, server, number, f"stolen-{number}")
            answered += await miss(thief, await TestOthers.ask_once(thief))
        assert answered[-5:] == ["too-many-attempts"] * 5
        renewed = self.token(alice, server, 1, "hers")
        assert (await renewed.answer(await TestOthers.ask_once(renewed), renewed.code()))["accepted"]

    async def test_a_new_token_of_the_same_session_gives_no_new_tries(self, alice: Person, server: Server) -> None:
        answered = []
        for number in range(5):
            who = self.token(alice, server, number, "one")
            answered += await miss(who, await who.ask())
        assert answered == ["wrong-code"] * 3 + ["too-many-attempts"] * 2

    async def test_a_credential_without_a_session_counts_by_itself(self, alice: Person) -> None:
        assert await miss(alice, await alice.ask(), 4) == ["wrong-code"] * 3 + ["too-many-attempts"]

    async def test_a_session_is_not_taken_for_a_credential_of_that_name(self, requester: Requester) -> None:
        user = msgspec.structs.replace(requester.user, extra={self.KEY: ("JTI=1",)})
        named = msgspec.structs.replace(requester, user=user)
        assert counted_as(named, self.KEY) not in {"JTI=1", requester.credential_id}
        assert counted_as(requester, self.KEY) == requester.credential_id

    async def test_also_while_enrolling(self, server: Server) -> None:
        bob = server.person("bob", credential="JTI=1", **{self.HEADER: "one"})
        started = created(await bob.begin(ticket=await bob.ticket()))
        bob.secret, name = started["status"]["secret"], started["metadata"]["name"]
        answered = []
        for number in range(4):
            again = server.person("bob", credential=f"JTI={number}", **{self.HEADER: "one"})
            answered.append((await again.confirm(name, bob.wrong_code()))["code"])
        assert answered == ["wrong-code"] * 3 + ["too-many-attempts"]


class TestUnlock:
    async def test_an_operator_clears_the_wait(self, alice: Person, server: Server) -> None:
        operator = server.person(OPERATOR, credential="X509SHA256=operator")
        name = await alice.ask()
        await miss(alice, name, 3)
        assert await miss(alice, name) == ["too-many-attempts"]
        answer = created(await operator.post("authenticatorunlocks", {"username": "alice"}))
        assert answer["status"] == {"cleared": True}
        assert (await alice.answer(name, alice.code()))["accepted"]

    async def test_also_that_of_strangers(self, alice: Person, server: Server) -> None:
        operator = server.person(OPERATOR, credential="X509SHA256=operator")
        stranger = await TestOthers().exhaust(alice)
        await operator.post("authenticatorunlocks", {"username": "alice"})
        assert (await stranger.answer(await TestOthers.ask_once(stranger), stranger.code()))["accepted"]

    async def test_nothing_to_clear_writes_nothing(self, server: Server, kube: FakeKube) -> None:
        operator = server.person(OPERATOR, credential="X509SHA256=operator")
        answer = created(await operator.post("authenticatorunlocks", {"username": "nobody"}))
        assert answer["status"] == {"cleared": False}
        assert not any("/secrets/authn-" in path for path in kube.objects)


class Looks:
    """A factor that looks at a code as it is told."""

    name, acr, amr = "looks", "aal2", ("otp",)

    def __init__(self, then: Any) -> None:
        self._then = then
        self.looked = 0

    def available_to(self, _: PersonRecord) -> bool:
        return True

    def accept(self, record: PersonRecord, unverified_code: str, now: float) -> None:
        self.looked += 1
        self._then()


class TestCountedFirst:
    """Whatever happens between the count and the comparison, the attempt has been counted."""

    @pytest.fixture
    def store(self, kube: FakeKube) -> AuthenticatorStore:
        return AuthenticatorStore(kube, NAMESPACE, Envelope({"kek-1": KEK}))  # type: ignore[arg-type]

    async def count(self, store: AuthenticatorStore) -> int:
        return sum(misses.count for misses in (await store.read("alice")).misses.values())

    async def test_it_is_stored_when_the_code_is_looked_at(
        self, store: AuthenticatorStore, requester: Requester, clock: Clock, kube: FakeKube
    ) -> None:
        written = []
        factor = Looks(lambda: written.append([method for method, _ in kube.calls if method in {"POST", "PUT"}][-1]))
        kube.calls.clear()
        await Attempts(store).check(requester, factor, "123456", clock())
        assert written == ["POST"]
        assert await self.count(store) == 0, "a right code clears it"

    async def test_a_crash_in_the_comparison_counts(
        self, store: AuthenticatorStore, requester: Requester, clock: Clock
    ) -> None:
        def crash() -> None:
            raise RuntimeError("crash")

        with pytest.raises(RuntimeError):
            await Attempts(store).check(requester, Looks(crash), "123456", clock())
        assert await self.count(store) == 1

    async def test_a_cancellation_between_the_two_counts(
        self, store: AuthenticatorStore, requester: Requester, clock: Clock, kube: FakeKube
    ) -> None:
        factor = Looks(lambda: None)
        task = asyncio.create_task(Attempts(store).check(requester, factor, "123456", clock()))
        await until(lambda: any("/secrets/authn-" in path for path in kube.objects))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert factor.looked == 0
        assert await self.count(store) == 1

    async def test_what_cannot_be_counted_is_not_looked_at(
        self,
        store: AuthenticatorStore,
        requester: Requester,
        clock: Clock,
        kube: FakeKube,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def unavailable(*_: Any, **__: Any) -> dict[str, Any]:
            raise StoreUnavailableError("the Kubernetes API cannot be reached")

        monkeypatch.setattr(kube, "create", unavailable)
        factor = Looks(lambda: None)
        with pytest.raises(StoreUnavailableError):
            await Attempts(store).check(requester, factor, "123456", clock())
        assert factor.looked == 0

    async def test_what_is_refused_for_its_number_is_not_looked_at(
        self, store: AuthenticatorStore, requester: Requester, clock: Clock
    ) -> None:
        def wrong() -> None:
            raise WrongAnswerError("that code is wrong")

        factor = Looks(wrong)
        for _ in range(3):
            with pytest.raises(WrongAnswerError):
                await Attempts(store).check(requester, factor, "123456", clock())
        with pytest.raises(RequestError) as error:
            await Attempts(store).check(requester, factor, "123456", clock())
        assert (error.value.code, factor.looked) == ("too-many-attempts", 3)

    async def test_a_right_code_that_cannot_be_stored_is_not_accepted(
        self, alice: Person, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = await alice.ask()
        replace, calls = kube.replace, 0

        async def second_fails(*arguments: Any, **options: Any) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise StoreUnavailableError("the Kubernetes API cannot be reached")
            return await replace(*arguments, **options)

        monkeypatch.setattr(kube, "replace", second_fails)
        answer = await alice.post(f"elevationrequests/{name}/answer", {"code": alice.code()})
        assert answer.status_code == 503
        assert (await alice.get(f"elevationrequests/{name}")).json()["status"]["phase"] == "Pending"


class TestUsedOnce:
    async def test_a_code_on_one_replica(self, alice: Person) -> None:
        assert (await alice.answer(await alice.ask(), alice.code()))["accepted"]
        assert (await alice.answer(await alice.ask(), alice.code()))["code"] == "code-already-used"

    async def test_a_code_for_two_requests_at_once_on_two_replicas(self, alice: Person, start: Start) -> None:
        other = alice.at(await start())
        names = [await alice.ask(), await alice.ask()]
        answers = await asyncio.gather(alice.answer(names[0], alice.code()), other.answer(names[1], alice.code()))
        assert sorted(answer.get("code", "accepted") for answer in answers) == ["accepted", "code-already-used"]

    async def test_a_recovery_code_for_two_requests_at_once_on_two_replicas(self, alice: Person, start: Start) -> None:
        other = alice.at(await start())
        names, code = [await alice.ask(), await alice.ask()], alice.recovery_codes[0]
        answers = await asyncio.gather(
            alice.answer(names[0], code, "recovery-code"), other.answer(names[1], code, "recovery-code")
        )
        assert sorted(answer.get("code", "accepted") for answer in answers) == ["accepted", "wrong-code"]

    async def test_a_request_that_two_good_answers_reach_at_once_is_granted_once(
        self, alice: Person, start: Start
    ) -> None:
        other, name = alice.at(await start()), await alice.ask()
        path = f"elevationrequests/{name}/answer"
        answers = await asyncio.gather(
            alice.post(path, {"code": alice.code()}),
            other.post(path, {"code": alice.recovery_codes[0], "factor": "recovery-code"}),
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        assertions = [answer.json()["status"]["assertion"] for answer in answers if answer.status_code == 201]
        assert len(assertions) == 1
