"""Reports of made-up numbers, for tests of what is done with reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vipocc.evaluation.published import rows_beside
from vipocc.evaluation.report import Frame, Report, Row, Skipped, TruthDigest

METRICS = ("o_acc", "ie_acc", "ie_rec")
FRAMES = tuple(Frame("2013_05_28_drive_0000_sync", "image_00", row, row + 7) for row in range(40))


def made_report(
    shift: float = 0.0,
    frames: Sequence[Frame] = FRAMES,
    *,
    protocol: str = "slice-300",
    truth: int = 0,
    noise: float = 0.01,
    names: Sequence[str] = ("trained",),
) -> Report:
    """Return a report on `frames`: hard and easy frames are the same in every one, `shift` is how much it is better."""
    base = np.random.default_rng(0).uniform(0.4, 0.8, (len(FRAMES), 3))
    own = np.random.default_rng([1, round(1000 * abs(shift))]).normal(shift, noise, base.shape)
    values = [dict(zip(METRICS, map(float, base[frame.row] + own[frame.row]), strict=True)) for frame in frames]
    digest = TruthDigest()
    for frame in frames:
        digest.add(frame, np.full(3, frame.row + truth))
    described = {"name": protocol, "version": 1, "digest": f"digest of {protocol}"}
    rows = [Row.measured(name, "measured", frames, values, 100, 0.95) for name in names]
    constant = [dict.fromkeys(METRICS, 0.5) for _ in frames]
    rows.append(Row.measured("everything free", "constant", frames, constant, 100, 0.95))
    rows += rows_beside("occupancy", "kitti-360", "test", described, len(frames))
    return Report(
        kind="occupancy",
        dataset="kitti-360",
        split="test",
        protocol=described,
        metrics=METRICS,
        rows=rows,
        used=frames,
        skipped=[Skipped(Frame("drive", "image_00", 9, 16), "no visible cell")],
        truth_digest=digest.value,
        truth_frames=digest.frames,
        checkpoint={
            "path": "runs/a/checkpoints/step_9",
            "rule": "the best on validation frames of the newest run",
            "metric": "rendered_depth/abs_rel",
            "named": False,
            "weights_digest": "0" * 16,
            "shared_with_val": 0,
            "shared_with_train": 0,
        },
        notes=["a note"],
        settings={"confidence": 0.95, "resamples": 100},
        breakdowns={"Rings of distance": [Row.measured("4-8 m: trained", "measured", frames, values, 100, 0.95)]},
        configuration={"data": {"sweeps": 300}, "preset": "vipocc"},
    )
