"""The watched copy of Elevations: the newest version of each, by person, bounded by what is still of use."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from webhook.adapters.elevation_cache import (
    KEEP_EXPIRED_SECONDS,
    MAX_CANDIDATES,
    USER_HASH_HEX_DIGITS,
    ElevationCache,
    read_elevation,
    user_hash,
)

NOW = 1_790_000_000.0


def elevation(name: str = "elv-1", version: int = 1, user: str = "alice", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": str(version)},
        "spec": {"user": {"username": user, "groups": []}},
        "status": {"phase": "Granted", "assertion": f"token-of-{name}", "expiresAt": "2026-09-21T14:18:40Z", **status},
    }


@pytest.fixture
def cache() -> ElevationCache:
    return ElevationCache()


def names(cache: ElevationCache, user: str = "alice", now: float = NOW) -> list[str]:
    return [one.record.name for one in cache.of_user(user, now)]


class TestReading:
    def test_what_decisions_need(self) -> None:
        use = {"key": "k", "digest": "d", "at": "2026-09-21T14:14:00.000001Z"}
        found = read_elevation(elevation(version=7, uses=[use]))
        assert found is not None
        assert (found.record.name, found.record.username, found.record.resource_version) == ("elv-1", "alice", "7")
        assert (found.unverified_token, found.expires_at, found.record.revoked) == ("token-of-elv-1", 1790000320.0, False)  # fmt: skip
        (used,) = found.record.uses
        assert (used.key, used.digest, used.at) == ("k", "d", 1790000040.000001)

    @pytest.mark.parametrize(
        ("phase", "revoked"),
        [("Granted", False), ("Used", False), ("Expired", False), ("Revoked", True), ("Denied", True)],
    )
    def test_whether_it_was_taken_back(self, phase: str, revoked: bool) -> None:
        found = read_elevation(elevation(phase=phase))
        assert found is not None
        assert found.record.revoked is revoked

    @pytest.mark.parametrize(
        "obj",
        [
            {"metadata": {"name": "elv-1"}},
            {"metadata": {"name": "elv-1"}, "status": {"phase": "Pending"}},
            elevation(assertion=""),
            elevation(expiresAt=None),
        ],
    )
    def test_one_without_an_assertion_is_of_no_use_yet(self, obj: dict[str, Any]) -> None:
        assert read_elevation(obj) is None

    @pytest.mark.parametrize(
        "obj",
        [
            {},
            {"metadata": {}},
            elevation(expiresAt="soon"),
            elevation(uses=[{"key": "k"}]),
            elevation(uses="many"),
            elevation(assertion=1),
        ],
    )
    def test_what_is_no_elevation_is_refused(self, obj: dict[str, Any]) -> None:
        with pytest.raises(msgspec.ValidationError):
            read_elevation(obj)

    def test_the_assertion_does_not_show(self) -> None:
        assert repr(read_elevation(elevation())) == "KnownElevation(elv-1)"


class TestCache:
    def test_is_asked_by_name_and_by_person(self, cache: ElevationCache) -> None:
        cache.put(elevation("elv-1"))
        cache.put(elevation("elv-2", user="bob"))
        found = cache.find("elv-1")
        assert found is not None
        assert found.record.username == "alice"
        assert (names(cache), names(cache, "bob"), names(cache, "carol")) == (["elv-1"], ["elv-2"], [])
        assert cache.find("elv-3") is None

    def test_what_has_no_assertion_is_not_kept(self, cache: ElevationCache) -> None:
        cache.put(elevation(assertion=""))
        assert len(cache) == 0

    @pytest.mark.parametrize(("versions", "kept"), [((1, 2), "2"), ((2, 1), "2"), ((9, 10), "10"), ((10, 9), "10")])
    def test_an_older_version_never_replaces_a_newer_one(
        self, cache: ElevationCache, versions: tuple[int, int], kept: str
    ) -> None:
        for version in versions:
            cache.put(elevation(version=version))
        found = cache.find("elv-1")
        assert found is not None
        assert found.record.resource_version == kept
        assert names(cache) == ["elv-1"]

    def test_a_revocation_is_not_undone_by_an_older_read(self, cache: ElevationCache) -> None:
        cache.put(elevation(version=5, phase="Revoked"))
        cache.put(elevation(version=4))
        found = cache.find("elv-1")
        assert found is not None
        assert found.record.revoked

    def test_versions_that_are_no_numbers_are_taken_in_order(self, cache: ElevationCache) -> None:
        for version, phase in (("a", "Granted"), ("b", "Revoked")):
            obj = elevation(phase=phase)
            obj["metadata"]["resourceVersion"] = version
            cache.put(obj)
        found = cache.find("elv-1")
        assert found is not None
        assert found.record.revoked

    def test_what_is_removed_is_gone_from_both(self, cache: ElevationCache) -> None:
        cache.put(elevation("elv-1"))
        cache.put(elevation("elv-2"))
        cache.remove("elv-1")
        cache.remove("elv-1")
        assert (cache.find("elv-1"), names(cache)) == (None, ["elv-2"])
        cache.remove("elv-2")
        assert (len(cache), cache._by_user) == (0, {})

    def test_the_longest_lived_first(self, cache: ElevationCache) -> None:
        for minute in (16, 18, 17):
            cache.put(elevation(f"elv-{minute}", expiresAt=f"2026-09-21T14:{minute}:40Z"))
        assert names(cache) == ["elv-18", "elv-17", "elv-16"]

    def test_a_person_with_very_many_is_looked_at_for_the_newest_alone(self, cache: ElevationCache) -> None:
        for number in range(MAX_CANDIDATES + 20):
            cache.put(elevation(f"elv-{number}", expiresAt=f"2026-09-21T15:{number // 60:02}:{number % 60:02}Z"))
        found = names(cache)
        assert len(found) == MAX_CANDIDATES
        assert found[0] == f"elv-{MAX_CANDIDATES + 19}"

    def test_what_expired_long_ago_is_forgotten(self, cache: ElevationCache) -> None:
        cache.put(elevation("elv-1", expiresAt="2026-09-21T14:18:40Z"))
        cache.put(elevation("elv-2", expiresAt="2026-09-21T14:18:41Z"))
        expired = 1790000320.0
        assert len(names(cache, now=expired + KEEP_EXPIRED_SECONDS)) == 2
        assert names(cache, now=expired + KEEP_EXPIRED_SECONDS + 0.5) == ["elv-2"]
        assert len(cache) == 1
        assert names(cache, now=expired + 2 * KEEP_EXPIRED_SECONDS) == []
        assert cache._by_user == {}


@pytest.mark.parametrize("username", ["", "alice", "system:serviceaccount:a:b", "ü" * 2000])
def test_every_username_has_a_label_value(username: str) -> None:
    assert len(user_hash(username)) == USER_HASH_HEX_DIGITS < 63
    assert user_hash(username) != user_hash(username + " ")
