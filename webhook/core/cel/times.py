"""Timestamps and durations: reading, writing and taking apart.

RFC 3339, and Go's way of writing durations; https://github.com/google/cel-spec/blob/master/doc/langdef.md#timestamps
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from webhook.core.cel.values import (
    NANOS,
    CelError,
    Duration,
    Function,
    Timestamp,
    checked_int,
    no_conversion,
    no_overload,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MIN_TIMESTAMP: Final = -62135596800 * NANOS
MAX_TIMESTAMP: Final = 253402300800 * NANOS - 1
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 10**6,
    "s": NANOS,
    "m": 60 * NANOS,
    "h": 3600 * NANOS,
}
_DURATION_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_TIMESTAMP: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_OFFSET: Final = re.compile(r"([+-]?)(\d\d):(\d\d)")


def to_timestamp(value: Any) -> Timestamp:
    """``timestamp(value)``: RFC 3339, or seconds since the epoch."""
    if type(value) is Timestamp:
        return value
    if type(value) is int:
        return checked_timestamp(value * NANOS)
    match = _TIMESTAMP.fullmatch(value) if type(value) is str and len(value) <= 64 else None
    if match is None:
        raise no_conversion(value, "timestamp")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    sign, hours, minutes = match.group(8, 9, 10)
    offset = 60 * int(hours or 0) + int(minutes or 0)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise no_conversion(value, "timestamp") from error
    seconds = int((moment - EPOCH).total_seconds()) - 60 * (-offset if sign == "-" else offset)
    return checked_timestamp(seconds * NANOS + int(((match.group(7) or "") + "0" * 9)[:9]))


def to_duration(value: Any) -> Duration:
    """``duration(value)``: as Go writes it, ``1h30m``."""
    if type(value) is Duration:
        return value
    if type(value) is int:
        return Duration(value)
    if type(value) is not str or len(value) > 64:
        raise no_conversion(value, "duration")
    text = value[1:] if value[:1] in {"+", "-"} else value
    if text == "0":
        return Duration(0)
    position, nanos = 0, 0
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        if match is None:
            raise no_conversion(value, "duration")
        whole, _, fraction = match.group(1).partition(".")
        unit = _UNITS[match.group(2)]
        nanos += int(whole or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        position = match.end()
    if not text:
        raise no_conversion(value, "duration")
    return Duration(checked_int(-nanos if value.startswith("-") else nanos))


def rfc3339(value: Timestamp) -> str:
    """A timestamp as text."""
    seconds, nanos = divmod(value.nanos, NANOS)
    moment = EPOCH + timedelta(seconds=seconds)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{moment.year:04d}{moment.strftime('-%m-%dT%H:%M:%S')}{fraction}Z"


def checked_timestamp(nanos: int) -> Timestamp:
    """A timestamp, if it is in the years 1 to 9999."""
    if not MIN_TIMESTAMP <= nanos <= MAX_TIMESTAMP:
        raise CelError("timestamp overflow")
    return Timestamp(nanos)


def _zone(name: str) -> tzinfo:
    match = _OFFSET.fullmatch(name)
    if match is not None:
        minutes = 60 * int(match.group(2)) + int(match.group(3))
        return timezone(timedelta(minutes=-minutes if match.group(1) == "-" else minutes))
    try:
        return ZoneInfo(name) if name else UTC
    except (OSError, ValueError) as error:
        raise CelError(f"unknown time zone {name!r}") from error


def _part(function: str, of_time: Any, of_duration: Any) -> Function:
    def read(value: Any, zone: Any = "UTC") -> int:
        if type(value) is Duration and of_duration is not None and zone == "UTC":
            nanos: int = of_duration(value.nanos)
            return nanos
        if type(value) is not Timestamp or type(zone) is not str:
            raise no_overload(function, value)
        seconds, nanos = divmod(value.nanos, NANOS)
        try:
            moment = (EPOCH + timedelta(seconds=seconds)).astimezone(_zone(zone))
        except (OverflowError, ValueError) as error:
            raise CelError("timestamp overflow") from error
        part: int = of_time(moment, nanos)
        return part

    return read


def _cut(unit: int) -> Any:
    return lambda nanos: abs(nanos) // unit * (1 if nanos >= 0 else -1)


TIME_PARTS: Final[Mapping[str, Function]] = {
    name: _part(name, of_time, of_duration)
    for name, of_time, of_duration in (
        ("getFullYear", lambda moment, _: moment.year, None),
        ("getMonth", lambda moment, _: moment.month - 1, None),
        ("getDayOfYear", lambda moment, _: moment.timetuple().tm_yday - 1, None),
        ("getDayOfMonth", lambda moment, _: moment.day - 1, None),
        ("getDate", lambda moment, _: moment.day, None),
        ("getDayOfWeek", lambda moment, _: moment.isoweekday() % 7, None),
        ("getHours", lambda moment, _: moment.hour, _cut(3600 * NANOS)),
        ("getMinutes", lambda moment, _: moment.minute, _cut(60 * NANOS)),
        ("getSeconds", lambda moment, _: moment.second, _cut(NANOS)),
        ("getMilliseconds", lambda _, nanos: nanos // 1_000_000, _cut(1_000_000)),
    )
}
