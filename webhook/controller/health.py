"""``/livez`` and ``/readyz`` of the controller: plain HTTP, a few lines, since nothing else is served here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from webhook.errors import ConfigurationError

READ_SECONDS: Final = 5.0


class Health:
    """Answers GET for the given paths: 200 when the check is empty, 503 with its text otherwise.

    Args:
        checks: path → what is wrong; empty when all is well.
    """

    def __init__(self, checks: Mapping[str, Callable[[], str]]) -> None:
        self._checks = checks

    async def serve(self, address: str, port: int) -> None:
        """Serve until cancelled.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        try:
            server = await asyncio.start_server(self._answer, address, port, limit=4096)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on port {port}", field="controller.healthPort") from error
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                line = await reader.readline()
                while (await reader.readline()).strip():
                    pass
                writer.write(self._response(line))
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone, or does not speak HTTP
        finally:
            writer.close()

    def _response(self, line: bytes) -> bytes:
        method, _, rest = line.decode("latin-1").partition(" ")
        check = self._checks.get(rest.split(" ", 1)[0].split("?", 1)[0]) if method in {"GET", "HEAD"} else None
        if check is None:
            status, text = "404 Not Found", "not found"
        else:
            problem = check()
            status, text = ("503 Service Unavailable", problem) if problem else ("200 OK", "ok")
        body = text.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + (b"" if method == "HEAD" else body)
