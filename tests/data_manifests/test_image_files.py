"""Reading PNG and JPEG files: whole ones, and every way in which one may be spoilt."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vipocc.data_manifests.image_files import header_fault, image_fault, jpeg_fault, png_fault, read_image
from vipocc.errors import DataError

FIX = "get it again"
SIZE = (48, 160)
KINDS = ("png", "jpg")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    ramp = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, (*SIZE, 3))
    return np.asarray(np.clip(ramp[..., None] + noise, 0, 255), np.uint8)


def encoded(image: np.ndarray, kind: str, *options: int) -> bytes:
    return bytes(cv2.imencode(f".{kind}", image[..., ::-1], options)[1])


@pytest.fixture(scope="module")
def contents(picture: np.ndarray) -> dict[str, bytes]:
    return {kind: encoded(picture, kind) for kind in KINDS}


def test_png_is_decoded_to_rgb_exactly(tmp_path: Path, picture: np.ndarray, contents: dict[str, bytes]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(contents["png"])
    np.testing.assert_array_equal(read_image(path, SIZE, FIX), picture)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "A.JPG"])
def test_jpeg_is_decoded_to_rgb(tmp_path: Path, name: str) -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0], image[32:, :, 2] = 200, 90
    path = tmp_path / name
    path.write_bytes(encoded(image, "jpg", cv2.IMWRITE_JPEG_QUALITY, 100))
    off = np.abs(read_image(path, SIZE, FIX).astype(int) - image).max(axis=(1, 2))
    assert np.delete(off, slice(30, 34)).max() <= 2  # colour is stored at half the size, and bleeds over the edge
    assert header_fault(path, SIZE) is None


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)])
def test_every_kind_of_jpeg_is_whole(tmp_path: Path, picture: np.ndarray, options: tuple[int, ...]) -> None:
    content = encoded(picture, "jpg", *options)
    path = tmp_path / "a.jpg"
    for written in (content, content + bytes(100), content[:2] + b"\xff" + content[2:]):
        path.write_bytes(written)
        assert jpeg_fault(written) is None
        assert header_fault(path, SIZE) is None
        assert read_image(path, SIZE, FIX).shape == (*SIZE, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0, 1, 4, 8, 20, 30, 300, 1000, 3000, -13, -12, -4, -1])
def test_truncation_is_found_at_every_length(tmp_path: Path, contents: dict[str, bytes], kind: str, keep: int) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(contents[kind][:keep])
    with pytest.raises(DataError, match=r"an image is (empty|truncated|not a \w+ file|damaged).*a\.\w+; get it again"):
        read_image(path, SIZE, FIX)
    assert header_fault(path, SIZE) is not None


def test_a_jpeg_cut_anywhere_is_refused(contents: dict[str, bytes]) -> None:
    whole = contents["jpg"]
    assert jpeg_fault(whole) is None
    assert all(jpeg_fault(whole[:length]) is not None for length in range(len(whole)))


def test_a_thumbnail_within_a_jpeg_is_not_its_end(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """An application segment may hold a whole JPEG file of another size, end marker included."""
    small = encoded(np.zeros((8, 8, 3), np.uint8), "jpg")
    segment = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    content = contents["jpg"][:2] + segment + contents["jpg"][2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert header_fault(path, SIZE) is None
    assert read_image(path, SIZE, FIX).shape == (*SIZE, 3)
    assert jpeg_fault(content[:-2]) == "is truncated"


def test_an_orientation_tag_does_not_turn_the_image(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """Orientation 6 asks for a quarter turn, in which the calibration's principal point would be another one."""
    tag = bytes.fromhex("4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
    exif = b"Exif\0\0" + tag
    content = contents["jpg"][:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + contents["jpg"][2:]
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (160, 48, 3)
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert read_image(path, SIZE, FIX).shape == (*SIZE, 3)


def test_a_flipped_bit_of_a_png_is_found(tmp_path: Path, contents: dict[str, bytes]) -> None:
    png = contents["png"]
    assert png_fault(png) is None
    altered = bytearray(png)
    altered[len(png) // 2] ^= 1
    path = tmp_path / "a.png"
    path.write_bytes(altered)
    with pytest.raises(DataError, match="checksum"):
        read_image(path, SIZE, FIX)


def test_damaged_segments_of_a_jpeg(tmp_path: Path, contents: dict[str, bytes]) -> None:
    whole = contents["jpg"]
    path = tmp_path / "a.jpg"
    frame = whole.index(b"\xff\xc0")
    damaged = {
        "no JPEG segment": whole[:2] + b"\0" + whole[2:],
        "no size": whole[:frame] + whole[whole.index(b"\xff\xda") :],
        "impossible": whole[:4] + b"\0\0" + whole[6:],
    }
    for says, content in damaged.items():
        assert says in str(image_fault(content, path))
        path.write_bytes(content)
        assert "is damaged" in str(header_fault(path, SIZE))


@pytest.mark.parametrize("kind", KINDS)
def test_other_faults(tmp_path: Path, contents: dict[str, bytes], kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    with pytest.raises(DataError, match="an image is missing"):
        read_image(path, SIZE, FIX)
    assert header_fault(path, SIZE) == "is missing"
    other = contents["jpg" if kind == "png" else "png"]
    for wrong in (other, b"<html>404</html>", b"\0" * 4000):
        path.write_bytes(wrong)
        assert (
            header_fault(path, SIZE)
            == image_fault(wrong, path)
            == f"is not a {kind.replace('jpg', 'jpeg').upper()} file"
        )
    path.write_bytes(contents[kind])
    assert header_fault(path, SIZE) is None
    assert header_fault(path, (48, 161)) == "is 160x48, where the calibration says 161x48"
    with pytest.raises(DataError, match="160x48, where the calibration says 161x48"):
        read_image(path, (48, 161), FIX)
    path.unlink()
    path.mkdir()
    assert "cannot be read" in str(header_fault(path, SIZE))
    with pytest.raises(DataError, match="cannot be read"):
        read_image(path, SIZE, FIX)
