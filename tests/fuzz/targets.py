"""Every fuzz target of the Python side: its name, what it does with some bytes.

A target fails by raising anything. One that ends normally has found twins, kernels and
ways to cut the input in agreement.
"""

from __future__ import annotations

from collections.abc import Callable

from . import codec, connection, http

__all__ = ["TARGETS"]

TARGETS: dict[str, Callable[[bytes], None]] = {
    "client": connection.client,
    "deflate": connection.deflate,
    "frame-reader": codec.frame_reader,
    "frame-writer": codec.frame_writer,
    "head": http.head,
    "header": codec.header,
    "header-values": http.header_values,
    "mask": codec.mask,
    "negotiation": connection.negotiation,
    "response": http.response,
    "server": connection.server,
    "text": codec.text,
    "uri": http.uri,
    "url": http.url,
}
