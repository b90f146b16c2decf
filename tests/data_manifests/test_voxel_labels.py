from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vipocc.data_manifests.ground_truth.voxel_rays import visible_cells, visible_cells_reference
from vipocc.data_manifests.ground_truth.voxels import SHAPE, VoxelFiles, known_cells, write_voxels
from vipocc.errors import DataError, MissingInputError

DRIVE = "2013_05_28_drive_0006_sync"


def blank() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint8)


def test_labels_come_back_as_classes(tmp_path: Path) -> None:
    raw, invalid = blank()
    raw[0, 0, :6] = 10, 252, 40, 60, 71, 254
    raw[255, 255, 31] = 99
    invalid[0, 0, 5:8] = 1
    write_voxels(tmp_path, DRIVE, 15, raw, invalid)
    files = VoxelFiles(tmp_path)
    assert files.has(DRIVE, 15)
    assert not files.has(DRIVE, 16)
    classes = files.read(DRIVE, 15)
    assert classes.shape == SHAPE
    # An invalid cell with a label keeps it; without one nothing is known of it.
    assert classes[0, 0, :9].tolist() == [1, 1, 7, 7, 255, 6, 255, 255, 0]
    assert classes[255, 255, 31] == 18
    place = tmp_path / "data_2d_raw" / DRIVE / "voxels"
    assert (place / "000015.label").stat().st_size == 2 * (place / "000015.invalid").stat().st_size == 4_194_304


def test_preprocessed_labels_say_the_same(tmp_path: Path) -> None:
    raw, invalid = blank()
    raw[3, 4, 5], invalid[9] = 50, 1
    write_voxels(tmp_path / "raw", DRIVE, 0, raw, invalid)
    classes = VoxelFiles(tmp_path / "raw").read(DRIVE, 0)
    place = tmp_path / "made" / "preprocess/labels" / DRIVE
    place.mkdir(parents=True)
    np.save(place / "000000_1_1.npy", classes.astype(np.float32))
    np.testing.assert_array_equal(VoxelFiles(tmp_path / "made").read(DRIVE, 0), classes)


def test_damaged_labels_are_refused(tmp_path: Path) -> None:
    raw, invalid = blank()
    write_voxels(tmp_path, DRIVE, 5, raw, invalid)
    files, place = VoxelFiles(tmp_path), tmp_path / "data_2d_raw" / DRIVE / "voxels"
    (place / "000005.label").write_bytes(b"12")
    with pytest.raises(DataError, match="2 bytes, not 4,194,304"):
        files.read(DRIVE, 5)
    raw[7, 7, 7] = 12
    write_voxels(tmp_path, DRIVE, 5, raw, invalid)
    with pytest.raises(DataError, match="12 is no class"):
        files.read(DRIVE, 5)
    (place / "000005.invalid").unlink()
    with pytest.raises(DataError, match="is missing"):
        files.read(DRIVE, 5)
    with pytest.raises(DataError, match="no voxel labels at row 10"):
        files.read(DRIVE, 10)
    other = tmp_path / DRIVE
    other.mkdir()
    np.save(other / "000020_1_1.npy", np.zeros((4, 4, 4)))
    with pytest.raises(DataError, match="must be numbers"):
        files.read(DRIVE, 20)
    with pytest.raises(MissingInputError, match="no such folder"):
        VoxelFiles(tmp_path / "nowhere")
    with pytest.raises(DataError, match="voxels must be"):
        write_voxels(tmp_path, DRIVE, 0, raw[:5], invalid)


def test_nothing_is_known_under_the_ground() -> None:
    rng = np.random.default_rng(0)
    classes = rng.choice(np.uint8([0, 0, 0, 7, 255]), (4, 5, 32))
    known = known_cells(classes)
    for x, y, z in np.ndindex(classes.shape):
        below = [c for c in classes[x, y, :z] if c not in (0, 255)]
        under = classes[x, y, z] == 0 and z < 7 and not below
        assert known[x, y, z] == (classes[x, y, z] != 255 and not under)


@pytest.mark.parametrize("seed", range(6))
def test_lines_of_sight_equal_their_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    occupied = rng.random((9, 7, 5)) < 0.08
    eye = rng.uniform(-2, 8, 3) if seed else np.array([0.5, 3.5, 2.5])
    cells = np.argwhere(np.ones(occupied.shape, bool))
    seen = visible_cells(occupied, eye, cells)
    np.testing.assert_array_equal(seen, visible_cells_reference(occupied, eye, cells))
    assert 0.2 < seen.mean() < 1


def test_a_wall_hides_what_is_behind_it_and_not_itself() -> None:
    occupied = np.zeros((20, 5, 5), np.bool_)
    occupied[8] = True
    cells = np.argwhere(np.ones(occupied.shape, bool))
    seen = visible_cells(occupied, [0.5, 2.5, 2.5], cells).reshape(occupied.shape)
    assert seen[:9].all()
    assert not seen[9:].any()
    assert visible_cells(occupied, [0.5, 2.5, 2.5], cells[:0]).shape == (0,)
