"""What an extension is: a factory that negotiates, and an object that transforms.

A class of your own derives from these. :mod:`websock.transform` connects it to the
codec; see there for what an extension may do to gain speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..frames import Frame

if TYPE_CHECKING:  # pragma: no cover
    from ..typing import ExtensionName, ExtensionParameter

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]


class Extension:
    """Base class of extensions: one object per connection."""

    __slots__ = ()

    name: ExtensionName
    """Name of the extension, as in ``Sec-WebSocket-Extensions``."""

    rsv: int = 0x70
    """Reserved bits that it defines, where byte 0 of a frame has them.

    Which bits a frame may have is checked before an extension sees the frame: name
    only those that the extension clears in :meth:`decode`.
    """

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Decode a frame from the peer.

        Args:
            frame: The frame; a data frame.
            max_size: Bytes that the payload may have; ``None`` for any number.

        Returns:
            The decoded frame.

        Raises:
            PayloadTooBig: If the decoded payload is bigger than ``max_size``.
            ProtocolError: If the frame cannot be decoded.
        """
        raise NotImplementedError

    def encode(self, frame: Frame) -> Frame:
        """Encode a frame for the peer.

        Args:
            frame: The frame; a data frame.

        Returns:
            The encoded frame.
        """
        raise NotImplementedError


class ClientExtensionFactory:
    """Base class of what a client offers."""

    name: ExtensionName
    """Name of the extension."""

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to send to the server."""
        raise NotImplementedError

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> Extension:
        """Take the parameters of the server's answer.

        Args:
            params: The parameters.
            accepted_extensions: Extensions accepted earlier in the same answer.

        Returns:
            The extension for the connection.

        Raises:
            NegotiationError: If the parameters are not acceptable.
        """
        raise NotImplementedError


class ServerExtensionFactory:
    """Base class of what a server accepts."""

    name: ExtensionName
    """Name of the extension."""

    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[list[ExtensionParameter], Extension]:
        """Take the parameters of a client's offer.

        Args:
            params: The parameters.
            accepted_extensions: Extensions accepted earlier in the same request.

        Returns:
            The parameters to answer with, and the extension for the connection.

        Raises:
            NegotiationError: To decline the offer.
        """
        raise NotImplementedError
