"""How long a call takes, repeated and waited for, as images per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

WARM_UP = 10
"""Calls before the clock starts, in which libraries choose algorithms, memory is reserved and graphs are recorded."""
LEAST = 3
"""Repetitions at the least, however long one takes."""
PATIENCE = 60.0
"""Seconds after which no new repetition of a figure starts; a sixth of it for the warm-up."""


@dataclass(frozen=True)
class Timing:
    """Images per second of each repetition."""

    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return float(np.median(self.rates))

    @property
    def spread(self) -> tuple[float, float]:
        """The 5th and the 95th percentile."""
        low, high = np.percentile(self.rates, [5, 95])
        return float(low), float(high)


def time_calls(
    call: Callable[[], object],
    batch: int,
    device: torch.device,
    *,
    images: int,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Time calls that work on `batch` images each, one after another, each waited for before the next starts.

    Waiting makes a figure of what a user waits for a prediction, not of how full a queue of many keeps the device.

    Args:
        call: what is timed.
        batch: images of a call.
        device: that it works on, which is synchronised before the clock starts and before it stops.
        images: in all; as many calls as take them, but at least `LEAST`, and no new one after `patience`.
        patience: seconds.
        clock: seconds from some start.
    """

    def waited() -> float:
        began = clock()
        call()
        synchronise(device)
        return clock() - began

    synchronise(device)
    began = clock()
    for number in range(WARM_UP):
        waited()
        if number > 0 and clock() - began > patience / 6:
            break
    seconds: list[float] = []
    began = clock()
    wanted = max(LEAST, -(-images // batch))
    while len(seconds) < wanted and (len(seconds) < LEAST or clock() - began < patience):
        seconds.append(waited())
    return Timing(tuple(batch / max(one, 1e-9) for one in seconds))


def synchronise(device: torch.device) -> None:
    """Wait for all work of a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
