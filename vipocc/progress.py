"""Progress of long work: a live bar on a terminal, a plain line now and then otherwise; always rate and time left."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, Any, Protocol

#: Seconds between two plain lines where there is no terminal.
PLAIN_INTERVAL = 10.0


class Progress(Protocol):
    """What long work tells: how many units are done, and figures worth showing beside them."""

    def advance(self, n: int = 1, **status: object) -> None:
        """Count `n` more units; `status` replaces the figures shown at the end of the line."""


def progress(description: str, total: int, unit: str = "frames", *, done: int = 0) -> AbstractContextManager[Progress]:
    """Return a context manager that shows the advance of `total` units of work on standard error.

    Args:
        description: what is being done, one or two words.
        total: how many units there are in all.
        unit: what a unit is, in the plural.
        done: how many of them an earlier run had already done; they do not count towards the rate.
    """
    stream = sys.stderr
    return _Bar(description, total, unit, done) if stream.isatty() else _Lines(description, total, unit, done, stream)


def say(text: str) -> None:
    """Write one line to standard error, for notices of library code that a caller may want to see."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return a duration as people write it: `8 s`, `2 min 5 s`, `3 h 10 min`, `2 d 4 h`."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (secs, "s")]
    first = next((k for k, (value, _) in enumerate(parts) if value), 3)
    shown = [f"{value} {name}" for value, name in parts[first : first + 2] if value]
    return " ".join(shown) or "0 s"


def size(count: float) -> str:
    """Return a number of bytes as people write it, in powers of ten: `75 kB`, `4.8 GB`."""
    for name in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or name == "TB":
            break
        count /= 1000
    return f"{count:.0f} {name}" if count >= 10 or name == "B" else f"{count:.1f} {name}"


class _Counter:
    def __init__(self, description: str, total: int, unit: str, done: int) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.before = self.done = done
        self.start = time.monotonic()
        self.status = ""

    def count(self, n: int, status: dict[str, object]) -> None:
        self.done += n
        if status:
            self.status = "  ".join(f"{key} {_figure(value)}" for key, value in status.items())

    @property
    def rate(self) -> float:
        """Units per second since the start, without those done before."""
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-6)

    def pace(self) -> str:
        left = duration((self.total - self.done) / self.rate) if self.rate > 0 else "?"
        rate = f"{self.rate:.1f} {self.unit}/s" if self.rate >= 1 else f"{1 / max(self.rate, 1e-9):.1f} s each"
        return f"{rate}, {left} left"


class _Lines(_Counter, AbstractContextManager["_Lines"]):
    """Plain lines, for logs and pipes."""

    def __init__(self, description: str, total: int, unit: str, done: int, stream: IO[str]) -> None:
        super().__init__(description, total, unit, done)
        self.stream, self.next_line = stream, self.start + PLAIN_INTERVAL

    def advance(self, n: int = 1, **status: object) -> None:
        self.count(n, status)
        if time.monotonic() >= self.next_line:
            self.next_line = time.monotonic() + PLAIN_INTERVAL
            self._write(f"{self.done}/{self.total} {self.unit}, {self.pace()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = duration(time.monotonic() - self.start)
        stopped = "" if kind is None else ", stopped"
        self._write(f"{self.done}/{self.total} {self.unit} in {took}{stopped}")

    def _write(self, text: str) -> None:
        tail = f"  {self.status}" if self.status else ""
        self.stream.write(f"{self.description}: {text}{tail}\n")
        self.stream.flush()


class _Bar(_Counter, AbstractContextManager["_Bar"]):
    """A live bar, for a terminal."""

    def __init__(self, description: str, total: int, unit: str, done: int) -> None:
        super().__init__(description, total, unit, done)
        # Imported here so that commands which show no progress do not pay for it.
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        console: Any = __import__("rich.console", fromlist=["Console"]).Console(stderr=True)
        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
        )
        self.task = self.rich.add_task(description, total=total, completed=done, pace="", status="")

    def __enter__(self) -> _Bar:
        self.rich.start()
        return self

    def advance(self, n: int = 1, **status: object) -> None:
        self.count(n, status)
        self.rich.update(self.task, completed=self.done, pace=self.pace(), status=self.status)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rich.stop()


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
