"""Every file of every dataset, spoilt alone, met by the commands that read it.

A damaged file is one sentence with its path and the way out, exit code 2, and nothing half-written. An absent image or
sweep is a gap: samples are left out and counted, and the check names the download.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_trees import DATASETS, Dataset
from workspace_tree import command, tree_digests

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import Adapter, adapter
from vipocc.data_manifests.tables import SequenceTable
from vipocc.errors import DataError
from vipocc.workspace import Workspace

IMAGES, SCANS = (".png", ".jpg"), (".bin", ".npz")
COMMANDS = (("data", "check", "--deep"), ("data", "index"), ("data", "prepare", "--jobs", "1"))
NAMES = list(DATASETS)


class Place:
    """A whole copy of a dataset and a fresh workspace on it."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self.root = folder / "root"
        self.options = ["-C", str(folder / "workspace")]
        overrides = ["data.image_size=[32,96]", "data.sweeps=3", "data.val_occupancy=1", *dataset.overrides]
        for override in (*overrides, f"data.split={folder / 'lists'}"):
            self.options += ["-o", override]
        Workspace.create(folder / "workspace", dataset.name, self.root)

    def files(self, endings: tuple[str, ...] | None) -> list[str]:
        """Files of each kind with these endings, or of all others."""
        every = self.dataset.files(self.folder)
        if endings is None:
            return [name for name in every if not name.endswith(IMAGES + SCANS)]
        return [name for name in every if name.endswith(endings)]

    def more(self, name: str) -> list[str]:
        return [part for override in self.dataset.readers.get(name, ()) for part in ("-o", override)]

    def refuse(self, words: tuple[str, ...], name: str, named: str | None = None) -> str:
        """Run a command that must fail for the file `name` and change nothing; return its sentence."""
        before = tree_digests(self.folder)
        done = command(*words, *self.options, *self.more(name))
        lines = [line for line in done.err.splitlines() if not line.startswith("reading: ")]
        assert done.code == 2, (words, name, done.out[-300:], done.err[-300:])
        assert len(lines) == 1, (words, name, done.err)
        said = lines[0].removeprefix("vipocc: error: ")
        assert said != lines[0]
        assert str(self.root / (named or name)) in said, (words, said)
        assert re.search(r"; (download|unpack|get|correct|delete)", said), (words, said)
        assert tree_digests(self.folder) == before, (words, name)
        return said


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trees that no test may change."""
    made = {}
    for name, dataset in DATASETS.items():
        made[name] = tmp_path_factory.mktemp(name)
        dataset.write(made[name])
    return made


@pytest.fixture(params=NAMES)
def place(request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path) -> Place:
    name = request.param
    shutil.copytree(originals[name], tmp_path / "place")
    return Place(DATASETS[name], tmp_path / "place")


def test_these_commands_work_while_the_files_are_good(place: Place) -> None:
    for words in (*COMMANDS, ("data", "check", "--for", "all")):
        done = command(*words, *place.options)
        assert done.code == 0, (words, done.out, done.err)
    assert place.files(None)
    assert place.files(IMAGES)
    assert place.files(SCANS)


@pytest.mark.parametrize("damage", ["absent", "empty", "half", "page", "binary"])
def test_spoilt_text(place: Place, damage: str) -> None:
    """Calibrations, poses, lists of scenes: without any of them nothing may go on."""
    for name in place.files(None):
        path = place.root / name
        kept, dates = path.read_bytes(), path.parent.stat()
        if damage == "absent":
            if name in place.dataset.optional:
                continue
            path.unlink()
        else:
            half = kept[: kept.index(b" ", len(kept) // 2) + 1]
            contents = {"empty": b"", "half": half, "page": b"<html>not found</html>\n", "binary": b"\xff\xfe\x00\x81"}
            path.write_bytes(contents[damage])
        named = place.dataset.absence_named.get(name) if damage == "absent" else None
        for words in COMMANDS:
            place.refuse(words, name, named)
        path.write_bytes(kept)
        os.utime(path.parent, ns=(dates.st_atime_ns, dates.st_mtime_ns))


@pytest.mark.parametrize("value", ["nan", "inf", "2.5"])
def test_a_pose_that_is_none_is_refused_with_its_frame(place: Place, value: str) -> None:
    """One number of the rotation of one frame: not finite, or no rotation any more."""
    name, frame = place.dataset.spoil_pose(place.root, value)
    for words in COMMANDS:
        assert re.search(rf"(frame|sample) {frame}\b", place.refuse(words, name))


@pytest.mark.parametrize("damage", ["empty", "half", "page", "size"])
def test_spoilt_image(place: Place, damage: str) -> None:
    for name in place.files(IMAGES):
        path = place.root / name
        kept = path.read_bytes()
        small = np.zeros((40, 40, 3), np.uint8)
        other = cv2.imencode(path.suffix, small)[1].tobytes()
        path.write_bytes({"empty": b"", "half": kept[: len(kept) // 2], "page": b"<html>", "size": other}[damage])
        said = place.refuse(COMMANDS[0], name)
        says = {"empty": "is empty", "half": "is truncated", "page": "is not a", "size": "is 40x40, where the calib"}
        assert says[damage] in said
        if name in place.dataset.used:
            place.refuse(COMMANDS[2], name)
        path.write_bytes(kept)


def test_image_damaged_in_the_middle(place: Place) -> None:
    """Not seen before the image is decoded: what was committed till then is sound, and the next run goes on."""
    name = next(name for name in place.files((".png",)) if name in place.dataset.used)
    path = place.root / name
    kept = path.read_bytes()
    spoilt = bytearray(kept)
    spoilt[len(spoilt) // 2] ^= 1
    path.write_bytes(bytes(spoilt))
    assert "a checksum differs" in place.refuse(COMMANDS[0], name)
    done = command(*COMMANDS[2], *place.options)
    assert done.code == 2
    assert "a checksum differs" in done.err
    assert str(path) in done.err
    assert command("stores", "verify", *place.options).code == 0
    path.write_bytes(kept)
    assert command(*COMMANDS[2], *place.options).code == 0
    assert command("stores", "verify", "--deep", *place.options).code == 0


@pytest.mark.parametrize("damage", ["empty", "half", "page"])
def test_spoilt_scan(place: Place, damage: str) -> None:
    for name in place.files(SCANS):
        path = place.root / name
        kept = path.read_bytes()
        half = kept[: len(kept) // 32 * 16 + 5]
        path.write_bytes({"empty": b"", "half": half, "page": b"<html>not found</html>"}[damage])
        place.refuse(COMMANDS[0], name)
        done = command(*COMMANDS[2], *place.options)
        assert done.code == 2, done.out
        assert len(done.err.splitlines()) <= 4, done.err
        assert str(path) in done.err.splitlines()[-1]
        if (place.folder / "workspace/stores").exists():
            # What can only be seen by reading the sweep comes after the images, which are whole.
            assert command("stores", "verify", *place.options).code == 0
        path.write_bytes(kept)
        assert command(*COMMANDS[2], *place.options).code == 0
        shutil.rmtree(place.folder / "workspace/stores")


def test_absent_images_and_scans_are_gaps(place: Place) -> None:
    reader = adapter(place.dataset.name)
    for name in sorted(place.dataset.used & set(place.files(IMAGES + SCANS))):
        path = place.root / name
        aside = path.with_suffix(".aside")
        path.rename(aside)
        assert command("data", "check", *place.options).code == 0
        done = command("data", "check", "--for", "all", *place.options)
        assert done.code == 3, (name, done.out, done.err)
        assert re.search(r"lacks? 1 of \d+ (images|fisheye images|LiDAR sweeps)", done.out), done.out
        way_out = reader.way_out(name)
        assert any(part in way_out for part in re.findall(r'"[^"]+"', done.out)), (way_out, done.out)
        done = command(*COMMANDS[2], *place.options)
        assert done.code == 0, (name, done.err)
        gap = "left out: " in done.out or "LiDAR sweep" in done.err or name.endswith(SCANS)
        assert gap, (name, done.out, done.err)
        aside.rename(path)
        shutil.rmtree(place.folder / "workspace/stores")


def indexed(reader: Adapter, root: Path) -> tuple[str, dict[str, SequenceTable]]:
    """Return the sentence of a refusal, or the tables."""
    try:
        return "", reader.index(root)
    except DataError as error:
        return str(error), {}


def test_calibration_without_any_one_line(place: Place) -> None:
    """Each line taken out in turn is refused by the file's name, or is one that nothing is read from."""
    reader = adapter(place.dataset.name).configured(DataConfig())
    whole = reader.index(place.root)
    refused = 0
    for name in place.files(None):
        path = place.root / name
        text = path.read_text()
        if "calib" not in name or name.endswith(".json") or name in place.dataset.readers:
            continue
        lines = text.splitlines(keepends=True)
        for at in range(len(lines)):
            path.write_text("".join(lines[:at] + lines[at + 1 :]))
            said, tables = indexed(reader, place.root)
            if said:
                refused += 1
                assert str(path) in said
                assert "\n" not in said
                continue
            for sequence, table in whole.items():
                for camera, held in table.cameras.items():
                    assert tables[sequence].cameras[camera].model == held.model, (name, lines[at])
                    assert np.array_equal(tables[sequence].cameras[camera].world_from_camera, held.world_from_camera)
                assert np.array_equal(tables[sequence].world_from_lidar, table.world_from_lidar), (name, lines[at])
        path.write_text(text)
    assert refused >= {"kitti-360": 30, "kitti-raw": 7, "ddad": 0}[place.dataset.name]
