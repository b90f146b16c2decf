"""Splits: the packaged ranges against the published lists, the list format, and which samples are usable."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kitti_tree import DRIVE, SECOND, Tree

from vipocc.data_manifests import splits
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter, kitti_360, kitti_raw
from vipocc.data_manifests.manifest import FrameKey, Manifest, role_bit
from vipocc.data_manifests.roles import also_trained, assign_roles, refuse_overlap, supervision_leaks
from vipocc.data_manifests.splits import SplitLists, compact, expand, packaged, read_folder, to_packaged
from vipocc.errors import ConfigError, DataError


def test_packaged_seg_equals_the_published_lists(sample_data: Path) -> None:
    ours = packaged("kitti-360", kitti_360.ADAPTER.splits, "seg")
    published = read_folder(sample_data / "splits/kitti_360_seg")
    assert {split: ours.count(split) for split in ours.frames} == {"train": 98_008, "val": 11_451, "test": 446}
    for split, frames in published.frames.items():
        assert frames.keys() == ours.frames[split].keys()
        for group, ids in frames.items():
            np.testing.assert_array_equal(ours.frames[split][group], ids)
    assert ours.digest() == published.digest()
    refuse_overlap(ours, kitti_360.ADAPTER.same_drive)


def test_packaged_seg_has_the_known_ranges() -> None:
    """Per-drive facts of published_system.md 1.6."""
    seg = packaged("kitti-360", kitti_360.ADAPTER.splits, "seg").frames
    train = seg["train"]["2013_05_28_drive_0009_sync", "r"]
    assert (len(train), train[0], train[-1]) == (9_047, 80, 11_375)
    val = seg["val"]["2013_05_28_drive_0006_sync", "l"]
    assert (len(val), val[0], val[-1]) == (1_706, 35, 9_538)
    assert not any(side == "r" for _, side in seg["val"].keys() | seg["test"].keys())


def test_packaged_eigen_zhou_equals_the_published_lists(sample_data: Path) -> None:
    ours = packaged("kitti-raw", kitti_raw.ADAPTER.splits, "eigen_zhou")
    published = read_folder(sample_data / "splits/kitti_raw_eigen", kitti_raw.ADAPTER.sequence_of)
    assert {split: ours.count(split) for split in ours.frames} == {"train": 39_810, "val": 4_424, "test": 697}
    for split, frames in published.frames.items():
        assert frames.keys() == ours.frames[split].keys()
        for group, ids in frames.items():
            np.testing.assert_array_equal(ours.frames[split][group], ids)
    assert ours.digest() == published.digest()


def test_packaged_eigen_zhou_has_the_known_counts() -> None:
    """Facts of published_system.md 1.7: sides, drives, distinct frames, and what val and test share with train."""
    lists = packaged("kitti-raw", kitti_raw.ADAPTER.splits, "eigen_zhou")
    sides = {
        split: [sum(len(ids) for (_, side), ids in frames.items() if side == one) for one in "lr"]
        for split, frames in lists.frames.items()
    }
    assert sides == {"train": [19_956, 19_854], "val": [2_161, 2_263], "test": [697, 0]}
    drives = {split: {drive for drive, _ in frames} for split, frames in lists.frames.items()}
    assert {split: len(names) for split, names in drives.items()} == {"train": 32, "val": 31, "test": 28}
    train = {(drive, frame) for (drive, _), ids in lists.frames["train"].items() for frame in ids.tolist()}
    assert len(train) == 21_880
    assert not drives["train"] & drives["test"]
    refuse_overlap(lists)
    assert also_trained(lists) == {"val": 3_950}


def test_a_train_list_with_the_test_list_appended_is_refused(sample_data: Path, tmp_path: Path) -> None:
    """As ViPOcc's released KITTI Raw list is: BTS's, and all test lines after it."""
    published = sample_data / "splits/kitti_raw_eigen"
    train = gzip.decompress((published / "train_files.txt.gz").read_bytes()).decode().rstrip("\n")
    test = (published / "test_files.txt").read_text()
    (tmp_path / "train_files.txt").write_text(f"{train}\n{test}")
    (tmp_path / "test_files.txt").write_text(test)
    lists = read_folder(tmp_path, kitti_raw.ADAPTER.sequence_of)
    assert lists.count("train") == 40_507
    with pytest.raises(DataError, match="697 frames are in both the train and the test list"):
        refuse_overlap(lists)


@pytest.mark.parametrize(
    ("dataset", "folder", "file", "sequence"),
    [
        ("kitti-360", "kitti_360_seg", "kitti_360_seg", "2013_05_28_drive_{}_sync"),
        ("kitti-raw", "kitti_raw_eigen", "kitti_raw_eigen_zhou", "{}_sync"),
    ],
)
def test_packaged_files_are_made_from_the_published_lists(
    sample_data: Path, dataset: str, folder: str, file: str, sequence: str
) -> None:
    lists = read_folder(sample_data / "splits" / folder, adapter(dataset).sequence_of)
    name = next(iter(adapter(dataset).splits))
    made = to_packaged(lists, dataset, name, sequence)
    assert made == (Path(splits.__file__).parent / f"splits/{file}.json").read_text()


def test_lists_of_kitti_raw_drop_the_day(tmp_path: Path) -> None:
    drive = "2011_09_26_drive_0022_sync"
    (tmp_path / "train_files.txt").write_text(f"2011_09_26/{drive} 473 r\n2011_09_26/{drive} 0000000012 r\n{drive} 9 l")
    lists = adapter("kitti-raw").lists(tmp_path, DataConfig(split=str(tmp_path)))
    assert {group: ids.tolist() for group, ids in lists.frames["train"].items()} == {
        (drive, "r"): [12, 473],
        (drive, "l"): [9],
    }
    for wrong in (f"2011_09_28/{drive}", "2011_09_26/0022", "2011_09_26/2011_09_26_drive_0022_extract"):
        (tmp_path / "train_files.txt").write_text(f"{wrong} 473 r")
        with pytest.raises(DataError, match=r"line 1: .* is no drive of KITTI Raw .*train_files.txt; mend"):
            adapter("kitti-raw").lists(tmp_path, DataConfig(split=str(tmp_path)))


@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("lr")), st.sets(st.integers(0, 50))))
def test_packing_keeps_every_frame(frames: dict[tuple[str, str], set[int]]) -> None:
    """Whatever sides drives have: all the same, each its own, or one drive with one side."""
    groups = {(f"x_{drive}_y", side): np.array(sorted(ids), np.int64) for (drive, side), ids in frames.items()}
    lists = SplitLists("mine", {"train": groups, "val": {}, "test": groups})
    values = json.loads(to_packaged(lists, "kitti-raw", "mine", "x_{}_y"))
    for split in ("train", "val", "test"):
        found = splits._unpack(values["sequence"], values[split])
        assert {group: ids.tolist() for group, ids in found.items()} == {
            group: ids.tolist() for group, ids in lists.frames[split].items()
        }


@given(st.sets(st.integers(0, 400)))
def test_ranges_are_exact(numbers: set[int]) -> None:
    ids = np.array(sorted(numbers), np.int64)
    np.testing.assert_array_equal(expand(compact(ids)), ids)


def test_lists_with_and_without_gzip_and_final_newline(tmp_path: Path) -> None:
    (tmp_path / "train_files.txt").write_text("d 0000000002 r\nd 0000000001 l\r\n\nd 3 l")
    (tmp_path / "test_files.txt.gz").write_bytes(gzip.compress(b"d 0000000009 l\n"))
    lists = read_folder(tmp_path)
    assert {group: ids.tolist() for group, ids in lists.frames["train"].items()} == {
        ("d", "l"): [1, 3],
        ("d", "r"): [2],
    }
    assert lists.frames["test"]["d", "l"].tolist() == [9]
    assert lists.frames["val"] == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("d 1 l\nd 1 x", "line 2 is 'd 1 x'"),
        ("d 1", "line 1"),
        ("../d 1 l", "line 1"),
        ("d one l", "line 1"),
        ("d 1 l\nd 0000000001 l", "d 0000000001 l is listed twice"),
    ],
)
def test_wrong_lists_name_the_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "train_files.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_folder(tmp_path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_absent_and_damaged_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split list here"):
        read_folder(tmp_path)
    (tmp_path / "val_files.txt.gz").write_bytes(gzip.compress(b"d 1 l\n" * 99)[:20])
    with pytest.raises(DataError, match="cannot be read"):
        read_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"no split 'sag'.*seg"):
        packaged("kitti-360", kitti_360.ADAPTER.splits, "sag")


def test_packaged_name_wins_over_a_folder_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seg").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/val_files.txt").write_text("d 1 l")
    monkeypatch.chdir(tmp_path)
    lists = adapter("kitti-360").lists
    assert lists(tmp_path, DataConfig()).count("test") == 446
    assert lists(tmp_path, DataConfig(split="mine")).count("val") == 1
    with pytest.raises(DataError, match="no split list here"):
        lists(tmp_path, DataConfig(split=str(tmp_path / "none")))


def _lists(**frames: dict[tuple[str, str], list[int]]) -> SplitLists:
    whole = {split: frames.get(split, {}) for split in ("train", "val", "test")}
    return SplitLists("mine", {s: {k: np.array(v, np.int64) for k, v in groups.items()} for s, groups in whole.items()})


def test_train_that_meets_test_is_refused() -> None:
    refuse_overlap(_lists(train={("d", "l"): [1, 2]}, test={("d", "l"): [3], ("e", "l"): [1]}))
    with pytest.raises(DataError, match=r"2 frames are in both.*frame 2 of d"):
        refuse_overlap(_lists(train={("d", "r"): [1, 2, 5]}, test={("d", "l"): [2, 5, 7]}))
    renamed = _lists(train={("2013_05_28_drive_0002_sync", "l"): [5]}, test={("2013_05_28_drive_0018_sync", "l"): [5]})
    with pytest.raises(DataError, match="1 frames are in both"):
        refuse_overlap(renamed, kitti_360.ADAPTER.same_drive)


def _assign(tree: Tree, lists: SplitLists, **config: object) -> Manifest:
    manifest = Manifest("kitti-360", tree.root, kitti_360.ADAPTER.index(tree.root))
    return assign_roles(manifest, lists, DataConfig.model_validate(config))


def test_roles_of_a_training_sample(pristine: Tree) -> None:
    manifest = _assign(pristine, _lists(train={(DRIVE, "l"): [3]}))
    assert manifest.keys("train") == [FrameKey(DRIVE, "image_00", 2)]
    needed = {group[1]: rows.tolist() for group, rows in manifest.needed("train", "all").items()}
    assert needed == {"image_00": [2, 3], "image_01": [2, 3], "image_02": [12, 13], "image_03": [12, 13]}
    assert manifest.roles(DRIVE, "image_00")[3] == role_bit("train", "neighbour")
    assert manifest.roles(DRIVE, "image_03")[13] == role_bit("train", "fisheye")
    assert not manifest.needed("all").keys() & {(SECOND, "image_00")}
    alone = _assign(pristine, _lists(train={(DRIVE, "l"): [3, 15]}), fisheye=False)
    assert [key.row for key in alone.keys("train")] == [2, 14]


def test_held_out_samples_need_their_own_image_alone(tree: Tree) -> None:
    for camera in ("image_01", "image_02", "image_03"):
        for frame in range(1, 17):
            tree.image(DRIVE, camera, frame).unlink()
    tree.image(DRIVE, "image_00", 4).unlink()
    manifest = _assign(tree, _lists(train={(DRIVE, "l"): [1]}, val={(DRIVE, "l"): [4, 5]}, test={(DRIVE, "l"): [16]}))
    assert [key.row for key in manifest.keys("val")] == [4]
    assert manifest.keys("test") == [FrameKey(DRIVE, "image_00", 15)]
    assert manifest.left_out == {"train": {"an image is missing": 1}, "val": {"an image is missing": 1}, "test": {}}


def test_unusable_samples_are_counted_by_reason(tree: Tree) -> None:
    path = tree.poses(DRIVE)
    lines = path.read_text().splitlines()
    del lines[4:7]
    moved = lines[9].split()
    moved[4] = str(float(moved[4]) + 500)
    lines[9:] = [" ".join(moved), *lines[10:]]
    path.write_text("\n".join(lines))
    tree.image(DRIVE, "image_03", 14).unlink()
    listed = {(DRIVE, "l"): [1, 2, 4, 6, 16], (DRIVE, "r"): [11], ("2013_05_28_drive_0009_sync", "l"): [7, 8]}
    manifest = _assign(tree, _lists(train=listed), fisheye_offset=8)
    assert manifest.left_out["train"] == {
        "the drive is not there": 2,
        "the frame has no pose": 1,
        "the drive ends within the sample": 2,
        "t+1 is more than 2 frame ids away": 1,
        "a fisheye image is missing": 1,
    }
    assert [key.row for key in manifest.keys("train")] == [0]
    stereo = _assign(tree, _lists(train=listed), fisheye=False)
    assert stereo.left_out["train"]["the drive ends within the sample"] == 1
    assert _assign(tree, _lists(train={(DRIVE, "l"): [12, 13]}), fisheye=False).left_out["train"] == {
        "t+1 is more than 3 m away": 2
    }


def test_leaks_of_supervision_are_counted(pristine: Tree) -> None:
    lists = _lists(train={(DRIVE, "l"): [3, 4]}, val={(DRIVE, "l"): [5]}, test={(DRIVE, "l"): [14]})
    manifest = _assign(pristine, lists)
    assert supervision_leaks(manifest) == {"val: neighbour": 2, "test: fisheye": 2}
