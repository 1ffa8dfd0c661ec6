"""Servers for threads: hooks, bad requests, shutting down, routes."""

from __future__ import annotations

import base64
import http
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import request
from threads import (
    LOOPBACK,
    PATIENCE,
    Thread,
    echo,
    raw_client,
    running,
    serving,
    uri_of,
)
from werkzeug.routing import Map, Rule

from websock.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websock.sync.client import connect, unix_connect
from websock.sync.router import route, unix_route
from websock.sync.server import ServerConnection, basic_auth, serve, unix_serve


def open_to(server: Any, path: str = "/", **kwargs: Any) -> Any:
    return connect(uri_of(server, path), proxy=None, **kwargs)


def refusal(server: Any, path: str = "/", **kwargs: Any) -> Any:
    with pytest.raises(InvalidStatus) as caught:
        open_to(server, path, **kwargs)
    return caught.value.response


# -- hooks -----------------------------------------------------------------------------


def test_process_request_and_response() -> None:
    def process_request(ws: ServerConnection, req: Any) -> Any:
        if req.path == "/no":
            return ws.respond(http.HTTPStatus.FORBIDDEN, "not here\n")
        return None

    def process_response(ws: ServerConnection, req: Any, resp: Any) -> Any:
        resp.headers["X-Seen"] = req.path
        return None

    with serving(
        process_request=process_request,
        process_response=process_response,
        server_header="mine",
    ) as server:
        response = refusal(server, "/no")
        assert (response.status_code, response.body) == (403, b"not here\n")
        assert response.headers["X-Seen"] == "/no"
        with open_to(server, "/yes") as ws:
            assert ws.response.headers["X-Seen"] == "/yes"
            assert ws.response.headers["Server"] == "mine"


@pytest.mark.parametrize("result", ["raise", 5])
@pytest.mark.parametrize("name", ["process_request", "process_response"])
def test_failing_hooks(
    name: str, result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(*args: Any) -> Any:
        if result == "raise":
            raise LookupError("oops")
        return result

    with serving(**{name: hook}) as server:  # type: ignore[arg-type]
        assert refusal(server).status_code == 500
    assert f"{name} failed" in caplog.text


def test_origins() -> None:
    origins = ["https://a.example", re.compile(r"https://.*\.b\.example"), None]
    with serving(origins=origins) as server:
        for good in ("https://a.example", "https://x.b.example", None):
            open_to(server, origin=good).close()
        assert refusal(server, origin="https://evil.example").status_code == 403


def test_subprotocols() -> None:
    def select(ws: ServerConnection, offered: Any) -> Any:
        return offered[-1] if offered else None

    with serving(subprotocols=["a", "b"], select_subprotocol=select) as server:
        with open_to(server, subprotocols=["a", "b"]) as ws:
            assert ws.subprotocol == "b"


def test_basic_auth() -> None:
    names: list[str] = []

    def handler(ws: Any) -> None:
        names.append(ws.username)
        echo(ws)

    hook = basic_auth("realm", credentials=[("hello", "iloveyou")])
    with serving(handler, process_request=hook) as server:
        response = refusal(server)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith('Basic realm="realm"')
        for value in ("Bearer x", "Basic " + base64.b64encode(b"hello:no").decode()):
            headers = {"Authorization": value}
            assert refusal(server, additional_headers=headers).status_code == 401
        uri = uri_of(server).replace("//", "//hello:iloveyou@")
        with connect(uri, proxy=None) as ws:
            ws.send("x")
            assert ws.recv() == "x"
    assert names == ["hello"]


# -- what goes wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (request().replace(b"GET", b"POST"), 405),
        (request("-Upgrade"), 426),
        (request("Sec-WebSocket-Version: 12"), 426),
        (request("-Sec-WebSocket-Key"), 400),
        (request("X: " + "x" * 100_000), 431),
    ],
)
def test_bad_requests(
    data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server, raw_client(server, opens=False) as peer:
        peer.sock.sendall(data)
        assert peer.rest().startswith(b"HTTP/1.1 %d " % status)
    assert "Traceback" not in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_handshakes_are_bounded_in_total(caplog: pytest.LogCaptureFixture) -> None:
    with serving(open_timeout=0.3) as server, raw_client(server, opens=False) as peer:
        stopped = threading.Event()

        def drip() -> None:
            try:
                for byte in request("X: " + "x" * 1000):
                    if stopped.wait(0.02):
                        return
                    peer.sock.sendall(bytes([byte]))
            except OSError:
                pass

        thread = Thread(drip)
        try:
            assert peer.rest().startswith(b"HTTP/1.1 408 ")
        finally:
            stopped.set()
            thread.result()
        with raw_client(server, opens=False) as gone:
            gone.sock.sendall(b"GET / HT")
    assert "Traceback" not in caplog.text


def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def handler(ws: Any) -> None:
        raise LookupError("oops")

    with serving(handler) as server, open_to(server) as ws:
        with pytest.raises(ConnectionClosedError):
            ws.recv()
        assert ws.close_code == 1011
    assert "connection handler failed" in caplog.text


def test_a_peer_that_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    def handler(ws: Any) -> None:
        try:
            while True:
                ws.recv()
        finally:
            ended.set()

    with serving(handler) as server:
        with raw_client(server):
            pass
        assert ended.wait(PATIENCE)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({}, ValueError),
        ({"host": LOOPBACK, "port": 0, "what": 1}, TypeError),
        ({"host": LOOPBACK, "port": 70000}, ValueError),
        ({"host": LOOPBACK, "port": 0, "compression": "zip"}, ValueError),
        ({"host": LOOPBACK, "port": 0, "max_size": -1}, ValueError),
    ],
)
def test_bad_arguments(kwargs: Any, error: Any) -> None:
    with pytest.raises(error):
        serve(echo, **kwargs)


# -- the end ---------------------------------------------------------------------------


def test_shutdown_closes_gracefully() -> None:
    ended: list[Any] = []

    def handler(ws: Any) -> None:
        ended.append(list(ws))

    with serving(handler) as server:
        assert server.fileno() == server.socket.fileno() >= 0
        connections = [open_to(server) for _ in range(3)]
        for ws in connections:
            ws.send("x")
        while len(server.connections) < 3:
            time.sleep(0.001)
        threads = [Thread(ws.recv) for ws in connections]
        server.shutdown(reason="later")
        assert ended == [["x"]] * 3
        for thread in threads:
            with pytest.raises(ConnectionClosedOK, match="later"):
                thread.result()
        assert {ws.close_code for ws in connections} == {1001}
        server.shutdown()
        with pytest.raises(OSError):
            open_to(server)
        assert server.fileno() == -1


def test_shutdown_without_closing_connections() -> None:
    with serving() as server:
        ws = open_to(server)
        thread = Thread(lambda: server.shutdown(close_connections=False))
        assert server.socket_closed.wait(PATIENCE)
        ws.send("still here")
        assert ws.recv() == "still here"
        ws.close()
        thread.result()


def test_shutdown_answers_open_handshakes() -> None:
    with serving() as server, raw_client(server, opens=False) as peer:
        peer.sock.sendall(b"GET / HTTP/1.1\r\n")
        while not server._opening:
            time.sleep(0.001)
        thread = Thread(server.shutdown)
        assert peer.rest().startswith(b"HTTP/1.1 503 ")
        peer.sock.close()
        thread.result()


def test_a_handler_shuts_down() -> None:
    with serving(lambda ws: server.shutdown()) as server:
        with open_to(server) as ws, pytest.raises(ConnectionClosedOK):
            ws.recv()
        assert server.socket_closed.wait(PATIENCE)


SIGNALS = """
import signal, sys, threading
from websock.sync.client import connect
from websock.sync.server import serve

def handler(ws):
    for message in ws:
        ws.send(message)

where = sys.argv[1]
if where in ("serve", "sigterm"):
    with serve(handler, "127.0.0.1", 0) as server:
        if where == "sigterm":
            signal.signal(signal.SIGTERM, lambda *_: server.shutdown())
        ws = None
        def client():
            global ws
            ws = connect(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", proxy=None)
            ws.send("x"); ws.recv()
            print("ready", flush=True)
        threading.Thread(target=client).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    assert not server.connections
    ws.close()
    print(ws.close_code)
else:
    held = threading.Event()
    ready = threading.Event()
    def hold(ws):
        ready.wait(30)
        print("ready", flush=True)
        held.wait(30)
        ws.send("after") if where == "recv" else None
    server = serve(hold, "127.0.0.1", 0, max_queue=1, close_timeout=1)
    threading.Thread(target=server.serve_forever).start()
    uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    ws = connect(uri, proxy=None, close_timeout=1, compression=None)
    try:
        ready.set()
        if where == "recv":
            ws.recv()
        else:
            while True:
                ws.send(bytes(100000))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    held.set()
    if where == "recv":
        print(ws.recv())
    ws.close()
    server.shutdown()
    print("done")
"""


@pytest.mark.parametrize(
    ("where", "output"),
    [
        ("serve", "interrupted\n1001\n"),
        ("sigterm", "1001\n"),
        ("recv", "interrupted\nafter\ndone\n"),
        ("send", "interrupted\ndone\n"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.usefixtures("interruptible")
def test_signals(where: str, output: str) -> None:
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SIGNALS, where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH") or str(root)},
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM if where == "sigterm" else signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == (output, "")
        finally:
            process.kill()
    assert process.returncode == 0


# -- Unix sockets and routes -----------------------------------------------------------


def test_unix(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with running(unix_serve(echo, path)):
        with unix_connect(path) as ws:
            ws.send("x")
            assert ws.recv() == "x"
            assert ws.request.headers["Host"] == "localhost"
    assert not Path(path).exists()


def test_a_bound_socket() -> None:
    with socket.create_server((LOOPBACK, 0)) as sock, running(serve(echo, sock=sock)):
        with socket.create_connection(sock.getsockname()) as mine:
            uri = f"ws://{LOOPBACK}:{sock.getsockname()[1]}/"
            with connect(uri, sock=mine) as ws:
                ws.send("x")
                assert ws.recv() == "x"


def channel(ws: ServerConnection, number: int) -> None:
    ws.send(f"channel {number}")


def make_map() -> Map:
    return Map(
        [
            Rule("/channel/<int:number>", endpoint=channel),
            Rule("/old", redirect_to="/channel/5"),
        ]
    )


def test_routes(tmp_path: Path) -> None:
    with running(route(make_map(), LOOPBACK, 0)) as server:
        with open_to(server, "/channel/3?x=y") as ws:
            assert ws.recv() == "channel 3"
        with open_to(server, "/old") as ws:
            assert ws.recv() == "channel 5"
        assert refusal(server, "/nowhere").status_code == 404
    path = str(tmp_path / "socket")
    with running(unix_route(make_map(), path)):
        with unix_connect(path, "ws://localhost/channel/7") as ws:
            assert ws.recv() == "channel 7"


def test_routes_need_werkzeug(monkeypatch: pytest.MonkeyPatch) -> None:
    url_map = make_map()
    monkeypatch.setattr("websock.routing.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs werkzeug: pip install"):
        route(url_map, LOOPBACK, 0)
