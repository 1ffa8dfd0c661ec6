"""Configuration of hypercorn for the chat."""

from __future__ import annotations

bind = ["127.0.0.1:0"]
websocket_max_message_size = 100_000
graceful_timeout = 0.2
