"""A client that survives: it reconnects, and tells what was lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal, Self

from ..client import backoff
from ..client import process_exception as is_fatal
from ..exceptions import ConnectionClosed, ConnectionClosedOK, InvalidState
from ..typing import Data, DataLike, LoggerLike
from .client import ClientConnection, connect

__all__ = ["Resilient", "resilient"]

# Seconds that a connection must last for the delays to begin anew.
STABLE_AFTER = 10.0

# Messages whose confirmation is awaited, if max_buffer is not more.
MIN_UNCONFIRMED = 1000

# Messages that wait for recv(), beside those in the queue of the connection.
QUEUE_SIZE = 16

logger = logging.getLogger("websock.client")


class Resilient:
    """A connection that is made again whenever it is lost; :func:`resilient` makes it.

    Attributes:
        ws: The connection of the moment; ``None`` while there is none.
        connections: How many were opened so far.
        lost: Messages that were not sent, or not confirmed, and given up.
    """

    def __init__(
        self,
        uri: str,
        *,
        on_connect: Callable[[ClientConnection], Awaitable[Any]] | None,
        on_disconnect: Callable[[Exception], Any] | None,
        on_lost: Callable[[list[DataLike], str], Any] | None,
        max_buffer: int,
        overflow: Literal["wait", "drop_oldest"],
        confirm: bool,
        resend: bool,
        silence_timeout: float | None,
        reconnect_delays: Callable[[], Iterator[float]],
        process_exception: Callable[[Exception], Exception | None],
        options: dict[str, Any],
    ) -> None:
        if max_buffer < 0:
            raise ValueError(f"max_buffer must not be negative: {max_buffer}")
        if overflow not in ("wait", "drop_oldest"):
            raise ValueError(
                f"overflow must be 'wait' or 'drop_oldest', not {overflow!r}"
            )
        if silence_timeout is not None and silence_timeout <= 0:
            raise ValueError(f"silence_timeout must be positive: {silence_timeout}")
        if resend and not confirm:
            raise ValueError("resend=True needs confirm=True")
        connect(uri, **options)  # wrong arguments are told at the call
        self.uri = uri
        self.ws: ClientConnection | None = None
        self.connections = 0
        self.lost = 0
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._on_lost = on_lost
        self._max_buffer = max_buffer
        self._overflow = overflow
        self._confirm = confirm
        self._resend = resend
        self._silence_timeout = silence_timeout
        self._reconnect_delays = reconnect_delays
        self._process_exception = process_exception
        self._options = options
        self._logger: LoggerLike = options.get("logger") or logger

        self._buffer: deque[DataLike] = deque()  # not sent yet
        self._unconfirmed: deque[DataLike] = deque()  # sent; nobody knows if it came
        self._confirming = False
        self._asked = 0  # how many of them the next pong confirms
        self._room = asyncio.Condition()
        self._received: deque[Data] = deque()
        self._arrived = asyncio.Event()  # a message, or the end
        self._taken = asyncio.Event()
        self._settled = asyncio.Event()  # connected for the first time, or the end
        self._end: Exception | None = None  # why there will be no more connections
        self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    # -- using it --------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect for the first time.

        Raises:
            InvalidHandshake: When the server refuses for good, and so on: what
                ``process_exception`` takes for fatal.
        """
        if self._task is not None:
            raise InvalidState("a resilient connection can be entered only once")
        self._task = asyncio.create_task(self._run())
        try:
            await self._settled.wait()
        except BaseException:
            await self._stop()
            raise
        if self._end is not None and not self.connections:
            await self._stop()
            raise self._end
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self.ws is not None

    @property
    def buffered(self) -> int:
        """Messages that wait for a connection."""
        return len(self._buffer)

    async def send(self, message: DataLike) -> None:
        """Send a message, or keep it until there is a connection again.

        Args:
            message: ``str`` or bytes-like.

        Raises:
            ConnectionClosed: When there will be no more connections.
            TypeError: When ``message`` is of another type.

        With ``overflow="wait"`` it waits while the buffer is full.
        """
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            raise TypeError(
                f"message must be str or bytes-like, not {type(message).__name__}"
            )
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)  # it is kept
        self._check()
        ws = self.ws
        if ws is not None and not self._buffer:
            try:
                await self._send_on(ws, message)
                return
            except ConnectionClosed:
                pass  # it was not sent: the connection was closed before
        await self._keep(message)

    async def recv(self) -> Data:
        """Receive the next message, from whichever connection.

        Raises:
            ConnectionClosed: When there will be no more connections, and whatever
                ``process_exception`` takes for fatal.
        """
        while not self._received:
            self._check()
            self._arrived.clear()
            await self._arrived.wait()
        self._taken.set()
        return self._received.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Data:
        try:
            return await self.recv()
        except ConnectionClosedOK:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """Close the connection and make no other; what was not sent is told."""
        self._closing = True
        ws = self.ws
        if ws is not None:
            await ws.close()
        await self._stop()

    # -- sending ---------------------------------------------------------------------

    async def _send_on(self, ws: ClientConnection, message: DataLike) -> None:
        if not ws.is_open:
            raise ws.closed_error()
        if self._confirm:
            self._unconfirmed.append(message)
            if len(self._unconfirmed) > max(self._max_buffer, MIN_UNCONFIRMED):
                self._tell([self._unconfirmed.popleft()], "not confirmed")
                self._asked = max(self._asked - 1, 0)
        try:
            await ws.send(message)
            if self._confirm and not self._confirming:
                self._confirming = True
                await self._ask(ws)
        except ConnectionClosed:
            # It was written: whether it arrived is not known.
            if not self._confirm:
                self._tell([message], "connection lost")

    async def _ask(self, ws: ClientConnection) -> None:
        """Ask for a pong: it says that all before it has arrived (RFC 6455, 5.5.3)."""
        self._asked = len(self._unconfirmed)
        try:
            pong = await ws.ping()
        except BaseException:
            self._confirming = False  # cancelled: whoever sends next asks
            raise

        def answered(pong: asyncio.Future[float]) -> None:
            if ws is not self.ws or pong.cancelled() or pong.exception() is not None:
                return
            for _ in range(self._asked):
                self._unconfirmed.popleft()
            self._confirming = False
            if self._unconfirmed and ws.is_open:
                self._confirming = True
                asking = asyncio.ensure_future(self._ask(ws))
                asking.add_done_callback(_retrieve)

        pong.add_done_callback(answered)  # type: ignore[attr-defined]

    async def _keep(self, message: DataLike) -> None:
        """Keep a message for the next connection."""
        async with self._room:
            while len(self._buffer) >= max(self._max_buffer, 1):
                if self._overflow == "drop_oldest":
                    self._tell([self._buffer.popleft()], "buffer full")
                    continue
                await self._room.wait()
                self._check()
            self._buffer.append(message)
        if self.ws is not None:
            await self._flush(self.ws)

    async def _flush(self, ws: ClientConnection) -> None:
        """Send what was kept."""
        while self._buffer and ws.is_open:
            message = self._buffer.popleft()
            try:
                await self._send_on(ws, message)
            except ConnectionClosed:
                self._buffer.appendleft(message)
                return
        async with self._room:
            self._room.notify_all()

    def _tell(self, messages: list[DataLike], why: str) -> None:
        """Tell that messages are lost."""
        self.lost += len(messages)
        if self._on_lost is None:
            self._logger.warning("%d messages lost: %s", len(messages), why)
        else:
            self._call(self._on_lost, messages, why)

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            function(*args)
        except Exception:
            self._logger.exception("callback of a resilient connection failed")

    # -- connecting ------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, again and again."""
        loop = asyncio.get_running_loop()
        delays: Iterator[float] | None = None
        try:
            while True:
                began: float | None = None
                try:
                    async with connect(self.uri, **self._options) as ws:
                        began = loop.time()
                        await self._use(ws)
                        exc: Exception = ws.closed_error()
                except Exception as failure:
                    exc = failure
                if self.ws is not None:
                    self._disconnected(exc)
                if self._closing:
                    return
                if not isinstance(exc, (ConnectionClosed, TimeoutError)):
                    fatal = self._process_exception(exc)
                    if fatal is not None:
                        raise fatal
                if began is not None and loop.time() - began >= STABLE_AFTER:
                    delays = None
                delays = delays or self._reconnect_delays()
                delay = next(delays)
                self._logger.info("connecting again in %.1f seconds: %s", delay, exc)
                await asyncio.sleep(delay)
        except Exception as fatal:
            self._end = fatal
        finally:
            await self._over()

    async def _use(self, ws: ClientConnection) -> None:
        """Receive from a connection until it ends."""
        if self._on_connect is not None:
            await self._on_connect(ws)
        self.ws = ws
        self.connections += 1
        self._confirming = False
        self._settled.set()
        await self._flush(ws)
        while True:
            try:
                async with asyncio.timeout(self._silence_timeout):
                    message = await ws.recv()
            except TimeoutError:
                ws.transport.abort()
                raise TimeoutError(
                    f"nothing received for {self._silence_timeout} seconds"
                ) from None
            except ConnectionClosed:
                return
            self._received.append(message)
            self._arrived.set()
            while len(self._received) >= QUEUE_SIZE:
                self._taken.clear()
                await self._taken.wait()

    def _disconnected(self, exc: Exception) -> None:
        self.ws = None
        unconfirmed = list(self._unconfirmed)
        self._unconfirmed.clear()
        if unconfirmed and self._resend and not self._closing:
            self._buffer.extendleft(reversed(unconfirmed))
        elif unconfirmed:
            self._tell(unconfirmed, "not confirmed")
        if self._on_disconnect is not None and not self._closing:
            self._call(self._on_disconnect, exc)

    # -- the end ---------------------------------------------------------------------

    def _check(self) -> None:
        """Raise when there will be no more connections."""
        if self._task is None:
            raise InvalidState("use it inside of 'async with'")
        if self._end is not None:
            raise self._end
        if self._is_over or self._closing:
            raise ConnectionClosedOK(None, None)

    async def _over(self) -> None:
        """Wake whoever waits: there will be no more connections."""
        self._is_over = True
        self._settled.set()
        self._arrived.set()
        async with self._room:
            self._room.notify_all()

    async def _stop(self) -> None:
        task = self._task
        assert task is not None
        task.cancel()
        await asyncio.wait((task,))
        self.ws = None
        if self._buffer:
            messages = list(self._buffer)
            self._buffer.clear()
            self._tell(messages, "closed before they were sent")
        await self._over()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Say nothing of an error that is told elsewhere."""
    if not future.cancelled():
        future.exception()


def resilient(
    uri: str,
    *,
    on_connect: Callable[[ClientConnection], Awaitable[Any]] | None = None,
    on_disconnect: Callable[[Exception], Any] | None = None,
    on_lost: Callable[[list[DataLike], str], Any] | None = None,
    max_buffer: int = 1000,
    overflow: Literal["wait", "drop_oldest"] = "wait",
    confirm: bool = True,
    resend: bool = False,
    silence_timeout: float | None = None,
    reconnect_delays: Callable[[], Iterator[float]] = backoff,
    process_exception: Callable[[Exception], Exception | None] = is_fatal,
    **kwargs: Any,
) -> Resilient:
    """Connect, and connect again whenever the connection is lost.

    ::

        async def subscribe(ws):
            await ws.send('{"subscribe": "prices"}')

        async with websock.resilient(url, on_connect=subscribe) as feed:
            async for message in feed:
                ...

    Args:
        uri: URI of the server.
        on_connect: Coroutine function that is called with each new connection, before
            anything else is sent: to log in, to subscribe.  When it fails, the
            connection is closed, and made again if the error is not fatal.
        on_disconnect: Called with the exception that tells why a connection ended.
        on_lost: Called with messages that are lost and the reason: ``"buffer full"``,
            ``"not confirmed"``, ``"connection lost"``, ``"closed before they were
            sent"``.  Without it a warning is logged.
        max_buffer: Messages that are kept while there is no connection; and, if it is
            above 1000, messages whose confirmation is awaited.
        overflow: What ``send()`` does when the buffer is full: ``"wait"``, or
            ``"drop_oldest"``.
        confirm: Whether pings confirm that messages arrived.  Those that no pong has
            confirmed when a connection is lost may have arrived, or not: they are
            told to ``on_lost``, or sent again.
        resend: Whether unconfirmed messages are sent again, so that each arrives at
            least once, and maybe twice.
        silence_timeout: Seconds without a message after which the connection is taken
            for dead; ``None`` leaves that to keepalive pings.
        reconnect_delays: Makes an iterator of delays in seconds; by default they are
            random at first and grow, see :func:`websock.client.backoff`.  They begin
            anew once a connection has lasted ten seconds.
        process_exception: Called with what went wrong when connecting; returns
            ``None`` to go on, or what to raise.
        **kwargs: As for :func:`~websock.connect`.

    Raises:
        ValueError: When an argument has a wrong value.
    """
    return Resilient(
        uri,
        on_connect=on_connect,
        on_disconnect=on_disconnect,
        on_lost=on_lost,
        max_buffer=max_buffer,
        overflow=overflow,
        confirm=confirm,
        resend=resend,
        silence_timeout=silence_timeout,
        reconnect_delays=reconnect_delays,
        process_exception=process_exception,
        options=kwargs,
    )
