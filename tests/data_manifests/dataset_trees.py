"""A small whole copy of each dataset with lists that use it, for tests that are the same for all datasets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ddad_tree
import kitti_raw_tree
import kitti_tree


@dataclass(frozen=True)
class Dataset:
    """How a test makes a tree of a dataset, and one file of each kind that its samples use."""

    name: str
    make: Callable[[Path], object]
    lists: Mapping[str, str]
    """Content of `<split>_files.txt`; empty for the packaged split."""
    used: frozenset[str]
    """Of every kind of numbered file, one that a sample uses, relative to the root."""
    spoil_pose: Callable[[Path, str], tuple[str, int]]
    """Put a value into one rotation of a root; return the file relative to the root and the frame."""
    optional: frozenset[str] = frozenset()
    """Files that may be absent."""
    unread: frozenset[str] = frozenset()
    """Files that are published and not read."""
    overrides: tuple[str, ...] = ()
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Overrides with which a file is read that is not read otherwise."""
    absence_named: Mapping[str, str] = field(default_factory=dict)
    """For a file, what an error names instead when it is absent."""

    def write(self, folder: Path) -> tuple[Path, list[str]]:
        """Write tree and lists; return the root and the overrides that name the lists."""
        self.make(folder / "root")
        (folder / "lists").mkdir()
        for split, text in self.lists.items():
            (folder / "lists" / f"{split}_files.txt").write_text(text)
        overrides = ["data.image_size=[32,96]", "data.sweeps=3", "data.val_occupancy=1", *self.overrides]
        return folder / "root", [*overrides, f"data.split={folder / 'lists'}"] if self.lists else overrides

    def files(self, folder: Path) -> list[str]:
        """Return a file of each kind of a written tree, relative to the root: all that have a name of their own."""
        root = folder / "root"
        every = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        kinds = {_kind(name): name for name in every}
        for name in self.used:
            assert name in every, name
            kinds[_kind(name)] = name
        return sorted(set(kinds.values()) - self.unread)


def _kind(name: str) -> str:
    """Return a path with the number taken out of a file's own name."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{re.sub(r'^[0-9]{10,}', 'N', file)}"


_K360, _RAW = kitti_tree.DRIVE, kitti_raw_tree.DRIVE
_RAW_FOLDER = f"{kitti_raw_tree.DAY}/{_RAW}"


def _number(root: Path, file: str, line: int, column: int, value: str) -> str:
    """Put a value in the place of one number of a table; return the file."""
    lines = (root / file).read_text().split("\n")
    words = lines[line].split()
    words[column] = value
    lines[line] = " ".join(words)
    (root / file).write_text("\n".join(lines))
    return file


def _quaternion(root: Path, value: str) -> tuple[str, int]:
    tree = ddad_tree.DdadTree(root)

    def change(content: Any) -> None:
        # Sample 2: each sample has seven data, of the LiDAR and of six cameras.
        content["data"][2 * 7 + 1]["datum"]["image"]["pose"]["rotation"]["qw"] = float(value)

    ddad_tree.edit(tree.scene(), change)
    return tree.scene().relative_to(root).as_posix(), 2


KITTI_360 = Dataset(
    "kitti-360",
    lambda root: kitti_tree.make_tree(root, (_K360,), 14),
    {
        "train": f"{_K360} 0000000001 l\n{_K360} 0000000002 r\n",
        "val": f"{_K360} 0000000005 l\n",
        "test": f"{_K360} 0000000008 l\n",
    },
    frozenset(
        {
            *(f"data_2d_raw/{_K360}/image_0{n}/data_rect/0000000002.png" for n in (0, 1)),
            *(f"data_2d_raw/{_K360}/image_0{n}/data_rgb/0000000012.png" for n in (2, 3)),
            f"data_3d_raw/{_K360}/velodyne_points/data/0000000008.bin",
        }
    ),
    lambda root, value: (_number(root, f"data_poses/{_K360}/poses.txt", 3, 1, value), 4),
)

KITTI_RAW = Dataset(
    "kitti-raw",
    lambda root: kitti_raw_tree.make_raw_tree(root, (_RAW,), 6),
    {
        "train": f"{_RAW_FOLDER} 1 l\n{_RAW_FOLDER} 2 r\n",
        "val": f"{_RAW_FOLDER} 3 l\n",
        "test": f"{_RAW_FOLDER} 4 l\n",
    },
    frozenset(
        {
            *(f"{_RAW_FOLDER}/image_0{n}/data/0000000002.png" for n in (2, 3)),
            f"{_RAW_FOLDER}/velodyne_points/data/0000000004.bin",
            f"{_RAW_FOLDER}/oxts/data/0000000003.txt",
        }
    ),
    lambda root, value: (_number(root, f"orb-slam_poses/{_RAW_FOLDER}.txt", 3, 0, value), 3),
    unread=frozenset({f"{_RAW_FOLDER}/image_03/timestamps.txt"}),
    optional=frozenset(
        {
            f"{_RAW_FOLDER}/image_02/timestamps.txt",
            f"{_RAW_FOLDER}/oxts/data/0000000003.txt",
            f"orb-slam_poses/{_RAW_FOLDER}.txt",
        }
    ),
    readers={
        f"{_RAW_FOLDER}/oxts/data/0000000003.txt": ("data.poses=oxts",),
        f"{kitti_raw_tree.DAY}/calib_imu_to_velo.txt": ("data.poses=oxts",),
    },
)

_SCENE = ddad_tree.SCENE
_BASE = f"ddad_train_val/{_SCENE}"

DDAD = Dataset(
    "ddad",
    lambda root: ddad_tree.make_ddad(root, {_SCENE: 4}),
    {"val": f"{_SCENE} 0000000001 l\n{_SCENE} 0000000002 l\n"},
    frozenset(
        {
            f"{_BASE}/{ddad_tree.image_file('CAMERA_01', 1, _SCENE)}",
            f"{_BASE}/{ddad_tree.scan_file(1, _SCENE)}",
        }
    ),
    _quaternion,
)

DATASETS = {dataset.name: dataset for dataset in (KITTI_360, KITTI_RAW, DDAD)}
