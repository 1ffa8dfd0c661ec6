"""Servers: what programs written for websockets rely on, with it and with websock."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import http
import json
import logging
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from library import Library, echo, same
from scripted import LOOPBACK, tls_fixture

tls = tls_fixture()


async def refused(lib: Library, server: Any, path: str = "/", **kwargs: Any) -> Any:
    """Connect in vain; return the response."""
    with pytest.raises(lib.exceptions.InvalidStatus) as caught:
        await lib.connect(server, path, **kwargs)
    code = caught.value.response.status_code
    assert str(caught.value) == f"server rejected WebSocket connection: HTTP {code}"
    return caught.value.response


# -- what a handler does -------------------------------------------------------------


@same
async def test_what_a_handler_sees(lib: Library) -> None:
    seen: dict[str, Any] = {}

    async def handler(ws: Any) -> None:
        seen.update(
            state=ws.protocol.state.name,
            path=ws.request.path,
            host=ws.request.headers["host"],
            status=ws.response.status_code,
            extensions=[type(item).__name__ for item in ws.protocol.extensions],
            subprotocol=ws.subprotocol,
            remote=ws.remote_address,
            local=ws.local_address,
            id=str(ws.id),
            logger=ws.logger.extra if hasattr(ws.logger, "extra") else None,
            server=ws.server,
            latency=ws.latency,
        )
        await ws.send("done")

    async with lib.serve(handler) as server:
        async with lib.connect(server, "/a/b?c=d&c=e") as ws:
            assert await ws.recv() == "done"
            assert seen["remote"] == ws.local_address
            assert seen["local"] == ws.remote_address
        port = server.sockets[0].getsockname()[1]
        assert seen["server"] is server
    assert (seen["state"], seen["path"]) == ("OPEN", "/a/b?c=d&c=e")
    assert (seen["host"], seen["status"]) == (f"{LOOPBACK}:{port}", 101)
    assert seen["extensions"] == ["PerMessageDeflate"]
    assert seen["subprotocol"] is None
    assert seen["latency"] == 0
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", seen["id"])


@same
async def test_handler_that_returns(lib: Library) -> None:
    async def handler(ws: Any) -> None:
        pass

    async with lib.serve(handler) as server, lib.connect(server) as ws:
        with pytest.raises(lib.exceptions.ConnectionClosedOK) as caught:
            await ws.recv()
        assert str(caught.value) == "received 1000 (OK); then sent 1000 (OK)"
        assert caught.value.rcvd == lib.module("frames").Close(1000, "")
        assert caught.value.rcvd_then_sent is True


@same
async def test_handler_that_fails(lib: Library) -> None:
    async def handler(ws: Any) -> None:
        raise LookupError("no such thing")

    async with lib.serve(handler) as server, lib.connect(server) as ws:
        with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == (
            "received 1011 (internal error); then sent 1011 (internal error)"
        )
        assert (ws.close_code, ws.close_reason) == (1011, "")


@same
async def test_handler_that_closes(lib: Library) -> None:
    async def handler(ws: Any) -> None:
        await ws.close(4001, "token expired")
        with pytest.raises(lib.exceptions.ConnectionClosedError):
            await ws.send("too late")

    async with lib.serve(handler) as server, lib.connect(server) as ws:
        with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == (
            "received 4001 (private use) token expired; "
            "then sent 4001 (private use) token expired"
        )


@same
async def test_handler_with_attributes_of_its_own(lib: Library) -> None:
    """Programs keep what they know of a user on the connection."""

    def process_request(ws: Any, request: Any) -> None:
        ws.user = request.headers.get("X-User", "nobody")

    async def handler(ws: Any) -> None:
        await ws.send(ws.user)

    async with lib.serve(handler, process_request=process_request) as server:
        headers = {"X-User": "somebody"}
        async with lib.connect(server, additional_headers=headers) as ws:
            assert await ws.recv() == "somebody"
        async with lib.connect(server) as ws:
            assert await ws.recv() == "nobody"


@same
async def test_consumer_and_producer(lib: Library) -> None:
    async def consume(ws: Any, queue: asyncio.Queue[Any]) -> None:
        async for message in ws:
            await queue.put(message)

    async def produce(ws: Any, queue: asyncio.Queue[Any]) -> None:
        while True:
            await ws.send((await queue.get()).upper())

    async def handler(ws: Any) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        tasks = [
            asyncio.create_task(consume(ws, queue)),
            asyncio.create_task(produce(ws, queue)),
        ]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()

    async with lib.serve(handler) as server, lib.connect(server) as ws:
        for word in ("one", "two", "three"):
            await ws.send(word)
        assert [await ws.recv() for _ in range(3)] == ["ONE", "TWO", "THREE"]


@same
async def test_broadcast_to_all(lib: Library) -> None:
    connected = asyncio.Event()

    async def handler(ws: Any) -> None:
        if len(server.connections) == 3:
            connected.set()
        await ws.wait_closed()

    async with lib.serve(handler) as server:
        clients = [await lib.connect(server) for _ in range(3)]
        await connected.wait()
        assert len(server.connections) == 3
        lib.server.broadcast(server.connections, json.dumps({"type": "users"}))
        assert [json.loads(await ws.recv()) for ws in clients] == [
            {"type": "users"}
        ] * 3
        ids = {str(ws.id) for ws in server.connections}
        assert len(ids) == 3
        for ws in clients:
            await ws.close()
        while server.connections:  # noqa: ASYNC110
            await asyncio.sleep(0)


@same
async def test_broadcast_leaves_out_who_is_gone(lib: Library) -> None:
    seen: list[Any] = []

    async def handler(ws: Any) -> None:
        seen.append(ws)
        await ws.wait_closed()
        seen.append("gone")

    async with lib.serve(handler) as server:
        async with lib.connect(server) as ws:
            pass
        while "gone" not in seen:  # noqa: ASYNC110
            await asyncio.sleep(0)
        lib.server.broadcast([seen[0]], "unheard")
        lib.server.broadcast([], "unheard")
        assert ws.state.name == "CLOSED"
        with pytest.raises(TypeError):
            lib.server.broadcast([seen[0]], ["not", "a", "message"])


# -- subprotocols, origins, hooks ----------------------------------------------------


@same
async def test_subprotocols(lib: Library) -> None:
    async with lib.serve(subprotocols=["graphql-ws", "chat"]) as server:
        async with lib.connect(server, subprotocols=["other", "chat"]) as ws:
            assert ws.subprotocol == "chat"
        async with lib.connect(server, subprotocols=["chat", "graphql-ws"]) as ws:
            assert ws.subprotocol == "graphql-ws"  # the server's order counts
        response = await refused(lib, server)
        assert response.status_code == 400
        assert b"missing subprotocol" in response.body


@same
async def test_select_subprotocol(lib: Library) -> None:
    def select(ws: Any, offered: Any) -> Any:
        assert list(offered) == ["v1", "v2"]
        return "v2"

    async with lib.serve(
        subprotocols=["v1", "v2"], select_subprotocol=select
    ) as server:
        async with lib.connect(server, subprotocols=["v1", "v2"]) as ws:
            assert ws.subprotocol == "v2"
        # It may also say that there is none.
    async with lib.serve(select_subprotocol=lambda ws, offered: None) as server:
        async with lib.connect(server, subprotocols=["v1"]) as ws:
            assert ws.subprotocol is None


@same
async def test_select_subprotocol_that_refuses(lib: Library) -> None:
    def refuse(ws: Any, offered: Any) -> Any:
        raise lib.exceptions.NegotiationError("v3 is needed")

    def fail(ws: Any, offered: Any) -> Any:
        raise RuntimeError

    async with lib.serve(select_subprotocol=refuse) as server:
        response = await refused(lib, server)
        assert response.status_code == 400
        assert b"v3 is needed" in response.body
    async with lib.serve(select_subprotocol=fail) as server:
        assert (await refused(lib, server)).status_code == 500


@same
async def test_origins(lib: Library) -> None:
    allowed = ["https://example.com", re.compile(r"https://.*\.example\.com"), None]
    async with lib.serve(origins=allowed) as server:
        for origin in ("https://example.com", "https://a.example.com", None):
            async with lib.connect(server, origin=origin) as ws:
                await ws.send("in")
                assert await ws.recv() == "in"
        response = await refused(lib, server, origin="https://example.org")
        assert response.status_code == 403
        assert b"origin" in response.body.lower()
    async with lib.serve(origins=["https://example.com"]) as server:
        assert (await refused(lib, server)).status_code == 403


@same
async def test_health_check(lib: Library) -> None:
    def health_check(ws: Any, request: Any) -> Any:
        if request.path == "/healthz":
            return ws.respond(http.HTTPStatus.OK, "OK\n")
        return None

    async with lib.serve(process_request=health_check) as server:
        response = await refused(lib, server, "/healthz")
        assert (response.status_code, response.reason_phrase) == (200, "OK")
        assert response.body == b"OK\n"
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.headers["Content-Length"] == "3"
        assert response.headers["Connection"] == "close"
        assert "Date" in response.headers
        async with lib.connect(server, "/") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


@same
async def test_process_request_in_a_coroutine(lib: Library) -> None:
    async def process_request(ws: Any, request: Any) -> Any:
        assert isinstance(request, lib.module("http11").Request)
        await asyncio.sleep(0)
        if "token" not in request.headers:
            return ws.respond(http.HTTPStatus.UNAUTHORIZED, "no token")
        return None

    async with lib.serve(process_request=process_request) as server:
        assert (await refused(lib, server)).status_code == 401
        async with lib.connect(server, additional_headers={"Token": "1"}) as ws:
            assert ws.response.status_code == 101


@same
async def test_hooks_that_fail(lib: Library) -> None:
    def fail(*args: Any) -> Any:
        raise RuntimeError("in a hook")

    async def fail_later(*args: Any) -> Any:
        raise RuntimeError("in a hook")

    for hook in (fail, fail_later):
        for name in ("process_request", "process_response"):
            async with lib.serve(**{name: hook}) as server:
                response = await refused(lib, server)
                assert response.status_code == 500
                assert b"in a hook" not in response.body


@same
async def test_process_response(lib: Library) -> None:
    def add(ws: Any, request: Any, response: Any) -> None:
        assert isinstance(request, lib.module("http11").Request)
        response.headers["Set-Cookie"] = "a=1"

    async def replace(ws: Any, request: Any, response: Any) -> Any:
        headers = response.headers.copy()
        headers["Set-Cookie"] = "b=2"
        return dataclasses.replace(response, headers=headers)

    for hook, value in ((add, "a=1"), (replace, "b=2")):
        async with lib.serve(process_response=hook) as server:
            async with lib.connect(server) as ws:
                assert ws.response.headers["Set-Cookie"] == value


@same
async def test_request_that_a_hook_spoils(lib: Library) -> None:
    def spoil(ws: Any, request: Any) -> None:
        del request.headers["Sec-WebSocket-Key"]

    async with lib.serve(process_request=spoil) as server:
        assert (await refused(lib, server)).status_code == 400


@same
async def test_server_header(lib: Library) -> None:
    for given, seen in (("Apache", "Apache"), (None, None)):
        async with lib.serve(server_header=given) as server:
            async with lib.connect(server) as ws:
                assert ws.response.headers.get("Server") == seen
    async with lib.serve() as server, lib.connect(server) as ws:
        assert ws.response.headers["Server"].startswith("Python/")
        assert lib.name in ws.response.headers["Server"]


@same
async def test_compression(lib: Library) -> None:
    async with lib.serve() as server:
        async with lib.connect(server) as ws:
            (extension,) = ws.protocol.extensions
            assert type(extension).__name__ == "PerMessageDeflate"
            assert extension.name == "permessage-deflate"
        async with lib.connect(server, compression=None) as ws:
            assert list(ws.protocol.extensions) == []
    async with lib.serve(compression=None) as server:
        async with lib.connect(server) as ws:
            assert list(ws.protocol.extensions) == []


@same
async def test_compression_with_settings(lib: Library) -> None:
    factory = lib.module("extensions.permessage_deflate").ServerPerMessageDeflateFactory
    async with lib.serve(
        extensions=[
            factory(
                server_max_window_bits=11,
                client_max_window_bits=11,
                compress_settings={"memLevel": 4},
            )
        ]
    ) as server:
        async with lib.connect(server) as ws:
            (extension,) = ws.protocol.extensions
            assert extension.local_max_window_bits == 11
            assert extension.remote_max_window_bits == 11
            await ws.send("text " * 1000)
            assert await ws.recv() == "text " * 1000


@same
async def test_connection_class(lib: Library) -> None:
    class Connection(lib.server.ServerConnection):  # type: ignore[name-defined,misc]
        async def send_json(self, value: Any) -> None:
            await self.send(json.dumps(value))

    async def handler(ws: Any) -> None:
        await ws.send_json({"path": ws.request.path})

    async with lib.serve(handler, create_connection=Connection) as server:
        async with lib.connect(server, "/x") as ws:
            assert json.loads(await ws.recv()) == {"path": "/x"}


@same
async def test_connection_factory(lib: Library) -> None:
    def create_connection(*args: Any, **kwargs: Any) -> Any:
        connection = lib.server.ServerConnection(*args, **kwargs)
        connection.number = 7
        return connection

    async def handler(ws: Any) -> None:
        await ws.send(str(ws.number))

    async with lib.serve(handler, create_connection=create_connection) as server:
        async with lib.connect(server) as ws:
            assert await ws.recv() == "7"


@same
async def test_logger(lib: Library) -> None:
    logger = logging.getLogger("shop")
    loggers: list[Any] = []

    async def handler(ws: Any) -> None:
        loggers.append(ws.logger)

    async with lib.serve(handler, logger=logger) as server:
        assert server.logger is logger
        async with lib.connect(server) as ws:
            await ws.wait_closed()
    assert loggers[0].name == "shop"


# -- the server ----------------------------------------------------------------------


@same
async def test_bound_socket(lib: Library) -> None:
    with socket.create_server((LOOPBACK, 0)) as sock:
        async with lib.server.serve(echo, sock=sock) as server:
            assert [s.getsockname() for s in server.sockets] == [sock.getsockname()]
            async with lib.connect(server) as ws:
                assert ws.remote_address == sock.getsockname()


@same
async def test_start_later(lib: Library) -> None:
    server = await lib.server.serve(echo, LOOPBACK, 0, start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    assert server.is_serving()
    assert server.get_loop() is asyncio.get_running_loop()
    async with lib.connect(server) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
    server.close()
    await server.wait_closed()
    assert not server.is_serving()
    assert not server.sockets


@same
async def test_serve_forever_until_cancelled(lib: Library) -> None:
    async with lib.serve() as server:
        task = asyncio.create_task(server.serve_forever())
        async with lib.connect(server) as ws:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(lib.exceptions.ConnectionClosedOK):
                await ws.recv()
            assert ws.close_code == 1001
        assert not server.is_serving()


@same
async def test_closing_closes_connections(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        server.close()
        with pytest.raises(lib.exceptions.ConnectionClosedOK) as caught:
            await ws.recv()
        assert str(caught.value) == (
            "received 1001 (going away); then sent 1001 (going away)"
        )


@same
async def test_closing_with_a_code(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        server.close(code=1012, reason="restarting")
        with pytest.raises(lib.exceptions.ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == (
            "received 1012 (service restart) restarting; "
            "then sent 1012 (service restart) restarting"
        )


@same
async def test_closing_without_connections(lib: Library) -> None:
    async with lib.serve() as server, lib.connect(server) as ws:
        await ws.send("one")
        assert await ws.recv() == "one"
        server.close(close_connections=False)
        await asyncio.sleep(0)
        assert not server.sockets
        await ws.send("two")
        assert await ws.recv() == "two"
        waiter = asyncio.create_task(server.wait_closed())
        await asyncio.wait([waiter], timeout=0.01)
        assert not waiter.done()
        await ws.close()
        await waiter


@same
async def test_closing_waits_for_handlers(lib: Library) -> None:
    go_on = asyncio.Event()
    order = []

    async def handler(ws: Any) -> None:
        await ws.wait_closed()
        await go_on.wait()
        order.append("handler")

    async with lib.serve(handler) as server:
        async with lib.connect(server) as ws:
            server.close()
            await ws.wait_closed()
            waiter = asyncio.create_task(server.wait_closed())
            await asyncio.wait([waiter], timeout=0.01)
            assert not waiter.done()
            go_on.set()
            await waiter
            order.append("server")
    assert order == ["handler", "server"]


@same
async def test_closing_in_a_handshake(lib: Library) -> None:
    async def process_request(ws: Any, request: Any) -> None:
        server.close()
        while ws.server.is_serving():  # noqa: ASYNC110
            await asyncio.sleep(0)

    async with lib.serve(process_request=process_request) as server:
        assert (await refused(lib, server)).status_code == 503


@same
async def test_handshake_that_does_not_end(lib: Library) -> None:
    async with lib.serve(open_timeout=0.01) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            data = await reader.read()
            assert data == b"" or data.startswith(b"HTTP/1.1 408 ")
        finally:
            writer.close()
            await writer.wait_closed()


@same
async def test_tls(lib: Library) -> None:
    async with lib.serve(ssl=lib.tls.server) as server:
        async with lib.connect(server, ssl=lib.tls.client) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
            (connection,) = server.connections
            for end in (ws, connection):
                ssl_object = end.transport.get_extra_info("ssl_object")
                assert ssl_object.version().startswith("TLS")


@same
async def test_unix(lib: Library) -> None:
    path = str(Path(lib.tmp_path) / "socket")
    async with lib.server.unix_serve(echo, path):
        async with lib.client.unix_connect(path) as ws:
            assert ws.request.headers["Host"] == "localhost"
            await ws.send("hello")
            assert await ws.recv() == "hello"
        async with lib.client.unix_connect(path, uri="ws://example.com/x") as ws:
            assert ws.request.headers["Host"] == "example.com"
            assert ws.request.path == "/x"
    async with lib.server.unix_serve(echo, path, ssl=lib.tls.server):
        async with lib.client.unix_connect(
            path, ssl=lib.tls.client, server_hostname="localhost"
        ) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


# -- wrong use -----------------------------------------------------------------------


@same
async def test_wrong_arguments(lib: Library) -> None:
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (TypeError, {"subprotocols": "chat"}),
        (ValueError, {"compression": False}),
        (ValueError, {"compression": "gzip"}),
    ]
    for kind, arguments in wrong:
        with pytest.raises(kind):
            await lib.server.serve(echo, LOOPBACK, 0, **arguments)
    with pytest.raises(ValueError, match="path"):
        await lib.server.unix_serve(echo)
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ValueError, match="path"):
        await lib.server.unix_serve(echo, path="/x", sock=sock)


# -- basic authentication ------------------------------------------------------------


def check(username: str, password: str) -> bool:
    return hmac.compare_digest(password, "secret") and username == "ann"


async def check_later(username: str, password: str) -> bool:
    await asyncio.sleep(0)
    return check(username, password)


@same
async def test_basic_auth(lib: Library) -> None:
    async def handler(ws: Any) -> None:
        await ws.send(ws.username)

    for arguments in (
        {"credentials": ("ann", "secret")},
        {"credentials": [("bob", "other"), ("ann", "secret")]},
        {"check_credentials": check},
        {"check_credentials": check_later},
    ):
        hook = lib.server.basic_auth(realm="shop", **arguments)
        async with lib.serve(handler, process_request=hook) as server:
            uri = lib.url(server).replace("://", "://ann:secret@")
            async with lib.client.connect(uri, proxy=None) as ws:
                assert await ws.recv() == "ann"
            for headers in (
                {},
                {"Authorization": "Negotiate x"},
                {"Authorization": "Basic !"},
                {"Authorization": "Basic YW5uOndyb25n"},
                {"Authorization": "Basic bm9ib2R5OnNlY3JldA=="},
            ):
                response = await refused(lib, server, additional_headers=headers)
                assert response.status_code == 401
                challenge = response.headers["WWW-Authenticate"]
                assert challenge == 'Basic realm="shop", charset="UTF-8"'


@same
async def test_wrong_credentials(lib: Library) -> None:
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (ValueError, {}),
        (TypeError, {"credentials": 42}),
        (TypeError, {"credentials": [42]}),
        (ValueError, {"credentials": ("a", "b"), "check_credentials": check}),
    ]
    for kind, arguments in wrong:
        with pytest.raises(kind):
            lib.server.basic_auth(**arguments)


# -- routes --------------------------------------------------------------------------


@same
async def test_routes(lib: Library) -> None:
    from werkzeug.routing import Map, Rule

    async def channel(ws: Any, number: int) -> None:
        await ws.send(f"channel {number + 1}")

    async def any_path(ws: Any, rest: str) -> None:
        await ws.send(f"files {rest}")

    url_map = Map(
        [
            Rule("/channel/<int:number>", endpoint=channel),
            Rule("/files/<path:rest>", endpoint=any_path),
            Rule("/old/<int:number>", redirect_to="/channel/<number>"),
            Rule("/folder/", endpoint=any_path, defaults={"rest": "folder"}),
        ]
    )
    async with lib.router.route(url_map, LOOPBACK, 0) as server:
        for path, answer in (
            ("/channel/3", "channel 4"),
            ("/channel/3?a=b", "channel 4"),
            ("/old/5", "channel 6"),
            ("/files/a/b", "files a/b"),
            ("/folder", "files folder"),
        ):
            async with lib.connect(server, path) as ws:
                assert await ws.recv() == answer
        response = await refused(lib, server, "/channel/x")
        assert (response.status_code, response.body) == (404, b"Not Found")


@same
async def test_routes_behind_a_proxy(lib: Library) -> None:
    from werkzeug.routing import Map, Rule

    url_map = Map([Rule("/old", redirect_to="/new"), Rule("/new", endpoint=echo)])
    async with lib.router.route(
        url_map, LOOPBACK, 0, server_name="example.com", ssl=True
    ) as server:
        reader, writer = await asyncio.open_connection(
            LOOPBACK, server.sockets[0].getsockname()[1]
        )
        writer.write(
            b"GET /old HTTP/1.1\r\nHost: internal\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        assert b" 302 " in head
        assert b"\r\nLocation: wss://example.com/new\r\n" in head


@same
async def test_routes_after_a_hook(lib: Library) -> None:
    from werkzeug.routing import Map, Rule

    def only_friends(ws: Any, request: Any) -> Any:
        if "Friend" not in request.headers:
            return ws.respond(http.HTTPStatus.FORBIDDEN, "no friend")
        return None

    async def only_friends_later(ws: Any, request: Any) -> Any:
        return only_friends(ws, request)

    url_map = Map([Rule("/", endpoint=echo)])
    for hook in (only_friends, only_friends_later):
        async with lib.router.route(
            url_map, LOOPBACK, 0, process_request=hook
        ) as server:
            assert (await refused(lib, server)).status_code == 403
            assert (await refused(lib, server, "/x")).status_code == 403
            friend = {"Friend": "yes"}
            async with lib.connect(server, additional_headers=friend) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            assert (
                await refused(lib, server, "/x", additional_headers=friend)
            ).status_code == 404


@same
async def test_router_class(lib: Library) -> None:
    from werkzeug.routing import Map, Rule

    class Router(lib.router.Router):  # type: ignore[name-defined,misc]
        async def handler(self, connection: Any) -> None:
            await connection.send("first")
            await super().handler(connection)

    url_map = Map([Rule("/", endpoint=echo)])
    path = str(Path(lib.tmp_path) / "socket")
    async with lib.router.unix_route(url_map, path, create_router=Router):
        async with lib.client.unix_connect(path) as ws:
            await ws.send("second")
            assert [await ws.recv(), await ws.recv()] == ["first", "second"]
