"""A chat with rooms and more, of Django Channels' consumers; run by Daphne."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import parse_qs

import django
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path
from journal import Notes

settings.configure(
    SECRET_KEY="not secret",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

PROTOCOLS = ("chat.v2", "chat.v1")


def query_of(scope: Any) -> dict[str, str]:
    query = parse_qs(scope["query_string"].decode())
    return {name: values[0] for name, values in query.items()}


class Chat(AsyncWebsocketConsumer):
    """A room, which members come into and leave."""

    async def connect(self) -> None:
        query = query_of(self.scope)
        self.note = Notes(query["talk"])
        self.name = query["name"]
        self.room = "room_" + self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()
        await self.tell(f"{self.name} is here")

    async def tell(self, text: str) -> None:
        await self.channel_layer.group_send(self.room, {"type": "say", "text": text})

    async def say(self, event: dict[str, str]) -> None:
        await self.send(text_data=event["text"])

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        self.note("message", text_data)
        await self.tell(f"{self.name}: {text_data}")

    async def disconnect(self, code: int) -> None:
        self.note("closed", code)
        await self.channel_layer.group_discard(self.room, self.channel_name)
        await self.tell(f"{self.name} has left")
        self.note("over")


class Noted(AsyncWebsocketConsumer):
    """A consumer that takes notes."""

    async def connect(self) -> None:
        self.query = query_of(self.scope)
        self.note = Notes(self.query["talk"])
        await self.accept()

    async def disconnect(self, code: int) -> None:
        self.note("closed", code)
        self.note("over")


class Echo(WebsocketConsumer):
    """Says what it hears; in a thread, as consumers that are not async are run."""

    def connect(self) -> None:
        self.note = Notes(query_of(self.scope)["talk"])
        offered = self.scope["subprotocols"]
        self.note("offered", *offered)
        chosen = next((name for name in PROTOCOLS if name in offered), None)
        self.accept(chosen)

    def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        self.note("message", text_data, bytes_data)
        self.send(text_data=text_data, bytes_data=bytes_data)

    def disconnect(self, code: int) -> None:
        self.note("closed", code)
        try:
            self.send(text_data="too late")
        except Exception as exc:
            self.note("late", exc)
        self.note("over")


class Upload(Noted):
    """Takes bytes, and tells what they were."""

    async def connect(self) -> None:
        self.digest, self.size = hashlib.sha256(), 0
        await super().connect()

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        if bytes_data is not None:
            self.digest.update(bytes_data)
            self.size += len(bytes_data)
            return
        self.note("uploaded", text_data, self.size)
        found = {"size": self.size, "sha256": self.digest.hexdigest()}
        await self.send(text_data=json.dumps(found))
        await self.close()


class Fail(Noted):
    """Fails when it hears something."""

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        self.note("over")
        raise LookupError(text_data)


class FailEarly(Noted):
    """Fails before the handshake."""

    async def connect(self) -> None:
        Notes(query_of(self.scope)["talk"])("over")
        raise LookupError("before the handshake")


class Forget(Noted):
    """Closes at once."""

    async def connect(self) -> None:
        await super().connect()
        await self.close()


class Close(Noted):
    """Closes when and how it is told to."""

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        self.note("message", text_data)
        try:
            await self.close(int(self.query["code"]), self.query.get("reason"))
        except Exception as exc:
            self.note("raised", exc)
            raise
        finally:
            # Daphne says nothing more when it was a code that it does not send.
            self.note("over")


class Deny(Noted):
    """Lets nobody in."""

    async def connect(self) -> None:
        Notes(query_of(self.scope)["talk"])("over")
        await self.close()


application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("chat/<room>", Chat.as_asgi()),
                path("echo", Echo.as_asgi()),
                path("protocols", Echo.as_asgi()),
                path("upload", Upload.as_asgi()),
                path("raise", Fail.as_asgi()),
                path("raise-early", FailEarly.as_asgi()),
                path("return", Forget.as_asgi()),
                path("close", Close.as_asgi()),
                path("deny", Deny.as_asgi()),
            ]
        ),
    }
)
