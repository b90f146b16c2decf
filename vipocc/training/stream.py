"""The stream of a run's batches: which positions each holds, and the worker processes that read them."""

from __future__ import annotations

import multiprocessing.resource_tracker
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vipocc import errors
from vipocc.errors import VipoccError
from vipocc.training.packing import Packed
from vipocc.training.samples import Share, TrainingSamples


class RunBatches(Sampler[Share]):
    """Shares of a run's batches, from `start`, where a run is resumed, to `stop`; the last batch is filled up.

    Each global batch is cut into `world * parts` runs of positions of one length, of which this process reads `parts`
    in order: which samples form global batch k depends neither on how many processes share it nor on how many parts
    each of them takes it in.
    """

    def __init__(
        self, start: int, stop: int, batch_size: int, *, rank: int = 0, world: int = 1, parts: int = 1
    ) -> None:
        """Divide the run.

        Args:
            start: first position.
            stop: position after the last.
            batch_size: samples of one optimiser step, over all processes and parts.
            rank: number of this process, from 0.
            world: how many processes share each batch.
            parts: batches in which each process reads its share (gradient accumulation).

        Raises:
            ConfigError: the batch cannot be shared evenly.
        """
        if batch_size % (world * parts):
            shared = " and ".join(
                text for count, text in ((world, f"{world} processes"), (parts, f"{parts} parts in each")) if count > 1
            )
            below, above = batch_size // (world * parts), -(-batch_size // (world * parts))
            choices = [str(size * world * parts) for size in (below, above) if size]
            raise errors.ConfigError(
                f"a batch of {batch_size} samples cannot be shared evenly by {shared}",
                fix=f"set -o training.batch_size={' or '.join(choices)}",
            )
        self.start, self.stop, self.batch_size = start, stop, batch_size
        self.rank, self.world, self.parts = rank, world, parts

    def __iter__(self) -> Iterator[Share]:
        length = self.batch_size // (self.world * self.parts)
        for first in range(self.start, self.stop, self.batch_size):
            for part in range(self.rank * self.parts, (self.rank + 1) * self.parts):
                yield Share(range(first + part * length, first + (part + 1) * length), first)

    @property
    def steps(self) -> int:
        """Global batches, each one optimiser step."""
        return -(-(self.stop - self.start) // self.batch_size)

    def __len__(self) -> int:
        return self.steps * self.parts


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of a worker; exceptions themselves lose their parts when they are pickled."""

    kind: str
    what: str
    where: str | None
    fix: str | None


class _Guarded(Dataset[Packed | _Failure]):
    """Batches whose errors travel as values."""

    def __init__(self, samples: TrainingSamples) -> None:
        self.samples = samples

    def __getitem__(self, share: Share) -> Packed | _Failure:
        try:
            return self.samples.batch(share, shared=torch.utils.data.get_worker_info() is not None)
        except VipoccError as error:
            return _Failure(type(error).__name__, error.what, error.where, error.fix)


def _as_it_is(item: Any) -> Any:
    return item


def _single_thread(_worker: int) -> None:
    # Workers are one per core already, and reading needs no linear algebra.
    torch.set_num_threads(1)


def load_packed(
    samples: TrainingSamples, batches: RunBatches, *, workers: int, prefetch: int, pinned: bool = False
) -> Iterator[Packed]:
    """Yield batches in order, read by `workers` spawned processes (0: in this one).

    Workers are spawned, since the stores' reader does not survive a fork. They end with the iterator, and a few seconds
    after this process if it is killed.

    Raises:
        VipoccError: an error of a sample, as itself and not as a worker's traceback.
        DataError: a worker was killed.
    """
    loader = DataLoader(
        _Guarded(samples),
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_single_thread,
    )
    with _undisturbed_workers():
        stream = iter(loader)
    try:
        while True:
            try:
                packed = next(stream, None)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise errors.DataError(
                    f"a process that reads samples was killed ({str(error).splitlines()[0]})",
                    fix="go on with `vipocc train --resume`; if it was for want of memory, lower training.workers",
                ) from None
            if packed is None:
                return
            if isinstance(packed, _Failure):
                kind: type[VipoccError] = getattr(errors, packed.kind, VipoccError)
                raise kind(packed.what, where=packed.where, fix=packed.fix)
            yield packed
    finally:
        # Of a stream that is left early; the loader itself only does so when it is collected.
        if workers:
            stream._shutdown_workers()  # type: ignore[attr-defined]


def load_batches(
    samples: TrainingSamples, batches: RunBatches, *, workers: int, prefetch: int, pinned: bool
) -> Iterator[dict[str, Tensor]]:
    """Yield what `load_packed` does as tensors by name (see `TrainingSamples.batch`)."""
    for packed in load_packed(samples, batches, workers=workers, prefetch=prefetch, pinned=pinned):
        yield packed.tensors()


@contextmanager
def _undisturbed_workers() -> Iterator[None]:
    """Start processes that Ctrl-C, which reaches all of a terminal's, leaves alone, and whose end is no exception here.

    Ctrl-C is this process's business: workers would each print a traceback of whatever they were at. torch would also
    raise the death of a worker as an error of its own at any place of the main thread; the stream finds it where it
    waits for the worker's batch.
    """
    # Started here, since it lifts the mask of signals of the thread that happens to start it.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)
