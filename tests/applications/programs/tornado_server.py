"""A chat with rooms and more, of Tornado's handlers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections import defaultdict
from typing import Any, ClassVar

from journal import Notes, write
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

LIMIT = 100_000
PROTOCOLS = ("chat.v2", "chat.v1")


class Handler(WebSocketHandler):
    """What all handlers share."""

    open_now: ClassVar[set[Handler]] = set()

    def prepare(self) -> Any:
        self.is_closed = asyncio.Event()
        self.note = Notes(self.get_query_argument("talk"))
        return super().prepare()

    def check_origin(self, origin: str) -> bool:
        return True

    def open(self, *args: str, **kwargs: str) -> Any:
        self.open_now.add(self)

    def on_message(self, message: str | bytes) -> Any:
        self.note("message", message)

    def on_pong(self, data: bytes) -> None:
        self.note("pong", data)

    def on_ping(self, data: bytes) -> None:
        self.note("ping", data)

    def on_close(self) -> None:
        self.open_now.discard(self)
        self.note("closed", self.close_code, self.close_reason)
        self.note("over")
        self.is_closed.set()

    def log_exception(self, *args: Any) -> None:
        self.note("raised", args[1])
        super().log_exception(*args)


class Chat(Handler):
    """A room, which members come into and leave."""

    rooms: ClassVar[defaultdict[str, dict[str, Handler]]] = defaultdict(dict)

    def tell(self, text: str) -> None:
        for member in list(self.room.values()):
            member.write_message(text)

    def open(self, *args: str, **kwargs: str) -> None:
        super().open()
        self.room = self.rooms[args[0]]
        self.name = self.get_query_argument("name")
        self.room[self.name] = self
        self.tell(f"{self.name} is here")

    def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        self.tell(f"{self.name}: {message!s}")

    def on_close(self) -> None:
        del self.room[self.name]
        self.tell(f"{self.name} has left")
        super().on_close()


class Echo(Handler):
    """Says what it hears."""

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        self.note("offered", *subprotocols)
        return next((name for name in PROTOCOLS if name in subprotocols), None)

    def get_compression_options(self) -> dict[str, Any] | None:
        return {}

    async def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        await self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        try:
            self.write_message("too late")
        except WebSocketClosedError as exc:
            self.note("late", exc)
        super().on_close()


class Upload(Handler):
    """Takes bytes, and tells what they were."""

    def open(self, *args: str, **kwargs: str) -> None:
        super().open()
        self.digest, self.size = hashlib.sha256(), 0

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.digest.update(message)
            self.size += len(message)
            return
        self.note("uploaded", message, self.size)
        found = {"size": self.size, "sha256": self.digest.hexdigest()}
        self.write_message(json.dumps(found))
        self.close()


class Fail(Handler):
    """Fails when it hears something."""

    def on_message(self, message: str | bytes) -> None:
        raise LookupError(message)


class FailEarly(Handler):
    """Fails before the handshake."""

    def prepare(self) -> None:
        super().prepare()
        raise LookupError("before the handshake")

    def on_finish(self) -> None:
        self.note("over")


class Forget(Handler):
    """Closes at once."""

    def open(self, *args: str, **kwargs: str) -> None:
        self.close()


class Close(Handler):
    """Closes when and how it is told to."""

    def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        code = int(self.get_query_argument("code"))
        self.close(code, self.get_query_argument("reason", None))


class Deny(Handler):
    """Lets nobody in."""

    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(403, "go away")

    def on_finish(self) -> None:
        self.note("over")


async def main() -> None:
    app = Application(
        [
            (r"/chat/(\w+)", Chat),
            ("/echo", Echo),
            ("/protocols", Echo),
            ("/upload", Upload),
            ("/raise", Fail),
            ("/raise-early", FailEarly),
            ("/return", Forget),
            ("/close", Close),
            ("/deny", Deny),
        ],
        websocket_max_message_size=LIMIT,
    )
    server = HTTPServer(app)
    server.listen(0, "127.0.0.1")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    [sock] = server._sockets.values()
    write(port=sock.getsockname()[1])
    await stop.wait()
    server.stop()
    handlers = set(Handler.open_now)
    for handler in handlers:
        handler.close(1001, "the server stops")
    await asyncio.gather(*(handler.is_closed.wait() for handler in handlers))
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
