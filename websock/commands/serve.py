"""``python -m websock serve``: small servers to try clients with."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
from typing import Any

from ..asyncio.client import connect
from ..asyncio.server import Server, ServerConnection, broadcast, serve, unix_serve
from ..exceptions import ConnectionClosed, WebSocketException
from ..frames import CloseCode
from .interrupts import call_on
from .terminal import printable

__all__ = ["add_command"]


def say(text: str) -> None:
    """Print one line at once, whatever a peer has put into it."""
    print(printable(text), flush=True)


class Servers:
    """The handlers.

    Args:
        arguments: The arguments of the command.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.server: Server

    async def echo(self, ws: ServerConnection) -> None:
        """Send each message back."""
        async for message in ws:
            await ws.send(message)

    async def broadcast(self, ws: ServerConnection) -> None:
        """Send each message to everybody else."""
        async for message in ws:
            broadcast(self.server.connections - {ws}, message)

    async def relay(self, ws: ServerConnection) -> None:
        """Connect to another server and pass messages both ways."""
        assert ws.request is not None
        try:
            other = await connect(
                self.arguments.target,
                subprotocols=[ws.subprotocol] if ws.subprotocol else None,
                max_size=None,
            )
        except (OSError, WebSocketException) as exc:
            ws.logger.warning("relay: %s", exc)
            await ws.close(CloseCode.BAD_GATEWAY, "cannot connect")
            return

        async def copy(source: Any, target: Any) -> None:
            try:
                while True:
                    await target.send(await source.recv())
            except ConnectionClosed as exc:
                close = exc.rcvd
                if close is None or close.code == CloseCode.NO_STATUS_RCVD:
                    await target.close()
                else:
                    await target.close(close.code, close.reason)

        async with other:
            await asyncio.gather(copy(ws, other), copy(other, ws))

    async def handler(self, ws: ServerConnection) -> None:
        """Call the one that was chosen; say who comes and goes."""
        quiet = self.arguments.quiet
        peer = ws.remote_address
        name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        assert ws.request is not None
        if not quiet:
            say(f"{name} opened {ws.request.path}")
        try:
            await getattr(self, self.arguments.what)(ws)
        finally:
            await ws.close()
            if not quiet:
                stats = ws.stats()
                say(
                    f"{name} closed {ws.close_code} {ws.close_reason or ''}".rstrip()
                    + f" ({stats.messages_received} messages in, "
                    f"{stats.messages_sent} out)"
                )


async def main(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        call_on(number, stop.set, loop)
    servers = Servers(arguments)
    options: dict[str, Any] = {"max_size": arguments.max_size}
    scheme = "ws"
    if arguments.certificate:
        options["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        options["ssl"].load_cert_chain(arguments.certificate, arguments.key)
        scheme = "wss"
    if arguments.unix:
        serving = unix_serve(servers.handler, arguments.unix, **options)
    else:
        serving = serve(servers.handler, arguments.host, arguments.port, **options)
    async with serving as servers.server:
        for sock in servers.server.sockets:
            address = sock.getsockname()
            if isinstance(address, tuple):
                host = f"[{address[0]}]" if ":" in address[0] else address[0]
                say(f"{arguments.what} at {scheme}://{host}:{address[1]}")
            else:
                say(f"{arguments.what} at {address}")
        await stop.wait()
        say("closing")


def run(arguments: argparse.Namespace) -> None:
    """Carry out the command."""
    if arguments.what == "relay" and not arguments.target:
        arguments.parser.error("relay needs the URL of the server behind it")
    if arguments.what != "relay" and arguments.target:
        arguments.parser.error(f"{arguments.what} takes no URL")
    try:
        asyncio.run(main(arguments))
    except KeyboardInterrupt:
        pass
    except (OSError, ValueError) as exc:
        print(f"websock: {exc}", file=sys.stderr)
        sys.exit(1)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "serve",
        help="run a small server: echo, broadcast or relay",
        description="echo sends each message back, broadcast sends it to everybody "
        "else, relay passes everything on to another server. Ctrl-C closes with 1001.",
    )
    parser.add_argument("what", choices=("echo", "broadcast", "relay"))
    parser.add_argument(
        "target", nargs="?", metavar="URL", help="the server behind a relay"
    )
    parser.add_argument("--host", default="localhost", help="default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=8765, help="default: %(default)s; 0: any"
    )
    parser.add_argument("--unix", metavar="PATH", help="listen on a unix socket")
    parser.add_argument("--certificate", metavar="FILE", help="PEM file, for TLS")
    parser.add_argument("--key", metavar="FILE", help="its key, if it is apart")
    parser.add_argument(
        "--max-size", type=int, default=2**20, metavar="BYTES", help="of a message"
    )
    parser.add_argument("--quiet", action="store_true", help="say less")
    parser.set_defaults(run=run, parser=parser)
