"""Processes that read batches into shared memory, which is taken once and used again and again.

Each reader has a pipe of its own, over which small messages go: which batch to read and into which room. A room goes
back to the readers when the batch after it is asked for, so that memory is bounded by the number of rooms, whatever the
length of the run.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Protocol

import torch

from vipocc.errors import DataError, VipoccError
from vipocc.training.packing import Packed, Rooms, Shapes
from vipocc.training.samples import Share

#: Seconds in which readers that are no longer wanted end by themselves.
_PATIENCE = 2.0


class Batches(Protocol):
    """What readers read (`vipocc.training.samples.TrainingSamples`); picklable."""

    def shapes(self, share: Share) -> Shapes:
        """Return shapes and data types of a batch."""
        ...

    def batch(self, share: Share, room: Packed | None = None) -> Packed:
        """Read a batch."""
        ...


@dataclass
class _Reader:
    process: BaseProcess
    pipe: Connection
    in_hand: int = 0


@dataclass
class Readers:
    """An iterator over batches in order, read by processes of their own; to be used in a `with`.

    The processes are forks of one that has imported all they need and done nothing else, so that they start at once and
    share what torch alone takes, a quarter of a gigabyte; a fork of this process would inherit its threads' locks. A
    batch is valid until the next one is asked for. The readers end with the `with`, or at once if this process is
    killed.
    """

    samples: Batches
    shares: Iterable[Share]
    workers: int
    prefetch: int
    """Batches that each reader reads ahead."""
    _readers: list[_Reader] = field(default_factory=list)

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.pipe.close()
        for reader in self._readers:
            reader.process.join(_PATIENCE)
            if reader.process.exitcode is None:
                reader.process.kill()
                reader.process.join()

    def __iter__(self) -> Iterator[Packed]:
        """Yield the batches.

        Raises:
            VipoccError: an error of a batch, as itself and in its place.
            DataError: a reader was killed, or there is too little shared memory.
        """
        todo = enumerate(self.shares)
        first = next(todo, None)
        if first is None:
            return
        rooms = self._start(self.samples.shapes(first[1]))
        free, held = deque(range(len(rooms))), dict[int, int]()
        answers: dict[int, VipoccError | str | None] = {}
        self._hand_out(chain([first], todo), free, held)
        for number in count():
            self._hand_out(todo, free, held)
            if number not in held:
                return
            while number not in answers:
                answers.update(self._collect())
                self._hand_out(todo, free, held)
            answer, room = answers.pop(number), held.pop(number)
            if isinstance(answer, VipoccError):
                raise answer
            if answer is not None:
                raise RuntimeError(f"a process that reads samples failed:\n{answer}")
            yield rooms[room]
            free.append(room)

    def _hand_out(self, todo: Iterator[tuple[int, Share]], free: deque[int], held: dict[int, int]) -> None:
        while free:
            reader = min(self._readers, key=lambda reader: reader.in_hand)
            if reader.in_hand >= self.prefetch or (item := next(todo, None)) is None:
                return
            number, share = item
            held[number] = free.popleft()
            with suppress(OSError):  # of one that has died, which `_collect` finds out
                reader.pipe.send((number, share, held[number]))
            reader.in_hand += 1

    def _collect(self) -> dict[int, VipoccError | str | None]:
        """Wait for answers: for each batch None, what went wrong with its data, or the traceback of a fault."""
        ready = wait([item for reader in self._readers for item in (reader.pipe, reader.process.sentinel)])
        answers = {}
        for reader in self._readers:
            if reader.pipe in ready:
                try:
                    number, answer = reader.pipe.recv()
                except (EOFError, OSError):
                    raise _ended(reader.process) from None
                answers[number] = answer
                reader.in_hand -= 1
            elif reader.process.sentinel in ready:
                raise _ended(reader.process)
        return answers

    def _start(self, shapes: Shapes) -> Rooms:
        # One room for each batch in the readers' hands, and one for the batch that is in use.
        count = self.workers * self.prefetch + 1
        try:
            rooms = Rooms.allocate(shapes, count)
        except RuntimeError as error:
            raise DataError(
                f"there is no shared memory for {count} batches ({str(error).splitlines()[0]})",
                where="/dev/shm",
                fix="make it larger (docker run --shm-size=8g), or lower training.workers or training.prefetch",
            ) from None
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        with _deaf_to_ctrl_c():
            for _ in range(self.workers):
                pipe, its_end = context.Pipe()
                process = context.Process(
                    target=_serve, args=(self.samples, rooms, its_end), name="vipocc-samples", daemon=True
                )
                process.start()
                its_end.close()
                self._readers.append(_Reader(process, pipe))
        return rooms


def _serve(samples: Batches, rooms: Rooms, pipe: Connection) -> None:
    """Read what is asked for until nobody asks any more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # Readers are one per core already, and reading needs no linear algebra.
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        while True:
            number, share, room = pipe.recv()
            answer: VipoccError | str | None = None
            try:
                samples.batch(share, rooms[room])
            except VipoccError as error:
                answer = error
            except Exception:
                answer = traceback.format_exc()
            pipe.send((number, answer))


def _ended(process: BaseProcess) -> DataError:
    """Return the error about a reader that ended by itself."""
    process.join(_PATIENCE)
    code = process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return DataError(
        f"a process that reads samples ended ({how})",
        fix="go on with `vipocc train --resume`; if memory was short, with a lower training.workers",
    )


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C, which reaches all of a terminal's, leaves alone: it is their parent's business."""
    # Started first, since it lifts the mask of signals of the thread that happens to start it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
