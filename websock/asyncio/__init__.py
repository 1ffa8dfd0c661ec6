"""WebSocket connections on asyncio's loop, and on loops that follow it."""

__all__ = ["client", "connection", "server"]
