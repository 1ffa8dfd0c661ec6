"""The shape of browsers' ``WebSocketStream``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..frames import CloseCode
from ..typing import Data, DataLike, Subprotocol
from .client import ClientConnection, connect

__all__ = ["CloseInfo", "OpenInfo", "WebSocketStream", "Writable"]


@dataclass(frozen=True, slots=True)
class OpenInfo:
    """What ``opened`` gives.

    Attributes:
        readable: The messages; iterating ends when the connection is closed.
        writable: Takes messages.
        extensions: Extensions in use, as in the response's header.
        protocol: Subprotocol, or an empty string.
    """

    readable: AsyncIterator[Data]
    writable: Writable
    extensions: str
    protocol: str


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """What ``closed`` gives.

    Attributes:
        close_code: Close code of the peer.
        reason: Its reason.
    """

    close_code: int
    reason: str


class Writable:
    """Takes messages.

    Args:
        ws: The connection.
    """

    __slots__ = ("_ws",)

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws

    async def write(self, chunk: DataLike) -> None:
        """Send a message; waits while the peer does not read.

        Raises:
            ConnectionClosed: When the connection is closed.
        """
        await self._ws.send(chunk)

    async def close(self) -> None:
        """Close the connection after what was written."""
        await self._ws.close()

    async def abort(self) -> None:
        """Close the connection because of an error of the program."""
        await self._ws.close(CloseCode.INTERNAL_ERROR)


class WebSocketStream:
    """A client whose messages are streams with back-pressure.

    ::

        stream = WebSocketStream("wss://example.com/feed")
        opened = await stream.opened
        async for message in opened.readable:
            await opened.writable.write(message)
        print((await stream.closed).close_code)

    The names follow the WebSocketStream proposal for browsers, written as in Python.

    Args:
        url: URI of the server.
        protocols: Subprotocols to offer.
        **kwargs: As for :func:`~websock.connect`.
    """

    def __init__(
        self, url: str, *, protocols: Sequence[str] = (), **kwargs: Any
    ) -> None:
        self.url = url
        offered = [Subprotocol(name) for name in protocols]
        self._connecting = connect(url, subprotocols=offered or None, **kwargs)
        self._opening = asyncio.ensure_future(self._open())
        self.closed: asyncio.Task[CloseInfo] = asyncio.ensure_future(self._wait())
        """Waits for the end; raises what ``opened`` raises, or the error that ended
        the connection without a closing handshake."""
        self.closed.add_done_callback(_retrieve)
        self._opening.add_done_callback(_retrieve)

    @property
    def opened(self) -> asyncio.Future[OpenInfo]:
        """Waits until the connection is open.

        Raises:
            OSError: When the network connection fails.
            InvalidHandshake: When the opening handshake fails.
        """
        return self._opening

    async def _open(self) -> OpenInfo:
        ws = self._ws = await self._connecting
        assert ws.response is not None
        return OpenInfo(
            ws.__aiter__(),
            Writable(ws),
            ", ".join(ws.response.headers.get_all("Sec-WebSocket-Extensions")),
            ws.subprotocol or "",
        )

    async def _wait(self) -> CloseInfo:
        await asyncio.shield(self._opening)
        ws = self._ws
        await ws.wait_closed()
        exc = ws.closed_error()
        if exc.rcvd is None:
            raise exc
        return CloseInfo(exc.rcvd.code, exc.rcvd.reason)

    async def close(self, *, close_code: int = 1000, reason: str = "") -> None:
        """Close the connection, or give up connecting.

        Args:
            close_code: 1000, or one from 3000 to 4999.
            reason: At most 123 bytes in UTF-8.

        Raises:
            ValueError: When the code or the reason cannot be sent.
        """
        if close_code != 1000 and not 3000 <= close_code <= 4999:
            raise ValueError(
                f"close_code must be 1000 or from 3000 to 4999, not {close_code}"
            )
        if not self._opening.done():
            self._opening.cancel()
            return
        if self._opening.cancelled() or self._opening.exception() is not None:
            return
        await self._ws.close(close_code, reason)

    async def __aenter__(self) -> Self:
        await self.opened
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.close()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Say nothing of an error that nobody asks for."""
    if not future.cancelled():
        future.exception()
