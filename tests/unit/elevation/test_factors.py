"""Factors by themselves: RFC 6238's own examples, the window, reuse, and recovery codes."""

from __future__ import annotations

import base64

import pytest

from webhook.adapters.authenticator_store import Authenticator, PersonRecord
from webhook.adapters.envelope import Envelope, UnsealError
from webhook.elevation.factors import WrongAnswerError, available
from webhook.elevation.factors.recovery import RecoveryCode, new_codes
from webhook.elevation.factors.totp import Totp
from webhook.settings import Settings, TotpSettings

ENVELOPE = Envelope({"kek-1": bytes(32)})
RFC_SECRET = b"12345678901234567890"  # RFC 6238 appendix B, HMAC-SHA-1
NOW = 1_790_000_020.0


def totp(digits: int = 6, period: int = 30, window: int = 1) -> Totp:
    return Totp(TotpSettings(digits=digits, period_seconds=period, window_steps=window), ENVELOPE)


def record(*, confirmed: bool = True, last_step: int = 0) -> PersonRecord:
    sealed = ENVELOPE.seal(base64.b32encode(RFC_SECRET), "totp", "alice", "totp-1")
    return PersonRecord("alice", [Authenticator("totp-1", "totp", sealed, 0.0, confirmed, last_step)])


def code_at(seconds: float) -> str:
    """The code of a moment, worked out by hand (RFC 4226 section 5.3)."""
    import hmac

    digest = hmac.digest(RFC_SECRET, (int(seconds) // 30).to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**6:06}"


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
class TestRfc6238AppendixB:
    def test_is_accepted_at_its_time(self, seconds: int, code: str) -> None:
        person = record()
        totp(digits=8, window=0).accept(person, code, seconds)
        assert person.authenticators[0].last_step == seconds // 30

    def test_is_refused_a_step_earlier_and_later(self, seconds: int, code: str) -> None:
        for moment in (seconds - 30, seconds + 30):
            with pytest.raises(WrongAnswerError, match="wrong"):
                totp(digits=8, window=0).accept(record(), code, moment)

    def test_its_last_six_digits_are_the_six_digit_code(self, seconds: int, code: str) -> None:
        totp(window=0).accept(record(), code[-6:], seconds)
        with pytest.raises(WrongAnswerError):
            totp(digits=8, window=0).accept(record(), code[-6:], seconds)


class TestTotp:
    @pytest.mark.parametrize("shown", ["{0}", " {0} ", "{1} {2}", "{0}\n"])
    def test_spaces_do_not_matter(self, shown: str) -> None:
        code = code_at(NOW)
        totp().accept(record(), shown.format(code, code[:3], code[3:]), NOW)

    @pytest.mark.parametrize(("steps", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
    def test_one_step_on_either_side_is_accepted(self, steps: int, accepted: bool) -> None:
        person, code = record(), code_at(NOW + 30 * steps)
        if accepted:
            totp().accept(person, code, NOW)
            assert person.authenticators[0].last_step == int(NOW) // 30 + steps
            return
        with pytest.raises(WrongAnswerError) as error:
            totp().accept(person, code, NOW)
        assert error.value.code == "wrong-code"
        assert person.authenticators[0].last_step == 0

    @pytest.mark.parametrize("steps", [-1, 0])
    def test_no_code_of_a_step_that_is_not_later_than_the_last(self, steps: int) -> None:
        person = record()
        totp().accept(person, code_at(NOW), NOW)
        with pytest.raises(WrongAnswerError) as error:
            totp().accept(person, code_at(NOW + 30 * steps), NOW)
        assert error.value.code == "code-already-used"
        totp().accept(person, code_at(NOW + 30), NOW)

    def test_a_clock_that_is_turned_back_makes_no_old_code_good(self) -> None:
        person = record()
        totp().accept(person, code_at(NOW), NOW)
        with pytest.raises(WrongAnswerError) as error:
            totp().accept(person, code_at(NOW - 300), NOW - 300)
        assert error.value.code == "code-already-used"

    @pytest.mark.parametrize(
        "given", ["", " ", "12345", "1234567", "abcdef", "\uff11\uff12\uff13\uff14\uff15\uff16", "\x00", "9" * 10_000]
    )
    def test_what_is_no_code_is_wrong(self, given: str) -> None:
        with pytest.raises(WrongAnswerError) as error:
            totp().accept(record(), given, NOW)
        assert error.value.code == "wrong-code"

    def test_digits_of_another_script_are_not_digits(self) -> None:
        code = code_at(NOW).translate({ord(digit): 0x660 + int(digit) for digit in "0123456789"})
        with pytest.raises(WrongAnswerError):
            totp().accept(record(), code, NOW)

    def test_one_that_was_not_confirmed_proves_nothing(self) -> None:
        person = record(confirmed=False)
        assert not totp().available_to(person)
        with pytest.raises(WrongAnswerError) as error:
            totp().accept(person, code_at(NOW), NOW)
        assert error.value.code == "not-enrolled"

    def test_a_secret_that_was_copied_from_somebody_else_does_not_open(self) -> None:
        person = record()
        person.username = "bob"
        with pytest.raises(UnsealError):
            totp().accept(person, code_at(NOW), NOW)

    def test_every_secret_is_new(self) -> None:
        secrets = {totp().begin(record(), "totp-2", NOW)[1] for _ in range(20)}
        assert len(secrets) == 20

    def test_the_parameters_are_in_the_uri_where_they_differ_from_what_apps_assume(self) -> None:
        uri = totp(digits=8, period=60).begin(record(), "totp-2", NOW)[2]
        assert "digits=8" in uri
        assert "period=60" in uri


class TestRecoveryCodes:
    def person(self) -> tuple[PersonRecord, list[str]]:
        found = record()
        codes, found.recovery = new_codes("alice")
        return found, codes

    def test_each_is_good_once(self) -> None:
        person, codes = self.person()
        for code in codes:
            RecoveryCode().accept(person, code, NOW)
            with pytest.raises(WrongAnswerError) as error:
                RecoveryCode().accept(person, code, NOW)
            assert error.value.code == "wrong-code"
        assert person.recovery == []
        assert not RecoveryCode().available_to(person)

    @pytest.mark.parametrize("form", ["{}", " {} ", "upper", "plain"])
    def test_how_it_is_typed_does_not_matter(self, form: str) -> None:
        person, codes = self.person()
        typed = {"upper": codes[0].upper(), "plain": codes[0].replace("-", "")}.get(form, form.format(codes[0]))
        RecoveryCode().accept(person, typed, NOW)
        assert len(person.recovery) == 9

    @pytest.mark.parametrize("given", ["", "-", "aaaa-aaaa-aaaa-aaaa", "\x00"])
    def test_what_is_none_is_wrong(self, given: str) -> None:
        person, _ = self.person()
        with pytest.raises(WrongAnswerError):
            RecoveryCode().accept(person, given, NOW)
        assert len(person.recovery) == 10

    def test_somebody_elses_is_wrong_also_when_its_hash_was_copied(self) -> None:
        person, _ = self.person()
        codes, hashes = new_codes("bob")
        person.recovery += hashes
        with pytest.raises(WrongAnswerError):
            RecoveryCode().accept(person, codes[0], NOW)

    def test_only_hashes_are_kept(self) -> None:
        person, codes = self.person()
        kept = " ".join(person.recovery)
        assert not any(code in kept or code.replace("-", "") in kept for code in codes)

    def test_none_is_available_to_whoever_has_no_authenticator(self) -> None:
        person, _ = self.person()
        assert RecoveryCode().available_to(person)
        person.authenticators = []
        assert not RecoveryCode().available_to(person)


def test_all_factors_have_a_name_and_say_what_they_are_worth() -> None:
    found = available(Settings(audience="test"), ENVELOPE)
    assert {name: (one.name, one.acr, one.amr) for name, one in found.items()} == {
        "totp": ("totp", "aal2", ("otp",)),
        "recovery-code": ("recovery-code", "aal2", ("otp",)),
    }
