"""What KITTI Raw's downloads are called, and what to do about files of them that are absent or damaged."""

from __future__ import annotations

ORB_SLAM = "ORB-SLAM poses that BehindTheScenes ships (datasets/kitti_raw/orb-slam_poses)"


def synced(drive: str) -> str:
    """Return the name of the download that has a drive's images, LiDAR sweeps and OXTS files."""
    return f'"[synced+rectified data]" of {drive.removesuffix("_sync")} ({drive}.zip)'


def calibration(day: str) -> str:
    """Return the name of the download that has a day's calibration; every drive of the day offers the same."""
    return f'"[calibration]" of a drive of {day} ({day}_calib.zip)'


def again(download: str) -> str:
    """Return the way out of files of a download that are absent or damaged."""
    return f"download {download} of KITTI Raw again"
