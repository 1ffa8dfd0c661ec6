"""The library websockets, with its frames read and written by compiled code.

Its sans-IO protocol is the one place where frames are read and written, so asyncio,
threads, trio, Sanic and uvicorn's default have them from there; asyncio connections get
shorter ways for whole messages besides.  ``engine=True`` goes further, and puts
connections of :mod:`websock.asyncio` under ``connect()`` and ``serve()``.
"""

from __future__ import annotations

from typing import Any

from ..constants import OP_BINARY, OP_TEXT
from . import _websockets_asyncio as fast_asyncio
from . import _websockets_engine as engine
from . import _websockets_frames as fast_frames
from ._patch import Patch

__all__ = ["PATCH"]

EXCEPTIONS = "websockets.exceptions"
FRAMES = "websockets.frames"
PROTOCOL = "websockets.protocol"
LEGACY = "websockets.legacy.framing"
CONNECTION = "websockets.asyncio.connection"
MESSAGES = "websockets.asyncio.messages"
CLIENT = "websockets.asyncio.client"
SERVER = "websockets.asyncio.server"
ROUTER = "websockets.asyncio.router"


class WebsocketsPatch(Patch):
    """Replaces the parser, the frames and the masks of websockets.

    Options:
        engine: Whether ``connect()`` and ``serve()`` make connections of this library.
    """

    host = "websockets"
    modules = (EXCEPTIONS, FRAMES, PROTOCOL)
    parts = (MESSAGES, CONNECTION, LEGACY, CLIENT, SERVER, ROUTER)
    versions = ("16.1.1", "18")
    gain = "frames are read and written by compiled code"
    options = {"engine": False}

    def self_test(self) -> None:
        """Send and receive, and compare with what the host does."""
        frames: Any = self.module(FRAMES)
        protocol: Any = self.module(PROTOCOL)
        kind = protocol.Protocol
        serialize = fast_frames.make_serialize(frames, frames.Frame.serialize)
        mask = fast_frames.make_apply_mask(frames.apply_mask)
        if mask(b"12345", b"abcd") != frames.apply_mask(b"12345", b"abcd"):
            raise ValueError("masks differ")
        fast = type(
            kind.__name__,
            (kind,),
            {"parse": fast_frames.make_parse(frames, protocol, kind.parse)},
        )
        kinds = frames.Opcode
        for side, is_masked in ((protocol.SERVER, True), (protocol.CLIENT, False)):
            stream = b""
            for size in (0, 1, 125, 126, 65536):
                for opcode, data, fin in (
                    (kinds.TEXT, b"a" * size, False),
                    (kinds.PING, b"ping", True),
                    (kinds.CONT, b"b" * size, True),
                    (kinds.BINARY, bytes(range(256)) * (size // 256), True),
                    (kinds.PONG, b"", True),
                ):
                    frame = frames.Frame(opcode, data, fin)
                    sent = serialize(frame, mask=is_masked)
                    if not is_masked and sent != frame.serialize(mask=False):
                        raise ValueError("frames differ")
                    stream += sent
            stream += serialize(frames.Frame(kinds.CLOSE, b""), mask=is_masked)
            outcomes = [self.receive(one(side), stream) for one in (kind, fast)]
            if outcomes[0] != outcomes[1]:
                raise ValueError("the parser does not find what the host's finds")

    @staticmethod
    def receive(receiver: Any, stream: bytes) -> Any:
        """Return what a protocol makes of bytes that come in two parts."""
        receiver.receive_data(stream[:100])
        receiver.receive_data(stream[100:])
        outcome = (receiver.events_received(), receiver.state, receiver.close_rcvd)
        return outcome, repr(receiver.parser_exc), len(receiver.data_to_send())

    def apply(self) -> None:
        """Replace the frames and the parser."""
        frames: Any = self.module(FRAMES)
        protocol: Any = self.module(PROTOCOL)
        mask = fast_frames.make_apply_mask(frames.apply_mask)
        serialize = fast_frames.make_serialize(frames, frames.Frame.serialize)
        kind = protocol.Protocol
        text = fast_frames.make_sender(protocol, OP_TEXT, kind.send_text)
        binary = fast_frames.make_sender(protocol, OP_BINARY, kind.send_binary)
        parse = fast_frames.make_parse(frames, protocol, kind.parse)
        self.replace(frames, "apply_mask", mask)
        self.replace(frames.Frame, "serialize", serialize)
        self.replace(kind, "send_text", text)
        self.replace(kind, "send_binary", binary)
        self.replace(kind, "parse", parse)
        if self.chosen["engine"]:
            engine.adopt_exceptions(self.module(EXCEPTIONS))

    def apply_part(self, name: str) -> None:
        """Replace what one of the modules of its APIs has."""
        module: Any = self.module(name)
        if name == LEGACY:
            mask = fast_frames.make_apply_mask(module.apply_mask)
            self.replace(module, "apply_mask", mask)
        elif name == MESSAGES:
            get = fast_asyncio.make_get(module.Assembler.get)
            self.replace(module.Assembler, "get", get)
        elif name == CONNECTION:
            client = self.module(PROTOCOL).CLIENT
            send = fast_asyncio.make_send(module, client, module.Connection.send)
            self.replace(module.Connection, "send", send)
        if self.chosen["engine"]:
            for attribute, value in engine.replacements(name, module):
                self.replace(module, attribute, value)


PATCH = WebsocketsPatch
