"""Frames on the device before they are asked for, and results judged while the network works on the next.

One frame's network takes a millisecond or two on a large GPU; reading, copying and counting cells in turn with it would
take as long again. So threads read and decode frames into page-locked memory and copy them as bytes on a stream of
their own, the caller's thread only starts networks, and other threads judge what has come back. Both go in groups of at
least `GROUP` frames, however small the batches, so that handing over costs a frame nearly nothing.

    for result in judged(stream(source, keys, size, device), predict, judge): ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.evaluation.inputs import FrameSource, frame_of
from vipocc.evaluation.predictors.interface import Batch

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

GROUP = 16
"""Frames that are read, and judged, in one piece at the least."""
THREADS = 4
"""Of the readers, and of the judges."""
AHEAD = 4
"""Groups that are read before they are asked for, and groups that wait to be judged: what bounds the memory."""

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Predict: TypeAlias = Callable[[Batch], Mapping[str, Tensor]]
"""Returns tensors [B, ...] by name, which the next call may overwrite."""
Judge: TypeAlias = Callable[[Sequence[FrameKey], Arrays], Sequence[T]]
"""Takes n frames and their arrays [n, ...] by name, and returns what becomes of each frame; called in any thread."""


@dataclass(frozen=True)
class Judged(Generic[T]):
    """What became of a frame."""

    key: FrameKey
    arrays: Arrays
    """What was predicted of it, by name, without the batch's dimension."""
    result: T


def stream(
    source: FrameSource,
    keys: Sequence[FrameKey],
    size: int,
    device: torch.device,
    *,
    threads: int = THREADS,
    ahead: int = AHEAD,
) -> Iterator[Batch]:
    """Yield the frames of `keys` in batches of `size`, in order, read ahead.

    An error of reading is raised in its place among the batches. `stream_reference` is the plain twin.
    """
    group = size * max(1, GROUP // size)
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def read(some: Sequence[FrameKey]) -> tuple[Batch, torch.cuda.Event | None]:
        if copies is None:
            return _load(source, some, device), None
        with torch.cuda.device(device), torch.cuda.stream(copies):
            batch = _load(source, some, device)
            arrived = torch.cuda.Event()
            arrived.record(copies)
        return batch, arrived

    groups = (keys[start : start + group] for start in range(0, len(keys), group))
    with ThreadPoolExecutor(threads, "vipocc-read") as pool:
        for batch, arrived in _in_order(pool, read, groups, ahead):
            if arrived is not None:
                working = torch.cuda.current_stream(device)
                working.wait_event(arrived)
                for tensor in (batch.images, batch.intrinsics_ndc, *batch.maps.values()):
                    tensor.record_stream(working)
            for start in range(0, len(batch.keys), size):
                yield _part(batch, slice(start, start + size))


def stream_reference(source: FrameSource, keys: Sequence[FrameKey], size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the same batches as `stream`, each read when it is asked for."""
    for start in range(0, len(keys), size):
        yield _load(source, keys[start : start + size], device)


def judged(
    batches: Iterable[Batch], predict: Predict, judge: Judge[T], *, threads: int = THREADS, ahead: int = AHEAD
) -> Iterator[Judged[T]]:
    """Yield what becomes of each frame, in order; `judged_reference` is the plain twin.

    Args:
        batches: the frames, such as `stream` gives them.
        predict: called in the caller's thread, without gradients.
        judge: called in threads, beside the network, with at least `GROUP` frames at a time but for the last.
        threads: that judge.
        ahead: groups that may wait to be judged.
    """

    def finish(group: _Group) -> list[Judged[T]]:
        return list(_results(group.keys, group.arrays(), judge))

    with ThreadPoolExecutor(threads, "vipocc-judge") as pool:
        for results in _in_order(pool, finish, _groups(batches, predict), ahead):
            yield from results


def judged_reference(batches: Iterable[Batch], predict: Predict, judge: Judge[T]) -> Iterator[Judged[T]]:
    """Yield the same as `judged`, one batch after another."""
    for batch in batches:
        with torch.no_grad():
            found = predict(batch)
        yield from _results(batch.keys, {name: one.cpu().clone().numpy() for name, one in found.items()}, judge)


class _Group:
    """Predictions on their way to the host."""

    def __init__(self) -> None:
        self.keys: list[FrameKey] = []
        self._parts: dict[str, list[Tensor]] = {}
        self._device: torch.device | None = None
        self._arrived: torch.cuda.Event | None = None

    def add(self, keys: Sequence[FrameKey], found: Mapping[str, Tensor]) -> None:
        """Start to copy; queued before anything that overwrites what was found."""
        self.keys += keys
        for name, tensor in found.items():
            if tensor.is_cuda:
                self._device = tensor.device
                there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                there.copy_(tensor, non_blocking=True)
            else:
                there = tensor.clone()
            self._parts.setdefault(name, []).append(there)

    def close(self) -> None:
        """Mark the end of the copies."""
        if self._device is not None:
            self._arrived = torch.cuda.Event(blocking=True)
            self._arrived.record(torch.cuda.current_stream(self._device))

    def arrays(self) -> Arrays:
        """Return the predictions [n, ...] when they have come."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return {name: np.concatenate([part.numpy() for part in parts]) for name, parts in self._parts.items()}


def _groups(batches: Iterable[Batch], predict: Predict) -> Iterator[_Group]:
    group = _Group()
    for batch in batches:
        with torch.no_grad():
            group.add(batch.keys, predict(batch))
        if len(group.keys) >= GROUP:
            group.close()
            yield group
            group = _Group()
    if group.keys:
        group.close()
        yield group


def _results(keys: Sequence[FrameKey], arrays: Arrays, judge: Judge[T]) -> Iterator[Judged[T]]:
    for at, (key, result) in enumerate(zip(keys, judge(keys, arrays), strict=True)):
        yield Judged(key, {name: values[at] for name, values in arrays.items()}, result)


def _in_order(pool: ThreadPoolExecutor, function: Callable[[S], R], items: Iterable[S], ahead: int) -> Iterator[R]:
    """Results of a function over items, at most `ahead` of them not yet asked for."""
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _load(source: FrameSource, keys: Sequence[FrameKey], device: torch.device) -> Batch:
    """Read frames and start them on their way; as bytes, a quarter of what the network's numbers would be."""
    images = torch.empty((len(keys), *source.size, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
    source.read_images(keys, images.numpy())
    intrinsics = torch.from_numpy(np.stack([source.intrinsics(key) for key in keys]))
    return Batch(
        keys,
        [frame_of(source.manifest, key) for key in keys],
        images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255.0,
        intrinsics.to(device),
        source.maps(keys, device),
    )


def _part(batch: Batch, some: slice) -> Batch:
    return Batch(
        batch.keys[some],
        batch.frames[some],
        batch.images[some],
        batch.intrinsics_ndc[some],
        {name: one[some] for name, one in batch.maps.items()},
    )
