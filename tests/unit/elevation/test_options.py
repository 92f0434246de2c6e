"""Options of the Kubernetes API that are not there are refused: nobody gets the deed who asked for a rehearsal."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.fakes.elevation import API, OPERATOR, Person, Server, refused, wanted
from tests.fakes.kube import FakeKube


def body(spec: dict[str, Any]) -> bytes:
    return json.dumps({"spec": spec}).encode()


async def phase(who: Person, name: str) -> str:
    answer = await who.get(f"elevationrequests/{name}")
    return str(answer.json()["status"]["phase"]) if answer.status_code == 200 else "gone"


class TestDryRun:
    @pytest.mark.parametrize(
        ("resource", "spec"),
        [
            ("elevationrequests", {"details": [wanted()]}),
            ("elevationrequests/{name}/answer", {"factor": "recovery-code", "code": "{code}"}),
            ("elevationrequests/{name}/revoke", {}),
            ("authenticators", {"type": "totp", "ticket": "x"}),
            ("enrollmenttickets", {"username": "alice"}),
            ("authenticatorunlocks", {"username": "alice"}),
            ("authenticatorresets", {"username": "alice"}),
        ],
    )
    @pytest.mark.parametrize("value", ["All", ""])
    async def test_no_creation_has_one(
        self, alice: Person, kube: FakeKube, resource: str, spec: dict[str, Any], value: str
    ) -> None:
        name = await alice.ask()
        path = f"{API}/{resource.format(name=name)}?fieldManager=kubectl-create&dryRun={value}"
        given = {
            key: text.format(code=alice.recovery_codes[0]) if key == "code" else text for key, text in spec.items()
        }
        before = dict(kube.objects)
        assert refused(await alice.request("POST", path, body(given))) == (400, "dry-run-unsupported", "dryRun")
        assert kube.objects == before

    @pytest.mark.parametrize(
        ("query", "options"),
        [
            ("", b'{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}'),
            ("?dryRun=All", b""),
            ("", b'{"dryRun":"All"}'),
            ("", b"[]"),
        ],
    )
    async def test_nor_has_a_deletion_wherever_it_is_asked_for(self, alice: Person, query: str, options: bytes) -> None:
        name, _ = await alice.step_up()
        answer = await alice.request("DELETE", f"{API}/elevationrequests/{name}{query}", options)
        assert refused(answer) == (400, "dry-run-unsupported", "dryRun")
        assert await phase(alice, name) == "Granted"

    @pytest.mark.parametrize(
        "options", [b"", b"{}", b'{"kind":"DeleteOptions","propagationPolicy":"Background"}', b'{"dryRun":null}', b'{"dryRun":[]}']
    )  # fmt: skip
    async def test_a_deletion_that_asks_for_none_is_done(self, alice: Person, options: bytes) -> None:
        name, _ = await alice.step_up()
        assert (await alice.request("DELETE", f"{API}/elevationrequests/{name}", options)).status_code == 200
        assert await phase(alice, name) == "gone"

    async def test_one_whose_options_cannot_be_read_is_not(self, alice: Person) -> None:
        name, _ = await alice.step_up()
        answer = await alice.request("DELETE", f"{API}/elevationrequests/{name}", b"\x00k8s")
        assert refused(answer) == (400, "malformed", "")
        assert await phase(alice, name) == "Granted"

    async def test_nothing_is_read_from_somebody_who_is_not_known(self, server: Server) -> None:
        read = False

        async def chunks() -> Any:
            nonlocal read
            read = True
            yield b"{}"

        answer = await server.request("DELETE", f"{API}/elevationrequests/x", content=chunks())
        assert refused(answer) == (401, "unauthenticated", "")
        assert not read

    async def test_of_an_authenticator_neither(self, server: Server) -> None:
        bob = server.person("bob", credential="X509SHA256=bob")
        started = (await bob.begin(ticket=await bob.ticket())).json()["metadata"]["name"]
        answer = await bob.request("DELETE", f"{API}/authenticators/{started}", b'{"dryRun":["All"]}')
        assert refused(answer) == (400, "dry-run-unsupported", "dryRun")
        assert len((await bob.get("authenticators")).json()["items"]) == 1


class TestSelectors:
    @pytest.mark.parametrize("resource", ["elevationrequests", "authenticators"])
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("labelSelector=no%3Dsuch", "labelSelector"),
            ("labelSelector=!x", "labelSelector"),
            ("fieldSelector=status.phase%3DGranted", "fieldSelector"),
            ("fieldSelector=metadata.name!%3Dx", "fieldSelector"),
            ("fieldSelector=metadata.name%3Dx,status.phase%3DGranted", "fieldSelector"),
            ("fieldSelector=metadata.name", "fieldSelector"),
            ("fieldSelector=metadata.name%3D", "fieldSelector"),
            ("fieldSelector=x", "fieldSelector"),
            ("fieldSelector=metadata.name%3Dx&labelSelector=a%3Db", "labelSelector"),
        ],
    )
    async def test_what_would_be_ignored_is_refused(self, alice: Person, resource: str, query: str, field: str) -> None:
        assert refused(await alice.get(f"{resource}?{query}")) == (400, "selector-unsupported", field)

    @pytest.mark.parametrize("operator", ["=", "=="])
    async def test_by_name_it_is_that_one(self, alice: Person, operator: str) -> None:
        names = [await alice.ask() for _ in range(2)]
        found = await self.listed(alice, f"fieldSelector=metadata.name{operator}{names[0]}")
        assert found == [names[0]]
        assert await self.listed(alice, "fieldSelector=metadata.name=another") == []

    async def test_empty_ones_are_none(self, alice: Person) -> None:
        name = await alice.ask()
        assert await self.listed(alice, "labelSelector=&fieldSelector=&limit=500") == [name]

    @staticmethod
    async def listed(who: Person, query: str) -> list[str]:
        answer: httpx.Response = await who.get(f"elevationrequests?{query}")
        assert answer.status_code == 200, answer.text
        return [one["metadata"]["name"] for one in answer.json()["items"]]


class TestWatch:
    @pytest.mark.parametrize("value", ["true", "1", "True"])
    async def test_there_is_none(self, alice: Person, value: str) -> None:
        answer = await alice.get(f"elevationrequests?watch={value}&resourceVersion=0")
        assert refused(answer) == (405, "watch-unsupported", "watch")

    @pytest.mark.parametrize("value", ["false", "0"])
    async def test_who_says_so_gets_a_list(self, alice: Person, value: str) -> None:
        assert (await alice.get(f"elevationrequests?watch={value}")).json()["kind"] == "ElevationRequestList"


async def test_an_operators_writes_are_done_without_a_dry_run(alice: Person, server: Server) -> None:
    operator = server.person(OPERATOR, credential="X509SHA256=operator")
    answer = await operator.request("POST", f"{API}/authenticatorunlocks?fieldManager=x", body({"username": "alice"}))
    assert answer.status_code == 201
