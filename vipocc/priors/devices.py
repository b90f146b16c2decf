"""Which compute devices a run uses, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable

from vipocc.errors import DeviceError, UsageError


def resolve_devices(device: str = "auto", *, every: bool = False) -> tuple[str, ...]:
    """Return the devices to work on, one process each.

    Args:
        device: `auto` (CUDA where there is some, else the CPU), `cpu`, `cuda` or `cuda:N`.
        every: all CUDA devices of this machine.

    Raises:
        UsageError: not a device's name, or `every` beside one chosen device.
        DeviceError: CUDA, or that one of its devices, is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda|cuda:\d+", device):
        raise UsageError(f"'{device}' is not a device", fix="use --device auto, cpu, cuda or cuda:N")
    if every and (device == "cpu" or ":" in device):
        raise UsageError(f"--devices all and --device {device} contradict each other", fix="give one of them")
    if device == "cpu":
        return ("cpu",)
    count = _cuda_devices()
    if count == 0:
        if device == "auto" and not every:
            return ("cpu",)
        raise DeviceError("no CUDA device is available", fix="use --device cpu, or check the driver with `nvidia-smi`")
    if every:
        return tuple(f"cuda:{index}" for index in range(count))
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        raise DeviceError(
            f"there is no device cuda:{index}, only {count}", fix=f"use --device cuda:0 to cuda:{count - 1}"
        )
    return (f"cuda:{index}",)


def worker_device(device: str = "auto", check: Callable[[str], None] | None = None) -> str:
    """Return the device of the dask worker that this is called in.

    Args:
        device: as for `resolve_devices`, of what the worker sees.
        check: raises where the device is not for the work.

    Raises:
        DeviceError: the worker sees several CUDA devices and none was named: its neighbours would take the same one.
    """
    found = resolve_devices(device)[0]
    if ":" in found and ":" not in device and _cuda_devices() > 1:
        raise DeviceError(
            f"a dask worker sees {_cuda_devices()} CUDA devices, and another on its host would use the same one",
            fix="start a worker for each device, with CUDA_VISIBLE_DEVICES set to it",
        )
    if check is not None:
        check(found)
    return found


def check_dtype(dtype: str, device: str, option: str = "--dtype") -> None:
    """Raise `DeviceError` if `dtype` is not for `device`: bfloat16 is slow and untested away from CUDA."""
    if dtype == "bfloat16" and not device.startswith("cuda"):
        raise DeviceError("bfloat16 needs a CUDA device", fix=f"use {option} float32")


def check_compiled(compiled: bool, device: str) -> None:
    """Raise `DeviceError` if a network is to be compiled that does not run on CUDA."""
    if compiled and not device.startswith("cuda"):
        raise DeviceError("compiling needs a CUDA device", fix="leave out --compile")


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
