from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from vipocc.errors import UsageError
from vipocc.evaluation.metrics import SCENE
from vipocc.evaluation.protocols import (
    EXACT_DEPTH,
    EXACT_OCCUPANCY,
    LIDAR_DEPTH,
    PUBLISHED_OCCUPANCY,
    depth_protocol,
    occupancy_protocol,
    require_truth,
    slice_protocol,
)
from vipocc.evaluation.report import Frame, Report, Row, Skipped, TruthDigest

DIGESTS = {
    "slice-300": "1287350a962617fc",
    "slice-20": "9c55838f3fdd57fd",
    "slice-300-paper": "4def42196abc3851",
    "slice-300-published": "4d341bbc7d99f871",
    "exact": "a6aa75890392c16f",
    "cuboid": "ef1402b31c833479",
    "exact-cuboid": "81c1ae7117d66cac",
    "voxel": "dccac46954401670",
}
FRAMES = [Frame("drive", "image_00", row, row + 7) for row in range(3)]


def report() -> Report:
    values = [dict(zip(SCENE, row, strict=True)) for row in ((0.9, 0.8, 0.7), (0.7, 0.6, math.nan), (0.8, 0.7, 0.5))]
    protocol = slice_protocol()
    return Report(
        kind="occupancy",
        dataset="kitti-360",
        split="test",
        protocol={**protocol.describe(), "digest": protocol.digest},
        metrics=(*SCENE, "average_precision"),
        rows=[
            Row.measured("vipocc", "measured", FRAMES, values, 200, 0.95),
            Row.published("BTS", {"o_acc": 0.923}, "published on KITTI-360"),
        ],
        used=FRAMES,
        skipped=[Skipped(Frame("drive", "image_00", 9, 16), "no visible cell")],
        truth_digest="abc",
        checkpoint={"path": "runs/a/checkpoints/step_9", "rule": "the best of the newest run"},
        notes=["a note"],
    )


def test_the_json_holds_everything_and_no_nan(tmp_path: Path) -> None:
    folder = report().save(tmp_path)
    text = (folder / "report.json").read_text()
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert values["format_version"] == 2
    assert values["protocol"]["name"] == "slice-300"
    assert values["protocol"]["digest"] == slice_protocol().digest
    assert values["ground_truth_digest"] == "abc"
    assert values["checkpoint"]["path"] == "runs/a/checkpoints/step_9"
    assert values["frames"]["used"] == 3
    assert values["frames"]["skipped"] == [
        {"sequence": "drive", "camera": "image_00", "row": 9, "frame_id": 16, "reason": "no visible cell"}
    ]
    ours, bts = values["rows"]
    assert ours["metrics"]["o_acc"]["mean"] == pytest.approx(0.8)
    assert ours["metrics"]["ie_rec"]["frames"] == 2
    assert ours["metrics"]["o_acc"]["low"] <= 0.8 <= ours["metrics"]["o_acc"]["high"]
    assert [frame["o_acc"] for frame in ours["per_frame"]] == [0.9, 0.7, 0.8]
    assert ours["per_frame"][1]["ie_rec"] is None
    assert ours["per_frame"][1]["frame_id"] == 8
    assert bts["kind"] == "published"
    assert bts["metrics"]["o_acc"] == {"mean": 0.923, "low": None, "high": None, "frames": 0}
    assert report().save(tmp_path) != folder


def test_the_table_leaves_nothing_out_in_silence(tmp_path: Path) -> None:
    table = (report().save(tmp_path) / "table.md").read_text()
    assert "protocol slice-300" in table
    assert "3 frames; 1 left out (1 no visible cell)" in table
    assert "| vipocc | 0.800 [" in table
    assert "| BTS | 0.923 |" in table
    assert "published on KITTI-360" in table
    assert "avg. precision" not in table  # nobody has it


def test_protocols_are_frozen() -> None:
    """A changed digest means a changed protocol: raise its version and say so in the changelog."""
    assert {name: occupancy_protocol(name, 300).digest for name in DIGESTS} == DIGESTS
    with pytest.raises(dataclasses.FrozenInstanceError):
        slice_protocol().rows = 3  # type: ignore[misc]
    assert slice_protocol(24).digest != slice_protocol().digest


def test_protocols_by_name() -> None:
    assert occupancy_protocol(None, 300).name == "slice-300"
    assert occupancy_protocol(None, 24).name == "slice-24"
    assert occupancy_protocol("slice-300", 24).sweeps == 300
    assert occupancy_protocol(None, 24, "paper").name == "slice-24-paper"
    assert occupancy_protocol("slice-300-paper", 24) == slice_protocol(300, "paper")
    assert occupancy_protocol("slice-300", 24, "paper") == slice_protocol()
    assert occupancy_protocol("slice-300-published", 24) is PUBLISHED_OCCUPANCY
    assert occupancy_protocol("exact", 24) is EXACT_OCCUPANCY
    assert depth_protocol(None) is LIDAR_DEPTH
    for name in ("slice-2", "slice", "voxels", "slice-300-", "slice-300-official"):
        with pytest.raises(UsageError, match="--protocol"):
            occupancy_protocol(name, 300)
    with pytest.raises(UsageError, match="--protocol"):
        depth_protocol("garg")
    with pytest.raises(UsageError, match="no exact truth"):
        require_truth("kitti-360", EXACT_DEPTH)
    require_truth("kitti-360", slice_protocol(300))
    for dataset in ("kitti-raw", "ddad"):
        with pytest.raises(UsageError, match=r"no occupancy ground truth.*vipocc eval depth"):
            require_truth(dataset, slice_protocol(300))


def test_the_truth_digest_sees_values_frames_and_order() -> None:
    a, b = np.zeros((4, 4), dtype=bool), np.eye(4, dtype=bool)

    def digest(*pairs: tuple[int, np.ndarray]) -> str:
        made = TruthDigest()
        for at, array in pairs:
            made.add(FRAMES[at], array)
        return made.value

    found = {digest((0, a), (1, b)), digest((0, b), (1, a)), digest((0, a), (2, b)), digest((0, a))}
    assert len(found) == 4
    assert digest((0, a)) == digest((0, a.copy()))
