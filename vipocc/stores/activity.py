"""Which runs are writing a store now, how far each is, and when it will be done; for `vipocc stores status`.

A run keeps one small file, `<store>.ledger/runs/<host>-<pid>.json`, and removes it when it ends. It is a notice and no
part of the ledger: nothing depends on it, and one that a killed run left is recognised and passed over.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "runs"
#: Seconds between two notes of a run.
INTERVAL = 5.0
#: A run on another host, whose process cannot be looked for, counts as over when its note is older than this.
SILENT = 120.0


@dataclass(frozen=True)
class Activity:
    """One run at work."""

    host: str
    pid: int
    asked: int
    """Rows that were missing when it began."""
    done: int
    """How many of them are there."""
    started: float
    """Seconds since 1970."""
    updated: float

    @property
    def left(self) -> int:
        """Rows still to be made."""
        return self.asked - self.done

    @property
    def rate(self) -> float:
        """Rows a second since it began, 0 before the first."""
        return self.done / max(self.updated - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Time until it is done at this rate, None before the first row."""
        return self.left / self.rate if self.done else None


@contextlib.contextmanager
def noted(ledger: Path, asked: int) -> Iterator[Callable[[int], None]]:
    """Keep a note of a run in the store's ledger; gives the function that counts rows done.

    A ledger that cannot be written gets none: the run itself will say so.
    """
    host = socket.gethostname()
    path = ledger / FOLDER / f"{host}-{os.getpid()}.json"
    started = last = time.time()
    done = 0

    def write(now: float) -> None:
        note = Activity(host, os.getpid(), asked, done, started, now)
        aside = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            aside.write_text(json.dumps(asdict(note)), encoding="utf-8")
            os.replace(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)  # a full disk gets back even this

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.time()
        if now - last >= INTERVAL:
            last = now
            write(now)

    _forget_killed(ledger, host)
    write(started)
    try:
        yield advance
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def activities(ledger: Path) -> list[Activity]:
    """Return the runs that are writing a store now, the oldest first."""
    found = []
    for path in (ledger / FOLDER).glob("*.json"):
        try:
            note = Activity(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue  # it ended between listing and reading, or is no note of this version
        if _alive(note):
            found.append(note)
    return sorted(found, key=lambda note: (note.started, note.host, note.pid))


def _forget_killed(ledger: Path, host: str) -> None:
    """Remove what killed runs of this host left."""
    for path in (ledger / FOLDER).glob(f"{host}-*.json*"):
        pid = path.name.removeprefix(f"{host}-").partition(".")[0]
        if pid.isdigit() and not _lives(int(pid)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _alive(note: Activity) -> bool:
    if note.host != socket.gethostname():
        return time.time() - note.updated < SILENT
    return _lives(note.pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
