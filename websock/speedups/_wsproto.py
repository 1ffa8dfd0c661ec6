"""wsproto with its frames read and written by compiled code.

So hypercorn, trio-websocket, httpx-ws, simple-websocket and uvicorn's
``--ws wsproto`` have them, too.  New connections are made with the faster
``FrameProtocol``; those that are open keep theirs.
"""

from __future__ import annotations

from typing import Any

from . import _wsproto_events as fast_events
from . import _wsproto_frames as fast
from ._patch import Patch

__all__ = ["PATCH"]

FRAMES = "wsproto.frame_protocol"
CONNECTION = "wsproto.connection"


class WsprotoPatch(Patch):
    """Replaces the frame protocol and the masks of wsproto."""

    host = "wsproto"
    modules = (FRAMES, CONNECTION)
    versions = ("1.3.2", "1.4")
    gain = "frames are read and written by compiled code"

    def self_test(self) -> None:
        """Send and receive, and compare with what the host does."""
        frames: Any = self.module(FRAMES)
        slow = frames.FrameProtocol
        made = fast.make_frame_protocol(frames, slow)
        masker = fast.make_masker(frames.XorMaskerSimple)
        for one in (masker, frames.XorMaskerSimple):
            mask = one(b"abcd")
            if mask.process(bytearray(5)) + mask.process(bytearray(4)) != b"abcdabcda":
                raise ValueError("masks differ")
        kinds = (slow, made)
        for is_client in (False, True):
            streams = [self.send(kind(is_client, [])) for kind in kinds]
            # What a client sends is masked at random.
            if not is_client and streams[0] != streams[1]:
                raise ValueError("frames differ")
            found = [
                self.receive(kind(not is_client, []), stream)
                for kind in kinds
                for stream in streams
            ]
            if any(one != found[0] for one in found):
                raise ValueError("the parser does not find what the host's finds")

    @staticmethod
    def send(sender: Any) -> bytes:
        """Return the bytes of frames of each kind."""
        stream = b""
        for size in (0, 1, 125, 126, 65536):
            stream += sender.send_data("é" * (size // 2))
            stream += sender.send_data(bytes(size), fin=False)
            stream += sender.ping(bytes(min(size, 125)))
            stream += sender.send_data(bytes(range(256)) * (size // 256))
        return bytes(stream + sender.pong(b"x") + sender.close(1001, "é"))

    @staticmethod
    def receive(receiver: Any, stream: bytes) -> Any:
        """Return what a protocol makes of bytes that come in two parts."""
        receiver.receive_bytes(stream[:1000])
        found = [*receiver.received_frames()]
        receiver.receive_bytes(stream[1000:])
        return [*found, *receiver.received_frames()]

    def apply(self) -> None:
        """Replace the frame protocol and the masks."""
        frames: Any = self.module(FRAMES)
        connection: Any = self.module(CONNECTION)
        made = fast.make_frame_protocol(frames, frames.FrameProtocol)
        masker = fast.make_masker(frames.XorMaskerSimple)
        self.replace(frames, "XorMaskerSimple", masker)
        self.replace(frames, "FrameProtocol", made)
        self.replace(connection, "FrameProtocol", made)
        kind = connection.Connection
        self.replace(kind, "send", fast_events.make_send(connection, made, kind.send))
        events = fast_events.make_events(connection, made, kind.events)
        self.replace(kind, "events", events)


PATCH = WsprotoPatch
