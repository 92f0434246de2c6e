"""A passkey by the page: chosen where there is one and a browser, served on localhost, or claimed from elsewhere."""

from __future__ import annotations

import re
import signal

import pytest

from tests.desk import Desk
from tests.fakes.page import GOOD, URL
from webhook.cli import exits

ALL = ["webauthn", "totp", "recovery-code"]
TOUCH = ["/answer", {"credential": GOOD}]


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.set(factors=ALL)
    return desk


class TestOnLocalhost:
    def test_the_browser_opens_and_a_touch_is_enough(self, desk: Desk) -> None:
        desk.browses(["/", None], TOUCH)
        ended = desk.run("--", "kubectl", "delete", "deploy/web", "-n", "prod")
        assert ended.returncode == exits.OK, ended.stderr
        assert 'deployment.apps "web" deleted' in ended.stdout
        assert "amber falcon" in ended.stderr
        (answer,) = desk.state["answers"]
        assert answer == {"factor": "webauthn", "page": "page-1", "credential": GOOD}
        (spec,) = desk.state["pages"]
        assert spec["elevation"] == "elv-1"
        assert re.fullmatch(r"http://localhost:\d+", spec["localOrigin"])

    def test_the_page_is_for_whoever_opened_it_and_has_the_services_headers(self, desk: Desk) -> None:
        desk.browses(["/", None], ["/static/page.js", None], ["/nothing", None], TOUCH)
        assert desk.run("delete", "deploy/web").returncode == exits.OK
        before, *after = desk.browser["saw"]
        assert before == ["GET /", "<h1>opening</h1>", "DENY"]
        assert [one[:2] for one in after] == [["/", 200], ["/static/page.js", 200], ["/nothing", 404], ["/answer", 200]]
        assert (after[0][2], after[1][2]) == ("<h1>the page</h1>", "// script")
        assert "SECRET-ASSERTION" not in str(desk.browser)

    def test_a_wrong_one_has_another_try_with_another_challenge(self, desk: Desk) -> None:
        desk.browses(["/answer", {"credential": {"id": "bad"}}], TOUCH)
        assert desk.run("delete", "deploy/web").returncode == exits.OK
        assert '"accepted": false' in desk.browser["saw"][1][2]
        assert "challenge-2" in desk.browser["saw"][1][2]
        assert [one["page"] for one in desk.state["answers"]] == ["page-1", "page-2"]

    def test_where_there_is_no_other_try_it_ends(self, desk: Desk) -> None:
        desk.set(page="once")
        desk.browses(["/answer", {"credential": {"id": "bad"}}])
        ended = desk.run("delete", "deploy/web")
        assert (ended.returncode, "did not prove anything" in ended.stderr) == (exits.WRONG_CODE, True)

    def test_this_was_not_me(self, desk: Desk) -> None:
        desk.browses(["/decline", {"a": 1}])
        ended = desk.run("delete", "deploy/web")
        assert (ended.returncode, "declined" in ended.stderr) == (exits.REFUSED, True)
        assert desk.state["revoked"] == ["elv-1"]
        assert desk.browser["saw"][1][1] == 200
        assert "answers" not in desk.state

    @pytest.mark.parametrize("body", [{"credential": 1}, {}, {"credential": GOOD, "x": "y" * 70_000}])
    def test_what_no_page_sends(self, desk: Desk, body: object) -> None:
        desk.browses(["/answer", body], ["/grant", {"credential": GOOD}], TOUCH)
        desk.run("delete", "deploy/web")
        assert all(one[1] in {400, 403} for one in desk.browser["saw"][1:3])

    def test_nobody_answers_in_time(self, desk: Desk) -> None:
        desk.set(lapses=0)
        desk.browses()
        ended = desk.run("delete", "deploy/web")
        assert (ended.returncode, "in time" in ended.stderr) == (exits.INTERRUPTED, True)

    def test_ctrl_c_gives_up(self, desk: Desk) -> None:
        desk.browses()
        terminal = desk.at_terminal("delete", "deploy/web")
        terminal.wait_for("if nothing opens")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() in {exits.INTERRUPTED, -signal.SIGINT, 128 + signal.SIGINT}
        assert "Traceback" not in terminal.shown


class TestElsewhere:
    def test_the_link_is_opened_and_what_was_proven_is_claimed(self, desk: Desk) -> None:
        desk.set(page="url", waits=2)
        desk.browses()
        ended = desk.run("delete", "deploy/web")
        assert ended.returncode == exits.OK, ended.stderr
        assert URL in ended.stderr
        assert desk.state["answers"] == [{"factor": "webauthn", "page": "page-1"}] * 3

    def test_without_a_browser_the_link_is_printed_with_a_qr_code(self, desk: Desk) -> None:
        desk.set(page="url")
        ended = desk.run("delete", "deploy/web", "--factor", "webauthn")
        assert ended.returncode == exits.OK, ended.stderr
        assert URL in ended.stderr
        assert "▀" in ended.stderr or "█" in ended.stderr

    def test_what_was_declined_ends_it(self, desk: Desk) -> None:
        declined = {"accepted": False, "code": "page-declined", "message": "it was declined"}
        desk.set(page="url", claim=declined)
        desk.browses()
        ended = desk.run("delete", "deploy/web")
        assert (ended.returncode, "it was declined" in ended.stderr) == (exits.REFUSED, True)


class TestWhichFactor:
    def test_without_a_browser_a_code_is_asked_for(self, desk: Desk) -> None:
        terminal = desk.at_terminal("delete", "deploy/web")
        terminal.wait_for("Code: ")
        terminal.type("123456\r")
        assert terminal.end() == exits.OK
        assert "pages" not in desk.state

    def test_over_ssh_there_is_no_browser_here_and_the_way_is_told(self, desk: Desk) -> None:
        desk.set(lapses=0)
        desk.environment |= {"DISPLAY": ":0", "SSH_CONNECTION": "1", "KUBECTL_ELEVATE_PAGE_PORT": "0"}
        ended = desk.run("delete", "deploy/web", "--factor", "webauthn")
        assert "ssh -L" in ended.stderr

    def test_a_program_that_gives_codes_goes_before_the_page(self, desk: Desk) -> None:
        desk.browses(TOUCH)
        desk.prints("123456")
        assert desk.run("delete", "deploy/web").returncode == exits.OK
        assert desk.state["answers"][0]["factor"] == "totp"

    def test_a_factor_that_is_said_is_taken(self, desk: Desk) -> None:
        desk.browses(TOUCH)
        terminal = desk.at_terminal("delete", "deploy/web", "--factor", "totp")
        terminal.wait_for("Code: ")
        terminal.type("123456\r")
        assert terminal.end() == exits.OK

    def test_one_that_does_not_do_here_is_refused_before_anything_is_asked(self, desk: Desk) -> None:
        desk.set(factors=["totp"])
        ended = desk.run("delete", "deploy/web", "--factor", "webauthn")
        assert (ended.returncode, "but totp" in ended.stderr) == (exits.REFUSED, True)

    def test_one_that_there_is_not(self, desk: Desk) -> None:
        assert desk.run("delete", "deploy/web", "--factor", "sms").returncode == exits.USAGE

    def test_where_no_page_can_be_served_a_code_does(self, desk: Desk) -> None:
        desk.set(page="none")
        desk.browses(TOUCH)
        terminal = desk.at_terminal("delete", "deploy/web")
        terminal.wait_for("Code: ")
        terminal.type("123456\r")
        assert terminal.end() == exits.OK

    def test_a_passkey_alone_prints_its_link_anywhere(self, desk: Desk) -> None:
        desk.set(factors=["webauthn"], page="url")
        assert desk.run("delete", "deploy/web").returncode == exits.OK

    @pytest.mark.parametrize("port", ["x", "99999", "-1"])
    def test_a_port_that_is_none(self, desk: Desk, port: str) -> None:
        desk.environment["KUBECTL_ELEVATE_PAGE_PORT"] = port
        desk.browses(TOUCH)
        assert desk.run("delete", "deploy/web").returncode == exits.USAGE


class TestEnrolling:
    def test_a_first_passkey(self, desk: Desk) -> None:
        desk.browses(["/register", {"credential": GOOD}])
        ended = desk.run("enroll", "--factor", "webauthn", "--name", "laptop", "--ticket", "T1")
        assert ended.returncode == exits.OK, ended.stderr
        assert "code-0" in ended.stdout
        assert "Enrolled: laptop" in ended.stdout
        assert desk.state["pages"][0] | {"localOrigin": ""} == {
            "authenticator": "webauthn-1",
            "enrolmentSecret": "MINE",
            "localOrigin": "",
        }
        assert not any("MINE" in word or "T1" in word for call in desk.state["calls"] for word in call)

    def test_a_further_one_asks_for_a_step_up_by_itself(self, desk: Desk) -> None:
        desk.set(enrolled=True, factors=["totp"])
        desk.browses(["/register", {"credential": GOOD}])
        terminal = desk.at_terminal("enroll", "--factor", "webauthn")
        terminal.wait_for("a further authenticator needs a step-up")
        terminal.wait_for("Code: ")
        terminal.type("123456\r")
        assert terminal.end() == exits.OK, terminal.shown
        ((detail,),) = desk.state["asked"]
        assert (detail["operation"], detail["resource"], detail["objects"]) == (
            "access",
            "authenticators",
            [{"name": "new"}],
        )


class TestFactors:
    ITEMS = (
        {"metadata": {"name": "totp-1"}, "spec": {"type": "totp"}, "status": {"phase": "Confirmed"}},
        {
            "metadata": {"name": "webauthn-1", "creationTimestamp": "2026-11-24T12:00:00Z"},
            "spec": {"type": "webauthn", "name": "key"},
            "status": {"phase": "Confirmed", "webauthn": {"rpID": "example.com", "attested": True, "suspended": True}},
        },
        {"metadata": {"name": "webauthn-2"}, "spec": {"type": "webauthn"}, "status": {"phase": "Pending"}},
    )

    def test_are_listed(self, desk: Desk) -> None:
        desk.set(authenticators=self.ITEMS)
        shown = desk.run("factors").stdout
        assert re.search(r"webauthn-1 +webauthn +key +example.com,attested +SUSPENDED +2026-11-24 +never", shown)
        assert '"totp-1"' in desk.run("factors", "-o", "json").stdout

    def test_there_are_none(self, desk: Desk) -> None:
        assert "ticket" in desk.run("factors").stdout

    @pytest.mark.parametrize("wanted", ["webauthn-1", "key"])
    def test_one_is_removed_by_name_or_by_what_it_is_called_with_a_step_up_for_it(
        self, desk: Desk, wanted: str
    ) -> None:
        desk.set(authenticators=self.ITEMS)
        desk.prints("123456")
        ended = desk.run("factors", "remove", wanted)
        assert (ended.returncode, ended.stdout) == (exits.OK, "webauthn-1 removed\n"), ended.stderr
        ((detail,),) = desk.state["asked"]
        assert detail["objects"] == [{"name": "webauthn-1"}]
        assert desk.state["revoked"] == ["webauthn-1?elevation=elv-1"]

    def test_one_that_was_never_confirmed_needs_none(self, desk: Desk) -> None:
        desk.set(authenticators=self.ITEMS)
        assert desk.run("factors", "remove", "webauthn-2").returncode == exits.OK
        assert "asked" not in desk.state

    def test_the_last_one_only_when_it_is_said(self, desk: Desk) -> None:
        desk.set(authenticators=self.ITEMS[:1])
        desk.prints("123456")
        ended = desk.run("factors", "remove", "totp-1")
        assert (ended.returncode, "--yes-the-last" in ended.stderr) == (exits.REFUSED, True)
        assert desk.run("factors", "remove", "totp-1", "--yes-the-last").returncode == exits.OK
        assert desk.state["revoked"] == ["totp-1?elevation=elv-1&last=yes"]

    @pytest.mark.parametrize("arguments", [("remove", "nobody"), ("remove",), ("rename", "x")])
    def test_what_cannot_be_meant(self, desk: Desk, arguments: tuple[str, ...]) -> None:
        desk.set(authenticators=self.ITEMS)
        assert desk.run("factors", *arguments).returncode == exits.USAGE


class TestHome:
    def test_shows_and_revokes(self, desk: Desk) -> None:
        desk.browses(["/revoke", {"name": "elv-7"}], ["/revoke", {"name": "../x"}])
        with desk.start("page") as process:
            try:
                assert [one[1] for one in desk.browser["saw"][1:]] == [200, 403]
            finally:
                process.terminate()
        assert desk.state["revoked"] == ["elv-7"]

    def test_ends_when_the_page_has_expired(self, desk: Desk) -> None:
        desk.set(lapses=0)
        desk.browses()
        assert desk.run("page").returncode == exits.OK
