"""Build script: the list of compiled modules and how to compile them.

Three modes: WEBSOCK_REQUIRE_EXT=1 fails when the extensions cannot be built,
WEBSOCK_PURE=1 does not declare them (the wheel is py3-none-any), and with neither
they are tried, and a failure gives the same pure installation as WEBSOCK_PURE=1.
Variants for development: WEBSOCK_DEBUG=1 (no optimisation, asserts),
WEBSOCK_SANITIZE=address,undefined, WEBSOCK_TRACE=1 (line tracing for coverage).
"""

import os
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

VARIABLES = ("WEBSOCK_DEBUG", "WEBSOCK_SANITIZE", "WEBSOCK_TRACE")


def setting(name):
    value = os.environ.get(name, "").strip()
    return "" if value.lower() in {"", "0", "no", "false", "off"} else value


PURE, REQUIRED = setting("WEBSOCK_PURE"), setting("WEBSOCK_REQUIRE_EXT")
DEBUG, SANITIZE, TRACE = map(setting, VARIABLES)
if PURE and REQUIRED:
    sys.exit("WEBSOCK_PURE and WEBSOCK_REQUIRE_EXT are both set")


def flags(vectors):
    """Return the arguments for the compiler and for the linker."""
    if sys.platform == "win32":
        return ["/Od", "/Z7", "/UNDEBUG"] if DEBUG else ["/O2", "/DNDEBUG"], []
    compiler = ["-fvisibility=hidden"]
    # Without vectors -O3 costs a tenth of the bytes, and saves 0.2 % of an echo.
    level = "-O3" if vectors else "-O2"
    compiler += ["-O0", "-g3", "-UNDEBUG"] if DEBUG else [level, "-DNDEBUG"]
    if SANITIZE:
        sanitizer = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
        return [*compiler, "-g", "-fno-omit-frame-pointer", *sanitizer], sanitizer
    strip = ["-Wl,-s"] if sys.platform.startswith("linux") else []
    return (compiler, []) if DEBUG else ([*compiler, "-g0"], strip)


def variant():
    """Return a file that is newer than what an earlier variant left behind."""
    stamp = Path("build", "variant")
    text = " ".join(f"{name}={setting(name)}" for name in VARIABLES) + "\n"
    changed = not stamp.exists() or stamp.read_text() != text
    if changed:
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(text)
    return str(stamp), changed


def extensions():
    from Cython.Build import cythonize  # after the decision that it is needed

    stamp, changed = variant()
    modules = [
        Extension(
            name,
            [name.replace(".", "/") + ".pyx", *sorted(sources)],
            include_dirs=["csrc"],
            depends=[*sorted(glob("csrc/*.h")), stamp],
            define_macros=[("CYTHON_TRACE", "1")] if TRACE else [],
            extra_compile_args=flags(sources)[0],
            extra_link_args=flags(sources)[1],
        )
        for name, sources in {
            "websock._kernels_c": glob("csrc/ws_*.c"),
            "websock._codec_c": [],
            "websock._loop_c": [],
            "websock._channel_c": [],
            "websock._inbox_c": [],
            "websock._stream_c": [],
        }.items()
    ]
    directives = {"language_level": 3, "embedsignature": True, "linetrace": bool(TRACE)}
    directives["auto_pickle"] = False  # what holds sockets and buffers has no copies
    return cythonize(modules, compiler_directives=directives, force=changed)


if PURE:
    setup()
elif REQUIRED or "build_ext" in sys.argv:  # demanded, or asked for by name
    setup(ext_modules=extensions())
else:
    try:
        setup(ext_modules=extensions())
    except (Exception, SystemExit) as exc:
        # Setuptools ends a failed compilation with SystemExit.  A second setup()
        # decides the wheel's tag again, now without extensions.
        if isinstance(exc, SystemExit) and not exc.code:
            raise
        print(f"websock: no extensions ({exc}); going on in pure Python", flush=True)
        setup()
