"""Has uvicorn use :mod:`websock.speedups.uvicorn` where it would choose by itself.

``--ws auto``, the default, becomes ``--ws websock.speedups.uvicorn:WebSocketProtocol``
in each new configuration.  It goes to the processes of ``--workers`` and ``--reload``
inside the configuration, so they need no patch.  Who names a protocol gets that one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ._patch import Patch

__all__ = ["PATCH", "WS"]

WS = "websock.speedups.uvicorn:WebSocketProtocol"


def with_websock(init: Callable[..., None]) -> Callable[..., None]:
    """Return ``Config.__init__`` with another default for WebSockets."""

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if self.ws == "auto":
            self.ws = WS

    return __init__


class UvicornPatch(Patch):
    """Changes what uvicorn's ``--ws auto`` means."""

    host = "uvicorn"
    modules = ("uvicorn.config",)
    versions = ("0.40", "0.55")
    gain = "--ws auto is websock.speedups.uvicorn:WebSocketProtocol"

    def self_test(self) -> None:
        """Check that a configuration keeps its choice in ``ws``."""
        config: Any = self.module("uvicorn.config").Config
        made = config.__new__(config)
        with_websock(lambda self, ws: setattr(self, "ws", ws))(made, ws="auto")
        if made.ws != WS:
            raise ValueError("a configuration does not keep ws")
        protocols = self.module("uvicorn.config").WS_PROTOCOLS
        if "auto" not in protocols or WS in protocols:
            raise ValueError("WS_PROTOCOLS is not the table of names")

    def apply(self) -> None:
        """Replace ``Config.__init__``."""
        config: Any = self.module("uvicorn.config").Config
        self.replace(config, "__init__", with_websock(vars(config)["__init__"]))


PATCH = UvicornPatch
