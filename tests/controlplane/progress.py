"""Says on stderr what takes long, and how long it has taken so far."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK_SECONDS = 10.0  # often enough to see that it lives, seldom enough for a CI log


def say(message: str) -> None:
    """Write one line to stderr at once."""
    print(f"[programs] {message}", file=sys.stderr, flush=True)


def elapsed(seconds: float) -> str:
    """Minutes and seconds, as in `1m05s`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


@contextmanager
def progress(what: str, detail: Callable[[], str] = str) -> Iterator[None]:
    """Announce `what`, repeat it with the elapsed time and `detail()` while the body runs, and say how it ended."""
    started = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(TICK_SECONDS):
            say(f"{what} … {elapsed(time.monotonic() - started)} {detail()}".rstrip())

    say(f"{what} …")
    ticker = threading.Thread(target=tick, daemon=True, name="progress")
    ticker.start()
    outcome = "stopped"
    try:
        yield
        outcome = "done"
    finally:
        done.set()
        ticker.join()
        say(f"{what}: {outcome} after {elapsed(time.monotonic() - started)}")
