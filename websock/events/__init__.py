"""The event API: Node's classic WebSocket server, and the browser's client.

::

    from websock.events import WebSocket, WebSocketServer

:class:`WebSocketServer` tells of requests, which are accepted or rejected, and of what
happens on each connection; it listens itself, or shares the port of an HTTP server that
runs already.  :class:`WebSocket` is the object that browsers have under that name.

Callbacks are plain functions or coroutine functions.  Plain ones are called at once,
inside the read event; a coroutine gets a task of its own.  An exception in a callback
goes to the exception handler of the loop, and the connection goes on.
"""

from .client import WebSocket
from .connection import WebSocketConnection
from .cookies import Cookie
from .emitter import EventEmitter
from .errors import (
    DOMException,
    DOMSyntaxError,
    InvalidAccessError,
    InvalidStateError,
)
from .event import CloseEvent, ErrorEvent, Event, MessageEvent
from .hosting import is_upgrade
from .request import WebSocketRequest
from .router import WebSocketRouter
from .server import WebSocketServer
from .target import EventTarget

__all__ = [
    "CloseEvent",
    "Cookie",
    "DOMException",
    "DOMSyntaxError",
    "ErrorEvent",
    "Event",
    "EventEmitter",
    "EventTarget",
    "InvalidAccessError",
    "InvalidStateError",
    "MessageEvent",
    "WebSocket",
    "WebSocketConnection",
    "WebSocketRequest",
    "WebSocketRouter",
    "WebSocketServer",
    "is_upgrade",
]
