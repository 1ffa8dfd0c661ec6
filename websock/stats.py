"""Counters of connections and servers.

They are kept where the bytes pass, so that counting costs nothing that can be measured;
:meth:`Connection.stats` and :meth:`Server.stats` read them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

__all__ = ["ConnectionStats", "ServerStats", "prometheus"]


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionStats:
    """What a connection has done so far.

    Attributes:
        messages_received: Messages that arrived whole.
        payload_received: Bytes of payload in them, decompressed.
        bytes_received: Bytes that arrived, with the handshake and headers of frames;
            with TLS, before it.
        messages_sent: Messages that were sent.
        payload_sent: Bytes of payload in them, before compression.
        bytes_sent: Bytes that the operating system took, or the transport.
        dropped: Messages that a :class:`~websock.SlowConsumer` dropped.
        queued: Messages that wait for ``recv()``.
        queued_size: Bytes in them; characters of text.
        buffered: Bytes that wait to be sent.
        latency: Round-trip time of the last answered ping in seconds; 0 before.
    """

    messages_received: int
    payload_received: int
    bytes_received: int
    messages_sent: int
    payload_sent: int
    bytes_sent: int
    dropped: int
    queued: int
    queued_size: int
    buffered: int
    latency: float

    @property
    def ratio_received(self) -> float:
        """Bytes that arrived for each byte of payload, 0 when none did."""
        return (
            self.bytes_received / self.payload_received if self.payload_received else 0
        )

    @property
    def ratio_sent(self) -> float:
        """Bytes that were sent for each byte of payload, 0 when none was."""
        return self.bytes_sent / (self.payload_sent or math.inf)


@dataclasses.dataclass(frozen=True, slots=True)
class ServerStats:
    """What a server has done so far: its open connections and those before them.

    Attributes:
        connections: Connections that are open.
        connections_total: Connections that were opened.
        handshakes_failed: Connections that ended without being opened.
        connections_refused: Connections that found no room, see ``max_connections``.
        messages_received: Messages that arrived whole, on all of them.
        payload_received: Bytes of payload in them, decompressed.
        bytes_received: Bytes that arrived.
        messages_sent: Messages that were sent.
        payload_sent: Bytes of payload in them, before compression.
        bytes_sent: Bytes that the operating system took, or the transport.
        dropped: Messages that a :class:`~websock.SlowConsumer` dropped.
        queued: Messages that wait for ``recv()`` on open connections.
        buffered: Bytes that wait to be sent on open connections.
        latency: Mean round-trip time in seconds, of open connections that know theirs.
        latency_max: The longest of these.
    """

    connections: int
    connections_total: int
    handshakes_failed: int
    connections_refused: int
    messages_received: int
    payload_received: int
    bytes_received: int
    messages_sent: int
    payload_sent: int
    bytes_sent: int
    dropped: int
    queued: int
    buffered: int
    latency: float
    latency_max: float


#: What goes up and down; everything else is a counter.
_GAUGES = {
    "buffered",
    "connections",
    "latency",
    "latency_max",
    "queued",
    "queued_size",
}


def prometheus(
    stats: ConnectionStats | ServerStats,
    *,
    prefix: str = "websock",
    labels: Mapping[str, str] | None = None,
) -> str:
    """Write counters in the text format of Prometheus (version 0.0.4).

    ::

        def process_request(ws, request):
            if request.path == "/metrics":
                return ws.respond(200, websock.stats.prometheus(ws.server.stats()))

    Args:
        stats: What ``stats()`` returned.
        prefix: What the names begin with.
        labels: Labels for all of them.
    """
    return "".join(_lines(stats, prefix, _label_text(labels or {})))


def _lines(
    stats: ConnectionStats | ServerStats, prefix: str, labels: str
) -> Iterator[str]:
    for field in dataclasses.fields(stats):
        name = f"{prefix}_{field.name}"
        kind = "gauge" if field.name in _GAUGES else "counter"
        if field.name.startswith("latency"):
            name += "_seconds"
        elif kind == "counter" and not name.endswith("_total"):
            name += "_total"
        value = getattr(stats, field.name)
        yield f"# TYPE {name} {kind}\n{name}{labels} {value}\n"


def _label_text(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = []
    for name, value in labels.items():
        escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        pairs.append(f'{name}="{escaped}"')
    return "{" + ",".join(pairs) + "}"
