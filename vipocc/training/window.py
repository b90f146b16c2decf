"""Figures of the steps since the last log line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vipocc.training.metrics import peak_memory_gib, utilisation


class Window:
    """Sums of figures since the last log line; nothing waits for the device until the line is written."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = self.samples = 0
        self.excluded = 0.0
        self.start = time.perf_counter()

    def add(self, terms: Mapping[str, Tensor], samples: int) -> None:
        """Count a step."""
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1
        self.samples += samples

    def paused(self) -> _Stopwatch:
        """Return a context whose time is no training time: validation, saving."""
        return _Stopwatch(lambda seconds: setattr(self, "excluded", self.excluded + seconds))

    def figures(self, waited: float) -> dict[str, float]:
        """Return means since the last call, rates and memory, and start anew.

        `data_wait` is the share of the time that the device had to wait for samples, `waited` seconds;
        `gpu_utilisation` the share of the last moment in which the device had work, where the driver tells it.
        """
        values = torch.stack([value.float() for value in self.sums.values()]).tolist() if self.sums else []
        means = {name: value / self.steps for name, value in zip(self.sums, values, strict=True)}
        seconds = max(time.perf_counter() - self.start - self.excluded, 1e-9)
        figures = {
            **means,
            "samples_per_second": self.samples / seconds,
            "step_ms": 1000 * seconds / self.steps,
            # A wait that began before the last line may have ended after it.
            "data_wait": min(waited / seconds, 1.0),
            "peak_memory_gib": peak_memory_gib(self.device),
        }
        used = utilisation(self.device)
        if used is not None:
            figures["gpu_utilisation"] = used
        self._reset()
        return figures


class _Stopwatch:
    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.report(time.perf_counter() - self.start)


def shown(figures: Mapping[str, float]) -> dict[str, object]:
    """Return those figures that stand beside the progress bar, by short names."""
    short = {
        "loss": "loss",
        "loss/rgb": "rgb",
        "loss/depth": "depth",
        "loss/temporal": "temporal",
        "samples_per_second": "samples/s",
        "data_wait": "wait",
        "peak_memory_gib": "GiB",
        "gpu_utilisation": "gpu",
    }
    return {label: figures[name] for name, label in short.items() if name in figures}
