"""permessage-deflate (RFC 7692): the extension, and its negotiation.

The work on payloads is in :mod:`.deflate`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ..constants import DEFLATE_MIN_SIZE, RSV1
from ..exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
)
from ..frames import CTRL_OPCODES, Frame
from ..typing import ExtensionName, ExtensionParameter
from .base import ClientExtensionFactory, Extension, ServerExtensionFactory
from .deflate import DeflateParameters, DeflateTransform

__all__ = [
    "ClientPerMessageDeflateFactory",
    "PerMessageDeflate",
    "ServerPerMessageDeflateFactory",
    "enable_client_permessage_deflate",
    "enable_server_permessage_deflate",
]

_NAME = ExtensionName("permessage-deflate")

# Offers whose answers a server remembers.
_MAX_KNOWN = 32

_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}


class PerMessageDeflate(Extension):
    """permessage-deflate as an extension.

    Args:
        remote_no_context_takeover: Whether the peer compresses each message alone.
        local_no_context_takeover: Whether this side compresses each message alone.
        remote_max_window_bits: Window of the peer, 8 to 15 bits.
        local_max_window_bits: Window of this side, 9 to 15 bits: zlib has no 8.
        compress_settings: More arguments for ``zlib.compressobj``, except ``wbits``.
        compress_min_size: Size from which messages are compressed; shorter ones are
            sent as they are.

    Attributes:
        transform: The same thing on integers and bytes.

    Raises:
        ValueError: If a window or a setting is out of range.
    """

    __slots__ = ("transform",)

    name = _NAME
    rsv = RSV1

    def __init__(
        self,
        remote_no_context_takeover: bool,
        local_no_context_takeover: bool,
        remote_max_window_bits: int,
        local_max_window_bits: int,
        compress_settings: Mapping[str, Any] | None = None,
        *,
        compress_min_size: int = DEFLATE_MIN_SIZE,
    ) -> None:
        _check_bits("remote_max_window_bits", remote_max_window_bits, 8)
        _check_bits("local_max_window_bits", local_max_window_bits, 9)
        settings = {} if compress_settings is None else compress_settings
        if "wbits" in settings:
            raise ValueError("compress_settings must not contain wbits")
        self.transform = DeflateTransform(
            DeflateParameters(
                remote_no_context_takeover,
                local_no_context_takeover,
                remote_max_window_bits,
                local_max_window_bits,
                settings,
                compress_min_size,
            )
        )

    @classmethod
    def from_parameters(cls, parameters: DeflateParameters) -> PerMessageDeflate:
        """Make the extension from parameters that were checked.

        Args:
            parameters: What was negotiated.
        """
        self = cls.__new__(cls)
        self.transform = DeflateTransform(parameters)
        return self

    @property
    def remote_no_context_takeover(self) -> bool:
        """Whether the peer compresses each message alone."""
        return self.transform.parameters.remote_no_context_takeover

    @property
    def local_no_context_takeover(self) -> bool:
        """Whether this side compresses each message alone."""
        return self.transform.parameters.local_no_context_takeover

    @property
    def remote_max_window_bits(self) -> int:
        """Window of the peer."""
        return self.transform.parameters.remote_max_window_bits

    @property
    def local_max_window_bits(self) -> int:
        """Window of this side."""
        return self.transform.parameters.local_max_window_bits

    @property
    def compress_settings(self) -> Mapping[str, Any]:
        """More arguments for ``zlib.compressobj``."""
        return self.transform.parameters.compress_settings

    @property
    def compress_min_size(self) -> int:
        """Size from which messages are compressed."""
        return self.transform.parameters.compress_min_size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PerMessageDeflate):
            return NotImplemented
        return self.transform.parameters == other.transform.parameters

    def __repr__(self) -> str:
        return (
            f"PerMessageDeflate("
            f"remote_no_context_takeover={self.remote_no_context_takeover}, "
            f"local_no_context_takeover={self.local_no_context_takeover}, "
            f"remote_max_window_bits={self.remote_max_window_bits}, "
            f"local_max_window_bits={self.local_max_window_bits})"
        )

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Decompress a frame."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        data = self.transform.decode(
            frame.opcode,
            frame.fin,
            RSV1 if frame.rsv1 else 0,
            bytes(frame.data),
            max_size,
        )
        return Frame(frame.opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        """Compress a frame."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        rsv, data = self.transform.encode(frame.opcode, frame.fin, bytes(frame.data))
        return Frame(frame.opcode, data, frame.fin, rsv != 0, frame.rsv2, frame.rsv3)


# -- negotiation (RFC 7692, 7.1) -----------------------------------------------------

_Bits: TypeAlias = int | Literal[True] | None


def _check_bits(name: str, bits: _Bits, minimum: int) -> None:
    if not (bits is None or bits is True or minimum <= bits <= 15):
        raise ValueError(f"invalid {name}: {bits}, expected {minimum} to 15")


def _check_settings(settings: Mapping[str, Any] | None, own: str) -> None:
    """Find mistakes now instead of at the first message of some connection."""
    if settings is None:
        return
    if "wbits" in settings:
        raise ValueError(f"compress_settings must not contain wbits, set {own} instead")
    try:
        zlib.compressobj(wbits=-9, **settings)
    except (ValueError, zlib.error) as exc:
        raise ValueError(f"invalid compress_settings: {exc}") from exc


def _build_params(
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: int | None,
    client_max_window_bits: _Bits,
) -> list[ExtensionParameter]:
    params: list[ExtensionParameter] = []
    if server_no_context_takeover:
        params.append(("server_no_context_takeover", None))
    if client_no_context_takeover:
        params.append(("client_no_context_takeover", None))
    if server_max_window_bits is not None:
        params.append(("server_max_window_bits", str(server_max_window_bits)))
    if client_max_window_bits is True:
        params.append(("client_max_window_bits", None))
    elif client_max_window_bits is not None:
        params.append(("client_max_window_bits", str(client_max_window_bits)))
    return params


def _parse_params(
    params: Sequence[ExtensionParameter], *, is_server: bool
) -> tuple[bool, bool, int | None, _Bits]:
    """Check the parameters of an offer (for a server) or of an answer."""
    found: dict[str, int | Literal[True]] = {}
    for name, value in params:
        if name in found:
            raise DuplicateParameter(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise InvalidParameterValue(name, value)
            found[name] = True
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value in _WINDOW_BITS:
                found[name] = _WINDOW_BITS[value]
            elif value is None and is_server and name == "client_max_window_bits":
                found[name] = True
            else:
                raise InvalidParameterValue(name, value)
        else:
            raise InvalidParameterName(name)
    return (
        "server_no_context_takeover" in found,
        "client_no_context_takeover" in found,
        found.get("server_max_window_bits"),
        found.get("client_max_window_bits"),
    )


class ClientPerMessageDeflateFactory(ClientExtensionFactory):
    """What a client offers.

    Args:
        server_no_context_takeover: Ask the server to compress each message alone.
        client_no_context_takeover: Say that this side will.
        server_max_window_bits: Ask the server to use at most this window, 8 to 15.
        client_max_window_bits: Use at most this window, 9 to 15; ``True`` lets the
            server choose, ``None`` does not let it.
        compress_settings: More arguments for ``zlib.compressobj``, except ``wbits``.
        compress_min_size: Size from which messages are compressed.

    Raises:
        ValueError: If a window or a setting is out of range.
    """

    name = _NAME

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | Literal[True] | None = True,
        compress_settings: Mapping[str, Any] | None = None,
        *,
        compress_min_size: int = DEFLATE_MIN_SIZE,
    ) -> None:
        _check_bits("server_max_window_bits", server_max_window_bits, 8)
        _check_bits("client_max_window_bits", client_max_window_bits, 9)
        _check_settings(compress_settings, "client_max_window_bits")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.compress_settings = compress_settings
        self.compress_min_size = compress_min_size

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters to send to the server."""
        return _build_params(
            self.server_no_context_takeover,
            self.client_no_context_takeover,
            self.server_max_window_bits,
            self.client_max_window_bits,
        )

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> PerMessageDeflate:
        """Take the server's answer.

        ============================  =================  =============================
        parameter                     offered            in the answer
        ============================  =================  =============================
        server_no_context_takeover    yes                must be there
        client_no_context_takeover    yes                holds also without it
        server_max_window_bits        N                  must be there, at most N
        client_max_window_bits        no                 must not be there
        client_max_window_bits        N                  at most N; N holds without it
        ============================  =================  =============================
        """
        if any(other.name == self.name for other in accepted_extensions):
            raise NegotiationError(f"{self.name} is accepted twice")
        server_takeover_off, client_takeover_off, server_bits, client_bits = (
            _parse_params(params, is_server=False)
        )

        if self.server_no_context_takeover and not server_takeover_off:
            raise NegotiationError("server_no_context_takeover is missing")
        if self.client_no_context_takeover:
            client_takeover_off = True

        limit = self.server_max_window_bits
        if limit is not None:
            if server_bits is None:
                raise NegotiationError("server_max_window_bits is missing")
            if server_bits > limit:
                raise NegotiationError(
                    f"server_max_window_bits is {server_bits}, limit {limit}"
                )

        if self.client_max_window_bits is None:
            if client_bits is not None:
                raise NegotiationError("client_max_window_bits was not offered")
        elif self.client_max_window_bits is not True:
            limit = self.client_max_window_bits
            if client_bits is None:
                client_bits = limit
            elif client_bits > limit:
                raise NegotiationError(
                    f"client_max_window_bits is {client_bits}, limit {limit}"
                )
        if client_bits == 8:
            raise NegotiationError("client_max_window_bits is 8, zlib needs 9")

        return PerMessageDeflate.from_parameters(
            DeflateParameters(
                server_takeover_off,
                client_takeover_off,
                server_bits or 15,
                client_bits or 15,
                self.compress_settings or {},
                self.compress_min_size,
            )
        )


class ServerPerMessageDeflateFactory(ServerExtensionFactory):
    """What a server accepts.

    Args:
        server_no_context_takeover: Compress each message alone.
        client_no_context_takeover: Tell the client to compress each message alone.
        server_max_window_bits: Use at most this window, 9 to 15.
        client_max_window_bits: Tell the client to use at most this window, 8 to 15,
            if it lets the server choose.
        compress_settings: More arguments for ``zlib.compressobj``, except ``wbits``.
        require_client_max_window_bits: Decline when the client does not let the
            server choose its window.
        compress_min_size: Size from which messages are compressed.

    Raises:
        ValueError: If a window or a setting is out of range.
    """

    name = _NAME

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        compress_settings: Mapping[str, Any] | None = None,
        require_client_max_window_bits: bool = False,
        *,
        compress_min_size: int = DEFLATE_MIN_SIZE,
    ) -> None:
        _check_bits("server_max_window_bits", server_max_window_bits, 9)
        _check_bits("client_max_window_bits", client_max_window_bits, 8)
        _check_settings(compress_settings, "server_max_window_bits")
        if require_client_max_window_bits and client_max_window_bits is None:
            raise ValueError(
                "require_client_max_window_bits needs a client_max_window_bits"
            )
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.compress_settings = compress_settings
        self.require_client_max_window_bits = require_client_max_window_bits
        self.compress_min_size = compress_min_size
        self._known: dict[
            tuple[ExtensionParameter, ...],
            tuple[list[ExtensionParameter], DeflateParameters],
        ] = {}

    def process_request_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Take a client's offer.

        Takeover is off when either side wants it off. A window is the smaller of the
        two, and the client's is only named when its offer has the parameter.
        """
        for other in accepted_extensions:
            if other.name == self.name:
                raise NegotiationError(f"{self.name} is accepted already")
        # Clients make the same few offers all day.
        key = tuple(params)
        known = self._known.get(key)
        if known is None:
            known = self._negotiate(params)
            if len(self._known) < _MAX_KNOWN:
                self._known[key] = known
        answer, parameters = known
        return answer.copy(), PerMessageDeflate.from_parameters(parameters)

    def _negotiate(
        self, params: Sequence[ExtensionParameter]
    ) -> tuple[list[ExtensionParameter], DeflateParameters]:
        server_takeover_off, client_takeover_off, server_bits, client_bits = (
            _parse_params(params, is_server=True)
        )

        if self.server_no_context_takeover:
            server_takeover_off = True
        if self.client_no_context_takeover:
            client_takeover_off = True

        limit = self.server_max_window_bits
        if limit is not None and (server_bits is None or server_bits > limit):
            server_bits = limit
        if server_bits == 8:
            raise NegotiationError("server_max_window_bits is 8, zlib needs 9")

        limit = self.client_max_window_bits
        if client_bits is None:
            if self.require_client_max_window_bits:
                raise NegotiationError("client_max_window_bits is missing")
        elif client_bits is True:
            client_bits = limit
        elif limit is not None:
            client_bits = min(client_bits, limit)

        return (
            _build_params(
                server_takeover_off, client_takeover_off, server_bits, client_bits
            ),
            DeflateParameters(
                client_takeover_off,
                server_takeover_off,
                client_bits or 15,
                server_bits or 15,
                self.compress_settings or {},
                self.compress_min_size,
            ),
        )


# 12 bits and level 5 take about 45 KiB for a connection that uses both directions,
# the defaults of zlib about 300 KiB, and small messages become little smaller by it.
# Level 3 is the last that takes the first match it finds: JSON of 1 KiB takes 10 us
# instead of zlib's usual 14.5 us (level 6), and becomes 4 % longer, 259 bytes for 250.
_WINDOW = 12
_SETTINGS = {"memLevel": 5, "level": 3}


def enable_client_permessage_deflate(
    extensions: Sequence[ClientExtensionFactory] | None,
) -> Sequence[ClientExtensionFactory]:
    """Add permessage-deflate with default settings, unless it is there.

    Args:
        extensions: What the client offers so far.
    """
    extensions = extensions or []
    if any(factory.name == _NAME for factory in extensions):
        return extensions
    return [*extensions, ClientPerMessageDeflateFactory(compress_settings=_SETTINGS)]


def enable_server_permessage_deflate(
    extensions: Sequence[ServerExtensionFactory] | None,
) -> Sequence[ServerExtensionFactory]:
    """Add permessage-deflate with default settings, unless it is there.

    Args:
        extensions: What the server accepts so far.
    """
    extensions = extensions or []
    if any(factory.name == _NAME for factory in extensions):
        return extensions
    return [
        *extensions,
        ServerPerMessageDeflateFactory(
            server_max_window_bits=_WINDOW,
            client_max_window_bits=_WINDOW,
            compress_settings=_SETTINGS,
        ),
    ]
