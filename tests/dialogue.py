"""Two connections for threads that talk to each other, and the account of it.

They are real, on a pair of sockets.  What may wait is done by a thread of its own: a
test starts it, watches it for as long as it likes, and goes on.  At the end everything
that waits is let go on, and has to end.
"""

from __future__ import annotations

import itertools
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from conversation import BrokenOff, Complaints, Message, Sent
from linked import socket_pair
from scripted import TLS
from threads import PATIENCE

from websock.exceptions import ConcurrencyError, ConnectionClosed
from websock.extensions.permessage_deflate import PerMessageDeflate
from websock.protocol import Protocol, Side
from websock.sync.connection import Connection, broadcast
from websock.sync.deadlines import Deadline
from websock.sync.streams import SocketStream, TlsStream

__all__ = ["Call", "Dialogue", "Speaker", "Terms"]


class Gate:
    """Where threads stop in the middle of a message until a test lets them go on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answers: list[bool] = []
        self._is_off = False
        self.waiting = 0

    def wait(self, stopped: threading.Event) -> bool:
        """Wait here; return whether to go on.

        Args:
            stopped: Set as soon as that is the case.
        """
        with self._changed:
            self.waiting += 1
            stopped.set()
            self._changed.wait_for(lambda: self._answers or self._is_off, PATIENCE)
            self.waiting -= 1
            return self._answers.pop(0) if self._answers else True

    def open(self, goes_on: bool) -> bool:
        """Let one go on, or give up; return whether anybody was waiting."""
        with self._changed:
            if self.waiting <= len(self._answers):
                return False
            self._answers.append(goes_on)
            self._changed.notify()
            return True

    def take_down(self) -> None:
        """Let everybody go on from now on."""
        with self._changed:
            self._is_off = True
            self._changed.notify_all()


class Call:
    """Something that a thread does, and how it ended.

    Attributes:
        sends: Whether it ends without anybody closing, if the peer reads.
        stopped: Set when it has ended, or waits at a gate.
    """

    def __init__(
        self, ws: Connection, function: Callable[[Call], Any], sends: bool
    ) -> None:
        self.ws = ws
        self.sends = sends
        self.stopped = threading.Event()
        self.exc: BaseException | None = None
        self.was_told_early = False
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function(self)
        except ConnectionClosed:
            self.was_told_early = not self.ws.is_lost
        except (ConcurrencyError, TimeoutError, BrokenOff):
            pass
        except BaseException as exc:
            self.exc = exc
        self.stopped.set()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for its end, in a thread that is waited for itself."""
        self._thread.join()

    def join(self) -> None:
        """Wait for its end, not for ever."""
        self._thread.join(PATIENCE)
        assert self.is_done, f"still waiting: {self._function}"

    def check(self) -> None:
        """See that it ended as it may."""
        if self.exc is not None:
            raise self.exc
        assert not self.was_told_early, "told of the end before the end"


class Speaker:
    """One end: what it sent, what it received, and which threads it keeps busy.

    Attributes:
        failed: Whether this end may have given up reading, on purpose.
        has_closed: Whether it may have begun to close while it was open.
        broken: Whether a message was left in its middle: no other can follow.
    """

    def __init__(
        self, moment: Callable[[], int], ws: Connection, limits_queue: bool
    ) -> None:
        self.ws = ws
        self.limits_queue = limits_queue
        self.sent: list[Sent] = []
        self.received: list[Message] = []
        self.calls: list[Call] = []
        self.receiver: Call | None = None
        self.pings: list[threading.Event] = []
        self.fragments, self.pieces = Gate(), Gate()
        self.failed = self.has_closed = self.broken = False
        self._fragmenting: set[int] = set()  # messages in fragments that were begun
        self._moment = moment

    def __str__(self) -> str:
        marks = [
            name for name in ("failed", "has_closed", "broken") if getattr(self, name)
        ]
        exc = self.ws.closed_error() if self.ws.is_lost else None
        return (
            f"{self.ws.protocol.side.name}: {len(self.sent)} sent, "
            f"{len(self.received)} received, {marks}, {len(self.calls)} calls, "
            f"{exc!r} because of {exc and exc.__cause__!r}"
        )

    def start(self, function: Callable[[Call], Any], sends: bool = False) -> Call:
        """Have a thread do something."""
        call = Call(self.ws, function, sends)
        self.calls.append(call)
        return call

    # -- sending -----------------------------------------------------------------------

    def send(self, way: str, sizes: list[int], is_text: bool) -> Call:
        """Have a thread send a message.

        Args:
            way: ``"plain"``, ``"broadcast"``, ``"fragments"`` that are there already,
                or ``"slowly"``: each comes when a test opens the gate.
            sizes: Sizes of its fragments.
            is_text: Whether it is text.
        """
        filler = "aé漢😀"[len(self.sent) % 4] if is_text else "x"
        text = f"{len(self.sent)}:" + filler * sum(sizes)
        message = text if is_text else text.encode()
        sent = Sent(message, self._moment(), certain=False)
        self.sent.append(sent)
        if way == "broadcast":
            return self.start(lambda call: self._broadcast(sent), sends=True)
        number, in_fragments = len(self.sent), way != "plain"
        if in_fragments:
            self._fragmenting.add(number)

        def send(call: Call) -> None:
            outgoing: Any = message
            if in_fragments:
                gate = self.fragments if way == "slowly" else None
                outgoing = self._fragments(message, sizes, gate, call)
            try:
                self.ws.send(outgoing)
            except Exception:
                sent.certain = True  # it was not sent
                raise
            finally:
                self._fragmenting.discard(number)
            sent.accepted = self._moment()
            sent.certain = True

        return self.start(send, sends=True)

    def _fragments(
        self, message: Message, sizes: list[int], gate: Gate | None, call: Call
    ) -> Iterator[Message]:
        rest = message
        for size in sizes:
            piece, rest = rest[:size], rest[size:]
            yield piece
            if gate is not None and not gate.wait(call.stopped):
                self.failed = True
                raise BrokenOff
        yield rest

    def _broadcast(self, sent: Sent) -> None:
        try:
            broadcast([self.ws], sent.message, raise_exceptions=True)
        except* ConcurrencyError:
            sent.certain = True
        except* RuntimeError as group:
            (failure,) = group.exceptions
            cause = failure.__cause__
            # It may be in what was left to be sent, of which nobody is told.
            assert isinstance(cause, (OSError, ConnectionClosed)), cause
        else:
            if self.ws.is_open:  # or else it may have been passed over
                sent.accepted = self._moment()
                sent.certain = True

    def ping(self) -> Call:
        """Have a thread send a ping."""

        def ping(call: Call) -> None:
            self.pings.append(self.ws.ping(ack_on_close=True))

        return self.start(ping, sends=True)

    # -- receiving ---------------------------------------------------------------------

    def receive(self, way: str) -> Call | None:
        """Have a thread receive, unless one does so already, or nothing can follow."""
        if self.broken or (self.receiver is not None and not self.receiver.is_done):
            return None
        self.receiver = self.start(getattr(self, f"_receive_{way}"))
        return self.receiver

    def _receive_now(self, call: Call) -> None:
        self.received.append(self.ws.recv(timeout=0))

    def _receive_in_time(self, call: Call) -> None:
        self.received.append(self.ws.recv(timeout=0.002))

    def _receive_one(self, call: Call) -> None:
        self.received.append(self.ws.recv())

    def _receive_iterating(self, call: Call) -> None:
        for number, message in enumerate(self.ws, 1):
            self.received.append(message)
            if number == 3:
                return

    def _receive_streaming(self, call: Call) -> None:
        pieces: list[Any] = []
        for piece in self.ws.recv_streaming():
            pieces.append(piece)
            if not self.pieces.wait(call.stopped):
                self.broken = True
                return
        self.received.append(type(pieces[0])().join(pieces))

    def refuse_second(self) -> None:
        """Who receives while another thread does is refused, and takes nothing."""
        if self.pieces.waiting:  # in the middle of a message
            for receive in (
                lambda: self.ws.recv(timeout=0),
                lambda: next(self.ws.recv_streaming()),
            ):
                try:
                    receive()
                except ConcurrencyError:
                    continue
                raise AssertionError("two received at once")

    def _receive_all(self, call: Call) -> None:
        if self.receiver is not None:
            self.receiver.wait()
        if self.broken:
            # Only that has it read what its program does not take.
            self._mark_closing()
            self.ws.close()
        while not self.broken:
            self.received.append(self.ws.recv())

    # -- ending ------------------------------------------------------------------------

    def close(self, way: str, code: int) -> Call | None:
        """Close, or fail, the connection from this end."""
        self._mark_closing()
        if way == "fail":
            self.failed = True
            self.ws.fail(code, "on purpose")
            return None
        return self.start(lambda call: self.ws.close(code, way))

    def _mark_closing(self) -> None:
        if self.ws.is_open:
            self.has_closed = True
            if self._fragmenting:
                self.failed = True  # a message in fragments cannot be ended

    def look(self) -> None:
        """See to the threads that have ended."""
        for call in [call for call in self.calls if call.is_done]:
            self.calls.remove(call)
            call.check()


@dataclass(frozen=True)
class Terms:
    """What a dialogue takes place on."""

    kind: str = "unix"  # or "tcp", "tls"
    compression: bool = False
    max_queue: tuple[Any, Any] = (16, 16)
    buffer_size: int | None = None


class Dialogue:
    """A client's and a server's end, joined.

    Attributes:
        lost: Whether the connection was cut, so that what was on its way is lost.
    """

    def __init__(self, terms: Terms, tls: TLS) -> None:
        self.lost = False
        self.complaints: list[Any] = []
        self._log = Complaints(self.complaints)
        logging.getLogger("websock").addHandler(self._log)
        self._moments = itertools.count(1)
        self._lock = threading.Lock()
        self._socks = self._join(terms)
        streams: list[Any] = [SocketStream(sock) for sock in self._socks]
        if terms.kind == "tls":
            streams = self._secure(streams, tls)
        self.ends = tuple(
            Speaker(self.moment, ws, queue is not None)
            for ws, queue in zip(
                [
                    self._connect(stream, side, terms, queue)
                    for stream, side, queue in zip(
                        streams,
                        (Side.CLIENT, Side.SERVER),
                        terms.max_queue,
                        strict=True,
                    )
                ],
                terms.max_queue,
                strict=True,
            )
        )

    def _join(self, terms: Terms) -> tuple[socket.socket, socket.socket]:
        if terms.kind == "tcp":
            return socket_pair(terms.buffer_size)
        pair = socket.socketpair()
        if terms.buffer_size is not None:
            for sock in pair:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, terms.buffer_size)
        return pair

    def _secure(self, streams: list[Any], tls: TLS) -> list[Any]:
        client = TlsStream(streams[0], tls.client, server_hostname="localhost")
        server = TlsStream(streams[1], tls.server, server_side=True)
        other = threading.Thread(target=server.handshake, args=(Deadline(PATIENCE),))
        other.start()
        client.handshake(Deadline(PATIENCE))
        other.join()
        return [client, server]

    def _connect(
        self, stream: Any, side: Side, terms: Terms, max_queue: Any
    ) -> Connection:
        protocol = Protocol(side, max_size=None)
        if terms.compression:
            extension = PerMessageDeflate(False, False, 15, 15, compress_min_size=0)
            protocol.extensions = [extension]
        # Without any timeout: what does not end by itself hangs.
        ws = Connection(
            stream,
            protocol,
            ping_interval=None,
            close_timeout=None,
            max_queue=max_queue,
        )
        ws.handshake_done(b"")
        return ws

    def moment(self) -> int:
        """Return a number that is larger than all before it; from any thread."""
        with self._lock:
            return next(self._moments)

    def look(self) -> None:
        for end in self.ends:
            end.look()

    def cut(self, how: str, number: int) -> None:
        """Lose the connection.

        Args:
            how: ``"both"`` ends are told the end of the stream, ``"half"``: only the
                other one is; ``"reset"``: this one gives up, and resets it.
            number: Which end.
        """
        self.lost = True
        end, sock = self.ends[number], self._socks[number]
        if how == "reset":
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.ws.abort_with(ConnectionAbortedError("on purpose"))
            return
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR if how == "both" else socket.SHUT_WR)

    def finish(self, closer: int) -> None:
        """Let everything go on to its end; the connection is closed if it is open."""
        for end in self.ends:
            end.fragments.take_down()
            end.pieces.take_down()
            end.start(end._receive_all)
        for end in self.ends:
            for call in [call for call in end.calls if call.sends]:
                call.join()
        self._wait_for_pongs()
        self.ends[closer].close("wait", 1000)
        for end in self.ends:
            for call in [*end.calls]:
                call.join()
        self.look()

    def _wait_for_pongs(self) -> None:
        """Pings of connections that stay open are answered."""
        end = monotonic() + PATIENCE
        for ping in [ping for speaker in self.ends for ping in speaker.pings]:
            while all(speaker.ws.is_open for speaker in self.ends):
                if ping.wait(0.01):
                    break
                assert monotonic() < end, "a ping without an answer"

    def close(self) -> None:
        """Clean up, whatever happened."""
        logging.getLogger("websock").removeHandler(self._log)
        for end in self.ends:
            end.fragments.take_down()
            end.pieces.take_down()
            end.ws.abort_with(ConnectionAbortedError("cleaning up"))
