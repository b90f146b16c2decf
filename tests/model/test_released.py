"""Released checkpoints against the released networks written out from prose (`released_twin`)."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from model_cases import SMALL, intrinsics
from released_twin import Twin
from torch import Tensor

from vipocc import config as configuration
from vipocc.errors import CheckpointError
from vipocc.model.network import ViPOcc
from vipocc.model.released import layout
from vipocc.model.released.exporting import export_released, refuse_unknown_parts, released_state
from vipocc.model.released.importing import import_released, read_source
from vipocc.model.released.reading import read_released, understand, unused_entries
from vipocc.model.weights import shapes_of

State = dict[str, Tensor]
Twins = Mapping[str, Twin]


def official(system: str) -> ViPOcc:
    """Our model of the profile `official`, random."""
    changes = ["model.depth_branch.kind=none"] if system == "BTS" else []
    torch.manual_seed(0)
    model = configuration.load("vipocc", profile="official", overrides=changes).model
    return ViPOcc(model, "official", initialise=False)


@pytest.fixture(scope="module")
def ours() -> Mapping[str, ViPOcc]:
    return {system: official(system) for system in ("ViPOcc", "BTS")}


@pytest.fixture(scope="module")
def twins() -> Twins:
    return {"ViPOcc": Twin(), "BTS": Twin(bts=True)}


def empty_twin(*, bts: bool = False) -> Twin:
    """One whose tensors are all to be given."""
    with torch.device("meta"):
        return Twin(bts=bts)


@pytest.fixture(scope="module")
def files(twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files as the two trainers leave them: a training checkpoint of ViPOcc, the bare "best" state of BTS."""
    folder = tmp_path_factory.mktemp("released")
    paths = {"ViPOcc": folder / "training_checkpoint_306275.pt", "BTS": folder / "best_model.pt"}
    torch.save(training_checkpoint(twins["ViPOcc"].state_dict()), paths["ViPOcc"])
    torch.save(twins["BTS"].state_dict(), paths["BTS"])
    return paths


def training_checkpoint(model: Mapping[str, Tensor]) -> dict[str, Any]:
    """What ignite saves: the engine's place, the model, Adam's moments and the schedule, with numpy's scalars."""
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    return {
        "trainer": OrderedDict(epoch_length=12_251, max_epochs=25, iteration=306_275),
        "model": model,
        "optimizer": {"state": {0: moments}, "param_groups": [{"lr": np.float64(1e-6), "betas": (0.9, 0.999)}]},
        "lr_scheduler": {
            "step_size": 120_000,
            "gamma": 0.1,
            "_last_lr": [np.float64(1e-6)],
            "last_epoch": np.int64(306_275),
        },
    }


@pytest.fixture(scope="module")
def imported(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("imported")
    return {name: import_released(path, folder / name).folder for name, path in files.items()}


def test_the_twin_has_the_published_number_of_entries(twins: Twins) -> None:
    assert len(twins["ViPOcc"].state_dict()) == 534
    assert len(twins["BTS"].state_dict()) == 356


# Every row of the table in published_system.md, 3.8.
@pytest.mark.parametrize(
    ("system", "prefix", "parameters"),
    [
        ("ViPOcc", layout.ENCODER, 25_557_032),
        ("ViPOcc", layout.ENCODER + "fc.", 2_049_000),
        ("ViPOcc", layout.DECODER, 9_328_000),
        ("ViPOcc", layout.SECOND_DECODER, 9_025_796),
        ("ViPOcc", layout.HEAD, 6_721),
        ("ViPOcc", layout.BRANCH_ENCODER, 11_689_512),
        ("ViPOcc", layout.BRANCH_ENCODER + "fc.", 513_000),
        ("ViPOcc", layout.BRANCH_DECODER, 3_152_724),
        ("ViPOcc", layout.BRANCH, 14_842_236),
        ("ViPOcc", "", 58_759_785),
        ("ViPOcc", "renderer.", 43_917_549),
        ("BTS", "", 34_891_753),
    ],
)
def test_parameter_counts_of_our_model_with_the_unused_entries(
    ours: Mapping[str, ViPOcc], system: str, prefix: str, parameters: int
) -> None:
    assert layout.count(shapes_of(released_state(ours[system])), prefix) == parameters


def test_parameter_counts_of_what_is_and_is_not_used(ours: Mapping[str, ViPOcc]) -> None:
    model = ours["ViPOcc"]
    unused = unused_entries(model.config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 47_022_322
    assert layout.count(unused) == 11_737_463
    assert layout.count({name: shape for name, shape in unused.items() if name.startswith(layout.DECODER)}) == 147_648


def test_every_parameter_of_ours_gets_gradient(ours: Mapping[str, ViPOcc]) -> None:
    model = ours["ViPOcc"]
    image = torch.rand(1, 3, 64, 64)
    points = torch.tensor([[[0.0, 0.0, 5.0], [1.0, 0.2, 20.0]]])
    density = model.density(model.encode(image), points, intrinsics(1))
    depth = model.refine_depth(image, torch.full((1, 1, 64, 64), 10.0))
    (density.sum() + depth.sum()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("system", ["ViPOcc", "BTS"])
@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
def test_the_imported_model_is_the_released_one(
    twins: Twins, imported: dict[str, Path], system: str, size: tuple[int, int]
) -> None:
    twin, model = twins[system], ViPOcc.from_pretrained(imported[system])
    assert model.convention == "official"
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, *size, generator=generator)
    # Inside the image and outside; nearer than a metre, coordinates grow without bound and their last digit with them.
    points = torch.rand(2, 500, 3, generator=generator) * torch.tensor([30.0, 6.0, 90.0]) - torch.tensor(
        [15.0, 3.0, -1.0]
    )
    with torch.no_grad():
        features = twin.net.features(image * 2 - 1)[..., : size[0], : size[1]]
        assert features.std() > 0.01
        close(model.encode(image), features)
        density = twin.net.sigma(features, intrinsics(2), points)
        assert density.std() > 0.01
        close(model.density(features, points, intrinsics(2)), density)
        if system == "ViPOcc":
            prior = torch.rand(2, 1, *size, generator=generator) * 100
            refined = twin.res_inv_depth.refined(image * 2 - 1, prior)  # type: ignore[operator,union-attr]
            assert (refined - prior.clamp(0.1, 80)).abs().median() > 0.01
            # As inverse depth, since 1/D may come close to 0, where D magnifies the last digit of 1/D.
            close(1 / model.refine_depth(image, prior), 1 / refined[..., : size[0], : size[1]])


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_an_import_carries_the_configuration_that_the_file_implies(imported: dict[str, Path]) -> None:
    values = yaml.safe_load((imported["ViPOcc"] / "config.yaml").read_text())
    assert values["profile"] == "official"
    assert values["data"] == {"image_size": [192, 640], "convention": "official", "resize": "bilinear"}
    wanted = configuration.load("vipocc", profile="official").model
    assert configuration.validate(values["model"], type(wanted)) == wanted
    bts = yaml.safe_load((imported["BTS"] / "config.yaml").read_text())
    assert bts["model"]["depth_branch"]["kind"] == "none"
    assert bts["model"]["encoder"] == {"name": "resnet50", "width": 1.0, "pretrained": "imagenet-v1"}
    # A checkpoint's values are completed by a workspace's, as `vipocc eval` does.
    assert configuration.load(base={**configuration.as_dict(configuration.load("vipocc")), **bts}).profile == "official"


def test_an_import_says_what_it_was_made_of(imported: dict[str, Path], files: dict[str, Path]) -> None:
    source = read_source(imported["ViPOcc"])
    assert source is not None
    assert (source["file"], source["system"]) == (files["ViPOcc"].name, "ViPOcc")
    assert (source["iteration"], source["epoch"]) == (306_275, 25)
    assert (source["parameters"], source["unused_parameters"]) == (58_759_785, 11_737_463)
    assert source["not_read"] == ["lr_scheduler", "optimizer", "trainer"]
    bts = read_source(imported["BTS"])
    assert bts is not None
    assert (bts["system"], bts["iteration"], bts["not_read"]) == ("BTS", None, [])
    assert sorted(path.name for path in imported["BTS"].iterdir()) == [
        "README.md",
        "config.yaml",
        "model.safetensors",
        "source.json",
    ]
    assert json.dumps(source["sha256"]).strip('"') in (imported["ViPOcc"] / "README.md").read_text()


@pytest.mark.parametrize(("system", "bare"), [("ViPOcc", False), ("BTS", True)])
def test_an_export_loads_strictly_in_the_released_modules(
    twins: Twins, imported: dict[str, Path], tmp_path: Path, system: str, bare: bool
) -> None:
    done = export_released(imported[system], tmp_path / "out.pt", bare=bare)
    assert (done.system, done.entries, done.notes) == (system, len(twins[system].state_dict()), ())
    held = torch.load(tmp_path / "out.pt", weights_only=True)
    state = held if bare else held["model"]
    assert bare or list(held) == ["model"]
    other = empty_twin(bts=system == "BTS")
    other.load_state_dict(state, strict=True, assign=True)
    unused = unused_entries(ViPOcc.from_pretrained(imported[system]).config)
    before, after = twins[system].state_dict(), other.state_dict()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        if name in unused and not layout.is_buffer(name):
            assert not after[name].any(), name
        else:
            assert torch.equal(after[name], tensor), name


def test_unused_entries_can_be_left_out(ours: Mapping[str, ViPOcc]) -> None:
    state = released_state(ours["ViPOcc"], "omit")
    assert layout.count(shapes_of(state)) == 47_022_322
    missing = empty_twin().load_state_dict(state, strict=False, assign=True)
    assert not missing.unexpected_keys
    assert len(missing.missing_keys) == 28 + 2 * (2 + 6)


def test_a_file_without_unused_entries_is_read(imported: dict[str, Path], tmp_path: Path) -> None:
    done = export_released(imported["BTS"], tmp_path / "out.pt", unused="omit")
    assert (done.parameters, done.unused) == (32_695_105, 2_196_648)
    again = read_released(tmp_path / "out.pt")
    assert again.parameters == 32_695_105
    before = ViPOcc.from_pretrained(imported["BTS"]).state_dict()
    after = again.state()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["profile=paper"], "model.depth_branch.decoder=official"),
        (["model.depth_branch.refinement=paper"], "model.depth_branch.refinement=official"),
        (["model.depth_branch.kind=none", "model.head.kind=pixelnerf"], "model.head.kind=mlp"),
        (["model.depth_branch.kind=depth"], "model.depth_branch.kind=inverse_residual"),
        (["model.depth_branch.max_depth=100"], "model.depth_branch.max_depth=80"),
    ],
)
def test_what_the_released_code_does_not_know_is_refused(change: list[str], named: str) -> None:
    profile = "paper" if "profile=paper" in change else "official"
    overrides = [item for item in change if "profile" not in item]
    config = configuration.load("vipocc", profile=profile, overrides=overrides)
    with pytest.raises(CheckpointError, match=named):
        refuse_unknown_parts(config.model, "here")


def test_no_file_is_left_of_an_export_that_was_refused(tmp_path: Path) -> None:
    ViPOcc(SMALL, "official").save_pretrained(tmp_path / "made")
    with pytest.raises(CheckpointError, match="--profile official"):
        export_released(tmp_path / "made", tmp_path / "out.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_the_file_cannot_hold_is_noted(tmp_path: Path) -> None:
    changes = ["model.field.far=60", "model.encoder.name=resnet18", "model.field.base_frequency=2"]
    changes.append("model.depth_branch.kind=none")
    config = configuration.load("vipocc", profile="official", overrides=changes)
    ViPOcc(config.model, "centre", initialise=False).save_pretrained(tmp_path / "made")
    notes = export_released(tmp_path / "made", tmp_path / "out.pt").notes
    assert [note for note in notes if "half a pixel" in note]
    assert [note for note in notes if "z_far to 60" in note]
    back = read_released(tmp_path / "out.pt").config
    assert (back.encoder.name, back.field.base_frequency) == ("resnet18", 2.0)


def test_names_that_training_on_several_gpus_leaves_are_read(twins: Twins, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in twins["BTS"].state_dict().items()}
    torch.save({"model": state}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert read_released(tmp_path / "x.pt").system == "BTS"


def _without(name: str) -> Callable[[State], None]:
    return lambda state: state.__delitem__(name)


def _with(name: str, *shape: int) -> Callable[[State], None]:
    return lambda state: state.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("renderer.net.mlp_coarse.lin_out.bias"), r"renderer.net.mlp_coarse.lin_out.bias \[1\] is missing"),
        (_without("renderer.net.mlp_coarse.lin_in.weight"), "holds renderer.net.encoder.encoder.encoder.conv1.weight"),
        (
            _without("renderer.net.encoder.encoder.encoder.layer3.2.bn1.running_var"),
            r"layer3.2.bn1.running_var \[256\] is missing",
        ),
        (_with("renderer.net.empty_feature", 64), r"renderer.net.empty_feature \[64\] is unknown"),
        (_with("renderer.net.mlp_fine.lin_in.weight", 64, 103), r"mlp_fine.lin_in.weight \[64, 103\] is unknown"),
        (_with("renderer.net.encoder.encoder.encoder.fc.bias", 10), r"fc.bias is \[10\] but the model's is \[1000\]"),
        (
            _with("renderer.net.encoder.encoder.encoder.layer2.0.conv1.weight", 128, 256, 3, 3),
            r"layer2.0.conv1.weight is \[128, 256, 3, 3\] but the model's is \[128, 256, 1, 1\]",
        ),
        (_with("renderer.net.code_xyz._freqs", 1, 8, 1), "6 octaves of sine and cosine"),
        (_with("renderer.net.mlp_coarse.lin_in.weight", 64, 104), r"lin_in.weight is \[64, 104\] but .* \[64, 103\]"),
        (_with("renderer.net.mlp_coarse.lin_in.weight", 0, 103), "of no model that there is"),
        (_with("renderer.net.mlp_coarse.lin_in.weight"), "6|1 octaves|of no model"),
        (_with("res_inv_depth.scale", 1), "no res_inv_depth.decoder.decoder.0.conv.conv.bias"),
    ],
)
def test_what_does_not_fit_is_named(twins: Twins, change: Callable[[State], None], said: str) -> None:
    state = dict(twins["BTS"].state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=said) as caught:
        understand({"model": state}, Path("x.pt"))
    assert "x.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_learnt_scalars_of_another_ablation_are_refused(twins: Twins) -> None:
    state = {**twins["ViPOcc"].state_dict(), "res_inv_depth.scale": torch.zeros(())}
    with pytest.raises(CheckpointError, match=r"res_inv_depth.scale \[\] is unknown"):
        understand(state, Path("x.pt"))
