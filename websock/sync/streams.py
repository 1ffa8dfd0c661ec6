"""Byte streams over sockets that block, plain or in TLS.

One thread at a time receives and one at a time sends; both may happen at once.
Nothing here locks for that, the connection does, with one exception: the state of a
TLS session is shared by both directions and is guarded here.

TLS works on memory and not on the socket (``ssl.MemoryBIO``): then no lock is held
while a thread waits for the network, receiving takes one system call for many
records, and TLS inside TLS, for proxies, is the same code twice.

What is to be sent passes ``encode()`` first and is then given to ``send()`` or
``send_now()`` in the order of the calls of ``encode()``.
"""

from __future__ import annotations

import select
import socket
import ssl as ssl_module
import struct
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from .deadlines import Deadline

__all__ = ["NO_WAIT", "SocketStream", "Stream", "TlsStream", "make_stream"]

# Windows has no such flag: there the socket never blocks, and is waited for.
_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
_HAS_POLL = hasattr(select, "poll")

# Seconds after which a wait in the main thread begins anew, see below; on Windows in
# every thread.
_LOOK_UP_AFTER = 1

NO_WAIT = _DONTWAIT or -1
"""The flag of ``recv()`` for taking only what is there."""

# Bytes of one read below TLS: a record has at most 16 KiB, and there may be several.
_RAW_SIZE = 65536


def wait_for(sock: socket.socket, write: bool, seconds: float | None) -> bool:
    """Wait until a socket can be read from or written to.

    Args:
        sock: The socket.
        write: Whether it is about writing.
        seconds: How long; ``None`` for no limit.

    Returns:
        Whether it can; also when it has failed or is closed.
    """
    fd = sock.fileno()
    if fd < 0:
        return True
    if _HAS_POLL:
        poller = select.poll()
        poller.register(fd, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(None if seconds is None else seconds * 1000))
    try:
        lists = ([], [fd]) if write else ([fd], [])
        found = select.select(lists[0], lists[1], [fd], seconds)
    except (OSError, ValueError):
        return True
    return any(found)


class SocketStream:
    """A connected socket that blocks.

    Args:
        sock: The socket; it belongs to the stream.

    Attributes:
        sock: The socket.
        recv: ``recv(size, flags)``: receive bytes; none at the end of the stream.
            With the flag ``NO_WAIT`` it raises ``BlockingIOError`` when there are
            none now; without, it may do so after a while.
        has_output: Whether something is to be sent that nobody encoded.
    """

    __slots__ = ("has_output", "recv", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.has_output = False
        if not _DONTWAIT:
            sock.settimeout(0)
            self.recv: Callable[[int, int], bytes] = self._recv_waiting
            return
        sock.settimeout(None)
        if threading.current_thread() is threading.main_thread():
            # Python sees to Ctrl-C in this thread, between two steps of a program: one
            # that comes just before recv(2) waits as long as recv(2) does.
            value = struct.pack("@ll", _LOOK_UP_AFTER, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        # The socket's own method: nothing is in between, Ctrl-C neither.
        self.recv = sock.recv

    def _recv_waiting(self, size: int, flags: int) -> bytes:
        """Receive where sockets never block (Windows).

        Nothing ends a wait there, neither Ctrl-C nor another thread's ``abort()``, so
        none is long.
        """
        try:
            return self.sock.recv(size)
        except BlockingIOError:
            if flags:
                raise
        wait_for(self.sock, False, _LOOK_UP_AFTER)
        return self.sock.recv(size)

    def wait_readable(self, seconds: float | None) -> bool:
        """Wait for input or the end of the stream; return whether there is any."""
        return wait_for(self.sock, False, seconds)

    def at_end(self) -> bool:
        """Tell whether the peer's stream has ended, and all of it was received."""
        try:
            return not self.sock.recv(1, _DONTWAIT | socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False

    def ssl_pending(self) -> bool:
        """Tell whether input is in memory that the socket does not tell of."""
        return False

    def encode(self, data: bytes) -> bytes:
        """Return what goes over the network for ``data``."""
        return data

    def encode_eof(self) -> bytes:
        """Return what goes over the network before the end of the stream."""
        return b""

    def send(self, data: bytes | memoryview) -> int:
        """Send some of what was encoded, waiting until that is possible."""
        while True:
            try:
                return self.sock.send(data)
            except BlockingIOError:  # where sockets never block
                wait_for(self.sock, True, _LOOK_UP_AFTER)

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what is possible at once of what was encoded."""
        try:
            return self.sock.send(data, _DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0

    def end(self) -> None:
        """End this side's stream."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended

    def abort(self) -> None:
        """Break the connection off: whoever waits for it is woken."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is broken

    def close(self) -> None:
        """Close the socket; nobody may be using it."""
        self.sock.close()


class TlsStream:
    """TLS over a stream; looks like a socket to who asks for TLS.

    Args:
        inner: The stream below.
        context: The context.
        server_side: Whether this is the server.
        server_hostname: Name of the server, on the client.
    """

    def __init__(
        self,
        inner: SocketStream | TlsStream,
        context: ssl_module.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.inner = inner
        self.sock: socket.socket = inner.sock
        self.has_output = False
        self.ended = False
        # Whether all that was received from below has been read.
        self._drained = False
        self._lock = threading.Lock()
        self._incoming = ssl_module.MemoryBIO()
        self._outgoing = ssl_module.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname or None,
        )

    def __getattr__(self, name: str) -> Any:
        # getpeercert(), version(), cipher() of the session, the rest of the socket.
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return getattr(self._object, name)
        except AttributeError:
            return getattr(self.sock, name)

    @property
    def ssl_object(self) -> ssl_module.SSLObject:
        """The TLS session."""
        return self._object

    def handshake(self, deadline: Deadline) -> None:
        """Do the handshake of TLS.

        Raises:
            OSError: When that fails; ``ssl.SSLError`` is one.
            TimeoutError: When it takes too long.
        """
        while True:
            done = False
            failure: ssl_module.SSLError | None = None
            try:
                self._object.do_handshake()
                done = True
            except ssl_module.SSLWantReadError:
                pass
            except ssl_module.SSLError as exc:
                failure = exc  # there is an alert to send
            self._send_output(deadline)
            if failure is not None:
                raise failure
            if done:
                return
            deadline.check()  # it may never stop sending
            self._fill(deadline)

    def _send_output(self, deadline: Deadline) -> None:
        data = memoryview(self.inner.encode(self._outgoing.read()))
        while data:
            sent = self.inner.send_now(data)
            if not sent and not wait_for(self.sock, True, deadline.check()):
                raise TimeoutError("timed out during the TLS handshake")
            data = data[sent:]

    def _fill(self, deadline: Deadline) -> None:
        while True:
            try:
                data = self.inner.recv(_RAW_SIZE, NO_WAIT)
            except (BlockingIOError, InterruptedError):
                data = b""
            if data:
                self._incoming.write(data)
                return
            if self.inner.at_end():
                self._incoming.write_eof()
                return
            if not self.inner.wait_readable(deadline.check()):
                raise TimeoutError("timed out during the TLS handshake")

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive bytes; none at the end of the stream, or with ``NO_WAIT``."""
        while True:
            with self._lock:
                self._drained = False
                try:
                    data = self._object.read(size)
                except ssl_module.SSLWantReadError:
                    data = None
                    self._drained = True
                except (ssl_module.SSLZeroReturnError, ssl_module.SSLEOFError):
                    data = b""
                if self._outgoing.pending:
                    self.has_output = True  # such as the answer to a key update
            if data is not None:
                if not data:
                    self.ended = True
                return data
            try:
                raw = self.inner.recv(_RAW_SIZE, flags)
            except (BlockingIOError, InterruptedError):
                return b""
            with self._lock:
                if raw:
                    self._incoming.write(raw)
                elif not flags or self.inner.at_end():
                    self._incoming.write_eof()
                else:
                    return b""

    def wait_readable(self, seconds: float | None) -> bool:
        """Wait for input; return whether there is any, be it not a whole record."""
        return not self._drained or self.inner.wait_readable(seconds)

    def at_end(self) -> bool:
        """Tell whether the peer's stream has ended, and all of it was received."""
        return self.ended

    def ssl_pending(self) -> bool:
        """Tell whether input is in memory that the socket does not tell of."""
        return not self._drained or self.inner.ssl_pending()

    def encode(self, data: bytes) -> bytes:
        """Return what goes over the network for ``data``."""
        with self._lock:
            self.has_output = False
            if data:
                self._object.write(data)
            encoded = self._outgoing.read()
        return self.inner.encode(encoded)

    def encode_eof(self) -> bytes:
        """Return what goes over the network before the end of the stream."""
        with self._lock:
            try:
                self._object.unwrap()
            except (OSError, ValueError):
                pass  # the peer has not said the same yet, or the session is broken
            encoded = self._outgoing.read()
        return self.inner.encode(encoded) + self.inner.encode_eof()

    def send(self, data: bytes | memoryview) -> int:
        """Send some of what was encoded, waiting until that is possible."""
        return self.inner.send(data)

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what is possible at once of what was encoded."""
        return self.inner.send_now(data)

    def end(self) -> None:
        """End this side's stream."""
        self.inner.end()

    def abort(self) -> None:
        """Break the connection off: whoever waits for it is woken."""
        self.inner.abort()

    def close(self) -> None:
        """Close the socket; nobody may be using it."""
        self.inner.close()


Stream = SocketStream | TlsStream


def make_stream(sock: Any) -> Stream:
    """Return the stream of a socket, or the stream itself.

    Raises:
        TypeError: When it is neither.
    """
    if isinstance(sock, (SocketStream, TlsStream)):
        return sock
    if isinstance(sock, ssl_module.SSLSocket):
        raise TypeError("sock must be a plain socket: use a wss:// URI, and ssl")
    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket, not {type(sock).__name__}")
    return SocketStream(sock)


def recv_within(stream: Stream, size: int, deadline: Deadline) -> bytes:
    """Receive bytes before a deadline; none at the end of the stream.

    Raises:
        TimeoutError: When nothing comes in time.
        OSError: When the connection fails.
    """
    while True:
        try:
            data = stream.recv(size, NO_WAIT)
        except (BlockingIOError, InterruptedError):
            data = b""
        if data or stream.at_end():
            return data
        if not stream.wait_readable(deadline.check()):
            raise TimeoutError("timed out")


def send_within(stream: Stream, data: bytes, deadline: Deadline) -> None:
    """Send bytes before a deadline.

    Raises:
        TimeoutError: When they do not leave in time.
        OSError: When the connection fails.
    """
    view = memoryview(stream.encode(data))
    start = monotonic()
    while view:
        sent = stream.send_now(view)
        view = view[sent:]
        if not sent and not wait_for(stream.sock, True, deadline.check()):
            waited = monotonic() - start
            raise TimeoutError(f"timed out: the peer read nothing for {waited:.1f} s")
