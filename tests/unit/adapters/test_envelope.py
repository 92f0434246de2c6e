"""What is sealed opens with our key, in its own place, unchanged, and not otherwise."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.adapters.envelope import Envelope, UnsealError, load_or_create
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


@pytest.mark.parametrize("keys", [{}, {"kek-1": b""}, {"kek-1": b"x" * 16}, {"kek-1": OLD, "kek-2": b"x" * 33}])
def test_a_key_of_another_size_is_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(UnsealError) as error:
        Envelope(keys)
    assert error.value.field == "encryptionKeySecret"


def test_keys_do_not_show(envelope: Envelope) -> None:
    assert repr(envelope) == "Envelope(keys=['kek-1'])"


class TestLoadOrCreate:
    async def load(self, kube: FakeKube) -> Envelope:
        return await load_or_create(kube, "kube-stepup", "kek")  # type: ignore[arg-type]

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
