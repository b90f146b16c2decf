"""Which of the evaluated frames are pictured: so many evenly spaced ones, and those that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from vipocc.errors import UsageError
from vipocc.evaluation.report import Frame

T = TypeVar("T")


@runtime_checkable
class Choosy(Protocol):
    """What is called for evaluated frames, but for some of them only."""

    def wants(self, frame: Frame) -> bool:
        """Whether it is to be called for a frame; reading the image of others again is saved."""


def wanted(keep: object, frame: Frame) -> bool:
    """Whether `keep` is to be called for a frame: it is not None, and if it is choosy it wants the frame."""
    return keep is not None and (not isinstance(keep, Choosy) or keep.wants(frame))


def parse_picture(text: str) -> tuple[str, int]:
    """Return sequence and frame id of SEQ/FRAME.

    Raises:
        UsageError: it is not of that form.
    """
    sequence, slash, number = text.rpartition("/")
    if not slash or not sequence or not number.isdigit():
        raise UsageError(f"'{text}' names no frame", fix="write --picture SEQUENCE/FRAME, the frame by its id")
    return sequence, int(number)


class Chosen(Generic[T]):
    """Keeps something of some of the frames that pass by, without knowing beforehand how many will.

    Every 1st, 2nd, 4th, ... frame is kept, and every second of those let go when they become more than twice as many as
    are wanted: what is held never exceeds that, and in the end the wanted number is picked evenly from it. Frames that
    are named are always kept.
    """

    def __init__(self, count: int, named: Sequence[tuple[str, int]] = ()) -> None:
        self.count, self.named = count, list(named)
        self._step, self._seen = 1, 0
        self._even: list[tuple[Frame, T]] = []
        self._named: list[tuple[Frame, T]] = []
        self._next = False
        self._asked: Frame | None = None

    def wants(self, frame: Frame) -> bool:
        """Whether this frame is to be `add`ed; to be asked of each frame, in order, once or more often."""
        if frame != self._asked:
            self._asked = frame
            at, self._seen = self._seen, self._seen + 1
            self._next = self.count > 0 and at % self._step == 0
        return self._next or self._is_named(frame)

    def add(self, frame: Frame, value: T) -> None:
        """Keep what belongs to the frame that `wants` just agreed to."""
        if self._is_named(frame):
            self._named.append((frame, value))
        elif self._next:
            self._even.append((frame, value))
            if len(self._even) > 2 * self.count:
                self._even = self._even[::2]
                self._step *= 2

    def picked(self) -> list[tuple[Frame, T]]:
        """Return the named frames, then the evenly spaced ones."""
        wanted = min(self.count, len(self._even))
        places = np.linspace(0, max(0, len(self._even) - 1), wanted).round().astype(int)
        return [*self._named, *(self._even[int(at)] for at in places)]

    def unmet(self) -> list[str]:
        """Return the named frames that never passed by, as SEQ/FRAME."""
        met = {(frame.sequence, frame.frame_id) for frame, _ in self._named}
        return [f"{sequence}/{number}" for sequence, number in self.named if (sequence, number) not in met]

    def _is_named(self, frame: Frame) -> bool:
        return (frame.sequence, frame.frame_id) in self.named
