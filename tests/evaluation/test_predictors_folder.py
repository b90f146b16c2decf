"""Predictions from folders: the layout, what can be wrong with them, and that each fault is told of its frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import zarr
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import CameraTable, FrameKey, Manifest, SequenceTable
from vipocc.errors import DataError, MissingInputError, UsageError, VipoccError
from vipocc.evaluation.inputs import frame_of
from vipocc.evaluation.predictors.depth_shell import DepthShell
from vipocc.evaluation.predictors.entrants import Entrants, Savers, folder_depth, folder_occupancy, slug
from vipocc.evaluation.predictors.folder import FolderDepth, FolderOccupancy, PredictionFolder
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.predictors.layout import META, FolderWriter, Meta, listed, points_digest
from vipocc.geometry.cameras import Pinhole

FRAMES, GRID = 6, (3, 4)
POINTS = np.random.default_rng(0).uniform(1, 9, (12, 3)).astype(np.float32)
DENSITY = Meta(name="theirs", dataset="synthetic", unit="density", points_digest=points_digest(POINTS))
METRES = Meta(name="theirs", dataset="synthetic", unit="metres")
KEYS = [FrameKey("drive", "image_00", row) for row in range(FRAMES)]


def manifest() -> Manifest:
    camera = CameraTable(
        Pinhole(40.0, 42.0, 47.5, 31.5, 96, 64),
        pa.array([f"{n}.png" for n in range(FRAMES)]),
        np.full(FRAMES, 100),
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        np.full(FRAMES, 1 << 6, dtype=np.uint16),
    )
    table = SequenceTable(
        np.arange(FRAMES) * 2 + 10,
        np.full(FRAMES, np.nan),
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        pa.array([None] * FRAMES, pa.string()),
        {"image_00": camera},
    )
    return Manifest("synthetic", Path("world"), {"drive": table})


MANIFEST = manifest()
SHOWN = [frame_of(MANIFEST, key) for key in KEYS]


def batch(keys: list[FrameKey] = KEYS) -> Batch:
    frames = [frame_of(MANIFEST, key) for key in keys]
    return Batch(keys, frames, torch.zeros(len(keys), 3, 4, 4), torch.eye(3).expand(len(keys), 3, 3))


def occupancy(folder: Path) -> FolderOccupancy:
    return FolderOccupancy(PredictionFolder(folder), MANIFEST, SHOWN, POINTS, GRID, "slice-300")


def depth(folder: Path) -> FolderDepth:
    return FolderDepth(PredictionFolder(folder), MANIFEST, SHOWN)


def written(folder: Path, meta: Meta, arrays: dict[int, NDArray[Any]]) -> Path:
    """A folder with a .npy file for each row of `arrays`."""
    writer = FolderWriter(folder, meta)
    for row, values in arrays.items():
        writer.add(SHOWN[row], values)
    return folder


def values(row: int, dtype: str = "f4") -> NDArray[Any]:
    return np.random.default_rng(row).uniform(0, 1, 12).astype(dtype)


def as_npz(folder: Path) -> None:
    for path in folder.rglob("*.npy"):
        np.savez(path.with_suffix(".npz"), occupancy=np.load(path), other=np.zeros(3))
        path.unlink()


def as_zarr(folder: Path) -> None:
    group = zarr.open_group(str(folder / "predictions.zarr"), mode="w")
    paths = sorted(folder.rglob("*.npy"), reverse=True)  # rows may stand in any order
    one = group.create_group("drive/image_00")
    one.create_array("frame_id", data=np.array([int(path.stem) for path in paths]))
    one.create_array("occupancy", data=np.stack([np.load(path) for path in paths]))
    for path in paths:
        path.unlink()


@pytest.mark.parametrize("convert", [lambda folder: None, as_npz, as_zarr])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_what_is_written_is_what_is_read(tmp_path: Path, convert: Callable[[Path], None], dtype: str) -> None:
    held = {row: values(row, dtype) for row in range(FRAMES)}
    folder = written(tmp_path / "theirs", DENSITY, held)
    convert(folder)
    rows = occupancy(folder)
    assert (rows.name, rows.kind, rows.unit, rows.note) == ("theirs", "measured", "density", "")
    assert [rows.missing(key) for key in KEYS] == [None] * FRAMES
    found = rows.occupancy(batch(KEYS[::-1]), torch.from_numpy(POINTS))
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), np.stack([held[row].astype(np.float32) for row in range(FRAMES)])[::-1])


def test_the_protocol_s_own_grid_is_taken_and_any_other_is_not(tmp_path: Path) -> None:
    held = {0: values(0).reshape(GRID), 1: values(1).reshape(GRID[::-1]), 2: values(2)[:7], 3: values(3)}
    rows = occupancy(written(tmp_path / "theirs", DENSITY, held))
    assert rows.missing(KEYS[0]) is None
    assert rows.missing(KEYS[1]) == "predicted density has shape (4, 3), not (12,) or (3, 4)"
    assert rows.missing(KEYS[2]) == "predicted density has shape (7,), not (12,) or (3, 4)"
    assert rows.missing(KEYS[4]) == "no prediction"
    found = rows.occupancy(batch(KEYS[:2]), torch.from_numpy(POINTS))
    assert np.array_equal(found[0].numpy(), values(0))
    assert found[1].isnan().all()


@pytest.mark.parametrize(
    ("unit", "change", "reason"),
    [
        ("density", lambda v: np.where(v == v[3], np.nan, v), "density is NaN or infinite"),
        ("density", lambda v: np.where(v == v[3], np.inf, v), "density is NaN or infinite"),
        ("density", lambda v: v - 2, "density is negative"),
        ("density", lambda v: v * 50, None),
        ("opacity", lambda v: v + 1, "opacity is outside 0 to 1"),
        ("probability", lambda v: v - 1, "probability is outside 0 to 1"),
        ("probability", lambda v: v, None),
        ("occupancy", lambda v: v, "occupancy is not 0 or 1"),
        ("occupancy", lambda v: v > 0.5, None),
        ("occupancy", lambda v: (v > 0.5).astype(np.uint8), None),
        ("density", lambda v: v.astype(np.complex64), "density is complex64, not numbers"),
        ("density", lambda v: v.astype("U5"), "not numbers"),
    ],
)
def test_values_that_cannot_be_are_told(
    tmp_path: Path, unit: str, change: Callable[[NDArray[Any]], NDArray[Any]], reason: str | None
) -> None:
    meta = DENSITY.model_copy(update={"unit": unit})
    rows = occupancy(written(tmp_path / "theirs", meta, {0: change(values(0))}))
    told = rows.missing(KEYS[0])
    assert told is None if reason is None else told is not None and reason in told


MAP = np.linspace(2, 30, 35, dtype=np.float32).reshape(5, 7)


@pytest.mark.parametrize(
    ("array", "holes", "reason"),
    [
        (MAP, False, None),
        (MAP.astype("f8"), False, None),
        (np.where(MAP > 29, np.nan, MAP), False, "does not say that it may have holes"),
        (np.where(MAP > 29, np.nan, MAP), True, None),
        (MAP * np.nan, True, "NaN everywhere"),
        (np.where(MAP > 29, np.inf, MAP), True, "infinite"),
        (MAP - 5, False, "negative"),
        (np.where(MAP > 29, 0, MAP), False, "0 in places"),
        (MAP[None], False, "shape (1, 5, 7), not (height, width)"),
        (MAP[:0], False, "shape (0, 7)"),
        ((MAP * 256).astype(np.uint16), False, "uint16, not floating-point metres"),
    ],
)
def test_depth_that_cannot_be_is_told(tmp_path: Path, array: NDArray[Any], holes: bool, reason: str | None) -> None:
    folder = written(
        tmp_path / "theirs", METRES.model_copy(update={"holes": holes}), {0: array, 1: np.ones((2, 3), "f4")}
    )
    rows = depth(folder)
    told = rows.missing(KEYS[0])
    assert told is None if reason is None else told is not None and reason in told
    first, second = rows.depth(batch(KEYS[:2]))
    assert second.tolist() == [[1.0] * 3] * 2
    if reason is None:
        assert np.array_equal(first.numpy(), array.astype(np.float32), equal_nan=True)
    else:
        assert first.isnan().all()


def test_damaged_files_leave_out_their_frame_alone(tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", DENSITY, {row: values(row) for row in range(FRAMES)})
    files = sorted((folder / "drive" / "image_00").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    np.savez(files[2].with_suffix(".npz"), depth=values(2))
    files[2].unlink()
    files[3].with_suffix(".npz").write_bytes(b"PK\x03\x04 not a zip")
    files[3].unlink()
    np.savez(files[4].with_suffix(".npz"), occupancy=values(4))
    rows = occupancy(folder)
    assert [rows.missing(key) for key in KEYS] == [
        "the .npy file is damaged",
        "the .npy file is damaged",
        "the .npz has no array named occupancy",
        "the .npz file is damaged",
        "more than one prediction",
        None,
    ]
    found = rows.occupancy(batch(), torch.from_numpy(POINTS))
    assert found.isnan().all(dim=1).tolist() == [True] * 5 + [False]


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", DENSITY, {})
    path = folder / "drive" / "image_00" / "0000000010.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert occupancy(folder).missing(KEYS[0]) == "the .npy file is damaged"


def test_files_of_no_frame_are_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", DENSITY, {row: values(row) for row in range(FRAMES)})
    here = folder / "drive" / "image_00"
    for name in ("10.npy", "0000000011.npy", "notes.txt", ".hidden"):
        (here / name).write_bytes(b"")
    note = occupancy(folder).note
    assert note.endswith("(3 in all)")
    assert "drive/image_00/0000000011.npy, drive/image_00/10.npy, drive/image_00/notes.txt" in note
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 more"


def test_zarr_rows_of_no_frame_are_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", DENSITY, {row: values(row) for row in range(FRAMES)})
    as_zarr(folder)
    rows = FolderOccupancy(PredictionFolder(folder), MANIFEST, SHOWN[1:], POINTS, GRID, "slice-300")
    assert "of no frame evaluated here: predictions.zarr/drive/image_00/10 (1 in all)" in rows.note


def altered(tmp_path: Path, **changes: Any) -> Path:
    folder = written(tmp_path / "theirs", DENSITY, {0: values(0)})
    told = {**json.loads((folder / META).read_text()), **changes}
    (folder / META).write_text(json.dumps({name: value for name, value in told.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"unit": "sigma"}, DataError, "unit: Input should be 'density', 'opacity'"),
        ({"unit": None}, DataError, "unit: Field required"),
        ({"name": ""}, DataError, "name: "),
        ({"nmae": "x"}, DataError, "nmae: Extra inputs are not permitted"),
        ({"format_version": 2}, DataError, "format_version"),
        ({"points_digest": None}, DataError, "points_digest is needed"),
        (
            {"points_digest": "0" * 16, "protocol": "cuboid"},
            UsageError,
            r"those of protocol cuboid, 0+\) than those of",
        ),
        ({"unit": "metres", "points_digest": ""}, UsageError, "use `vipocc eval depth`"),
        ({"holes": True}, DataError, "holes are for depth"),
        ({"dataset": "kitti-360"}, UsageError, "of dataset 'kitti-360', not 'synthetic'"),
    ],
)
def test_what_meta_says_wrong_stops_everything(
    tmp_path: Path, changes: dict[str, Any], kind: type[VipoccError], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        occupancy(altered(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_folders_without_meta_or_with_a_torn_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        PredictionFolder(tmp_path / "nowhere")
    with pytest.raises(MissingInputError, match=r"lack their meta\.json.*vipocc eval points"):
        PredictionFolder(tmp_path)
    (tmp_path / META).write_text('{"name": "x"')
    with pytest.raises(DataError, match="cannot be read"):
        PredictionFolder(tmp_path)
    with pytest.raises(MissingInputError, match=r"any of the 6 frames .* belongs at drive/image_00/0000000010\.npy"):
        depth(written(tmp_path / "empty", METRES, {}))
    with pytest.raises(UsageError, match="use `vipocc eval occupancy`"):
        depth(written(tmp_path / "theirs", DENSITY, {}))


def test_damaged_zarr_groups_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "theirs", DENSITY, {row: values(row) for row in range(FRAMES)})
    as_zarr(folder)
    one: Any = zarr.open_group(str(folder / "predictions.zarr"))["drive/image_00"]
    one.create_array("frame_id", data=np.array([10, 12, 12, 14, 16, 18]), overwrite=True)
    with pytest.raises(DataError, match="stands twice"):
        PredictionFolder(folder)
    one.create_array("frame_id", data=np.array([10, 12]), overwrite=True)
    with pytest.raises(DataError, match="does not count the rows"):
        PredictionFolder(folder)
    del one["frame_id"]
    with pytest.raises(DataError, match="write the arrays frame_id"):
        PredictionFolder(folder)


def test_points_are_told_apart(tmp_path: Path) -> None:
    digest = points_digest(POINTS)
    assert points_digest(POINTS.astype("f8")) == digest
    assert points_digest(np.asfortranarray(POINTS)) == digest
    assert points_digest(POINTS[::-1]) != digest
    assert points_digest(POINTS + np.float32(1e-5)) != digest
    assert points_digest(np.zeros((2, 3))) == points_digest(-np.zeros((2, 3)))
    rows = occupancy(written(tmp_path / "theirs", DENSITY, {0: values(0)}))
    with pytest.raises(UsageError, match="no predictions at these points"):
        rows.occupancy(batch(), torch.from_numpy(POINTS[::-1].copy()))


def test_rows_are_named_by_meta_or_by_the_user(tmp_path: Path) -> None:
    folder, other = written(tmp_path / "a=b", DENSITY, {}), written(tmp_path / "depths", METRES, {0: MAP})
    names = [one.name for one in Entrants([str(folder), f"mine={folder}"]).open("synthetic")]
    assert names == ["theirs", "mine"]
    with pytest.raises(UsageError, match="two folders of predictions are named 'theirs'"):
        Entrants([str(folder), str(other)]).open("synthetic")
    with pytest.raises(UsageError, match="of dataset 'synthetic'"):
        Entrants([str(folder)]).open("ddad")


def test_depth_maps_become_both_rows_of_occupancy(tmp_path: Path) -> None:
    folders = Entrants([f"mono={written(tmp_path / 'depths', METRES, {0: MAP, 1: -MAP})}"]).open("synthetic")
    rows = folder_occupancy(folders, MANIFEST, SHOWN, POINTS, GRID, "slice-300", "centre")
    assert [(row.name, row.kind) for row in rows] == [("mono", "measured"), ("mono+4m", "measured")]
    assert all(isinstance(row, DepthShell) for row in rows)
    assert [row.missing(KEYS[1]) for row in rows] == ["predicted depth is negative"] * 2
    assert rows[0].occupancy(batch(KEYS[:1]), torch.from_numpy(POINTS)).isfinite().all()
    assert [row.name for row in folder_depth(folders, MANIFEST, SHOWN)] == ["mono"]


def test_savers_write_what_folders_read(tmp_path: Path) -> None:
    savers = Savers(tmp_path / "saved", [DENSITY.model_copy(update={"name": "our net"})])
    for row, frame in enumerate(SHOWN):
        savers.keep(frame, None, {"our net": values(row).reshape(GRID), "untrained": values(row + 50)}, None)
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["our-net"]
    rows = occupancy(tmp_path / "saved" / slug("our net"))
    assert rows.name == "our net"
    assert np.array_equal(
        rows.occupancy(batch(), torch.from_numpy(POINTS)), np.stack([values(r) for r in range(FRAMES)])
    )
    with pytest.raises(UsageError, match="something already"):
        FolderWriter(tmp_path / "saved" / "our-net", DENSITY)
    with pytest.raises(UsageError, match="new --save-predictions folder"):
        Entrants(save=tmp_path / "saved")
