"""The hub: what workers of one machine publish reaches all of them, in one order.

It is a WebSocket server of this library, on a unix socket in a directory that only its
user may enter; where there are none, on TCP of this machine.  Workers are let in with a
secret.  What one publishes is numbered, kept if that is wanted, framed once, and given
to all that have subscribed, also to the one it came from: so the order of a channel is
the same for all.  The hub does not look at what is published.

Memory: what is kept, up to a limit; for each worker what it has not read, up to a
limit; numbers and subscriptions.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from typing import Any, Self

from .._stream import publish
from ..asyncio.auth import basic_auth
from ..asyncio.server import Server, serve
from ..constants import OP_BINARY
from ..log_limit import LogLimit
from ..prepared import PreparedMessage
from ..slow import SlowConsumer
from ..topics.history import History, Position
from ..topics.pattern import check_topic
from ..typing import LoggerLike
from .address import USER, Address
from .routes import Routes, check_name
from .wire import MAX_CHANNEL, MAX_HEAD, Kind, pack
from .worker import Worker, WorkerConnection

__all__ = ["Hub"]

MAX_PATH = 100  # bytes of the path of a unix socket that all systems take
MIN_LIMIT = 1024 * 1024  # bytes of a message with positions, at least
MAX_WORKERS = 1000

# Its lines on connections would have addresses and headers, where the secret is.
wire_logger = logging.getLogger("websock.hub.wire")
wire_logger.setLevel(logging.ERROR)


class Hub:
    """Carries messages between the workers of one machine.

    ::

        async with Hub() as hub:
            start_workers(environment={"WEBSOCK_HUB": hub.address})

    Args:
        address: Where to listen, as a URL: ``local:///directory/hub.sock``,
            ``local://127.0.0.1:1234``; with ``:secret@`` in front of the host when it
            shall be the same after a restart. By default a unix socket in a directory
            of its own, or TCP where there are none.
        max_size: Bytes of a message that is published at most.
        max_pending: Bytes that may wait for a worker which does not read. What comes
            then it misses, and is told so.
        history_bytes: Bytes of messages that are kept, of all topics together; the
            topics that were quiet longest lose theirs.
        max_topics: Topics that are counted; of others the count begins anew.
        max_subscriptions: Patterns that a worker may subscribe to.
        logger: Logger; by default ``websock.hub``.

    Raises:
        ValueError: When an argument has a wrong value.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        max_size: int = 16 * 1024 * 1024,
        max_pending: int = 8 * 1024 * 1024,
        history_bytes: int = 64 * 1024 * 1024,
        max_topics: int = 65_536,
        max_subscriptions: int = 1_000_000,
        logger: LoggerLike | None = None,
    ) -> None:
        for name, value in (
            ("max_size", max_size),
            ("max_pending", max_pending),
            ("max_topics", max_topics),
            ("max_subscriptions", max_subscriptions),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if history_bytes < 0:
            raise ValueError(f"history_bytes must be at least 0, not {history_bytes}")
        self.max_size = max_size
        self.max_pending = max_pending
        self.max_subscriptions = max_subscriptions
        self.logger: LoggerLike = logger or logging.getLogger("websock.hub")
        self.routes: Routes[WorkerConnection] = Routes()
        self.workers: set[Worker] = set()
        self._wanted = None if address is None else Address.parse(address)
        self._address: Address | None = None
        self._history = History(0, history_bytes, max_topics)
        self._log = LogLimit(self.logger, about="workers")
        self._folder: str | None = None
        self._server: Server | None = None
        self._numbers = 0

    def __repr__(self) -> str:
        state = "closed" if self._server is None else f"{len(self.workers)} workers"
        return f"<Hub, {state}>"

    # -- beginning and ending ----------------------------------------------------------

    @property
    def address(self) -> str:
        """Where it is, for workers.  It has the secret: show it to nobody.

        Raises:
            RuntimeError: When it does not run.
        """
        if self._address is None:
            raise RuntimeError("the hub does not run: it has no address")
        return self._address.url

    async def start(self) -> None:
        """Begin.

        Raises:
            OSError: When the address cannot be listened on.
            RuntimeError: When it runs.
        """
        if self._server is not None:
            raise RuntimeError("the hub runs already")
        wanted = self._wanted or self._place()
        secret = wanted.secret or secrets.token_urlsafe(32)
        where: dict[str, Any] = {"host": wanted.host, "port": wanted.port}
        if wanted.path is not None:
            where = {"unix": True, "path": wanted.path}
        try:
            self._server = await serve(
                self._make_worker,
                **where,
                create_connection=WorkerConnection,
                process_request=basic_auth(credentials=(USER, secret)),
                origins=[None],  # no page of a browser
                compression=None,
                server_header=None,
                open_timeout=5,
                close_timeout=1,
                ping_interval=None,  # who is paused is no less there
                max_size=max(self.max_size, MIN_LIMIT) + MAX_CHANNEL + 2 * MAX_HEAD,
                write_limit=(self.max_pending, self.max_pending // 4),
                # That there is one sends what cannot be written to post().
                slow_consumer=SlowConsumer("drop_newest"),
                max_connections=MAX_WORKERS,
                topics="memory://",
                logger=wire_logger,
            )
        except BaseException:
            self._remove_folder()
            raise
        host, port = wanted.host, wanted.port
        if wanted.path is None:
            host, port = self._server.sockets[0].getsockname()[:2]
        self._address = Address(wanted.path, host, port, secret)

    async def stop(self) -> None:
        """End: workers go on, each by itself."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()
        self._address = None
        self._remove_folder()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.stop()

    def _place(self) -> Address:
        """Return where to listen, in a directory that nobody else may enter."""
        if hasattr(socket, "AF_UNIX"):
            folder = tempfile.mkdtemp(prefix="websock-")  # of mode 0700
            path = os.path.join(folder, "hub.sock")
            if len(os.fsencode(path)) <= MAX_PATH:
                self._folder = folder
                return Address(path)
            os.rmdir(folder)
        return Address()

    def _remove_folder(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    # -- for workers -------------------------------------------------------------------

    def _make_worker(self) -> Worker:
        self._numbers += 1
        return Worker(self, self._numbers)

    def joined(self, worker: Worker) -> None:
        """Take in a worker."""
        self.workers.add(worker)
        self.logger.debug("worker %d of the hub is there", worker.number)

    def left(self, worker: Worker) -> None:
        """Forget a worker."""
        self.workers.discard(worker)
        self.logger.debug("worker %d of the hub has left", worker.number)

    def refused(self, worker: Worker) -> None:
        """Say that something else than a worker was there."""
        if self._log.allows():
            self.logger.warning(
                "worker %d of the hub said what no worker says: its connection is "
                "closed",
                worker.number,
            )

    def fell_behind(self, worker: Worker) -> None:
        """Say that a worker does not keep up."""
        if self._log.allows():
            self.logger.warning(
                "worker %d of the hub does not read: %d bytes wait, limit %d",
                worker.number,
                worker.ws.buffered_amount,
                self.max_pending,
            )

    def caught_up(self, worker: Worker, count: int) -> None:
        """Say that a worker reads again."""
        if self._log.allows():
            self.logger.warning(
                "worker %d of the hub reads again, and has missed %d messages",
                worker.number,
                count,
            )

    def publish(self, channel: bytes, length: int, data: bytes) -> None:
        """Give a message to all workers that have subscribed.

        Args:
            channel: Name of its channel.
            length: Messages of the channel to keep; 0 does not keep this one.
            data: What is published.

        Raises:
            ValueError: When the name breaks a rule, or the message is too big.
        """
        if len(data) > self.max_size + MAX_HEAD:
            raise ValueError(
                f"message is too big: {len(data)} bytes, limit {self.max_size}"
            )
        name = channel.decode()
        receivers = self.routes.of(name)
        if receivers is None:
            check_name(name, check_topic)
            receivers = self.routes.find(name)
        place = self._history.count(name)
        head = f"{place.epoch} {place.number} ".encode()
        packed = pack(Kind.MESSAGE, channel, head, data)
        message = PreparedMessage(OP_BINARY, packed, False)
        if length:
            self._history.keep(name, message, length)
        if receivers:
            publish(receivers, message, (name, place))

    def read(
        self, pattern: str, last: int | None, since: Mapping[str, Position]
    ) -> tuple[list[PreparedMessage], dict[str, Position]]:
        """Return messages that are kept, and the last positions of some channels.

        Args:
            pattern: Pattern of their channels; ``""`` for those of ``since``.
            last: How many of each channel at most; ``None`` for all.
            since: Positions that have been reached, after which to begin.
        """
        found = []
        for name in [pattern] if pattern else since if last != 0 else ():
            found += self._history.read(name, last, since)
        size = 0
        for number, item in enumerate(reversed(found)):
            size += len(item.message.payload)
            if size > self.max_pending:
                del found[: len(found) - number]
                break
        places = {name: self._history.reached(name) for name in since}
        return (
            [item.message for item in found],
            {name: place for name, place in places.items() if place is not None},
        )
