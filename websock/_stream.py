"""Choose the stream: compiled when the extensions are in use, else pure Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._compat import USE_EXT

if TYPE_CHECKING or not USE_EXT:
    from ._stream_py import (
        Accepted,
        Done,
        Stream,
        accept_connections,
        accepted_address,
        accepted_socket,
        close_accepted,
        loop_state,
        publish,
        send_to_many,
    )
else:
    from ._stream_c import (
        Accepted,
        Done,
        Stream,
        accept_connections,
        accepted_address,
        accepted_socket,
        close_accepted,
        loop_state,
        publish,
        send_to_many,
    )

__all__ = [
    "Accepted",
    "Done",
    "Stream",
    "accept_connections",
    "accepted_address",
    "accepted_socket",
    "close_accepted",
    "loop_state",
    "publish",
    "send_to_many",
]
