"""Certificates and the path in Secrets: made once, renewed, repaired, shared with the other loops."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kube import FakeKube
from webhook.controller.authority import advance, pem_of
from webhook.controller.bundles import ApiServiceBundle
from webhook.controller.certificates import Certificates
from webhook.controller.path_secret import PathSecret
from webhook.controller.secrets import Secrets
from webhook.controller.trust import Trust
from webhook.errors import ConfigurationError, ConflictError
from webhook.settings import ControllerSettings, Settings

pytestmark = pytest.mark.anyio
START = datetime(2026, 1, 1, tzinfo=UTC)
SECRETS = "/api/v1/namespaces/kube-stepup/secrets"
ADMISSION = f"{SECRETS}/kube-stepup-admission-cert"
ELEVATION = f"{SECRETS}/kube-stepup-elevation-cert"
CA = f"{SECRETS}/kube-stepup-ca"
PATH = f"{SECRETS}/kube-stepup-webhook-path"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/kube-stepup"
API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.elevation.kube-stepup.io"
DAY = timedelta(days=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World:
    def __init__(self, **options: Any) -> None:
        self.kube = FakeKube()
        self.now = START
        self.trust = Trust()
        self.settings = Settings(audience="test", controller=ControllerSettings(**options))
        secrets = Secrets(self.kube, "kube-stepup")  # type: ignore[arg-type]
        self.certificates = Certificates(secrets, self.settings, self.trust, now=lambda: self.now)
        self.path = PathSecret(self.kube, secrets, self.settings, self.trust, now=lambda: self.now)  # type: ignore[arg-type]
        self.bundle = ApiServiceBundle(self.kube, self.settings, self.trust)  # type: ignore[arg-type]

    def data(self, path: str) -> dict[str, str]:
        return {key: base64.b64decode(value).decode() for key, value in self.kube.objects[path]["data"].items()}

    async def put(self, where: str, **data: str) -> None:
        collection, name = where.rsplit("/", 1)
        encoded = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}
        await self.kube.create(collection, {"metadata": {"name": name}, "data": encoded})

    def writes(self) -> list[str]:
        return [path for method, path in self.kube.calls if method not in {"GET", "WATCH"}]


async def test_everything_is_made_once() -> None:
    world = World()
    await world.certificates.step()
    assert world.kube.objects[ADMISSION]["type"] == "kubernetes.io/tls"
    assert set(world.data(ADMISSION)) == {"tls.crt", "tls.key", "ca.crt"}
    assert world.trust.admission == world.trust.elevation == world.data(ADMISSION)["ca.crt"]
    assert world.data(ADMISSION)["tls.key"] != world.data(ELEVATION)["tls.key"]

    world.kube.calls.clear()
    await world.certificates.step()
    assert world.writes() == []


async def test_the_key_of_the_ca_is_in_no_secret_that_a_server_mounts() -> None:
    world = World()
    await world.certificates.step()
    assert "ca.key" in world.data(CA)
    assert world.data(CA)["ca.key"] not in (*world.data(ADMISSION).values(), *world.data(ELEVATION).values())


async def test_a_serving_certificate_is_renewed_in_time_and_the_ca_stays() -> None:
    world = World()
    await world.certificates.step()
    before = world.data(ADMISSION)
    world.now = START + 61 * DAY
    await world.certificates.step()
    after = world.data(ADMISSION)
    assert after["tls.crt"] != before["tls.crt"]
    assert after["ca.crt"] == before["ca.crt"]


async def test_a_deleted_or_damaged_serving_certificate_is_made_again() -> None:
    world = World()
    await world.certificates.step()
    world.kube.objects.pop(ADMISSION)
    world.kube.objects[ELEVATION]["data"]["tls.key"] = "not base64"
    await world.certificates.step()
    assert set(world.data(ADMISSION)) == set(world.data(ELEVATION)) == {"tls.crt", "tls.key", "ca.crt"}


async def test_a_successor_is_in_every_bundle_before_it_signs_anything() -> None:
    world = World()
    await world.certificates.step()
    first = world.trust.admission
    world.now = START + 365 * 5 * DAY * 0.68
    await world.certificates.step()
    both = world.trust.admission
    assert both.startswith(first)
    assert both.count("BEGIN CERTIFICATE") == 2
    assert world.data(ADMISSION)["ca.crt"] == both
    assert set(world.data(CA)) == {"ca.crt", "ca.key", "next.crt", "next.key"}

    world.now += DAY
    await world.certificates.step()
    assert set(world.data(CA)) == {"ca.crt", "ca.key", "retired.crt"}
    assert world.data(CA)["retired.crt"] == first
    assert world.trust.admission == both.removeprefix(first) + first


@pytest.mark.parametrize("loss", ["deleted", "damaged"])
async def test_a_ca_that_was_lost_stays_trusted_while_its_certificates_are_still_served(loss: str) -> None:
    world = World()
    await world.certificates.step()
    first = world.trust.admission
    if loss == "deleted":
        world.kube.objects.pop(CA)
    else:
        world.kube.objects[CA]["data"]["ca.key"] = base64.b64encode(b"nonsense").decode()
    await world.certificates.step()
    assert first in world.trust.admission
    assert world.trust.admission.count("BEGIN CERTIFICATE") == 2
    world.kube.calls.clear()
    await world.certificates.step()
    assert world.writes() == []


async def test_somebody_elses_certificates_are_only_read_and_the_ca_of_before_stays_trusted() -> None:
    world = World(manage_certificates=False)
    await world.certificates.step()
    assert (world.trust.admission, world.trust.elevation) == ("", "")
    assert world.kube.objects == {}

    old = advance(None, START, lifetime_seconds=100 * 86400, overlap_seconds=60).current
    new = advance(None, START, lifetime_seconds=200 * 86400, overlap_seconds=60).current
    await world.put(ADMISSION, ca_crt=pem_of([old.certificate]))
    await world.put(ELEVATION, ca_crt=pem_of([old.certificate]))
    await world.certificates.step()
    assert world.trust.admission == pem_of([old.certificate])

    world.kube.objects[ADMISSION]["data"]["ca.crt"] = base64.b64encode(pem_of([new.certificate]).encode()).decode()
    await world.certificates.step()
    assert world.trust.admission == pem_of([new.certificate, old.certificate])
    assert world.trust.elevation == pem_of([old.certificate])
    world.kube.calls.clear()
    await world.certificates.step()
    assert world.writes() == []

    world.now = START + 101 * DAY
    await world.certificates.step()
    assert world.trust.admission == pem_of([new.certificate])


async def test_a_bundle_from_a_file_replaces_all_of_it(tmp_path: Path) -> None:
    authority = advance(None, START, lifetime_seconds=86400, overlap_seconds=60).current
    file = tmp_path / "ca.crt"
    file.write_text(pem_of([authority.certificate]))
    world = World(ca_bundle_file=str(file))
    await world.certificates.step()
    assert world.trust.admission == world.trust.elevation == file.read_text()
    assert world.kube.objects == {}


@pytest.mark.parametrize("content", [None, "no certificate", "ü"])
async def test_a_bundle_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"controller\.caBundleFile"):
        await World(ca_bundle_file=str(file)).certificates.step()


async def test_names_that_are_added_reach_the_certificate() -> None:
    world = World(serving_dns_names=("127.0.0.1", "example.internal"))
    await world.certificates.step()
    names = world.certificates._names("kube-stepup-admission")
    assert names[0] == "kube-stepup-admission.kube-stepup.svc"
    assert names[-2:] == ["127.0.0.1", "example.internal"]


async def test_losing_the_race_for_a_secret_is_a_conflict_and_keeps_the_winners() -> None:
    world = World()
    await world.certificates.step()
    stored = world.data(CA)
    secrets = Secrets(world.kube, "kube-stepup")  # type: ignore[arg-type]
    read = await secrets.read("kube-stepup-ca")
    await secrets.write("kube-stepup-ca", stored, replacing=read)
    with pytest.raises(ConflictError):
        await secrets.write("kube-stepup-ca", {"ca.crt": "mine"}, replacing=read)
    assert await secrets.create_or_read("kube-stepup-ca", {"ca.crt": "mine"}) == stored


async def test_the_path_is_random_and_made_once() -> None:
    one, other = World(), World()
    await one.path.step()
    await other.path.step()
    assert re.fullmatch("[0-9a-f]{64}", one.trust.path_secret)
    assert one.trust.path_secret != other.trust.path_secret
    assert one.data(PATH)["path"] == one.trust.path_secret
    one.kube.calls.clear()
    await one.path.step()
    assert one.writes() == []
    assert one.trust.path_secret not in repr(one.trust)


async def test_a_deleted_path_is_made_again_as_we_remember_it() -> None:
    world = World()
    await world.path.step()
    before = world.data(PATH)
    world.kube.objects.pop(PATH)
    await world.path.step()
    assert world.data(PATH) == before


@pytest.mark.parametrize(
    "client", [{"service": {"path": "/validate/" + "a" * 43}}, {"url": "https://127.0.0.1:1/validate/" + "a" * 43}]
)
async def test_a_deleted_path_is_made_again_as_the_configuration_says(client: dict[str, Any]) -> None:
    world = World()
    body = {"metadata": {"name": "kube-stepup"}, "webhooks": [{"clientConfig": client}]}
    await world.kube.create(CONFIGURATION.rsplit("/", 1)[0], body)
    await world.path.step()
    assert world.data(PATH)["path"] == "a" * 43


@pytest.mark.parametrize(
    ("path", "by_service", "by_url"),
    [
        ("short", False, False),
        ("a" * 16, True, True),
        ("Upper_Case-" + "a" * 16, False, True),
        ("a/" * 16, False, False),
    ],
)
async def test_a_path_that_cannot_be_used_is_not_used(path: str, by_service: bool, by_url: bool) -> None:
    for url, usable in (("", by_service), ("https://127.0.0.1:1", by_url)):
        world = World(webhook_url=url)
        await world.put(PATH, path=path)
        await world.path.step()
        assert world.trust.path_secret == (path if usable else "")


async def test_the_path_is_replaced_every_day_without_a_moment_in_which_a_replica_does_not_know_it() -> None:
    world = World()
    await world.path.step()
    first = world.trust.path_secret
    world.now += DAY
    await world.path.step()
    announced = world.data(PATH)["next"]
    assert (world.trust.path_secret, world.data(PATH)["path"]) == (first, first), "not used before it is known"
    world.now += timedelta(minutes=4)
    await world.path.step()
    assert world.trust.path_secret == first
    world.now += timedelta(minutes=2)
    await world.path.step()
    assert world.trust.path_secret == announced != first
    assert world.data(PATH)["previous"] == first, "still accepted, until the API server has let go of it"
    world.now += timedelta(minutes=6)
    await world.path.step()
    assert set(world.data(PATH)) == {"path", "since"}
    assert world.data(PATH)["path"] == announced


async def test_a_path_without_a_date_is_dated_and_one_that_shall_stay_stays() -> None:
    dated, stays = World(), World(path_secret_rotation_seconds=0)
    for world in (dated, stays):
        await world.put(PATH, path="a" * 32)
        await world.path.step()
        world.now += DAY
        await world.path.step()
    assert "next" in dated.data(PATH)
    assert stays.data(PATH) == {"path": "a" * 32}


async def test_the_bundle_gets_into_the_api_service_and_back_into_it() -> None:
    world = World()
    body = {"metadata": {"name": API_SERVICE.rsplit("/", 1)[1]}, "spec": {"insecureSkipTLSVerify": True}}
    await world.kube.create(API_SERVICE.rsplit("/", 1)[0], body)
    await world.bundle.step()
    assert "caBundle" not in world.kube.objects[API_SERVICE]["spec"]

    await world.certificates.step()
    await world.bundle.step()
    spec = world.kube.objects[API_SERVICE]["spec"]
    assert base64.b64decode(spec["caBundle"]).decode() == world.trust.elevation
    assert spec["insecureSkipTLSVerify"] is False

    world.kube.objects[API_SERVICE]["spec"]["caBundle"] = "eA=="
    await world.bundle.step()
    assert base64.b64decode(world.kube.objects[API_SERVICE]["spec"]["caBundle"]).decode() == world.trust.elevation
    world.kube.calls.clear()
    await world.bundle.step()
    assert world.writes() == []


async def test_without_an_api_service_there_is_nothing_to_do() -> None:
    world = World(api_service="")
    world.trust.learn(elevation="CA")
    await world.bundle.step()
    assert world.kube.calls == []
    missing = World()
    missing.trust.learn(elevation="CA")
    await missing.bundle.step()
    assert missing.writes() == []


def test_news_of_trust_wakes_those_who_wait_and_no_news_does_not() -> None:
    trust = Trust()
    trust.learn(admission="CA")
    assert trust.changed.is_set()
    trust.changed.clear()
    trust.learn(admission="CA", elevation=None)
    assert not trust.changed.is_set()
