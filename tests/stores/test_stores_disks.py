"""Real file systems that are full or read-only; where mounting is not permitted, test_stores_writing has stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from stores_helpers import GROUP, Computer, check_values, computed, requests, shards, spec

from vipocc.errors import StoreError
from vipocc.stores import Store, StoreReader, Unit, plan, run, verify

pytestmark = pytest.mark.slow

PAGE = 4096


def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def opened(disk: Path) -> Store:
    store = Store.create_or_open(disk / "depth.zarr", spec(), disk)
    store.ensure_group(GROUP, np.arange(300) * 3)
    return store


def fill(disk: Path, free: int) -> Path:
    """Fill the disk but for `free` pages."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\1" * PAGE)
    os.truncate(filler, max(0, filler.stat().st_size // PAGE - free) * PAGE)
    return filler


def refusal(attempt: Callable[[], object]) -> str:
    """Return what an attempt was refused with, nothing if it went well."""
    try:
        attempt()
    except StoreError as error:
        return str(error)
    return ""


def test_a_full_disk_costs_nothing_that_was_committed(disk: Path, tmp_path: Path) -> None:
    """However little room there is: one clear error, the committed rows stand, and more room is all it takes."""
    log, errors = tmp_path / "log", 0
    store = opened(disk)
    run(store, requests([1, 2]), Computer(log))
    rows = [1, 2]
    for free in range(12):
        before = shards(store)
        filler = fill(disk, free)
        wanted = [*rows, 3 + free]
        said = refusal(lambda wanted=wanted: run(store, requests(wanted), Computer(log)))
        if said:
            errors += 1
            assert "the disk is full; what was committed is kept" in said
            assert shards(store) == before
            assert not list(disk.rglob("*.partial")), "the space is given back"
        else:
            rows = wanted
        check_values(store, rows)
        assert verify(store.path).sound
        filler.unlink()
    assert 1 < errors < 12, "some of the runs had room and some had not"
    run(store, requests(range(300)), Computer(log))
    check_values(store, range(300))
    assert sorted(set(computed(log))) == list(range(300))


def test_a_disk_too_full_for_a_new_store(disk: Path) -> None:
    said = []
    for free in range(16):
        filler = fill(disk, free)
        said.append(refusal(lambda: opened(disk)))
        filler.unlink()
        store = opened(disk)
        assert not StoreReader(store.path).rows(GROUP).any()
        assert verify(store.path).sound
        shutil.rmtree(store.path)
        shutil.rmtree(store.ledger.path)
    refused = [text for text in said if text]
    assert 0 < len(refused) < len(said)
    assert all("the disk is full" in text for text in refused)


def test_a_read_only_disk(disk: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = opened(disk)
    run(store, requests(range(100)), Computer(log))
    whole = shards(store)
    assert mount("-o", "remount,ro", str(disk)).returncode == 0
    again = opened(disk)
    check_values(again, range(100))
    assert plan(again, requests(range(150))).missing == 50
    assert run(again, requests(range(100)), Computer(log)).rows == 0, "nothing to do needs nothing to write"
    for attempt in (
        lambda: run(again, requests(range(150)), Computer(log)),
        lambda: run(again, requests([1], revision="2"), Computer(log), overwrite=True),
        lambda: again.ensure_group("drive/image_01", np.arange(10)),
        lambda: Store.create_or_open(disk / "other.zarr", spec(), disk),
    ):
        with pytest.raises(StoreError, match=r"cannot be written \(Read-only file system\).*-C"):
            attempt()
    assert shards(store) == whole
    assert verify(store.path).sound
    assert mount("-o", "remount,rw", str(disk)).returncode == 0
    path = store.path / GROUP / "depth" / "c" / "1" / "0" / "0"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert mount("-o", "remount,ro", str(disk)).returncode == 0
    assert [(f.unit, f.marked) for f in verify(store.path).findings] == [(Unit(GROUP, 1).key, False)]
    assert mount("-o", "remount,rw", str(disk)).returncode == 0
    run(store, requests(range(150)), Computer(log))
    check_values(store, range(150))
