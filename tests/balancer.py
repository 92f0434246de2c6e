"""Spreads TCP connections over several servers, as a Service does: `python -m tests.balancer LISTEN BACKEND…`.

A server that refuses the connection is passed over, so that a replica that was killed costs nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024


async def balance(listen: int, backends: Sequence[int]) -> None:
    """Serve until cancelled."""
    turn = itertools.count()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(turn)
        for offset in range(len(backends)):
            try:
                other = await asyncio.open_connection(HOST, backends[(first + offset) % len(backends)])
            except OSError:
                continue
            await asyncio.gather(_copy(reader, other[1]), _copy(other[0], writer))
            return
        writer.close()

    server = await asyncio.start_server(accept, HOST, listen)
    async with server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one side is gone; the other is told below
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(balance(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
