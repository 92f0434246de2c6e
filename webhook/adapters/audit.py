"""Audit and log lines: one JSON object a line on standard output, by structlog.

Audit lines have ``"log": "audit"``. A field whose name could hold a secret is dropped before anything is written, so
that a mistake elsewhere does not end in a log.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

SECRET_FIELDS: Final = frozenset(
    {
        "assertion",
        "authorization",
        "code_given",
        "password",
        "private_key",
        "provisioning_uri",
        "secret",
        "ticket",
        "token",
    }
)
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str = "info") -> None:
    """Send structlog's and the standard library's lines to standard output as JSON.

    Args:
        level: debug, info, warning or error; audit lines are always written.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _stamp,
            _drop_secrets,
            structlog.processors.JSONRenderer(serializer=_serialize),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JSONFormatter())
    logging.basicConfig(handlers=[handler], level=LEVELS[level], force=True)


def audit(event: str, **fields: Any) -> None:
    """Write one audit line.

    Args:
        event: stable kebab-case name, such as ``decision`` or ``elevation-granted``.
        fields: JSON values; never a code, a secret or an assertion.
    """
    structlog.get_logger("audit").critical(event, log="audit", **fields)


def _stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["time"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if event.get("log") == "audit":
        event["level"] = "audit"
    return event


def _drop_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field in SECRET_FIELDS.intersection(event):
        event[field] = "[redacted]"
    return event


def _serialize(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        fields["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        return _serialize(fields)
