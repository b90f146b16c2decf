"""Readers of the published ground truth, on files written in its layout; unverified on the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from vipocc.data_manifests.ground_truth.published import PublishedFiles
from vipocc.errors import DataError, MissingInputError

DRIVE, FRAME = "2013_05_28_drive_0000_sync", 386
NAMES = {
    "occupied": f"GT_Occ/{DRIVE}_0000000386_occgt.npy",
    "visible": f"GT_Occ/{DRIVE}_0000000386_visgt.npy",
    "objects": f"Object_Label/{DRIVE}_0000000386_occgt_anno.png",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in NAMES.values():
        (tmp_path / name).parent.mkdir(exist_ok=True)
    np.save(tmp_path / NAMES["occupied"], rng.random((460, 80)) < 0.5)
    np.save(tmp_path / NAMES["visible"], (rng.random((460, 80)) < 0.5).astype(np.float32))
    cv2.imwrite(str(tmp_path / NAMES["objects"]), rng.choice([0, 3, 7, 255], (460, 80)).astype(np.uint8))
    return tmp_path


def test_the_rows_that_are_used(folder: Path) -> None:
    files = PublishedFiles(folder)
    assert files.has(DRIVE, FRAME)
    assert not files.has(DRIVE, FRAME + 1)
    truth = files.read(DRIVE, FRAME)
    assert truth.objects is not None
    assert truth.occupied.dtype == truth.visible.dtype == np.bool_
    np.testing.assert_array_equal(truth.occupied, np.load(folder / NAMES["occupied"])[300:])
    np.testing.assert_array_equal(truth.visible, np.load(folder / NAMES["visible"])[300:] == 1)
    whole = cv2.imread(str(folder / NAMES["objects"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(truth.objects, whole[300:])
    (folder / NAMES["objects"]).unlink()
    assert PublishedFiles(folder).read(DRIVE, FRAME).objects is None


def saved(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, values)


def png(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(cv2.imencode(".png", values)[1].tobytes()) and None


@pytest.mark.parametrize(
    ("which", "spoil", "said"),
    [
        ("occupied", Path.unlink, "map of the published ground truth is missing"),
        ("visible", Path.unlink, "map of the published ground truth is missing"),
        ("occupied", saved(np.zeros((160, 80))), "must be 460 x 80, not 160 x 80"),
        ("visible", saved(np.zeros((460, 80, 1))), "not 460 x 80 x 1"),
        ("visible", saved(np.array(3)), "not a single value"),
        ("occupied", saved(np.full((460, 80), np.nan)), "other values than 0 and 1"),
        ("occupied", saved(np.full((460, 80), 255, np.uint8)), "other values than 0 and 1"),
        ("occupied", saved(np.full((460, 80), "a")), "must hold numbers"),
        ("occupied", lambda path: path.write_bytes(b""), "cannot be read"),
        ("visible", lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
        ("objects", lambda path: path.write_bytes(b""), "no whole PNG"),
        ("objects", lambda path: path.write_bytes(b"text"), "no whole PNG"),
        ("objects", png(np.zeros((160, 80), np.uint8)), "8 bit, 460 x 80, not uint8 160 x 80"),
        ("objects", png(np.zeros((460, 80, 3), np.uint8)), "460 x 80 x 3"),
        ("objects", png(np.zeros((460, 80), np.uint16)), "not uint16"),
    ],
)
def test_damage_is_one_sentence(folder: Path, which: str, spoil: Callable[[Path], None], said: str) -> None:
    path = folder / NAMES[which]
    spoil(path)
    with pytest.raises(DataError, match=said) as caught:
        PublishedFiles(folder).read(DRIVE, FRAME)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="has no GT_Occ"):
        PublishedFiles(tmp_path)
