"""Accepts connections, bounded in number and each TLS handshake in time, before anybody has said who they are.

uvicorn's own listener has neither bound: its limit counts connections after their handshake, for which asyncio gives a
minute to each. Where there is no room left, the one that has been of no use for the longest gives way to the new one, so
that holding connections open, or sending slowly, keeps nobody out.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, cast

import structlog
import uvicorn

from webhook.adapters.bounded_http import BoundedHttpProtocol
from webhook.errors import ConfigurationError

HANDSHAKE_SECONDS: Final = 10.0
SHUTDOWN_SECONDS: Final = 5.0  # in which the other side may say goodbye
FULL_SECONDS: Final = 0.1  # pause when the process can open no more files

log = structlog.get_logger("listening")


class BoundedServer(uvicorn.Server):
    """uvicorn with a listener of ours.

    Args:
        max_connections: those in their handshake count.
        handshake_seconds: in which a TLS handshake must be done.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        max_connections: int,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        super().__init__(config)
        self._max_connections = max_connections
        self._handshake_seconds = handshake_seconds
        self._connecting: dict[
            Any, asyncio.Task[None]
        ] = {}  # by protocol, oldest first; also those that are just connected

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen, on the sockets given or on the address of the configuration.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        await super().startup(sockets=[])  # everything but listening
        for one in sockets or [await self._bind()]:
            one.setblocking(False)
            one.listen(self.config.backlog)
            self.servers.append(cast("asyncio.base_events.Server", _Listener(one, self._accept(one))))
            log.info("listening", address=str(one.getsockname()))

    async def _bind(self) -> socket.socket:
        host, port = self.config.host, self.config.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=self.config.backlog)
        except OSError as error:
            await self.lifespan.shutdown()
            raise ConfigurationError(f"cannot listen on {host} port {port}", field="port") from error

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                await self._accept_one(listening)
            except Exception:
                # No files left, most likely. Whatever it is, a server that listens no more is the worst of all.
                log.exception("not-accepted")
                self._make_room()
                await asyncio.sleep(FULL_SECONDS)
            await asyncio.sleep(0)  # or a flood of connections would keep the loop from anything else

    async def _accept_one(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        accepted, _ = await loop.sock_accept(listening)
        if self._full and not self._make_room():
            accepted.close()
            return
        protocol = self._protocol()
        self._connecting[protocol] = loop.create_task(self._connect(accepted, protocol))

    @property
    def _handshakes(self) -> list[Any]:
        return [one for one in self._connecting if one not in self.server_state.connections]

    @property
    def _full(self) -> bool:
        return len(self._handshakes) + len(self.server_state.connections) >= self._max_connections

    def _make_room(self) -> bool:
        """Close the handshake that is the oldest, where those are the most; else whoever lets us wait for the longest."""
        handshakes = self._handshakes
        waiting = [
            one
            for one in self.server_state.connections
            if isinstance(one, BoundedHttpProtocol) and one.waiting_since is not None and not one.transport.is_closing()
        ]
        if handshakes and (len(handshakes) > self._max_connections // 2 or not waiting):
            self._connecting.pop(handshakes[0]).cancel()
        elif waiting:
            min(waiting, key=lambda one: one.waiting_since or 0.0).transport.abort()
        else:
            log.warning("connections-busy", connections=len(self.server_state.connections))
            return False
        return True

    async def _connect(self, accepted: socket.socket, protocol: Any) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=self.config.ssl,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:
            accepted.close()  # no TLS, too slow, or gone: whoever it was, nobody
        except asyncio.CancelledError:
            accepted.close()
            raise
        finally:
            self._connecting.pop(protocol, None)

    def _protocol(self) -> Any:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


class _Listener:
    """What uvicorn closes when it ends."""

    def __init__(self, listening: socket.socket, accepting: Any) -> None:
        self._listening = listening
        self._task = asyncio.get_running_loop().create_task(accepting)

    def close(self) -> None:
        """Accept no more."""
        self._task.cancel()
        self._listening.close()

    async def wait_closed(self) -> None:
        """Return once none is accepted any more."""
        await asyncio.gather(self._task, return_exceptions=True)
