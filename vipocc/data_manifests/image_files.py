"""Image files: strict decoding of PNG and JPEG, and what a look at their ends says is wrong with them."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from vipocc.errors import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS = 0xDA
#: Start of frame, the segment with the image's size: C0 to CF but for tables (C4), a reserved one (C8) and CC.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Bytes that programs may append to a JPEG file, in which its end is looked for.
_PADDING = 512
#: The image as it is stored: OpenCV would turn it by its EXIF tag, and the calibration would not follow.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: Path, size: tuple[int, int], fix: str) -> np.ndarray:
    """Read a PNG or JPEG file, told apart by its name, as RGB uint8 [H, W, 3].

    Args:
        path: the file, `.png`, `.jpg` or `.jpeg`.
        size: (height, width) that the calibration states.
        fix: what the user is told to do if the file is absent, damaged or of another size.

    Raises:
        DataError: the file is absent, empty, truncated, altered (PNG only, JPEG has no checksums), or of another size.
    """
    return decode_image(read_bytes(path, fix), path, size, fix)


def read_bytes(path: Path, fix: str) -> bytes:
    """Return the content of an image file; raises `DataError` if it is absent or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("an image is missing", where=path, fix=fix) from None
    except OSError as error:
        raise DataError(f"an image cannot be read ({error.strerror})", where=path, fix=fix) from None


def decode_image(content: bytes, path: Path, size: tuple[int, int], fix: str) -> np.ndarray:
    """Decode the bytes of an image file; arguments, result and errors as of `read_image`.

    OpenCV fills what a damaged file lacks with black or grey and says nothing to its caller, so the file's parts are
    looked at first.
    """
    fault = image_fault(content, path)
    if fault is not None:
        raise DataError(f"an image {fault}", where=path, fix=fix)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS)
    if decoded is None:
        raise DataError("an image cannot be decoded", where=path, fix=fix)
    if decoded.shape[:2] != size:
        raise DataError(f"an image {_other_size(decoded.shape[0], decoded.shape[1], size)}", where=path, fix=fix)
    return np.asarray(decoded)


def image_fault(content: bytes, path: Path) -> str | None:
    """Return what is wrong with the bytes of an image file, whose name says what it is; None if nothing."""
    return png_fault(content) if _is_png(path) else jpeg_fault(content)


def png_fault(content: bytes) -> str | None:
    """Return what is wrong with the bytes of a PNG file, None if they are whole and unaltered."""
    if not content:
        return "is empty"
    if not content.startswith(_PNG):
        return "is not a PNG file"
    at, kind, view = len(_PNG), b"", memoryview(content)
    while kind != b"IEND":
        length = int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(content):
            return "is truncated"
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return "is damaged (a checksum differs)"
        at = end + 4
    return None


def jpeg_fault(content: bytes) -> str | None:
    """Return what is wrong with the bytes of a JPEG file, None if it has its parts from the start to the end.

    JPEG has no checksums: damage within the coded pixels that leaves the file whole cannot be told from a picture.
    """
    if not content:
        return "is empty"
    if not content.startswith(_SOI):
        return "is not a JPEG file"
    at, sized = len(_SOI), False
    while True:
        if at + 4 > len(content):
            return "is truncated"
        if content[at] != 0xFF:
            return "is damaged (no JPEG segment where one should be)"
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if length < 2:
            return "is damaged (an impossible JPEG segment)"
        at += 2 + length
        sized |= kind in _SOF
        if kind == _SOS:
            break
    if not sized:
        return "is damaged (no size before its pixels)"
    # Within coded pixels FF is followed by 0 or a restart number, so that this is the end and no pixel.
    return None if content.rfind(_EOI) >= at else "is truncated"


def header_fault(path: Path, size: tuple[int, int]) -> str | None:
    """Return what the first and last bytes of an image file say is wrong with it, None if nothing.

    Reads less than a kilobyte, so that thousands of files can be looked at before any is decoded: sees files that are
    absent, empty, cut off or of another size than (height, width), not damage in the middle.
    """
    try:
        with path.open("rb") as file:
            found = _png_header(file) if _is_png(path) else _jpeg_header(file)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if isinstance(found, str):
        return found
    return None if found == size else _other_size(*found, size)


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _png_header(file: BinaryIO) -> tuple[int, int] | str:
    head = file.read(24)
    if not head:
        return "is empty"
    if not head.startswith(_PNG):
        return "is not a PNG file"
    if len(head) < 24 or _tail(file, 12)[4:8] != b"IEND":
        return "is truncated"
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")


def _jpeg_header(file: BinaryIO) -> tuple[int, int] | str:
    start = file.read(2)
    if not start:
        return "is empty"
    if start != _SOI:
        return "is not a JPEG file"
    while True:
        segment = file.read(4)
        while segment.startswith(b"\xff\xff"):  # fill bytes
            segment = segment[1:] + file.read(1)
        if len(segment) < 4:
            return "is truncated"
        kind, length = segment[1], int.from_bytes(segment[2:], "big")
        if segment[0] != 0xFF or length < 2 or kind == _SOS:
            return "is damaged (no size before its pixels)"
        if kind in _SOF:
            break
        file.seek(length - 2, os.SEEK_CUR)
    frame = file.read(5)  # bits a sample, height, width
    if len(frame) < 5 or _EOI not in _tail(file, _PADDING):
        return "is truncated"
    return int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")


def _tail(file: BinaryIO, count: int) -> bytes:
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - count))
    return file.read(count)


def _other_size(height: int, width: int, size: tuple[int, int]) -> str:
    return f"is {width}x{height}, where the calibration says {size[1]}x{size[0]}"
