"""Units on the workers of a dask.distributed cluster: one worker per device, arrays never in the graph."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vipocc.errors import UsageError
from vipocc.stores.executors import Advance, Message, Pool, pack, unpack
from vipocc.stores.files import digest_bytes
from vipocc.stores.spec import Request, UnitComputer
from vipocc.stores.work import Outcome, perform, worker_died
from vipocc.stores.writer import Store

#: Units handed to the scheduler per worker, so that none idles between two.
AHEAD = 2
#: Seconds to wait for the scheduler.
TIMEOUT = 20


@dataclass(frozen=True)
class DaskExecutor:
    """Units on a running cluster.

    `address` is the scheduler's (`tcp://host:8786`). Workers see the store, its ledger and the dataset under the same
    paths; start one per device with one thread (`dask worker tcp://host:8786 --nthreads 1`), each with
    `CUDA_VISIBLE_DEVICES` set. Locks between hosts are those of the shared file system: let one run at a time write a
    store, or part the work with `--shard i/n`.
    """

    address: str
    device: str = "cpu"

    def start(self, store: Store, computer: UnitComputer, units: int, advance: Advance) -> Pool:
        """Connect; raises `UsageError` if the scheduler does not answer or has no workers."""
        from distributed import Client

        try:
            client = Client(self.address, set_as_default=False, timeout=TIMEOUT)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(
                f"the dask scheduler does not answer ({error})",
                where=self.address,
                fix="start it with `dask scheduler`",
            ) from None
        if not client.nthreads():
            client.close()
            raise UsageError(
                "the dask scheduler has no workers", where=self.address, fix=f"start some: `dask worker {self.address}`"
            )
        return _Cluster(client, store, pickle.dumps(computer), self.device, advance)


@dataclass
class _Cluster:
    client: Any
    store: Store
    computer: bytes
    device: str
    advance: Advance
    futures: dict[Any, Request] = field(default_factory=dict)

    def free(self) -> bool:
        return len(self.futures) < AHEAD * max(1, len(self.client.nthreads()))

    def busy(self) -> bool:
        return bool(self.futures)

    def submit(self, request: Request) -> None:
        future = self.client.submit(_task, self.store, request, self.computer, self.device, pure=False)
        self.futures[future] = request

    def wait(self) -> Iterator[Outcome]:
        from distributed import wait

        with self.client.as_current():
            done = wait(list(self.futures), return_when="FIRST_COMPLETED").done
        for future in done:
            request = self.futures.pop(future)
            error = future.exception()
            if error is None:
                outcome = unpack(future.result(), request)
                self.advance(outcome.rows)
            elif type(error).__name__ == "KilledWorker":
                outcome = worker_died(request, "several dask workers, one after another")
            else:
                outcome = Outcome(request, "failed", error=error, fatal=True)
            future.release()
            yield outcome

    def close(self) -> None:
        try:
            for future in self.futures:
                future.cancel()
            with suppress(OSError, TimeoutError):  # the cluster may be gone, and its computers with it
                self.client.run(_close, digest_bytes(self.computer))
        finally:
            self.client.close()


# In a worker process: computers by the digest of their pickle, each opened once and used by one thread at a time.
_lock = threading.Lock()
_opened: dict[str, tuple[UnitComputer, threading.Lock]] = {}


def _task(store: Store, request: Request, pickled: bytes, device: str) -> Message:
    token = digest_bytes(pickled)
    with _lock:
        if token not in _opened:
            computer: UnitComputer = pickle.loads(pickled)
            try:
                computer.open(device)
            except Exception as error:
                return pack(Outcome(request, "failed", error=error, fatal=True))
            _opened[token] = computer, threading.Lock()
        computer, turn = _opened[token]
    with turn:
        return pack(perform(store, request, computer, lambda _rows: None))


def _close(token: str) -> None:
    with _lock:
        held = _opened.pop(token, None)
    if held is not None:
        with held[1]:
            held[0].close()
