"""``python -m websock serve``: an application, or small servers to try clients with."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from typing import Any

from ..asyncio.client import connect
from ..asyncio.interrupts import call_on
from ..asyncio.server import Server, ServerConnection, broadcast, serve, unix_serve
from ..exceptions import ConnectionClosed, WebSocketException
from ..frames import CloseCode
from ..workers.child import FAILED, configure_logging
from ..workers.listeners import address_text
from ..workers.plan import DRAIN, LOOPS, Plan, StartError
from ..workers.run import carry_out
from .terminal import printable

__all__ = ["add_command"]

SMALL = ("echo", "broadcast", "relay")


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
    options: dict[str, Any] = {}
    if arguments.max_size is not None:
        options["max_size"] = arguments.max_size
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
            say(f"{arguments.what} at {address_text(sock, scheme)}")
        await stop.wait()
        say("closing")


def run_application(arguments: argparse.Namespace) -> None:
    """Serve an application of the user's, in as many workers as were asked for."""
    level = logging.WARNING if arguments.quiet else logging.INFO
    configure_logging(level)
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    plan = Plan(
        arguments.what,
        {} if arguments.max_size is None else {"max_size": arguments.max_size},
        lifespan=arguments.lifespan,
        certificate=arguments.certificate,
        key=arguments.key,
        drain=arguments.drain,
        loop=arguments.loop,
    )
    scheme = "wss" if arguments.certificate else "ws"

    def started(socks: Sequence[socket.socket]) -> None:
        for sock in socks:
            say(f"{arguments.what} at {address_text(sock, scheme)}")

    host: str | None = arguments.host
    port: int | None = arguments.port
    if arguments.unix:
        host = port = None
    counts = arguments.workers, arguments.threads
    where = {"path": arguments.unix}
    carry_out(plan, host, port, where, *counts, log_level=level, started=started)


def run(arguments: argparse.Namespace) -> None:
    """Carry out the command."""
    error = arguments.parser.error
    is_small = arguments.what in SMALL
    if arguments.what == "relay" and not arguments.target:
        error("relay needs the URL of the server behind it")
    if arguments.what != "relay" and arguments.target:
        error(f"{arguments.what} takes no URL")
    if is_small and (arguments.workers or arguments.threads or arguments.lifespan):
        error("--workers, --threads and --lifespan are for an application")
    status = 0
    with contextlib.suppress(KeyboardInterrupt):
        try:
            if is_small:
                asyncio.run(main(arguments))
            else:
                run_application(arguments)
        except (NotImplementedError, OSError, ValueError) as exc:
            print(f"websock: {exc}", file=sys.stderr)
            status = 1
        except StartError as exc:
            print(f"websock: {exc}", file=sys.stderr)
            status = FAILED
    sys.exit(status)


def what(text: str) -> str:
    """Return what to serve, if it can be that.

    Raises:
        argparse.ArgumentTypeError: When it cannot.
    """
    if text not in SMALL and not all(text.partition(":")):
        choices = ", ".join(SMALL)
        raise argparse.ArgumentTypeError(
            f"invalid choice: {text!r} (choose from {choices}, or MODULE:NAME)"
        )
    return text


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "serve",
        help="run a server: an application, or echo, broadcast or relay",
        description="MODULE:NAME is a handler, a listener, or what serve() or route() "
        "returned. Small servers to try clients with: echo sends each message back, "
        "broadcast sends it to everybody else, relay passes everything on to another "
        "server. Ctrl-C closes with 1001.",
        epilog="Signals: TERM closes connections over --drain seconds, INT and QUIT at "
        "once. With --workers, HUP replaces all workers without refusing a "
        "connection, TTIN and TTOU start and stop one. "
        "Exit status: 3 when the application cannot be loaded.",
    )
    parser.add_argument("what", type=what, metavar="{MODULE:NAME,echo,broadcast,relay}")
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
        "--max-size", type=int, metavar="BYTES", help="of a message; default: 1 MiB"
    )
    group = parser.add_argument_group("applications")
    group.add_argument(
        "--workers", type=int, metavar="N", help="serve in so many processes"
    )
    group.add_argument("--threads", type=int, metavar="N", help="or in so many threads")
    group.add_argument(
        "--drain",
        type=float,
        default=DRAIN,
        metavar="SECONDS",
        help="in which connections are closed; default: %(default)g",
    )
    group.add_argument(
        "--lifespan",
        metavar="MODULE:NAME",
        help="context manager around each server, which it is called with",
    )
    group.add_argument("--loop", choices=LOOPS, default=LOOPS[0], help="event loop")
    parser.add_argument("--quiet", action="store_true", help="say less")
    parser.set_defaults(run=run, parser=parser)
