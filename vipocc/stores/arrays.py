"""Dask arrays whose chunks are the shards of a store, computed in threads of this process or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import dask
import dask.array as da
import numpy as np
from dask.callbacks import Callback
from numpy.typing import NDArray

from vipocc.stores.cluster import Mark, check_workers, connect
from vipocc.stores.spec import Unit

T = TypeVar("T")

#: Chunks of one array: enough that threads and workers seldom wait for each other, few enough that its graph is small.
CHUNKS = 512


@contextmanager
def computing(scheduler: str | None, store: Path) -> Iterator[Any]:
    """Let dask compute in threads, or on the cluster of a scheduler, whose client it gives.

    Args:
        scheduler: its address, None for threads.
        store: what the workers must see.

    Raises:
        UsageError: the scheduler does not answer, has no workers, or one that has another vipocc or no such store.
    """
    if scheduler is None:
        with dask.config.set(scheduler="threads"):
            yield None
        return
    with ExitStack() as stack:
        client = connect(scheduler)
        stack.callback(client.close)
        check_workers(client, Mark.of(store))
        stack.enter_context(client.as_current())
        stack.enter_context(dask.config.set(scheduler=client))
        yield client


def each_unit(
    units: Sequence[Unit], compute: Callable[[Unit], T], client: Any = None, advance: Callable[[], None] = lambda: None
) -> list[T]:
    """Return what `compute` says of each unit, in order: arrays with a chunk for each shard.

    As many units are looked at together as there are threads; only what `compute` returned is kept.

    Args:
        units: of one store.
        compute: picklable.
        client: of `computing`.
        advance: called for each unit that is done.
    """
    answers: list[T] = []
    for first in range(0, len(units), CHUNKS):
        some = units[first : first + CHUNKS]
        which = np.empty(len(some), object)
        which[:] = some
        said = da.from_array(which, chunks=1).map_blocks(partial(_block, compute=compute), meta=np.empty(0, object))
        answers += _in_threads(said, advance) if client is None else _on_workers(said, client, advance)
    return answers


def _in_threads(array: Any, advance: Callable[[], None]) -> list[Any]:
    with Callback(posttask=lambda key, *_: advance() if key[0] == array.name else None):
        return list(array.compute())


def _on_workers(array: Any, client: Any, advance: Callable[[], None]) -> list[Any]:
    from distributed import as_completed

    futures = client.compute(array.to_delayed().ravel().tolist())
    for _ in as_completed(futures):
        advance()
    return [answer for block in client.gather(futures) for answer in block]


def _block(units: NDArray[Any], *, compute: Callable[[Unit], T]) -> NDArray[Any]:
    answers = np.empty(len(units), object)
    answers[:] = [compute(unit) for unit in units]
    return answers
