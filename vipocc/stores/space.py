"""Room on the disk, looked at before a long run starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from vipocc.errors import StoreError
from vipocc.progress import size


def refuse_without_space(path: Path, count: float, what: str, fix: str) -> None:
    """Raise `StoreError` if the disk that `path` is on, or will be on, has not `count` bytes free.

    An estimate that is too low does no harm beyond the time: a disk that fills up later is an error, too, and what was
    committed stays.

    Args:
        path: a file or folder, existing or not.
        count: bytes that are going to be written there, estimated.
        what: what is to be written, plural, for the sentence.
        fix: the way out, besides free space.
    """
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if count > free:
        raise StoreError(
            f"{what} take about {size(count)}, and {size(free)} are free on the disk",
            where=path,
            fix=f"free some space, or {fix}",
        )
