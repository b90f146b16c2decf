"""What a training step does with heads, depth branches and presets of every kind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import FRAMES, OVERRIDES, PERSPECTIVE, SEQUENCE, SIZE, TinyWorld, write
from torch import Tensor
from torch.utils.data import default_collate
from toy_heads import TOYS, register

from vipocc import config as configuration
from vipocc.data_manifests.manifest import FrameKey, Manifest
from vipocc.errors import ConfigError, MissingInputError, StoreError, UsageError
from vipocc.evaluation.depth.run import networks
from vipocc.evaluation.inputs import FrameSource, map_readers
from vipocc.evaluation.occupancy import predict_density
from vipocc.evaluation.predictors.interface import Batch as Frames
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.evaluation.stream import stream_reference
from vipocc.model.network import ViPOcc
from vipocc.stores.reader import StoreReader
from vipocc.stores.spec import ArraySpec, StoreSpec
from vipocc.training import losses
from vipocc.training.batch import Batch, mirror
from vipocc.training.inputs import training_inputs
from vipocc.training.rays import patch_colours, patch_pixels, patch_rays
from vipocc.training.samples import Share, TrainingSamples
from vipocc.training.session import start_training
from vipocc.training.step import needs_depth_branch, needs_prior, prepare, training_losses, training_means
from vipocc.training.table import sample_table
from vipocc.training.validation import Validation
from vipocc.workspace import Workspace

CPU = torch.device("cpu")
NARROW = "model.head.pixelnerf={width: 16, blocks: 2, conditioned_blocks: 1}"


def configured(preset: str, *overrides: str, profile: str | None = None) -> Any:
    return configuration.load(preset, profile=profile, overrides=(*OVERRIDES, NARROW, *overrides))


def raw_batch(workspace: Workspace, config: Any, positions: tuple[int, ...] = (0, 1)) -> dict[str, Tensor]:
    """A batch as the trainer gets it, from whatever stores the configuration needs."""
    manifest = Manifest.load(workspace.manifest)
    table = sample_table(manifest, "train", config.data)
    paths = training_inputs(workspace, manifest, table, config, auto=False)
    samples = TrainingSamples(table, paths, config.training, config.data.image_size, config.seed)
    raw: dict[str, Tensor] = default_collate([samples[position] for position in positions])
    return raw


def a_model(config: Any) -> ViPOcc:
    torch.manual_seed(0)
    return ViPOcc(config.model, config.data.convention).train()


def step(model: ViPOcc, batch: Batch, config: Any) -> dict[str, Tensor]:
    """One step of Adam; returns the losses before it."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    terms = training_losses(model, batch, config.training, jitter=torch.Generator().manual_seed(0))
    terms["total"].backward()
    optimiser.step()
    return {name: term.detach() for name, term in terms.items()}


def with_labels(batch: Batch) -> Batch:
    label = torch.randint(0, 4, (len(batch.images), 1, *SIZE), generator=torch.Generator().manual_seed(2))
    return replace(batch, maps={"label": label.to(torch.uint8)})


TERMS = {
    "ablations/baseline": {"rgb"},
    "ablations/random": {"rgb"},
    "ablations/snog": {"rgb"},
    "ablations/temporal": {"rgb", "temporal"},
    "ablations/consistency": {"rgb", "depth"},
    "bts": {"rgb", "smoothness"},
    "bts_snog": {"rgb", "smoothness"},
    "pixelnerf": {"rgb", "smoothness"},
}
"""Losses of the presets that have others than all three of the paper."""


@pytest.fixture(scope="module")
def bare(shared_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The tiny world without pseudo-depth and anchors."""
    folder = tmp_path_factory.mktemp("bare") / "workspace"
    ignored = shutil.ignore_patterns("runs", "depth.*", "anchors.*")
    shutil.copytree(shared_world.workspace.path, folder, ignore=ignored)
    return Workspace.open(folder)


@pytest.mark.parametrize("preset", configuration.available())
def test_every_preset_does_a_step(preset: str, shared_world: TinyWorld) -> None:
    config = configured(preset)
    model = a_model(config)
    raw = raw_batch(shared_world.workspace, config)
    assert raw["images"].shape[1] == (4 if preset == "vipocc_kitti_raw" else 8)
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    terms = step(model, prepare(raw, config.training, CPU), config)
    assert set(terms) - {"total"} == TERMS.get(preset, {"rgb", "depth", "temporal"})
    assert all(torch.isfinite(term) for term in terms.values())
    # What follows a layer that begins at zero gets its first gradient in the second step.
    late = ("depth_branch.encoder.", "depth_branch.decoder.", "head.blocks.")
    for name, tensor in model.named_parameters():
        assert not torch.equal(tensor, before[name]) or name.startswith(late), name
        assert tensor.grad is not None, name


@pytest.mark.parametrize("preset", ["bts", "bts_snog", "pixelnerf", "vipocc_kitti_raw", "ablations/depth"])
def test_presets_do_a_step_in_the_official_profile(preset: str, shared_world: TinyWorld) -> None:
    config = configured(preset, profile="official")
    raw = raw_batch(shared_world.workspace, configured(preset, "data.convention=centre", "data.resize=area"))
    terms = step(a_model(config), prepare(raw, config.training, CPU), config)
    assert all(torch.isfinite(term) for term in terms.values())
    assert ("temporal" in terms) == (preset == "ablations/depth")


@pytest.mark.parametrize("preset", ["ablations/baseline", "ablations/random", "ablations/depth", "bts", "pixelnerf"])
def test_what_needs_no_prior_asks_for_none(preset: str, bare: Workspace) -> None:
    raw = raw_batch(bare, configured(preset))
    assert "prior_depth" not in raw


@pytest.mark.parametrize(("preset", "lacking"), [("ablations/full", "pseudo-depth"), ("bts_snog", "anchors")])
def test_what_needs_priors_asks_for_them(preset: str, lacking: str, bare: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match=lacking):
        raw_batch(bare, configured(preset))


def test_without_a_depth_branch_its_losses_are_left_out_whatever_their_weights() -> None:
    config = configured("vipocc", "model.depth_branch.kind=none")
    assert config.training.loss.depth > 0
    assert not needs_depth_branch(config.training, config.model.depth_branch)
    plain = configured("ablations/depth")
    assert needs_depth_branch(plain.training, plain.model.depth_branch)
    assert not needs_prior(plain.training, plain.model.depth_branch)
    full = configured("vipocc")
    assert needs_prior(full.training, full.model.depth_branch)


def test_a_missing_prior_is_one_error(shared_world: TinyWorld) -> None:
    config = configured("vipocc")
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    with pytest.raises(UsageError, match="needs a pseudo-depth"):
        training_losses(a_model(config), replace(batch, prior_depth=None), config.training)


def test_rows_of_the_ablation_table_differ_in_what_they_name() -> None:
    def told(row: str) -> tuple[str, str, bool, bool]:
        config = configuration.load(f"ablations/{row}")
        branch, training = config.model.depth_branch, config.training
        asked = needs_depth_branch(training, branch)
        return (
            branch.kind, training.sampler, asked and training.loss.depth > 0, asked and training.loss.temporal > 0
        )  # fmt: skip

    assert {
        name.partition("/")[2]: told(name.partition("/")[2]) for name in configuration.available() if "/" in name
    } == {
        "baseline": ("none", "uniform", False, False),
        "depth": ("depth", "uniform", True, True),
        "residual_depth": ("residual", "uniform", True, True),
        "inverse_depth": ("inverse_residual", "uniform", True, True),
        "random": ("none", "uniform", False, False),
        "snog": ("none", "snog", False, False),
        "temporal": ("inverse_residual", "uniform", False, True),
        "consistency": ("inverse_residual", "uniform", True, False),
        "both_losses": ("inverse_residual", "uniform", True, True),
        "full": ("inverse_residual", "snog", True, True),
    }
    full, vipocc = (configuration.as_dict(configuration.load(name)) for name in ("ablations/full", "vipocc"))
    assert {**full, "preset": "vipocc"} == vipocc


def test_bts_with_snog_differs_in_the_sampler_alone() -> None:
    bts, snog = (configuration.as_dict(configuration.load(name)) for name in ("bts", "bts_snog"))
    snog["preset"], snog["training"]["sampler"] = "bts", "uniform"
    assert bts == snog


def test_kitti_raw_is_trained_as_published() -> None:
    config = configuration.load("vipocc_kitti_raw")
    training = config.training
    assert (training.epochs, training.batch_size, training.patches, training.depth_patches) == (50, 16, 32, 16)
    assert training.patches * training.patch_size**2 == 2048
    assert training.colour_jitter
    assert not config.data.fisheye


@pytest.mark.parametrize("preset", ["vipocc", "vipocc_kitti_raw", "bts", "pixelnerf", "bts_snog", "ablations/full"])
@pytest.mark.parametrize("profile", ["paper", "official"])
def test_schedules_do_not_depend_on_the_batch(preset: str, profile: str) -> None:
    from vipocc.training.schedule import learning_rate, total_samples

    keys = 98_008
    rates = []
    for batch in (1, 7, 64):
        config = configuration.load(preset, profile=profile, overrides=[f"training.batch_size={batch}"]).training
        total = total_samples(config, keys)
        rates.append([total, *(learning_rate(config, seen, total) for seen in range(0, total, total // 997))])
    assert rates[0] == rates[1] == rates[2]
    assert rates[0][0] == (50 if "raw" in preset else 25) * keys
    assert rates[0][1] == pytest.approx(1e-4)
    assert rates[0][-1] < 2e-5


@pytest.mark.parametrize("kind", TOYS)
def test_heads_of_other_shapes_train(kind: str, shared_world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    config = configured("vipocc", f"model.head.kind={kind}")
    model = a_model(config)
    batch = with_labels(prepare(raw_batch(shared_world.workspace, config), config.training, CPU))
    terms = [step(model, batch, config) for _ in range(3)]
    assert terms[-1]["total"] < terms[0]["total"]
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None, name


def test_a_head_gets_the_views_after_the_key_in_their_own_place(
    shared_world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    config = configured("vipocc", "model.head.kind=two-views", "training.flip=none")
    model = a_model(config)
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    seen: list[Any] = []
    prepare_head = model.head.prepare
    monkeypatch.setattr(
        model.head, "prepare", lambda features, inputs: seen.append(inputs) or prepare_head(features, inputs)
    )
    training_means(model, batch, config.training)
    inputs = seen[0]
    assert inputs.features.shape[:2] == (2, 2)
    assert torch.equal(inputs.images, batch.images[:, :2])
    torch.testing.assert_close(inputs.view_from_key[:, 1] @ batch.key_from_view[:, 1], torch.eye(4).expand(2, 4, 4))
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_views(inputs.images, inputs.intrinsics_ndc, inputs.view_from_key).features[:, 1],
            model.encode(batch.images[:, 1]),
        )


def test_more_views_than_a_sample_has_are_refused(shared_world: TinyWorld) -> None:
    config = configured("pixelnerf", "model.head.pixelnerf.views=9")
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    with pytest.raises(ConfigError, match="asks for 9 source views, but a sample has 8"):
        training_losses(a_model(config), batch, config.training)


def test_a_map_that_is_missing_names_the_option(shared_world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    config = configured("vipocc", "model.head.kind=labels")
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    with pytest.raises(UsageError, match=r"per-pixel map 'label'"):
        training_losses(a_model(config), batch, config.training)


def test_maps_come_with_the_batch_and_are_mirrored_with_it(shared_world: TinyWorld) -> None:
    config = configured("vipocc", "training.flip=none")
    raw = raw_batch(shared_world.workspace, config)
    label = torch.randint(0, 9, (2, *SIZE), dtype=torch.uint8)
    feature = torch.rand(2, 12, 24, 5).half()
    batch = prepare({**raw, "map/label": label, "map/feature": feature}, config.training, CPU)
    assert torch.equal(batch.maps["label"][:, 0], label)
    assert batch.maps["feature"].shape == (2, 5, 12, 24)
    assert torch.equal(batch.maps["feature"][1, 3], feature[1, ..., 3])
    mirrored = mirror(replace(batch, mirrored=torch.tensor([False, True])))
    for name, stored in batch.maps.items():
        assert torch.equal(mirrored.maps[name][0], stored[0])
        assert torch.equal(mirrored.maps[name][1], stored[1].flip(-1))


def test_maps_come_from_their_own_store_in_training_validation_and_evaluation(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch, quiet: Callable[[str], None]
) -> None:
    register(monkeypatch)
    options = "model.head.kind=labels", "training.max_steps=2", "training.validate_every=2"
    asked = (*options, "model.head.maps={label: {store: language, array: label}}")
    with pytest.raises(MissingInputError, match=r"lacks 12 of the density head's maps 'label': .*language.zarr"):
        raw_batch(world.workspace, configured("demo", *asked))
    groups = [f"{SEQUENCE}/{camera}" for camera in PERSPECTIVE]
    rng = np.random.default_rng(0)
    labels = {group: {"label": rng.integers(0, 4, (FRAMES, *SIZE)).astype(np.uint8)} for group in groups}
    array = ArraySpec("label", SIZE, "uint8", 0, ("y", "x"), "1")
    spec = StoreSpec("language", (array,), attributes={"dataset": "synthetic"})
    write(world.workspace.store("language"), spec, labels)
    with pytest.raises(StoreError, match=r"no array 'word' for .* map 'label'.*maps.label.array to one of label"):
        raw_batch(
            world.workspace, configured("demo", *options, "model.head.maps={label: {store: language, array: word}}")
        )

    config = configured("demo", *asked)
    manifest = Manifest.load(world.workspace.manifest)
    table = sample_table(manifest, "train", config.data)
    paths = training_inputs(world.workspace, manifest, table, config)
    samples = TrainingSamples(table, paths, config.training, config.data.image_size, config.seed)
    sample = samples[3]
    group, row = table.groups[int(table.group[sample["index"], 0])], int(table.row[sample["index"], 0])
    assert np.array_equal(sample["map/label"], labels[group]["label"][row])
    together = samples.batch(Share(range(2, 5), 2)).tensors()["map/label"]
    assert np.array_equal(together[1].numpy(), sample["map/label"])

    summary = start_training(world.workspace, config, name="labels", say=quiet)
    assert summary.steps == 2
    assert {"rendered_depth/abs_rel", "occupancy/o_acc"} <= summary.figures.keys()
    model = ViPOcc.from_pretrained(summary.checkpoint)
    held = map_readers(world.workspace, config)
    source = FrameSource(manifest, StoreReader(world.workspace.store("frames")), config, held)
    keys = [key for key in manifest.keys("val") if key.camera == "image_00"]
    batch = next(stream_reference(source, keys, 2, CPU))
    some, images, intrinsics, maps = batch.keys, batch.images, batch.intrinsics_ndc, batch.maps
    assert np.array_equal(maps["label"][1, 0].numpy(), labels[f"{SEQUENCE}/image_00"]["label"][some[1].row])
    density = predict_density(model, images, intrinsics, maps)
    other = predict_density(model, images, intrinsics, {"label": 3 - maps["label"]})
    assert not np.allclose(density, other)
    depths = NetworkDepth(model, "rendered").depth(batch)
    assert [tuple(depth.shape) for depth in depths] == [tuple(images.shape[-2:])] * 2


def test_the_encoder_sees_chosen_samples_mirrored(shared_world: TinyWorld) -> None:
    config = configured("bts")
    model = a_model(config).eval()
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    with torch.no_grad():
        chosen = torch.tensor([False, True])
        inputs = model.encode_views(
            batch.images[:, :1], batch.intrinsics[:, :1], batch.key_from_view[:, :1], mirrored=chosen
        )
        expected = [model.encode(batch.images[at, :1], flip=bool(flip))[0] for at, flip in enumerate(chosen)]
    torch.testing.assert_close(inputs.features[:, 0], torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_smoothness_is_that_of_the_rendered_patches(shared_world: TinyWorld) -> None:
    config = configured("bts", "training.loss.invalid_rays=none", "training.flip=none")
    model = a_model(config).eval()
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    with torch.no_grad():
        terms = training_losses(model, batch, config.training)
        pixels = patch_pixels(batch.centres, 8)
        rays = patch_rays(pixels, batch.patch_views, batch.intrinsics, batch.key_from_view, SIZE, "centre")
        depth = model.render(model.encode(batch.images[:, 0]), batch.intrinsics[:, 0], rays).distance
        target = patch_colours(batch.images, pixels, batch.patch_views)
        shape = pixels.shape[:-1]
        expected = losses.smoothness_reference(depth.reshape(shape), target, torch.zeros(shape, dtype=torch.bool))
    torch.testing.assert_close(terms["smoothness"], expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(terms["total"], 2.0 * terms["rgb"] + 0.001 * terms["smoothness"])


def test_colour_of_the_network_is_what_is_compared(shared_world: TinyWorld) -> None:
    config = configured(
        "pixelnerf", "training.loss.smoothness=0", "training.flip=none", "training.loss.invalid_rays=none"
    )
    model = a_model(config).eval()
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    with torch.no_grad():
        first = training_losses(model, batch, config.training)["rgb"]
        # Other views change nothing: colours are not looked up in them.
        other = batch.images.clone()
        unused = [view for view in range(1, 8) if not (batch.patch_views == view).any()]
        other[:, unused] = 0.0
        assert unused
        assert torch.equal(training_losses(model, replace(batch, images=other), config.training)["rgb"], first)
        torch.nn.init.zeros_(model.head.output.weight)  # type: ignore[union-attr, arg-type]
        grey = training_losses(model, batch, config.training)["rgb"]
        target = patch_colours(batch.images, patch_pixels(batch.centres, 8), batch.patch_views)
        error = losses.colour_error(torch.full_like(target, 0.5)[..., None, :], target)
    torch.testing.assert_close(grey, error.mean(), rtol=1e-4, atol=1e-6)


def test_calibrations_of_a_batch_may_differ(shared_world: TinyWorld) -> None:
    config = configured(
        "vipocc_kitti_raw", "training.flip=none", "training.colour_jitter=false", "training.loss.average=all"
    )
    model = a_model(config).eval()  # batch normalisation does not mix samples then
    batch = prepare(raw_batch(shared_world.workspace, config), config.training, CPU)
    scale = torch.tensor([[1.0, 1.0, 1.0], [1.1, 1.2, 1.0]])
    batch = replace(batch, intrinsics=batch.intrinsics * scale[:, None, :, None])
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}

    def alone(at: int) -> dict[str, Tensor]:
        one = replace(batch, **{name: value[at : at + 1] for name, value in tensors.items()})
        return training_losses(model, one, config.training)

    with torch.no_grad():
        both, first, second = training_losses(model, batch, config.training), alone(0), alone(1)
    for name in ("rgb", "depth"):
        torch.testing.assert_close(both[name], (first[name] + second[name]) / 2, rtol=1e-5, atol=1e-6)
    assert not torch.isclose(first["depth"], second["depth"], rtol=1e-3)


def test_colour_augmentation_is_drawn_where_the_preset_asks_for_it(shared_world: TinyWorld) -> None:
    for preset, asked in (("vipocc", False), ("bts", True), ("vipocc_kitti_raw", True)):
        config = configured(preset)
        assert ("colour_factors" in raw_batch(shared_world.workspace, config)) == asked


@pytest.mark.parametrize("preset", ["bts", "pixelnerf", "ablations/depth", "ablations/residual_depth"])
def test_models_of_presets_are_saved_and_loaded(preset: str, tmp_path: Path) -> None:
    config = configured(preset, profile="official")
    model = a_model(config).eval()
    model.save_pretrained(tmp_path, configuration.as_dict(config))
    loaded = ViPOcc.from_pretrained(tmp_path)
    assert loaded.config == model.config
    for (name, mine), (other, theirs) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)


def test_the_documentation_lists_every_preset() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    names = set(configuration.available())
    rows = set(re.findall(r"^\| `([\w/]+)`", page, flags=re.MULTILINE))
    rows |= set(re.findall(r"^\| [^|]+ \| `(ablations/\w+)`", page, flags=re.MULTILINE)) | {"demo"}
    assert names <= rows
    assert {name for name in rows if "/" in name} == {name for name in names if "/" in name}


@pytest.mark.parametrize(
    ("preset", "measured"), [("bts", False), ("pixelnerf", False), ("ablations/depth", True)], ids=str
)
def test_presets_without_a_prior_train_validate_and_evaluate(
    preset: str, measured: bool, bare: Workspace, quiet: Callable[[str], None]
) -> None:
    config = configured(preset, "training.max_steps=1", "training.log_every=1")
    name = preset.replace("/", "-")
    summary = start_training(bare, config, name=name, say=quiet)
    assert "rendered_depth/abs_rel" in summary.figures
    assert ("refined_depth/abs_rel" in summary.figures) == measured
    said = Validation.open(bare, Manifest.load(bare.manifest), config).describe()
    assert ("refined depth" in said) == measured, "a branch that is not there is not missed"
    model = ViPOcc.from_pretrained(summary.checkpoint)
    key = FrameKey(SEQUENCE, "image_00", 0)
    predicted = [one.name for one in networks(model, None, "") if one.missing(key) is None]
    assert predicted == (["rendered", "branch"] if measured else ["rendered"])
    images = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor([[1.2, 0.0, 0.0], [0.0, 1.9, -0.2], [0.0, 0.0, 1.0]])[None]
    for one in networks(model, None, ""):
        if one.name in predicted:
            (depth,) = one.depth(Frames([key], [], images, matrix))
            assert tuple(depth.shape) == tuple(SIZE)


@pytest.mark.gpu
@pytest.mark.parametrize("case", [*configuration.available(), *TOYS])
def test_a_step_on_cuda_has_the_losses_of_the_cpu(
    case: str, shared_world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks in float32, samples in the middle of their bins; convolutions on CUDA may still round to TF32."""
    register(monkeypatch)
    config = configured("vipocc", f"model.head.kind={case}") if case in TOYS else configured(case)
    raw, model = raw_batch(shared_world.workspace, config), a_model(config).use_precision("float32")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = []
    for device in ("cpu", "cuda"):
        model.load_state_dict(state)
        model.to(device)
        batch = prepare(raw, config.training, torch.device(device))
        batch = replace(with_labels(batch), maps={n: t.to(device) for n, t in with_labels(batch).maps.items()})
        terms = training_losses(model, batch, config.training)
        terms["total"].backward()
        gradients = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        found.append(({name: float(term.detach()) for name, term in terms.items()}, gradients))
        model.zero_grad()
    (here, mine), (there, theirs) = found
    assert there == pytest.approx(here, rel=2e-2, abs=1e-3)
    assert torch.nn.functional.cosine_similarity(mine, theirs, dim=0) > 0.98
