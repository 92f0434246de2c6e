"""Nothing that proves anything is ever logged, shown twice, or left in the open in what is stored."""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog.testing

from tests.fakes.elevation import KEK, Clock, Person, Server, created
from tests.fakes.kube import FakeKube
from webhook.adapters.envelope import Envelope
from webhook.adapters.kube import own_path

Secrets = dict[str, str]


class Life:
    """A person's life with us: everything that can go right or wrong, with what was secret in it."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self.server = server
        self.clock = clock
        self.secrets: Secrets = {"kek": KEK.decode(), "kek in base64": base64.b64encode(KEK).decode()}
        self.shown: list[str] = []

    async def lead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bob = self.server.person("bob", credential="X509SHA256=bob")
        await self.enrol(bob)
        await self.step_up(bob)
        await self.fail(bob, monkeypatch)

    async def enrol(self, bob: Person) -> None:
        ticket = self.secrets["ticket"] = await bob.ticket()
        self.secrets["another ticket"] = await bob.ticket()
        started = created(await bob.begin(ticket=ticket))
        await bob.begin(ticket=ticket)
        bob.secret = self.secrets["totp secret"] = started["status"]["secret"]
        name = started["metadata"]["name"]
        self.secrets["wrong code"] = bob.wrong_code()
        await bob.confirm(name, self.secrets["wrong code"])
        self.secrets["confirmation code"] = bob.code(-1)
        status = await bob.confirm(name, self.secrets["confirmation code"])
        bob.recovery_codes = status["recoveryCodes"]
        self.secrets |= {f"recovery code {number}": code for number, code in enumerate(bob.recovery_codes)}
        self.shown += [(await bob.get("authenticators")).text, (await bob.get(f"authenticators/{name}")).text]

    async def step_up(self, bob: Person) -> None:
        name = await bob.ask(reason="OPS-7")
        await bob.answer(name, self.secrets["wrong code"])
        await bob.answer(name, "not-a-recovery-code", "recovery-code")
        self.secrets["code"] = bob.code()
        self.secrets["assertion"] = (await bob.answer(name, self.secrets["code"]))["assertion"]
        again = await bob.ask()
        await bob.answer(again, self.secrets["code"])
        self.clock.advance(30)
        _, self.secrets["second assertion"] = await bob.step_up()
        self.shown += [(await bob.get("elevationrequests")).text, (await bob.get(f"elevationrequests/{name}")).text]
        await bob.delete(f"elevationrequests/{name}")

    async def fail(self, bob: Person, monkeypatch: pytest.MonkeyPatch) -> None:
        async def crash(*_: Any, **__: Any) -> dict[str, Any]:
            raise RuntimeError("the store is broken")

        name = await bob.ask()
        self.clock.advance(30)
        self.secrets["code of a crash"] = bob.code()
        with monkeypatch.context() as context:
            context.setattr(self.server.kube, "replace", crash)
            self.shown.append((await bob.post(f"elevationrequests/{name}/answer", {"code": bob.code()})).text)
        self.shown.append((await bob.post(f"elevationrequests/{name}/answer", {"code": bob.code(), "x": 1})).text)
        self.shown.append((await bob.post(f"elevationrequests/{name}/answer", {"code": int("1" + bob.code())})).text)


@pytest.fixture
async def life(server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch, logged: list[Any]) -> Life:
    found = Life(server, clock)
    await found.lead(monkeypatch)
    return found


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Everything that was logged, before what redacts it."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines:
        yield lines


def found_in(text: str, secrets: Secrets) -> list[str]:
    """Which secrets a text has in it."""
    return [what for what, secret in secrets.items() if _is_in(text, secret)]


def _is_in(text: str, secret: str) -> bool:
    if secret.isdigit():  # six digits also occur in hashes: look for them by themselves
        return re.search(rf"(?<!\w){secret}(?!\w)", text) is not None
    return any(form in text for form in (secret, secret.replace("-", ""), secret.rpartition(".")[2]))


def flat(lines: list[Any]) -> str:
    return "\n".join(f"{line!r} {line.get('exc_info', '')!r}" for line in lines)


async def test_nothing_secret_is_logged(life: Life, logged: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    text = flat(logged)
    assert {line["event"] for line in logged} >= {
        "enrolment-started",
        "enrolment-refused",
        "authenticator-enrolled",
        "elevation-granted",
        "elevation-refused",
        "request-crashed",
    }
    assert found_in(text, life.secrets) == []
    assert found_in(caplog.text, life.secrets) == []


async def test_nothing_secret_is_shown_again(life: Life) -> None:
    assert len(life.shown) == 7
    assert found_in("\n".join(life.shown), life.secrets) == []


async def test_only_the_record_holds_the_assertion_and_only_hashes_and_seals_the_rest(
    life: Life, kube: FakeKube
) -> None:
    stored = json.dumps(kube.objects)
    for obj in kube.objects.values():
        for value in obj["data"].values() if "/secrets/" in str(obj.get("type")) or obj.get("kind") == "Secret" else ():
            stored += base64.b64decode(value).decode()
    assert found_in(stored, life.secrets) == ["assertion", "second assertion"]
    elevations = {path for path, obj in kube.objects.items() if found_in(json.dumps(obj), life.secrets)}
    assert all(path.startswith(own_path("elevations")) for path in elevations)
    assert "PRIVATE KEY" not in stored


async def test_nothing_secret_is_in_a_repr(alice: Person) -> None:
    services = alice.server.services
    record = await services.enrolment._store.read("alice")
    shown = [record, services.keys.signer(), services.keys._keys, Envelope({"kek-1": KEK})]
    text = "\n".join(repr(one) for one in shown)
    secrets = {"secret": alice.secret, "kek": KEK.decode(), "kek bytes": repr(KEK)[2:-1]}
    assert found_in(text, secrets | {f"recovery code {n}": code for n, code in enumerate(alice.recovery_codes)}) == []
    assert "PRIVATE" not in text


async def test_this_test_would_find_them(alice: Person, logged: list[Any]) -> None:
    structlog.get_logger("x").info("oops", value=alice.recovery_codes[0].replace("-", ""))
    structlog.get_logger("x").info("oops", value="123456")
    secrets = {"recovery code": alice.recovery_codes[0], "code": "123456", "other": "654321"}
    assert found_in(flat(logged), secrets) == ["recovery code", "code"]


def test_a_mistake_elsewhere_does_not_end_in_a_log() -> None:
    """Fields whose name could hold a secret are dropped, by the real configuration, in a process of its own."""
    program = """
import structlog
from webhook.adapters.audit import audit, configure
configure("debug")
audit("mistake", user="alice", ticket="s3cret", assertion="s3cret", token="s3cret", secret="s3cret")
structlog.get_logger("x").warning("mistake", password="s3cret", code_given="s3cret", provisioning_uri="s3cret")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["mistake", "mistake"]
    assert lines[0]["user"] == "alice"
    assert lines[0]["level"] == "audit"
    assert "s3cret" not in run.stdout + run.stderr
