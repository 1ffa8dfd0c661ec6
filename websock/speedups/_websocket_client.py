"""Masks, UTF-8 and frames of websocket-client on the compiled kernels.

What is replaced gives way to the host's own code for whatever is not common: other
types than bytes, subclasses, masks of the program's own, errors.  No byte is read ahead
of a frame, because programs ask ``select()`` about the socket before ``recv()``.

A frame that is half received is kept in the attributes the host keeps it in, so it is
finished by whichever code is there then.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._codec import FrameWriter
from .._kernels import Utf8Validator, apply_mask
from ._patch import Patch

__all__ = ["PATCH"]

CHUNK = 16384
"""What websocket-client asks of a socket at once."""

_urandom = os.urandom
_writer = FrameWriter(mask=True)


def fast_mask(original: Any) -> Any:
    """Return ``ABNF.mask``."""

    def mask(mask_key: Any, data: Any) -> Any:
        if type(data) is bytes and type(mask_key) is bytes and len(mask_key) == 4:
            return apply_mask(data, mask_key)
        return original(mask_key, data)

    return mask


def fast_array_mask(original: Any) -> Any:
    """Return ``_mask``, which takes arrays."""

    def _mask(mask_value: Any, data_value: Any) -> Any:
        codes = [getattr(value, "typecode", "") for value in (mask_value, data_value)]
        if codes == ["B", "B"] and len(mask_value) == 4:
            return apply_mask(data_value, mask_value)
        return original(mask_value, data_value)

    return _mask


def fast_utf8(original: Any) -> Any:
    """Return ``validate_utf8``; like the host's, it lets a text end in a character."""

    def validate_utf8(utfbytes: Any) -> Any:
        if type(utfbytes) is bytes:
            return utfbytes.isascii() or Utf8Validator().feed(utfbytes) < 0
        return original(utfbytes)

    return validate_utf8


def fast_format(original: Any, kind: Any) -> Any:
    """Return ``ABNF.format``."""

    def format(self: Any) -> Any:
        data = self.data
        if (
            type(data) is bytes
            and type(self) is kind
            and self.get_mask_key is _urandom
            and self.opcode in (1, 2, 0)
            and self.mask_value == 1
            and not (self.rsv1 or self.rsv2 or self.rsv3)
            and self.fin in (0, 1)
        ):
            return _writer.frame(self.opcode, data, self.fin == 1)
        return original(self)

    return format


def fast_recv_strict(original: Any) -> Any:
    """Return ``frame_buffer.recv_strict``."""

    def recv_strict(self: Any, bufsize: Any) -> Any:
        if self.recv_buffer or type(bufsize) is not int or not 0 < bufsize <= CHUNK:
            return original(self, bufsize)
        data = self.recv(bufsize)
        if type(data) is bytes and len(data) == bufsize:
            return data
        if not isinstance(data, bytes):
            # The host leaves a buffer of nothing, and returns what it had: nothing.
            self.recv_buffer = [b""]
            return b""
        self.recv_buffer.append(data)
        return original(self, bufsize)

    return recv_strict


def fast_recv_frame(original: Any, kind: Any, abnf: Any) -> Any:
    """Return ``frame_buffer.recv_frame``."""

    def recv_frame(self: Any) -> Any:
        if type(self) is not kind:
            return original(self)
        with self.lock:
            if self.header is None:
                start = self.recv_strict(2)
                first = start[0]
                second = start[1]
                self.header = (
                    first >> 7,
                    first >> 6 & 1,
                    first >> 5 & 1,
                    first >> 4 & 1,
                    first & 15,
                    second >> 7,
                    second & 127,
                )
            fin, rsv1, rsv2, rsv3, opcode, has_mask, length = self.header
            if self.length is None:
                if length < 126:
                    self.length = length
                else:
                    self.recv_length()
            if self.mask_value is None:
                self.mask_value = self.recv_strict(4) if has_mask else ""
            payload = self.recv_strict(self.length)
            if has_mask:
                payload = abnf.mask(self.mask_value, payload)
            self.header = self.length = self.mask_value = None
            frame = abnf(fin, rsv1, rsv2, rsv3, opcode, has_mask, payload)
            if opcode > 2 or rsv1 or rsv2 or rsv3:
                frame.validate(self.skip_utf8_validation)
        return frame

    return recv_frame


def fast_recv(original: Any, exceptions: ModuleType) -> Any:
    """Return the function that reads from a socket, for plain sockets."""
    late: Any = exceptions.WebSocketTimeoutException
    closed: Any = exceptions.WebSocketConnectionClosedException

    def recv(sock: Any, bufsize: Any) -> Any:
        if type(sock) is not socket.socket:
            return original(sock, bufsize)
        try:
            data = sock.recv(bufsize)
        except BlockingIOError:
            return original(sock, bufsize)
        except TimeoutError:
            raise late("Connection timed out")  # noqa: B904  # as the host raises it
        if not data:
            raise closed("Connection to remote host was lost.")
        return data

    return recv


def fast_send(original: Any, exceptions: ModuleType) -> Any:
    """Return the function that writes to a socket, for plain sockets."""
    late: Any = exceptions.WebSocketTimeoutException

    def send(sock: Any, data: Any) -> Any:
        if type(sock) is not socket.socket or type(data) is not bytes:
            return original(sock, data)
        try:
            return sock.send(data)
        except BlockingIOError:
            return original(sock, data)
        except TimeoutError as exc:
            raise late(str(exc.args[0]) if exc.args else None)  # noqa: B904

    return send


class WebSocketClientPatch(Patch):
    """Replaces masks, UTF-8, and the reading and writing of frames."""

    host = "websocket-client"
    package = "websocket"
    modules = (
        "websocket._exceptions",
        "websocket._utils",
        "websocket._abnf",
        "websocket._core",
    )
    versions = ("1.9", "1.10")
    gain = "masks, UTF-8 and frames are compiled"

    def self_test(self) -> None:
        """Compare what is compiled with what the host does."""
        abnf = self.module("websocket._abnf")
        utils = self.module("websocket._utils")
        kind, buffer = abnf.ABNF, abnf.frame_buffer
        mask, utf8 = fast_mask(kind.mask), fast_utf8(utils.validate_utf8)
        for data in (b"", b"a", b"\xe2\x98\x83", b"\xe2\x98", b"\xed\xa0", bytes(99)):
            agree(kind.mask, mask, b"\x01\x80\xff\x00", data)
            agree(utils.validate_utf8, utf8, data)
        format = fast_format(kind.format, kind)
        recv_frame = fast_recv_frame(buffer.recv_frame, buffer, kind)
        for opcode in range(3):
            for data in (b"", b"text", bytes(126), bytes(65536)):
                wire = format(kind(1, 0, 0, 0, opcode, 1, data))
                want = vars_of(buffer.recv_frame(reading(buffer, wire)))
                if vars_of(recv_frame(reading(buffer, wire))) != want:
                    raise ValueError("a frame is not read as it was")

    def apply(self) -> None:
        """Replace them."""
        exceptions = self.module("websocket._exceptions")
        utils = self.module("websocket._utils")
        abnf = self.module("websocket._abnf")
        core = self.module("websocket._core")
        kind, buffer = abnf.ABNF, abnf.frame_buffer
        self.replace(utils, "_validate_utf8", fast_utf8(utils._validate_utf8))
        self.replace(abnf, "validate_utf8", fast_utf8(abnf.validate_utf8))
        self.replace(abnf, "_mask", fast_array_mask(abnf._mask))
        self.replace(kind, "mask", staticmethod(fast_mask(kind.mask)))
        self.replace(kind, "format", fast_format(kind.format, kind))
        self.replace(buffer, "recv_strict", fast_recv_strict(buffer.recv_strict))
        recv_frame = fast_recv_frame(buffer.recv_frame, buffer, kind)
        self.replace(buffer, "recv_frame", recv_frame)
        self.replace(core, "recv", fast_recv(core.recv, exceptions))
        self.replace(core, "send", fast_send(core.send, exceptions))


def agree(theirs: Callable[..., Any], ours: Callable[..., Any], *args: Any) -> None:
    """Raise unless both give the same."""
    want, got = theirs(*args), ours(*args)
    if type(want) is not type(got) or want != got:
        raise ValueError(f"{theirs.__name__} is not what it was")


def reading(buffer: Any, wire: bytes) -> Any:
    """Return a ``frame_buffer`` that reads from bytes."""
    rest = memoryview(wire)

    def recv(size: int) -> bytes:
        nonlocal rest
        data, rest = bytes(rest[:size]), rest[size:]
        return data

    return buffer(recv, False)


def vars_of(frame: Any) -> dict[str, Any]:
    """Return what a frame says."""
    return {name: value for name, value in vars(frame).items() if not callable(value)}


PATCH = WebSocketClientPatch
