"""Training by several processes, one per device, as `torchrun` starts them.

Gradients are summed by hand instead of by DistributedDataParallel: that one averages over processes where the losses
here divide by the valid counts of the whole step, wants one `forward` where a step calls three networks, and waits for
parameters that get no gradient. Small objects travel by gloo on the CPU, gradients and counts where they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from vipocc.errors import DeviceError, UsageError

T = TypeVar("T")

BUCKET_BYTES = 25 * 2**20
"""Gradients that travel together: large enough for full speed, small enough to overlap with the backward pass."""
PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, which may be validating or preparing images."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, validates and prints."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """Add `values` over the processes, in place, and return it; every process gets the same bits."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def tell(self, value: T) -> T:
        """Return the first process's `value` in every process."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def collect(self, value: T) -> list[T]:
        """Return the values of all processes, in order, in the first one; an empty list in the others."""
        if self.world == 1:
            return [value]
        boxes: list[Any] | None = [None] * self.world if self.first else None
        distributed.gather_object(value, boxes, dst=0)
        return boxes or []

    def meet(self) -> None:
        """Wait until every process is here."""
        self.tell(None)


ALONE = Ranks()


def rank_here() -> int:
    """Return the rank that `torchrun` gave this process, 0 without it."""
    return int(os.environ.get("RANK", "0"))


def world_here() -> int:
    """Return how many processes `torchrun` started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device_here(device: str) -> str:
    """Return the device of this process: with several on CUDA, each takes that of its local rank.

    Raises:
        UsageError: one device was named for several processes.
        DeviceError: there are more processes on this machine than devices.
    """
    if world_here() == 1 or device == "cpu":
        return device
    if ":" in device:
        raise UsageError(
            f"{world_here()} processes cannot share {device}",
            fix="leave the number out: each takes a device of its own",
        )
    if not torch.cuda.is_available():
        return device
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise DeviceError(
            f"there are more processes on this machine than its {there} CUDA devices",
            fix=f"start torchrun with --nproc-per-node {there}",
        )
    return f"cuda:{local}"


@contextmanager
def joined(device: torch.device, init_method: str = "env://") -> Iterator[Ranks]:
    """Return a context in which this process is one of those that `torchrun` started; alone it does nothing.

    Raises:
        DeviceError: another process stopped, or the processes did not find each other.
    """
    world = world_here()
    if world == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    ranks = Ranks(rank_here(), world)
    try:
        distributed.init_process_group(
            backend, init_method=init_method, rank=ranks.rank, world_size=world, timeout=PATIENCE
        )
        yield ranks
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise DeviceError(
            f"process {ranks.rank} of {world} stopped because another one did, or cannot be reached",
            fix="see what that one said, and go on with `vipocc train --resume`",
        ) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _is_of_connection(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, distributed.DistError) or "gloo" in text or "Connection closed" in text


@dataclass
class _Bucket:
    """Gradients that travel together; `views` are the parameters' places in `flat`."""

    parameters: list[int]
    flat: Tensor
    views: list[Tensor]
    work: Any = None
    ready: set[int] = field(default_factory=set)


class GradientSum:
    """Sums gradients over the processes, bucket by bucket, while the backward pass still runs.

    The first pass learns in which order gradients come, which all processes then take from the first one, so that
    their sums meet in one order whatever happens. A parameter that got no gradient adds zeros and is waited for by
    nobody.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.parameters, self.ranks, self.bucket_bytes = list(parameters), ranks, bucket_bytes
        self._came: list[int] = []
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[int, _Bucket] = {}
        self._next, self._armed = 0, False
        for index, parameter in enumerate(self.parameters):
            parameter.register_post_accumulate_grad_hook(partial(self._came_in, index))

    @contextmanager
    def summing(self) -> Iterator[None]:
        """Return a context for the last backward pass of a step; after it every gradient is the sum."""
        self._next, self._armed = 0, True
        for bucket in self._buckets:
            bucket.ready.clear()
        try:
            yield
        finally:
            self._armed = False
        if not self._buckets:
            self._cut(self.ranks.tell(self._came))
        for bucket in self._buckets[self._next :]:
            self._send(bucket)
        for bucket in self._buckets:
            bucket.work.wait()
            for index, view in zip(bucket.parameters, bucket.views, strict=True):
                self.parameters[index].grad = view

    def _came_in(self, index: int, _: Tensor) -> None:
        if not self._armed:
            return
        if not self._buckets:
            self._came.append(index)
            return
        self._bucket_of[index].ready.add(index)
        while self._next < len(self._buckets) and self._is_full(self._buckets[self._next]):
            self._send(self._buckets[self._next])
            self._next += 1

    @staticmethod
    def _is_full(bucket: _Bucket) -> bool:
        return len(bucket.ready) == len(bucket.parameters)

    def _cut(self, came: list[int]) -> None:
        # Those without a gradient so far come last, in buckets that are sent when the pass is over.
        late = [index for index in range(len(self.parameters)) if index not in set(came)]
        for order in (came, late):
            chosen: list[int] = []
            for index in order:
                if chosen and not self._fits(chosen, index):
                    self._add_bucket(chosen)
                    chosen = []
                chosen.append(index)
            if chosen:
                self._add_bucket(chosen)

    def _fits(self, chosen: list[int], index: int) -> bool:
        first, one = self.parameters[chosen[0]], self.parameters[index]
        size = sum(self.parameters[at].nbytes for at in chosen) + one.nbytes
        return size <= self.bucket_bytes and one.dtype == first.dtype and one.device == first.device

    def _add_bucket(self, chosen: list[int]) -> None:
        members = [self.parameters[index] for index in chosen]
        flat = torch.zeros(sum(member.numel() for member in members), dtype=members[0].dtype, device=members[0].device)
        parts = flat.split([member.numel() for member in members])
        # In the memory order of the parameter (channels last, on CUDA), which the fused optimiser asks for.
        views = [part.as_strided(member.shape, member.stride()) for part, member in zip(parts, members, strict=True)]
        bucket = _Bucket(chosen, flat, views)
        self._buckets.append(bucket)
        self._bucket_of |= dict.fromkeys(chosen, bucket)

    def _send(self, bucket: _Bucket) -> None:
        places, gradients = [], []
        for index, view in zip(bucket.parameters, bucket.views, strict=True):
            gradient = self.parameters[index].grad
            if gradient is None:
                view.zero_()
            elif gradient is not view:
                places.append(view)
                gradients.append(gradient)
        if places:
            torch._foreach_copy_(places, gradients)
        bucket.work = distributed.all_reduce(bucket.flat, async_op=True)
