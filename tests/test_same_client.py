"""Clients: what programs written for websockets rely on, with it and with websock."""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import ssl
from typing import Any

import pytest
from library import Library, echo, same
from scripted import LOOPBACK, Peer, scripted, tls_fixture

tls = tls_fixture()


def redirect(target: Any, status: http.HTTPStatus = http.HTTPStatus.FOUND) -> Any:
    """Make a hook that sends clients from /old to somewhere."""

    def process_request(ws: Any, request: Any) -> Any:
        if request.path != "/old":
            return None
        response = ws.respond(status, "")
        response.headers["Location"] = target() if callable(target) else target
        return response

    return process_request


def delays() -> Any:
    while True:
        yield 0.0


# -- connecting ----------------------------------------------------------------------


@same
async def test_ways_to_connect(lib: Library) -> None:
    async with lib.serve() as server:
        async with lib.connect(server) as ws:
            assert ws.protocol.state is lib.module("protocol").State.OPEN
            await ws.send("hello")
            assert await ws.recv() == "hello"
        assert ws.protocol.state.name == "CLOSED"
        ws = await lib.connect(server)
        assert ws.state.name == "OPEN"
        await ws.close()
        await ws.close()
        assert (ws.close_code, ws.close_reason) == (1000, "")
        assert lib.root.connect is lib.client.connect


@same
async def test_what_a_client_knows(lib: Library) -> None:
    async with lib.serve(subprotocols=["chat"]) as server:
        port = server.sockets[0].getsockname()[1]
        async with lib.connect(server, "/x?y", subprotocols=["chat"]) as ws:
            assert ws.request.path == "/x?y"
            assert ws.request.headers["Host"] == f"{LOOPBACK}:{port}"
            assert ws.request.headers["User-Agent"].startswith("Python/")
            assert ws.response.status_code == 101
            assert ws.response.reason_phrase == "Switching Protocols"
            assert ws.subprotocol == "chat"
            assert ws.protocol.uri.path == "/x"
            assert ws.protocol.uri.resource_name == "/x?y"
            assert ws.remote_address == (LOOPBACK, port)
            assert ws.local_address[0] == LOOPBACK
            assert ws.close_code is None
            assert ws.close_reason is None
            assert ws.latency == 0
            assert isinstance(ws.transport, asyncio.BaseTransport)


@same
async def test_elsewhere_than_the_uri_says(lib: Library) -> None:
    async with lib.serve() as server:
        port = server.sockets[0].getsockname()[1]
        async with lib.client.connect(
            "ws://example.com/x", host=LOOPBACK, port=port, proxy=None
        ) as ws:
            assert ws.request.headers["Host"] == "example.com"
            assert ws.remote_address == (LOOPBACK, port)
        with socket.create_connection((LOOPBACK, port)) as sock:
            async with lib.client.connect("ws://example.com/x", sock=sock) as ws:
                assert ws.request.path == "/x"
                assert ws.remote_address == (LOOPBACK, port)


@same
async def test_headers(lib: Library) -> None:
    headers = lib.module("datastructures").Headers()
    headers["Cookie"] = "a=1"
    headers["X-Many"] = "1"
    headers["X-Many"] = "2"
    for given in (
        headers,
        [("Cookie", "a=1"), ("X-Many", "1"), ("X-Many", "2")],
    ):
        async with lib.serve() as server:
            async with lib.connect(server, additional_headers=given) as ws:
                (seen,) = (connection.request for connection in server.connections)
                assert seen.headers["Cookie"] == "a=1"
                assert seen.headers.get_all("X-Many") == ["1", "2"]
                assert ws.request.headers.get_all("x-many") == ["1", "2"]


@same
async def test_user_agent(lib: Library) -> None:
    async with lib.serve() as server:
        for arguments, value in (
            ({}, None),
            ({"user_agent_header": "Smith"}, "Smith"),
            ({"additional_headers": {"User-Agent": "Jones"}}, "Jones"),
        ):
            async with lib.connect(server, **arguments) as ws:
                seen = ws.request.headers.get_all("User-Agent")
                if value is None:
                    assert lib.name in seen[0]
                else:
                    assert seen == [value]
        async with lib.connect(server, user_agent_header=None) as ws:
            assert "User-Agent" not in ws.request.headers


@same
async def test_credentials_in_the_uri(lib: Library) -> None:
    async with lib.serve() as server:
        uri = lib.url(server).replace("://", "://ann:s%C3%A9cret@")
        async with lib.client.connect(uri, proxy=None) as ws:
            value = ws.request.headers["Authorization"]
            assert value == "Basic YW5uOnPDqWNyZXQ="
            assert "@" not in ws.request.headers["Host"]


@same
async def test_compression(lib: Library) -> None:
    module = lib.module("extensions.permessage_deflate")
    factory = module.ClientPerMessageDeflateFactory(
        server_max_window_bits=10, client_max_window_bits=10
    )
    async with lib.serve() as server:
        async with lib.connect(server) as ws:
            assert [type(e) for e in ws.protocol.extensions] == [
                module.PerMessageDeflate
            ]
        async with lib.connect(server, compression=None) as ws:
            assert list(ws.protocol.extensions) == []
            assert "Sec-WebSocket-Extensions" not in ws.request.headers
        async with lib.connect(server, extensions=[factory]) as ws:
            (extension,) = ws.protocol.extensions
            assert extension.remote_max_window_bits == 10
            await ws.send("abc" * 1000)
            assert await ws.recv() == "abc" * 1000


@same
async def test_extension_of_the_program(lib: Library) -> None:
    """An extension that reverses what is in frames, offered and accepted."""
    base = lib.module("extensions")
    frames = lib.module("frames")

    class Reverse(base.Extension):  # type: ignore[name-defined,misc]
        name = "x-reverse"

        def encode(self, frame: Any) -> Any:
            if frame.opcode in (frames.Opcode.TEXT, frames.Opcode.BINARY):
                return frames.Frame(
                    frame.opcode, bytes(frame.data)[::-1], frame.fin, rsv1=True
                )
            return frame

        def decode(self, frame: Any, *, max_size: int | None = None) -> Any:
            if frame.rsv1:
                return frames.Frame(frame.opcode, bytes(frame.data)[::-1], frame.fin)
            return frame

    class ClientFactory(base.ClientExtensionFactory):  # type: ignore[name-defined,misc]
        name = "x-reverse"

        def get_request_params(self) -> Any:
            return []

        def process_response_params(self, params: Any, accepted: Any) -> Any:
            return Reverse()

    class ServerFactory(base.ServerExtensionFactory):  # type: ignore[name-defined,misc]
        name = "x-reverse"

        def process_request_params(self, params: Any, accepted: Any) -> Any:
            return [], Reverse()

    async with lib.serve(extensions=[ServerFactory()], compression=None) as server:
        async with lib.connect(
            server, extensions=[ClientFactory()], compression=None
        ) as ws:
            assert ws.response.headers["Sec-WebSocket-Extensions"] == "x-reverse"
            for message in ("hello", b"\0\1\2", ""):
                await ws.send(message)
                assert await ws.recv() == message


@same
async def test_connection_class(lib: Library) -> None:
    class Connection(lib.client.ClientConnection):  # type: ignore[name-defined,misc]
        async def say(self, word: str) -> str:
            await self.send(word)
            answer: str = await self.recv()
            return answer

    def create_connection(*args: Any, **kwargs: Any) -> Any:
        connection = Connection(*args, **kwargs)
        connection.number = 7
        return connection

    async with lib.serve() as server:
        async with lib.connect(server, create_connection=Connection) as ws:
            assert await ws.say("hello") == "hello"
        async with lib.connect(server, create_connection=create_connection) as ws:
            assert ws.number == 7


@same
async def test_logger(lib: Library) -> None:
    logger = logging.getLogger("shop")
    async with lib.serve() as server:
        async with lib.connect(server, logger=logger) as ws:
            assert ws.logger.name == "shop"
        async with lib.connect(server) as ws:
            assert ws.logger.name == f"{lib.name}.client"


@same
async def test_latency(lib: Library) -> None:
    async with lib.serve() as server:
        async with lib.connect(server, ping_interval=0.01) as ws:
            while not ws.latency:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        async with lib.connect(server, ping_interval=None) as ws:
            latency = await (await ws.ping())
            assert latency > 0
            assert ws.latency == latency


# -- reconnecting --------------------------------------------------------------------


@same
async def test_reconnecting(lib: Library) -> None:
    turns = 0
    opened = 0

    def process_request(ws: Any, request: Any) -> Any:
        nonlocal turns
        turns += 1
        if turns == 1:
            ws.transport.abort()
        if turns == 2:
            return ws.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "soon")
        if turns == 5:
            return ws.respond(http.HTTPStatus.PAYMENT_REQUIRED, "pay")
        return None

    async def handler(ws: Any) -> None:
        await ws.send(f"turn {turns}")

    heard = []
    async with lib.serve(handler, process_request=process_request) as server:

        async def listen() -> None:
            nonlocal opened
            async for ws in lib.connect(server, reconnect_delays=delays):
                opened += 1
                try:
                    async for message in ws:
                        heard.append(message)
                except lib.exceptions.ConnectionClosed:
                    continue

        with pytest.raises(lib.exceptions.InvalidStatus) as caught:
            await listen()
        assert caught.value.response.status_code == 402
    assert (turns, opened, heard) == (5, 2, ["turn 3", "turn 4"])


@same
async def test_reconnecting_until_break(lib: Library) -> None:
    async with lib.serve() as server:
        async for ws in lib.connect(server):
            await ws.send("hello")
            assert await ws.recv() == "hello"
            break
        await ws.close()


@same
async def test_which_errors_are_final(lib: Library) -> None:
    def refuse(ws: Any, request: Any) -> Any:
        nonlocal turns
        turns += 1
        status = 503 if turns == 1 else 418
        return ws.respond(http.HTTPStatus(status), "")

    def replace(exc: Exception) -> Exception | None:
        assert isinstance(exc, lib.exceptions.InvalidStatus)
        if exc.response.status_code == 503:
            return None
        return LookupError("out of tea")

    def fail(exc: Exception) -> Exception | None:
        raise LookupError("out of tea")

    async with lib.serve(process_request=refuse) as server:
        for hook, expected in ((replace, 2), (fail, 1)):
            turns = 0
            connecting = lib.connect(
                server, process_exception=hook, reconnect_delays=delays
            )
            with pytest.raises(LookupError, match="out of tea"):
                await anext(aiter(connecting))
            assert turns == expected


# -- redirects -----------------------------------------------------------------------


@same
async def test_redirect(lib: Library) -> None:
    for status in (301, 302, 303, 307, 308):
        hook = redirect("/new?a=b", http.HTTPStatus(status))
        async with lib.serve(process_request=hook) as server:
            async with lib.connect(server, "/old") as ws:
                assert ws.request.path == "/new?a=b"
                assert ws.protocol.uri.path == "/new"


@same
async def test_redirect_to_another_origin(lib: Library) -> None:
    secrets = {
        "Authorization": "Bearer secret",
        "Cookie": "session=secret",
        "Proxy-Authorization": "Basic secret",
    }
    async with (
        lib.serve() as other,
        lib.serve(process_request=redirect(lambda: lib.url(other))) as server,
        lib.connect(server, "/old", additional_headers={**secrets, "X-Own": "1"}) as ws,
    ):
        assert not server.connections
        assert len(other.connections) == 1
        for name in secrets:
            assert name not in ws.request.headers
        assert ws.request.headers["X-Own"] == "1"


@same
async def test_redirect_within_the_origin_keeps_credentials(lib: Library) -> None:
    headers = {"Authorization": "Bearer secret", "Cookie": "session=secret"}
    async with lib.serve(process_request=redirect("/new")) as server:
        async with lib.connect(server, "/old", additional_headers=headers) as ws:
            for name, value in headers.items():
                assert ws.request.headers[name] == value


@same
async def test_redirects_without_end(lib: Library) -> None:
    async with lib.serve(process_request=redirect("/old")) as server:
        with pytest.raises(lib.exceptions.SecurityError, match="more than 10"):
            await lib.connect(server, "/old")


@same
async def test_redirects_that_are_refused(lib: Library) -> None:
    async with lib.serve(process_request=redirect("/new")) as server:
        port = server.sockets[0].getsockname()[1]
        with socket.create_connection((LOOPBACK, port)) as sock:
            with pytest.raises(ValueError, match="cannot follow redirect"):
                await lib.client.connect("ws://example.com/old", sock=sock)
        async with lib.client.connect(
            "ws://example.com/old", host=LOOPBACK, port=port, proxy=None
        ) as ws:
            assert ws.request.path == "/new"
    async with lib.serve(process_request=redirect("ws://example.org/")) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ValueError, match=r"cannot follow .*redirect"):
            await lib.client.connect(
                "ws://example.com/old", host=LOOPBACK, port=port, proxy=None
            )


@same
async def test_redirect_from_tls(lib: Library) -> None:
    hook = redirect(lambda: lib.url(server).replace("wss://", "ws://"))
    async with lib.serve(ssl=lib.tls.server, process_request=hook) as server:
        with pytest.raises(
            lib.exceptions.SecurityError, match="cannot follow redirect"
        ):
            await lib.connect(server, "/old", ssl=lib.tls.client)


# -- what goes wrong -----------------------------------------------------------------


@same
async def test_wrong_uris(lib: Library) -> None:
    for uri in (
        "http://localhost/",
        "localhost:8765",
        "ws://localhost/#fragment",
        "ws://ann@localhost/",
        "",
    ):
        with pytest.raises(lib.exceptions.InvalidURI) as caught:
            await lib.client.connect(uri)
        assert str(caught.value).startswith(f"{uri} isn't a valid URI")
        assert isinstance(caught.value, lib.exceptions.WebSocketException)


@same
async def test_nobody_listens(lib: Library) -> None:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        with pytest.raises(OSError):
            await lib.client.connect(f"ws://{LOOPBACK}:{sock.getsockname()[1]}")


@same
async def test_response_without_the_key(lib: Library) -> None:
    def spoil(ws: Any, request: Any, response: Any) -> None:
        del response.headers["Sec-WebSocket-Accept"]

    async with lib.serve(process_response=spoil) as server:
        with pytest.raises(lib.exceptions.InvalidHandshake) as caught:
            await lib.connect(server)
        assert str(caught.value) == "missing Sec-WebSocket-Accept header"
        assert isinstance(caught.value, lib.exceptions.InvalidHeader)
        assert caught.value.name == "Sec-WebSocket-Accept"


@same
async def test_response_with_another_key(lib: Library) -> None:
    def spoil(ws: Any, request: Any, response: Any) -> None:
        del response.headers["Sec-WebSocket-Accept"]
        response.headers["Sec-WebSocket-Accept"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="

    async with lib.serve(process_response=spoil) as server:
        with pytest.raises(lib.exceptions.InvalidHeaderValue) as caught:
            await lib.connect(server)
        assert caught.value.name == "Sec-WebSocket-Accept"


@same
async def test_no_response(lib: Library) -> None:
    async def say_nothing(peer: Peer) -> None:
        await peer.ended()

    async with scripted(say_nothing) as server:
        with pytest.raises(TimeoutError) as caught:
            await lib.client.connect(server.uri, open_timeout=0.01, proxy=None)
        assert str(caught.value) == "timed out during opening handshake"


@same
async def test_end_instead_of_a_response(lib: Library) -> None:
    async def leave(peer: Peer) -> None:
        await peer.request()

    async with scripted(leave) as server:
        with pytest.raises(lib.exceptions.InvalidMessage) as caught:
            await lib.client.connect(server.uri, proxy=None)
        assert str(caught.value) == "did not receive a valid HTTP response"
        assert isinstance(caught.value.__cause__, EOFError)


@same
async def test_another_protocol(lib: Library) -> None:
    async def mail(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"220 mail.example ESMTP\r\n")
        await peer.ended()

    async with scripted(mail) as server:
        with pytest.raises(lib.exceptions.InvalidMessage) as caught:
            await lib.client.connect(server.uri, proxy=None)
        assert str(caught.value) == "did not receive a valid HTTP response"
        assert caught.value.__cause__ is not None


@same
async def test_pages(lib: Library) -> None:
    def page(ws: Any, request: Any) -> Any:
        response = ws.respond(http.HTTPStatus.OK, "a page ☺")
        if request.path == "/bare":
            del response.headers["Content-Length"]
        return response

    async with lib.serve(process_request=page) as server:
        for path in ("/", "/bare"):
            with pytest.raises(lib.exceptions.InvalidStatus) as caught:
                await lib.connect(server, path)
            assert caught.value.response.status_code == 200
            assert caught.value.response.body.decode() == "a page ☺"


@same
async def test_wrong_arguments(lib: Library) -> None:
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (TypeError, "ws://localhost/", {"subprotocols": "chat"}),
        (ValueError, "ws://localhost/", {"compression": False}),
        (ValueError, "ws://localhost/", {"ssl": ssl.create_default_context()}),
        (ValueError, "wss://localhost/", {"ssl": None}),
    ]
    for kind, uri, arguments in wrong:
        with pytest.raises(kind):
            await lib.client.connect(uri, **arguments)
    with pytest.raises(ValueError, match="path"):
        await lib.client.unix_connect()
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ValueError, match="path"):
        await lib.client.unix_connect(path="/x", sock=sock)


# -- TLS -----------------------------------------------------------------------------


@same
async def test_tls_names(lib: Library) -> None:
    async with lib.serve(ssl=lib.tls.server) as server:
        port = server.sockets[0].getsockname()[1]
        async with lib.client.connect(
            "wss://localhost/", host=LOOPBACK, port=port, ssl=lib.tls.client, proxy=None
        ) as ws:
            ssl_object = ws.transport.get_extra_info("ssl_object")
            assert ssl_object.server_hostname == "localhost"
        async with lib.connect(
            server, ssl=lib.tls.client, server_hostname="localhost"
        ) as ws:
            ssl_object = ws.transport.get_extra_info("ssl_object")
            assert ssl_object.server_hostname == "localhost"


@same
async def test_certificates_that_do_not_fit(lib: Library) -> None:
    async with lib.serve(echo, ssl=lib.tls.server) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate"):
            await lib.connect(server)
        with pytest.raises(ssl.SSLCertVerificationError, match="ostname mismatch"):
            await lib.connect(
                server, ssl=lib.tls.client, server_hostname="example.invalid"
            )
