"""Which paths the hot path accepts, while the secret in them changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from webhook.admission.path_secrets import PathSecrets
from webhook.errors import ConfigurationError

FIRST, SECOND, THIRD = "a" * 32, "b" * 32, "c" * 32


def test_the_one_in_force_the_announced_one_and_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "path").write_text(FIRST)
    secrets = PathSecrets(str(tmp_path / "path"))
    assert secrets.accept(f"/{FIRST}")
    assert not any(secrets.accept(suffix) for suffix in ("", "/", FIRST, f"/{SECOND}", f"/{FIRST}/", f"/{FIRST[:-1]}"))
    (tmp_path / "next").write_text(SECOND + "\n")
    (tmp_path / "previous").write_text(THIRD)
    secrets.refresh()
    assert all(secrets.accept(f"/{one}") for one in (FIRST, SECOND, THIRD))
    (tmp_path / "previous").unlink()
    secrets.refresh()
    assert not secrets.accept(f"/{THIRD}")


def test_what_cannot_be_read_again_leaves_things_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "path").write_text(FIRST)
    secrets = PathSecrets(str(tmp_path / "path"))
    (tmp_path / "path").unlink()
    secrets.refresh()
    assert secrets.accept(f"/{FIRST}")


def test_without_a_file_the_path_is_bare() -> None:
    assert PathSecrets("").accept("")
    assert not PathSecrets("").accept("/x")


@pytest.mark.parametrize("content", ["", "short", "a/" * 20, "é" * 20])
def test_a_secret_that_is_none_is_refused_at_the_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "path").write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        PathSecrets(str(tmp_path / "path"))
    assert caught.value.field == "admission.pathSecretFile"


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "path").write_text(FIRST)
    assert FIRST not in repr(PathSecrets(str(tmp_path / "path")))
