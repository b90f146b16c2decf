"""The examples of docs/adding-a-prior.md, installed as another package and run by the commands from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from installed_sources import forget, install
from safetensors.torch import save_file
from small_world import arguments, reader, tree

from vipocc import config as configuration
from vipocc.cli import run
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import prepared_intrinsics
from vipocc.evaluation.session import source_note
from vipocc.priors.sources import names
from vipocc.workspace import Workspace

PAGE = Path(__file__).parents[3] / "docs/adding-a-prior.md"

#: In the place of Depth Anything 3's own package: depth from the red channel, smaller where the network's input is.
STAND_IN = """
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file


@dataclass
class Prediction:
    depth: np.ndarray


class DepthAnything3(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, folder):
        network = cls()
        network.scale = float(load_file(Path(folder) / "model.safetensors")["scale"])
        return network

    def inference(self, image, process_res):
        assert len(image) == 1
        height, width = image[0].shape[:2]
        size = (process_res, round(process_res * height / width))
        small = cv2.resize(image[0], size, interpolation=cv2.INTER_AREA)
        return Prediction(self.scale * (10 + small[None, :, :, 0].astype(np.float32) / 25.5))
"""

Told = Callable[..., tuple[int, str]]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's two modules and their entry points, and the stand-in."""
    page = PAGE.read_text()
    blocks = re.findall(r'^```python\n("""(\w+)\.py: .*?)^```$', page, re.MULTILINE | re.DOTALL)
    points: dict[str, dict[str, str]] = {}
    for group, name, target in re.findall(r'\[project\.entry-points\."([\w.]+)"\]\n +([\w-]+) = "([\w:]+)"', page):
        points.setdefault(group, {})[name] = target
    assert [name for _, name in blocks] == ["my_depth", "my_instances"]
    assert sorted(points) == ["vipocc.priors.depth", "vipocc.priors.instances"]
    modules = {name: text for text, name in blocks}
    modules |= {"depth_anything_3.__init__": "", "depth_anything_3.api": STAND_IN}
    install(tmp_path / "site", monkeypatch, modules, points)
    yield
    forget({**modules, "depth_anything_3": ""})


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Told:
    def call(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        code = run(arguments(*words))
        return code, "".join(capfd.readouterr())

    return call


def depth_weights(folder: Path, scale: float) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    save_file({"scale": torch.tensor(scale)}, folder / "model.safetensors")
    return folder


def sam2_weights(folder: Path) -> Path:
    """Write a SAM 2 of about 0.1 M parameters whose masks vary."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=8, image_size=[128, 128], blocks_per_stage=[1, 1, 1, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[8, 4, 4, 4], global_attention_blocks=[],
        window_positional_embedding_background_size=[4, 4],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]], fpn_hidden_size=32,
    )  # fmt: skip
    prompts = Sam2PromptEncoderConfig(hidden_size=32, image_size=128, patch_size=16, mask_input_channels=4)
    decoder = Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16)
    before = torch.random.get_rng_state()
    torch.manual_seed(0)
    network = Sam2Model(Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder))
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    torch.random.set_rng_state(before)
    network.eval().save_pretrained(folder)
    return folder


def test_a_depth_model_from_dry_run_to_report(installed: None, workspace: Path, tmp_path: Path, told: Told) -> None:
    assert "depth-anything-3" in names("depth")
    model, other = depth_weights(tmp_path / "da3", 1.5), depth_weights(tmp_path / "other", 2.0)
    place = ("priors", "depth", "-C", str(workspace), "--split", "train", "--store", "da3")
    command = (
        *place, "--prior", "depth-anything-3", "--model", str(model), "--batch-size", "3",
        "-o", "priors.options.depth-anything-3.longest_side=320",
    )  # fmt: skip
    before = tree(workspace)
    code, output = told(*command, "--dry-run")
    assert code == 0, output
    assert re.search(
        r"^depth: 10 of 10 rows in 2 units, .* kB, about .* in 1 process; da3 \(apache-2.0\)$", output, re.M
    )
    assert tree(workspace) == before

    code, output = told(*command)
    assert code == 0, output
    assert output.startswith(
        "depth by da3; synthetic, split train, 96x320, on cpu, into stores/synthetic/depth-da3.zarr"
    )
    found, frames = reader(workspace, "depth", "da3"), reader(workspace, "frames")
    opened = Workspace.open(workspace)
    manifest = Manifest.load(opened.manifest, dataset=opened.dataset, root=opened.root)
    config = configuration.load("demo", overrides=arguments()[1::2])
    for group in found.groups():
        rows = np.flatnonzero(found.rows(group))
        assert len(rows) == 5
        intrinsics = prepared_intrinsics(manifest, *group.split("/"), config.data)
        focal = (intrinsics[0, 0] + intrinsics[1, 1]) / 2
        metres = 1.5 * (10 + frames.read_many(group, rows, "rgb")[..., 0] / 25.5) * focal / 300
        np.testing.assert_allclose(found.read_many(group, rows).astype(np.float64), metres, rtol=1e-3)

    records = sorted(found.path.with_name("depth-da3.zarr.ledger").rglob("0*.json"))
    record = json.loads(records[0].read_text())
    made_by = {name: record["fingerprint"][name] for name in ("source", "model", "licence", "longest_side", "stored")}
    assert made_by == {
        "source": "depth-anything-3", "model": "da3", "licence": "apache-2.0", "longest_side": 320, "stored": "float16"
    }  # fmt: skip
    assert record["fingerprint"]["digest"]
    assert record["notes"] == {"batch_size": 3}

    before = tree(workspace)
    code, output = told(*command, "--dtype", "bfloat16", "--device", "cpu")
    assert code == 2
    assert "bfloat16 needs a CUDA device" in output
    assert "nothing to do" in told(*command)[1]
    assert tree(workspace) == before
    # Other weights, another option, another source: none mixes into the store.
    another_option = "priors.options.depth-anything-3.longest_side=504"
    for words, why in (
        ((*command, "--model", str(other)), "not by other (weights"),
        ((*command, "-o", another_option), "longest_side"),
        ((*place, "--prior", "simulated"), "not simulated from the exact truth"),
    ):
        for dry in ((), ("--dry-run",)):
            code, output = told(*words, *dry)
            assert code == 2, output
            assert why in output
            assert "--store NAME" in output
    assert tree(workspace) == before
    # Worker processes find the source too.
    code, output = told(*command, "--model", str(other), "--overwrite", "--jobs", "2")
    assert code == 0, output
    assert source_note(reader(workspace, "depth", "da3")) == "other"

    code, output = told("stores", "status", "depth-da3", "-C", str(workspace))
    assert code == 0
    assert output.count("  synthetic_drive_0000_sync/image_0") == 2
    assert "model other, " in output
    assert "source depth-anything-3, " in output


def test_a_dry_run_before_anything_is_there(installed: None, tmp_path: Path, told: Told) -> None:
    folder, model = tmp_path / "ws", depth_weights(tmp_path / "da3", 1.5)
    assert told("init", "--dataset", "synthetic", "-C", str(folder))[0] == 0
    before = tree(folder)
    command = ("priors", "depth", "-C", str(folder), "--prior", "depth-anything-3", "--model", str(model))
    code, output = told(*command, "--dry-run")
    assert code == 0, output
    assert "the synthetic world would be generated first: 11 frames" in output
    assert re.search(
        r"^depth: 14 of 14 rows in 4 units, .* kB, about .* in 1 process; da3 \(apache-2.0\)$", output, re.M
    )
    assert tree(folder) == before


def test_a_segmenter_from_dry_run_to_report(
    installed: None, workspace: Path, tmp_path: Path, tiny: dict[str, Path], told: Told
) -> None:
    place = ("-C", str(workspace), "--split", "train", "--store", "sam2")
    command = (
        "priors", "sam", *place, "--prior", "grounded-sam-2", "--segmenter", str(sam2_weights(tmp_path / "sam2")),
        "--detector", str(tiny["detector"]),
    )  # fmt: skip
    code, output = told(*command, "--dry-run")
    assert code == 0, output
    assert re.search(r"^instances: 10 of 10 rows in 2 units, .* kB, about .* in 1 process; detector \(", output, re.M)
    assert re.search(r"^anchors: 10 of 10 rows in 2 units, .* kB, about .* in 1 process; SNOG$", output, re.M)
    code, output = told(*command)
    assert code == 0, output
    instances, anchors = reader(workspace, "instances", "sam2"), reader(workspace, "anchors", "sam2")
    group = instances.groups()[0]
    rows = np.flatnonzero(instances.rows(group))
    assert instances.read_many(group, rows, "count").min() >= 3
    areas = instances.read_many(group, rows, "area")
    assert len(np.unique(areas)) > 5, "masks vary"
    assert anchors.rows(group).sum() == len(rows)
    made_by = instances.fingerprint(group)
    assert made_by is not None
    assert made_by["source"] == "grounded-sam-2"
    assert (made_by["detector"]["model"], made_by["segmenter"]["model"]) == ("detector", "sam2")
    assert (anchors.fingerprint(group) or {})["source"] == "grounded-sam-2"
    assert source_note(instances) == "detector and sam2"
    # The package's own networks do not mix in.
    own = ("--detector", str(tiny["detector"]), "--segmenter", str(tiny["segmenter"]))
    code, output = told("priors", "sam", *place, *own)
    assert code == 2
    assert "by detector (weights" in output
    assert "--store NAME" in output

    page = tmp_path / "page.html"
    code, output = told("priors", "report", "-C", str(workspace), "--store", "sam2", "--output", str(page))
    assert code == 0, output
    assert "grounded-sam-2" in page.read_text()
    assert "not installed" not in page.read_text()


def test_what_was_made_is_reported_where_the_source_is_gone(
    workspace: Path, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as here:
        modules = {"fleeting": FLEETING}
        install(tmp_path / "site", here, modules, {"vipocc.priors.depth": {"fleeting": "fleeting:Fleeting"}})
        place = ("priors", "depth", "-C", str(workspace), "--split", "train", "--prior", "fleeting")
        assert told(*place, "--store", "gone")[0] == 0
        code, output = told("priors", "report", "-C", str(workspace), "--store", "gone", "--json")
        assert code == 0
        page = tmp_path / "there.html"
        assert told("priors", "report", "-C", str(workspace), "--store", "gone", "--output", str(page))[0] == 0
        assert "Not for the eyes of children: depth." in page.read_text()
        summary, _ = json.JSONDecoder().raw_decode(output[output.index("{") :])
        assert summary["depth"]["share_at_cap"] == 1.0, "the source says that 33 m is as far as it sees"
    forget(modules)
    page = tmp_path / "gone.html"
    assert told("priors", "report", "-C", str(workspace), "--store", "gone", "--output", str(page))[0] == 0
    assert "source &#x27;fleeting&#x27;, which is not installed here" in page.read_text()
    code, output = told(*place)
    assert code == 2
    assert "is no source of depth; use one of auto, depth-anything-v2, simulated" in output


FLEETING = """
import numpy as np

from vipocc.priors.config import NetworkOptions
from vipocc.priors.sources import DepthSource


class Fleeting(DepthSource):
    name = "fleeting"
    Options = NetworkOptions

    def identity(self):
        weights = {"model": "constant", "revision": None, "digest": None, "licence": "none, it is a number"}
        return {**weights, "preprocessing": "1", "dtype": self.options.dtype}

    def load(self, device):
        return lambda images: np.full(images.rgb.shape[:3], 33.0)

    @classmethod
    def cap(cls, fingerprint):
        return 33.0

    @classmethod
    def remarks(cls, fingerprint):
        return ("not for the eyes of children",)
"""
