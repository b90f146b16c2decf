"""Embedded models are found by name and read by the code that reads real weights, at the sizes their processors say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vipocc.errors import CheckpointError
from vipocc.priors.config import DepthConfig, SamConfig
from vipocc.priors.depth.depth_anything import DepthAnything, depth_fingerprint
from vipocc.priors.embedded import MODELS
from vipocc.priors.grounded_sam.detector import GroundingDino
from vipocc.priors.grounded_sam.engines import detector_sides, detector_weights
from vipocc.priors.grounded_sam.provenance import instances_fingerprint
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.grounded_sam.segmenter import Sam
from vipocc.priors.weights import find_weights

DEPTH = DepthConfig(model="embedded:depth", batch_size=1)
SAM = SamConfig(detector="embedded:detector", segmenter="embedded:segmenter", batch_size=1)
TOGETHER = 12_000_000


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (1, 192, 640, 3), np.uint8)


def test_a_name_leads_to_the_package(packaged: Path) -> None:
    weights = find_weights("embedded:depth", None, "--model")
    assert weights.folder == packaged / "depth"
    assert weights.provenance() == {
        "model": "embedded:depth", "revision": None, "digest": weights.digest, "licence": "mit",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "said"), [("embedded:width", "embedded:depth"), ("embedded:", "embedded:segmenter")])
def test_an_unknown_name_is_told_the_known_ones(name: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        find_weights(name, None, "--model")


def test_missing_weights_are_never_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vipocc.priors.embedded.FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match=r"without the weights of 'embedded:depth'.*--prior simulated"):
        depth_fingerprint(DEPTH)


def test_all_fit_into_twelve_megabytes_in_half_precision(untrained: Path) -> None:
    from safetensors import safe_open

    files = [path for path in untrained.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < TOGETHER
    for name in MODELS:
        with safe_open(untrained / name / "model.safetensors", framework="pt") as file:
            kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118  it is no mapping
        assert kinds == {torch.float16}


def test_depth_goes_in_at_its_own_size(packaged: Path, street: np.ndarray) -> None:
    model = DepthAnything(DEPTH)
    seen = []
    model.network.backbone.embeddings.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2:]))
    for images in (street, street[:, :96, :320]):
        depth = model(images)
        assert depth.shape == images.shape[:3]
        assert ((depth > 0) & (depth <= 80)).all()
    assert [tuple(size) for size in seen] == [(196, 644), (196, 644)]
    fingerprint = depth_fingerprint(DEPTH)
    assert fingerprint["processor"]["size"] == {"height": 196, "width": 644}
    asked = depth_fingerprint(DEPTH.model_copy(update={"preprocessing": "official"}))
    assert asked["short_side"] == 518
    assert "processor" not in asked


def test_the_detector_goes_by_its_processor_unless_told(packaged: Path, street: np.ndarray) -> None:
    detector = GroundingDino(SAM)
    assert detector.sides == (192, 640)
    probabilities, boxes = detector.infer(street)
    assert boxes.shape == (1, 100, 4)
    assert probabilities.shape == (1, 100, len(detector.prompt.input_ids))
    fingerprint = instances_fingerprint(SAM)
    assert (fingerprint["shortest_side"], fingerprint["longest_side"]) == (192, 640)
    assert fingerprint["detector"]["model"] == "embedded:detector"
    assert fingerprint["licence"] == "mit"
    weights = detector_weights(SAM)
    assert detector_sides(SAM.model_copy(update={"longest_side": 320}), weights) == (192, 320)


def test_a_folder_without_a_processor_gets_the_published_sides(untrained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(untrained / "detector", tmp_path / "detector"))
    (folder / "preprocessor_config.json").unlink()
    config = SamConfig(detector=str(folder))
    assert detector_sides(config, detector_weights(config)) == (800, 1333)
    (folder / "preprocessor_config.json").write_text("[")
    with pytest.raises(CheckpointError, match="settings cannot be read"):
        detector_sides(config, detector_weights(config))


def test_sam_works_at_512(packaged: Path, street: np.ndarray) -> None:
    sam = Sam(SAM)
    assert sam.side == 512
    box = np.array([[40, 30, 200, 150]], np.float32)
    (masks,) = sam(street, [Detections(box, np.ones(1, np.float32), np.zeros(1, np.int16))])
    assert masks.shape == (1, 192, 640)


def test_the_prompt_may_say_anything(packaged: Path) -> None:
    from vipocc.priors.config import InstanceClass

    words = ("zebra crossing", "größe", "4x4", "car")
    classes = tuple(InstanceClass(label=word, phrases=(word,), sampling="gaussian") for word in words)
    prompt = GroundingDino(SAM.model_copy(update={"classes": classes})).prompt
    assert len(prompt.spans) == len(words)
    first, last = prompt.spans[-1]
    assert last - first == 1  # a word of the training is one piece, others are spelled
    assert prompt.spans[0][1] - prompt.spans[0][0] > 5


def test_processors_open_as_transformers_opens_them(untrained: Path) -> None:
    from transformers import AutoImageProcessor, AutoTokenizer

    sizes = {name: json.loads((untrained / name / "preprocessor_config.json").read_text())["size"] for name in MODELS}
    assert sizes == {
        "depth": {"height": 196, "width": 644},
        "detector": {"shortest_edge": 192, "longest_edge": 640},
        "segmenter": {"longest_edge": 512},
    }
    picture = np.zeros((192, 640, 3), np.uint8)
    shapes = {}
    for name in MODELS:
        processor = AutoImageProcessor.from_pretrained(untrained / name)
        shapes[name] = tuple(processor(images=picture, return_tensors="pt")["pixel_values"].shape)
    assert shapes == {"depth": (1, 3, 196, 644), "detector": (1, 3, 192, 640), "segmenter": (1, 3, 512, 512)}
    words = AutoTokenizer.from_pretrained(untrained / "detector")
    assert words("car.")["input_ids"][-2:] == [1012, 102]
