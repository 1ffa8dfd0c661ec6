"""The only reader of ``WEBSOCK_*`` environment variables, and the one decision.

There are three compiled modules and one switch: either every chooser takes its
``_c`` twin or every chooser takes its ``_py`` twin, so two combinations exist.

- ``WEBSOCK_PURE=1`` takes the pure twins, even where the extensions are there.
- ``WEBSOCK_REQUIRE_EXT=1`` makes missing extensions an error.
- ``WEBSOCK_KERNEL=<name>`` picks the variant of the compiled kernels by name.
- ``WEBSOCK_HUB=<address>`` is where topics that say nothing else find their hub.

An extension that is absent gives the pure twins.  One that is there but cannot be
loaded raises: falling back quietly would hide a broken installation.
"""

from __future__ import annotations

import importlib
import os

_FALSY = frozenset(("", "0", "no", "false", "off"))
_PROBE = "websock._kernels_c"


def env_flag(name: str) -> bool:
    """Tell whether an environment variable is set to something that means yes."""
    return os.environ.get(name, "").strip().lower() not in _FALSY


def env_text(name: str) -> str | None:
    """Return the value of an environment variable, ``None`` when empty or unset."""
    return os.environ.get(name, "").strip() or None


def child_environment(**more: str) -> dict[str, str]:
    """Return the environment of this process, with more variables, for a child."""
    return {**os.environ, **more}


def _load_extensions() -> bool:
    pure, required = env_flag("WEBSOCK_PURE"), env_flag("WEBSOCK_REQUIRE_EXT")
    if pure and required:
        raise ImportError("WEBSOCK_PURE and WEBSOCK_REQUIRE_EXT are both set")
    if pure:
        return False
    try:
        # Unlike "from . import", this tells absence from a failing import.
        importlib.import_module(_PROBE)
    except ModuleNotFoundError as exc:
        if exc.name != _PROBE or required:  # broken, or demanded: be heard
            raise
        return False
    return True


#: The kernel variant that the user asked for by name, if any.
KERNEL_NAME = env_text("WEBSOCK_KERNEL")

#: Whether the compiled twins are in use.
USE_EXT = _load_extensions()

#: ``"c"`` when the compiled twins are in use, else ``"py"``.
BACKEND = "c" if USE_EXT else "py"
