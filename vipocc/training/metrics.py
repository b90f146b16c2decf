"""What a run tells about itself: metrics.jsonl, one JSON object a line, and the memory and use of its device."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vipocc.training.sinks import Sink


class MetricsWriter:
    """Appends figures to `metrics.jsonl` and hands them to other sinks.

    A run that goes on from step k drops the lines that a killed one wrote after step k, since those steps come again.
    """

    def __init__(self, folder: Path, *, resumed_at: int, sinks: Sequence[Sink] = ()) -> None:
        self.path = folder / "metrics.jsonl"
        _keep_until(self.path, resumed_at)
        self._file = self.path.open("a", encoding="utf-8")
        self._sinks = sinks

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one line of figures of a step."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink.write(step, figures)

    def close(self) -> None:
        """Close the file and every sink."""
        self._file.close()
        for sink in self._sinks:
            sink.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; a last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory used so far: of the CUDA device, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def utilisation(device: torch.device) -> float | None:
    """Return the share of the last moment in which a CUDA device had work; None where nothing tells it."""
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.utilization(device) / 100.0
    except Exception:  # the driver's library may be absent or refuse, each with an error type of its own
        return None


def _keep_until(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    aside = path.with_suffix(".jsonl.partial")
    aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(aside, path)
