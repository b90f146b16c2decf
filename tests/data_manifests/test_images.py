"""Resizing and fisheye resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kitti_tree import Tree

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets.kitti_360_calibration import read_calibration
from vipocc.data_manifests.image_files import read_image
from vipocc.data_manifests.images import Preparation, resize
from vipocc.geometry.cameras import Mei, Pinhole
from vipocc.geometry.ndc import resize_intrinsics
from vipocc.geometry.poses import virtual_rotation

FIX = "get it again"


def test_area_averages_and_bilinear_does_not() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[::4, ::4] = 160
    assert (resize(image, (2, 2), "area") == 10).all()
    assert (resize(image, (2, 2), "bilinear") == 0).all()
    assert resize(image, (8, 8), "area") is image
    assert resize(image, (16, 16), "area").shape == (16, 16, 3)


def test_bilinear_rounds_at_the_end() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    x = (np.arange(20) + 0.5) * 53 / 20 - 0.5
    y = (np.arange(10) + 0.5) * 37 / 10 - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[None, :, None], (y - y0)[:, None, None]
    top = image[y0][:, x0] * (1 - fx) + image[y0][:, x0 + 1] * fx
    bottom = image[y0 + 1][:, x0] * (1 - fx) + image[y0 + 1][:, x0 + 1] * fx
    expected = np.rint(top * (1 - fy) + bottom * fy)
    assert np.abs(resize(image, (10, 20), "bilinear") - expected).max() <= 1
    assert (resize(image, (10, 20), "bilinear") == expected).mean() > 0.99


def _models(pristine: Tree) -> tuple[Mei, Pinhole]:
    models = read_calibration(pristine.root / "calibration").models
    fisheye, stereo = models["image_02"], models["image_00"]
    assert isinstance(fisheye, Mei)
    assert isinstance(stereo, Pinhole)
    return fisheye, stereo


def test_virtual_camera_sees_what_lies_in_its_direction(pristine: Tree) -> None:
    """A spot painted where the fisheye model projects a direction appears where the virtual pinhole projects it."""
    fisheye, stereo = _models(pristine)
    config = DataConfig(image_size=(32, 96))
    intrinsics = resize_intrinsics(stereo.matrix, (stereo.height, stereo.width), (32, 96), "centre")
    for column, row in ((20, 8), (70, 24), (48, 16)):
        ray = np.linalg.inv(intrinsics) @ [column, row, 1.0]
        u, v = fisheye.project(virtual_rotation(-15.0, 0.0) @ ray)
        rows, columns = np.mgrid[: fisheye.height, : fisheye.width]
        spot = 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 4)
        image = np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)
        seen = Preparation(fisheye, stereo, config)(image)[..., 0].astype(float) ** 4
        rows, columns = np.mgrid[:32, :96]
        assert (columns * seen).sum() / seen.sum() == pytest.approx(column, abs=0.7)
        assert (rows * seen).sum() / seen.sum() == pytest.approx(row, abs=0.7)


def test_official_fisheye_is_a_bilinear_lookup_in_the_published_table(pristine: Tree) -> None:
    from vipocc.geometry.cameras import fisheye_table

    fisheye, stereo = _models(pristine)
    config = DataConfig(image_size=(32, 96), convention="official", resize="bilinear")
    smooth = np.add.outer(np.arange(96.0), 1.5 * np.arange(96.0))
    image = np.repeat(np.clip(smooth, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    intrinsics = resize_intrinsics(stereo.matrix, (stereo.height, stereo.width), (32, 96), "official")
    table = fisheye_table(intrinsics, (32, 96), fisheye, virtual_rotation(-15.0, 0.0), "official")
    x, y = table[..., 0].astype(float), table[..., 1].astype(float)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < 95) & (y0 < 95)
    plane = image[..., 0].astype(float)
    x0, y0 = np.clip(x0, 0, 94), np.clip(y0, 0, 94)
    fx, fy = x - x0, y - y0
    expected = (plane[y0, x0] * (1 - fx) + plane[y0, x0 + 1] * fx) * (1 - fy)
    expected += (plane[y0 + 1, x0] * (1 - fx) + plane[y0 + 1, x0 + 1] * fx) * fy
    seen = Preparation(fisheye, stereo, config)(image)[..., 0]
    assert inside.mean() > 0.5
    assert np.abs(seen - expected)[inside].max() <= 1.0


def test_supersampling_keeps_fine_detail_from_aliasing(pristine: Tree) -> None:
    """A one-pixel chequerboard is grey once it is made smaller; a plain lookup turns it into moire."""
    fisheye, stereo = _models(pristine)
    fine = DataConfig(image_size=(32, 32))
    board = ((np.indices((96, 96)).sum(0) % 2) * 255).astype(np.uint8)
    image = np.repeat(board[..., None], 3, axis=2)
    averaged = Preparation(fisheye, stereo, fine)(image)[8:24, 8:24]
    plain = Preparation(fisheye, stereo, fine.model_copy(update={"resize": "bilinear"}))(image)[8:24, 8:24]
    assert averaged.std() < 0.7 * plain.std()


def test_real_fisheye(sample_data: Path) -> None:
    root = sample_data / "KITTI-360"
    models = read_calibration(root / "calibration").models
    image = read_image(root / "fisheye_sample/image_02.png", (1400, 1400), FIX)
    seen = Preparation(models["image_02"], models["image_00"], DataConfig())(image)
    assert (seen.shape, seen.dtype) == ((192, 640, 3), np.uint8)
    assert (seen.sum(-1) == 0).mean() < 0.01
    assert seen.std() > 30
