"""Files that `torch.save` wrote (`.pt`, `.pth`), read without executing anything that stands in them.

Such a file is a pickle, and a pickle may call whatever it likes. Here only tensors and plain containers are unpickled
(torch's `weights_only`); a file that asks for anything else is refused by the name of what it asked for.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vipocc.errors import CheckpointError

_REFUSED = re.compile(r"(?:GLOBAL|global|class) (\S+?)(?: was not|\.? |$)")
_PLAIN_TYPE = re.compile(r"[biuf][1248]")
_OPEN_WEB = (b"<!doctype", b"<html", b"<?xml")


class _PlainType:
    """Stands for `numpy.dtype` in a pickle: a number's kind, size and byte order, with no way to anything else."""

    def __init__(self, code: object, *_flags: object) -> None:
        if not isinstance(code, str) or not _PLAIN_TYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r}) was not a plain number's")
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, itemsize, alignment, flags): the order is all that counts.
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("GLOBAL numpy.dtype was not a plain number's")
        self.order = order


def _plain_number(kind: object, data: object = b"") -> int | float | bool:
    """Stands for numpy's rebuilding of a scalar: the number as Python's own."""
    if not isinstance(kind, _PlainType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("GLOBAL numpy.core.multiarray.scalar was not given a plain number")
    dtype = np.dtype(kind.order + kind.code)
    if len(data) != dtype.itemsize:
        raise pickle.UnpicklingError("GLOBAL numpy.core.multiarray.scalar was not given a plain number")
    value: int | float | bool = np.frombuffer(data, dtype)[0].item()
    return value


_NUMBERS: list[Any] = [
    (_PlainType, "numpy.dtype"),
    (_plain_number, "numpy.core.multiarray.scalar"),  # numpy 1 wrote this name,
    (_plain_number, "numpy._core.multiarray.scalar"),  # numpy 2 writes this one
]


def read_torch_file(path: Path, *, again: str, trust: str, numbers: bool = False) -> object:
    """Return what a file of `torch.save` holds, on the CPU, tensors read lazily from the file where it allows that.

    Args:
        path: the file.
        again: `fix` of the error for a damaged file.
        trust: `fix` of the error for a file that asks for more than tensors.
        numbers: also read numpy's scalars (as Python numbers), which training loops leave in their state.

    Raises:
        CheckpointError: the file is absent, empty, truncated or damaged, is no such file, or asks for more than
            tensors and plain values; nothing in it has been executed then.
    """
    allowed: AbstractContextManager[Any] = torch.serialization.safe_globals(_NUMBERS) if numbers else nullcontext()
    try:
        zipped = _is_zip(path, again)
        if zipped:
            status = path.stat()
            bad = _bad_member(str(path), status.st_size, status.st_mtime_ns)
            if bad is not None:
                raise CheckpointError(f"the checkpoint is damaged ({bad})", where=path, fix=again)
        # The older format, one pickle after another, cannot be mapped into memory.
        with allowed:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(path, error, again, trust) from None
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint cannot be read ({error.strerror or type(error).__name__})", where=path, fix=again
        ) from None
    except Exception as error:  # torch raises a dozen kinds for bytes that are no checkpoint
        raise CheckpointError(
            f"the checkpoint is empty, truncated or damaged ({type(error).__name__})", where=path, fix=again
        ) from None


def named_tensors(held: object, path: Path, *, fix: str) -> dict[str, torch.Tensor]:
    """Return the tensors by name that a file held, less a prefix `module.` that all have (training on several GPUs).

    Raises:
        CheckpointError: it held something else, which is named.
    """
    if not isinstance(held, dict) or not held:
        raise CheckpointError("the checkpoint holds no tensors by name", where=path, fix=fix)
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"the checkpoint holds {name!r}, a {type(value).__name__}, where tensors by name are expected",
                where=path,
                fix=fix,
            )
    if all(name.startswith("module.") for name in held):
        held = {name.removeprefix("module."): value for name, value in held.items()}
    return dict(held)


def _is_zip(path: Path, again: str) -> bool:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise EOFError
    if head.lstrip().lower().startswith(_OPEN_WEB):
        raise CheckpointError("this is a web page that was saved in the place of the checkpoint", where=path, fix=again)
    return head.startswith(b"PK\x03\x04")


@cache
def _bad_member(path: str, size: int, mtime_ns: int) -> str | None:
    """Return what is wrong with a zip: a mapped file is read without checks, and altered weights look like weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        return str(error)
    if bad is not None:
        return f"the checksum of {bad} differs"
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        first = f", {names[0]} for one" if names else ", none at all"
        return f"an archive of other files{first}"
    return None


def _refused(path: Path, error: Exception, again: str, trust: str) -> CheckpointError:
    named = _REFUSED.search(str(error))
    if named is None:
        return CheckpointError("the checkpoint is damaged (its pickle cannot be read)", where=path, fix=again)
    return CheckpointError(
        f"the checkpoint asks for '{named.group(1)}', and only tensors are read from a file that could run code",
        where=path,
        fix=trust,
    )
