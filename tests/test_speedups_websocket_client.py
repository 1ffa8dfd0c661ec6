"""websocket-client with and without its speed-up: nobody can tell them apart."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
import websocket
from host_patches import KEY, outcome, patched, split
from hypothesis import given, settings
from hypothesis import strategies as st
from websocket import ABNF, WebSocket
from websocket._abnf import frame_buffer

from websock._kernels import build_header
from websock.handshake import accept_key
from websock.speedups._websocket_client import PATCH

TIMEOUT = 60  # seconds

PLAIN: Callable[..., Any] = websocket._abnf.validate_utf8

payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xe8\xff", b"\x03"]),
    st.sampled_from([125, 126, 127, 65535, 65536]).map(bytes),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame, most of the time a good one; bad lengths and opcodes too."""
    payload = draw(payloads)
    opcode = draw(st.sampled_from([0, 1, 1, 2, 8, 9, 10, 3, 11]))
    mask = draw(st.sampled_from([None, None, KEY]))
    rsv = draw(st.sampled_from([0, 0, 0, 0, 0x40, 0x10]))
    header = build_header(
        opcode, len(payload), fin=draw(st.booleans()), rsv=rsv, mask=mask
    )
    if draw(st.integers(0, 9)) == 0:
        header = header[:1] + bytes([127]) + len(payload).to_bytes(8, "big")
    return header + payload


class Late(Exception):
    """What stands for a timeout."""


class Feed:
    """The function that a ``frame_buffer`` reads with."""

    def __init__(self, pieces: list[Any]) -> None:
        self.pieces = pieces
        self.asked: list[int] = []

    def __call__(self, size: int) -> Any:
        self.asked.append(size)
        if not self.pieces:
            raise EOFError("there is no more")
        piece = self.pieces.pop(0)
        if not isinstance(piece, bytes):
            raise piece
        if len(piece) > size:
            self.pieces.insert(0, piece[size:])
        return piece[:size]


def seen(frame: Any) -> Any:
    if not isinstance(frame, ABNF):
        return frame
    return (
        type(frame),
        str(frame),
        {k: v for k, v in vars(frame).items() if k != "get_mask_key"},
    )


def read_all(
    pieces: list[Any], skip: bool, after: Callable[[], Any] | None = None
) -> Any:
    """Read frames to the end; note what comes, and what was asked of the socket."""
    feed = Feed(list(pieces))
    buffer = frame_buffer(feed, skip)
    notes: list[Any] = []
    while True:
        try:
            notes.append(seen(buffer.recv_frame()))
        except EOFError:
            break
        except Exception as exc:
            notes.append((type(exc), str(exc)))
        if after is not None:
            after()
    return (
        notes,
        feed.asked,
        buffer.recv_buffer,
        buffer.header,
        buffer.length,
        buffer.mask_value,
    )


@settings(deadline=None)
@given(
    st.lists(frames(), min_size=1, max_size=6),
    st.lists(st.integers(0, 200), max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
    st.booleans(),
)
def test_frames(
    wires: list[bytes], places: list[int], late: list[int], skip: bool
) -> None:
    pieces: list[Any] = list(split(b"".join(wires), places))
    for place in late:
        pieces.insert(place, Late())
    want = read_all(pieces, skip)
    with patched(PATCH):
        assert read_all(pieces, skip) == want


@settings(deadline=None)
@given(
    st.lists(frames(), min_size=1, max_size=6),
    st.lists(st.integers(0, 60), max_size=12),
)
def test_a_patch_that_comes_and_goes_between_reads(
    wires: list[bytes], places: list[int]
) -> None:
    pieces: list[Any] = []
    for piece in split(b"".join(wires), places):
        pieces += [piece, Late()]
    want = read_all(pieces, False)
    with contextlib.ExitStack() as stack:
        inside = False

        def change() -> None:
            nonlocal inside
            if inside:
                stack.close()
            else:
                stack.enter_context(patched(PATCH))
            inside = not inside

        assert read_all(pieces, False, change) == want


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_utf8(data: bytes) -> None:
    from websocket import _abnf, _utils

    others: list[Any] = [
        data,
        bytearray(data),
        memoryview(data),
        list(data),
        data.decode("latin-1"),
        None,
    ]
    want = [
        [outcome(f, o) for o in others]
        for f in (_abnf.validate_utf8, _utils._validate_utf8, _utils.validate_utf8)
    ]
    with patched(PATCH):
        assert [
            [outcome(f, o) for o in others]
            for f in (_abnf.validate_utf8, _utils._validate_utf8, _utils.validate_utf8)
        ] == want
        assert _abnf.validate_utf8 is not PLAIN
    assert _abnf.validate_utf8 is PLAIN


MASK_ARGUMENTS: list[tuple[Any, Any]] = [
    (KEY, b"some payload"),
    (KEY, b""),
    (KEY, None),
    ("\x01\xf2\x83\x74", "text"),
    (KEY, "snow ☃"),
    (KEY, bytearray(b"abc")),
    (bytearray(KEY), b"abc"),
    (KEY, memoryview(b"abc")),
    (b"\x01\x02", b"abcd"),
    (b"", b"abcd"),
    (KEY + KEY, b"abcdefgh"),
    (KEY, 3),
    (None, b"abc"),
    (KEY, bytes(range(256)) * 300),
]


@pytest.mark.parametrize("arguments", MASK_ARGUMENTS, ids=range(len(MASK_ARGUMENTS)))
def test_masks(arguments: tuple[Any, Any]) -> None:
    def both() -> list[Any]:
        results = [outcome(ABNF.mask, *arguments)]
        with contextlib.suppress(TypeError, ValueError):
            arrays = [array.array("B", argument) for argument in arguments]
            results.append(outcome(websocket._abnf._mask, *arrays))
        return results

    want = both()
    with patched(PATCH):
        assert both() == want


FORMATS: list[dict[str, Any]] = [
    {"fin": fin, "opcode": opcode, "mask_value": mask, "data": data}
    for fin in (0, 1, True, 2)
    for opcode in (0, 1, 2, 3, 8, 9, 10)
    for mask in (0, 1, 2)
    for data in (
        b"",
        b"bytes",
        "text",
        "☃",
        bytes(126),
        bytes(65536),
        bytearray(b"a"),
        None,
    )
] + [
    {"fin": 1, "rsv1": 1, "data": b"x"},
    {"fin": 1, "rsv3": 2, "data": b"x"},
    {"data": 3},
]


def test_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(ABNF):
        def _get_masked(self, mask_key: Any) -> bytes:
            return b"own"

    def all_formats(unmask: bool) -> list[Any]:
        results = []
        for kind in (ABNF, Own):
            for arguments in FORMATS:
                frame = kind(**arguments)
                if not unmask:
                    frame.get_mask_key = lambda size: KEY
                found = outcome(frame.format)
                if unmask and found[0] == "returned":
                    found = (*found[:2], without_mask(found[2]))
                results.append(found)
        return results

    want = all_formats(False), all_formats(True)
    with patched(PATCH):
        assert all_formats(False) == want[0]
        assert all_formats(True) == want[1]
        # Masks differ, and a function of the program's own is asked.
        wires = {ABNF.create_frame("text", 1).format() for _ in range(50)}
        assert len(wires) == 50
        monkeypatch.setattr(os, "urandom", lambda size: b"\x05" * size)
        assert ABNF.create_frame("text", 1).format()[2:6] == b"\x05" * 4


def without_mask(wire: bytes) -> Any:
    """Return a frame with the mask taken off, and a mask of the same size in front."""
    if len(wire) < 2 or not wire[1] & 0x80:
        return wire
    at = {126: 4, 127: 10}.get(wire[1] & 0x7F, 2)
    if wire[at:] == b"own":
        return wire
    mask, payload = wire[at : at + 4], wire[at + 4 :]
    return wire[:at], bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))


# -- sockets ---------------------------------------------------------------------------


class Peer:
    """A server for one client, on a plain socket, that sends what it is told."""

    def __init__(
        self, pieces: list[bytes], context: ssl.SSLContext | None = None
    ) -> None:
        self.pieces = pieces
        self.context = context
        self.events: list[Any] = []
        self.failure: BaseException | None = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(TIMEOUT)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.guarded)

    def __enter__(self) -> Peer:
        self.thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        self.listener.close()
        if self.failure is not None:
            raise self.failure

    def guarded(self) -> None:
        try:
            self.serve()
        except BaseException as exc:
            self.failure = exc

    def serve(self) -> None:
        sock, _ = self.listener.accept()
        sock.settimeout(TIMEOUT)
        if self.context is not None:
            sock = self.context.wrap_socket(sock, server_side=True)
        with sock:
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            lines = dict(
                line.split(": ", 1)
                for line in head.decode().split("\r\n")
                if ": " in line
            )
            accept = accept_key(lines["Sec-WebSocket-Key"])
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                + accept.encode()
                + b"\r\n\r\n"
            )
            for piece in self.pieces:
                sock.sendall(piece)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := sock.recv(65536):
                    received += data
            self.events = unmasked(received)


def unmasked(wire: bytes) -> list[Any]:
    """Return the frames of a client."""
    from websock._codec import FrameReader

    reader = FrameReader(expect_mask=True, assemble=False)
    events = reader.feed(wire)
    return [*events, str(reader.error)]


def conversation(
    pieces: list[bytes], context: Any = None, trust: Any = None, **options: Any
) -> Any:
    """Receive until it ends, and answer each message; note all that is seen."""
    notes: list[Any] = []
    scheme = "ws" if context is None else "wss"
    if trust is not None:
        options["sslopt"] = {"ca_certs": trust}
    with Peer(pieces, context) as peer:
        ws = websocket.create_connection(
            f"{scheme}://127.0.0.1:{peer.port}", timeout=TIMEOUT, **options
        )
        try:
            while True:
                found = outcome(ws.recv_data, True)
                notes.append(found)
                if found[0] == "raised" or found[2][0] == ABNF.OPCODE_CLOSE:
                    break
                opcode, data = found[2]
                if opcode in (1, 2):
                    notes.append(outcome(ws.send, data, opcode))
                    notes.append(
                        outcome(ws.send, "text" if opcode == 1 else b"bytes", opcode)
                    )
        finally:
            notes.append(ws.connected)
            ws.shutdown()
    return notes, peer.events


def server_frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    return build_header(opcode, len(payload), fin=fin) + payload


SCRIPTS: dict[str, list[bytes]] = {
    "messages": [
        server_frame(1, "naïve ☃".encode()),
        server_frame(2, bytes(range(256)) * 300),
        server_frame(1, b""),
        server_frame(1, b"x" * 126),
        server_frame(8, b"\x03\xe8bye"),
    ],
    "fragments": [
        server_frame(1, "☃".encode()[:2], False),
        server_frame(9, b"ping"),
        server_frame(0, "☃".encode()[2:]),
        server_frame(10, b"pong"),
        server_frame(8, b""),
    ],
    "invalid text": [server_frame(1, b"good"), server_frame(1, b"bad \xff")],
    "unfinished text": [server_frame(1, b"bad \xe2\x98"), server_frame(1, b"next")],
    "invalid close": [server_frame(8, b"\x03\xee")],
    "invalid reason": [server_frame(8, b"\x03\xe8\xff\xff")],
    "unknown opcode": [server_frame(1, b"good"), b"\x83\x00"],
    "reserved bit": [b"\xc1\x01x"],
    "no beginning": [server_frame(0, b"rest")],
    "masked": [
        build_header(1, 4, mask=bytes(4)) + b"text",
        server_frame(8, b"\x03\xe9"),
    ],
    "cut off": [server_frame(1, b"good"), server_frame(1, b"half of it")[:5]],
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skip_utf8_validation": True},
        {"fire_cont_frame": True},
        {"enable_multithread": False},
    ],
    ids=str,
)
def test_conversations(script: str, options: dict[str, Any]) -> None:
    want = conversation(SCRIPTS[script], **options)
    with patched(PATCH):
        assert conversation(SCRIPTS[script], **options) == want


def test_tls(tmp_path: Any) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trust = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(trust))
    want = conversation(SCRIPTS["messages"], context, str(trust))
    with patched(PATCH):
        assert conversation(SCRIPTS["messages"], context, str(trust)) == want


@contextlib.contextmanager
def joined() -> Iterator[tuple[WebSocket, socket.socket]]:
    """A client that is connected, and its peer's socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(TIMEOUT)
        ws = WebSocket()
        ws.sock, ws.connected = ours, True
        yield ws, theirs


@pytest.mark.parametrize("timeout", [0, 0.01], ids=["non-blocking", "timeout"])
def test_nothing_to_read_and_no_room_to_write(timeout: float) -> None:
    def talk() -> list[Any]:
        with joined() as (ws, peer):
            ws.settimeout(timeout)
            ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            notes = [outcome(ws.recv)]
            peer.sendall(server_frame(1, b"text")[:4])
            notes.append(outcome(ws.recv))
            peer.sendall(server_frame(1, b"text")[4:])
            notes.append(outcome(ws.recv))
            for _ in range(1000):
                found = outcome(ws.send, "x" * 60000)
                if found[0] == "raised":
                    notes.append(found)
                    break
            peer.close()
            notes.append(outcome(ws.recv)[:2])
            return notes

    want = talk()
    assert want[0][0] == want[1][0] == want[3][0] == "raised"
    assert want[2] == ("returned", str, "text")
    with patched(PATCH):
        assert talk() == want


def test_nothing_is_read_ahead() -> None:
    """Who asks select() about the socket sees the next message there."""
    with patched(PATCH), joined() as (ws, peer):
        peer.sendall(
            server_frame(1, b"one")
            + server_frame(2, b"x" * 200)
            + server_frame(1, b"two")
        )
        assert ws.recv() == "one"
        assert ws.recv() == b"x" * 200
        assert ws.sock.recv(100) == server_frame(1, b"two")


def test_a_connection_that_lives_through_it() -> None:
    wire = server_frame(1, "snow ☃".encode())
    with joined() as (ws, peer):
        ws.settimeout(0)
        with patched(PATCH):
            peer.sendall(wire[:5])
            with pytest.raises(BlockingIOError):
                ws.recv()
        peer.sendall(wire[5:] + wire[:1])
        ws.settimeout(TIMEOUT)
        assert ws.recv() == "snow ☃"
        ws.settimeout(0)
        with pytest.raises(BlockingIOError):
            ws.recv()
        with patched(PATCH):
            peer.sendall(wire[1:])
            ws.settimeout(TIMEOUT)
            assert ws.recv() == "snow ☃"
            ws.send("☃")
        assert unmasked(peer.recv(100)) == [(1, "☃".encode(), True), "None"]


def test_all_is_put_back() -> None:
    from websocket import _abnf, _core, _utils

    owners = (_abnf, _core, _utils, ABNF, frame_buffer)
    before = [dict(vars(owner)) for owner in owners]
    with patched(PATCH):
        assert [dict(vars(owner)) for owner in owners] != before
    assert [dict(vars(owner)) for owner in owners] == before
