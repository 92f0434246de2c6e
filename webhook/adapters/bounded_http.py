"""HTTP/1.1 of uvicorn with bounds on what somebody may send before anybody knows who they are.

uvicorn's httptools protocol has no limit for the head of a request, nor a time in which it must arrive: whoever reaches
the port could fill the memory with headers, or hold connections with a byte a minute. Bounds are class attributes, since
uvicorn makes an object for each connection from the class alone.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KIB: Final = 1024
_TEXT: Final = b"the head of the request is too large\n"
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. A head that is too large is answered with 431 (RFC 6585 section 5), one that is too slow not at all.

    Attributes:
        max_head_bytes: request line and headers together; kube-apiserver sends a review with some 300 bytes of them.
        max_headers: their number, since each costs more memory than it has bytes.
        silent_seconds: in which the first byte must arrive on a new connection. Go's clients keep a spare connection for
            90 s and then send a request on it: one that we had just closed would fail, and fail closed.
        head_seconds: in which a head must have arrived, from its first byte.
        body_seconds: in which the body must have arrived, from the end of the head.
        max_pipelined: requests that wait for the answer to the one before; the API server never sends any.
        waiting_since: when we began to wait for the other side (the loop's time); None while it waits for us.
    """

    max_head_bytes: ClassVar[int] = 64 * KIB
    max_headers: ClassVar[int] = 256
    silent_seconds: ClassVar[float] = 100.0
    head_seconds: ClassVar[float] = 10.0
    body_seconds: ClassVar[float] = 30.0
    max_pipelined: ClassVar[int] = 8

    waiting_since: float | None = None
    _head_bytes = 0
    _in_head = True
    _begun = False
    _silent = True
    _too_large = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a head: a connection that says nothing is not kept for ever."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.waiting_since = self.loop.time()
        self._expect_within(self.silent_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand on what arrives, of a head no more than it may have."""
        if self._silent:
            self._silent = False
            self._expect_nothing()
        rest = data
        while rest and not self.transport.is_closing():
            if not self._in_head:
                # A head that begins in these bytes counts from the next: it may be longer by what is read at once, 256 KiB.
                super().data_received(rest)
                break
            room = self.max_head_bytes - self._head_bytes
            if room <= 0:
                self._refuse()
                return
            part, rest = rest[:room], rest[room:]
            self._head_bytes += len(part)
            super().data_received(part)
        # Only for what is still under way now: a request that came in one piece costs no timer.
        if self._deadline is None and not self.transport.is_closing():
            if not self._in_head:
                self._expect_within(self.body_seconds)
            elif self._begun or self._head_bytes:
                self._expect_within(self.head_seconds)

    def on_message_begin(self) -> None:
        """A head begins.

        Raises:
            ValueError: too many wait already; the parser stops, and the connection is closed.
        """
        self.waiting_since = self.loop.time()
        if len(self.pipeline) >= self.max_pipelined:
            raise ValueError("too many pipelined requests")
        self._begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header.

        Raises:
            ValueError: one too many; the parser stops, and the connection is closed.
        """
        if len(self.headers) >= self.max_headers:
            self._too_large = True
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: the body is next."""
        self._in_head = False
        self._expect_nothing()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole: what comes next is another head."""
        self._in_head = True
        self._begun = False
        self._head_bytes = 0
        self.waiting_since = None
        self._expect_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Answered: uvicorn closes the connection when it stays idle."""
        super().on_response_complete()
        if not self.pipeline:
            self.waiting_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser did not take."""
        if self._too_large:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _refuse(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _expect_within(self, seconds: float) -> None:
        self._expect_nothing()
        self._deadline = self.loop.call_later(seconds, self._give_up)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        transport: Any = self.transport
        transport.abort()
