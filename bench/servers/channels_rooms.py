"""Django Channels: a consumer in a group, its layer on Redis; see websock_topics.py.

``--engine`` says which of the layers: ``core`` keeps messages in Redis until they are
fetched, ``pubsub`` has them published.  Without ``--broker`` it is the one in memory.
"""

from __future__ import annotations

from typing import Any

import asgi_server
import common
from rooms import Rooms

options = common.parse_arguments()
rooms = Rooms(options)

import django  # noqa: E402
from django.conf import settings  # noqa: E402

# What is not fetched at once is kept and not dropped: every message is counted.
layer: dict[str, Any] = {
    "BACKEND": "channels.layers.InMemoryChannelLayer",
    "CONFIG": {"capacity": 1_000_000},
}
if options.broker:
    # Its own wait for a message is as long as the client's default for any answer.
    layer["CONFIG"]["hosts"] = [{"address": options.broker, "socket_timeout": None}]
    layer["BACKEND"] = "channels_redis.core.RedisChannelLayer"
    if options.engine == "pubsub":
        layer["BACKEND"] = "channels_redis.pubsub.RedisPubSubChannelLayer"
settings.configure(INSTALLED_APPS=["channels"], CHANNEL_LAYERS={"default": layer})
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402


class Visitor(AsyncWebsocketConsumer):  # type: ignore[misc]
    async def connect(self) -> None:
        self.room = rooms.enter()
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        message = {"type": "room.message", "text": text_data}
        for name in rooms.names:
            await self.channel_layer.group_send(name, message)

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


app = ProtocolTypeRouter({"websocket": URLRouter([path("", Visitor.as_asgi())])})
asgi_server.serve(app, options, "channels", "channels-redis", "django")
