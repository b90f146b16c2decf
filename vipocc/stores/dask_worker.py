"""What runs in a dask worker process: units of a run, with one opened computer for all of them."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from vipocc.errors import VipoccError
from vipocc.stores.cluster import Mark, look, refuse
from vipocc.stores.crew import units_at_once
from vipocc.stores.files import digest_bytes
from vipocc.stores.messages import Message, pack
from vipocc.stores.spec import Request, UnitComputer
from vipocc.stores.work import Outcome, perform
from vipocc.stores.writer import Store

#: A device's name, or what finds it out in the worker.
Place: TypeAlias = str | Callable[[], str]


@dataclass(frozen=True)
class Run:
    """What every task of a run is told; small, for it travels with each."""

    key: str
    store: Store
    computer: bytes
    device: Place
    mark: Mark

    @property
    def token(self) -> str:
        """Names the computer in the workers."""
        return digest_bytes(self.computer)


@dataclass
class _Held:
    """An opened computer, and who uses it."""

    computer: UnitComputer
    turns: threading.Semaphore
    mark: Mark
    """Of the latest run that used it."""
    users: int = 0
    closing: bool = False


_lock = threading.Lock()
#: Computers by the digest of their pickle.
_opened: dict[str, _Held] = {}
#: Runs that were asked to stop.
_stopped: set[str] = set()


def do_unit(run: Run, request: Request) -> Message:
    """Do one unit of a run in this worker; the task that the scheduler hands out."""
    if run.key in _stopped:
        return pack(Outcome(request, "withdrawn"))
    try:
        held = _hold(run)
    except Exception as error:
        return pack(Outcome(request, "failed", error=error, fatal=True))
    try:
        with held.turns:
            if run.key in _stopped:
                return pack(Outcome(request, "withdrawn"))
            return pack(perform(run.store, request, held.computer, lambda _rows: None))
    finally:
        _let_go(held)


def _hold(run: Run) -> _Held:
    """Return the run's computer, opened if it is not yet."""
    with _lock:
        held = _opened.get(run.token)
        if held is None:
            refuse(look(run.mark), run.mark)  # this worker may have come after the run began
            _close_abandoned()
            try:
                device = run.device if isinstance(run.device, str) else run.device()
                computer: UnitComputer = pickle.loads(run.computer)
                computer.open(device)
            except VipoccError as error:
                what = f"on {socket.gethostname()}: {error.what}"
                raise type(error)(what, where=error.where, fix=error.fix) from error
            held = _opened[run.token] = _Held(computer, threading.Semaphore(units_at_once(computer, device)), run.mark)
        held.users, held.mark = held.users + 1, run.mark
        return held


def _close_abandoned() -> None:
    """Close what runs left open whose client was killed: the lock that it held is free, or its file is gone."""
    for token, held in list(_opened.items()):
        seat = look(held.mark)
        if not held.users and not (seat.sees and seat.excluded):
            del _opened[token]
            held.computer.close()


def _let_go(held: _Held) -> None:
    with _lock:
        held.users -= 1
        last = held.closing and not held.users
    if last:
        held.computer.close()


def withdraw(run: str) -> None:
    """Let units of a run (its key) that have not begun come back as `withdrawn`."""
    _stopped.add(run)


def close(token: str, run: str) -> None:
    """Close a computer, or leave that to the last task which has it."""
    with _lock:
        _stopped.discard(run)
        held = _opened.pop(token, None)
        if held is None:
            return
        held.closing = True
        idle = not held.users
    if idle:
        held.computer.close()
