from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import MissingInputError
from vipocc.evaluation.sampler import evaluate_sampler
from vipocc.priors.snog import SnogConfig

SIZE = (96, 320)
K = 254


class FakeManifest:
    dataset = "synthetic"
    root = Path("world")

    def frame_ids(self, sequence: str) -> NDArray[np.int64]:
        return np.arange(100, 110)


class Records:
    """instances.zarr in memory: row 0 has a car and a road, row 1 nothing, row 2 no record."""

    attrs = {"labels": ["road", "car"], "sampling": ["uniform", "gaussian"]}  # noqa: RUF012

    def __init__(self) -> None:
        masks = np.zeros(SIZE, dtype=np.uint8)
        masks[60:] = 1
        masks[40:80, 100:160] = 2
        label = np.full(K, -1, dtype=np.int16)
        label[:2] = 0, 1
        box = np.zeros((K, 4), dtype=np.float32)
        box[:2] = [0, 60, 320, 96], [100, 40, 160, 80]
        area = np.zeros(K, dtype=np.uint32)
        area[:2] = 320 * 36, 60 * 40
        nothing = {"count": np.uint16(0), "label": np.full(K, -1, np.int16), "box": box * 0, "area": area * 0,
                   "masks": masks * 0}  # fmt: skip
        self.held: list[dict[str, Any]] = [
            {"count": np.uint16(2), "label": label, "box": box, "area": area, "masks": masks},
            nothing,
        ]

    def has(self, group: str) -> bool:
        return group == "drive/image_00"

    def rows(self, group: str) -> NDArray[np.bool_]:
        return np.array([True, True, False])

    def read(self, group: str, row: int, array: str | None = None) -> Any:
        return self.held[row][array or ""]


def evaluate(rows: list[int], seed: int = 0, iterations: int = 100) -> Any:
    return evaluate_sampler(
        FakeManifest(),  # type: ignore[arg-type]
        Records(),  # type: ignore[arg-type]
        [FrameKey("drive", "image_00", row) for row in rows],
        SnogConfig(),
        split="test",
        iterations=iterations,
        seed=seed,
        resamples=100,
        confidence=0.95,
        note="simulated prior",
    )


def test_snog_uses_every_ray_and_sees_the_car() -> None:
    report = evaluate([0, 1, 2])
    random, snog = report.row("random").metrics, report.row("SNOG").metrics
    assert snog["n_v"].mean == 4096
    assert 3700 < random["n_v"].mean < 4096
    # A car of 60x40 pixels has room for about ten patches that keep their distance.
    assert snog["psi_v"].mean > 1.6 * random["psi_v"].mean
    assert snog["n_vc"].mean == pytest.approx(4096 * snog["psi_v"].mean)
    assert snog["psi_v"].frames == 100
    assert [one.reason for one in report.skipped] == ["no instances"]
    assert "50 on an image without critical instances" in report.notes[0]
    assert report.row("SNOG").note == "simulated prior"
    assert report.row("SNOG (paper)").metrics["psi_v"].mean == 0.3683
    assert report.protocol["iterations"] == 100


def test_random_patches_hit_the_car_by_its_share_of_the_image() -> None:
    random = evaluate([0]).row("random").metrics
    # Patches reach columns and rows up to the last but one; the car is far from the border.
    assert random["psi_v"].mean == pytest.approx(60 * 40 / ((320 - 7) * (96 - 7)), abs=0.012)


def test_figures_depend_on_the_seed_alone() -> None:
    a, b, c = evaluate([0, 1], 1, 20), evaluate([0, 1], 1, 20), evaluate([0, 1], 2, 20)
    assert a.as_dict() == b.as_dict()
    assert a.as_dict() != c.as_dict()
    assert a.truth_digest == c.truth_digest


def test_no_record_names_the_command() -> None:
    with pytest.raises(MissingInputError, match="vipocc priors sam --split test"):
        evaluate([2])
