"""Says what an installed wheel is; fails unless it has the kernel of this processor.

``WEBSOCK_REQUIRE_EXT=1`` in the environment has the import fail without extensions.
"""

from __future__ import annotations

import platform
import sys

import websock
from websock import _kernels

X86 = {"sse2", "sse42", "avx2"}
KERNELS = {
    "x86_64": X86,
    "amd64": X86,
    "i686": X86,
    "x86": X86,
    "aarch64": {"neon"},
    "arm64": {"neon"},
}


def main() -> int:
    """Print one line; return the exit status."""
    machine = platform.machine().lower()
    wanted = KERNELS.get(machine, {"scalar"})
    found = _kernels.KERNEL
    print(f"websock {websock.__version__}, {websock.BACKEND}, {found} on {machine}")
    if websock.BACKEND == "c" and found not in wanted:
        print(f"the kernel should be {' or '.join(sorted(wanted))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
