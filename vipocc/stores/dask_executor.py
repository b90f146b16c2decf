"""Units on the workers of a dask.distributed cluster: arrays never in the graph, the computer opened once per worker.

A unit of network work takes a part of the resource `GPU` of its worker, so that workers without one are left to other
work. Which worker does a unit decides nothing: the ledger and its locks say what is done.
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from vipocc.errors import StoreError
from vipocc.progress import say
from vipocc.stores.cluster import GPU, Seat, check_workers, connect, marked
from vipocc.stores.crew import units_at_once
from vipocc.stores.dask_worker import Place, Run, close, do_unit, withdraw
from vipocc.stores.executors import Pool
from vipocc.stores.messages import unpack
from vipocc.stores.spec import Request, UnitComputer
from vipocc.stores.work import Advance, Outcome, worker_died
from vipocc.stores.writer import Store

#: Units handed to the scheduler beyond those that workers have in hand, per worker, so that none idles between two.
AHEAD = 1
#: Seconds after which a wait is broken off, to look after the cluster and to notice that a stop was asked for.
POLL = 1.0


@dataclass(frozen=True)
class DaskExecutor:
    """Units on a running cluster.

    Workers see the store, its ledger and the dataset under the same paths. Network work (`device` is not `cpu`) goes to
    the workers that offer the resource `GPU` where there are some; other work to those that do not, where there are
    some.

    Attributes:
        address: the scheduler's, `tcp://host:8786`.
        device: what the computer is opened on in each worker, or what tells it there.
    """

    address: str
    device: Place = "cpu"

    def start(self, store: Store, computer: UnitComputer, units: int, advance: Advance) -> Pool:
        """Connect.

        Raises:
            UsageError: the scheduler does not answer or has no workers; a worker has another vipocc, or does not see
                the store.
        """
        with ExitStack() as stack:
            mark = stack.enter_context(marked(store.path, store.ledger.path))
            client = connect(self.address)
            stack.callback(client.close)
            seats = check_workers(client, mark)
            network = self.device != "cpu"
            run = Run(uuid.uuid4().hex, store, pickle.dumps(computer), self.device, mark)
            share = _share(units_at_once(computer, "cuda")) if network else 0.0
            pool = _Cluster(client, run, self.address, network, share, advance)
            _introduce(pool, seats)
            pool.held = stack.pop_all()
        return pool


def _share(at_once: int) -> float:
    """Return the part of a GPU that a unit takes; a power of two, whose sums are exact."""
    return 1.0 / (1 << (at_once - 1).bit_length())


def _introduce(pool: _Cluster, seats: dict[str, Seat]) -> None:
    """Say who works, and what is not as it should be."""
    fit, others = pool.roster()
    if pool.network and pool.on_gpus:
        left = f"; {len(others)} without are left to other work" if others else ""
        say(f"dask: {len(fit)} workers with a GPU{left}")
        if pool.share < 1 and any(threads == 1 for threads in fit.values()):
            say("note: a dask worker with one thread does not read and write while its GPU works; use --nthreads 4")
    elif pool.network:
        say(f"dask: {len(fit)} workers, none started with `--resources {GPU}=1`; each uses what device it finds")
    else:
        left = f"; {len(others)} with a GPU are left to networks" if others else ""
        say(f"dask: {len(fit)} workers{left}")
    open_ = sorted({seat.host for seat in seats.values() if not seat.excluded})
    if open_:
        say(
            f"note: locks of this file system do not reach {', '.join(open_)}: let no other run write this store "
            "meanwhile, or part the work with --shard"
        )


@dataclass
class _Cluster:
    client: Any
    run: Run
    address: str
    network: bool
    share: float
    advance: Advance
    futures: dict[Any, Request] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)
    on_gpus: bool = False
    withdrawn: bool = False
    _fit: dict[str, int] = field(default_factory=dict)
    _looked: float = -1e9
    _told: bool = False

    def roster(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the workers that are for these units and the others: threads by address, as of a second ago."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        gpus = {a: w["nthreads"] for a, w in workers.items() if w["resources"].get(GPU, 0) > 0}
        plain = {a: w["nthreads"] for a, w in workers.items() if a not in gpus}
        # Once some were seen, units ask for a GPU, and wait if its workers are gone for a while.
        self.on_gpus = self.network and (self.on_gpus or bool(gpus))
        if self.on_gpus:
            fit, others = gpus, plain
        else:
            fit, others = (plain, gpus) if self.network or plain else (gpus, {})
        self._fit, self._looked = fit, time.monotonic()
        return fit, others

    def free(self) -> bool:
        most = round(1 / self.share) if self.on_gpus else 1
        return len(self.futures) < sum(min(threads, most) + AHEAD for threads in self._fit.values()) or not self.futures

    def busy(self) -> bool:
        return bool(self.futures)

    def submit(self, request: Request) -> None:
        where: dict[str, Any] = {"resources": {GPU: self.share}} if self.on_gpus else {}
        if not self.network:
            # A preference: they may all go, and the others then do it.
            where = {"workers": list(self._fit), "allow_other_workers": True}
        self.futures[self.client.submit(do_unit, self.run, request, pure=False, **where)] = request

    def wait(self) -> Iterator[Outcome]:
        from distributed import wait

        try:
            with self.client.as_current():
                done = wait(list(self.futures), timeout=POLL, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            done = ()
        except (CancelledError, OSError):
            yield self._gone()
            return
        for future in done:
            if future.status == "cancelled":
                yield self._gone()
                return
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
        if self.futures and time.monotonic() - self._looked > POLL:
            yield from self._look_after()

    def withdraw(self) -> None:
        if self.withdrawn:
            return
        self.withdrawn = True
        with suppress(OSError, TimeoutError):
            self.client.run(withdraw, self.run.key)

    def _look_after(self) -> Iterator[Outcome]:
        """Look whether there is still somebody to wait for."""
        try:
            if self.client.status != "running":
                raise ConnectionError
            fit, others = self.roster()
        except (OSError, CancelledError):
            yield self._gone()
            return
        if fit or (others and not self.network):
            self._told = False
            return
        if self.withdrawn:  # what has not begun never will
            lost, self.futures = list(self.futures.values()), {}
            yield from (Outcome(request, "withdrawn") for request in lost)
        elif not self._told:
            self._told = True
            say(f"the dask cluster has no worker {'with a GPU ' if self.on_gpus else ''}now; waiting for one")

    def _gone(self) -> Outcome:
        """Return the one outcome of a run whose scheduler went away."""
        request = next(iter(self.futures.values()))
        self.futures.clear()
        self.withdrawn = True  # there is nobody to tell
        what = "the dask scheduler went away; what was committed stands"
        fix = "start the cluster again, and then the same command"
        return Outcome(request, "failed", error=StoreError(what, where=self.address, fix=fix), fatal=True)

    def close(self) -> None:
        with self.held:  # the client and the mark
            for future in self.futures:
                future.cancel()
            if self.client.status == "running":
                with suppress(OSError, TimeoutError):  # the cluster may be gone, and its computers with it
                    self.client.run(close, self.run.token, self.run.key)
