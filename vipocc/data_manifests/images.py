"""Raw images to prepared ones: strict PNG decoding, resizing of rectified images, resampling of fisheyes."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import cv2
import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.errors import DataError
from vipocc.geometry.cameras import Mei, Pinhole, fisheye_table
from vipocc.geometry.ndc import resize_intrinsics
from vipocc.geometry.poses import virtual_rotation

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_SUPERSAMPLING = 8


def read_png(path: Path, size: tuple[int, int], fix: str) -> np.ndarray:
    """Decode a PNG file to RGB uint8 [H, W, 3].

    OpenCV fills what a damaged file lacks with black and says nothing to its caller, so lengths and checksums of the
    file's chunks are verified first.

    Args:
        path: the file.
        size: (height, width) that the calibration states.
        fix: what the user is told to do if the file is absent, damaged or of another size.

    Raises:
        DataError: the file is absent, empty, truncated, altered, or of another size.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("an image is missing", where=path, fix=fix) from None
    except OSError as error:
        raise DataError(f"an image cannot be read ({error.strerror})", where=path, fix=fix) from None
    fault = png_fault(content)
    if fault is not None:
        raise DataError(f"an image {fault}", where=path, fix=fix)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError("an image cannot be decoded", where=path, fix=fix)
    if decoded.shape[:2] != size:
        height, width = decoded.shape[:2]
        raise DataError(
            f"an image is {width}x{height}, where the calibration says {size[1]}x{size[0]}", where=path, fix=fix
        )
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def png_fault(content: bytes) -> str | None:
    """Return what is wrong with the bytes of a PNG file, None if they are whole and unaltered."""
    if not content:
        return "is empty"
    if not content.startswith(_SIGNATURE):
        return "is not a PNG file"
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(content):
            return "is truncated"
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return "is damaged (a checksum differs)"
        at = end + 4
    return None


def resize(image: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """Resize uint8 [H, W, 3] to `size` (height, width).

    `area` averages over the pixels that fall into one; `bilinear` looks at four, in float and rounded at the end, as
    the released preprocessing does.
    """
    height, width = size
    if image.shape[:2] == size:
        return image
    if how == "bilinear":
        floats = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(np.clip(np.rint(floats), 0, 255).astype(np.uint8))
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


class Preparation:
    """What turns raw images of one camera into prepared ones; tables are built once.

    Args:
        model: calibration of the raw image.
        stereo: the left stereo camera, whose intrinsics the virtual camera of a fisheye has.
        config: size, filter, convention and the virtual camera's pitch.
    """

    def __init__(self, model: Pinhole | Mei, stereo: Pinhole, config: DataConfig) -> None:
        self.raw_size = (model.height, model.width)
        self.size = config.image_size
        self.how = config.resize
        self._table: np.ndarray | None = None
        if isinstance(model, Mei):
            self._table = self._virtual_table(model, stereo, config)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Prepare uint8 RGB [H, W, 3]; black where a fisheye does not see."""
        if self._table is None:
            return resize(image, self.size, self.how)
        if self.how == "bilinear":
            image = image.astype(np.float32)
        seen = cv2.remap(
            image, self._table, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0)
        )
        if self.how == "bilinear":
            return np.asarray(np.clip(np.rint(seen), 0, 255).astype(np.uint8))
        return resize(np.asarray(seen), self.size, "area")

    def _virtual_table(self, model: Mei, stereo: Pinhole, config: DataConfig) -> np.ndarray:
        raw, pitch = (stereo.height, stereo.width), virtual_rotation(config.fisheye_pitch, 0.0)

        def table(size: tuple[int, int]) -> np.ndarray:
            intrinsics = resize_intrinsics(stereo.matrix, raw, size, config.convention)
            return np.asarray(fisheye_table(intrinsics, size, model, pitch, config.convention))

        plain = table(self.size)
        if self.how == "bilinear":
            return plain
        # Averaging: look up at a multiple of the size, fine enough that steps in the fisheye are about one pixel.
        steps = np.abs(np.diff(plain, axis=1)[:, :, 0])
        inside = (plain[:, 1:] >= 0).all(-1) & (plain[:, :-1] >= 0).all(-1)
        step = float(np.median(steps[inside])) if inside.any() else 1.0
        factor = min(max(1, int(np.ceil(step))), _MAX_SUPERSAMPLING)
        return plain if factor == 1 else table((self.size[0] * factor, self.size[1] * factor))


def header_fault(path: Path, size: tuple[int, int]) -> str | None:
    """Return what the first and last bytes of a PNG file say is wrong with it, None if nothing.

    Reads 36 bytes, so that thousands of files can be looked at before any is decoded: sees files that are absent,
    empty, cut off or of another size than (height, width), not damage in the middle.
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - 12))
            tail = file.read(12)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not head:
        return "is empty"
    if not head.startswith(_SIGNATURE):
        return "is not a PNG file"
    if len(head) < 24 or tail[4:8] != b"IEND":
        return "is truncated"
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if (height, width) != size:
        return f"is {width}x{height}, where the calibration says {size[1]}x{size[0]}"
    return None
