"""Whether products in bfloat16 are faster than in float32 on a device.

Where the hardware multiplies bfloat16 they take half the time or less. Elsewhere they are emulated: on an x86-64 CPU
with AVX2 alone, a product of two 1,024 × 1,024 matrices takes 65 times as long as in float32.
"""

from __future__ import annotations

import platform

import torch


def multiplies_bfloat16(device_type: str = "cpu") -> bool:
    """Whether devices of this type (`cpu`, `cuda`, `mps`) multiply bfloat16 in hardware here."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    if platform.machine().lower() in {"aarch64", "arm64"}:
        # Builds for macOS come without mkldnn, and without its operators.
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def uses_bfloat16(precision: str, device_type: str = "cpu") -> bool:
    """What `precision: auto | bfloat16 | float32` of a configuration means on such a device."""
    return precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device_type))
