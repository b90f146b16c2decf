"""What a synthetic world is made of: its size, its sensors and their faults."""

from __future__ import annotations

import hashlib
import json

from pydantic import Field

from vipocc.config import Schema

#: Raised whenever the same configuration would give other bytes than before.
WORLD_VERSION = 2


class WorldConfig(Schema):
    """The synthetic world; the same values give the same bytes, whatever the number of processes."""

    seed: int = Field(0, ge=0)
    """Seed of everything that is drawn: layout, palette, light, traffic, noise."""
    train_drives: int = Field(8, ge=0)
    """Number of training drives; every drive is a street of its own."""
    val_drives: int = Field(1, ge=0)
    """Number of validation drives."""
    test_drives: int = Field(1, ge=0)
    """Number of test drives."""
    train_frames: int = Field(290, ge=2)
    """Frames of each training drive. Of drives longer than 22 frames the last 11 are no keys, so that every
    sample has its neighbours t+1, t+10 and t+11; of shorter ones only the last."""
    val_frames: int = Field(340, ge=2)
    """Frames of each validation drive; with 340, the first 41 have 300 sweeps from their own on."""
    test_frames: int = Field(340, ge=2)
    """Frames of each test drive, as for validation."""
    scale: float = Field(0.5, gt=0.04, le=1.0)
    """Image size relative to the native rig (stereo 1408x376, fisheyes 1408x1408)."""
    full_fisheye: bool = False
    """Fill the whole image circle of the fisheyes instead of only where the 15-degree-down virtual camera looks."""
    lidar_points: int = Field(60_000, ge=640)
    """Rays of one LiDAR sweep, over 64 rings; those that meet nothing or drop out give no point."""
    metres_per_frame: float = Field(0.9, gt=0.0, le=3.0)
    """Mean distance driven between two frames."""
    traffic: float = Field(1.0, ge=0.0, le=3.0)
    """Amount of moving cars and pedestrians; 0 makes the world static."""
    shadows: bool = True
    """Cast the sun's shadows (one more ray per lit pixel)."""
    antialias: bool = True
    """Cast three more rays where neighbouring pixels show different surfaces."""
    image_noise: float = Field(0.008, ge=0.0, le=0.2)
    """Standard deviation of the image noise at mid-grey, relative to full scale."""
    lidar_noise: float = Field(0.015, ge=0.0, le=0.5)
    """Standard deviation of a LiDAR range, in metres."""
    lidar_dropout: float = Field(0.03, ge=0.0, le=0.9)
    """Probability that a LiDAR return is lost on a rough surface; on glass and dark paint it is higher."""

    @property
    def drives(self) -> int:
        """Return the number of drives of all splits."""
        return self.train_drives + self.val_drives + self.test_drives

    @property
    def frames(self) -> int:
        """Return the number of frames of all drives."""
        return (
            self.train_drives * self.train_frames
            + self.val_drives * self.val_frames
            + self.test_drives * self.test_frames
        )

    def digest(self) -> str:
        """Return a digest of everything that the bytes of the world depend on."""
        text = json.dumps([WORLD_VERSION, self.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
