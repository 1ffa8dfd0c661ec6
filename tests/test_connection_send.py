"""The asyncio connection: sending, whole messages and fragments, and broadcasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from linked import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    TEXT,
    Link,
    close_payload,
    link_fixture,
    on_link,
    quiet_fixture,
    settle,
)
from scripted import tls_fixture

from websock.asyncio.connection import Connection, broadcast
from websock.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
)
from websock.extensions.base import Extension
from websock.frames import Close, Frame
from websock.protocol import State
from websock.typing import ExtensionName

tls = tls_fixture()
link = link_fixture("socket")
plain_link = link_fixture("socket", "transport")
any_link = link_fixture()
quiet = quiet_fixture()


async def later(*items: Any, gate: asyncio.Event | None = None) -> AsyncIterator[Any]:
    """An asynchronous iterator, which waits before its last item."""
    for number, item in enumerate(items, 1):
        if gate is not None and number == len(items):
            await gate.wait()
        yield item


# -- whole messages ------------------------------------------------------------------


MESSAGES = [
    pytest.param("é", None, TEXT, id="str"),
    pytest.param("é", True, TEXT, id="str-text"),
    pytest.param("é", False, BINARY, id="str-binary"),
    pytest.param(b"\xc3\xa9", None, BINARY, id="bytes"),
    pytest.param(b"\xc3\xa9", True, TEXT, id="bytes-text"),
    pytest.param(b"\xc3\xa9", False, BINARY, id="bytes-binary"),
    pytest.param(bytearray(b"\xc3\xa9"), None, BINARY, id="bytearray"),
    pytest.param(bytearray(b"\xc3\xa9"), True, TEXT, id="bytearray-text"),
    pytest.param(memoryview(b"\xc3\xa9"), None, BINARY, id="memoryview"),
    pytest.param(memoryview(b"\xc3\xa9"), True, TEXT, id="memoryview-text"),
    pytest.param(memoryview(b"\xc3.\xa9.")[::2], None, BINARY, id="strided"),
]


@pytest.mark.parametrize(("message", "text", "opcode"), MESSAGES)
@on_link
async def test_send(link: Link, message: Any, text: bool | None, opcode: int) -> None:
    async with link() as (ws, peer):
        assert await ws.send(message, text=text) is None  # type: ignore[func-returns-value]
        assert await peer.recv() == (opcode, b"\xc3\xa9", True)
        ws.send_nowait(message, text=text)
        assert await peer.recv() == (opcode, b"\xc3\xa9", True)
        # As the only fragment of a message.
        await ws.send([message], text=text)
        assert await peer.recv() == (opcode, b"\xc3\xa9", False)
        assert await peer.recv() == (CONT, b"", True)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
@on_link
async def test_send_sizes(any_link: Link, size: int) -> None:
    async with any_link() as (ws, peer):
        for message in ("x" * size, b"y" * size):
            sending = asyncio.ensure_future(ws.send(message))
            data = message.encode() if isinstance(message, str) else message
            assert (await peer.recv()).payload == data
            await sending


class Text(str):
    pass


class Bytes(bytes):
    pass


@on_link
async def test_send_subclasses(link: Link) -> None:
    async with link() as (ws, peer):
        await ws.send(Text("é"))
        await ws.send(Bytes(b"b"))
        assert await peer.recv() == (TEXT, "é".encode(), True)
        assert await peer.recv() == (BINARY, b"b", True)


@on_link
async def test_send_leaves_the_callers_memory_alone(link: Link) -> None:
    """What is sent is what there was at the call."""
    async with link(buffer_size=4096, write_limit=2**20) as (ws, peer):
        data = bytearray(b"x" * 200_000)
        await ws.send(data)
        await ws.send(memoryview(data))
        data[:] = b"y" * len(data)
        data.clear()
        for _ in range(2):
            assert (await peer.recv()).payload == b"x" * 200_000


WRONG = [
    (3, "message must be str, bytes-like, or an iterable of these, not int"),
    (None, "not NoneType"),
    ({}, "message must not be a mapping"),
    ({"key": "value"}, "message must not be a mapping"),
    ([3], "fragment must be str or bytes-like, not int"),
    ([None], "fragment must be str or bytes-like, not NoneType"),
    ([["x"]], "fragment must be str or bytes-like, not list"),
]


@pytest.mark.parametrize(("message", "text"), WRONG)
@on_link
async def test_send_wrong_types(link: Link, message: Any, text: str) -> None:
    async with link() as (ws, peer):
        for _ in range(2):
            with pytest.raises(TypeError, match=text):
                await ws.send(message)
        with pytest.raises(TypeError, match="message must be str or bytes-like"):
            ws.send_nowait(message)
        # Nothing was sent, and nothing is broken.
        await ws.send("fine")
        assert await peer.recv() == (TEXT, b"fine", True)


@on_link
async def test_send_surrogates(link: Link) -> None:
    async with link() as (ws, peer):
        with pytest.raises(UnicodeEncodeError):
            await ws.send("\ud800")
        with pytest.raises(UnicodeEncodeError):
            await ws.send(["\ud800"])
        await ws.send("fine")
        assert await peer.recv() == (TEXT, b"fine", True)


@pytest.mark.parametrize("code", [1000, 1011])
@on_link
async def test_send_after_the_end(any_link: Link, code: int) -> None:
    kind = ConnectionClosedOK if code == 1000 else ConnectionClosedError
    async with any_link() as (ws, peer):
        await peer.close_frame(code, "done")
        peer.half_close()
        await ws.wait_closed()
        messages: list[Any] = ["x", b"x", ["x"], later("x"), [], later()]
        for message in messages:
            with pytest.raises(kind, match=r"received .* done; then sent"):
                await ws.send(message)
        with pytest.raises(kind):
            ws.send_nowait("x")
        with pytest.raises(TypeError):
            await ws.send(3)  # type: ignore[arg-type]


@on_link
async def test_send_while_closing(link: Link) -> None:
    """It tells how the connection closed, so it waits for that."""
    async with link() as (ws, peer):
        closing = asyncio.create_task(ws.close(1001, "bye"))
        await settle()
        sending = asyncio.ensure_future(ws.send("too late"))
        await settle()
        assert not sending.done()
        with pytest.raises(ConnectionClosed, match=r"sent 1001 \(going away\) bye"):
            ws.send_nowait("too late")
        await peer.answer_close()
        with pytest.raises(ConnectionClosedOK):
            await sending
        await closing


# -- fragments -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["list", "iterator", "generator", "async"])
@on_link
async def test_send_fragments(any_link: Link, how: str) -> None:
    items = ["one", "", "zwölf"]
    async with any_link() as (ws, peer):
        message: Any = items
        if how == "iterator":
            message = iter(items)
        elif how == "generator":
            message = (item for item in items)
        elif how == "async":
            message = later(*items)
        await ws.send(message)
        assert [await peer.recv() for _ in range(4)] == [
            (TEXT, b"one", False),
            (CONT, b"", False),
            (CONT, "zwölf".encode(), False),
            (CONT, b"", True),
        ]


@on_link
async def test_send_fragments_of_all_kinds_of_bytes(link: Link) -> None:
    async with link() as (ws, peer):
        await ws.send([b"a", bytearray(b"b"), memoryview(b"c")], text=True)
        assert [await peer.recv() for _ in range(4)] == [
            (TEXT, b"a", False),
            (CONT, b"b", False),
            (CONT, b"c", False),
            (CONT, b"", True),
        ]
        await ws.send(later("a"), text=False)
        assert await peer.recv() == (BINARY, b"a", False)


@on_link
async def test_send_no_fragments(link: Link) -> None:
    async with link() as (ws, peer):
        await ws.send([])
        await ws.send(iter(()))
        await ws.send(later())
        await ws.send("next")
        assert await peer.recv() == (TEXT, b"next", True)


@pytest.mark.parametrize(
    ("items", "error"),
    [
        (["text", b"bytes"], "fragments must be all str or all bytes-like"),
        ([b"bytes", "text"], "fragments must be all str or all bytes-like"),
        (["text", 3], "fragments must be all str"),
        ([b"bytes", 3], "fragment must be str or bytes-like, not int"),
    ],
)
@pytest.mark.parametrize("how", ["list", "async"])
@on_link
async def test_send_mixed_fragments(
    link: Link, items: list[Any], error: str, how: str
) -> None:
    async with link() as (ws, peer):
        message: Any = items if how == "list" else later(*items)
        with pytest.raises(TypeError, match=error):
            await ws.send(message)
        assert not (await peer.recv()).fin
        assert await peer.recv() == (
            CLOSE,
            close_payload(1011, "error in fragmented message"),
            True,
        )
        peer.half_close()
        with pytest.raises(ConnectionClosedError):
            await ws.send("x")


class Broken:
    """An iterable of both kinds that raises after some items."""

    def __init__(self, items: int, error: BaseException) -> None:
        self.left = items
        self.error = error

    def __next__(self) -> str:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return "item"


class BrokenIterable(Broken):
    def __iter__(self) -> Iterator[str]:
        return self


class BrokenAsyncIterable(Broken):
    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return self.__next__()


@pytest.mark.parametrize("kind", [BrokenIterable, BrokenAsyncIterable])
@pytest.mark.parametrize("items", [0, 1, 2])
@on_link
async def test_send_broken_iterable(link: Link, kind: Any, items: int) -> None:
    async with link() as (ws, peer):
        error = ZeroDivisionError("mine")
        with pytest.raises(ZeroDivisionError) as raised:
            await ws.send(kind(items, error))
        assert raised.value is error
        if not items:
            # Nothing was sent, so that nothing is broken.
            await ws.send("fine")
            assert await peer.recv() == (TEXT, b"fine", True)
            return
        for _ in range(items):
            assert (await peer.recv()).payload == b"item"
        received = await peer.recv()
        assert received.payload == close_payload(1011, "error in fragmented message")


@on_link
async def test_send_from_a_connection_that_ends(link: Link) -> None:
    """An iterable that ends with another connection's error is broken as any."""
    async with link() as (ws, peer):
        gone = ConnectionClosedError(Close(1011, "other"), None, None)
        with pytest.raises(ConnectionClosedError) as raised:
            await ws.send(BrokenAsyncIterable(1, gone))
        assert raised.value is gone
        await peer.recv()
        received = await peer.recv()
        assert received.payload == close_payload(1011, "error in fragmented message")


@on_link
async def test_sends_take_turns(any_link: Link) -> None:
    """While a message goes out in fragments, other messages wait, in order."""
    async with any_link() as (ws, peer):
        gate = asyncio.Event()
        tasks = [asyncio.create_task(ws.send(later("a", "b", gate=gate)))]
        await settle()
        tasks.append(asyncio.create_task(ws.send("second")))
        await settle()
        tasks.append(asyncio.create_task(ws.send(["third", "3"])))
        await settle()
        tasks.append(asyncio.create_task(ws.send(b"fourth")))
        await settle()
        with pytest.raises(ConcurrencyError, match="a fragmented message is being"):
            ws.send_nowait("no")
        # Control frames need not wait.
        await ws.ping("ping")
        assert await peer.recv() == (TEXT, b"a", False)
        assert await peer.recv() == (PING, b"ping", True)
        assert not any(task.done() for task in tasks)
        gate.set()
        await asyncio.gather(*tasks)
        assert [await peer.recv() for _ in range(7)] == [
            (CONT, b"b", False),
            (CONT, b"", True),
            (TEXT, b"second", True),
            (TEXT, b"third", False),
            (CONT, b"3", False),
            (CONT, b"", True),
            (BINARY, b"fourth", True),
        ]
        assert not ws.fragmenting


@on_link
async def test_fragments_wait_before_the_first(link: Link) -> None:
    """Two messages whose first fragments are not there yet do not mix."""
    async with link() as (ws, peer):
        gates = [asyncio.Event() for _ in range(2)]
        tasks = [
            asyncio.create_task(ws.send(later("a", gate=gates[0]))),
            asyncio.create_task(ws.send(later("b", "c", gate=gates[1]))),
        ]
        await settle()
        gates[0].set()
        await settle()
        gates[1].set()
        await asyncio.gather(*tasks)
        received = [await peer.recv() for _ in range(5)]
        assert [r.payload for r in received] == [b"b", b"c", b"", b"a", b""]
        assert [r.fin for r in received] == [False, False, True, False, True]


@on_link
async def test_close_in_the_middle_of_a_message(link: Link) -> None:
    async with link() as (ws, peer):
        gate = asyncio.Event()
        sending = asyncio.create_task(ws.send(later("a", "b", gate=gate)))
        await peer.recv()
        answer = asyncio.create_task(peer.answer_close())
        await ws.close()
        assert await answer == close_payload(1011, "close during fragmented message")
        waiting = asyncio.ensure_future(ws.send("after"))
        await settle()
        gate.set()
        for task in (sending, waiting):
            with pytest.raises(ConnectionClosedError):
                await task


@on_link
async def test_connection_ends_in_the_middle_of_a_message(link: Link) -> None:
    async with link() as (ws, peer):
        gate = asyncio.Event()
        sending = asyncio.create_task(ws.send(later("a", "b", gate=gate)))
        await peer.recv()
        waiting = asyncio.ensure_future(ws.send("after"))
        await peer.close_frame(1001)
        peer.half_close()
        await ws.wait_closed()
        gate.set()
        for task in (sending, waiting):
            with pytest.raises(ConnectionClosedOK):
                await task


@pytest.mark.parametrize("how", ["fail", "close"])
@on_link
async def test_no_fragment_follows_the_close_frame(plain_link: Link, how: str) -> None:
    async with plain_link() as (ws, peer):
        gate = asyncio.Event()
        sending = asyncio.create_task(ws.send(later("a", "b", gate=gate)))
        await peer.recv()
        if how == "fail":
            ws.fail(1008)
        else:
            ws.close_nowait()
        gate.set()
        assert (await peer.recv()).opcode == CLOSE
        await settle()
        await peer.close_frame()
        peer.half_close()
        assert await peer.ended() == b""
        peer.close()
        with pytest.raises(ConnectionClosedError):
            await sending


@on_link
async def test_error_of_a_dead_iterable_is_not_lost(link: Link) -> None:
    """What goes wrong after the connection ended is raised all the same."""
    async with link() as (ws, peer):
        gate = asyncio.Event()

        async def items() -> AsyncIterator[str]:
            yield "a"
            await gate.wait()
            raise ZeroDivisionError

        sending = asyncio.create_task(ws.send(items()))
        await peer.recv()
        await peer.close_frame(1001)
        peer.half_close()
        await ws.wait_closed()
        gate.set()
        with pytest.raises(ZeroDivisionError):
            await sending


# -- an extension that fails ---------------------------------------------------------


class Failing(Extension):
    name = ExtensionName("x-failing")

    def encode(self, frame: Frame) -> Frame:
        raise ZeroDivisionError("extension")


class Extended(Connection):
    """A connection with an extension that fails."""

    def handshake_done(self) -> None:
        self.protocol.extensions = [Failing()]
        super().handshake_done()


@on_link
async def test_send_through_an_extension_that_fails(link: Link) -> None:
    async with link(connection_class=Extended) as (ws, _):
        with pytest.raises(ZeroDivisionError):
            await ws.send("x")
        with pytest.raises(ZeroDivisionError):
            await ws.send(["x"])


# -- broadcast -----------------------------------------------------------------------


@pytest.mark.parametrize(("message", "text", "opcode"), MESSAGES)
@on_link
async def test_broadcast(
    link: Link, message: Any, text: bool | None, opcode: int
) -> None:
    async with link():
        made = [await link.make() for _ in range(3)]
        broadcast([ws for ws, _ in made], message, text=text)
        for _, peer in made:
            assert await peer.recv() == (opcode, b"\xc3\xa9", True)


@on_link
async def test_broadcast_to_some(any_link: Link) -> None:
    async with any_link() as (one, one_peer):
        two, two_peer = await any_link.make()
        closed, closed_peer = await any_link.make()
        await asyncio.gather(closed.close(), closed_peer.answer_close())
        broadcast({one, two, closed}, "x" * 50_000)
        for peer in (one_peer, two_peer):
            assert (await peer.recv()).payload == b"x" * 50_000
        broadcast([], "x")


@on_link
async def test_broadcast_wrong_calls(link: Link) -> None:
    async with link() as (ws, peer):
        wrong: list[Any] = [3, ["x"], {"x": 1}, None]
        for message in wrong:
            with pytest.raises(TypeError, match="message must be str or bytes-like"):
                broadcast([ws], message)
        with pytest.raises(UnicodeEncodeError):
            broadcast([ws], "\ud800")
        broadcast([ws], "fine")
        assert await peer.recv() == (TEXT, b"fine", True)


@pytest.mark.parametrize("raising", [False, True])
@on_link
async def test_broadcast_during_fragments(
    link: Link, raising: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with link() as (ws, peer):
        other, other_peer = await link.make()
        gate = asyncio.Event()
        sending = asyncio.create_task(ws.send(later("a", "b", gate=gate)))
        await peer.recv()
        if raising:
            with pytest.raises(ExceptionGroup) as raised:
                broadcast([ws, other], "x", raise_exceptions=True)
            assert raised.value.message == "skipped broadcast"
            (error,) = raised.value.exceptions
            assert isinstance(error, ConcurrencyError)
            assert str(error) == "sending a fragmented message"
        else:
            broadcast([ws, other], "x")
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            text = "skipped broadcast: sending a fragmented message"
            assert record.getMessage() == text
            assert record.websocket is ws  # type: ignore[attr-defined]
        assert await other_peer.recv() == (TEXT, b"x", True)
        gate.set()
        await sending
        assert (await peer.recv()).payload == b"b"


@pytest.mark.parametrize("raising", [False, True])
@on_link
async def test_broadcast_that_fails(
    link: Link, raising: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with link() as (ws, peer):
        failing, _ = await link.make(connection_class=Extended)
        if raising:
            with pytest.raises(ExceptionGroup) as raised:
                broadcast([failing, ws], "x", raise_exceptions=True)
            (error,) = raised.value.exceptions
            assert isinstance(error, RuntimeError)
            assert str(error) == "failed to write message"
            assert isinstance(error.__cause__, ZeroDivisionError)
        else:
            broadcast([failing, ws], "x")
            assert [record.getMessage() for record in caplog.records] == [
                "skipped broadcast: failed to write message: "
                "ZeroDivisionError: extension"
            ]
        assert await peer.recv() == (TEXT, b"x", True)


@on_link
async def test_broadcast_does_not_wait(link: Link) -> None:
    """A peer that does not read has its messages kept; the others get theirs."""
    async with link(buffer_size=4096, write_limit=1000) as (slow, slow_peer):
        fast, fast_peer = await link.make()
        for number in range(10):
            broadcast([slow, fast], str(number) * 50_000)
            await fast_peer.recv()
        assert slow.buffered_amount > 100_000
        assert slow.write_paused
        assert fast.state is State.OPEN
        for number in range(10):
            assert (await slow_peer.recv()).payload == str(number).encode() * 50_000
