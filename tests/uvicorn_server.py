"""uvicorn in the loop of a test, with either engine, and what an application saw."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvicorn

from websock.speedups.uvicorn import WebSocketProtocol

ENGINES: dict[str, Any] = {
    "websock": WebSocketProtocol,
    "websockets": "websockets-sansio",
}
TIMEOUT = 60  # seconds, for a whole test on a busy machine


def run(
    main: Coroutine[Any, Any, Any],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Any:
    """Run a coroutine in a new loop, for a limited time."""

    async def limited() -> Any:
        async with asyncio.timeout(TIMEOUT):
            return await main

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(limited())


class Server(uvicorn.Server):
    """A server that tells when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    @property
    def connection(self) -> Any:
        """The only connection."""
        [connection] = self.server_state.connections
        return connection


@contextlib.asynccontextmanager
async def serving(app: Any, engine: Any, **options: Any) -> AsyncIterator[Server]:
    """Run a server on 127.0.0.1, and shut it down in the end."""
    options = {"lifespan": "off", "log_config": None, "http": "h11", **options}
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, ws=ENGINES.get(engine, engine), **options
    )
    server = Server(config)
    task = asyncio.create_task(server.serve())
    up = asyncio.create_task(server.is_up.wait())
    try:
        await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
        assert up.done(), "uvicorn did not start"
        yield server
    except BaseException:
        # A test that has failed does not wait for its application.
        server.force_exit = True
        raise
    finally:
        up.cancel()
        server.should_exit = True
        await task


class Recorder:
    """An application made of a function, whose events are kept.

    Args:
        function: Called with ``(scope, receive, send)``.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.events: list[dict[str, Any]] = []
        self.scopes: list[dict[str, Any]] = []
        self.error: BaseException | None = None
        self.done = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def recorded() -> Any:
            event = await receive()
            self.events.append(event)
            return event

        self.scopes.append(scope)
        try:
            return await self.function(scope, recorded, send)
        except BaseException as exc:
            self.error = exc
            raise
        finally:
            self.done.set()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and send every message back."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        data = {key: event[key] for key in ("text", "bytes") if key in event}
        await send({"type": "websocket.send", **data})


def certificates(path: Any) -> tuple[dict[str, str], ssl.SSLContext]:
    """Return uvicorn's options for TLS, and the context of a client."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    key, chain = path / "key.pem", path / "chain.pem"
    certificate.private_key_pem.write_to_path(str(key))
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return {"ssl_keyfile": str(key), "ssl_certfile": str(chain)}, context
