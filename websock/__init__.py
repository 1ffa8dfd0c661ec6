"""WebSocket clients and servers: fast, and comfortable.

    async with websock.connect("ws://localhost:8765") as ws:
        await ws.send("hello")
        print(await ws.recv())

The names are those of the ``websockets`` library; :class:`Listener` is the callback
API, and ``websock.BACKEND`` says which engine runs: ``"c"`` or ``"py"``.
"""

from ._compat import BACKEND
from .asyncio.byte_streams import open_stream
from .asyncio.client import ClientConnection, connect, unix_connect
from .asyncio.resilient import Resilient, resilient
from .asyncio.router import route, unix_route
from .asyncio.server import (
    Server,
    ServerConnection,
    basic_auth,
    broadcast,
    serve,
    unix_serve,
)
from .asyncio.web_stream import WebSocketStream
from .client import ClientProtocol
from .datastructures import Headers, HeadersLike, MultipleValuesError
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DuplicateParameter,
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidHost,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    ProxyError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyFragments,
    TooManyHeaders,
    WebSocketException,
)
from .frames import Close, CloseCode, Frame, Opcode
from .http11 import Request, Response
from .listener import Listener
from .prepared import PreparedMessage, prepare
from .protocol import Protocol, Side, State
from .server import ServerProtocol
from .slow import SlowConsumer
from .stats import ConnectionStats, ServerStats
from .typing import (
    Data,
    ExtensionName,
    ExtensionParameter,
    LoggerLike,
    Origin,
    StatusLike,
    Subprotocol,
)
from .version import __version__
from .workers.run import run

__all__ = [
    "BACKEND",
    "ClientConnection",
    "ClientProtocol",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "ConnectionStats",
    "Data",
    "DuplicateParameter",
    "ExtensionName",
    "ExtensionParameter",
    "Frame",
    "HeaderLineTooLong",
    "Headers",
    "HeadersLike",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidHost",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "Listener",
    "LoggerLike",
    "MultipleValuesError",
    "NegotiationError",
    "Opcode",
    "Origin",
    "PayloadTooBig",
    "PreparedMessage",
    "Protocol",
    "ProtocolError",
    "ProxyError",
    "Request",
    "Resilient",
    "RequestLineTooLong",
    "Response",
    "SecurityError",
    "Server",
    "ServerConnection",
    "ServerProtocol",
    "ServerStats",
    "Side",
    "SlowConsumer",
    "State",
    "StatusLike",
    "StatusLineTooLong",
    "Subprotocol",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
    "WebSocketStream",
    "__version__",
    "basic_auth",
    "broadcast",
    "connect",
    "open_stream",
    "prepare",
    "resilient",
    "route",
    "run",
    "serve",
    "unix_connect",
    "unix_route",
    "unix_serve",
]
