"""Kernels, compiled and pure side by side, and what peers offer for the same.

    pytest bench/test_kernels.py --benchmark-group-by=group

These figures explain, they do not promise: a kernel called from Python pays for
the call, which the codec does not. Promises are made of echoes with sockets.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from bench.conftest import SIZES, TEXTS, Impl, payload, text_of


@pytest.mark.parametrize("size", SIZES)
def test_mask(benchmark: Any, impl: Impl, mask: bytes, size: int) -> None:
    benchmark.group = f"mask {size} B"
    kernels, data = impl.module("kernels"), payload(size)
    out = benchmark(kernels.apply_mask, data, mask)
    assert kernels.apply_mask(out, mask) == data


@pytest.mark.parametrize("size", SIZES)
def test_mask_in_place(benchmark: Any, impl: Impl, mask: bytes, size: int) -> None:
    benchmark.group = f"mask in place {size} B"
    kernels, data = impl.module("kernels"), payload(size)
    buffer = bytearray(data)
    kernels.apply_mask_inplace(buffer, mask)
    assert kernels.apply_mask(buffer, mask) == data
    benchmark(kernels.apply_mask_inplace, buffer, mask)


@pytest.mark.parametrize("size", SIZES)
def test_mask_of_websockets(benchmark: Any, mask: bytes, size: int) -> None:
    benchmark.group = f"mask {size} B"
    speedups = pytest.importorskip("websockets.speedups")
    benchmark(speedups.apply_mask, payload(size), mask)


@pytest.mark.parametrize("size", SIZES)
def test_mask_in_place_of_aiohttp(benchmark: Any, mask: bytes, size: int) -> None:
    benchmark.group = f"mask in place {size} B"
    helpers = pytest.importorskip("aiohttp._websocket.helpers")
    benchmark(helpers.websocket_mask, mask, bytearray(payload(size)))


@pytest.mark.parametrize("size", SIZES)
def test_copy(benchmark: Any, size: int) -> None:
    """The speed of memory: what masking cannot beat."""
    benchmark.group = f"mask {size} B"
    benchmark(bytearray, payload(size))


@pytest.mark.parametrize("size", [32, 1024, 16384])
@pytest.mark.parametrize("kind", TEXTS)
def test_decode(benchmark: Any, impl: Impl, kind: str, size: int) -> None:
    benchmark.group = f"decode {kind} {size} B"
    data = text_of(kind, size)
    assert benchmark(impl.module("kernels").decode_utf8, data) == data.decode()


@pytest.mark.parametrize("size", [32, 1024, 16384])
@pytest.mark.parametrize("kind", TEXTS)
def test_decode_of_cpython(benchmark: Any, kind: str, size: int) -> None:
    benchmark.group = f"decode {kind} {size} B"
    benchmark(text_of(kind, size).decode)


@pytest.mark.parametrize("kind", ["ascii", "mixed"])
def test_validate(benchmark: Any, impl: Impl, kind: str) -> None:
    benchmark.group = f"validate {kind} 16384 B"
    validator = impl.module("kernels").Utf8Validator()
    data = text_of(kind, 16384)

    def validate() -> int:
        validator.reset()
        found: int = validator.feed(data)
        return found

    assert benchmark(validate) == -1


@pytest.mark.parametrize("size", [5, 1000, 100_000])
def test_header(benchmark: Any, impl: Impl, mask: bytes, size: int) -> None:
    benchmark.group = f"header of {size} B"
    kernels = impl.module("kernels")
    data = kernels.build_header(2, size, mask=mask)
    header = benchmark(kernels.parse_header, data, expect_mask=True)
    assert (header.opcode, header.length) == (2, size)


def test_random_mask(benchmark: Any, impl: Impl) -> None:
    benchmark.group = "random mask"
    assert len(benchmark(impl.module("kernels").random_mask)) == 4


@pytest.mark.parametrize("size", [32, 16384])
@pytest.mark.parametrize("name", ["scalar", "sse2", "avx2", "neon"])
def test_mask_variant(benchmark: Any, mask: bytes, name: str, size: int) -> None:
    benchmark.group = f"mask variants {size} B"
    kernels = importlib.import_module("websock._kernels_c")
    if name not in kernels.kernels():
        pytest.skip("this machine has no such instructions")
    before = kernels.KERNEL
    kernels.select_kernel(name)
    try:
        benchmark(kernels.apply_mask, payload(size), mask)
    finally:
        kernels.select_kernel(before)
