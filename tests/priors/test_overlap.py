from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vipocc.errors import DataError
from vipocc.priors.overlap import OverlapExecutor
from vipocc.stores import ArraySpec, Store, StoreReader, StoreSpec, Unit, requests_for, run

GROUP, ROWS = "drive/image_00", 300
SPEC = StoreSpec("depth", (ArraySpec("depth", (4, 6), "float32", float("nan"), ("y", "x"), "m", "depth"),))


@dataclass
class Counting:
    """Row number as depth; keeps the device to one thread at a time, as DepthComputer does."""

    bad: int = -1
    fatal: int = -1
    rows_per_call: int = 64
    threads: set[int] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)
    state: str = "new"
    started: dict[int, threading.Event] = field(default_factory=lambda: {k: threading.Event() for k in range(5)})

    def open(self, device: str) -> None:
        assert (self.state, device) == ("new", "cuda:7")
        self.state, self.lock = "open", threading.Lock()

    def compute(self, unit: Unit, rows: Sequence[int]) -> dict[str, np.ndarray]:
        assert self.state == "open"
        self.started[unit.shard].set()
        if self.bad in rows:
            raise DataError("an image is truncated", where=f"row {self.bad}", fix="download it again")
        if self.fatal in rows:
            raise ZeroDivisionError("a fault")
        with self.lock:
            self.threads.add(threading.get_ident())
            self.seen += rows
        return {"depth": np.tile(np.float32(rows)[:, None, None], (1, 4, 6))}

    def close(self) -> None:
        self.state = "closed"


def store(folder: Path) -> Store:
    made = Store.create_or_open(folder / "depth.zarr", SPEC, folder)
    made.ensure_group(GROUP, np.arange(ROWS))
    return made


def wanted() -> Any:
    return requests_for(GROUP, range(ROWS), {"model": "counting"})


def test_every_row_is_made_once_and_by_both_threads(tmp_path: Path) -> None:
    computer = Counting()
    done = run(store(tmp_path), wanted(), computer, OverlapExecutor("cuda:7"))
    assert (done.units, done.rows) == (5, ROWS)
    assert sorted(computer.seen) == list(range(ROWS))
    assert computer.state == "closed"
    assert threading.get_ident() not in computer.threads
    values = StoreReader(tmp_path / "depth.zarr").read_many(GROUP, range(ROWS))
    np.testing.assert_array_equal(values[:, 0, 0], np.arange(ROWS))
    again = Counting()
    assert run(store(tmp_path), wanted(), again, OverlapExecutor("cuda:7")).units == 0
    assert again.state == "new"


def test_a_unit_is_computed_while_another_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import vipocc.stores.work as work

    computer, commit, met = Counting(), work.commit, []

    def slow_commit(store: Store, request: Any, *more: Any) -> Any:
        if request.unit.shard == 0:
            met.append(computer.started[1].wait(30))
        return commit(store, request, *more)

    monkeypatch.setattr(work, "commit", slow_commit)
    run(store(tmp_path), wanted(), computer, OverlapExecutor("cuda:7"))
    assert met == [True]


def test_a_bad_input_costs_only_its_unit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="truncated"):
        run(store(tmp_path), wanted(), Counting(bad=70), OverlapExecutor("cuda:7"))
    held = StoreReader(tmp_path / "depth.zarr").rows(GROUP)
    assert held.sum() == ROWS - 64
    assert not held[64:128].any()


def test_a_fault_ends_the_run(tmp_path: Path) -> None:
    computer = Counting(fatal=3)
    with pytest.raises(ZeroDivisionError, match="a fault"):
        run(store(tmp_path), wanted(), computer, OverlapExecutor("cuda:7"))
    assert computer.state == "closed"
    assert len(computer.seen) < ROWS


@pytest.mark.parametrize(
    ("devices", "workers", "overlaps"),
    [(("cuda:0",), 1, True), (("cpu",), 1, False), (("cuda:0",), 2, False), (("cuda:0", "cuda:1"), 1, False)],
)
def test_depth_on_one_gpu_overlaps(devices: tuple[str, ...], workers: int, overlaps: bool) -> None:
    from vipocc.priors.commands import _executor
    from vipocc.priors.config import DepthConfig
    from vipocc.priors.depth.computer import DepthComputer

    job = SimpleNamespace(computer=DepthComputer(Path("frames.zarr"), DepthConfig()))
    chosen = _executor(job, devices, workers, {"scheduler": None})  # type: ignore[arg-type]
    assert isinstance(chosen, OverlapExecutor) == overlaps
    job.computer = Counting()
    assert not isinstance(_executor(job, devices, workers, {"scheduler": None}), OverlapExecutor)  # type: ignore[arg-type]
