"""What a dataset answers about its folder; a dataset is one module with one class of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.ground_truth.boxes import BoxesAt
from vipocc.data_manifests.ground_truth.sweeps import read_velodyne
from vipocc.data_manifests.splits import SplitLists, is_packaged, packaged, read_folder
from vipocc.data_manifests.tables import SequenceTable

#: What a dataset's files are; each kind comes in downloads of its own.
FileKind: TypeAlias = Literal["calibration", "poses", "images", "fisheyes", "scans", "boxes"]

#: In place of a drive's name in a `Quirk`.
EVERY_DRIVE = "*"


@dataclass(frozen=True)
class Rig:
    """How the cameras of a dataset stand to one another."""

    keys: tuple[str, ...]
    """The cameras that samples look through: the left and the right of a stereo pair, or a single one."""
    fisheye: Mapping[str, str] = field(default_factory=dict)
    """For each key camera, the fisheye on its side."""

    @property
    def left(self) -> str:
        """The left camera of the pair, or the single one."""
        return self.keys[0]

    def other(self, camera: str) -> str | None:
        """Return the second camera of the pair, None where there is one camera."""
        return next((name for name in self.keys if name != camera), None)


@dataclass(frozen=True)
class Quirk:
    """Something about a drive that looks like a fault of the copy and is none."""

    drive: str
    """Name of the sequence, or `EVERY_DRIVE`."""
    fact: str
    source: str
    same_as: str | None = None
    """A drive that this one is part of: a frame number means the same moment in both."""
    unpublished: Mapping[FileKind, str] = field(default_factory=dict)
    """Frames, as ranges such as "0-4390 5000", whose files of a kind were never published, so that none is lacking."""


class Adapter(ABC):
    """How one dataset is read. Adapters are stateless, write nothing into the root and follow no path out of it."""

    dataset: ClassVar[str]
    """Its id, as in `vipocc init --dataset`."""
    licence: ClassVar[str]
    """What its files may be used for, in a few words."""
    rig: ClassVar[Rig]
    splits: ClassVar[Mapping[str, str]]
    """Names of the splits that ship with vipocc and their files below `splits/`; the first is the default."""
    quirks: ClassVar[tuple[Quirk, ...]] = ()
    notes: ClassVar[tuple[str, ...]] = ()
    """Sentences that belong into every report on this dataset."""
    products: ClassVar[tuple[str, ...]] = ("frames", "lidar", "occupancy")
    """The kinds of stores that can be prepared from it."""

    @abstractmethod
    def index(self, root: Path) -> dict[str, SequenceTable]:
        """Return the tables of all sequences, without roles; images and scans that are absent included as such.

        Raises:
            DataError: calibration or poses are absent or wrong; the file is named.
        """

    @abstractmethod
    def state(self, root: Path) -> str:
        """Return a digest of what `index` would see, without the cost of indexing."""

    @abstractmethod
    def download(self, kind: FileKind, sequence: str) -> str:
        """Return the dataset's own name of the download that has such files of a sequence."""

    @abstractmethod
    def way_out(self, relative_path: str) -> str:
        """Return what the user does when the file at a path relative to the root is absent or damaged."""

    @abstractmethod
    def calibration_files(self, root: Path, sequence: str, camera: str) -> tuple[str, ...]:
        """Return the files, relative to the root, that say how a camera sees; none if a manifest row says it all."""

    @abstractmethod
    def lidar_files(self, root: Path, sequence: str) -> tuple[str, ...]:
        """Return the files, relative to the root, that say where the LiDAR sits in a sequence."""

    def configured(self, config: DataConfig) -> Adapter:
        """Return the adapter that reads as the options say, itself where none concerns it; raises `ConfigError`."""
        return self

    def lists(self, root: Path, config: DataConfig) -> SplitLists:
        """Return which frames each split lists: of a packaged split by name, or of a folder with published lists.

        Raises:
            ConfigError: there is neither a packaged split nor a folder of that name.
            DataError: a list is malformed.
        """
        name = config.split or next(iter(self.splits))
        folder = Path(name).expanduser()
        if not is_packaged(self.splits, name) and (len(folder.parts) > 1 or folder.is_dir()):
            return read_folder(folder, self.sequence_of)
        return packaged(self.dataset, self.splits, name)

    def sequence_of(self, listed: str) -> str:
        """Return the sequence that a published list calls `listed`."""
        return listed

    def same_drive(self, sequence: str) -> str:
        """Return the drive whose frames a sequence shares, or itself."""
        return next((quirk.same_as for quirk in self.quirks if quirk.drive == sequence and quirk.same_as), sequence)

    def facts(self, root: Path, sequence: str) -> tuple[str, ...]:
        """Return sentences about a sequence that belong into a report on it: its quirks, what was read of it."""
        return tuple(quirk.fact for quirk in self.quirks if quirk.drive == sequence)

    def quirks_of(self, sequence: str) -> list[Quirk]:
        """Return what is known of a sequence."""
        return [quirk for quirk in self.quirks if quirk.drive in (sequence, EVERY_DRIVE)]

    def read_scan(self, path: Path) -> NDArray[np.float32]:
        """Return the points float32 [n, 3] of a sweep in the LiDAR's frame; raises `DataError`."""
        return read_velodyne(path)

    def scan_fault(self, path: Path, size: int) -> str | None:
        """Return what a sweep's size in bytes says is wrong with it, None if nothing."""
        return f"a LiDAR scan is truncated ({size} bytes, 16 a point)" if not size or size % 16 else None

    def mask(self, root: Path, sequence: str, camera: str) -> Path | None:
        """Return the image, of the raw image's size, that is 0 where a camera sees its own car; None if there is none.

        Such pixels have no depth of the scene: an evaluation of that camera leaves them out.
        """
        return None

    def box_files(self, root: Path, sequence: str) -> tuple[str, ...]:
        """Return the files, relative to the root, that a sequence's 3D boxes are read from; none where it has none."""
        return ()

    def boxes(self, root: Path, sequence: str) -> BoxesAt | None:
        """Open a sequence's 3D boxes: a function of the frame id, or None where it has no boxes.

        None is not the same as a frame without objects. For evaluation only.

        Raises:
            DataError: the file is malformed; or, from the function, it says nothing of such a frame.
        """
        return None

    def summary(self) -> dict[str, Any]:
        """Return what reports say of the dataset."""
        return {"dataset": self.dataset, "licence": self.licence, "notes": list(self.notes)}
