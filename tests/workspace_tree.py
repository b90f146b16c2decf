"""What tests of whole commands share: running one, and hashing folders before and after."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from vipocc.cli import run


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> Finished:
    """Run `vipocc ...` in this process. What worker processes write goes where this process's output goes."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(list(arguments))
    return Finished(code, out.getvalue(), err.getvalue())


def successful(*arguments: str) -> Finished:
    """Run a command that must succeed."""
    finished = command(*arguments)
    assert finished.code == 0, f"vipocc {' '.join(arguments)}\n{finished.out[-2000:]}\n{finished.err[-2000:]}"
    return finished


def tree_digests(*folders: Path) -> dict[str, str]:
    """Return every path below `folders`, folders too, with a digest of its content."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            found[str(path)] = blake2b(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found
