"""The computer that runs a source's network: batches, arithmetic, and what it refuses to store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_world import arguments, reader

from vipocc import config as configuration
from vipocc.config import Schema
from vipocc.errors import ConfigError, DeviceError, NonFiniteError
from vipocc.priors.batching import BatchSize
from vipocc.priors.config import NetworkOptions
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.sources import DepthSource, Images, InstanceSource
from vipocc.stores import Unit
from vipocc.workspace import Workspace

WEIGHTS = {"model": "m", "revision": None, "digest": "d", "licence": "mit", "preprocessing": "1"}


class Depth(DepthSource):
    name = "test-depth"
    Options = NetworkOptions
    network: Callable[[Images], Any]

    def identity(self) -> dict[str, Any]:
        return dict(WEIGHTS)

    def load(self, device: str) -> Callable[[Images], Any]:
        return self.network


class Instances(InstanceSource):
    name = "test-instances"
    Options = NetworkOptions
    network: Callable[[Images], Any]

    def identity(self) -> dict[str, Any]:
        return dict(WEIGHTS)

    def load(self, device: str) -> Callable[[Images], Any]:
        return self.network


@pytest.fixture
def opened(world: Path) -> Callable[..., Any]:
    """What opens the computer of a source with a network, on the train drive's frames."""

    def call(kind: type[Any], network: Callable[[Images], Any], *overrides: str) -> Any:
        config = configuration.load("demo", overrides=[*arguments()[1::2], *overrides])
        source = kind(Workspace.open(world), config)
        source.network = network
        computer = source.computer()
        computer.open("cpu")
        return computer

    return call


@pytest.fixture
def unit(world: Path) -> Unit:
    return Unit(reader(world, "frames").groups()[0], 0)


def test_the_network_gets_images_their_camera_and_their_place(
    world: Path, opened: Callable[..., Any], unit: Unit
) -> None:
    seen: list[Images] = []

    def network(images: Images) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        seen.append(images)
        return torch.from_numpy(images.rgb[..., 1] / 8.0)

    computer = opened(Depth, network, "priors.options.test-depth.batch_size=2")
    assert (computer.units_at_once("cpu"), computer.units_at_once("cuda:1")) == (1, 3)
    depth = computer.compute(unit, [0, 1, 3])["depth"]
    assert [images.rows for images in seen] == [(0, 1), (3,)]
    assert {images.group for images in seen} == {unit.group}
    frames = reader(world, "frames").read_many(unit.group, [0, 1, 3], "rgb")
    np.testing.assert_array_equal(np.concatenate([images.rgb for images in seen]), frames)
    assert depth.dtype == np.float16
    np.testing.assert_allclose(depth, frames[..., 1] / 8.0, rtol=1e-3)
    assert computer.notes() == {"batch_size": 2}
    height, width = frames.shape[1:3]
    intrinsics = seen[0].intrinsics
    assert width / 4 < intrinsics[0, 2] < 3 * width / 4
    assert height / 4 < intrinsics[1, 2] < 3 * height / 4
    computer.close()
    with pytest.raises(AssertionError):
        computer.compute(unit, [0])


def test_auto_is_tried_out_and_halved_when_memory_runs_out(
    opened: Callable[..., Any], unit: Unit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(BatchSize, "_free", lambda self: None)
    clock = [0.0]
    monkeypatch.setattr(BatchSize, "_now", lambda self: clock[0])
    room, sizes = [5], []

    def network(images: Images) -> Any:
        if len(images.rgb) > room[0]:
            raise torch.OutOfMemoryError("out of memory")
        clock[0] += 1 + 0.1 * len(images.rgb)
        sizes.append(len(images.rgb))
        return np.full(images.rgb.shape[:3], np.float32(images.rows[0] + 1))

    computer = opened(Depth, network)
    computer._batch = BatchSize("auto", torch.device("cuda"))
    assert computer.compute(unit, [0, 1, 2, 3, 4])["depth"].shape[0] == 5
    assert sizes[-2:] == [4, 1]
    assert computer.notes() == {"batch_size": 4}
    room[0] = 2
    sizes.clear()
    assert computer.compute(unit, [0, 1, 2, 3, 4])["depth"].shape[0] == 5
    assert sizes == [2, 2, 1]
    assert computer.notes() == {"batch_size": 2}
    assert "going on with 2" in "".join(capsys.readouterr())
    fixed = opened(Depth, network, "priors.options.test-depth.batch_size=3")
    with pytest.raises(DeviceError, match="--batch-size"):
        fixed.compute(unit, [0, 1, 2])


def test_threads_share_it_and_the_network_is_one_threads_at_a_time(
    world: Path, opened: Callable[..., Any], unit: Unit
) -> None:
    inside = threading.Lock()

    def network(images: Images) -> Any:
        assert inside.acquire(blocking=False), "two threads at once"
        time.sleep(0.02)
        inside.release()
        return images.rgb[..., 2] / 4.0

    computer = opened(Depth, network)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda row: computer.compute(unit, [row])["depth"], [0, 1, 2, 3, 4] * 2))
    frames = reader(world, "frames").read_many(unit.group, [0, 1, 2, 3, 4] * 2, "rgb")
    np.testing.assert_allclose(np.concatenate(found), frames[..., 2] / 4.0, rtol=1e-3)


def depth_of(value: float, **at: Any) -> Callable[[Images], Any]:
    def network(images: Images) -> Any:
        depth = np.full(images.rgb.shape[:3], 5.0)
        depth[-1, 3, 4] = value
        return depth[..., : at.get("width")]

    return network


@pytest.mark.parametrize(
    ("network", "error", "expected"),
    [
        (depth_of(np.nan), NonFiniteError, "negative or not finite for image 1 of the batch.*rows"),
        (depth_of(-1), NonFiniteError, "negative or not finite"),
        (depth_of(1e6), NonFiniteError, "negative or not finite"),  # more than float16 holds
        (depth_of(1, width=-1), ConfigError, r"gave depth of shape \(2, 96, 319\)"),
    ],
)
def test_depth_that_cannot_be_stored(
    opened: Callable[..., Any], unit: Unit, network: Any, error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        opened(Depth, network).compute(unit, [0, 1])


def found(count: int, **change: Any) -> Callable[[Images], Any]:
    """A network that finds `count` boxes, one of each score, each a column of pixels further to the right."""
    values: dict[str, Any] = {
        "boxes": np.tile(np.float32([1, 2, 30, 40]), (count, 1)),
        "scores": np.linspace(0.1, 0.9, count),
        "labels": np.arange(count) % 3,
        **change,
    }

    def network(images: Images) -> Any:
        masks = np.zeros((count, *images.rgb.shape[1:3]), bool)
        for k in range(count):
            masks[k, 10:20, k] = True
        boxes = Detections(values["boxes"], values["scores"], values["labels"])
        return [(boxes, values.get("masks", masks))] * len(images.rgb)

    return network


def test_instances_are_stored_surest_first_and_no_more_than_fit(opened: Callable[..., Any], unit: Unit) -> None:
    arrays = opened(Instances, found(3)).compute(unit, [0, 1])
    assert arrays["count"].tolist() == [3, 3]
    np.testing.assert_allclose(arrays["score"][0, :3], [0.9, 0.5, 0.1], rtol=1e-6)
    assert arrays["label"][1, :4].tolist() == [2, 1, 0, -1]
    assert arrays["area"][0, :3].tolist() == [10, 10, 10]
    assert arrays["masks"][0, 12, :4].tolist() == [3, 2, 1, 0]
    many = opened(Instances, found(300)).compute(unit, [0])
    assert many["count"].tolist() == [254]
    assert many["score"].min() > 0.1
    none = opened(Instances, found(0)).compute(unit, [0])
    assert (none["count"].tolist(), int(none["masks"].max())) == ([0], 0)


@pytest.mark.parametrize(
    ("network", "error", "expected"),
    [
        (found(2, labels=np.array([0, 10])), ConfigError, "labels other than 0 to 9"),
        (found(2, labels=np.array([-1, 0])), ConfigError, "labels other than 0 to 9"),
        (found(2, scores=np.array([0.5, np.nan])), NonFiniteError, "scores that are not finite"),
        (found(2, masks=np.zeros((2, 4, 4), bool)), ConfigError, r"masks of shapes .*\(2, 4, 4\)"),
        (lambda images: [], ConfigError, "gave 0 answers for 1 images"),
    ],
)
def test_instances_that_cannot_be_stored(
    opened: Callable[..., Any], unit: Unit, network: Any, error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        opened(Instances, network).compute(unit, [0])


def test_a_network_needs_options_for_its_batches(world: Path) -> None:
    class Bare(Depth):
        Options = Schema

    config = configuration.load("demo", overrides=arguments()[1::2])
    with pytest.raises(ConfigError, match="neither batch size nor arithmetic"):
        Bare(Workspace.open(world), config).computer()


def test_the_estimate_runs_the_network_on_noise(opened: Callable[..., Any]) -> None:
    sizes: list[tuple[int, ...]] = []

    def network(images: Images) -> Any:
        sizes.append(images.rgb.shape)
        return np.ones(images.rgb.shape[:3], np.float32)

    computer = opened(Depth, network)
    computer.close()
    assert computer.seconds_per_row("cpu", (48, 160)) > 0
    assert sizes == [(4, 48, 160, 3)] * 2


@pytest.mark.gpu
def test_a_full_gpu_is_worked_on_in_smaller_batches(opened: Callable[..., Any], unit: Unit) -> None:
    item = torch.cuda.mem_get_info()[0] // 3

    def network(images: Images) -> torch.Tensor:
        torch.empty(len(images.rgb) * item, dtype=torch.uint8, device="cuda")
        return torch.from_numpy(images.rgb[..., 0]).cuda() / 8.0

    computer = opened(Depth, network)
    computer.close()
    computer.open("cuda")
    depth = computer.compute(unit, [0, 1, 2, 3, 4])["depth"]
    assert depth.shape[0] == 5
    assert computer.notes()["batch_size"] in (1, 2)
