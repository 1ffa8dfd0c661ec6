"""The API for threads against websockets, both ways."""

from __future__ import annotations

from typing import Any

import pytest
import websockets.sync.client
import websockets.sync.server
from scripted import TLS, tls_fixture
from threads import LOOPBACK, PATIENCE, echo, running, serving, uri_of

from websock.sync.client import connect

pytestmark = pytest.mark.interop
tls = tls_fixture()

MESSAGES = ["", "é\U0001f600" * 1000, b"", bytes(range(256)) * 1000, "x" * 125]


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("theirs", ["client", "server"])
def test_peers(tls: TLS, theirs: str, secure: bool, compression: str | None) -> None:
    server_options: dict[str, Any] = {"compression": compression}
    options: dict[str, Any] = {"compression": compression, "proxy": None}
    if secure:
        server_options["ssl"], options["ssl"] = tls.server, tls.client
    if theirs == "client":
        # Their threads read and write one TLS session at the same time, which OpenSSL
        # does not allow.  When it meets the tickets that come after TLS's handshake, ours
        # or a server of their own waits for a request that is never sent.
        tls.server.num_tickets = 0
        serve: Any = serving(echo, **server_options)
        connect_to: Any = websockets.sync.client.connect
    else:
        serve = running(
            websockets.sync.server.serve(echo, LOOPBACK, 0, **server_options)
        )
        connect_to = connect
    with serve as server:
        uri = uri_of(server, scheme="wss" if secure else "ws")
        with connect_to(uri, **options) as ws:
            for message in MESSAGES:
                ws.send(message)
                assert ws.recv(timeout=PATIENCE) == message
            for message in MESSAGES:
                ws.send([message, message])
                assert ws.recv() == message + message
            ws.send(["a", "b", "c"])
            assert "".join(ws.recv_streaming()) == "abc"
            assert ws.ping().wait(PATIENCE)
            ws.close(4000, "bye")
        assert (ws.close_code, ws.close_reason) == (4000, "bye")
