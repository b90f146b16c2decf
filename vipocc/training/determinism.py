"""The same bits every time, on request: PyTorch's switch for algorithms whose result does not depend on timing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vipocc.errors import DeviceError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Return a context in which every operation gives the same bits every time, if that is `wanted`.

    Must be entered before the first product on CUDA, since cuBLAS reads its setting once.

    Raises:
        DeviceError: in the context, an operation has no such form on its device; it is named.
    """
    if not wanted:
        # Shapes never change in a run, so that trying out convolutions once pays.
        benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
        return
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    cudnn = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        named = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if named is None:
            raise
        raise DeviceError(
            f"{named[1]} has no deterministic form on this device",
            fix="train without --deterministic (-o training.deterministic=false), or on the CPU",
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
