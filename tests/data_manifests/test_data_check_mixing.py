"""Two datasets, or two copies with the same names, never mix in a workspace; lists that cannot be read are refused."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_trees import DATASETS, KITTI_360, KITTI_RAW
from workspace_tree import command, successful, tree_digests

from vipocc.workspace import Workspace


class Copy:
    """A tree, lists and a workspace on it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.root, overrides = DATASETS[name].write(folder)
        self.workspace = Workspace.create(folder / "workspace", name, self.root)
        self.options = ["-C", str(self.workspace.path)]
        for override in overrides:
            self.options += ["-o", override]

    def refused(self, *words: str) -> str:
        """Run a command that must fail as a user's mistake and change nothing; return its sentence."""
        before = tree_digests(self.folder)
        done = command(*words, *self.options)
        assert done.code == 2, (words, done.out, done.err)
        assert len(done.err.splitlines()) == 1, done.err
        assert tree_digests(self.folder) == before
        return done.err.strip()

    def move_root(self, to: Path) -> None:
        file = self.workspace.path / "vipocc.yaml"
        file.write_text(file.read_text().replace(str(self.workspace.root), str(to)))
        self.workspace = Workspace.open(self.workspace.path)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    made = Copy(tmp_path / "copy", "kitti-360")
    successful("data", "prepare", "--jobs", "1", *made.options)
    return made


def test_another_root_with_the_same_drives_and_frames(copy: Copy) -> None:
    """Same drive names, frames and poses, other images: rows of the two would stand in one store."""
    other = copy.folder / "other"
    shutil.copytree(copy.root, other)
    rng = np.random.default_rng(1)
    for path in other.rglob("*.png"):
        assert cv2.imwrite(str(path), rng.integers(0, 256, cv2.imread(str(path)).shape, dtype=np.uint8))
    copy.move_root(other)
    for words in (
        ["data", "prepare", "--split", "val"],
        ["data", "prepare"],
        ["data", "index"],
        ["train"],
    ):
        said = copy.refused(*words)
        assert f"the store was made from the files of {copy.root}" in said
        assert str(other) in said
        assert "set root: in vipocc.yaml back" in said
    # Looking at it is no harm, and the folder that the stores are of is taken again.
    successful("data", "check", *copy.options)
    copy.move_root(copy.root)
    assert "preparing" not in successful("data", "prepare", *copy.options).err


def test_a_root_that_was_only_moved(copy: Copy) -> None:
    moved = copy.folder / "elsewhere"
    copy.root.rename(moved)
    copy.move_root(moved)
    assert "preparing" not in successful("data", "prepare", *copy.options).err
    # Copied without dates: made again, for a run trusts size and date, but never refused.
    fresh = copy.folder / "copied"
    shutil.copytree(moved, fresh, copy_function=shutil.copyfile)
    for path in fresh.rglob("*.png"):
        os.utime(path, (1e9, 1e9))
    copy.move_root(fresh)
    successful("data", "prepare", "--jobs", "1", *copy.options)
    successful("stores", "verify", "--deep", *copy.options)


def test_another_root_of_other_frames(copy: Copy) -> None:
    """A drive of the same name with other frames has other rows: refused by the store itself."""
    other = copy.folder / "other"
    shutil.copytree(copy.root, other)
    poses = next(other.glob("data_poses/*/poses.txt"))
    poses.write_text("".join(line for line in poses.read_text().splitlines(keepends=True) if not line.startswith("4 ")))
    copy.move_root(other)
    done = command("data", "prepare", *copy.options)
    assert done.code == 2
    assert "of other frames than the 13 asked for" in done.err


def test_stores_of_another_dataset(copy: Copy, tmp_path: Path) -> None:
    raw = Copy(tmp_path / "raw", "kitti-raw")
    successful("data", "prepare", "--jobs", "1", *raw.options)
    shutil.rmtree(copy.workspace.path / "stores")
    shutil.copytree(raw.workspace.path / "stores/kitti-raw", copy.workspace.path / "stores/kitti-360")
    for words in (
        ["data", "prepare"],
        ["stores", "status"],
        ["stores", "verify"],
        ["stores", "verify", "--deep", "frames"],
        ["stores", "repair"],
    ):
        said = copy.refused(*words)
        assert "kitti-raw" in said, words
        assert "kitti-360" in said, words
        assert "frames.zarr" in said, words
    # By its path a store may be looked at from anywhere.
    successful("stores", "verify", str(raw.workspace.store("frames")), *copy.options)


def test_manifest_of_another_dataset(copy: Copy, tmp_path: Path) -> None:
    raw = Copy(tmp_path / "raw", "kitti-raw")
    successful("data", "index", *raw.options)
    shutil.copy(raw.workspace.manifest, copy.workspace.manifest)
    # It is derived data, so it is made again, and the stores still fit it.
    assert "preparing" not in successful("data", "prepare", *copy.options).err


def _train(lists: Path) -> Path:
    return lists / "train_files.txt"


def _gzip(lists: Path, content: bytes) -> str:
    _train(lists).unlink()
    (lists / "train_files.txt.gz").write_bytes(content)
    return "train_files.txt.gz"


def _append(lists: Path, line: str) -> str:
    with _train(lists).open("a") as file:
        file.write(line)
    return "train_files.txt"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda lists: shutil.rmtree(lists) or "lists", "no split list here"),
        (lambda lists: [path.unlink() for path in lists.iterdir()] and "lists", "no split list here"),
        (lambda lists: _gzip(lists, b"drive 1 l\n"), "cannot be read"),
        (lambda lists: _gzip(lists, gzip.compress(b"drive 1 l\n")[:-4]), "cannot be read"),
        (lambda lists: _gzip(lists, b"\x1f\x8b\x08\x00" + bytes(20)), "cannot be read"),
        (lambda lists: _train(lists).write_bytes(b"\xff\xfe\x00") and "train_files.txt", "cannot be read"),
        (lambda lists: _append(lists, "drive three l\n"), "line 3 is 'drive three l'"),
        (lambda lists: _append(lists, "drive 3\n"), "line 3 is 'drive 3'"),
        (lambda lists: _append(lists, "drive 3 m\n"), "line 3 is 'drive 3 m'"),
        (lambda lists: _append(lists, "../drive 3 l\n"), "line 3 is '../drive 3 l'"),
        (lambda lists: _append(lists, _train(lists).read_text().splitlines()[0]), "is listed twice"),
        (lambda lists: _append(lists, (lists / "test_files.txt").read_text()), "both the train and the test list"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["kitti-360", "kitti-raw"])
def test_lists_that_cannot_be_used(tmp_path: Path, name: str, spoil: object, says: str) -> None:
    made = Copy(tmp_path / "copy", name)
    assert callable(spoil)
    named = spoil(made.folder / "lists")
    for words in (["data", "check"], ["data", "index"], ["data", "prepare"]):
        said = made.refused(*words)
        assert says in said, said
        assert str(named) in said or says.startswith("both"), said


def test_the_datasets_here_are_those_that_vipocc_reads() -> None:
    from vipocc.data_manifests.datasets import names

    assert set(DATASETS) == set(names()) - {"synthetic"}, "the synthetic world is KITTI-360 in its layout"
    assert KITTI_360.lists.keys() == KITTI_RAW.lists.keys() == {"train", "val", "test"}
