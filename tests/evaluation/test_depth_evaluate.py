from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from vipocc import config as configuration
from vipocc.data_manifests.manifest import CameraTable, FrameKey, Manifest, SequenceTable
from vipocc.errors import DataError
from vipocc.evaluation.depth import BINS, Contender, evaluate_depth
from vipocc.evaluation.depth.score import pooled, score
from vipocc.evaluation.inputs import FrameSource, untrained_model
from vipocc.evaluation.metrics import DEPTH, depth_metrics
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.evaluation.predictors.prior import PriorDepth, StoredPriors
from vipocc.evaluation.protocols import EXACT_DEPTH, LIDAR_DEPTH
from vipocc.evaluation.report import Report
from vipocc.geometry.cameras import Pinhole

SIZE, FRAMES = (64, 96), 5
CPU = torch.device("cpu")


class Rows:
    """A store in memory: {(group, row): {array: values}}."""

    def __init__(self, held: dict[tuple[str, int], dict[str, NDArray[Any]]]) -> None:
        self.held = held

    def has(self, group: str) -> bool:
        return any(name == group for name, _ in self.held)

    def rows(self, group: str) -> NDArray[np.bool_]:
        return np.array([(group, row) in self.held for row in range(FRAMES)])

    def read(self, group: str, row: int, array: str | None = None) -> NDArray[Any]:
        return self.held[group, row][array or next(iter(self.held[group, row]))]


class Says:
    """A predictor that says the given maps, by row."""

    kind = "measured"
    note = ""

    def __init__(self, name: str, maps: dict[int, NDArray[Any]]) -> None:
        self.name, self.maps = name, maps
        self.asked: list[int] = []

    def missing(self, key: FrameKey) -> str | None:
        return None if key.row in self.maps else "not in the folder"

    def depth(self, batch: Batch) -> Sequence[torch.Tensor]:
        assert len(batch.images) == len(batch.keys) == len(batch.frames) == len(batch.intrinsics_ndc)
        self.asked += [key.row for key in batch.keys]
        return [torch.from_numpy(self.maps[key.row]) for key in batch.keys]


def manifest() -> Manifest:
    camera = CameraTable(
        Pinhole(40.0, 42.0, 47.5, 31.5, SIZE[1], SIZE[0]),
        pa.array([f"{n}.png" for n in range(FRAMES)]),
        np.full(FRAMES, 100),
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        np.full(FRAMES, 1 << 6, dtype=np.uint16),
    )
    table = SequenceTable(
        np.arange(FRAMES) * 2 + 10,
        np.full(FRAMES, np.nan),
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        pa.array([None] * FRAMES, pa.string()),
        {"image_00": camera},
    )
    return Manifest("kitti-360", Path("root"), {"drive": table})


KEYS = [FrameKey("drive", "image_00", row) for row in range(FRAMES)]


@pytest.fixture(scope="module")
def config() -> Any:
    return configuration.load("demo", overrides=[f"data.image_size=[{SIZE[0]},{SIZE[1]}]", "evaluation.batch_size=2"])


@pytest.fixture(scope="module")
def source(config: Any) -> FrameSource:
    rng = np.random.default_rng(0)
    held = {("drive/image_00", row): {"rgb": rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)} for row in range(FRAMES)}
    return FrameSource(manifest(), Rows(held), config)


def true_depth(row: int, rng_size: tuple[int, int] = (50, 70)) -> NDArray[np.float32]:
    rng = np.random.default_rng(row)
    depth = rng.uniform(3, 75, rng_size).astype(np.float32)
    depth[rng.random(rng_size) < 0.7] = 0
    return depth


def evaluate(source: FrameSource, contenders: Sequence[Contender], **options: Any) -> Report:
    truth = options.pop("truth", lambda key: true_depth(key.row))
    return evaluate_depth(contenders, source, KEYS, truth, LIDAR_DEPTH, split="test", device=CPU, **options)


def random_maps(seed: int) -> dict[int, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {row: rng.uniform(1, 90, SIZE).astype(np.float32) for row in range(FRAMES)}


def test_rows_are_the_released_means(source: FrameSource) -> None:
    maps = random_maps(7)
    report = evaluate(source, [Contender(Says("ours", maps), ("none", "median", "least-squares"))])
    assert [row.name for row in report.rows[:3]] == ["ours", "ours, median-scaled", "ours, least-squares"]
    for row, scaling in zip(report.rows, ("none", "median", "least-squares"), strict=False):
        wanted = [depth_metrics(maps[k], true_depth(k), scaling) for k in range(FRAMES)]  # type: ignore[arg-type]
        for name in DEPTH:
            assert row.mean(name) == pytest.approx(np.mean([one[name] for one in wanted]), rel=1e-12)
        assert [values["pixels"] for _, values in row.per_frame] == [
            np.count_nonzero(true_depth(k)) for k in range(FRAMES)
        ]
    assert "pixels" in report.metrics
    assert "covered" not in report.metrics  # everything is: no column for it
    assert report.skipped == []


def test_bins_and_pooled_values_are_of_the_pixels(source: FrameSource) -> None:
    maps = random_maps(8)
    report = evaluate(source, [Contender(Says("ours", maps))])
    together = next(iter(report.breakdowns["Pooled over the pixels of all frames"]))
    stacked, truths = [], []
    for k in range(FRAMES):
        true = true_depth(k)
        rows = np.arange(true.shape[0]) * SIZE[0] // true.shape[0]
        columns = np.arange(true.shape[1]) * SIZE[1] // true.shape[1]
        stacked.append(maps[k][rows[:, None], columns][true > 0])
        truths.append(true[true > 0])
    every = depth_metrics(np.concatenate(stacked)[None], np.concatenate(truths)[None])
    for name in DEPTH:
        value = together.metrics[name]
        assert value.mean == pytest.approx(every[name], rel=1e-9)
        assert value.low <= value.mean <= value.high
    by_distance = {row.name: row for row in report.breakdowns["By distance of the truth"]}
    assert list(by_distance) == [f"ours, {low:g}-{high:g} m" for low, high in BINS]
    near = [np.count_nonzero((true_depth(k) > 0) & (true_depth(k) < 10)) for k in range(FRAMES)]
    assert by_distance["ours, 0-10 m"].mean("pixels") == pytest.approx(np.mean(near))
    wanted = [
        np.mean(np.abs(p[(g < 10)].clip(1e-3, 80) - g[g < 10]) / g[g < 10])
        for p, g in zip(stacked, truths, strict=True)
    ]
    assert by_distance["ours, 0-10 m"].mean("abs_rel") == pytest.approx(np.mean(wanted), rel=1e-6)


def test_scaling_is_fitted_once_on_all_pixels_not_in_each_bin() -> None:
    true = np.linspace(1, 79, 400, dtype=np.float32).reshape(20, 20)
    found = score(np.where(true < 40, true, true * 3), true, ("median",), EXACT_DEPTH)
    assert not isinstance(found, str)
    assert found["median"].bins[0]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert found["median"].bins[3]["abs_rel"] > 0.3


def test_an_unfit_map_costs_its_predictor_that_frame_alone(source: FrameSource) -> None:
    maps = random_maps(9)
    broken: dict[int, NDArray[Any]] = {k: one.copy() for k, one in maps.items()}
    broken[0][:] = np.nan
    broken[1][3, 4:] = -1.0
    broken[1][:] = np.where(broken[1] < 0, broken[1], -2.0)
    broken[2][:] = np.inf
    broken[3] = np.ones((3, *SIZE), np.float32)
    report = evaluate(source, [Contender(Says("fine", maps)), Contender(Says("broken", broken))])
    assert len(report.used) == FRAMES
    assert report.row("fine").frames == FRAMES
    assert report.row("broken").frames == 1
    assert report.row("broken").mean("abs_rel") == pytest.approx(report.row("fine").per_frame[4][1]["abs_rel"])
    assert [(one.frame.row, one.reason) for one in report.skipped] == [
        (0, "broken: no depth is predicted where there is truth"),
        (1, "broken: the predicted depth is negative"),
        (2, "broken: the predicted depth is infinite"),
        (3, f"broken: the predicted depth is no map [H, W] of numbers but [3, {SIZE[0]}, {SIZE[1]}] of float32"),
    ]
    assert any("different frames" in note for note in report.notes)
    text = report.markdown()
    assert "the predicted depth is negative" in text
    json.dumps(report.as_dict(), allow_nan=False)


def test_holes_are_told_and_not_averaged_in_silence(source: FrameSource) -> None:
    maps = random_maps(10)
    maps[2][:, : SIZE[1] // 2] = np.nan
    report = evaluate(source, [Contender(Says("ours", maps))])
    assert "covered" in report.metrics
    covered = [values["covered"] for _, values in report.row("ours").per_frame]
    assert covered[2] == pytest.approx(0.5, abs=0.06)
    assert covered[:2] == [1.0, 1.0]


def test_truth_that_is_absent_damaged_or_empty_leaves_a_frame_out(source: FrameSource) -> None:
    def truth(key: FrameKey) -> Any:
        if key.row == 0:
            return "no LiDAR sweep"
        if key.row == 1:
            raise DataError("a LiDAR scan is truncated")
        return true_depth(key.row) * (key.row != 2)

    ours = Says("ours", random_maps(11))
    kept = []
    report = evaluate(source, [Contender(ours)], truth=truth, keep=lambda *args: kept.append(args))
    assert [one.reason for one in report.skipped] == [
        "no LiDAR sweep",
        "a LiDAR scan is truncated",
        "no true depth that counts",
    ]
    assert [frame.row for frame in report.used] == [3, 4]
    assert [entry[0].row for entry in kept] == [3, 4]
    _, image, maps, true = kept[0]
    assert image.shape == (*SIZE, 3)
    np.testing.assert_array_equal(maps["ours"], ours.maps[3])
    np.testing.assert_array_equal(true, true_depth(3))
    other = evaluate(source, [Contender(ours)], truth=lambda key: true_depth(key.row + 1))
    assert other.truth_digest != report.truth_digest


def test_predictions_that_are_missing(source: FrameSource) -> None:
    maps = random_maps(12)
    some = Says("some", {k: maps[k] for k in (1, 2, 4)})
    report = evaluate(source, [Contender(some), Contender(Says("nothing", {}))])
    assert some.asked == [1, 2, 4]
    assert [(one.frame.row, one.reason) for one in report.skipped] == [
        (0, "some: not in the folder"),
        (3, "some: not in the folder"),
    ]
    assert any("no prediction of any frame of split test: nothing (not in the folder)" in note for note in report.notes)


def test_networks_and_the_prior(config: Any, source: FrameSource) -> None:
    model = untrained_model(config, CPU)
    stored = np.random.default_rng(1).uniform(5, 40, SIZE).astype(np.float16)
    priors = StoredPriors(Rows({("drive/image_00", 0): {"depth": stored}, ("drive/image_00", 3): {"depth": stored}}))
    contenders = [
        Contender(NetworkDepth(model, "rendered")),
        Contender(NetworkDepth(model, "branch", priors, note="simulated prior"), ("median",)),
        Contender(PriorDepth(priors, "simulated prior"), ("none", "median")),
    ]
    maps: dict[str, dict[int, NDArray[Any]]] = {}

    def keep(frame: Any, image: Any, found: dict[str, NDArray[Any]], truth: Any) -> None:
        for name, one in found.items():
            maps.setdefault(name, {})[frame.row] = one

    report = evaluate(source, contenders, keep=keep)
    assert report.row("rendered").frames == FRAMES
    for name in ("branch, median-scaled", "prior", "prior, median-scaled"):
        assert report.row(name).frames == 2
        assert report.row(name).note == "simulated prior"
    np.testing.assert_array_equal(maps["prior"][3], stored.astype(np.float32))
    # Alone as in a batch, and as the network says without the harness.
    image = torch.from_numpy(source.image(KEYS[3])).permute(2, 0, 1)[None].float() / 255
    intrinsics = torch.from_numpy(source.intrinsics(KEYS[3]))[None]
    rendered = model.render_depth(model.encode_keys(image, intrinsics), intrinsics, SIZE)[0, 0]
    np.testing.assert_allclose(maps["rendered"][3], rendered.numpy(), rtol=1e-4)
    refined = model.refine_depth(image, torch.from_numpy(stored.astype(np.float32))[None, None])[0, 0]
    np.testing.assert_allclose(maps["branch"][3], refined.detach().numpy(), rtol=1e-4)
    assert report.row("prior").kind == "prior"


def test_pooled_weighs_by_pixels() -> None:
    frames = [
        dict.fromkeys(DEPTH, 1.0) | {"pixels": 30.0, "covered": 1.0},
        dict.fromkeys(DEPTH, 3.0) | {"pixels": 20.0, "covered": 0.5},
    ]
    found = pooled(frames, 50, 0.9)
    assert found["abs_rel"].mean == pytest.approx((30 + 30) / 40)
    assert found["rmse"].mean == pytest.approx(math.sqrt((30 + 90) / 40))
    assert found["rmse"].frames == 2


@pytest.mark.gpu
def test_on_cuda_as_on_the_cpu(config: Any, source: FrameSource) -> None:
    means = {}
    for device in (CPU, torch.device("cuda")):
        model = untrained_model(config, device).use_precision("float32")
        contenders = [Contender(NetworkDepth(model, "rendered"), ("none", "median"))]
        report = evaluate_depth(
            contenders, source, KEYS, lambda key: true_depth(key.row), LIDAR_DEPTH, split="test", device=device
        )
        means[device.type] = [report.row(name).mean("abs_rel") for name in ("rendered", "rendered, median-scaled")]
    # Convolutions on CUDA may round to TF32.
    assert means["cuda"] == pytest.approx(means["cpu"], rel=1e-2)
