"""The loaded network against the published arithmetic written out; original checkpoints against the hub's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vipocc.errors import CheckpointError, ConfigError
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth import official
from vipocc.priors.depth.depth_anything import DepthAnything, depth_fingerprint, use_bfloat16
from vipocc.priors.depth.loading import load_network
from vipocc.priors.depth.official import Encoder, encoder_of, from_official, max_depth_of, to_official
from vipocc.priors.depth.positions import stretch
from vipocc.priors.depth.random_weights import make_random_depth
from vipocc.priors.depth.reference import _cubic, depth_reference
from vipocc.priors.tiny import make_tiny_depth

TINY = Encoder(24, 4, 2, (0, 1, 2, 3))
"""The encoder of `make_tiny_depth`."""


@pytest.fixture
def tiny_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "ENCODERS", (*official.ENCODERS, TINY))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth picture uint8 [192, 640, 3], whose grid of patches is no square."""
    noise = np.random.default_rng(3).integers(0, 256, (6, 20, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (640, 192), interpolation=cv2.INTER_CUBIC))


def config(model: object, **changes: object) -> DepthConfig:
    given = {"model": str(model), "short_side": 56, "stored": "float32", **changes}
    return DepthConfig(**given)  # type: ignore[arg-type]


def reference(folder: Path, picture: np.ndarray, short_side: int = 56) -> np.ndarray:
    state = to_official(load_file(folder / "model.safetensors"))
    return depth_reference(state, picture, heads=TINY.heads, taps=TINY.taps, max_depth=80, short_side=short_side)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("short_side", [56, 70, 98])
def test_depth_equals_the_published_arithmetic(tmp_path: Path, picture: np.ndarray, seed: int, short_side: int) -> None:
    folder = make_tiny_depth(tmp_path / "model", seed)
    plain = reference(folder, picture, short_side)
    loaded = DepthAnything(config(folder, short_side=short_side))(picture[None])[0]
    assert plain.std() > 2
    np.testing.assert_allclose(loaded, plain, rtol=1e-4)


@pytest.mark.slow
def test_full_size_depth_equals_the_published_arithmetic(tmp_path: Path, picture: np.ndarray) -> None:
    """ViT-S at 518x1722; as an original file to the last bit what it is from a folder."""
    folder = make_random_depth(tmp_path / "model", "s")
    encoder, state = official.ENCODERS[0], to_official(load_file(folder / "model.safetensors"))
    plain = depth_reference(state, picture, heads=encoder.heads, taps=encoder.taps, max_depth=80)
    loaded = DepthAnything(config(folder, short_side=518))(picture[None])[0]
    assert plain.std() > 2
    np.testing.assert_allclose(loaded, plain, rtol=1e-4)
    file = save_original(tmp_path, "depth_anything_v2_metric_vkitti_vits.pth", state)
    np.testing.assert_array_equal(
        DepthAnything(config(file))(picture[None]), DepthAnything(config(folder))(picture[None])
    )


def test_the_stretch_of_positions_is_what_makes_it_equal(tiny: dict[str, Path], picture: np.ndarray) -> None:
    """Without it, depth is off by far more than what is promised, so the test above can fail."""
    from transformers import DepthAnythingForDepthEstimation

    model = DepthAnything(config(tiny["depth"]))
    model.network = DepthAnythingForDepthEstimation.from_pretrained(tiny["depth"]).eval()  # without the stretch
    off = np.abs(model(picture[None])[0] / reference(tiny["depth"], picture) - 1)
    assert off.max() > 1e-3


def test_a_square_of_the_trained_size_needs_no_stretch(tiny: dict[str, Path], picture: np.ndarray) -> None:
    square = np.ascontiguousarray(picture[:, :192])
    plain = reference(tiny["depth"], square, 70)
    np.testing.assert_allclose(DepthAnything(config(tiny["depth"], short_side=70))(square[None])[0], plain, rtol=1e-4)


@pytest.mark.parametrize(("rows", "columns", "side"), [(37, 123, 37), (4, 13, 5), (5, 5, 5), (3, 2, 7), (14, 46, 37)])
def test_positions_are_stretched_by_the_published_factor(rows: int, columns: int, side: int) -> None:
    trained = torch.randn(1, 1 + side * side, 6, generator=torch.Generator().manual_seed(rows))
    stretched = stretch(trained, rows, columns)
    assert stretched.shape == (1, 1 + rows * columns, 6)
    assert torch.equal(stretched[:, 0], trained[:, 0])
    if (rows, columns) != (side, side):
        grid = trained[0, 1:].reshape(side, side, 6)
        plain = torch.einsum("yi,xj,ijc->yxc", _cubic(rows, side), _cubic(columns, side), grid)
        torch.testing.assert_close(stretched[0, 1:], plain.reshape(-1, 6), rtol=1e-4, atol=1e-5)


def test_the_network_of_another_model_is_left_alone(tiny: dict[str, Path]) -> None:
    from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

    before = Dinov2Embeddings.interpolate_pos_encoding
    DepthAnything(config(tiny["depth"]))
    assert Dinov2Embeddings.interpolate_pos_encoding is before


# Original checkpoints -----------------------------------------------------------------------------------------------


def save_original(folder: Path, name: str, state: dict[str, torch.Tensor]) -> Path:
    torch.save({key: value.clone() for key, value in state.items()}, folder / name)
    return folder / name


def test_an_original_checkpoint_gives_the_same_depth(
    tmp_path: Path, tiny: dict[str, Path], images: np.ndarray, tiny_encoder: None
) -> None:
    state = to_official(load_file(tiny["depth"] / "model.safetensors"))
    file = save_original(tmp_path, "depth_anything_v2_metric_vkitti_vits.pth", state)
    np.testing.assert_array_equal(DepthAnything(config(file))(images), DepthAnything(config(tiny["depth"]))(images))
    found = depth_fingerprint(config(file))
    assert (found["model"], found["licence"], found["max_depth"], found["revision"]) == (
        file.name, "apache-2.0", 80.0, None,
    )  # fmt: skip
    assert found["digest"] != depth_fingerprint(config(tiny["depth"]))["digest"]


def test_names_go_both_ways_without_loss(tiny: dict[str, Path]) -> None:
    ours = load_file(tiny["depth"] / "model.safetensors")
    original = to_official(ours)
    assert all(name.startswith(("pretrained.", "depth_head.")) for name in original)
    assert original["pretrained.blocks.1.attn.qkv.weight"].shape == (72, 24)
    again = from_official(original)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], ours[name]) for name in ours)
    twice = to_official(again)
    assert twice.keys() == original.keys()
    assert all(torch.equal(twice[name], original[name]) for name in original)


@pytest.mark.parametrize(
    ("index", "features", "neck"),
    [(0, 64, [48, 96, 192, 384]), (1, 128, [96, 192, 384, 768]), (2, 256, [256, 512, 1024, 1024])],
)
def test_published_sizes_are_told_from_shapes_alone(index: int, features: int, neck: list[int]) -> None:
    """Every tensor of the size that transformers builds has its place in the file, and the other way round."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    encoder = official.ENCODERS[index]
    with torch.device("meta"):
        state = _original_shapes(encoder, features, neck)
    assert len(state) == 239 + 14 * (encoder.layers - 12)
    assert encoder_of(state, Path("x.pth")) is encoder
    values = official.hub_config(state, Path("x.pth"))
    assert values["neck_hidden_sizes"] == neck
    assert values["backbone_config"]["image_size"] == 518
    with torch.device("meta"):
        network = DepthAnythingForDepthEstimation(DepthAnythingConfig.from_dict(values))
    shapes = sorted(tuple(tensor.shape) for tensor in network.state_dict().values())
    assert sorted(tuple(tensor.shape) for tensor in from_official(state).values()) == shapes


def _original_shapes(encoder: Encoder, features: int, neck: list[int]) -> dict[str, torch.Tensor]:
    c = encoder.width
    shapes: dict[str, tuple[int, ...]] = {
        "pretrained.cls_token": (1, 1, c), "pretrained.mask_token": (1, c), "pretrained.pos_embed": (1, 1370, c),
    }  # fmt: skip

    def add(name: str, *shape: int, bias: int | None = None) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (shape[0] if bias is None else bias,)

    add("pretrained.patch_embed.proj", c, 3, 14, 14)
    add("pretrained.norm", c)
    for k in range(encoder.layers):
        block = f"pretrained.blocks.{k}"
        add(f"{block}.norm1", c)
        add(f"{block}.norm2", c)
        add(f"{block}.attn.qkv", 3 * c, c)
        add(f"{block}.attn.proj", c, c)
        add(f"{block}.mlp.fc1", 4 * c, c)
        add(f"{block}.mlp.fc2", c, 4 * c)
        shapes[f"{block}.ls1.gamma"] = shapes[f"{block}.ls2.gamma"] = (c,)
    for k, width in enumerate(neck):
        add(f"depth_head.projects.{k}", width, c, 1, 1)
        shapes[f"depth_head.scratch.layer{k + 1}_rn.weight"] = (features, width, 3, 3)
        refine = f"depth_head.scratch.refinenet{k + 1}"
        add(f"{refine}.out_conv", features, features, 1, 1)
        for unit in (1, 2):
            for conv in (1, 2):
                add(f"{refine}.resConfUnit{unit}.conv{conv}", features, features, 3, 3)
    for k, side in ((0, 4), (1, 2), (3, 3)):
        add(f"depth_head.resize_layers.{k}", neck[k], neck[k], side, side)
    add("depth_head.scratch.output_conv1", features // 2, features, 3, 3)
    add("depth_head.scratch.output_conv2.0", 32, features // 2, 3, 3)
    add("depth_head.scratch.output_conv2.2", 1, 32, 1, 1)
    return {name: torch.empty(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("damage", ["missing", "beyond", "reshaped", "other", "giant"])
def test_an_unfit_original_checkpoint_is_one_sentence(
    tmp_path: Path, tiny: dict[str, Path], tiny_encoder: None, damage: str
) -> None:
    state = to_official(load_file(tiny["depth"] / "model.safetensors"))
    if damage == "missing":
        del state["depth_head.scratch.output_conv1.weight"], state["pretrained.norm.bias"]
        expected = "misses 2 tensors (pretrained.norm.bias, depth_head.scratch.output_conv1.weight)"
    elif damage == "beyond":
        state["depth_head.readout_projects.0.0.weight"] = torch.ones(1)
        expected = "1 tensors (depth_head.readout_projects.0.0.weight)"
    elif damage == "reshaped":
        state["depth_head.projects.1.bias"] = torch.ones(3)
        expected = "has other shapes for 1 tensors"
    elif damage == "other":
        state = {"image_encoder.pos_embed": torch.ones(1, 4)}
        expected = "not an original Depth Anything V2"
    else:
        state["pretrained.pos_embed"] = torch.ones(1, 26, 1536)
        expected = "width 1536 and 4 layers"
    file = save_original(tmp_path, "depth_anything_v2_metric_vkitti_vits.pth", state)
    with pytest.raises(CheckpointError) as caught:
        DepthAnything(config(file))
    message = str(caught.value)
    assert expected in message
    assert str(file) in message
    assert "\n" not in message
    assert caught.value.fix


def test_the_largest_depth_comes_from_the_official_name_or_the_user() -> None:
    assert max_depth_of("/x/depth_anything_v2_metric_vkitti_vitl.pth", None) == 80
    assert max_depth_of("depth_anything_v2_metric_hypersim_vitb.pth", 20) == 20
    assert max_depth_of("mine.pth", 120.0) == 120
    with pytest.raises(ConfigError, match="--max-depth"):
        max_depth_of("mine.pth", None)
    with pytest.raises(ConfigError, match="contradicts"):
        max_depth_of("depth_anything_v2_metric_hypersim_vitb.pth", 80)
    with pytest.raises(CheckpointError, match="relative depth"):
        max_depth_of("depth_anything_v2_vitl.pth", 80)


def test_the_largest_depth_of_a_folder_cannot_be_changed(tiny: dict[str, Path]) -> None:
    assert depth_fingerprint(config(tiny["depth"], max_depth=80.0))["max_depth"] == 80
    with pytest.raises(ConfigError, match="contradicts the model"):
        depth_fingerprint(config(tiny["depth"], max_depth=20.0))


def test_the_given_largest_depth_scales_an_unnamed_checkpoint(
    tmp_path: Path, tiny: dict[str, Path], images: np.ndarray, tiny_encoder: None
) -> None:
    file = save_original(tmp_path, "mine.pth", to_official(load_file(tiny["depth"] / "model.safetensors")))
    near = DepthAnything(config(file, max_depth=20.0))(images)
    np.testing.assert_allclose(4 * near, DepthAnything(config(tiny["depth"]))(images), rtol=1e-6)


# Other ways in ------------------------------------------------------------------------------------------------------


def with_processor(folder: Path, source: Path) -> Path:
    shutil.copytree(source, folder)
    values = {
        "image_processor_type": "DPTImageProcessor", "do_normalize": True, "do_rescale": True, "do_resize": True,
        "do_pad": False, "ensure_multiple_of": 14, "keep_aspect_ratio": True, "resample": 3, "size_divisor": None,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "rescale_factor": 1 / 255,
        "size": {"height": 70, "width": 70},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def test_the_hubs_processing_is_what_transformers_does(
    tmp_path: Path, tiny: dict[str, Path], images: np.ndarray
) -> None:
    from transformers import AutoImageProcessor, DepthAnythingForDepthEstimation

    folder = with_processor(tmp_path / "model", tiny["depth"])
    processor = AutoImageProcessor.from_pretrained(folder)
    network = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    with torch.no_grad():
        given = processor(images=list(images), return_tensors="pt")
        assert given["pixel_values"].shape == (3, 3, 70, 238)
        found = processor.post_process_depth_estimation(network(**given), target_sizes=[(96, 320)] * 3)
    plain = torch.stack([one["predicted_depth"] for one in found]).numpy()
    ours = DepthAnything(config(folder, preprocessing="hub"))(images)
    np.testing.assert_allclose(ours, plain, rtol=2e-4)
    assert np.abs(ours / DepthAnything(config(folder))(images) - 1).max() > 0.01


def test_the_hubs_processing_needs_its_settings(tmp_path: Path, tiny: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="image processor"):
        depth_fingerprint(config(tiny["depth"], preprocessing="hub"))
    folder = with_processor(tmp_path / "model", tiny["depth"])
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        DepthAnything(config(folder, preprocessing="hub"))


def test_native_size_sends_the_image_at_its_own(tiny: dict[str, Path], picture: np.ndarray) -> None:
    model = DepthAnything(config(tiny["depth"], input_size="native"))
    seen = []
    model.network.backbone.embeddings.register_forward_pre_hook(
        lambda _module, given: seen.append(tuple(given[0].shape))
    )
    depth = model(picture[None])
    assert seen == [(1, 3, 196, 644)]
    assert depth.shape == (1, 192, 640)
    with pytest.raises(ValueError, match="contradict"):
        config(tiny["depth"], input_size="native", preprocessing="hub")


def test_each_way_in_has_its_own_fingerprint(tmp_path: Path, tiny: dict[str, Path]) -> None:
    folder = with_processor(tmp_path / "model", tiny["depth"])
    ways: list[dict[str, object]] = [
        {}, {"preprocessing": "hub"}, {"input_size": "native"}, {"images": "raw"}, {"stored": "float16"},
        {"short_side": 70}, {"max_depth": 80.0}, {"batch_size": 1},
    ]  # fmt: skip
    found = [json.dumps(depth_fingerprint(config(folder, **way)), sort_keys=True) for way in ways]
    assert len(set(found)) == 6
    assert found[0] == found[-1] == found[-2]


def test_the_type_that_is_stored_comes_out(tiny: dict[str, Path], images: np.ndarray) -> None:
    full = DepthAnything(config(tiny["depth"]))(images)
    half = DepthAnything(config(tiny["depth"], stored="float16"))(images)
    assert (full.dtype, half.dtype) == (np.float32, np.float16)
    np.testing.assert_array_equal(full.astype(np.float16), half)


def test_depth_of_larger_images_is_looked_up_at_the_pixels_centres(tiny: dict[str, Path], picture: np.ndarray) -> None:
    model = DepthAnything(config(tiny["depth"]))
    full, small = model(picture[None])[0], model(picture[None], (96, 320))[0]
    # Half the size: the centre of a small pixel is the corner of four.
    np.testing.assert_allclose(small, full.reshape(96, 2, 320, 2).mean((1, 3)), rtol=1e-5)


def test_memory_running_out_changes_nothing_but_the_batch(
    tiny: dict[str, Path], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calm = DepthAnything(config(tiny["depth"])), DepthAnything(config(tiny["depth"]))(images)
    sizes = []

    def scarce(some: torch.Tensor) -> torch.Tensor:
        sizes.append(len(some))
        if len(some) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return DepthAnything.forward(model, some)

    monkeypatch.setattr(model, "forward", scarce)
    np.testing.assert_allclose(model(images), calm, rtol=2e-4)
    assert sizes == [3, 1, 1, 1]
    assert model.batch.size == 1


def in_bfloat16(folder: Path, **changes: object) -> DepthAnything:
    """On the CPU, which the command refuses, by the same arithmetic as on CUDA; there is no TF32 here."""
    model = DepthAnything(config(folder, **changes))
    model.config = model.config.model_copy(update={"dtype": "bfloat16"})
    use_bfloat16(model.network.backbone)
    return model


def twenty_pictures() -> np.ndarray:
    """Smooth pictures uint8 [20, 192, 640, 3]."""
    noise = np.random.default_rng(3).integers(0, 256, (20, 6, 20, 3), np.uint8)
    return np.stack([cv2.resize(one, (640, 192), interpolation=cv2.INTER_CUBIC) for one in noise])


def test_bfloat16_is_the_encoders_alone(tiny: dict[str, Path], picture: np.ndarray) -> None:
    model = in_bfloat16(tiny["depth"])
    inside = {}

    def watch(name: str) -> None:
        def hook(_module: object, _given: object, result: torch.Tensor) -> None:
            inside[name] = (result.dtype, torch.is_autocast_enabled("cpu"), torch.backends.cudnn.allow_tf32)

        model.network.get_submodule(name).register_forward_hook(hook)

    names = ("backbone.encoder.layer.0.mlp.fc1", "backbone.layernorm", "neck.convs.0", "head.conv1", "head.conv3")
    for name in names:
        watch(name)
    half = model(picture[None])
    assert inside[names[0]] == (torch.bfloat16, True, False)
    assert inside[names[1]] == (torch.float32, True, False)
    assert all(inside[name] == (torch.float32, False, True) for name in names[2:])
    assert model.network.backbone.embeddings.position_embeddings.dtype == torch.float32
    held = load_file(tiny["depth"] / "model.safetensors")
    for name, tensor in model.network.state_dict().items():
        if name.startswith(("neck.", "head.")):
            assert torch.equal(tensor, held[name]), name  # not rounded to bfloat16 and back
    assert len(np.unique(half)) > 10_000  # rounded to bfloat16, depth would have some hundred values


def test_bfloat16_differs_by_less_than_half_a_percent(tiny: dict[str, Path]) -> None:
    pictures = twenty_pictures()
    full, half = DepthAnything(config(tiny["depth"]))(pictures), in_bfloat16(tiny["depth"])(pictures)
    off = np.abs(half / full - 1)
    assert 1e-5 < np.median(off) < 0.002
    assert abs(np.median(half / full) - 1) < 5e-4  # no bias


@pytest.mark.slow
def test_bfloat16_differs_by_less_than_half_a_percent_at_full_size(tmp_path: Path) -> None:
    """ViT-S of the published size: each of 20 pictures at a fifth of the published input, the first at all of it."""
    folder, pictures = make_random_depth(tmp_path / "model", "s"), twenty_pictures()
    for short_side, some in ((112, pictures), (518, pictures[:1])):
        full = DepthAnything(config(folder, short_side=short_side))(some)
        half = in_bfloat16(folder, short_side=short_side)(some)
        assert np.median(np.abs(half / full - 1)) < 0.0025


def test_loading_leaves_float32_weights_and_no_gradients(tiny: dict[str, Path]) -> None:
    from vipocc.priors.depth.loading import depth_weights

    weights, values = depth_weights(config(tiny["depth"]))
    network = load_network(config(tiny["depth"]), weights, values)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training
