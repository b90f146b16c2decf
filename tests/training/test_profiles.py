"""Options of the two profiles, and their neighbours, do in a training step what their rows in docs/profiles.md say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_world import OVERRIDES, SIZE, TinyWorld
from torch import Tensor

from vipocc import config as configuration
from vipocc.data_manifests.manifest import Manifest
from vipocc.evaluation.predictors.interface import Batch as Frames
from vipocc.evaluation.predictors.network import NetworkDepth
from vipocc.model.config import ModelConfig
from vipocc.model.network import ViPOcc
from vipocc.training import losses
from vipocc.training.batch import Batch, share_choices
from vipocc.training.config import TrainingConfig
from vipocc.training.inputs import training_inputs
from vipocc.training.samples import TrainingSamples
from vipocc.training.step import training_losses, training_means
from vipocc.training.table import sample_table

PROFILES = ("paper", "official")
NARROW = {"name": "resnet18", "width": 0.125, "pretrained": "none"}
MODEL = {
    "encoder": NARROW,
    "decoder": {"widths": [8, 8, 8, 16, 16], "channels": 8},
    "field": {"hidden": 16},
    "depth_branch": {"encoder": NARROW, "widths": [8, 8, 8, 16, 16], "channels": 8},
    "renderer": {"samples": 16},
}


def training(profile: str, *overrides: str) -> TrainingConfig:
    few = ("training.patches=8", "training.depth_patches=4", *overrides)
    section: TrainingConfig = configuration.load("vipocc", profile=profile, overrides=few).training
    return section


@pytest.fixture(scope="module")
def model() -> ViPOcc:
    torch.manual_seed(0)
    # In evaluation mode, so that one sample's features do not depend on the others'.
    return ViPOcc(configuration.validate(MODEL, ModelConfig)).eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)

    def corner(patches: int) -> Tensor:
        places = torch.rand(2, patches, 2, generator=generator) * torch.tensor([SIZE[1] - 8.0, SIZE[0] - 8.0])
        return places.long() + 4

    intrinsics = torch.tensor([[0.7849, 0.0, -0.0312], [0.0, 1.6, 0.1], [0.0, 0.0, 1.0]])
    poses = torch.eye(4).repeat(2, 4, 1, 1)
    poses[:, 1:, :3, 3] = torch.rand(2, 3, 3, generator=generator) * 0.5
    return Batch(
        images=torch.rand(2, 4, 3, *SIZE, generator=generator),
        intrinsics=intrinsics.repeat(2, 4, 1, 1),
        key_from_view=poses,
        render_views=torch.tensor([[1, 2], [0, 3]]),
        centres=corner(8),
        patch_views=torch.tensor([[0, 3] * 4, [1, 2] * 4]),
        depth_centres=corner(4),
        mirrored=torch.tensor([False, True]),
        prior_depth=torch.rand(2, 2, *SIZE, generator=generator) * 40 + 3,
    )


def means(model: ViPOcc, batch: Batch, config: TrainingConfig) -> dict[str, losses.Mean]:
    with torch.no_grad():
        return training_means(model, batch, config)


def value(found: dict[str, losses.Mean], name: str = "rgb") -> float:
    return float(found[name].value)


@pytest.mark.parametrize(("profile", "weights"), [("paper", (1.0, 0.0025, 0.005)), ("official", (2.0, 0.005, 0.01))])
def test_weights(model: ViPOcc, batch: Batch, profile: str, weights: tuple[float, ...]) -> None:
    with torch.no_grad():
        terms = training_losses(model, batch, training(profile))
    parts = [float(terms[name]) for name in ("rgb", "depth", "temporal")]
    assert float(terms["total"]) == pytest.approx(sum(w * p for w, p in zip(weights, parts, strict=True)), rel=1e-6)
    assert min(parts) > 0


def test_only_the_released_temporal_loss_has_a_geometry_term(model: ViPOcc, batch: Batch) -> None:
    paper, official = (means(model, batch, training(profile)) for profile in PROFILES)
    assert "temporal/geometry" not in paper
    assert value(official, "temporal/geometry") > 0
    assert value(official, "temporal") != pytest.approx(value(paper, "temporal"), rel=1e-3), "clamped"


def test_only_the_released_colour_mean_counts_invalid_rays(model: ViPOcc, batch: Batch) -> None:
    # Render views that look away see nothing of half of the samples' patches.
    away = batch.key_from_view.clone()
    away[1, [0, 3], :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    turned = replace(batch, key_from_view=away)
    paper, official = (means(model, turned, training(profile))["rgb"] for profile in PROFILES)
    assert float(official.count) == 2 * 8 * 64
    assert 0 < float(paper.count) <= 8 * 64
    assert float(paper.total) == pytest.approx(float(official.total), rel=1e-6)


def test_the_released_flip_mirrors_features_alone(model: ViPOcc, batch: Batch) -> None:
    features, none = training("paper", "training.flip=features"), training("paper", "training.flip=none")
    straight = replace(batch, mirrored=torch.zeros(2, dtype=torch.bool))
    assert value(means(model, straight, features)) == value(means(model, straight, none))
    flipped = replace(batch, mirrored=torch.ones(2, dtype=torch.bool))
    shown: list[Tensor] = []
    handle = model.encoder.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    found = means(model, flipped, features)
    handle.remove()
    assert torch.equal(shown[0], batch.images[:, 0].flip(-1))
    # Only what the density field reads differs: the temporal loss has none of it, the prior meets unflipped images.
    assert value(found, "temporal") == value(means(model, straight, none), "temporal")
    assert value(found) != pytest.approx(value(means(model, straight, none)), rel=1e-6)
    with torch.no_grad():
        assert torch.equal(model.encode(batch.images[:, 0], flip=True), model.encode(shown[0]).flip(-1))


def test_one_coin_and_one_set_of_patches_for_a_released_batch(batch: Batch) -> None:
    assert [training(profile).shared_patches for profile in PROFILES] == [False, True]
    shared = share_choices(batch)
    for name in ("centres", "patch_views", "depth_centres", "render_views", "mirrored"):
        values = getattr(shared, name)
        assert torch.equal(values[0], values[1])
        assert torch.equal(values[0], getattr(batch, name)[0])


@pytest.mark.parametrize("criterion", ["l1+ssim", "l1", "l2"])
def test_criterion(model: ViPOcc, batch: Batch, criterion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = losses.colour_error

    def watched(rendered: Tensor, target: Tensor, kind: losses.Criterion) -> Tensor:
        seen.append((rendered, target))
        return real(rendered, target, kind)

    monkeypatch.setattr(losses, "colour_error", watched)
    config = training("paper", f"training.loss.criterion={criterion}", "training.loss.invalid_rays=none")
    got = value(means(model, batch, config))
    ((rendered, target),) = seen
    assert rendered.shape == (2, 8, 8, 8, 2, 3)
    difference = rendered - target[..., None, :]
    plain = {"l1": difference.abs(), "l2": difference.square()}
    if criterion in plain:
        assert got == pytest.approx(float(plain[criterion].mean(-1).amin(-1).mean()), rel=1e-5)
    else:
        assert got == pytest.approx(float(real(rendered, target).mean()), rel=1e-6)


def test_ray_policies(model: ViPOcc, batch: Batch) -> None:
    """Each policy that asks for more leaves fewer rays; uniform images tell no depths apart."""
    away = batch.key_from_view.clone()
    away[:, :, 2, 3] -= torch.tensor([0.0, 4.0, 4.0, 8.0])
    moved = replace(batch, key_from_view=away)

    def counted(of: Batch, policy: str) -> float:
        config = training("paper", f"training.loss.invalid_rays={policy}")
        return float(means(model, of, config)["rgb"].count)

    none, usual, strict = (counted(moved, policy) for policy in ("none", "weight_guided", "strict"))
    assert none == 2 * 8 * 64
    assert 0 < strict < usual < none
    assert counted(moved, "weight_guided_diverse") == usual, "noise differs along every ray"
    grey = replace(moved, images=torch.full_like(batch.images, 0.5))
    assert counted(grey, "weight_guided_diverse") == 0.0
    assert counted(grey, "weight_guided") > 0


def test_depth_kinds(model: ViPOcc, batch: Batch) -> None:
    metric, near, stretched = (
        value(means(model, batch, training("paper", f"training.loss.depth_kind={kind}")), "depth")
        for kind in ("metric", "near", "normalised")
    )
    assert 0 < near < metric
    assert 0 < stretched < 1 < metric


def test_the_depth_loss_has_no_mask_but_missing_priors(model: ViPOcc, batch: Batch) -> None:
    assert batch.prior_depth is not None
    for profile in PROFILES:
        config = training(profile, "training.loss.temporal=0")
        close = replace(batch, prior_depth=batch.prior_depth * 0.02)  # rendered distances begin at 3 m
        assert float(means(model, close, config)["depth"].count) == 2 * 4 * 64
        holes = replace(batch, prior_depth=torch.where(batch.prior_depth > 20, torch.nan, batch.prior_depth))
        assert 0 < float(means(model, holes, config)["depth"].count) < 2 * 4 * 64


@pytest.mark.parametrize("profile", PROFILES)
def test_missing_priors_reach_no_gradient(batch: Batch, profile: str) -> None:
    assert batch.prior_depth is not None
    branch = configuration.load(profile=profile).model.depth_branch
    variant = {**MODEL["depth_branch"], "decoder": branch.decoder, "refinement": branch.refinement}
    torch.manual_seed(0)
    model = ViPOcc(configuration.validate({**MODEL, "depth_branch": variant}, ModelConfig))
    holes = batch.prior_depth.clone()
    holes[0, :, 10:30] = torch.nan
    holes[1, 1] = torch.nan
    terms = training_losses(model, replace(batch, prior_depth=holes), training(profile))
    terms["total"].backward()
    assert all(torch.isfinite(term.detach()) for term in terms.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.fixture(scope="module")
def samples(shared_world: TinyWorld) -> dict[str, TrainingSamples]:
    """Samples of the tiny world under each profile, read from stores of the one convention they have."""
    manifest = Manifest.load(shared_world.workspace.manifest)
    found = {}
    for profile in PROFILES:
        over = (*OVERRIDES, "data.convention=centre", "data.resize=area")
        config = configuration.load("demo", profile=profile, overrides=over)
        table = sample_table(manifest, "train", config.data)
        paths = training_inputs(shared_world.workspace, manifest, table, config)
        found[profile] = TrainingSamples(table, paths, config.training, config.data.image_size, config.seed)
    return found


def drawn(samples: TrainingSamples, count: int = 60) -> Iterator[dict[str, np.ndarray]]:
    return (samples[position] for position in range(count))


def test_calibration_follows_the_convention(shared_world: TinyWorld) -> None:
    manifest = Manifest.load(shared_world.workspace.manifest)
    # The stereo cameras of the tiny world: fx = fy = 60, cx = 47.5, cy = 25 in 64 rows of 96 pixels.
    expected = {
        "paper": [2 * 60 / 96, (2 * 47.5 + 1) / 96 - 1, 2 * 60 / 64, (2 * 25 + 1) / 64 - 1],
        "official": [2 * 60 / 96, 2 * 47.5 / 96 - 1, 2 * 60 / 64, 2 * 25 / 64 - 1],
    }
    for profile, numbers in expected.items():
        config = configuration.load("demo", profile=profile, overrides=OVERRIDES)
        matrix = sample_table(manifest, "train", config.data).intrinsics[0]
        assert matrix[[0, 0, 1, 1], [0, 2, 1, 2]].tolist() == pytest.approx(numbers, abs=1e-6)


def test_samples_of_the_paper_have_anchors_and_even_shares(samples: dict[str, TrainingSamples]) -> None:
    assert samples["paper"].paths.anchors is not None
    for sample in drawn(samples["paper"]):
        assert sorted(np.unique(sample["patch_views"], return_counts=True)[1]) == [2, 2, 2, 2]


def test_samples_of_the_released_code_are_uniform_and_spare_the_last_row_and_column(
    samples: dict[str, TrainingSamples],
) -> None:
    assert samples["official"].paths.anchors is None
    shares, highest = set(), {"centres": np.zeros(2), "depth_centres": np.zeros(2)}
    for sample in drawn(samples["official"], 200):
        shares.add(tuple(np.bincount(sample["patch_views"], minlength=8)))
        for name, most in highest.items():
            highest[name] = np.maximum(most, sample[name].max(0))
    assert len(shares) > 50, "each patch falls into a view at random"
    for most in highest.values():
        # Patches cover centre - 4 to centre + 3; the last column and row of pixels are W - 1 and H - 1.
        assert (most + 3 == np.array([SIZE[1], SIZE[0]]) - 2).all()


def test_stereo_samples_are_split_by_each_profiles_rule(shared_world: TinyWorld) -> None:
    manifest = Manifest.load(shared_world.workspace.manifest)
    pairs = {}
    for rule in ("crosswise", "official"):
        config = shared_world.configured("data.fisheye=false", f"training.view_split={rule}")
        table = sample_table(manifest, "train", config.data)
        paths = training_inputs(shared_world.workspace, manifest, table, config)
        stereo = TrainingSamples(table, paths, config.training, config.data.image_size, config.seed)
        pairs[rule] = {tuple(sample["render_views"].tolist()) for sample in drawn(stereo)}
        assert all(set(sample["patch_views"]).isdisjoint(sample["render_views"]) for sample in drawn(stereo, 20))
    assert pairs["crosswise"] == {(0, 3), (1, 2)}
    assert pairs["official"] == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def test_only_the_released_evaluation_moves_samples_at_random(batch: Batch) -> None:
    def rendered(jitter: bool) -> np.ndarray:
        torch.manual_seed(1)
        values = {**MODEL, "renderer": {"samples": 16, "evaluation_jitter": jitter}}
        of = ViPOcc(configuration.validate(values, ModelConfig)).eval()
        frames = Frames([], [], batch.images[:, 0], batch.intrinsics[:, 0])
        return NetworkDepth(of, "rendered").depth(frames)[0].numpy()

    middle, jittered = rendered(False), rendered(True)
    assert np.array_equal(middle, rendered(False))
    assert np.array_equal(jittered, rendered(True)), "from a seed of its own"
    assert np.abs(middle - jittered).max() > 0.01
    assert [configuration.load(profile=name).model.renderer.evaluation_jitter for name in PROFILES] == [False, True]
