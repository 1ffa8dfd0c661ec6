"""Connected sockets for clients: names to addresses, addresses to a socket.

asyncio's ``create_connection()`` does this too, but hands out a transport, and not
every loop takes all of its arguments.  Everything here runs on what all loops have:
``getaddrinfo()`` and ``sock_connect()``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, TypeAlias

from ..typing import PathLike

__all__ = ["connect_tcp", "connect_unix", "set_nodelay"]

# What getaddrinfo() returns: family, type, protocol, canonical name, address.
AddressInfo: TypeAlias = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


def set_nodelay(sock: socket.socket) -> None:
    """Have small messages leave at once, where the socket knows of waiting."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # not TCP


async def connect_tcp(
    loop: asyncio.AbstractEventLoop,
    host: str | None,
    port: int | str | None,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    local_addr: tuple[str, int] | None = None,
    happy_eyeballs_delay: float | None = None,
    interleave: int | None = None,
    all_errors: bool = False,
) -> tuple[socket.socket, Any]:
    """Connect to the first address of a host that answers.

    Args:
        loop: The running event loop.
        host: Name or address.
        port: Port.
        family: Address family to use; 0 for all.
        proto: Protocol, for ``getaddrinfo()``.
        flags: Flags, for ``getaddrinfo()``.
        local_addr: Host and port to connect from.
        happy_eyeballs_delay: Seconds after which the next address is tried beside
            the one that does not answer (RFC 8305); ``None`` tries them in turn.
        interleave: Reorder addresses by family, beginning with this many of the
            first family; by default 1 with ``happy_eyeballs_delay``, else 0.
        all_errors: Raise all errors as an ``ExceptionGroup``.

    Returns:
        A non-blocking socket and the address that it is connected to.

    Raises:
        OSError: When no address can be connected to; the text names each attempt.
    """
    infos = await _resolve(loop, host, port, family, proto, flags)
    local_infos = None
    if local_addr is not None:
        local_infos = await _resolve(loop, *local_addr, family, proto, flags)
    if interleave is None:
        interleave = 0 if happy_eyeballs_delay is None else 1
    if interleave:
        infos = _interleave(infos, interleave)

    errors: list[OSError] = []
    try:
        if happy_eyeballs_delay is None or len(infos) == 1:
            for info in infos:
                try:
                    return await _connect_one(loop, info, local_infos), info[4]
                except OSError as exc:
                    errors.append(exc)
        else:
            found = await _race(loop, infos, local_infos, happy_eyeballs_delay, errors)
            if found is not None:
                return found
        if all_errors:
            raise ExceptionGroup(f"cannot connect to {host}", errors)
        raise _combine(host, errors)
    finally:
        errors = []  # they hold this frame


async def connect_unix(
    loop: asyncio.AbstractEventLoop, path: PathLike
) -> socket.socket:
    """Connect to a Unix socket.

    Args:
        loop: The running event loop.
        path: Its path; one that begins with NUL is in Linux's abstract name space.

    Raises:
        OSError: When that fails.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(
    loop: asyncio.AbstractEventLoop,
    host: str | None,
    port: int | str | None,
    family: int,
    proto: int,
    flags: int,
) -> Sequence[AddressInfo]:
    try:
        if host is not None and isinstance(port, int):
            # An address needs no name server, and so no thread.
            try:
                return socket.getaddrinfo(
                    host,
                    port,
                    family,
                    socket.SOCK_STREAM,
                    proto,
                    flags | socket.AI_NUMERICHOST,
                )
            except socket.gaierror:
                pass
        infos = await loop.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, proto=proto, flags=flags
        )
    except socket.gaierror as exc:
        # The system's text does not say which name it is about.
        raise socket.gaierror(exc.errno, f"{exc.strerror}: {host}") from None
    except UnicodeError:
        raise socket.gaierror(
            socket.EAI_NONAME, f"host name cannot be resolved: {host}"
        ) from None
    if not infos:
        raise OSError(f"host has no address: {host}")
    return infos


def _interleave(infos: Sequence[AddressInfo], first_count: int) -> list[AddressInfo]:
    """Take addresses of all families in turn, after some of the first family."""
    families: dict[int, list[AddressInfo]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    first, *others = families.values()
    head, first = first[: first_count - 1], first[first_count - 1 :]
    turns = chain.from_iterable(zip_longest(first, *others))
    return head + [info for info in turns if info is not None]


async def _connect_one(
    loop: asyncio.AbstractEventLoop,
    info: AddressInfo,
    local_infos: Sequence[AddressInfo] | None,
) -> socket.socket:
    family, kind, proto, _, address = info
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        set_nodelay(sock)
        if local_infos is not None:
            _bind(sock, local_infos)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, local_infos: Sequence[AddressInfo]) -> None:
    error: OSError | None = None
    for family, _, _, _, address in local_infos:
        if family != sock.family:
            continue
        try:
            sock.bind(address)
            return
        except OSError as exc:
            error = OSError(exc.errno, f"cannot bind to {address}: {exc.strerror}")
    raise error or OSError(f"local address is not of family {sock.family.name}")


async def _race(
    loop: asyncio.AbstractEventLoop,
    infos: Iterable[AddressInfo],
    local_infos: Sequence[AddressInfo] | None,
    delay: float,
    errors: list[OSError],
) -> tuple[socket.socket, Any] | None:
    """Try addresses one after the other, without waiting for any one for long."""
    waiting = iter(infos)
    addresses: dict[asyncio.Task[socket.socket], Any] = {}
    try:
        more = True
        while more or addresses:
            info = next(waiting, None) if more else None
            if info is None:
                more = False
            else:
                task = loop.create_task(_connect_one(loop, info, local_infos))
                addresses[task] = info[4]
            if not addresses:
                return None
            done, _ = await asyncio.wait(
                addresses,
                timeout=delay if more else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                exc = task.exception()
                if exc is None:
                    address = addresses.pop(task)
                    return task.result(), address
                if not isinstance(exc, OSError):
                    raise exc
                del addresses[task]
                errors.append(exc)
        return None
    finally:
        for task in addresses:
            # Even a task that is done, or will be before it is cancelled.
            task.add_done_callback(_discard)
            task.cancel()
        if addresses:
            await asyncio.wait(addresses)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _combine(host: str | None, errors: list[OSError]) -> OSError:
    """Make one error of all attempts; of their class, if they have one in common."""
    first = errors[0]
    if all(str(exc) == str(first) for exc in errors):
        return first
    text = f"cannot connect to {host}, {len(errors)} attempts failed: "
    if first.errno is not None and all(exc.errno == first.errno for exc in errors):
        # OSError() makes a ConnectionRefusedError from its number, and so on.
        return OSError(first.errno, text + ", ".join(str(e.strerror) for e in errors))
    return OSError(text + ", ".join(str(exc) for exc in errors))
