"""A trace of some training steps, for `--profile-trace`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import profiler

WAIT, WARM_UP, STEPS = 5, 2, 3
"""Steps that pass before the profiler runs, while it warms up, and that it records."""
ROWS = 10


class StepProfile:
    """Records a few steps, after the first ones, as a Chrome trace in the run's folder and a table of its top ten."""

    def __init__(self, folder: Path, step: int, device: torch.device) -> None:
        """Start; `step` is the number of steps done before."""
        self.table: str | None = None
        """Where the time went, once the steps are recorded."""
        self._first, self._done = step + WAIT + WARM_UP + 1, 0
        self.path = folder / f"trace-steps_{self._first}-{self._first + STEPS - 1}.json.gz"
        self._on = "cuda" if device.type == "cuda" else "cpu"
        activities = [profiler.ProfilerActivity.CPU]
        if self._on == "cuda":
            activities.append(profiler.ProfilerActivity.CUDA)
        self._profile = profiler.profile(
            activities=activities,
            schedule=profiler.schedule(wait=WAIT, warmup=WARM_UP, active=STEPS, repeat=1),
            on_trace_ready=self._keep,
            acc_events=True,
        )
        self._profile.start()

    def advance(self) -> None:
        """Tell it that a step is over."""
        if self.table is None:
            self._done += 1
            self._profile.step()

    def close(self) -> str:
        """Stop, and return what there is to say: the table and where the trace is, or that the run was too short."""
        if self.table is None:
            self._profile.stop()
        if self.table is None:
            return f"no trace: the run ended before step {self._first}, the first that is recorded"
        steps = min(self._done - WAIT - WARM_UP, STEPS)
        return f"{self.table.rstrip()}\nthe trace of {steps} steps is {self.path}; open it in a Chrome trace viewer"

    def _keep(self, profile: profiler.profile) -> None:
        profile.export_chrome_trace(str(self.path))
        key = "self_cuda_time_total" if self._on == "cuda" else "self_cpu_time_total"
        self.table = profile.key_averages().table(sort_by=key, row_limit=ROWS, max_name_column_width=60)
