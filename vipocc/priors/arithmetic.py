"""The arithmetic that networks run in, said in one place and put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def arithmetic(device: torch.device, dtype: str, *, tf32: bool = False) -> Iterator[None]:
    """Run what follows in `dtype` on `device`; the process's own settings come back at the end.

    `float32` is float32: TF32, which CUDA otherwise takes for convolutions, has ten bits of mantissa. `bfloat16` has
    products and convolutions autocast. cuDNN is on either way.

    Args:
        device: where the network is.
        dtype: `float32` or `bfloat16`.
        tf32: lets float32 products round what goes in to TF32; for layers kept in float32 amid bfloat16.
    """
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with (
            # `flags` turns off what it is not told to leave on.
            torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32),
            torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
