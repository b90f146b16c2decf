"""What `vipocc stores status` says of runs at work: rows left, rate, time left; killed ones are passed over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from stores_helpers import GROUP, Computer, requests, spec

from vipocc.cli import run as command
from vipocc.stores import LocalExecutor, Store, run, status
from vipocc.stores.activity import FOLDER, SILENT, Activity, activities, noted
from vipocc.workspace import Workspace

NewStore = Callable[..., Store]


def test_a_run_is_noted_while_it_works_and_not_after(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store(n=140)
    seen: list[dict[str, object]] = []

    class Watching(Computer):
        def compute(self, unit: object, rows: object) -> dict[str, np.ndarray]:
            seen.extend(status(store.path)["running"])
            return super().compute(unit, rows)  # type: ignore[arg-type]

    run(store, requests([3]), Computer(tmp_path / "log"))
    run(store, requests(range(140)), Watching(tmp_path / "log"), LocalExecutor())
    assert [note["asked"] for note in seen] == [139] * 3
    assert {note["pid"] for note in seen} == {os.getpid()}
    assert status(store.path)["running"] == []
    assert not (store.ledger.path / FOLDER).exists()


def test_rate_and_time_left(tmp_path: Path) -> None:
    note = Activity("here", 1, 1000, 250, 100.0, 150.0)
    assert (note.left, note.rate, note.seconds_left) == (750, 5.0, 150.0)
    assert Activity("here", 1, 1000, 0, 100.0, 100.0).seconds_left is None


def test_notes_of_dead_and_of_silent_runs_do_not_count(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host, now = socket.gethostname(), time.time()
    folder = tmp_path / FOLDER
    folder.mkdir()

    def leave(host: str, pid: int, updated: float) -> Path:
        path = folder / f"{host}-{pid}.json"
        path.write_text(json.dumps(asdict(Activity(host, pid, 10, 5, now - 60, updated))))
        return path

    dead = leave(host, gone.pid, now)
    far = leave("elsewhere", 7, now)
    leave("elsewhere", 8, now - 2 * SILENT)
    (folder / f"{host}-1.json").write_text("{")
    assert [(note.host, note.pid) for note in activities(tmp_path)] == [("elsewhere", 7)]
    with noted(tmp_path, 4):
        assert not dead.exists()
        assert {note.pid for note in activities(tmp_path)} == {7, os.getpid()}
    assert far.exists()


def test_status_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Workspace.create(tmp_path / "work", "synthetic")
    store = Store.create_or_open(made.store("depth"), spec(), made.root)
    store.ensure_group(GROUP, np.arange(100))
    folder = store.ledger.path / FOLDER
    folder.mkdir(parents=True)
    note = Activity(socket.gethostname(), os.getpid(), 60_000, 12_000, 1000.0, 1600.0)
    (folder / f"{note.host}-{note.pid}.json").write_text(json.dumps(asdict(note)))
    assert command(["stores", "status", "-C", str(made.path)]) == 0
    told = capsys.readouterr().out
    assert "12,000 of 60,000 rows of a run, 48,000 to go, 20.0 rows/s, 40 min left" in told
    assert command(["stores", "status", "--json", "-C", str(made.path)]) == 0
    assert json.loads(capsys.readouterr().out)["stores"][0]["running"][0]["seconds_left"] == 2400
