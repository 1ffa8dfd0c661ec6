"""How a :class:`~websock.events.WebSocket` connects, and what it checks before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..asyncio.client import ClientConnection, connect
from ..exceptions import InvalidURI
from ..listener import Listener
from ..typing import BytesLike
from .errors import DOMSyntaxError

__all__ = ["Opening", "check_protocols", "usv_string"]

_is_token = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+").fullmatch

# Arguments of connect() that are decided here, or mean nothing here.
_TAKEN = frozenset(
    (
        "create_connection",
        "listener",
        "process_exception",
        "reconnect_delays",
        "subprotocols",
        "uri",
    )
)


class TellingConnection(ClientConnection):
    """A connection that tells messages from what else is sent, and its end.

    Attributes:
        control_size: Bytes of control frames that could not be sent at once.
        unsent_at_end: Bytes that were never sent; set at the end.
    """

    __slots__ = ("control_size", "unsent_at_end")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.control_size = 0

    def close_without_code(self) -> None:
        """Begin to close the connection, with an empty close frame."""
        self.protocol.send_close()
        self._closing()

    def _closing(self) -> None:
        before = self.buffered_amount
        super()._closing()
        self._count_control(before)

    def send_control(self, opcode: int, payload: BytesLike) -> None:
        """Send a ping or a pong, whoever asked for it."""
        before = self.buffered_amount
        super().send_control(opcode, payload)
        self._count_control(before)

    def _count_control(self, before: int) -> None:
        self.control_size += max(self.buffered_amount - before, 0)

    def abort_stream(self, exc: BaseException | None = None) -> None:
        """Close at once; see the stream."""
        self._note_unsent()
        super().abort_stream(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; called once, by the stream or the transport."""
        self._note_unsent()
        super().connection_lost(exc)

    def _note_unsent(self) -> None:
        if not hasattr(self, "unsent_at_end"):
            self.unsent_at_end = self.buffered_amount


class Connector(connect):
    """Connects as browsers do: redirects are not followed."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Let every redirect be an error."""
        return exc


class Opening:
    """An opening handshake.

    Args:
        uri: URI of the server.
        protocols: Subprotocols to offer.
        listener: Object that is told what happens.
        options: Options of ``connect()``.

    Raises:
        DOMSyntaxError: When the URI cannot be used.
        TypeError: When an option is unknown.
        ValueError: When an option has a wrong value.
    """

    def __init__(
        self,
        uri: str,
        protocols: list[str],
        listener: Listener,
        options: Mapping[str, Any],
    ) -> None:
        taken = _TAKEN & options.keys()
        if taken:
            raise TypeError(
                f"WebSocket() got an unexpected keyword argument {min(taken)!r}"
            )
        try:
            self._connect = Connector(
                uri,
                subprotocols=protocols or None,  # type: ignore[arg-type]
                create_connection=TellingConnection,
                listener=listener,
                **options,
            )
        except InvalidURI as exc:
            raise DOMSyntaxError(str(exc)) from exc

    async def run(self) -> None:
        """Connect; the listener is told when that is done."""
        await self._connect


def check_protocols(protocols: str | Iterable[str]) -> list[str]:
    """Return the subprotocols to offer, as a list.

    Raises:
        DOMSyntaxError: When one is not a token, or is there twice.
        TypeError: When they are not text.
    """
    offered = [protocols] if isinstance(protocols, str) else list(protocols)
    seen = set()
    for protocol in offered:
        if not isinstance(protocol, str):
            raise TypeError(
                f"protocols must be str, or several, not {type(protocol).__name__}"
            )
        if not _is_token(protocol):
            raise DOMSyntaxError(f"subprotocol is not a token: {protocol!a}")
        if protocol in seen:
            raise DOMSyntaxError(f"subprotocol is there twice: {protocol}")
        seen.add(protocol)
    return offered


def usv_string(text: str) -> str:
    """Return text in which U+FFFD stands for each lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
