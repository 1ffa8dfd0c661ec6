"""``python -m websock connect``: a client for people, files and pipes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from ..asyncio.client import ClientConnection, connect
from ..asyncio.interrupts import call_on
from ..exceptions import ConnectionClosed, InvalidStatus
from ..frames import CloseCode
from ..typing import Data
from .terminal import Terminal, printable

__all__ = ["add_command"]

OK, FAILED, CLOSED, INTERRUPTED = 0, 1, 3, 130
CHUNK = 65536
MAX_SIZE = 64 * 1024 * 1024  # a server must not fill the memory of who looks
# JSON with line breaks may be so many times as long.
PRETTY_GROWTH = 20

HELP = """\
/ping [TEXT]            send a ping and show the time until its pong
/hex 00 FF ...          send a binary message
/file PATH              send a file as a binary message
/close [CODE [REASON]]  close the connection
/help                   show this
//text                  send "/text"
Ctrl-D or Ctrl-C        close with code 1000"""


def show_bytes(data: bytes) -> str:
    """Return bytes as hexadecimal digits, and as text where that is readable."""
    lines = [f"binary, {len(data)} bytes"]
    for start in range(0, min(len(data), 4096), 16):
        row = data[start : start + 16]
        readable = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"  {start:06x}  {row.hex(' '):<47}  {readable}")
    if len(data) > 4096:
        lines.append(f"  ... {len(data) - 4096} bytes more")
    return "\n".join(lines)


def pretty(text: str) -> str:
    """Return JSON objects and arrays with line breaks; other text as it is.

    So is text that is nested too deeply, or that would grow a lot: each of its values
    gets a line of its own, with as much space in front as the levels around it.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return text
    pieces: list[str] = []
    room = PRETTY_GROWTH * len(text) + 1000
    try:
        encoder = json.JSONEncoder(indent=2, ensure_ascii=False)
        for piece in encoder.iterencode(json.loads(text)):
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                return text
    except (ValueError, RecursionError):
        return text
    return "".join(pieces)


class Session:
    """One connection, with a terminal or with files on its other side.

    Args:
        ws: The connection.
        arguments: The arguments of the command.
    """

    def __init__(self, ws: ClientConnection, arguments: argparse.Namespace) -> None:
        self.ws = ws
        self.arguments = arguments
        self.left = arguments.count  # messages still to be received, if limited

    async def run(self) -> int:
        """Send and receive until one side is done; return the exit code."""
        is_typed = not self.arguments.send and sys.stdin.isatty()
        if is_typed:
            self.terminal = Terminal()
            uri = self.arguments.uri
            self.terminal.show(f"connected to {uri}; /help tells what there is")
        sending = self.from_terminal() if is_typed else self.from_pipe()
        receiving = asyncio.create_task(self.receive())
        sender = asyncio.create_task(sending)
        try:
            await asyncio.wait((receiving, sender), return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
                if not receiving.done():
                    if not is_typed:
                        await self.linger(receiving)
                    await self.ws.close()
            await receiving
        finally:
            for task in (sender, receiving):
                task.cancel()
            await asyncio.gather(sender, receiving, return_exceptions=True)
        return self.end()

    async def linger(self, receiving: asyncio.Task[None]) -> None:
        """Wait for messages that are still to come, as long as was asked for."""
        seconds = self.arguments.linger
        if self.left is not None and seconds is None:
            await asyncio.wait((receiving,))
        elif seconds:
            await asyncio.wait((receiving,), timeout=seconds)

    def end(self) -> int:
        """Say how the connection ended; return the exit code."""
        exc = self.ws.closed_error()
        close = exc.rcvd or exc.sent
        if exc.rcvd is None and not (exc.sent and self.left == 0):
            tell(f"connection lost: {exc}")
            return CLOSED
        assert close is not None
        if close.code not in (1000, 1001, 1005):
            tell(f"closed by the server: {close.code} {close.reason}".rstrip())
            return CLOSED
        return OK

    # -- receiving -------------------------------------------------------------------

    async def receive(self) -> None:
        """Write what arrives; ends with the connection, or after enough messages."""
        with contextlib.suppress(ConnectionClosed):
            while self.left is None or self.left > 0:
                message = await self.ws.recv()
                if self.left is not None:
                    self.left -= 1
                await self.write(message)
            await self.ws.close()

    async def write(self, message: Data) -> None:
        """Write a message to where messages go."""
        if self.terminal is not None:
            self.terminal.show(f"< {self.shown(message)}")
            return
        out: BinaryIO = self.arguments.output or sys.stdout.buffer
        if self.arguments.output is None and sys.stdout.isatty():
            data = self.shown(message).encode() + b"\n"
        elif isinstance(message, bytes):
            data = message.hex().encode() + b"\n" if self.arguments.hex else message
        else:
            text = pretty(message) if self.arguments.json else message
            data = text.encode() + b"\n"
        try:
            await asyncio.to_thread(write_all, out, data)
        except BrokenPipeError:
            await self.ws.close()

    def shown(self, message: Data) -> str:
        """Return a message as a person wants to see it."""
        if isinstance(message, bytes):
            return show_bytes(message)
        return printable(message if self.arguments.raw else pretty(message), "\n\t")

    # -- sending ---------------------------------------------------------------------

    terminal: Terminal | None = None

    async def from_terminal(self) -> None:
        """Send the lines that are typed."""
        terminal = self.terminal
        assert terminal is not None
        try:
            with terminal.history():
                async for line in terminal.lines():
                    if line.startswith("/") and not line.startswith("//"):
                        if await self.obey(line):
                            return
                    elif line:
                        await self.ws.send(line.removeprefix("/"))
        except ConnectionClosed:
            pass
        finally:
            terminal.close()

    async def obey(self, line: str) -> bool:
        """Carry out a line that begins with a slash; return whether it is the end."""
        assert self.terminal is not None
        word, _, rest = line.partition(" ")
        try:
            if word == "/ping":
                seconds = await (await self.ws.ping(rest or None))
                self.terminal.show(f"pong after {seconds * 1000:.2f} ms")
            elif word == "/hex":
                await self.ws.send(bytes.fromhex(rest))
            elif word == "/file":
                await self.ws.send(await asyncio.to_thread(read_file, rest.strip()))
            elif word == "/close":
                code, _, reason = rest.strip().partition(" ")
                await self.ws.close(int(code or CloseCode.NORMAL_CLOSURE), reason)
                return True
            elif word == "/help":
                self.terminal.show(HELP)
            else:
                self.terminal.show(f"no command {word}; /help tells what there is")
        except ConnectionClosed:
            raise
        except Exception as exc:
            self.terminal.show(f"{word}: {exc}")
        return False

    async def from_pipe(self) -> None:
        """Send what the arguments say, or what comes from standard input."""
        with contextlib.suppress(ConnectionClosed):
            if self.arguments.send:
                for text in self.arguments.send:
                    await self.ws.send(text)
                return
            async for message in self.input():
                await self.ws.send(message)

    async def input(self) -> AsyncIterator[Data]:
        """Give the messages that standard input has."""
        # Not through sys.stdin: at the end Python would wait for a thread that reads.
        source = sys.stdin.fileno()
        rest = b""
        while data := await in_thread(os.read, source, CHUNK):
            if self.arguments.binary:
                yield data
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode()
        if rest:
            yield rest.decode()


async def in_thread(function: Any, *args: Any) -> Any:
    """Call a function that may never return, in a thread that nobody waits for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, exc: BaseException | None) -> None:
        if not future.done():
            if exc is None:
                future.set_result(result)
            else:
                future.set_exception(exc)

    def run() -> None:
        result, failure = None, None
        try:
            result = function(*args)
        except BaseException as exc:
            failure = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return await future


def write_all(out: BinaryIO, data: bytes) -> None:
    """Write and flush."""
    out.write(data)
    out.flush()


def read_file(path: str) -> bytes:
    """Read a whole file."""
    with open(path, "rb") as file:
        return file.read()


def tell(text: str) -> None:
    """Say something that is not output."""
    print(f"websock: {printable(text, chr(10))}", file=sys.stderr, flush=True)


def tls_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Return the context that the arguments ask for; ``None`` for the default."""
    if not (arguments.insecure or arguments.ca_file):
        return None
    context = ssl.create_default_context(cafile=arguments.ca_file)
    if arguments.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of :func:`~websock.connect`."""
    found: dict[str, Any] = {
        "additional_headers": arguments.header or None,
        "compression": None if arguments.no_compression else "deflate",
        "max_size": arguments.max_size or None,
        "open_timeout": arguments.timeout,
        "origin": arguments.origin,
        "subprotocols": arguments.subprotocol or None,
    }
    if arguments.no_proxy:
        found["proxy"] = None
    context = tls_context(arguments)
    if context is not None:
        found["ssl"] = context
    return found


async def session(arguments: argparse.Namespace) -> int:
    """Connect, and run until the end; Ctrl-C closes with 1000."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    ws: ClientConnection | None = None
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted or ws is None:
            task.cancel()  # the second time, or while it connects
        else:
            ws.close_nowait()
        interrupted = True

    call_on(signal.SIGINT, interrupt, loop)
    try:
        ws = await connect(arguments.uri, **options(arguments))
        status = await Session(ws, arguments).run()
    except asyncio.CancelledError:
        if not interrupted:
            raise
        return INTERRUPTED
    return INTERRUPTED if interrupted else status


def run(arguments: argparse.Namespace) -> None:
    """Carry out the command."""
    try:
        status = asyncio.run(session(arguments))
    except InvalidStatus as exc:
        body = exc.response.body.decode(errors="replace").strip()
        tell(f"{exc}" + (f"\n{body}" if body else ""))
        status = FAILED
    except (OSError, ValueError, TypeError) as exc:
        tell(str(exc) or type(exc).__name__)
        status = FAILED
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as exc:
        tell(f"{exc}")
        status = FAILED
    sys.stdout.flush()
    sys.exit(status)


def header(text: str) -> tuple[str, str]:
    """Parse ``Name: value``."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"expected 'Name: value', got {text!r}")
    return name.strip(), value.strip()


def writable(path: str) -> BinaryIO:
    """Open a file for ``--output``; ``-`` is standard output.

    Raises:
        ArgumentTypeError: When it cannot be opened.
    """
    # Not argparse.FileType: Python 3.14 warns of it.
    if path == "-":
        return sys.stdout.buffer
    try:
        return open(path, "wb")
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"cannot open {path!r}: {exc}") from None


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "connect",
        help="talk to a server, at the terminal or through a pipe",
        description="Connects to a server. At a terminal, lines that are typed are "
        "sent and messages are shown. Otherwise the lines of standard input are sent, "
        "and messages are written to standard output.",
        epilog="Exit codes: 0 closed normally, 1 could not connect, 2 wrong arguments, "
        "3 lost or closed with an error, 130 Ctrl-C.",
    )
    parser.add_argument("uri", metavar="URL", help="ws:// or wss://")
    group = parser.add_argument_group("what is sent and received")
    group.add_argument(
        "--send",
        action="append",
        metavar="TEXT",
        help="send this instead of standard input; may be repeated",
    )
    group.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="close after N messages were received",
    )
    group.add_argument(
        "--linger",
        type=float,
        metavar="SECONDS",
        help="wait for messages so long after the end of the input",
    )
    group.add_argument(
        "--binary",
        action="store_true",
        help="send standard input as binary messages of up to 64 KiB",
    )
    group.add_argument(
        "--output",
        type=writable,
        metavar="FILE",
        help="write messages to a file",
    )
    group.add_argument(
        "--hex",
        action="store_true",
        help="write binary messages as lines of hexadecimal digits",
    )
    group.add_argument(
        "--json", action="store_true", help="write JSON with line breaks"
    )
    group.add_argument(
        "--raw", action="store_true", help="show JSON at the terminal as it is"
    )
    group = parser.add_argument_group("how to connect")
    group.add_argument(
        "-H",
        "--header",
        action="append",
        type=header,
        metavar="'NAME: VALUE'",
        help="add a header to the request; may be repeated",
    )
    group.add_argument("--origin", help="value of the Origin header")
    group.add_argument(
        "--subprotocol",
        action="append",
        metavar="NAME",
        help="offer a subprotocol; may be repeated",
    )
    group.add_argument("--no-compression", action="store_true")
    group.add_argument("--no-proxy", action="store_true", help="connect directly")
    group.add_argument("--insecure", action="store_true", help="accept any certificate")
    group.add_argument(
        "--ca-file", metavar="FILE", help="certificates to trust, in PEM format"
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=10,
        metavar="SECONDS",
        help="for connecting (default: %(default)s)",
    )
    group.add_argument(
        "--max-size",
        type=int,
        default=MAX_SIZE,
        metavar="BYTES",
        help="largest message to receive, 0 for any (default: 64 MiB)",
    )
    parser.set_defaults(run=run)
