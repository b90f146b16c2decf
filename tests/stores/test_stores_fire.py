"""Five hundred kills: writers, alone and in pairs, die at random moments; what counts is right all the time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stores_helpers import GROUP, Computer, batch, check_values, computed, requests, shards, spec

from vipocc.stores import Store, StoreReader, Unit, run, verify
from vipocc.stores.layout import shard_path

ROWS = range(200)


class Zygote:
    """The process that forks writers (`zygote.py`)."""

    def __init__(self, errors: Path) -> None:
        here = Path(__file__).parent
        paths = [str(here), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = errors.open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(here / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )

    def ask(self, line: str) -> int:
        """Return the answer to a line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process; writers that it forked are waited for by the tests."""
        self._process.communicate()
        self._errors.close()


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("zygote") / "errors")
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    store = Store.create_or_open(folder / "depth.zarr", spec(), folder)
    store.ensure_group(GROUP, np.arange(200) * 3)
    run(store, requests(ROWS), Computer(folder / "log"))
    return shards(store)


def survives(zygote: Zygote, folder: Path, undisturbed: dict[str, str], kills: int, seed: int) -> int:
    """Kill `kills` writers, check after each, let one end; return how many of them died at work."""
    rng = random.Random(seed)
    path, log = folder / "depth.zarr", folder / "log"
    killed, died, longest = 0, 0, 0.5
    while killed < kills:
        writers = [zygote.ask(f"{path} {log} {rng.choice([0.0, 0.002])}") for _ in range(rng.choice([1, 1, 2]))]
        time.sleep(longest * rng.random() ** 2)
        for writer in writers:
            os.kill(writer, signal.SIGKILL)
        statuses = [zygote.ask(f"wait {writer}") for writer in writers]
        assert all(os.WIFSIGNALED(s) or os.WEXITSTATUS(s) == 0 for s in statuses)
        at_work = sum(os.WIFSIGNALED(status) for status in statuses)
        killed, died = killed + len(writers), died + at_work
        if not at_work:
            # It ended before the kill: begin anew, and strike sooner.
            longest = max(0.05, 0.8 * longest)
        held = counted(path)
        if len(held) == len(ROWS):
            check(path, folder, undisturbed)
            for name in ("depth.zarr", "depth.zarr.ledger"):
                (folder / name).rename(folder / f"{name}-{killed}")
    last = zygote.ask(f"{path} {log} 0")
    assert zygote.ask(f"wait {last}") == 0
    check(path, folder, undisturbed)
    ledger = path.with_name(path.name + ".ledger")
    # An empty lock file may stay behind: the kernel dropped its lock, and whoever needs it next takes it over.
    assert not [p for p in ledger.rglob("*") if p.suffix in (".partial", ".next")]
    return died


def counted(path: Path) -> np.ndarray:
    """Return the rows that count, a sample of them compared with what was computed."""
    if not (path / "zarr.json").exists():
        return np.zeros(0, int)
    reader = StoreReader(path)
    held = np.flatnonzero(reader.rows(GROUP)) if reader.has(GROUP) else np.zeros(0, int)
    if len(held):
        some = held[:: max(1, len(held) // 10)]
        for name, expected in batch(some.tolist()).items():
            np.testing.assert_array_equal(reader.read_many(GROUP, some, name), expected)
    return held


def check(path: Path, folder: Path, undisturbed: dict[str, str]) -> None:
    """The store has the bytes of an undisturbed run."""
    store = Store.create_or_open(path, spec(), folder)
    assert shards(store) == undisturbed
    assert verify(path).sound


def test_ten_kills(zygote: Zygote, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    assert survives(zygote, tmp_path, undisturbed, kills=10, seed=99) > 0
    check_values(Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path), ROWS)


@pytest.mark.slow
def test_five_hundred_kills(zygote: Zygote, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    died = 0
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        died += survives(zygote, folder, undisturbed, kills=25, seed=seed)
    # Kills that came too late say little: most must have hit a writer at work.
    assert died > 300


@pytest.mark.slow
def test_fuzzed_stores_are_found_out_and_repaired(tmp_path: Path) -> None:
    """Flipped bytes, cuts and lost files at random places, in shards and records: found, each one, and made again."""
    rows = range(64 * 8)
    store = Store.create_or_open(tmp_path / "depth.zarr", spec(), tmp_path)
    store.ensure_group(GROUP, np.arange(len(rows)))
    run(store, requests(rows), Computer(tmp_path / "log"))
    whole = shards(store)
    rng = random.Random(5)
    for _ in range(30):
        hurt = set()
        for number in rng.sample(range(8), rng.randint(1, 4)):
            unit = Unit(GROUP, number)
            array = rng.choice([*store.spec.arrays, None])
            record = store.ledger.file(unit, "json")
            path = record if array is None else shard_path(store.path, unit, array)
            # A record that is gone is a unit that was never made, which is nothing to find.
            spoil(path, rng, losable=array is not None)
            hurt.add(unit.key)
        log = tmp_path / "again"
        log.unlink(missing_ok=True)
        assert {finding.unit for finding in verify(store.path).findings} == hurt
        run(store, requests(rows), Computer(log))
        assert {f"{GROUP}/{row // 64:05d}" for row in computed(log)} <= hurt
        assert shards(store) == whole
        assert verify(store.path).sound


def spoil(path: Path, rng: random.Random, *, losable: bool) -> None:
    """Alter one byte of a file, cut it, or remove it; keep its time stamps."""
    content, times = bytearray(path.read_bytes()), path.stat()
    how = rng.choice(["flip", "cut", "lose"] if losable else ["flip", "cut"])
    if how == "lose":
        path.unlink()
        return
    if how == "cut":
        del content[rng.randrange(len(content)) :]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
