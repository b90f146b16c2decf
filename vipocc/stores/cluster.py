"""A running dask.distributed cluster: connecting to it, and knowing that its workers see what we see."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vipocc import __version__
from vipocc.errors import UsageError, VipoccError
from vipocc.progress import say
from vipocc.stores.activity import FOLDER
from vipocc.stores.files import digest_file, locked

#: Seconds to wait for the scheduler.
TIMEOUT = 20
#: Seconds to wait for the first worker; a batch system may still be starting them.
PATIENCE = 120
#: The resource by which a worker says that it has a GPU: `dask worker … --resources GPU=1`.
GPU = "GPU"


@dataclass(frozen=True)
class Mark:
    """What a worker must find where we have it: the store itself, and a file beside it that we hold a lock on."""

    store: Path
    digest: str
    lock: Path | None = None

    @classmethod
    def of(cls, store: Path, lock: Path | None = None) -> Mark:
        """Return the mark of a store that exists."""
        return cls(store, digest_file(store / "zarr.json"), lock)


@dataclass(frozen=True)
class Seat:
    """What a worker said of itself."""

    host: str
    version: str
    sees: bool
    """Whether it finds the store, and the very one."""
    excluded: bool
    """Whether our lock keeps it out."""


@contextmanager
def marked(store: Path, ledger: Path) -> Iterator[Mark]:
    """Hold a lock beside a store for as long as workers on other hosts are to find it.

    It lies among the notes of the runs at work, named as they are, so that what a killed run left is cleared away.
    """
    path = ledger / FOLDER / f"{socket.gethostname()}-{os.getpid()}.json.lock"
    with locked(path, wait=True):
        yield Mark.of(store, path)


def connect(address: str) -> Any:
    """Return a client of the scheduler at `address`; the caller closes it.

    Raises:
        UsageError: it does not answer, or has no workers.
    """
    from distributed import Client

    try:
        client = Client(address, set_as_default=False, timeout=TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"the dask scheduler does not answer ({error})", where=address, fix="start it with `dask scheduler`"
        ) from None
    if not client.nthreads():
        say(f"the dask cluster has no worker yet; waiting for one, {PATIENCE} s at most")
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            client.close()
            raise UsageError(
                "the dask scheduler has no workers", where=address, fix=f"start some: `dask worker {address}`"
            ) from None
    return client


def check_workers(client: Any, mark: Mark) -> dict[str, Seat]:
    """Return, by address, what each worker says of itself.

    Raises:
        UsageError: a worker has no vipocc, or another version, or does not see the store.
    """
    seats: dict[str, Seat] = client.run(look, mark, on_error="return")
    for address, seat in seats.items():
        if isinstance(seat, Exception):
            raise UsageError(
                f"a dask worker cannot run vipocc ({type(seat).__name__}: {seat})",
                where=address,
                fix="install the same vipocc in the environment of every worker",
            )
        refuse(seat, mark)
    return seats


def look(mark: Mark) -> Seat:
    """Look, in a worker, for what `mark` says; writes nothing."""
    try:
        sees = digest_file(mark.store / "zarr.json") == mark.digest and (mark.lock is None or mark.lock.exists())
    except OSError:
        sees = False
    excluded = True
    if sees and mark.lock is not None:
        try:
            with locked(mark.lock, wait=False) as mine:
                excluded = not mine
        except VipoccError:
            excluded = False
    return Seat(socket.gethostname(), __version__, sees, excluded)


def refuse(seat: Seat, mark: Mark) -> None:
    """Raise `UsageError` if a worker cannot work on the store: what it wrote would go somewhere else."""
    if seat.version != __version__:
        raise UsageError(
            f"the dask worker on {seat.host} has vipocc {seat.version}, not {__version__}",
            fix="install the same vipocc in the environment of every worker",
        )
    if not seat.sees:
        raise UsageError(
            f"the dask worker on {seat.host} does not see the store",
            where=mark.store,
            fix="put the workspace where every host has it under this path",
        )
