"""What somebody may send before anybody knows who they are: tried on the real server, over TLS, on Unix sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fakes.front_proxy import Authority
from tests.fakes.kube import until
from webhook.adapters.bounded_http import KIB, BoundedHttpProtocol
from webhook.adapters.listening import BoundedServer
from webhook.elevation.server import PeerCertificateProtocol
from webhook.errors import ConfigurationError

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 431 "
SOON_SECONDS = 0.05
PATIENCE_SECONDS = 20


class Impatient(BoundedHttpProtocol):
    """With times that a test can wait for."""

    silent_seconds = SOON_SECONDS
    head_seconds = SOON_SECONDS
    body_seconds = SOON_SECONDS


class Client:
    """The other side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> bytes:
        """The head of one answer, whose body is `ok` unless it is refused."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                assert await self.reader.readexactly(2) == b"ok"
            return head

    async def end(self) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def closed(self) -> bool:
        """Wait until the server has closed it; what was still in the way does not matter."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while await self.reader.read(65536):
                    pass
            except (ConnectionError, ssl.SSLError):
                pass
            return True


class Running:
    """A server, and how to reach it."""

    def __init__(self, server: BoundedServer, path: str, context: ssl.SSLContext, stack: AsyncExitStack) -> None:
        self.server = server
        self.path = path
        self._context = context
        self._stack = stack

    async def connect(self, *, tls: bool = True) -> Client:
        options: dict[str, Any] = {"ssl": self._context, "server_hostname": "elevation"} if tls else {}
        reader, writer = await asyncio.open_unix_connection(self.path, **options)
        client = Client(reader, writer)
        self._stack.push_async_callback(client.end)
        return client

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


Serve = Callable[..., Awaitable[Running]]


@asynccontextmanager
async def running(folder: Path, authority: Authority, protocol: type[Any], **options: Any) -> AsyncIterator[Running]:
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "tls.crt").write_text(authority.serving(key))
    config = uvicorn.Config(
        _app,
        http=protocol,
        ws="none",
        ssl_certfile=str(folder / "tls.crt"),
        ssl_keyfile=str(folder / "tls.key"),
        timeout_keep_alive=options.pop("keep_alive", 120),
        timeout_graceful_shutdown=1,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "s"))
    server = BoundedServer(config, **{"max_connections": 100, **options})
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listening])
    context = ssl.create_default_context(cadata=authority.pem)
    context.check_hostname = False
    async with AsyncExitStack() as stack:
        yield Running(server, str(folder / "s"), context, stack)
    await server.shutdown()


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Reads all of a body, as the servers do, and says ok; `/wait` answers once it is told to."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/wait":
        await scope["state"]["go"].wait()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def serve(tmp_path: Path, authority: Authority) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(protocol: type[Any] = BoundedHttpProtocol, **options: Any) -> Running:
            return await stack.enter_async_context(running(tmp_path, authority, protocol, **options))

        yield start


def head(size: int, path: bytes = b"/") -> bytes:
    """A head of so many bytes."""
    start, end = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nX-Long: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(("protocol", "limit"), [(BoundedHttpProtocol, 64 * KIB), (PeerCertificateProtocol, 256 * KIB)])
class TestSizeOfTheHead:
    async def test_up_to_the_limit_it_is_served(self, serve: Serve, protocol: type[Any], limit: int) -> None:
        client = await (await serve(protocol)).connect()
        await client.send(head(limit))
        assert (await client.answer()).startswith(b"HTTP/1.1 200")

    async def test_one_byte_more_is_refused_and_the_connection_closed(
        self, serve: Serve, protocol: type[Any], limit: int
    ) -> None:
        client = await (await serve(protocol)).connect()
        await client.send(head(limit + 1))
        assert (await client.answer()).startswith(TOO_LARGE)
        assert await client.closed()

    @pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX-Long: ", b"GET /", b"\r\n"])
    async def test_without_end_it_is_not_kept(
        self, serve: Serve, protocol: type[Any], limit: int, start: bytes
    ) -> None:
        client = await (await serve(protocol)).connect()
        await client.send(start)
        more = asyncio.create_task(client.send((b"\r\n" if start == b"\r\n" else b"aa") * (5 * 1024 * KIB)))
        assert (await client.answer()).startswith(TOO_LARGE)
        assert await client.closed()
        await asyncio.gather(more, return_exceptions=True)

    async def test_also_of_the_second_request_of_a_connection(
        self, serve: Serve, protocol: type[Any], limit: int
    ) -> None:
        client = await (await serve(protocol)).connect()
        for _ in range(3):
            await client.send(head(limit))
            assert (await client.answer()).startswith(b"HTTP/1.1 200")
        await client.send(head(limit + 1))
        assert (await client.answer()).startswith(TOO_LARGE)

    async def test_the_body_does_not_count(self, serve: Serve, protocol: type[Any], limit: int) -> None:
        client = await (await serve(protocol)).connect()
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (3 * limit)
        for _ in range(2):
            await client.send(post + b"b" * (3 * limit))
            assert (await client.answer()).startswith(b"HTTP/1.1 200")

    async def test_too_many_headers_are_refused(self, serve: Serve, protocol: type[Any], limit: int) -> None:
        client = await (await serve(protocol)).connect()
        await client.send(b"GET / HTTP/1.1\r\n" + b"A:\r\n" * (protocol.max_headers + 1) + b"\r\n")
        assert (await client.answer()).startswith(TOO_LARGE)
        assert await client.closed()


class TestTimes:
    async def test_a_connection_that_says_nothing_is_closed(self, serve: Serve) -> None:
        assert await (await (await serve(Impatient)).connect()).closed()

    async def test_so_is_one_whose_head_does_not_end(self, serve: Serve) -> None:
        client = await (await serve(Impatient)).connect()
        await client.send(GET[:-2])
        assert await client.closed()

    async def test_a_byte_now_and_then_does_not_keep_it_open(self, serve: Serve) -> None:
        client = await (await serve(Impatient)).connect()
        gone = asyncio.create_task(client.closed())
        for _ in range(2000):
            client.writer.write(b"A")
            await asyncio.sleep(SOON_SECONDS / 10)
            if gone.done():
                break
        assert gone.done()

    async def test_so_is_one_that_begins_a_second_head_and_leaves_it(self, serve: Serve) -> None:
        client = await (await serve(Impatient)).connect()
        await client.send(GET)
        await client.answer()
        await client.send(b"G")
        assert await client.closed()

    async def test_also_when_it_began_with_the_bytes_of_the_first(self, serve: Serve) -> None:
        client = await (await serve(Impatient)).connect()
        await client.send(GET + b"GET /")
        await client.answer()
        assert await client.closed()

    async def test_so_is_one_whose_body_does_not_end(self, serve: Serve) -> None:
        client = await (await serve(Impatient)).connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1234")
        assert await client.closed()

    async def test_an_idle_connection_is_kept_as_long_as_it_is_set(self, serve: Serve) -> None:
        client = await (await serve(Impatient)).connect()
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer()).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(4 * SOON_SECONDS)

    async def test_whoever_waits_for_our_answer_is_not_hurried(self, serve: Serve) -> None:
        server = await serve(Impatient)
        go = server.server.lifespan.state["go"] = asyncio.Event()
        client = await server.connect()
        await client.send(GET.replace(b" / ", b" /wait "))
        await asyncio.sleep(4 * SOON_SECONDS)
        go.set()
        assert (await client.answer()).startswith(b"HTTP/1.1 200")

    async def test_a_handshake_that_does_not_come_is_given_up(self, serve: Serve) -> None:
        assert await (await (await serve(handshake_seconds=SOON_SECONDS)).connect(tls=False)).closed()

    def test_in_earnest_they_are_these(self) -> None:
        assert (BoundedHttpProtocol.head_seconds, BoundedHttpProtocol.body_seconds) == (10, 30)

    def test_a_spare_connection_is_kept_longer_than_the_api_server_keeps_it(self) -> None:
        assert BoundedHttpProtocol.silent_seconds > 90


async def test_pipelined_requests_are_few(serve: Serve) -> None:
    server = await serve()
    server.server.lifespan.state["go"] = asyncio.Event()
    client = await server.connect()
    await client.send(GET.replace(b" / ", b" /wait ") * 50)
    assert (await client.answer()).startswith(b"HTTP/1.1 400")
    assert await client.closed()


async def test_what_is_no_http_is_refused(serve: Serve) -> None:
    client = await (await serve()).connect()
    await client.send(b"\x00\x01\x02\r\n\r\n")
    assert (await client.answer()).startswith(b"HTTP/1.1 400")
    assert await client.closed()


class TestNumber:
    async def test_beyond_the_limit_the_longest_idle_gives_way(self, serve: Serve) -> None:
        server = await serve(max_connections=4)
        clients = []
        for _ in range(4):
            clients.append(await server.connect())
            await clients[-1].send(GET)
            await clients[-1].answer()
        await clients[0].send(GET)  # the second is now the one of least use
        await clients[0].answer()
        fifth = await server.connect()
        await fifth.send(GET)
        assert (await fifth.answer()).startswith(b"HTTP/1.1 200")
        assert await clients[1].closed()
        await clients[0].send(GET)
        assert (await clients[0].answer()).startswith(b"HTTP/1.1 200")
        assert server.connections <= 4

    async def test_heads_that_do_not_end_give_way_too(self, serve: Serve) -> None:
        server = await serve(max_connections=4)
        slow = [await server.connect() for _ in range(4)]
        for one in slow:
            await one.send(b"GET")
        client = await server.connect()
        await client.send(GET)
        assert (await client.answer()).startswith(b"HTTP/1.1 200")

    async def test_handshakes_that_do_not_come_keep_nobody_out(self, serve: Serve) -> None:
        server = await serve(max_connections=4)
        silent = [await server.connect(tls=False) for _ in range(12)]
        client = await server.connect()
        await client.send(GET)
        assert (await client.answer()).startswith(b"HTTP/1.1 200")
        assert await silent[0].closed()

    async def test_whoever_waits_for_our_answer_does_not_give_way(self, serve: Serve) -> None:
        server = await serve(max_connections=2)
        go = server.server.lifespan.state["go"] = asyncio.Event()
        busy = [await server.connect() for _ in range(2)]
        for one in busy:
            await one.send(GET.replace(b" / ", b" /wait "))
        await until(lambda: len(server.server.server_state.tasks) == 2)
        with pytest.raises((OSError, ssl.SSLError)):
            await server.connect()
        go.set()
        for one in busy:
            assert (await one.answer()).startswith(b"HTTP/1.1 200")


async def test_a_port_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: Any, **__: Any) -> socket.socket:
        raise OSError("address in use")

    monkeypatch.setattr(socket, "create_server", taken)
    config = uvicorn.Config(_app, http=BoundedHttpProtocol, port=8443, lifespan="off", log_config=None)
    config.load()
    server = BoundedServer(config, max_connections=1)
    server.lifespan = config.lifespan_class(config)
    with pytest.raises(ConfigurationError) as error:
        await server.startup()
    assert error.value.field == "port"
