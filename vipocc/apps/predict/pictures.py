"""The pictures of a run: single files, folders and videos, each with the name that its results get."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vipocc.errors import DataError, UsageError

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
SMALLEST_SIDE = 32
_COLOURED = {"L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"}
_FIX = f"give pictures ({', '.join(sorted(IMAGES))}), folders of them, or videos ({', '.join(sorted(VIDEOS))})"


@dataclass(frozen=True)
class Picture:
    """One decoded picture."""

    image: NDArray[np.uint8]
    """[h, w, 3], RGB, turned upright as its EXIF says."""
    exif: Image.Exif | None = None


@dataclass(frozen=True)
class Item:
    """A picture that is to be predicted, not read yet; a video's frames come as items with `frame` set."""

    name: str
    """Folder of its results, relative to the output."""
    path: Path
    frame: int | None = None
    _picture: Picture | None = field(default=None, repr=False, compare=False)

    def read(self) -> Picture:
        """Decode it; raises `DataError` as `read_picture` does."""
        return self._picture or read_picture(self.path)

    def source(self) -> dict[str, Any]:
        """Return what identifies its content, as JSON values: path, size in bytes, time of change, frame."""
        status = self.path.stat()
        return {"path": str(self.path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "frame": self.frame}


def read_picture(path: Path) -> Picture:
    """Decode a picture.

    Raises:
        DataError: it is absent, empty, truncated, damaged, no picture, of a kind without 8-bit colours, or too small.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the picture cannot be read ({error.strerror})", where=path, fix="check the path") from None
    if not content:
        raise DataError("the picture is empty", where=path, fix="copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF and of large pictures, which are bounded below
            with Image.open(io.BytesIO(content)) as opened:
                exif, mode = opened.getexif(), opened.mode
                if mode not in _COLOURED:
                    raise DataError(
                        f"the picture has pixels of kind {mode}",
                        where=path,
                        fix="convert it to an 8-bit colour picture",
                    )
                turned = ImageOps.exif_transpose(opened).convert("RGB")
                image = np.array(turned, np.uint8)
    except UnidentifiedImageError:
        raise DataError("this is no picture", where=path, fix=_FIX) from None
    except Image.DecompressionBombError as error:
        raise DataError(f"the picture is too large ({error})", where=path, fix="make it smaller first") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the picture is truncated or damaged ({error})", where=path, fix="copy it again") from None
    return Picture(_large_enough(image, path), exif)


@dataclass(frozen=True)
class Pictures:
    """All pictures of a run, in order."""

    paths: Sequence[tuple[str, Path]]
    """Name and file, images and videos."""
    every: int = 1
    """Of a video, each n-th frame."""
    limit: int | None = None
    """At most so many pictures in all."""

    @classmethod
    def find(cls, given: Sequence[Path], *, every: int = 1, limit: int | None = None) -> Pictures:
        """Find the pictures of files and folders; folders are searched to their depths, in the order of names.

        Raises:
            UsageError: a path is not there, a folder holds no picture, or two pictures would get one name.
        """
        found: list[tuple[str, Path]] = []
        for path in given:
            if path.is_dir():
                inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES | VIDEOS)
                inside = [file for file in inside if file.is_file() and not file.name.startswith(".")]
                if not inside:
                    raise UsageError(f"the folder {path} holds no picture", fix=_FIX)
                found += [(file.relative_to(path).with_suffix("").as_posix(), file) for file in inside]
            elif path.exists():
                found.append((path.stem, path))
            else:
                raise UsageError(f"there is no {path}", fix=_FIX)
        return cls(_named_apart(found), every, limit)

    def __len__(self) -> int:
        """How many pictures there are; of videos, as many as their files announce."""
        count = sum(-(-_announced(path) // self.every) if _is_video(path) else 1 for _, path in self.paths)
        return count if self.limit is None else min(count, self.limit)

    def items(self) -> Iterator[Item | tuple[str, Path, DataError]]:
        """Yield the pictures; instead of a video that cannot be read on, its name, file and the error."""
        for count, item in enumerate(self._all()):
            if self.limit is not None and count >= self.limit:
                return
            yield item

    def _all(self) -> Iterator[Item | tuple[str, Path, DataError]]:
        for name, path in self.paths:
            if not _is_video(path):
                yield Item(name, path)
                continue
            try:
                yield from self._frames(name, path)
            except DataError as error:
                yield name, path, error

    def _frames(self, name: str, path: Path) -> Iterator[Item]:
        video = cv2.VideoCapture(str(path))
        try:
            if not video.isOpened():
                raise DataError("the video cannot be opened", where=path, fix="check the file, or convert it to .mp4")
            number = 0
            while video.grab():
                if number % self.every == 0:
                    good, frame = video.retrieve()
                    if not good:
                        raise DataError(f"frame {number} of the video cannot be decoded", where=path, fix="convert it")
                    image = np.ascontiguousarray(frame[:, :, ::-1])
                    yield Item(f"{name}/frame_{number:06d}", path, number, Picture(_large_enough(image, path)))
                number += 1
            if number == 0:
                raise DataError("the video has no frame", where=path, fix="check the file, or convert it to .mp4")
        finally:
            video.release()


def _large_enough(image: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise DataError(
            f"the picture is {width}x{height}, too small",
            where=path,
            fix=f"give one of at least {SMALLEST_SIDE} pixels a side",
        )
    return image


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _announced(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    try:
        return max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) if video.isOpened() else 1
    finally:
        video.release()


def _named_apart(found: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return the pictures with names of their own: the suffix is added where `a.png` lies beside `a.jpg`."""
    names = [name for name, _ in found]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    apart = [(f"{name}{path.suffix.replace('.', '_')}" if name in twice else name, path) for name, path in found]
    where: dict[str, Path] = {}
    for name, path in apart:
        if name in where:
            raise UsageError(
                f"{where[name]} and {path} would both be written to '{name}'", fix="give the folder that holds both"
            )
        where[name] = path
    return apart
