"""Where units run: in this process, or in spawned processes of this machine, some per device."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol, TypeAlias

from vipocc.errors import UsageError, VipoccError
from vipocc.stores.spec import Request, UnitComputer
from vipocc.stores.work import Outcome, perform, worker_died
from vipocc.stores.writer import Store

#: Worker processes that may die one after another, with no unit committed between, before no more are started.
DEATHS = 3

Advance: TypeAlias = Callable[[int], None]

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
        """Yield the outcomes of requests in hand that are known; blocks until there is one."""
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
    """Units on this machine: `workers` processes for each device; one device with one worker is this process itself."""

    devices: tuple[str, ...] = ("cpu",)
    workers: int = 1

    def start(self, store: Store, computer: UnitComputer, units: int, advance: Advance) -> Pool:
        """Return the workers; raises `UsageError` if there are none."""
        if not self.devices or self.workers < 1:
            raise UsageError("there are no workers to run on", fix="give at least one device and one worker")
        places = [device for _ in range(self.workers) for device in self.devices]
        if len(places) == 1:
            return _Here(store, computer, places[0], advance)
        return _Processes(store, computer, advance, [_Worker(device) for device in places[: max(units, 1)]])


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

    def close(self) -> None:
        if self.opened:
            self.opened = False
            self.computer.close()


@dataclass
class _Worker:
    device: str
    process: BaseProcess | None = None
    pipe: Connection | None = None
    request: Request | None = None
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
        return any(worker.request is None for worker in self.workers)

    def busy(self) -> bool:
        return any(worker.request is not None for worker in self.workers)

    def submit(self, request: Request) -> None:
        # A worker that is up goes first, so that few units do not start many processes.
        idle = sorted((w for w in self.workers if w.request is None), key=lambda w: w.process is None)
        worker = idle[0]
        worker.request = request
        if worker.process is None:
            ours, theirs = self._context.Pipe()
            with theirs:
                process = self._context.Process(
                    target=_serve, args=(theirs, self.store, self.computer, worker.device), name=_WORKER, daemon=True
                )
                try:
                    process.start()
                except BaseException:
                    ours.close()
                    worker.request = None
                    raise
            worker.pipe, worker.process, worker.answered = ours, process, False
        assert worker.pipe is not None
        with suppress(BrokenPipeError, ConnectionResetError):  # it died idle: `wait` sees the end of its pipe
            worker.pipe.send(request)

    def wait(self) -> Iterator[Outcome]:
        in_hand = {w.pipe: w for w in self.workers if w.request is not None and w.pipe is not None}
        for pipe in wait(list(in_hand)):
            worker = in_hand[pipe]  # type: ignore[index]
            assert worker.pipe is not None
            assert worker.request is not None
            request = worker.request
            try:
                message = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                yield self._died(worker)
                continue
            worker.answered = True
            if isinstance(message, int):
                self.advance(message)
                continue
            worker.request = None
            outcome = unpack(message, request)
            if outcome.state == "committed":
                self.deaths = 0
            yield outcome

    def _died(self, worker: _Worker) -> Outcome:
        assert worker.process is not None
        assert worker.request is not None
        assert worker.pipe is not None
        worker.process.join()
        code = worker.process.exitcode
        if code == _UNGUARDED and not worker.answered:
            what = "the calling script starts worker processes, and they import it and would start their own"
            outcome = Outcome(worker.request, "failed", error=UsageError(what, fix=_GUARD), fatal=True)
        elif code is not None and code > 0 and not worker.answered:
            fix = f"its own error stands above; in a script, {_GUARD}"
            outcome = worker_died(worker.request, f"while starting, exit code {code}", fix)
        else:
            outcome = worker_died(worker.request, _how(code))
        worker.pipe.close()
        worker.process = worker.pipe = worker.request = None
        self.deaths += 1
        if self.deaths >= DEATHS:
            self.workers.remove(worker)
        return outcome

    def close(self) -> None:
        for worker in self.workers:
            if worker.pipe is not None and worker.process is not None:
                if worker.request is not None:
                    worker.process.kill()
                worker.pipe.close()
        for worker in self.workers:
            if worker.process is not None:
                worker.process.join()
                worker.process = None


def _serve(pipe: Connection, store: Store, computer: UnitComputer, device: str) -> None:
    """Work off requests until the pipe ends: the parent is done with us, or dead."""
    # The parent decides when to stop; a Ctrl-C reaches the whole process group and would break into the unit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    opened = False
    try:
        while True:
            request: Request = pipe.recv()
            if not opened:
                try:
                    computer.open(device)
                except Exception as error:
                    pipe.send(pack(Outcome(request, "failed", error=error, fatal=True)))
                    return
                opened = True
            pipe.send(pack(perform(store, request, computer, pipe.send)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    finally:
        if opened:
            computer.close()


@dataclass(frozen=True)
class Message:
    """An outcome as it travels between processes: its error taken apart, for few exceptions survive pickling."""

    outcome: Outcome
    kind: type[VipoccError] | None = None
    what: str = ""
    where: str | None = None
    fix: str | None = None
    trace: str = ""


def pack(outcome: Outcome) -> Message:
    """Return an outcome ready for pickling."""
    bare, error = replace(outcome, error=None), outcome.error
    if error is None:
        return Message(bare)
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, VipoccError):
        return Message(bare, type(error), error.what, error.where, error.fix, trace)
    return Message(bare, None, f"{type(error).__name__}: {error}", trace=trace)


def unpack(message: Message, request: Request) -> Outcome:
    """Return the outcome that `pack` took apart; the worker's traceback is a note on its error."""
    if not message.what:
        return replace(message.outcome, request=request)
    if message.kind is not None:
        error: Exception = message.kind(message.what, where=message.where, fix=message.fix)
    else:
        error = RuntimeError(message.what)
    error.add_note(message.trace)
    return replace(message.outcome, request=request, error=error)


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return name + (", perhaps out of memory" if name == "SIGKILL" else "")
