"""A computer of three stages that sleep, and a small dask cluster of real processes; imported by workers too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from stores_helpers import GROUP, batch, spec

from vipocc.errors import DataError
from vipocc.stores import Store, Unit, requests_for

#: Every stage sleeps so long, seconds.
STAGE = 0.15


@dataclass
class Staged:
    """Reads, infers under a lock, and writes (in `notes`, which is called after a unit is computed)."""

    log: Path
    at_once: int = 3
    bad: str = ""
    """A stage that fails with a `DataError` in unit 1; `stage!` fails with a fault."""
    stage: float = STAGE
    opened: bool = field(default=False, init=False)

    def open(self, device: str) -> None:
        assert not self.opened
        self.opened, self.lock, self.unit = True, threading.Lock(), threading.local()
        self.note("open", device)

    def units_at_once(self, device: str) -> int:
        return self.at_once

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, Any]:
        self.unit.shard = unit.shard
        self.do("read")
        with self.lock:
            self.do("infer")
        return batch(rows)

    def notes(self) -> dict[str, Any]:
        self.do("write")
        return {}

    def close(self) -> None:
        self.opened = False
        self.note("close", "")

    def do(self, stage: str) -> None:
        assert self.opened
        shard, started = self.unit.shard, time.monotonic()
        time.sleep(self.stage)
        if shard == 1 and self.bad == stage:
            raise DataError("image is truncated", where=f"unit {shard}", fix="download it again")
        if shard == 1 and self.bad == f"{stage}!":
            raise ZeroDivisionError("a fault")
        self.note(stage, f"{shard} {started} {time.monotonic()}")

    def note(self, what: str, more: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} {os.getpid()} {more}\n")


@dataclass(frozen=True)
class Event:
    """A stage of a unit; times are the host's monotonic clock, the same in all processes."""

    stage: str
    process: int
    shard: int
    began: float
    ended: float

    def meets(self, other: Event) -> bool:
        return self.process == other.process and self.began < other.ended and other.began < self.ended


def events(log: Path) -> list[Event]:
    found = []
    for line in log.read_text().splitlines():
        stage, process, *more = line.split()
        if stage in ("read", "infer", "write"):
            found.append(Event(stage, int(process), int(more[0]), float(more[1]), float(more[2])))
    return found


def lines(log: Path, what: str) -> list[list[str]]:
    """The processes (and devices) that opened or closed a computer."""
    return [line.split()[1:] for line in log.read_text().splitlines() if line.split()[0] == what]


def assert_overlapping(log: Path, units: int, workers: int) -> None:
    """The device of each worker is one unit's at a time, and does not wait while others are read and written."""
    known = events(log)
    inferred = sorted((e for e in known if e.stage == "infer"), key=lambda e: (e.process, e.began))
    assert sorted(e.shard for e in inferred) == list(range(units))
    assert len({e.process for e in inferred}) == workers
    assert not any(a.meets(b) for a, b in pairwise(inferred)), "two units were on one device"
    for stage in ("read", "write"):
        hidden = [e for e in known if e.stage == stage and any(e.meets(i) for i in inferred)]
        # The first read and the last write of each worker have nothing beside them.
        assert len(hidden) >= (units - workers) // 2, f"{stage} waited for the device"


def staged_store(folder: Path, units: int) -> Store:
    store = Store.create_or_open(folder / "depth.zarr", spec(), folder)
    store.ensure_group(GROUP, np.arange(64 * units) * 3)
    return store


def staged_requests(units: int) -> list[Any]:
    """One row of every unit, so that they are quick to write."""
    return requests_for(GROUP, range(0, 64 * units, 64), {"model": "staged"})


# A cluster of real processes ---------------------------------------------------------------------------------------


@dataclass
class Cluster:
    address: str
    folder: Path
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker process without a nanny, and wait until the scheduler knows it."""
        more = ["--no-nanny", "--no-dashboard", "--local-directory", str(self.folder), *options]
        self.workers.append(_dask("worker", self.address, *more))
        from distributed import Client

        alive = sum(worker.poll() is None for worker in self.workers)
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(alive, timeout=120)
        return self.workers[-1]


@contextmanager
def real_cluster(folder: Path) -> Iterator[Cluster]:
    import json

    file = folder / "scheduler.json"
    scheduler = _dask(
        "scheduler", "--no-dashboard", "--port", "0", "--host", "127.0.0.1", "--scheduler-file", str(file)
    )
    made = Cluster("", folder, scheduler)
    try:
        deadline = time.monotonic() + 120
        while not file.exists() or not file.read_text():
            assert scheduler.poll() is None, "the scheduler ended"
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        made.address = json.loads(file.read_text())["address"]
        yield made
    finally:
        for process in (*made.workers, scheduler):
            process.kill()
            process.wait()


def _dask(*arguments: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
