"""Running requests to their end: hand out units, count what comes back, stop cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from vipocc.errors import StoreError, VipoccError
from vipocc.progress import progress, say
from vipocc.stores.activity import noted
from vipocc.stores.executors import Executor, LocalExecutor, leave_if_imported_by_a_worker
from vipocc.stores.spec import Request, UnitComputer
from vipocc.stores.work import Outcome, Todo, plan
from vipocc.stores.writer import Store

#: Seconds after which a unit that another process held is tried again.
RETRY_AFTER = 0.5


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        units: units committed by this run.
        rows: rows computed by this run.
        held: rows asked for that were there already, or that another process put there meanwhile.
        seconds: wall time.
    """

    units: int
    rows: int
    held: int
    seconds: float


def run(
    store: Store,
    requests: Sequence[Request],
    computer: UnitComputer,
    executor: Executor | None = None,
    description: str = "",
    *,
    overwrite: bool = False,
) -> Summary:
    """Make every requested row that the store does not hold; returns when all are there.

    Units that another process is writing are left to it and looked at again at the end. SIGTERM and Ctrl-C finish the
    units in hand and then leave; a second Ctrl-C leaves at once, losing only those.

    Args:
        store: the store; its groups must have been made by `ensure_group`.
        requests: what is wanted.
        computer: not opened; it is opened once in each worker process, and not at all if nothing is missing.
        executor: where units run; by default in this process.
        description: what stands before the progress.
        overwrite: rows of another fingerprint are replaced instead of refused.

    Raises:
        StoreError: rows of another fingerprint, a worker that died, a disk that is full or read-only.
        VipoccError: what the computer raised. A `DataError` in one unit does not keep the others from being done.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM.
    """
    leave_if_imported_by_a_worker()
    started = time.monotonic()
    wanted = plan(store, requests, overwrite=overwrite)
    if not wanted.todo:
        return Summary(0, 0, wanted.done, time.monotonic() - started)
    for group, fingerprint in {t.request.unit.group: t.request.fingerprint for t in wanted.todo}.items():
        store.adopt(group, fingerprint, overwrite=overwrite)
    failed: list[Outcome] = []
    units = rows = 0
    bar = progress(description or store.spec.kind, wanted.rows, done=wanted.done)
    with _stopping() as stop, bar as shown, noted(store.ledger.path, wanted.missing) as note:

        def advance(count: int) -> None:
            shown.advance(count)
            note(count)

        feed = _Feed(wanted.todo, store, advance)
        pool = (executor or LocalExecutor()).start(store, computer, len(wanted.todo), advance)
        with contextlib.closing(pool):
            while True:
                while not stop.asked and pool.free() and (request := feed.next(pool.busy())) is not None:
                    pool.submit(request)
                if not pool.busy():
                    break
                for outcome in pool.wait():
                    if outcome.state == "committed":
                        units, rows = units + 1, rows + outcome.rows
                    elif outcome.state == "locked":
                        feed.later(outcome.request)
                    elif outcome.state == "held":
                        feed.found(outcome.request)
                    elif outcome.state == "failed":
                        failed.append(outcome)
                        stop.asked = stop.asked or outcome.fatal
                if stop.asked:
                    pool.withdraw()
    stop.leave()
    if failed:
        raise _failure(failed, units)
    return Summary(units, rows, wanted.rows - rows, time.monotonic() - started)


@dataclass
class _Feed:
    """Requests to hand out; those found locked come back after a while, if rows of them are still missing."""

    todo: Sequence[Todo]
    store: Store
    advance: Callable[[int], None]
    queue: deque[Request] = field(init=False)
    waiting: deque[tuple[float, Request]] = field(default_factory=deque)
    told: bool = False

    def __post_init__(self) -> None:
        self.queue = deque(todo.request for todo in self.todo)
        self.missing = {todo.request.unit: len(todo.missing) for todo in self.todo}

    def later(self, request: Request) -> None:
        self.waiting.append((time.monotonic() + RETRY_AFTER, request))

    def found(self, request: Request) -> None:
        """Count rows that another process made meanwhile."""
        self.advance(self.missing[request.unit])

    def next(self, busy: bool) -> Request | None:
        """Return a request; None if there is none now. Waits for locked ones only when nothing else is in hand."""
        if self.queue:
            return self.queue.popleft()
        while self.waiting:
            if not self.told and not busy:
                self.told = True
                say(f"waiting for {len(self.waiting)} units that another process is writing")
            delay = self.waiting[0][0] - time.monotonic()
            if delay > 0:
                if busy:
                    return None
                time.sleep(delay)
            request = self.waiting.popleft()[1]
            if self.store.missing(request, self.store.held(request.unit)):
                return request
            self.found(request)
        return None


@dataclass
class _Stop:
    asked: bool = False
    signal: int | None = None

    def leave(self) -> None:
        """Raise what the signal would have raised, now that the units in hand are committed."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


@contextlib.contextmanager
def _stopping() -> Iterator[_Stop]:
    """Let SIGINT and SIGTERM ask for a stop instead of breaking into a unit; a second SIGINT does break in."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked, stop.signal = True, number
        say("stopping after the units in hand" + ("; Ctrl-C again to drop them" if number == signal.SIGINT else ""))

    before: dict[int, Any] = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _failure(failed: Sequence[Outcome], committed: int) -> Exception:
    """Return the error to raise: the first fatal one, else the first; told apart when several units failed."""
    first = next((outcome for outcome in failed if outcome.fatal), failed[0])
    error = first.error or StoreError(f"unit {first.request.unit.key} failed")
    if isinstance(error, VipoccError) and len(failed) > 1 and not first.fatal:
        what = f"{len(failed)} units failed ({committed} were committed), the first ({first.request.unit.key}) because "
        return type(error)(what + error.what, where=error.where, fix=error.fix)
    return error
