"""The report of a check, as values: everything here is written out by `--json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: What can be run on a dataset. Priors are meant as training needs them; the evaluations are `vipocc eval ...`.
JOBS = ("priors", "train", "validation", "eval-occupancy", "eval-depth", "eval-sampler")

#: `complete`: everything a job needs is there. `partial`: it runs on a part of what is listed. `unusable`: on nothing.
#: `unlisted`: the split lists no frame for it.
State = Literal["complete", "partial", "unusable", "unlisted"]


@dataclass(frozen=True)
class CameraReport:
    """Images of one camera of a drive."""

    images: int
    """Posed frames that have an image."""
    unposed: int
    """Images of frames without pose, which are of no use."""


@dataclass(frozen=True)
class DriveReport:
    """What there is of one drive."""

    drive: str
    posed_frames: int
    first_frame: int
    last_frame: int
    gaps: int
    """Places where the next posed frame is more than `max_gap_ids` frame ids away."""
    standing: int
    """Frames whose pose is exactly that of the frame before."""
    cameras: dict[str, CameraReport]
    scans: int
    """Posed frames that have a LiDAR sweep."""
    facts: list[str]
    """What is known of this drive, such as gaps that every copy has."""


@dataclass(frozen=True)
class Repeat:
    """A drive whose poses are also those of another."""

    drive: str
    of: str
    poses: int


@dataclass(frozen=True)
class Lack:
    """Files that a job needs and the folder does not hold, though they were published."""

    what: str
    missing: int
    needed: int
    downloads: dict[str, list[str]]
    """The dataset's own name of each download that fills the gap, with the drives it is for."""


@dataclass(frozen=True)
class JobReport:
    """What a job would run on."""

    job: str
    split: str
    """The split whose frames it uses: evaluations take val where the dataset lists no test frames."""
    listed: int
    """Samples that the split lists."""
    usable: int
    """Samples of which every file is there, that training would not leave out."""
    lacks: list[Lack]
    unpublished: dict[str, int]
    """Files that it would use and nobody has, by what they are."""

    @property
    def state(self) -> State:
        """How much of what is listed the job can run on."""
        if not self.listed:
            return "unlisted"
        if not self.usable:
            return "unusable"
        return "partial" if self.lacks else "complete"


@dataclass(frozen=True)
class Fault:
    """A file that is there and cannot be used."""

    path: str
    fault: str
    fix: str


@dataclass(frozen=True)
class Cost:
    """What making one store takes, from nothing; the seconds and bytes are estimates."""

    stage: str
    rows: int
    bytes: float
    seconds: float
    on: str
    """What the time is for: this machine's cores, or a GPU that it was measured on."""


@dataclass(frozen=True)
class CheckReport:
    """The result of `check`."""

    dataset: str
    licence: str
    notes: list[str]
    """What is known of every drive, and sentences that belong into every report on the dataset."""
    root: str
    split: str
    drives: list[DriveReport]
    repeats: list[Repeat]
    listed: dict[str, int]
    usable: dict[str, int]
    left_out: dict[str, dict[str, int]]
    leaks: dict[str, int]
    """Images that training samples see of frames that val or test lists, by split and role."""
    also_train: dict[str, int]
    """Samples of val and test whose frame train lists too, through the other camera of the pair."""
    jobs: list[JobReport]
    read: int
    """How many files were read whole."""
    present: int
    """How many images and sweeps of posed frames there are."""
    costs: list[Cost]
    training_bytes: float
    """Of the stores that training reads, all of them together; 0 if training is not asked about."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether anything is usable and nothing that was read is damaged."""
        return not self.faults and any(camera.images for drive in self.drives for camera in drive.cameras.values())

    def job(self, name: str) -> JobReport:
        """Return what the check says of one job; raises `KeyError` for a job that was not asked about."""
        return {job.job: job for job in self.jobs}[name]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        jobs = [{**asdict(job), "state": job.state} for job in self.jobs]
        return {**asdict(self), "jobs": jobs, "sound": self.sound}
