"""What is sealed opens with our key, in its own place, unchanged, and not otherwise."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.adapters import envelope as module
from webhook.adapters.envelope import Envelope, UnsealError, read_keys
from webhook.adapters.kube import object_path
from webhook.errors import ConflictError, StoreUnavailableError

OLD, NEW = b"o" * 32, b"n" * 32
CONTEXT = ("totp", "alice", "totp-1")
PATH = object_path("", "v1", "secrets", namespace="kube-stepup", name="kek")


@pytest.fixture
def envelope() -> Envelope:
    return Envelope({"kek-1": OLD})


@pytest.mark.parametrize("plaintext", [b"", b"x", b"secret" * 1000, bytes(range(256))])
def test_what_was_sealed_opens(envelope: Envelope, plaintext: bytes) -> None:
    assert envelope.open(envelope.seal(plaintext, *CONTEXT), *CONTEXT) == plaintext


def test_it_is_not_there_to_be_read_and_never_looks_the_same(envelope: Envelope) -> None:
    sealed = {envelope.seal(b"secret", *CONTEXT) for _ in range(50)}
    assert len(sealed) == 50
    assert not any(b"secret" in base64.urlsafe_b64decode(one.split(".")[2]) for one in sealed)


@pytest.mark.parametrize(
    "elsewhere",
    [
        ("totp", "bob", "totp-1"),
        ("totp", "alice", "totp-2"),
        ("recovery", "alice", "totp-1"),
        ("totp", "alice"),
        ("totp", "alice", "totp-1", ""),
        ("totpalice", "", "totp-1"),
        ("totp", "alicetotp-1", ""),
        ("tot", "palice", "totp-1"),
        (),
    ],
)
def test_it_does_not_open_in_another_place(envelope: Envelope, elsewhere: tuple[str, ...]) -> None:
    with pytest.raises(UnsealError) as error:
        envelope.open(envelope.seal(b"secret", *CONTEXT), *elsewhere)
    assert error.value.code == "unreadable-secret"


def test_it_does_not_open_with_another_key(envelope: Envelope) -> None:
    with pytest.raises(UnsealError):
        Envelope({"kek-1": NEW}).open(envelope.seal(b"secret", *CONTEXT), *CONTEXT)


def test_no_bit_of_it_can_be_changed(envelope: Envelope) -> None:
    prefix, name, text = envelope.seal(b"secret", *CONTEXT).split(".")
    data = base64.urlsafe_b64decode(text)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(UnsealError):
            envelope.open(f"{prefix}.{name}.{base64.urlsafe_b64encode(changed).decode()}", *CONTEXT)


@pytest.mark.parametrize(
    "sealed",
    ["", ".", "..", "v1.kek-1", "v1.kek-1.", "v1.kek-1.AAAA", "v1.kek-1.%%%", "v1.kek-1.é", "v1.kek-2.{text}", "v2.kek-1.{text}", "v1.kek-1.{text}.x"],
)  # fmt: skip
def test_what_is_no_seal_does_not_open(envelope: Envelope, sealed: str) -> None:
    text = envelope.seal(b"secret", *CONTEXT).split(".")[2]
    with pytest.raises(UnsealError):
        envelope.open(sealed.format(text=text), *CONTEXT)


def test_the_newest_key_seals_and_the_old_ones_still_open(envelope: Envelope) -> None:
    both = Envelope({"kek-1": OLD, "kek-2": NEW})
    assert both.open(envelope.seal(b"secret", *CONTEXT), *CONTEXT) == b"secret"
    sealed = both.seal(b"secret", *CONTEXT)
    assert sealed.startswith("v1.kek-2.")
    assert Envelope({"kek-2": NEW}).open(sealed, *CONTEXT) == b"secret"


def test_the_newest_is_that_of_the_highest_number() -> None:
    names = ["kek-10", "kek-9", "kek-1"]
    keys = {name: bytes([number]) * 32 for number, name in enumerate(names)}
    for given in (keys, dict(reversed(keys.items()))):
        assert Envelope(given).seal(b"secret").startswith("v1.kek-10.")
    assert repr(Envelope(keys)) == "Envelope(keys=['kek-1', 'kek-9', 'kek-10'])"


@pytest.mark.parametrize(
    ("older", "newer"), [("a", "b"), ("kek-9", "kek-10"), ("kek-2-9", "kek-10-1"), ("9", "10"), ("kek", "kek-1"), ("kek-01", "kek-1")]
)  # fmt: skip
def test_names_are_in_the_order_that_people_count_in(older: str, newer: str) -> None:
    assert Envelope({newer: NEW, older: OLD}).seal(b"").startswith(f"v1.{newer}.")


async def test_without_a_key_nothing_is_sealed_opened_or_taken_for_forged(envelope: Envelope) -> None:
    sealed = envelope.seal(b"secret", *CONTEXT)
    with pytest.raises(StoreUnavailableError):
        Envelope().seal(b"secret")
    with pytest.raises(StoreUnavailableError):
        Envelope().open(sealed, *CONTEXT)


@pytest.mark.parametrize("keys", [{}, {"kek-1": b""}, {"kek-1": b"x" * 16}, {"kek-1": OLD, "kek-2": b"x" * 33}])
def test_a_key_of_another_size_is_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(UnsealError) as error:
        Envelope(keys)
    assert error.value.field == "encryptionKeySecret"


def test_keys_do_not_show(envelope: Envelope) -> None:
    assert repr(envelope) == "Envelope(keys=['kek-1'])"


class Source:
    """A Secret with keys, as replicas read it."""

    def __init__(self, kube: FakeKube) -> None:
        self.kube = kube
        self.asked: list[bool] = []

    async def __call__(self, create: bool) -> dict[str, bytes]:
        self.asked.append(create)
        return await read_keys(self.kube, "kube-stepup", "kek", create=create)  # type: ignore[arg-type]


class TestKeysOfTheCluster:
    async def load(self, kube: FakeKube) -> Envelope:
        found = Envelope(source=Source(kube))
        await found.load()
        return found

    async def test_the_first_start_makes_a_key_and_the_next_ones_find_it(self) -> None:
        kube = FakeKube()
        first, second = await self.load(kube), await self.load(kube)
        assert second.open(first.seal(b"secret"), *()) == b"secret"
        assert len(base64.b64decode(kube.objects[PATH]["data"]["kek-1"])) == 32

    async def test_replicas_that_start_together_agree(self) -> None:
        kube = FakeKube()
        replicas = await asyncio.gather(*(self.load(kube) for _ in range(5)))
        assert {one.open(replicas[0].seal(b"secret")) for one in replicas} == {b"secret"}

    async def test_every_installation_has_its_own(self) -> None:
        one, other = await self.load(FakeKube()), await self.load(FakeKube())
        with pytest.raises(UnsealError):
            other.open(one.seal(b"secret"))

    async def test_a_key_that_was_added_is_used(self) -> None:
        kube = FakeKube()
        before = await self.load(kube)
        kube.objects[PATH]["data"]["kek-2"] = base64.b64encode(NEW).decode()
        after = await self.load(kube)
        assert after.open(before.seal(b"secret")) == b"secret"
        assert after.seal(b"secret").startswith("v1.kek-2.")

    async def test_a_replica_that_is_older_than_a_key_learns_it_when_it_meets_it(self) -> None:
        kube = FakeKube()
        older = await self.load(kube)
        kube.objects[PATH]["data"]["kek-2"] = base64.b64encode(NEW).decode()
        sealed = (await self.load(kube)).seal(b"secret")
        await older.learn(sealed)
        assert older.open(sealed) == b"secret"

    async def test_and_keeps_the_keys_that_it_has(self) -> None:
        kube = FakeKube()
        older = await self.load(kube)
        sealed = older.seal(b"secret")
        kube.objects[PATH]["data"] = {"kek-2": base64.b64encode(NEW).decode()}
        await older.learn("v1.kek-2.AAAA")
        assert older.open(sealed) == b"secret"

    async def test_nothing_is_read_for_a_key_that_is_known(self) -> None:
        source = Source(FakeKube())
        envelope = Envelope(source=source)
        await envelope.load()
        await envelope.learn(envelope.seal(b"secret"))
        assert source.asked == [True]

    async def test_a_secret_that_is_gone_is_not_made_anew_under_the_same_name(self) -> None:
        kube = FakeKube()
        envelope = await self.load(kube)
        del kube.objects[PATH]
        with pytest.raises(StoreUnavailableError):
            await envelope.learn("v1.kek-2.AAAA")
        assert PATH not in kube.objects

    async def test_one_that_is_spoilt_is_a_failure_and_no_verdict(self) -> None:
        kube = FakeKube()
        envelope = await self.load(kube)
        kube.objects[PATH]["data"]["kek-2"] = ""
        with pytest.raises(StoreUnavailableError):
            await envelope.learn("v1.kek-2.AAAA")

    async def test_it_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kube, failures = FakeKube(), 3

        async def unreachable_at_first(create: bool) -> dict[str, bytes]:
            nonlocal failures
            if failures:
                failures -= 1
                raise [UnsealError("short"), StoreUnavailableError("unreachable")][failures % 2]
            return await read_keys(kube, "kube-stepup", "kek", create=create)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
        envelope = Envelope(source=unreachable_at_first)
        await envelope.run()
        assert envelope.ready

    @pytest.mark.parametrize("data", [None, {}, {"kek-1": ""}, {"kek-1": base64.b64encode(b"short").decode()}])
    async def test_a_secret_without_a_key_is_not_quietly_filled(self, data: dict[str, str] | None) -> None:
        kube = FakeKube()
        await kube.create(PATH.rsplit("/", 1)[0], {"metadata": {"name": "kek"}, "data": data})
        with pytest.raises(UnsealError):
            await self.load(kube)
        assert kube.objects[PATH]["data"] == data

    async def test_one_that_vanishes_again_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def conflict(*_: Any, **__: Any) -> dict[str, Any]:
            raise ConflictError("exists")

        kube = FakeKube()
        monkeypatch.setattr(kube, "create", conflict)
        with pytest.raises(StoreUnavailableError):
            await self.load(kube)
