"""WebSocket clients and servers: fast, and comfortable.

async with websock.connect("ws://localhost:8765") as ws:
    await ws.send("hello")
    print(await ws.recv())
"""

from ._compat import BACKEND
from .asyncio.server import Server, ServerConnection, broadcast, serve, unix_serve
from .listener import Listener
from .version import __version__
