"""Standard input that can be given to a command twice.

A terminal is passed as it is. A file is wound back. A pipe is read once, kept and played again, and goes on live where it
had got to. It is kept in memory, then in a private file that has no name, so that nothing is left of it however we end, and only
up to a bound: what is longer passes through once.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from typing import IO, Final

MEMORY_BYTES: Final = 1024 * 1024
MOST_BYTES: Final = 64 * 1024 * 1024  # some twenty times what the API server takes in one request
CHUNK_BYTES: Final = 64 * 1024


class Input:
    """Our standard input, for one command after another.

    Args:
        most: bytes of a pipe that are kept at most.
    """

    def __init__(self, descriptor: int = 0, *, most: int = MOST_BYTES) -> None:
        self._descriptor = descriptor
        self._most = most
        self.can_be_replayed = True
        self._kept: IO[bytes] | None = None
        self._start: int | None = None
        self._lock = threading.Lock()
        self._feeders: list[tuple[threading.Thread, int]] = []
        self._ended = False
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            return  # closed: the command finds it closed, too
        if stat.S_ISREG(mode):
            self._start = os.lseek(descriptor, 0, os.SEEK_CUR)
        elif stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            self._kept = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - lives as long as we do

    @property
    def is_kept(self) -> bool:
        """Whether the command gets a pipe from us, rather than our own standard input."""
        return self._kept is not None

    def open(self) -> int | None:
        """A descriptor for the next command to read from; None when it takes ours. The caller closes it."""
        if self._kept is None:
            return None
        read_end, write_end = os.pipe()
        stop_read, stop_write = os.pipe()
        feeder = threading.Thread(target=self._feed, args=(write_end, stop_read), daemon=True)
        feeder.start()
        self._feeders.append((feeder, stop_write))
        return read_end

    def rewind(self) -> None:
        """Make ready for the next command."""
        self._stop_feeding()
        if self._start is not None:
            os.lseek(self._descriptor, self._start, os.SEEK_SET)

    def close(self) -> None:
        """Forget what was kept."""
        self._stop_feeding()
        if self._kept is not None:
            self._kept.close()

    def _stop_feeding(self) -> None:
        for feeder, stop in self._feeders:
            os.close(stop)
            feeder.join()
        self._feeders.clear()

    def _feed(self, write_end: int, stop: int) -> None:
        try:
            self._replay(write_end)
            self._go_on(write_end, stop)
        except OSError:
            pass  # the command reads no more
        finally:
            os.close(write_end)
            os.close(stop)

    def _replay(self, write_end: int) -> None:
        position = 0
        while True:
            chunk = self._kept_from(position)
            if not chunk:
                return
            _write_all(write_end, chunk)
            position += len(chunk)

    def _go_on(self, write_end: int, stop: int) -> None:
        import select

        while not self._ended:
            ready, _, _ = select.select([self._descriptor, stop], [], [])
            if stop in ready:
                return
            chunk = os.read(self._descriptor, CHUNK_BYTES)
            if not chunk:
                self._ended = True
                return
            self._keep(chunk)
            _write_all(write_end, chunk)

    def _keep(self, chunk: bytes) -> None:
        with self._lock:
            if self._kept is None or not self.can_be_replayed:
                return
            try:
                self.can_be_replayed = self._kept.seek(0, os.SEEK_END) + len(chunk) <= self._most
                if self.can_be_replayed:
                    self._kept.write(chunk)
            except OSError:
                self.can_be_replayed = False  # no room for it; the command gets it all the same
            if not self.can_be_replayed:
                self._kept.close()

    def _kept_from(self, position: int) -> bytes:
        with self._lock:
            if self._kept is None:
                return b""
            self._kept.seek(position)
            return self._kept.read(CHUNK_BYTES)


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
