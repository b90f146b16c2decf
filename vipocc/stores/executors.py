"""Where units run: in this process, or in spawned processes of this machine, some per device."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from vipocc.errors import UsageError
from vipocc.stores.crew import Crew, Threads, units_at_once
from vipocc.stores.messages import pack, unpack
from vipocc.stores.spec import Request, Unit, UnitComputer
from vipocc.stores.work import Advance, Outcome, perform, worker_died
from vipocc.stores.writer import Store

#: Worker processes that may die one after another, with no unit committed between, before no more are started.
DEATHS = 3

_WORKER = "vipocc-stores-worker"
#: Exit code of a worker process that was about to start workers itself.
_UNGUARDED = 97
_GUARD = 'put the call under `if __name__ == "__main__":`'


def leave_if_imported_by_a_worker() -> None:
    """End this process if it is a worker that is still importing the script which started it.

    A spawned process imports the caller's script first. A script that calls `run` without a guard would start workers
    from its workers; the parent learns of it by the exit code and says it once.
    """
    process = multiprocessing.current_process()
    if process.name == _WORKER and getattr(process, "_inheriting", False):
        raise SystemExit(_UNGUARDED)


class Pool(Protocol):
    """The workers of one run."""

    def free(self) -> bool:
        """Tell whether a request would be taken now."""
        ...

    def busy(self) -> bool:
        """Tell whether any request is in hand."""
        ...

    def submit(self, request: Request) -> None:
        """Take a request; only when `free`."""
        ...

    def wait(self) -> Iterator[Outcome]:
        """Yield the outcomes of requests in hand that are known, after waiting a while for one; there may be none."""
        ...

    def withdraw(self) -> None:
        """Let requests that have not begun come back as `withdrawn`; may be called again and again."""
        ...

    def close(self) -> None:
        """End the workers; what they have in hand is lost."""
        ...


class Executor(Protocol):
    """Where units run."""

    def start(self, store: Store, computer: UnitComputer, units: int, advance: Advance) -> Pool:
        """Return workers for at most `units` units at a time; `advance` is told how many rows were just computed."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Units on this machine: `workers` processes for each device; one device with one worker is this process itself.

    In each of them a computer that allows it (`units_at_once`) has several units in hand.
    """

    devices: tuple[str, ...] = ("cpu",)
    workers: int = 1

    def start(self, store: Store, computer: UnitComputer, units: int, advance: Advance) -> Pool:
        """Return the workers; raises `UsageError` if there are none."""
        if not self.devices or self.workers < 1:
            raise UsageError("there are no workers to run on", fix="give at least one device and one worker")
        places = [device for _ in range(self.workers) for device in self.devices]
        at_once = {device: min(units_at_once(computer, device), max(units, 1)) for device in places}
        if len(places) > 1:
            workers = [_Worker(device, at_once[device]) for device in places[: max(units, 1)]]
            return _Processes(store, computer, advance, workers)
        if at_once[places[0]] > 1:
            return Threads(store, computer, places[0], advance, at_once[places[0]])
        return _Here(store, computer, places[0], advance)


@dataclass
class _Here:
    """This process. A unit runs inside `wait`."""

    store: Store
    computer: UnitComputer
    device: str
    advance: Advance
    request: Request | None = None
    opened: bool = False

    def free(self) -> bool:
        return self.request is None

    def busy(self) -> bool:
        return self.request is not None

    def submit(self, request: Request) -> None:
        self.request = request

    def wait(self) -> Iterator[Outcome]:
        if self.request is None:
            return
        if not self.opened:
            self.computer.open(self.device)
            self.opened = True
        request, self.request = self.request, None
        yield perform(self.store, request, self.computer, self.advance)

    def withdraw(self) -> None:
        """Do nothing: what was taken is done."""

    def close(self) -> None:
        if self.opened:
            self.opened = False
            self.computer.close()


@dataclass
class _Worker:
    device: str
    at_once: int = 1
    process: BaseProcess | None = None
    pipe: Connection | None = None
    in_hand: dict[Unit, Request] = field(default_factory=dict)
    answered: bool = False


@dataclass
class _Processes:
    """Spawned processes, each started when it first gets a unit. tensorstore aborts under fork, so none are forked."""

    store: Store
    computer: UnitComputer
    advance: Advance
    workers: list[_Worker]
    deaths: int = 0
    _context: multiprocessing.context.SpawnContext = field(default_factory=lambda: multiprocessing.get_context("spawn"))

    def free(self) -> bool:
        return any(len(worker.in_hand) < worker.at_once for worker in self.workers)

    def busy(self) -> bool:
        return any(worker.in_hand for worker in self.workers)

    def submit(self, request: Request) -> None:
        # Idle devices go first, and of those the ones whose process is up: few units do not start many processes.
        open_ = [worker for worker in self.workers if len(worker.in_hand) < worker.at_once]
        worker = min(open_, key=lambda w: (len(w.in_hand), w.process is None))
        worker.in_hand[request.unit] = request
        if worker.process is None:
            ours, theirs = self._context.Pipe()
            with theirs:
                of_worker = (theirs, self.store, self.computer, worker.device, worker.at_once)
                process = self._context.Process(target=_serve, args=of_worker, name=_WORKER, daemon=True)
                try:
                    process.start()
                except BaseException:
                    ours.close()
                    worker.in_hand.clear()
                    raise
            worker.pipe, worker.process, worker.answered = ours, process, False
        assert worker.pipe is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # it died idle: `wait` sees the end of its pipe
            worker.pipe.send(request)

    def wait(self) -> Iterator[Outcome]:
        in_hand = {w.pipe: w for w in self.workers if w.in_hand and w.pipe is not None}
        for pipe in wait(list(in_hand)):
            worker = in_hand[pipe]  # type: ignore[index]
            assert worker.pipe is not None
            try:
                message = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                yield from self._died(worker)
                continue
            worker.answered = True
            if isinstance(message, int):
                self.advance(message)
                continue
            outcome = unpack(message, worker.in_hand.pop(message.outcome.request.unit))
            if outcome.state == "committed":
                self.deaths = 0
            yield outcome

    def withdraw(self) -> None:
        """Do nothing: what was taken has begun."""

    def _died(self, worker: _Worker) -> Iterator[Outcome]:
        """Yield the outcomes of what a dead worker had in hand."""
        assert worker.process is not None
        assert worker.pipe is not None
        worker.process.join()
        code, lost = worker.process.exitcode, list(worker.in_hand.values())
        worker.pipe.close()
        worker.process = worker.pipe = None
        worker.in_hand.clear()
        self.deaths += 1
        if self.deaths >= DEATHS:
            self.workers.remove(worker)
        for request in lost:
            if code == _UNGUARDED and not worker.answered:
                what = "the calling script starts worker processes, and they import it and would start their own"
                yield Outcome(request, "failed", error=UsageError(what, fix=_GUARD), fatal=True)
            elif code is not None and code > 0 and not worker.answered:
                fix = f"its own error stands above; in a script, {_GUARD}"
                yield worker_died(request, f"while starting, exit code {code}", fix)
            else:
                yield worker_died(request, _how(code))

    def close(self) -> None:
        for worker in self.workers:
            if worker.pipe is not None and worker.process is not None:
                if worker.in_hand:
                    worker.process.kill()
                worker.pipe.close()
        for worker in self.workers:
            if worker.process is not None:
                worker.process.join()
                worker.process = None


def _serve(pipe: Connection, store: Store, computer: UnitComputer, device: str, at_once: int) -> None:
    """Work off requests until the pipe ends: the parent is done with us, or dead. Units in hand are finished."""
    # The parent decides when to stop; a Ctrl-C reaches the whole process group and would break into the unit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sending = threading.Lock()

    def tell(news: Outcome | int) -> None:
        # With the parent dead there is nobody to tell; what was committed stands.
        with sending, suppress(BrokenPipeError, ConnectionResetError):
            pipe.send(news if isinstance(news, int) else pack(news))

    crew: Crew | None = None
    try:
        while True:
            request: Request = pipe.recv()
            if crew is None:
                try:
                    computer.open(device)
                except Exception as error:
                    tell(Outcome(request, "failed", error=error, fatal=True))
                    return
                crew = Crew(store, computer, at_once, tell)
            crew.take(request)
    except (EOFError, ConnectionResetError):
        return
    finally:
        if crew is not None:
            crew.leave()
            computer.close()


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return name + (", perhaps out of memory" if name == "SIGKILL" else "")
