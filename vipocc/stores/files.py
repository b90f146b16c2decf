"""Files that appear whole or not at all: durable writes, renames, checksums, locks, and their errors as sentences."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from vipocc.errors import StoreError, VipoccError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turn an `OSError` of the body into one `StoreError` that says what to do."""
    try:
        yield
    except VipoccError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                "the disk is full; what was committed is kept", where=where, fix="free some space and run this again"
            ) from error
        if error.errno in _FORBIDDEN:
            raise StoreError(
                f"the store cannot be written ({error.strerror})",
                where=where,
                fix="mend the permissions of its folder, or use a workspace elsewhere with -C",
            ) from error
        raise StoreError(f"the store cannot be read or written ({error})", where=where) from error


def digest_bytes(content: bytes) -> str:
    """Return the BLAKE2b-128 digest of bytes, in hexadecimal."""
    return blake2b(content, digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """Return the BLAKE2b-128 digest of a file's content, in hexadecimal."""
    state = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and fsync it; its folder is made, and is not fsynced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Fsync a file that another library wrote."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that names made in it survive a loss of power."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, each new name fsynced."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def replace_durably(path: Path, content: bytes) -> None:
    """Put `content` at `path` whole by one rename, durable when this returns; the caller holds the lock over `path`.

    Under that lock the name aside can be a fixed one, so what a killed writer left there is used again, not littered.
    """
    make_folder(path.parent)
    aside = path.with_name(f"{path.name}.partial")
    try:
        write_durably(aside, content)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold an exclusive flock on `path`; gives False if another holds it and `wait` is not set.

    The kernel drops the lock with the process, so a killed writer blocks nobody. The file is removed afterwards;
    whoever then still waits on the removed file finds that out and tries again on the new one.

    Raises:
        StoreError: the lock file cannot be made.
    """
    with storage_errors(path.parent):
        handle = _acquire(path, wait)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _acquire(path: Path, wait: bool) -> int | None:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.fstat(handle).st_nlink > 0 and _same_file(handle, path):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
