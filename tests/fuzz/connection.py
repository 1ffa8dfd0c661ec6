"""Compression, its negotiation, and the protocol of both ends."""

from __future__ import annotations

import logging
import zlib
from functools import cache
from typing import Any

from websock._kernels_py import apply_mask, parse_header
from websock.client import ClientProtocol
from websock.datastructures import Headers
from websock.exceptions import (
    InvalidHandshake,
    InvalidState,
    PayloadTooBig,
    ProtocolError,
)
from websock.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websock.frames import Frame
from websock.handshake import accept_extensions, accept_key, negotiate_extensions
from websock.headers import build_extension, parse_extension
from websock.http11 import Request
from websock.protocol import CLIENT, Protocol, State
from websock.server import ServerProtocol
from websock.uri import parse_uri

from .inputs import Input, same, twins

__all__ = ["client", "deflate", "negotiation", "server"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SILENT = logging.Logger("fuzz", logging.CRITICAL)

REQUEST = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
).encode()
RESPONSE = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {accept_key(KEY)}\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
).encode()


def inflated(data: bytes) -> bytes | None:
    """Return what a message without final blocks holds; ``None`` if it has one."""
    decoder = zlib.decompressobj(wbits=-15)
    output = decoder.decompress(data + b"\x00\x00\xff\xff")
    return None if decoder.eof else output


def deflate(data: bytes) -> None:
    """Input: settings, limit, size of fragments; a payload that claims compression."""
    source = Input(data)
    flags, limit, size = source.byte(), source.choose((None, 0, 100)), source.byte()
    payload = source.rest()

    def transform() -> Any:
        return PerMessageDeflate(bool(flags & 1), bool(flags & 2), 15, 15).transform

    def decode(pieces: list[bytes]) -> tuple[bytes, str]:
        decoder = transform()
        output = b""
        for number, piece in enumerate(pieces):
            room = None if limit is None else limit - len(output)
            try:
                output += decoder.decode(
                    0 if number else 2,
                    number == len(pieces) - 1,
                    0 if number else 0x40,
                    piece,
                    room,
                )
            except PayloadTooBig:
                return b"", "too big"
            except ProtocolError as exc:
                return b"", str(exc)
            assert limit is None or len(output) <= limit
        return output, ""

    size = size or 1
    whole = decode([payload])
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)] or [b""]
    parts = decode(pieces)
    try:
        expected = inflated(payload)
    except zlib.error:
        assert whole[1]
        assert parts[1]
    else:
        if expected is not None and not whole[1]:
            assert whole[0] == expected
            assert parts == whole
    # What this side makes of it the other side reads.
    encoder = transform()
    alone = bool(flags & 2), bool(flags & 1)
    decoder: Any = PerMessageDeflate(*alone, 15, 15).transform
    for message in (payload, *pieces[:5], payload):
        rsv, packed = encoder.encode(2, True, message)
        assert decoder.decode(2, True, rsv, packed, len(message)) == message


def negotiation(data: bytes) -> None:
    """Input: settings of both sides; an offer, and an answer from elsewhere."""
    source = Input(data)
    flags = source.byte()
    bits = (None, 9, 10, 15, 12)
    server = ServerPerMessageDeflateFactory(
        server_no_context_takeover=bool(flags & 1),
        client_no_context_takeover=bool(flags & 2),
        server_max_window_bits=source.choose(bits),
        client_max_window_bits=source.choose(bits),
    )
    client_bits = source.choose((None, True, 9, 15))
    client = ClientPerMessageDeflateFactory(
        server_no_context_takeover=bool(flags & 4),
        client_no_context_takeover=bool(flags & 8),
        server_max_window_bits=source.choose(bits),
        client_max_window_bits=client_bits,
    )
    text = source.rest().decode("latin-1")
    head = offering(text)

    # Any offer, and any answer: negotiated, declined or refused.
    try:
        answer, extensions = negotiate_extensions(head, [server])
        assert (answer is None) == (not extensions)
        if answer is not None:
            assert len(parse_extension(answer)) == len(extensions) == 1
    except InvalidHandshake:
        pass
    try:
        assert len(accept_extensions(head, [client])) <= 1
    except InvalidHandshake:
        pass

    # Our own client's offer, and the answer that our own server gives.
    offer = build_extension([(client.name, list(client.get_request_params()))])
    answer, extensions = negotiate_extensions(offering(offer), [server])
    assert answer is not None
    (theirs,) = extensions
    (ours,) = accept_extensions(offering(answer), [client])
    assert isinstance(ours, PerMessageDeflate)
    assert isinstance(theirs, PerMessageDeflate)
    for end, other in ((ours, theirs), (theirs, ours)):
        assert end.local_max_window_bits <= other.remote_max_window_bits
        assert end.local_no_context_takeover >= other.remote_no_context_takeover
        frame = end.encode(Frame(1, b"hello, hello, hello" * 4))  # type: ignore[arg-type]
        assert other.decode(frame).data == b"hello, hello, hello" * 4


def offering(extensions: str) -> Headers:
    headers = Headers()
    headers.set_insecure("Sec-WebSocket-Extensions", extensions)
    return headers


@cache
def parsing_with(base: type[Any], module: Any) -> type[Any]:
    """Derive an end of a connection that uses one twin of the codec."""

    class End(base):  # type: ignore[misc]
        def make_reader(self, assemble: bool = True, max_fragments: int = 1000) -> Any:
            return module.FrameReader(
                expect_mask=self.side is not CLIENT,
                max_message_size=self.max_message_size,
                max_fragment_size=self.max_fragment_size,
                max_fragments=max_fragments,
                transform=self.transform,
                assemble=assemble,
            )

        def make_writer(self) -> Any:
            return module.FrameWriter(
                mask=self.side is CLIENT, transform=self.transform
            )

    return End


def act(end: Protocol, action: int, payload: bytes) -> None:
    """Do one of the things that programs and networks do."""
    fin = bool(action & 8)
    match action % 8:
        case 0 | 1 | 2:
            end.receive_data(payload)
        case 3:
            end.send_text(payload, fin)
        case 4:
            end.send_binary(payload, fin)
        case 5:
            (end.send_ping if fin else end.send_pong)(payload)
        case 6:
            end.send_continuation(payload, fin)
        case _:
            code = int.from_bytes(payload[:2], "big")
            reason = payload[2:].decode("utf-8", "replace")
            if action & 16:
                end.receive_eof()
            elif action & 8:
                end.fail(code, reason)
            else:
                end.send_close(code or None, reason)


def show(event: Any) -> Any:
    """Return what an event is, comparable."""
    if isinstance(event, Frame):
        return event.opcode, bytes(event.data), event.fin
    if isinstance(event, Request):
        return event.path, list(event.headers.raw_items())
    return event.status_code, list(event.headers.raw_items()), event.body


def run(end: Any, source: Input, open_at_once: bool) -> list[Any]:
    """Go through a script; return everything that can be seen of the connection."""
    seen: list[Any] = []
    sent_head = open_at_once
    while True:
        for event in end.events_received():
            seen.append(show(event))
            if isinstance(event, Request):
                end.send_response(end.accept(event))
        for data in end.data_to_send():
            if end.side is CLIENT and sent_head:
                seen.append(unmasked(data))
            elif end.side is CLIENT:
                sent_head = True
            else:
                lines = data.split(b"\r\n")
                seen.append([line for line in lines if not line.startswith(b"Date:")])
        errors = (end.handshake_exc, end.parser_exc)
        seen.append((end.state, end.eof_sent, end.close_expected(), *map(repr, errors)))
        if not source:
            break
        action, length = source.byte(), source.byte()
        payload = source.take(length)
        try:
            act(end, action, payload)
        except (InvalidState, ProtocolError, EOFError) as exc:
            seen.append((type(exc).__name__, str(exc)))
    seen.append((end.close_code, end.close_reason, end.close_rcvd_then_sent))
    if end.close_code is not None:
        seen.append(str(end.close_exc))
    return seen


def unmasked(data: bytes) -> Any:
    """Return a frame of a client without its mask, which is random."""
    if not data:
        return data  # the end of the stream
    head = parse_header(data, expect_mask=True, allowed_rsv=0x70)
    assert head is not None
    assert len(data) == head.size + head.length
    return head.fin, head.opcode, head.rsv, apply_mask(data[head.size :], head.mask)


def settings(flags: int, extension: Any) -> dict[str, Any]:
    """Return what ends are made with; by bit 32 without a handshake, which costs most."""
    opened = {"state": State.OPEN} if flags & 32 else {}
    return {
        "extensions": [extension] if flags & 1 else None,
        "max_size": (None, 10, (1000, 10), 1000)[flags >> 1 & 3],
        "logger": SILENT,
        **opened,
    }


def server(data: bytes) -> None:
    """Input: settings; actions with a length and a payload."""
    results = {}
    for tag, module in twins("codec").items():
        source = Input(data)
        flags = source.byte()
        end = parsing_with(ServerProtocol, module)(
            **settings(flags, ServerPerMessageDeflateFactory())
        )
        if flags & 32:
            end.extensions = negotiated(flags)
        elif flags & 8:
            end.receive_data(REQUEST)
        results[tag] = run(end, source, bool(flags & 32))
    same(results)


def client(data: bytes) -> None:
    """Input: settings; actions with a length and a payload."""
    results = {}
    for tag, module in twins("codec").items():
        source = Input(data)
        flags = source.byte()
        end = parsing_with(ClientProtocol, module)(
            parse_uri("ws://localhost"),
            **settings(flags, ClientPerMessageDeflateFactory()),
        )
        if flags & 32:
            end.extensions = negotiated(flags)
        else:
            end.key = KEY
            end.send_request(end.connect())
            if flags & 8:
                end.receive_data(RESPONSE)
        results[tag] = run(end, source, bool(flags & 32))
    same(results)


def negotiated(flags: int) -> list[Any]:
    """Return what a handshake would have left, with windows of 15 bits."""
    return [PerMessageDeflate(False, False, 15, 15)] if flags & 1 else []
