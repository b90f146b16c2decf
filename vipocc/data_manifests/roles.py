"""Which images of a dataset the samples of each split use, and what keeps a listed sample from being used."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.manifest import SPLITS, Manifest, role_bit
from vipocc.data_manifests.splits import Frames, SplitLists
from vipocc.data_manifests.views import rig, view_offsets
from vipocc.errors import DataError


def refuse_overlap(lists: SplitLists, same_drive: Callable[[str], str] = lambda drive: drive) -> None:
    """Raise `DataError` if a frame that train lists is also listed by test, from whichever camera."""
    train, test = (_by_drive(lists.frames[split], same_drive) for split in ("train", "test"))
    both = {drive: np.intersect1d(train[drive], test[drive]) for drive in train.keys() & test.keys()}
    total = sum(len(ids) for ids in both.values())
    if total:
        drive = min(drive for drive, ids in both.items() if len(ids))
        raise DataError(
            f"{total} frames are in both the train and the test list, such as frame {both[drive][0]} of {drive}",
            where=lists.name,
            fix="remove them from train_files.txt: what is trained on them cannot be tested on them",
        )


def assign_roles(manifest: Manifest, lists: SplitLists, config: DataConfig) -> Manifest:
    """Return the manifest with the roles that the lists give its images.

    A val or test sample needs just its key image. A training sample needs all its views (`views.view_offsets`), and its
    t+1 within `max_gap_ids` and `max_gap_metres`. Samples that lack something are left out and counted by reason in
    `Manifest.left_out`.
    """
    roles: dict[tuple[str, str], np.ndarray] = {}
    left_out: dict[str, dict[str, int]] = {}
    known = set(manifest.sequences)
    for split in SPLITS:
        reasons: dict[str, int] = {}
        for (sequence, side), ids in sorted(lists.frames[split].items()):
            if sequence not in known:
                _add(reasons, "the drive is not there", len(ids))
                continue
            camera = key_camera(manifest.dataset, side)
            rows = _rows(manifest.frame_ids(sequence), ids, reasons)
            offsets = view_offsets(manifest.dataset, camera, config) if split == "train" else [(camera, 0)]
            rows = _usable(manifest, sequence, rows, offsets, config, reasons)
            for position, (name, step) in enumerate(offsets):
                bits = roles.setdefault((sequence, name), np.zeros(manifest.rows(sequence), np.uint16))
                bits[rows + step] |= np.uint16(role_bit(split, _role(manifest.dataset, name, position)))
        left_out[split] = reasons
    return manifest.with_roles(roles, left_out)


def supervision_leaks(manifest: Manifest) -> dict[str, int]:
    """Return how many images that training samples see are of frames that val or test lists, by split and role.

    They are a property of the published lists, whose windows interleave, and are reported, not mended.
    """
    found: dict[str, int] = {}
    for split in ("val", "test"):
        held_out: dict[str, np.ndarray] = {}
        for (sequence, _), rows in manifest.key_rows(split).items():
            held = held_out.setdefault(sequence, np.zeros(manifest.rows(sequence), bool))
            held[rows] = True
        for sequence, held in held_out.items():
            for camera in manifest.cameras(sequence):
                bits = manifest.roles(sequence, camera)
                for role in ("neighbour", "fisheye"):
                    count = int((held & ((bits & role_bit("train", role)) != 0)).sum())
                    _add(found, f"{split}: {role}", count)
    return found


def also_trained(lists: SplitLists, same_drive: Callable[[str], str] = lambda drive: drive) -> dict[str, int]:
    """Return how many samples of val and test are of a frame that train lists too, by split, zeros left out.

    Lists that take the cameras of a pair one by one (KITTI Raw's `eigen_zhou`) have the same moment in train through
    one camera and in val through the other. Of test that is an error (`refuse_overlap`), of val it is reported.
    """
    train = _by_drive(lists.frames["train"], same_drive)
    found: dict[str, int] = {}
    for split in ("val", "test"):
        for (sequence, _), ids in lists.frames[split].items():
            _add(found, split, int(np.isin(ids, train.get(same_drive(sequence), ids[:0])).sum()))
    return found


def key_camera(dataset: str, side: str) -> str:
    """Return the camera that a published list calls `l` or `r`; raises `DataError` where there is one camera only."""
    keys = rig(dataset).keys
    if side == "r" and len(keys) == 1:
        raise DataError(f"a split list has a right camera, which {dataset} has not", fix="mend the list")
    return keys["lr".index(side)]


def _role(dataset: str, camera: str, position: int) -> str:
    if position == 0:
        return "key"
    return "neighbour" if camera in rig(dataset).keys else "fisheye"


def _rows(frame_ids: np.ndarray, ids: np.ndarray, reasons: dict[str, int]) -> np.ndarray:
    rows = np.searchsorted(frame_ids, ids)
    posed = frame_ids[np.minimum(rows, len(frame_ids) - 1)] == ids
    _add(reasons, "the frame has no pose", int((~posed).sum()))
    return np.asarray(rows[posed])


def _usable(
    manifest: Manifest,
    sequence: str,
    rows: np.ndarray,
    offsets: list[tuple[str, int]],
    config: DataConfig,
    reasons: dict[str, int],
) -> np.ndarray:
    total = manifest.rows(sequence)
    last = max(step for _, step in offsets)
    rows = _keep(rows, rows + last < total, "the drive ends within the sample", reasons)
    if last:
        ids = manifest.frame_ids(sequence)
        near = ids[rows + 1] - ids[rows] <= config.max_gap_ids
        rows = _keep(rows, near, f"t+1 is more than {config.max_gap_ids} frame ids away", reasons)
        places = manifest.world_from_camera(sequence, offsets[0][0])[:, :3, 3]
        near = np.linalg.norm(places[rows + 1] - places[rows], axis=1) <= config.max_gap_metres
        rows = _keep(rows, near, f"t+1 is more than {config.max_gap_metres:g} m away", reasons)
    for position, (camera, step) in enumerate(offsets):
        there = manifest.has_image(sequence, camera)[rows + step]
        fisheye = _role(manifest.dataset, camera, position) == "fisheye"
        kind = "a fisheye image" if fisheye else "an image"
        rows = _keep(rows, there, f"{kind} is missing", reasons)
    return rows


def _keep(rows: np.ndarray, good: np.ndarray, reason: str, reasons: dict[str, int]) -> np.ndarray:
    _add(reasons, reason, int((~good).sum()))
    return np.asarray(rows[good])


def _add(counts: dict[str, int], name: str, count: int) -> None:
    if count:
        counts[name] = counts.get(name, 0) + count


def _by_drive(frames: Frames, same_drive: Callable[[str], str]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for (sequence, _), ids in frames.items():
        parts.setdefault(same_drive(sequence), []).append(ids)
    return {drive: np.unique(np.concatenate(found)) for drive, found in parts.items()}
