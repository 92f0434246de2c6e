"""Plain HTTP in a few lines: ``/livez`` and ``/readyz`` of the controller, ``/metrics`` of every server."""

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
        pages: path → a text that is always answered with 200.
        field: the setting that the port comes from, for the error.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], str]],
        pages: Mapping[str, Callable[[], str]] | None = None,
        *,
        field: str = "controller.healthPort",
    ) -> None:
        self._checks = checks
        self._pages = pages or {}
        self._field = field

    async def serve(self, address: str, port: int) -> None:
        """Serve until cancelled.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        try:
            server = await asyncio.start_server(self._answer, address, port, limit=4096)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on port {port}", field=self._field) from error
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
        status, text = self._found(rest.split(" ", 1)[0].split("?", 1)[0] if method in {"GET", "HEAD"} else "")
        body = text.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + (b"" if method == "HEAD" else body)

    def _found(self, path: str) -> tuple[str, str]:
        if path in self._pages:
            return "200 OK", self._pages[path]()
        check = self._checks.get(path)
        if check is None:
            return "404 Not Found", "not found"
        problem = check()
        return ("503 Service Unavailable", problem) if problem else ("200 OK", "ok")
