"""The kernels in use: compiled or pure.  See ``_kernels_py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._compat import KERNEL_NAME, USE_EXT

if TYPE_CHECKING or not USE_EXT:
    from ._kernels_py import (
        KERNEL,
        Utf8Validator,
        apply_mask,
        apply_mask_inplace,
        build_header,
        decode_utf8,
        kernels,
        parse_header,
        random_mask,
        select_kernel,
    )
else:
    from ._kernels_c import (
        KERNEL,
        Utf8Validator,
        apply_mask,
        apply_mask_inplace,
        build_header,
        decode_utf8,
        kernels,
        parse_header,
        random_mask,
        select_kernel,
    )

if KERNEL_NAME is not None:
    select_kernel(KERNEL_NAME)  # also the pure twin says which names it knows

__all__ = [
    "KERNEL",
    "Utf8Validator",
    "apply_mask",
    "apply_mask_inplace",
    "build_header",
    "decode_utf8",
    "kernels",
    "parse_header",
    "random_mask",
    "select_kernel",
]
