"""The stream of a run's batches: which positions each holds, and that they come in order whoever reads them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from vipocc.errors import ConfigError
from vipocc.training.packing import Packed
from vipocc.training.readers import Batches, Readers
from vipocc.training.samples import Share


class RunBatches:
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
            raise ConfigError(
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


def load_packed(samples: Batches, batches: RunBatches, *, workers: int, prefetch: int) -> Iterator[Packed]:
    """Yield batches in order, read by `workers` processes (0: in this one), each valid until the next is asked for.

    Raises:
        VipoccError: an error of a sample, as itself and not as another process's traceback.
        DataError: a process that reads was killed, or there is too little shared memory.
    """
    if workers == 0:
        for share in batches:
            yield samples.batch(share)
        return
    with Readers(samples, batches, workers, prefetch) as readers:
        yield from readers


def load_batches(samples: Batches, batches: RunBatches, *, workers: int, prefetch: int) -> Iterator[dict[str, Tensor]]:
    """Yield what `load_packed` does as tensors by name (see `TrainingSamples.batch`), valid for as long as wanted."""
    for packed in load_packed(samples, batches, workers=workers, prefetch=prefetch):
        yield packed.clone().tensors()
