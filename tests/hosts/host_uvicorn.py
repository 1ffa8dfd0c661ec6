"""Puts websock's protocol into the parameters of uvicorn's own WebSocket tests."""

from __future__ import annotations

from typing import Any

import pytest

from websock.speedups.uvicorn import WebSocketProtocol


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ws_protocol_cls" in metafunc.fixturenames:
        # Takes the place of the fixture's own parameters.
        metafunc.definition.add_marker(
            pytest.mark.parametrize(
                "ws_protocol_cls", [pytest.param(WebSocketProtocol, id="websock")]
            )
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for module in {item.getparent(pytest.Module) for item in items}:
        namespace: Any = getattr(module, "obj", None)
        # Named where a test is about one protocol only, and where it is asked whether
        # the protocol is one of uvicorn's.
        if hasattr(namespace, "WebSocketsSansIOProtocol"):
            namespace.WebSocketsSansIOProtocol = WebSocketProtocol
        mock = getattr(namespace, "MockWriteTransport", None)
        if mock is not None:
            complete(mock)


def complete(mock: Any) -> None:
    """Give a stand-in for a transport the methods that every transport has."""
    mock.set_write_buffer_limits = lambda self, high=None, low=None: None
    mock.get_write_buffer_size = lambda self: 0
    mock.can_write_eof = lambda self: False
    mock.abort = lambda self: self.close()
