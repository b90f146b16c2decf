from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vipocc import pictures
from vipocc.errors import UsageError


def test_depth_colours_are_the_same_for_the_same_depth() -> None:
    depth = np.array([[3.0, 10.0, 80.0, 200.0], [np.nan, 0.0, np.inf, 10.0]])
    picture = pictures.depth_picture(depth)
    assert picture.shape == (2, 4, 3)
    assert picture.dtype == np.uint8
    assert (picture[1, :3] == 0).all()
    assert (picture[0, 1] == picture[1, 3]).all()
    brightness = picture[0].astype(int).sum(axis=1)
    assert brightness[0] > brightness[1] > brightness[2] == brightness[3]


def test_patches_are_drawn_where_rays_are_rendered() -> None:
    image = np.zeros((32, 40, 3), dtype=np.uint8)
    picture = pictures.anchors_picture(image, np.array([[10, 12]]), patch=8)
    rows, columns = np.nonzero(picture.any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 15, 6, 13)
    assert not image.any()
    large = pictures.anchors_picture(image, np.array([[10, 12]]), 8, np.array([[2.0, 3, 30, 28]]), scale=2)
    assert large.shape == (64, 80, 3)


def test_sheets_hold_their_images_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiles = [rng.integers(0, 256, (30, 50, 3), dtype=np.uint8) for _ in range(3)]
    sheet = pictures.contact_sheet([[("one", tiles[0]), ("two", tiles[1])], [("three", tiles[2])]])
    for tile in tiles:
        match = cv2.matchTemplate(sheet, tile, cv2.TM_SQDIFF).min()
        assert match < 0.001 * float((tile.astype(float) ** 2).sum())
    assert pictures.contact_sheet([[("one", tiles[0])]], width=100).shape[1] == 116
    pictures.write_png(tmp_path / "new" / "sheet.png", sheet)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "new" / "sheet.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(read, sheet)
    with pytest.raises(UsageError, match="at least one image"):
        pictures.contact_sheet([])


def test_overlays_keep_the_size() -> None:
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    density = np.zeros((20, 30))
    density[5:9, 5:9] = 1 / 16
    bright = pictures.density_overlay(image, density)
    assert bright.shape == image.shape
    assert bright[6, 6].astype(int).sum() > bright[15, 20].astype(int).sum()
    sparse = np.full((20, 30), np.nan)
    sparse[10, 10] = 5.0
    dotted = pictures.sparse_depth_picture(sparse, image)
    assert (dotted[10, 10] != image[10, 10] // 3).any()
    assert (dotted[0, 0] == 66).all()
