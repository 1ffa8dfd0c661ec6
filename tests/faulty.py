"""A proxy that does to connections what bad networks do.

It stands between two ends on real sockets and hands on what they send: in pieces of any
size, joined, late, not at all for a while, up to any byte and no further. A
:class:`Fault` says what happens to a connection, and after how many bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Fault", "Faulty", "Frame", "Passage", "frames_of"]

LOOPBACK = "127.0.0.1"
HEAD_END = b"\r\n\r\n"

# Pieces in a direction that are small; what follows goes on quickly.
MAX_PIECES = 400


@dataclass(frozen=True)
class Fault:
    """What happens to a connection.

    Attributes:
        kind: ``"fin"``: both ends are told the end of the stream. ``"rst"``: both are
            reset. ``"half"``: only who receives in that direction is told the end.
            ``"stall"``: that direction stands still until ``release()``. ``"none"``.
        to_server: In which direction bytes are counted.
        after: Bytes of that direction that still get through.
        after_head: Whether they are counted from the end of the opening handshake,
            which must be readable.
        pieces: Largest piece in which bytes are handed on.
        lateness: Seconds by which a piece is late, at most; most are not.
    """

    kind: str = "none"
    to_server: bool = True
    after: int = 0
    after_head: bool = False
    pieces: int = 65536
    lateness: float = 0.0


@dataclass
class Way:
    """One direction of a connection, and what got through."""

    source: socket.socket
    target: socket.socket
    to_server: bool
    passed: bytearray = field(default_factory=bytearray)
    is_cut: bool = False
    is_exact: bool = True  # no piece was broken off that may have got through in part
    head: int = -1  # size of the part of the opening handshake, once it is known

    def room(self, fault: Fault, data: bytes) -> int:
        """Return after how many of the bytes that come the fault is."""
        far = len(data) + 1
        if fault.kind == "none" or fault.to_server is not self.to_server:
            return far
        begin = 0
        if fault.after_head:
            if self.head < 0:
                end = (self.passed + data).find(HEAD_END)
                if end < 0:
                    return far
                self.head = end + len(HEAD_END)
            begin = self.head
        return min(max(begin + fault.after - len(self.passed), 0), far)


class Passage:
    """A connection that goes through the proxy.

    Attributes:
        fault: What happens to it.
        to_server: The way from the client to the server.
        to_client: The other one.
        port: Port from which the server sees it come.
        is_cut: Whether the fault has ended it, or one of its directions.
        was_reset: Whether one of its ends has reset it.
        stalled: Set when it stands still.
        ended: Set when both ends have ended it, or it was reset.
    """

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        fault: Fault,
        chance: random.Random,
    ) -> None:
        self.fault = fault
        self.port: int = server.getsockname()[1]
        self.to_server = Way(client, server, True)
        self.to_client = Way(server, client, False)
        self.is_cut = self.was_reset = False
        self.stalled = asyncio.Event()
        self.ended = asyncio.Event()
        self._released = asyncio.Event()
        self._reset = asyncio.Event()
        self._chance = chance
        self._struck = False

    def release(self) -> None:
        """Let a connection that stands still go on."""
        self._released.set()

    async def run(self) -> None:
        """Hand on bytes until both ends have ended the connection."""
        ways = self.to_server, self.to_client
        reset: asyncio.Task[Any] = asyncio.create_task(self._reset.wait())
        tasks = [reset, *(asyncio.create_task(self._hand_on(way)) for way in ways)]
        left = {*tasks}
        try:
            while len(left) > 1 and not self._reset.is_set():
                done, left = await asyncio.wait(left, return_when="FIRST_COMPLETED")
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for way in ways:
                if self._reset.is_set():
                    linger = struct.pack("ii", 1, 0)
                    way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                way.source.close()
            self.ended.set()

    async def _hand_on(self, way: Way) -> None:
        loop = asyncio.get_running_loop()
        left = MAX_PIECES
        if way.room(self.fault, b"") == 0:
            await self._strike(way)
        while True:
            try:
                data = await loop.sock_recv(way.source, 65536)
            except ConnectionError:
                await self._was_reset()
                return
            if not data:
                break
            while data and way.is_exact and not way.is_cut:
                left -= 1
                size = len(data)
                if left > 0:
                    await self._be_late()
                    size = self._chance.randint(1, self.fault.pieces)
                room = size if self._struck else way.room(self.fault, data)
                piece, data = data[: min(size, room)], data[min(size, room) :]
                try:
                    await loop.sock_sendall(way.target, piece)
                except ConnectionError:
                    way.is_exact = False
                    await self._was_reset()
                    break  # cut meanwhile: the rest is taken, and goes nowhere
                way.passed += piece
                if len(piece) == room and not self._struck:
                    await self._strike(way)
        if not way.is_cut:
            with contextlib.suppress(OSError):
                way.target.shutdown(socket.SHUT_WR)

    async def _be_late(self) -> None:
        if self.fault.lateness and self._chance.random() < 0.1:
            await asyncio.sleep(self._chance.random() * self.fault.lateness)
        elif self._chance.random() < 0.3:
            await asyncio.sleep(0)

    async def _was_reset(self) -> None:
        """One end was reset, or is gone: the other one is to know it, too."""
        if not self.is_cut:
            self.was_reset = True
            self._reset.set()
            await asyncio.Event().wait()  # it is cancelled

    async def _strike(self, way: Way) -> None:
        """Do what is to happen to the connection."""
        self._struck = True
        kind = self.fault.kind
        if kind == "stall":
            self.stalled.set()
            await self._released.wait()
            return
        self.is_cut = True
        if kind == "rst":
            self._reset.set()
            await asyncio.Event().wait()  # it is cancelled
        # What comes from now on is taken, so that nobody is reset.
        ways = (way,) if kind == "half" else (self.to_server, self.to_client)
        for each in ways:
            each.is_cut = True
            with contextlib.suppress(OSError):
                each.target.shutdown(socket.SHUT_WR)


class Faulty:
    """The proxy; use it with ``async with``.

    Args:
        address: Host and port of the server.
        seed: What its chance begins with.
        faults: What happens to the first connection, the second one, and so on; to
            further ones nothing does.

    Attributes:
        port: Port that clients connect to.
        passages: The connections so far.
        begun: Set when there is one.
    """

    def __init__(self, address: Any, seed: Any, *faults: Fault) -> None:
        self.address = address
        self.passages: list[Passage] = []
        self.begun = asyncio.Event()
        self._chance = random.Random(seed)
        self._faults = list(faults)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = socket.create_server((LOOPBACK, 0))
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]

    async def __aenter__(self) -> Faulty:
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listening)
            server = socket.create_connection(self.address)
            for sock in (client, server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fault = self._faults.pop(0) if self._faults else Fault()
            passage = Passage(client, server, fault, self._chance)
            self.passages.append(passage)
            self.begun.set()
            self._tasks.add(asyncio.create_task(passage.run()))


@dataclass(frozen=True)
class Frame:
    """A frame that got through whole."""

    opcode: int
    fin: bool


def frames_of(data: bytes) -> list[Frame]:
    """Return the frames that are whole in what got through after a handshake."""
    at = data.find(HEAD_END)
    if at < 0:
        return []
    at += len(HEAD_END)
    found = []
    while len(data) >= at + 2:
        first, second = data[at], data[at + 1]
        at += 2
        n = second & 0x7F
        wide = {126: 2, 127: 8}.get(n, 0)
        if len(data) < at + wide:
            break
        if wide:
            n = int.from_bytes(data[at : at + wide], "big")
        at += wide + (4 if second & 0x80 else 0) + n
        if len(data) < at:
            break
        found.append(Frame(first & 0x0F, bool(first & 0x80)))
    return found
