"""Where ground truth is computed: on the CPU with numpy, or on a CUDA device with torch."""

from __future__ import annotations

from vipocc.errors import DeviceError, UsageError


def check_device(name: str) -> None:
    """Raise unless `name` is cpu, or cuda or cuda:N and there is such a device; imports torch only for those.

    Other accelerators are refused, for they have no float64.

    Raises:
        UsageError: it is no device of these.
        DeviceError: it is not there.
    """
    if name == "cpu":
        return
    kind, _, number = name.partition(":")
    if kind != "cuda" or (":" in name and not number.isdigit()):
        raise UsageError(f"ground truth cannot be computed on '{name}'", fix="use --device cpu, cuda or cuda:N")
    import torch

    if int(number or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there is no device {name} here", fix="use --device cpu")
