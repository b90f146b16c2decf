"""Schema of the `data` section: which frames, at what size, in which pixel convention."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vipocc.config import Schema
from vipocc.data_manifests.synthetic.config import WorldConfig

Size = Annotated[int, Field(ge=32, le=8192)]


class DataConfig(Schema):
    """What is indexed and how images are prepared."""

    image_size: tuple[Size, Size] = (192, 640)
    """Height and width in pixels of prepared images."""

    convention: Literal["centre", "official"] = "centre"
    """Where pixel centres lie: `centre` is geometrically exact, `official` copies the released code."""

    resize: Literal["area", "bilinear"] = "area"
    """Filter for making images smaller: `area` averages, `bilinear` (the released way) aliases."""

    split: str | None = None
    """A packaged split of the dataset, by default its first (`seg`, `eigen_zhou`, `val`), or a folder with
    {train,val,test}_files.txt (or .gz) in the published format.

    The synthetic world brings its own lists and ignores this."""

    poses: Literal["auto", "orb-slam", "oxts"] = "auto"
    """Where KITTI Raw's poses come from: ORB-SLAM files (`<day>/<drive>.txt`), the car's GPS and inertial unit, or the
    first where a drive has such a file and the second elsewhere. Other datasets bring poses of one kind."""

    poses_folder: str | None = None
    """Folder of the ORB-SLAM files, by default `orb-slam_poses` in the dataset's root."""

    fisheye: bool = True
    """Whether training samples include the two fisheye cameras; a sample that lacks one of their images is left out."""

    fisheye_pitch: float = Field(default=-15.0, ge=-89.0, le=89.0)
    """Pitch in degrees of the virtual pinhole camera that fisheyes are resampled to; negative looks down."""

    fisheye_offset: int = Field(default=10, ge=0)
    """How many posed frames after the key the fisheye views are taken."""

    max_gap_ids: int = Field(default=2, ge=1)
    """A training sample whose next posed frame is more frame ids away than this is left out."""

    max_gap_metres: float = Field(default=3.0, gt=0)
    """A training sample whose next posed frame is farther away than this is left out."""

    sweeps: int = Field(default=300, ge=3)
    """LiDAR sweeps that the occupancy ground truth of a frame accumulates, fewer at a drive's end."""

    occupancy_rule: Literal["official", "paper"] = "official"
    """Which cells the ground truth calls occupied: those that at most two sweeps see (`official`, the released
    evaluation), or those that no sweep sees (`paper`, its supplement). They are two protocols."""

    val_occupancy: int = Field(default=64, ge=0)
    """How many val frames, evenly spaced over the split, get occupancy ground truth for validation while training."""

    world: WorldConfig = WorldConfig.model_validate({})
    """The synthetic world, for dataset `synthetic`."""
