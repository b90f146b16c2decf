"""The machine: Python, packages and their versions, GPUs, disk."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from packaging.requirements import Requirement

from vipocc.apps.doctor.findings import Finding
from vipocc.progress import size

#: What an import name is called where it comes under several names, any of which will do.
ALSO = {"opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")}
LITTLE_DISK = 5 << 30
"""Bytes below which a run is likely to end with a full disk."""


def look_at_machine(folder: Path | None) -> list[Finding]:
    """Return what is found; `folder` is where the disk is looked at, by default the current one."""
    section = "machine"
    found = [
        Finding(section, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", "good"),
        Finding(section, "processor", f"{os.cpu_count()} cores", "good"),
        *_gpus(section),
    ]
    where = folder or Path.cwd()
    free = shutil.disk_usage(where).free
    short = free < LITTLE_DISK
    found.append(
        Finding(
            section, "disk", f"{size(free)} free at {where}", "note" if short else "good",
            "`vipocc data check --for priors` says what a job takes" if short else "",
        )
    )  # fmt: skip
    return [*found, *_packages()]


def _gpus(section: str) -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
        return [
            Finding(
                section, "gpu", f"none that PyTorch can use (it is built for {built}); training runs on the CPU, slowly"
            )
        ]
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        busy = free < total // 4
        found.append(
            Finding(
                section, f"cuda:{index}",
                f"{properties.name}, {size(free)} of {size(total)} free, CUDA {torch.version.cuda}",
                "note" if busy else "good", "another process holds its memory: see nvidia-smi" if busy else "",
            )
        )  # fmt: skip
    return found


def _packages() -> list[Finding]:
    found = []
    for line in importlib.metadata.requires("vipocc") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        version = next(filter(None, map(_version, (wanted.name, *ALSO.get(wanted.name, ())))), None)
        if version is None:
            found.append(Finding("packages", wanted.name, "missing", "fault", "install vipocc again"))
        elif not wanted.specifier.contains(version, prereleases=True):
            fix = f"vipocc needs {wanted.specifier}: install it again"
            found.append(Finding("packages", wanted.name, version, "fault", fix))
        else:
            found.append(Finding("packages", wanted.name, version, "good"))
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
