"""aiohttp with its speed-up, for tests that take the writer from where it is made."""

from __future__ import annotations

import host_patch


def pytest_configure() -> None:
    host_patch.pytest_configure()
    import aiohttp.client
    import aiohttp.http
    import aiohttp.http_websocket

    # Programs get the writer from the two modules that make connections.
    aiohttp.http.WebSocketWriter = aiohttp.client.WebSocketWriter
    aiohttp.http_websocket.WebSocketWriter = aiohttp.client.WebSocketWriter
