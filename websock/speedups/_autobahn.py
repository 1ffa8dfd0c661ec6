"""Masks, UTF-8 and the frame loop of Autobahn|Python on the compiled kernels.

A whole message in one frame, which is there entirely and breaks no rule, is handled in
one step; everything else, and every class that listens to frames or to pieces of a
message, goes through the host's own code.  What the host notes about the connection is
noted the same, so its code can go on at any time.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from .._codec import FrameWriter
from .._kernels import Utf8Validator, apply_mask, build_header
from . import wsaccel
from ._patch import Patch

__all__ = ["PATCH"]

ADAPTERS = ("autobahn.asyncio.websocket", "autobahn.twisted.websocket")

# What a class may have made its own to see a message come.
HOOKS = (
    "onFrameBegin",
    "onFrameData",
    "onFrameEnd",
    "onMessageBegin",
    "onMessageFrameBegin",
    "onMessageFrameData",
    "onMessageFrameEnd",
    "onMessageFrame",
    "onMessageEnd",
    "fire",
)
# These are the network adapter's: each calls the one above and, for asyncio, starts
# what it returns.
ADAPTED = tuple(f"_{name}" for name in HOOKS if name.startswith("onMessage"))
ALL_HOOKS = frozenset(HOOKS + ADAPTED)

_writer = FrameWriter(mask=False)


class NvxUtf8Validator(wsaccel.Utf8Validator):
    """Like the host's compiled one: after a wrong byte it takes anything."""

    __slots__ = ()

    def validate(self, ba: Any) -> tuple[bool, bool, int, int]:
        """Take the next piece; see the base class."""
        if self._bad:
            self._index += len(ba)
            return True, False, len(ba), self._index
        return super().validate(ba)


def create_xor_masker(mask: Any, length: Any = None) -> wsaccel.XorMaskerSimple:
    """Return a masker for a frame.

    Args:
        mask: The masking key, 4 bytes.
        length: Not used: one masker serves for all sizes.
    """
    return wsaccel.XorMaskerSimple(mask)


def is_quiet(kind: type, base: Any) -> bool:
    """Whether a class sees messages only when they are complete."""
    if any(getattr(kind, name) is not getattr(base, name) for name in HOOKS):
        return False
    for name in ADAPTED:
        function: Any = getattr(kind, name, None)
        if getattr(function, "__module__", "") not in ADAPTERS:
            return False
        if function.__qualname__ != f"WebSocketAdapterProtocol.{name}":
            return False
    return True


def fast_process_data(original: Any, protocol: ModuleType) -> Any:
    """Return ``WebSocketProtocol.processData``."""
    base: Any = protocol.WebSocketProtocol
    header: Any = protocol.FrameHeader
    is_open = base.STATE_OPEN
    quiet: dict[type, bool] = {}

    def processData(self: Any) -> Any:
        data = self.data
        if (
            self.current_frame is not None
            or self.inside_message
            or len(data) < 2
            or data[0] not in (0x81, 0x82)
            or type(data) is not bytes
            or self.state != is_open
        ):
            return original(self)
        second = data[1]
        masked = second >= 0x80
        length = second & 0x7F
        start = 2
        if length > 125:
            start = 4 if length == 126 else 10
            least = 126 if length == 126 else 65536
            length = int.from_bytes(data[2:start], "big")
            if length < least:
                return original(self)
        if masked:
            start += 4
        end = start + length
        kind = type(self)
        known = quiet.get(kind)
        if known is None:
            known = quiet[kind] = is_quiet(kind, base)
        if (
            len(data) < end
            or not known
            or masked != self.factory.isServer
            or 0 < self.maxMessagePayloadSize < length
            or 0 < self.maxFramePayloadSize < length
            or self.failedByMe
            or self.logFrames
            or self.trackedTimings
            or self._listeners is not None
            or not self.applyMask
            or self.websocket_version == 0
            or not ALL_HOOKS.isdisjoint(self.__dict__)
        ):
            return original(self)
        mask = None
        payload = data[start:end]
        if masked:
            mask = data[start - 4 : start]
            payload = apply_mask(payload, mask)
        is_binary = data[0] == 0x82
        checked = not is_binary and self.utf8validateIncoming
        if checked and not payload.isascii():
            utf8 = Utf8Validator()
            if utf8.feed(payload) >= 0 or not utf8.is_complete:
                return original(self)

        self.data = data[end:]
        self.current_frame = header(data[0] & 15, True, 0, length, mask)
        self.inside_message = True
        self._isMessageCompressed = False
        self.utf8validateIncomingCurrentMessage = checked
        if checked:
            self.utf8validateLast = (True, True, length, length)
        self.message_is_binary = is_binary
        self.message_data_total_length = self.frame_length = length
        self.frame_data = None
        self.message_data = [payload]
        stats = self.trafficStats
        stats.incomingOctetsWebSocketLevel += length
        stats.incomingOctetsAppLevel += length
        stats.incomingWebSocketFrames += 1
        if self.autoPingTimeoutCall and self.autoPingRestartOnAnyTraffic:
            self._cancelAutoPingTimeoutCall()
        stats.incomingWebSocketMessages += 1
        try:
            self._onMessage(payload, is_binary)
        except BaseException:
            # The host stops inside the frame, too, with its payload read.
            self.current_frame_masker = create_xor_masker(mask or bytes(4))
            self.current_frame_masker.process(payload)
            if checked:
                self.utf8validator.reset()
                self.utf8validator.validate(payload)
            raise
        self.message_data = None
        self.inside_message = False
        self.current_frame = None
        return len(self.data) > 0

    return processData


def fast_send_frame(original: Any, protocol: ModuleType) -> Any:
    """Return ``WebSocketProtocol.sendFrame``."""
    random: Any = protocol.random

    def sendFrame(
        self: Any,
        opcode: Any,
        payload: Any = b"",
        fin: Any = True,
        rsv: Any = 0,
        mask: Any = None,
        payload_len: Any = None,
        chopsize: Any = None,
        sync: Any = False,
    ) -> Any:
        if (
            payload_len is not None
            or mask
            or type(payload) is not bytes
            or type(opcode) is not int
            or not 0 <= opcode <= 15
            or rsv not in (0, 4)
            or self.logFrames
        ):
            return original(
                self, opcode, payload, fin, rsv, mask, payload_len, chopsize, sync
            )
        is_server = self.factory.isServer
        if self.maskServerFrames if is_server else self.maskClientFrames:
            # Where the host takes it from, so that a seed gives what it gave.
            key = random.getrandbits(32).to_bytes(4, "big")
            raw = build_header(
                opcode, len(payload), fin=bool(fin), rsv=rsv << 4, mask=key
            )
            raw += apply_mask(payload, key) if self.applyMask else payload
        elif opcode < 8 and not rsv:
            raw = _writer.frame(opcode, payload, bool(fin))
        else:
            raw = build_header(opcode, len(payload), fin=bool(fin), rsv=rsv << 4)
            raw += payload
        if opcode < 3:
            self.trafficStats.outgoingWebSocketFrames += 1
        self.sendData(raw, sync, chopsize)
        return None

    return sendFrame


def fast_send_data(original: Any, protocol: ModuleType) -> Any:
    """Return ``WebSocketProtocol.sendData``."""
    is_open = protocol.WebSocketProtocol.STATE_OPEN

    def sendData(self: Any, data: Any, sync: Any = False, chopsize: Any = None) -> Any:
        if (
            chopsize
            or sync
            or self.send_queue
            or self.state != is_open
            or self.logOctets
            # The host makes up the words of a line that nobody logs.
            or getattr(self.log.debug, "__name__", "") != "_no_op"
        ):
            return original(self, data, sync, chopsize)
        self.transport.write(data)
        if self.state == is_open:
            self.trafficStats.outgoingOctetsWireLevel += len(data)
        return None

    return sendData


class AutobahnPatch(Patch):
    """Replaces masks, UTF-8, and the way of a message in one frame."""

    host = "autobahn"
    modules = ("autobahn.websocket.protocol",)
    versions = ("26.10", "26.11")
    gain = "masks, UTF-8 and messages in one frame are compiled"

    def self_test(self) -> None:
        """Compare what is compiled with what the host does."""
        protocol = self.module("autobahn.websocket.protocol")
        key = b"\x01\x80\xff\x00"
        for data in (b"a", b"abcde", bytes(range(256))):
            theirs = protocol.create_xor_masker(key, len(data))
            ours = create_xor_masker(key, len(data))
            for _ in range(2):
                if theirs.process(data) != ours.process(data):
                    raise ValueError("masks are not what they were")
            if theirs.pointer() != ours.pointer():
                raise ValueError("a masker counts differently")
        for pieces in (
            (b"abc", b""),
            (b"\xe2", b"\x98", b"\x83"),
            (b"ab\xff", b"cd", b""),
            (b"a\xed", b"\xa0"),
            (b"\xf4\x90", b"a"),
        ):
            theirs, ours = protocol.Utf8Validator(), self.validator()()
            for piece in pieces:
                if theirs.validate(piece) != ours.validate(piece):
                    raise ValueError("UTF-8 is not judged as it was")
        for name in HOOKS:
            if not callable(getattr(protocol.WebSocketProtocol, name, None)):
                raise ValueError(f"there is no {name}()")

    def validator(self) -> type:
        """Return the validator that is like the one the host has."""
        theirs = self.module("autobahn.websocket.protocol").Utf8Validator
        is_nvx = theirs.__module__ == "autobahn.nvx._utf8validator"
        return NvxUtf8Validator if is_nvx else wsaccel.Utf8Validator

    def apply(self) -> None:
        """Replace them."""
        protocol = self.module("autobahn.websocket.protocol")
        base: Any = protocol.WebSocketProtocol
        validator = self.validator()
        self.replace(protocol, "create_xor_masker", create_xor_masker)
        self.replace(protocol, "Utf8Validator", validator)
        process_data = fast_process_data(base.processData, protocol)
        self.replace(base, "processData", process_data)
        self.replace(base, "sendFrame", fast_send_frame(base.sendFrame, protocol))
        self.replace(base, "sendData", fast_send_data(base.sendData, protocol))


PATCH = AutobahnPatch
