"""Training of the embedded models: it learns, resumes where it stopped, and what it saves the engines read."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vipocc.apps.embedded.architectures import build
from vipocc.apps.embedded.batches import Batches
from vipocc.apps.embedded.detector import DetectorTask
from vipocc.apps.embedded.pictures import MOST, Pictures
from vipocc.apps.embedded.prompts import tokenise
from vipocc.apps.embedded.saving import save_model
from vipocc.apps.embedded.segmenter import SegmenterTask, segmenter_input, to_image
from vipocc.apps.embedded.training import Plan, train
from vipocc.errors import CheckpointError
from vipocc.priors.config import SamConfig
from vipocc.priors.embedded import MODELS
from vipocc.priors.grounded_sam.detector import GroundingDino
from vipocc.priors.grounded_sam.records import Detections
from vipocc.priors.grounded_sam.segmenter import Sam

torch.set_num_threads(1)


def blocks(count: int = 2) -> Pictures:
    """Pictures of a bright block on the ground below the sky."""
    image = np.full((count, 192, 640, 3), 90, np.uint8)
    image[:, :90] = (150, 180, 230)
    thing, depth = np.ones((count, 192, 640), np.uint8), np.full((count, 192, 640), 20, np.float16)
    thing[:, :90], depth[:, :90] = 0, np.inf
    kind, box, area = (
        np.full((count, MOST), -1, np.int16),
        np.zeros((count, MOST, 4), np.float32),
        np.zeros((count, MOST)),
    )
    kind[:, :3] = 0, 1, 4
    for k in range(count):
        left = 100 + 150 * k
        image[k, 60:130, left : left + 90], thing[k, 60:130, left : left + 90] = (200, 40, 30), 2
        depth[k, 60:130, left : left + 90] = 8
        box[k, :3] = (0, 0, 640, 90), (0, 90, 640, 192), (left, 60, left + 90, 130)
        area[k, :3] = [(thing[k] == number).sum() for number in range(3)]
    return Pictures(image, depth, thing, kind, box, area.astype(np.int32))


class _Line:
    """A network of one weight that is to become 3."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Linear(1, 1, bias=False)

    def loss(self, batch: object, generator: torch.Generator) -> dict[str, torch.Tensor]:
        x = torch.rand(8, 1, generator=generator)
        return {"loss": (self.network(x) - 3 * x).square().mean()}


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    batches = Batches(blocks(), 1, 0, "cpu")
    plan = Plan(steps=40, batch=1, rate=0.3, worsen=False, decay=0)
    whole = _Line()
    assert train(whole, batches, plan, tmp_path / "whole").step == 40
    assert float(whole.network.weight.detach()) == pytest.approx(3, abs=0.2)

    class Stops(_Line):
        def loss(self, batch: object, generator: torch.Generator) -> dict[str, torch.Tensor]:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls > 17:
                raise KeyboardInterrupt
            return super().loss(batch, generator)

    often = Plan(**{**vars(plan), "save_every": 0.0})
    with pytest.raises(KeyboardInterrupt):
        train(Stops(), batches, often, tmp_path / "cut")
    rest = _Line()
    assert train(rest, batches, often, tmp_path / "cut").step == 40
    assert torch.equal(rest.network.weight, whole.network.weight)
    with pytest.raises(CheckpointError, match="another plan"):
        train(_Line(), batches, Plan(**{**vars(plan), "rate": 0.1}), tmp_path / "cut")
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 40]


def test_steps_that_do_not_fit_are_given_up(tmp_path: Path) -> None:
    batches = Batches(blocks(), 1, 0, "cpu")
    plan = Plan(steps=100_000, batch=1, rate=0.01, seconds=2.0, worsen=False)
    done = train(_Line(), batches, plan, tmp_path)
    assert 60 < done.steps == done.step < 100_000


def test_the_detectors_training_sees_what_its_engine_sees(tmp_path: Path) -> None:
    """Same weights, same pictures: the same logits and boxes, so that what is learnt is what is used."""
    network = build("detector", 0).eval()
    torch.manual_seed(1)
    for layer in network.model.decoder.bbox_embed:
        torch.nn.init.normal_(layer.layers[-1].weight, std=0.1)
    save_model("detector", network, tmp_path / "detector", {})
    engine = GroundingDino(SamConfig(detector=str(tmp_path / "detector"), batch_size=2))
    pictures = blocks()
    probabilities, boxes = engine.infer(pictures.image)
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    task = DetectorTask(network, "cpu")
    batch = Batches(pictures, 2, 0, "cpu").draw(0, worsen=False)[0]
    batch = batch._replace(image=torch.from_numpy(pictures.image).permute(0, 3, 1, 2).float() / 255)
    phrases = tuple(phrase for entry in engine.config.classes for phrase in entry.phrases)
    prompt = tokenise(phrases, task.words)
    task.text.prompt = prompt
    with torch.no_grad():
        logits, found = task._layers(task._run(batch, prompt), prompt.ids.shape[1])
    np.testing.assert_allclose(logits[-1].sigmoid().numpy(), probabilities, atol=2e-4)
    np.testing.assert_allclose(found[-1].numpy(), boxes, atol=2e-4)


def test_the_segmenters_training_sees_what_its_engine_sees(tmp_path: Path) -> None:
    network = build("segmenter", 0).eval()
    save_model("segmenter", network, tmp_path / "sam", {})
    engine = Sam(SamConfig(segmenter=str(tmp_path / "sam"), batch_size=2))
    pictures = blocks()
    boxes = pictures.box[:, 2:3]
    masks = engine(pictures.image, [Detections(one, np.ones(1, np.float32), np.zeros(1, np.int16)) for one in boxes])
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    task = SegmenterTask(network, "cpu")
    image = torch.from_numpy(pictures.image).permute(0, 3, 1, 2).float() / 255
    prompts = torch.from_numpy(boxes[:, 0]) * torch.tensor([512 / 640, 154 / 192, 512 / 640, 154 / 192])
    with torch.no_grad():
        embeddings = network.vision_encoder(segmenter_input(image)).last_hidden_state
        logits = to_image(task._decode(embeddings, torch.arange(2), prompts), (192, 640))
    differ = [(mask[0] != (mine > 0).numpy()).mean() for mask, mine in zip(masks, logits, strict=True)]
    assert max(differ) < 0.01  # pillow rounds to bytes in between


def test_every_loss_reaches_every_part(tmp_path: Path) -> None:
    """No weight that the engines use is left out by the loss."""
    spared = (
        "pooler",
        "mask_tokens",
        "iou_",
        "point_embed",
        "mask_embed",
        "output_hypernetworks_mlps",
        "mask_token",
        "layers.0.residual_layer1",
        "swin.layernorm",
    )
    from vipocc.apps.embedded.recipes import TASKS

    batches = Batches(blocks(1), 1, 0, "cpu")
    for name in MODELS:
        task = TASKS[name](build(name, 0), "cpu")
        batch, generator = batches.draw(0, worsen=False)
        task.loss(batch, generator)["loss"].backward()
        without = [
            key for key, value in task.network.named_parameters()
            if value.requires_grad and value.grad is None and not any(part in key for part in spared)
        ]  # fmt: skip
        assert without == [], name


@pytest.mark.gpu
def test_losses_on_cuda_are_those_on_the_cpu(tmp_path: Path) -> None:
    from vipocc.apps.embedded.recipes import TASKS

    pictures = blocks()
    for name in MODELS:
        found = []
        for device in ("cpu", "cuda"):
            task = TASKS[name](build(name, 0), device)
            batches = Batches(pictures, 2, 0, device)
            found.append(float(task.loss(*batches.draw(0))["loss"].detach()))
            assert train(task, batches, Plan(steps=3, batch=2, rate=1e-4), tmp_path / name / device).step == 3
        assert found[1] == pytest.approx(found[0], rel=0.02), name


@pytest.mark.slow
def test_the_whole_run_ends_in_models_that_the_package_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vipocc.apps.embedded.recipes import run_all
    from vipocc.priors.weights import find_weights

    summary = run_all(
        tmp_path / "out", tmp_path / "work", drives=1, rows=2, jobs=1, device="cpu", steps=20, seconds=None,
        commit="0" * 40, batch=2,
    )  # fmt: skip
    assert summary["bytes"] < 12_000_000
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "embedded.tar", "metrics.json", "sheet.png", "depth.jsonl", "detector.jsonl", "segmenter.jsonl",
    }  # fmt: skip
    for name, keys in {"depth": {"abs_rel"}, "detector": {"ap50_car"}, "segmenter": {"mask_iou"}}.items():
        record = summary["records"][name]
        assert keys <= record["metrics"].keys()
        assert record["steps"] == 20
    with tarfile.open(tmp_path / "out" / "embedded.tar") as archive:
        archive.extractall(tmp_path / "package", filter="data")
    monkeypatch.setattr("vipocc.priors.embedded.FOLDER", tmp_path / "package")
    for name in MODELS:
        assert find_weights(f"embedded:{name}", None, "--model").licence == "mit"
