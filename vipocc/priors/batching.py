"""How many items a network takes at once: a number that was given, or one found by trying that shrinks at need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch

from vipocc.errors import DeviceError
from vipocc.progress import say

R = TypeVar("R")

LARGEST = 64
"""More at once gains nothing: a unit of work is 64 images."""
ON_CPU = 4
"""Items at once on the CPU, where more cost memory and gain nothing."""
_GAIN = 1.03
"""A size twice as large must be faster per item by this factor to be worth its memory."""


@dataclass
class BatchSize:
    """Items at once on one device.

    `auto` is tried out on CUDA (`find`), and halved whenever memory runs out later, the work going on. A number stays
    what it is: where it does not fit, that is an error.
    """

    asked: int | Literal["auto"]
    device: torch.device
    size: int = field(init=False)
    """Items that are taken at once now."""
    found: bool = field(init=False)
    """Whether `size` stands; otherwise `find` is still to try it out."""

    def __post_init__(self) -> None:
        self.size = ON_CPU if self.asked == "auto" else self.asked
        self.found = self.asked != "auto" or self.device.type == "cpu"

    def find(self, attempt: Callable[[int], object], largest: int = LARGEST) -> int:
        """Return the size, tried out first if need be: doubled from 1 while it fits and each item still gets faster.

        Args:
            attempt: runs the network on so many items of the kind to come.
            largest: never more than this, whatever was asked for.

        Raises:
            DeviceError: not even one item fits.
        """
        if self.found:
            self.size = min(self.size, largest)
            return self.size
        best, size, fastest = 1, 1, float("inf")
        while size <= largest:
            try:
                attempt(size)  # the first pass allocates and chooses kernels
                start = self._now()
                attempt(size)
                seconds = (self._now() - start) / size
            except torch.OutOfMemoryError:
                if size == 1:
                    raise self._too_small("one item") from None
                break
            if seconds * _GAIN > fastest:
                break
            best, fastest, size = size, seconds, 2 * size
        self._free()
        self.size, self.found = best, True
        return best

    def split(self, count: int, call: Callable[[int, int], R]) -> Iterator[R]:
        """Yield `call(start, stop)` for consecutive parts of `count` items, each of at most `size`.

        When memory runs out under `auto`, the size is halved for good and the same items are tried again.

        Raises:
            DeviceError: memory ran out with a size that was given, or with a single item.
        """
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            try:
                result = call(start, stop)
            except torch.OutOfMemoryError:
                failed = True
            else:
                failed = False
                yield result
                start = stop
            # Outside the handler: the exception there holds the frames, and with them the memory, of what failed.
            if failed:
                self._halve(stop - start)

    def _halve(self, failed: int) -> None:
        self._free()
        if self.asked != "auto" or failed == 1:
            raise self._too_small("one item" if failed == 1 else f"{failed} items at once")
        self.size = failed // 2
        say(f"{self.device} ran out of memory with {failed} items at once, going on with {self.size}")

    def _too_small(self, what: str) -> DeviceError:
        fix = "lower --batch-size, or use --batch-size auto"
        if self.asked == "auto":
            fix = "free memory on the device, or use a smaller model or --device cpu"
        return DeviceError(f"out of memory with {what}", where=self.device, fix=fix)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
