"""`priors sam --batch-size`: found for each of the two networks, halved when memory runs out, told in the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_world import arguments, reader

from vipocc.cli import run
from vipocc.errors import DeviceError
from vipocc.priors.batching import BatchSize
from vipocc.priors.config import SamConfig
from vipocc.priors.grounded_sam import detector, segmenter
from vipocc.priors.grounded_sam.detector import GroundingDino
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.grounded_sam.segmenter import Sam


class _LikeCuda(BatchSize):
    """A batch size that is tried out and halved as on CUDA, on a device whose clock the test moves."""

    clock = 0.0

    def __post_init__(self) -> None:
        self.device = torch.device("cuda")
        super().__post_init__()

    def _now(self) -> float:
        return _LikeCuda.clock

    def _free(self) -> None:
        pass


class Memory:
    """Room for so many images; a call costs a second and a tenth for each."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def bounded(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """Return the network with this memory; its first tensor is the batch."""

        def call(*given: Any) -> Any:
            count = len(next(each for each in given if isinstance(each, torch.Tensor)))
            if count > self.room:
                raise torch.OutOfMemoryError("out of memory")
            _LikeCuda.clock += 1 + 0.1 * count
            self.sizes.append(count)
            return network(*given)

        return call


@pytest.fixture
def like_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (detector, segmenter):
        monkeypatch.setattr(module, "BatchSize", _LikeCuda)


def config(tiny: dict[str, Path], **more: Any) -> SamConfig:
    models = {"detector": str(tiny["detector"]), "segmenter": str(tiny["segmenter"])}
    return SamConfig(**models, shortest_side=96, longest_side=320, **more)


BOXES = np.float32([[10, 20, 80, 70], [100, 30, 220, 90], [5, 5, 300, 90]])


def some(count: int) -> Detections:
    return Detections(
        BOXES[:count], np.linspace(0.9, 0.5, 3, dtype=np.float32)[:count], np.arange(count).astype(np.int16)
    )


@pytest.mark.parametrize("room", [1, 3, 100])
def test_masks_are_the_same_at_any_size(
    like_cuda: None, tiny: dict[str, Path], images: np.ndarray, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.concatenate([images, images[::-1]])
    found = [some(1), some(0), some(3), some(2), some(1), some(1)]
    expected = Sam(config(tiny, batch_size=1))(many, found)
    sam, memory = Sam(config(tiny)), Memory(room)
    monkeypatch.setattr(sam.network, "encode", memory.bounded(sam.network.encode))
    masks = sam(many, found)
    assert [mask.shape for mask in masks] == [(len(each), 96, 320) for each in found]
    for mask, wanted in zip(masks, expected, strict=True):
        assert np.count_nonzero(mask != wanted) <= 1e-3 * mask.size
    assert sam.batch.size == {1: 1, 3: 2, 100: 4}[room], "float32: no more than four"
    calls = -(-5 // sam.batch.size)
    assert sum(memory.sizes[-calls:]) == 5, "images without a box are not encoded"


def test_detections_are_the_same_at_any_size(
    like_cuda: None, tiny: dict[str, Path], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = GroundingDino(config(tiny, batch_size=1))(images)
    dino, memory = GroundingDino(config(tiny)), Memory(2)
    monkeypatch.setattr(dino, "network", memory.bounded(dino.network))
    found = dino(images)
    assert dino.batch.size == 2
    assert memory.sizes == [1, 1, 2, 2, 2, 1]
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(each.boxes, wanted.boxes, atol=0.01)
        np.testing.assert_array_equal(each.labels, wanted.labels)
    memory.room = 1
    assert len(dino(images)) == 3
    assert dino.batch.size == 1
    assert dino(images[:0]) == []
    memory.room = 0
    with pytest.raises(DeviceError, match="out of memory with one item"):
        dino(images)


def test_a_size_that_was_given_is_kept_or_refused(
    like_cuda: None, tiny: dict[str, Path], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam, memory = Sam(config(tiny, batch_size=3)), Memory(3)
    monkeypatch.setattr(sam.network, "encode", memory.bounded(sam.network.encode))
    sam(images, [some(1)] * 3)
    assert memory.sizes == [3], "nothing is tried out"
    memory.room = 2
    with pytest.raises(DeviceError, match=r"3 items at once.*--batch-size"):
        sam(images, [some(1)] * 3)


def notes(workspace: Path, name: str) -> list[dict[str, Any]]:
    ledger = reader(workspace, "instances", name).path.with_name(f"instances-{name}.zarr.ledger")
    return [json.loads(path.read_text())["notes"] for path in sorted(ledger.rglob("0*.json"))]


def test_the_record_says_the_sizes_that_were_used(
    like_cuda: None, workspace: Path, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from vipocc.priors.grounded_sam.transformers_dino import TransformersDino
    from vipocc.priors.grounded_sam.transformers_sam import TransformersSam

    detecting, segmenting = Memory(3), Memory(100)
    call, encode = TransformersDino.__call__, TransformersSam.encode
    monkeypatch.setattr(TransformersDino, "__call__", detecting.bounded(call))
    monkeypatch.setattr(TransformersSam, "encode", segmenting.bounded(encode))
    models = ("--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"]))
    place = ("-C", str(workspace), "--split", "train")
    command = arguments("priors", "sam", *place, "--store", "auto", *models, "--batch-size", "auto")
    assert run(command) == 0
    assert notes(workspace, "auto") == [{"batch_size": {"detector": 2, "segmenter": 4}}] * 2
    detecting.room = 1
    assert run([*command, "--store", "less"]) == 0
    assert "ran out of memory" not in capfd.readouterr().err, "the size was found, nothing ran out after that"
    assert notes(workspace, "less") == [{"batch_size": {"detector": 1, "segmenter": 4}}] * 2
    assert run([*command, "--store", "three", "--batch-size", "3"]) == 2
    assert "3 items at once" in capfd.readouterr().err
    # The batch decides nothing: the store that is there is whole for any other.
    assert run([*command, "--batch-size", "7"]) == 0
    assert "instances: nothing to do" in capfd.readouterr().out


@pytest.mark.gpu
def test_on_a_gpu_sizes_are_found_and_masks_are_those_of_the_cpu(
    workspace: Path, tiny: dict[str, Path], images: np.ndarray
) -> None:
    models = ("--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"]))
    place = ("-C", str(workspace), "--split", "train")
    for name, device in (("gpu", "cuda"), ("cpu", "cpu")):
        assert run(arguments("priors", "sam", *place, "--store", name, *models, "--device", device)) == 0
    for sizes in (record["batch_size"] for record in notes(workspace, "gpu")):
        assert 1 <= sizes["detector"] <= 64
        assert sizes["segmenter"] in (1, 2, 4), "float32: no more than four"
    there, here = (reader(workspace, "instances", name) for name in ("gpu", "cpu"))
    for group in here.groups():
        rows = np.flatnonzero(here.rows(group))
        same = there.read_many(group, rows, "masks") == here.read_many(group, rows, "masks")
        assert same.mean() > 0.99
