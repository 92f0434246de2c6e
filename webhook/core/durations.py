"""Durations as Kubernetes writes them: ``30s``, ``5m``, ``1h30m`` (Go's time.ParseDuration, whole seconds only)."""

from __future__ import annotations

import re

_FORM = re.compile(r"^(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?$")


def parse_seconds(text: str) -> int:
    """Seconds of a duration.

    Raises:
        ValueError: it is not a duration.
    """
    match = _FORM.match(text)
    if not match or not text:
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def format_seconds(seconds: int) -> str:
    """Shortest form of a duration: ``300`` → ``5m``, ``5400`` → ``1h30m``, ``0`` → ``0s``."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{value}{unit}" for value, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if value]
    return "".join(parts) or "0s"
