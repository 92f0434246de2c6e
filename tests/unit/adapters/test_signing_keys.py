"""Signing keys through their life: agreed on, published, then used, replaced, retired, forgotten. And nobody else's."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.builders import Signer, claims
from tests.fakes.elevation import Clock
from tests.fakes.kube import FakeKube
from webhook.adapters import signing_keys as module
from webhook.adapters.envelope import Envelope
from webhook.adapters.kube import object_path, own_path
from webhook.adapters.signing_keys import GRACE_SECONDS, SigningKeys, StoredKey
from webhook.adapters.verifier import Verifier
from webhook.core.assertion import AssertionClaims
from webhook.errors import ConflictError, StoreUnavailableError

PROPAGATION, ROTATION, LIFETIME = 30, 1000, 100
KEYS = own_path("signingkeys")
SECRET = object_path("", "v1", "secrets", namespace="kube-stepup", name="keys")
KEK = {"kek-1": b"k" * 32}
AuditLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def clock() -> Clock:
    return Clock()


Replica = Callable[..., SigningKeys]


@pytest.fixture
def replica(kube: FakeKube, clock: Clock) -> Replica:
    """Makes replicas of one installation."""

    def make(algorithm: str = "ES256", kek: dict[str, bytes] | None = None) -> SigningKeys:
        return SigningKeys(
            kube,  # type: ignore[arg-type]
            Envelope(kek or KEK),
            namespace="kube-stepup",
            secret="keys",
            algorithm=algorithm,
            propagation_seconds=PROPAGATION,
            rotation_seconds=ROTATION,
            max_lifetime_seconds=LIFETIME,
            clock=clock,
        )

    return make


def published(kube: FakeKube) -> set[str]:
    return {path.removeprefix(f"{KEYS}/") for path in kube.objects if path.startswith(f"{KEYS}/")}


def stored(kube: FakeKube) -> dict[str, dict[str, Any]]:
    data = kube.objects[SECRET]["data"]
    return {kid: json.loads(base64.b64decode(text)) for kid, text in data.items()}


def write(kube: FakeKube, kid: str, key: Any) -> None:
    """What somebody writes who may write the Secret but has no key-encryption key."""
    text = key if isinstance(key, bytes) else json.dumps(key).encode()
    kube.objects[SECRET]["data"][kid] = base64.b64encode(text).decode()


def verifies(kube: FakeKube, token: str) -> bool:
    """Whether admission would take a token now."""
    verifier = Verifier()
    for name in published(kube):
        verifier.put(kube.objects[f"{KEYS}/{name}"])
    return isinstance(verifier.verify(token), AssertionClaims)


def sign(keys: SigningKeys) -> str:
    signer = keys.signer()
    headers = {"kid": signer.kid, "typ": "stepup+jwt"}
    return jwt.encode(claims(), signer.private_key, algorithm=signer.algorithm, headers=headers)


class TestFirstStart:
    async def test_makes_a_key_and_publishes_it(self, replica: Replica, kube: FakeKube, clock: Clock) -> None:
        keys = replica()
        assert not keys.ready
        with pytest.raises(StoreUnavailableError):
            keys.signer()
        await keys.step()
        assert keys.ready
        assert published(kube) == {keys.signer().kid}
        obj = kube.objects[f"{KEYS}/{keys.signer().kid}"]
        assert (obj["kind"], obj["spec"]["algorithm"]) == ("SigningKey", "ES256")
        assert obj["spec"]["notBefore"] == "2026-09-21T14:13:40Z"
        assert obj["spec"]["publicKey"].startswith("-----BEGIN PUBLIC KEY-----")
        assert verifies(kube, sign(keys))

    @pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
    async def test_with_either_algorithm(self, replica: Replica, kube: FakeKube, algorithm: str) -> None:
        keys = replica(algorithm)
        await keys.step()
        assert keys.signer().kid.startswith(algorithm.lower())
        assert verifies(kube, sign(keys))

    async def test_two_replicas_at_once_agree(self, replica: Replica, kube: FakeKube) -> None:
        both = [replica(), replica()]
        await asyncio.gather(*(one.step() for one in both))
        assert {one.signer().kid for one in both} == published(kube) == set(stored(kube))
        assert all(verifies(kube, sign(one)) for one in both)

    async def test_another_replica_may_be_the_first_to_publish(
        self, replica: Replica, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def nothing_yet(_: str) -> AsyncIterator[dict[str, Any]]:
            yield {"items": None}

        first, second = replica(), replica()
        await first.step()
        monkeypatch.setattr(kube, "pages", nothing_yet)
        await second.step()
        assert second.signer().kid == first.signer().kid

    async def test_the_private_half_is_sealed(self, replica: Replica, kube: FakeKube) -> None:
        await replica().step()
        assert "PRIVATE" not in json.dumps([kube.objects, stored(kube)])

    async def test_a_restart_goes_on_with_the_same_key(self, replica: Replica, kube: FakeKube) -> None:
        first, second = replica(), replica()
        await first.step()
        await second.step()
        assert first.signer().kid == second.signer().kid
        assert verifies(kube, sign(second))

    async def test_nothing_is_signed_with_a_key_that_could_not_be_published(
        self, replica: Replica, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create = kube.create

        async def no_signing_keys(path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
            if path == KEYS:
                raise StoreUnavailableError("the Kubernetes API cannot be reached")
            return await create(path, *arguments, **options)

        keys = replica()
        with monkeypatch.context() as context:
            context.setattr(kube, "create", no_signing_keys)
            with pytest.raises(StoreUnavailableError):
                await keys.step()
        assert not keys.ready
        await keys.step()
        assert published(kube) == set(stored(kube)) == {keys.signer().kid}


class TestRotation:
    async def test_a_new_key_is_published_before_it_signs(self, replica: Replica, kube: FakeKube, clock: Clock) -> None:
        keys = replica()
        await keys.step()
        old = keys.signer().kid
        clock.advance(ROTATION)
        await keys.step()
        (new,) = published(kube) - {old}
        assert keys.signer().kid == old
        clock.advance(PROPAGATION - 1)
        await keys.step()
        assert keys.signer().kid == old
        clock.advance(1)
        assert keys.signer().kid == new
        assert verifies(kube, sign(keys))

    async def test_it_is_not_rotated_a_second_early(self, replica: Replica, kube: FakeKube, clock: Clock) -> None:
        keys = replica()
        await keys.step()
        clock.advance(ROTATION - 1)
        await keys.step()
        assert len(published(kube)) == 1

    async def test_the_old_one_loses_its_private_half_when_the_new_one_signs(
        self, replica: Replica, kube: FakeKube, clock: Clock
    ) -> None:
        keys = replica()
        await keys.step()
        old, token = keys.signer().kid, sign(keys)
        private = stored(kube)[old]["sealed"]
        await self.rotate(keys, clock)
        assert stored(kube)[old]["retiredAt"] == clock()
        assert stored(kube)[old]["sealed"] != private
        assert len(stored(kube)[old]["sealed"]) < 80 < len(private)
        assert kube.objects[f"{KEYS}/{old}"]["spec"]["retiredAt"] == "2026-09-21T14:30:50Z"
        assert verifies(kube, token), "what it signed before is still good"

    async def test_its_public_half_stays_until_the_last_that_it_signed_has_expired(
        self, replica: Replica, kube: FakeKube, clock: Clock
    ) -> None:
        keys = replica()
        await keys.step()
        old, token = keys.signer().kid, sign(keys)
        await self.rotate(keys, clock)
        clock.advance(LIFETIME + GRACE_SECONDS - 1)
        await keys.step()
        assert verifies(kube, token)
        clock.advance(1)
        await keys.step()
        assert old not in published(kube) | set(stored(kube))
        assert not verifies(kube, token)

    async def test_its_end_is_no_alarm(
        self, replica: Replica, kube: FakeKube, clock: Clock, audit_lines: AuditLines
    ) -> None:
        one, other = replica(), replica()
        await one.step()
        await self.rotate(one, clock)
        await other.step()
        clock.advance(LIFETIME + GRACE_SECONDS)
        await asyncio.gather(one.step(), other.step())
        assert len(published(kube)) == 1
        assert {line["event"] for line in audit_lines()} == {"signing-key-rotated"}

    async def test_on_two_replicas_at_once_it_is_one_new_key_and_it_is_never_withdrawn(
        self, replica: Replica, kube: FakeKube, clock: Clock
    ) -> None:
        both = [replica(), replica()]
        for one in both:
            await one.step()
        clock.advance(ROTATION)
        await asyncio.gather(*(one.step() for one in both))
        assert published(kube) == set(stored(kube))
        assert len(published(kube)) == 2
        assert not any(method == "DELETE" for method, _ in kube.calls)

    async def test_a_key_that_another_replica_makes_between_our_read_and_our_list_is_not_withdrawn(
        self, replica: Replica, kube: FakeKube, monkeypatch: pytest.MonkeyPatch, audit_lines: AuditLines
    ) -> None:
        slow, quick = replica(), replica()
        await slow.step()
        await quick.step()
        pages, waiting, rotated = kube.pages, asyncio.Event(), asyncio.Event()

        async def pages_after_the_rotation(path: str) -> AsyncIterator[dict[str, Any]]:
            if asyncio.current_task() is looking:
                waiting.set()
                await rotated.wait()
            async for page in pages(path):
                yield page

        monkeypatch.setattr(kube, "pages", pages_after_the_rotation)
        looking = asyncio.create_task(slow.step())
        await waiting.wait()
        await quick.step(rotate=True)
        rotated.set()
        await looking
        assert published(kube) == set(stored(kube))
        assert len(published(kube)) == 2
        assert not any(method == "DELETE" for method, _ in kube.calls)
        assert {line["event"] for line in audit_lines()} == {"signing-key-rotated"}

    async def test_on_demand(self, replica: Replica, kube: FakeKube, clock: Clock, audit_lines: AuditLines) -> None:
        keys = replica()
        await keys.step()
        await keys.step(rotate=True)
        assert len(published(kube)) == 2
        assert [line["event"] for line in audit_lines()] == ["signing-key-rotated"] * 2

    async def test_a_replica_signs_with_the_key_that_it_knows_until_it_looks_again(
        self, replica: Replica, kube: FakeKube, clock: Clock
    ) -> None:
        quick, slow = replica(), replica()
        await quick.step()
        await slow.step()
        await self.rotate(quick, clock)
        assert verifies(kube, sign(slow))
        await slow.step()
        assert slow.signer().kid == quick.signer().kid

    async def test_another_algorithm_is_taken_up_by_the_next_key(
        self, replica: Replica, kube: FakeKube, clock: Clock
    ) -> None:
        await replica("ES256").step()
        changed = replica("EdDSA")
        await changed.step()
        assert changed.signer().algorithm == "ES256"
        await self.rotate(changed, clock)
        assert changed.signer().algorithm == "EdDSA"
        assert verifies(kube, sign(changed))

    async def test_a_key_from_the_future_of_another_clock_is_better_than_none(
        self, replica: Replica, kube: FakeKube, clock: Clock
    ) -> None:
        ahead = replica()
        clock.advance(600)
        await ahead.step()
        clock.advance(-600)
        behind = replica()
        await behind.step()
        assert behind.signer().kid == ahead.signer().kid

    @staticmethod
    async def rotate(keys: SigningKeys, clock: Clock) -> None:
        """All the way, until the old key is retired."""
        clock.advance(ROTATION)
        await keys.step()
        clock.advance(PROPAGATION)
        await keys.step()


class TestForeignKeys:
    async def test_a_signing_key_that_is_not_ours_is_withdrawn_and_told(
        self, replica: Replica, kube: FakeKube, audit_lines: AuditLines
    ) -> None:
        keys, forger = replica(), Signer()
        await keys.step()
        await kube.create(KEYS, forger.signing_key())
        token = forger.sign(claims())
        assert verifies(kube, token)
        await keys.step()
        assert not verifies(kube, token)
        assert published(kube) == {keys.signer().kid}
        line = audit_lines()[-1]
        assert (line["event"], line["key_id"], line["code"], line["outcome"]) == ("signing-key-withdrawn", forger.kid, "foreign-signing-key", "deleted")  # fmt: skip

    @pytest.mark.parametrize("changes", [{}, {"retiredAt": 1_790_000_000.0}, {"retiredAt": None, "createdAt": 0}])
    async def test_a_public_key_that_somebody_wrote_into_the_secret_is_not_published(
        self, replica: Replica, kube: FakeKube, audit_lines: AuditLines, changes: dict[str, Any]
    ) -> None:
        """Whoever may write Secrets, but not read our encryption key, cannot have a key of their own believed."""
        keys, forger = replica(), Signer()
        await keys.step()
        forged = forger.signing_key()["spec"]
        ours = stored(kube)[keys.signer().kid]
        entry = {**ours, "publicKey": forged["publicKey"], **changes}
        write(kube, forger.kid, entry)
        await keys.step()
        assert not verifies(kube, forger.sign(claims()))
        assert set(stored(kube)) == published(kube) == {keys.signer().kid}
        line = audit_lines()[-1]
        assert (line["event"], line["key_id"], line["outcome"]) == ("signing-key-refused", forger.kid, "removed")

    @pytest.mark.parametrize(
        "change",
        [
            {"publicKey": "other"},
            {"algorithm": "EdDSA"},
            {"retiredAt": 1_790_000_000.0},
            {"sealed": ""},
            {"sealed": "v1.kek-1.AAAA"},
            {"createdAt": "now"},
            None,
            b"text",
            b"\xff",
        ],
    )
    async def test_a_key_that_somebody_changed_is_replaced(
        self, replica: Replica, kube: FakeKube, change: Any, audit_lines: AuditLines
    ) -> None:
        keys = replica()
        await keys.step()
        old = keys.signer().kid
        write(kube, old, {**stored(kube)[old], **change} if isinstance(change, dict) else change)
        await keys.step()
        assert keys.signer().kid != old
        assert set(stored(kube)) == published(kube) == {keys.signer().kid}
        assert verifies(kube, sign(keys))
        assert "signing-key-refused" in {line["event"] for line in audit_lines()}

    async def test_a_retired_key_cannot_be_brought_back(self, replica: Replica, kube: FakeKube, clock: Clock) -> None:
        keys = replica()
        await keys.step()
        old = keys.signer().kid
        await TestRotation.rotate(keys, clock)
        write(kube, old, {**stored(kube)[old], "retiredAt": None, "createdAt": clock() - PROPAGATION})
        await keys.step()
        assert old not in published(kube) | set(stored(kube))

    async def test_keys_that_the_encryption_key_does_not_open_are_replaced(
        self, replica: Replica, kube: FakeKube
    ) -> None:
        """The encryption key was lost: nothing could be signed until the next rotation otherwise."""
        await replica().step()
        keys = replica(kek={"kek-1": b"x" * 32})
        await keys.step()
        assert verifies(kube, sign(keys))
        assert len(published(kube)) == 1

    async def test_one_that_was_deleted_by_mistake_is_published_again(self, replica: Replica, kube: FakeKube) -> None:
        keys = replica()
        await keys.step()
        await kube.delete(f"{KEYS}/{keys.signer().kid}")
        await keys.step()
        assert verifies(kube, sign(keys))

    @pytest.mark.parametrize(
        "spec", [{"publicKey": "other"}, {"algorithm": "EdDSA"}, {"notBefore": "2030-01-01T00:00:00Z"}, {"retiredAt": "2026-01-01T00:00:00Z"}]
    )  # fmt: skip
    async def test_one_that_was_changed_is_put_right_once(
        self, replica: Replica, kube: FakeKube, spec: dict[str, Any]
    ) -> None:
        keys = replica()
        await keys.step()
        path = f"{KEYS}/{keys.signer().kid}"
        right = dict(kube.objects[path]["spec"])
        kube.objects[path]["spec"] = {**right, **spec}
        await keys.step()
        assert kube.objects[path]["spec"] == right
        kube.calls.clear()
        await keys.step()
        assert {method for method, _ in kube.calls} == {"GET"}


class TestANewEncryptionKey:
    """One is added while replicas are restarted one by one: those that run meet what those that were started have sealed."""

    @pytest.fixture
    def keks(self) -> dict[str, bytes]:
        return dict(KEK)

    def make(self, kube: FakeKube, clock: Clock, keks: dict[str, bytes]) -> SigningKeys:
        async def source(_: bool) -> dict[str, bytes]:
            return dict(keks)

        return SigningKeys(
            kube,  # type: ignore[arg-type]
            Envelope(dict(keks), source),
            namespace="kube-stepup",
            secret="keys",
            algorithm="ES256",
            propagation_seconds=PROPAGATION,
            rotation_seconds=ROTATION,
            max_lifetime_seconds=LIFETIME,
            clock=clock,
        )

    async def test_no_replica_drops_a_key_of_another(
        self, kube: FakeKube, clock: Clock, keks: dict[str, bytes], audit_lines: Any
    ) -> None:
        older = self.make(kube, clock, keks)
        await older.step()
        keks["kek-2"] = b"2" * 32
        newer = self.make(kube, clock, keks)
        await newer.step(rotate=True)
        both = published(kube)
        assert len(both) == 2
        await older.step()
        await newer.step()
        assert published(kube) == both
        assert older._keys.keys() == newer._keys.keys() == both
        assert not [line for line in audit_lines() if line["event"] == "signing-key-refused"]

    async def test_while_the_keys_cannot_be_read_nothing_is_decided(
        self, kube: FakeKube, clock: Clock, keks: dict[str, bytes]
    ) -> None:
        older = self.make(kube, clock, keks)
        await older.step()
        newer = self.make(kube, clock, {**keks, "kek-2": b"2" * 32})
        await newer.step(rotate=True)
        both = published(kube)

        async def unreachable(_: bool) -> dict[str, bytes]:
            raise StoreUnavailableError("the Kubernetes API cannot be reached")

        older._envelope._source = unreachable
        with pytest.raises(StoreUnavailableError):
            await older.step()
        assert published(kube) == both

    async def test_one_of_a_key_that_nobody_has_is_still_refused(
        self, kube: FakeKube, clock: Clock, keks: dict[str, bytes], audit_lines: Any
    ) -> None:
        older = self.make(kube, clock, keks)
        await older.step()
        forger = self.make(kube, clock, {"kek-9": b"9" * 32})
        forger._kube = FakeKube(clock)  # type: ignore[assignment]
        await forger.step()
        forged = forger._kube.objects[forger._path]["data"]  # type: ignore[attr-defined]
        kube.objects[older._path]["data"] |= forged
        await older.step()
        assert published(kube).isdisjoint(forged)
        assert [line["key_id"] for line in audit_lines() if line["event"] == "signing-key-refused"] == list(forged)


class TestTrouble:
    async def test_what_changes_all_the_time_is_tried_a_few_times(
        self, replica: Replica, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def conflict(*_: Any, **__: Any) -> dict[str, Any]:
            raise ConflictError("changed")

        monkeypatch.setattr(kube, "create", conflict)
        with pytest.raises(StoreUnavailableError):
            await replica().step()

    async def test_a_private_key_of_another_kind_signs_nothing(self, replica: Replica, kube: FakeKube) -> None:
        keys = replica()
        await keys.step()
        kid, key = next(iter(keys._keys.items()))
        pem = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        sealed = Envelope(KEK).seal(pem, *key.context(kid))
        keys._keys = {kid: StoredKey(key.algorithm, key.public_key, key.created_at, sealed)}
        with pytest.raises(StoreUnavailableError):
            keys.signer()

    async def test_it_goes_on_trying(self, replica: Replica, kube: FakeKube, monkeypatch: pytest.MonkeyPatch) -> None:
        keys, pauses = replica(), []
        real_sleep, get = asyncio.sleep, kube.get

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await real_sleep(0)

        async def unreachable_at_first(*arguments: Any, **options: Any) -> Any:
            if len(pauses) < 2:
                raise StoreUnavailableError("the Kubernetes API cannot be reached")
            return await get(*arguments, **options)

        monkeypatch.setattr(kube, "get", unreachable_at_first)
        monkeypatch.setattr(module, "asyncio", type("Asyncio", (), {"sleep": staticmethod(sleep)}))
        task = asyncio.create_task(keys.run())
        while len(pauses) < 4:
            await real_sleep(0)
        task.cancel()
        assert pauses[:4] == [1.0, 1.0, 20.0, 20.0]
        assert keys.ready
