from __future__ import annotations

import pytest
import torch
import torchvision
from model_cases import NARROW, SMALL, intrinsics

from vipocc.config import validate
from vipocc.errors import ConfigError, UsageError
from vipocc.model.config import EncoderConfig, ModelConfig
from vipocc.model.decoder import Decoder
from vipocc.model.encoder import ResNetEncoder
from vipocc.model.field import MLPHead, PointQuery
from vipocc.model.network import ViPOcc


def parameters(module: torch.nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.parameters())


def published(decoder: str) -> ModelConfig:
    values = {
        "encoder": {"pretrained": "none"},
        "depth_branch": {"decoder": decoder, "encoder": {"name": "resnet18", "pretrained": "none"}},
    }
    config: ModelConfig = validate(values, ModelConfig)
    return config


def test_parameter_count_of_the_paper_profile() -> None:
    # Table 7's last layers instead of the released 3x3 to one channel (145): 1x1 to 64, then 1x1 to 1.
    assert parameters(ViPOcc(published("paper"))) == 47_022_322 - 145 + (16 * 64 + 64) + (64 + 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_encoder_is_torchvisions_without_classifier(name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    state = {key: tensor for key, tensor in theirs.state_dict().items() if not key.startswith("fc.")}
    mine = ResNetEncoder(EncoderConfig(name=name, pretrained="none")).eval()  # type: ignore[arg-type]
    mine.load_state_dict(state)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        levels = mine(images)
        x = theirs.relu(theirs.bn1(theirs.conv1((images - 0.45) / 0.225)))
        expected = [x]
        x = theirs.maxpool(x)
        for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            x = stage(x)
            expected.append(x)
    for level, other, channels in zip(levels, expected, mine.channels, strict=True):
        assert level.shape[1] == channels
        assert torch.equal(level, other)


def test_width_scales_every_level() -> None:
    assert ResNetEncoder(NARROW).channels == (16, 16, 32, 64, 128)
    assert ResNetEncoder(EncoderConfig(width=0.5, pretrained="none")).channels == (32, 128, 256, 512, 1024)


def test_decoder_matches_the_published_table() -> None:
    decoder = Decoder((64, 256, 512, 1024, 2048), (64, 64, 64, 128, 256), 64)
    before = [tuple(block.conv.weight.shape[1::-1]) for block in decoder.before]  # type: ignore[union-attr, index, operator]
    after = [tuple(block.conv.weight.shape[1::-1]) for block in decoder.after]  # type: ignore[union-attr, index, operator]
    assert before == [(2048, 256), (256, 128), (128, 64), (64, 64), (64, 64)]
    assert after == [(1280, 256), (640, 128), (320, 64), (128, 64), (64, 64)]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 101), (96, 160)])
def test_features_have_the_image_size(height: int, width: int) -> None:
    model = ViPOcc(SMALL).eval()
    with torch.no_grad():
        assert model.encode(torch.rand(1, 3, height, width)).shape == (1, 16, height, width)


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 64 pixels"):
        ViPOcc(SMALL).encode(torch.rand(1, 3, 32, 320))


def test_networks_on_the_cpu_never_see_channels_last() -> None:
    """There their gradient corrupts memory, and a batch comes channels last."""
    model = ViPOcc(SMALL)
    met = []
    for network in (model.encoder, model.depth_branch):
        network.register_forward_pre_hook(lambda _, given: met.append(given[0].is_contiguous()))
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    model.encode(images)
    model.refine_depth(images, torch.ones(2, 1, 64, 64))
    assert met == [True, True]


def test_flip_mirrors_input_and_output() -> None:
    torch.manual_seed(0)
    model = ViPOcc(SMALL).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        flipped = model.encode(images, flip=True)
        assert torch.equal(flipped, model.encode(images.flip(-1)).flip(-1))
        assert not torch.equal(flipped, model.encode(images))


def test_bfloat16_networks_give_float32_close_to_full_precision() -> None:
    torch.manual_seed(0)
    model = ViPOcc(SMALL).eval()
    images, prior = torch.rand(1, 3, 64, 96), torch.full((1, 1, 64, 96), 12.0)
    with torch.no_grad():
        full, mixed = (model.use_precision(kind).encode(images) for kind in ("float32", "bfloat16"))
        depth = model.refine_depth(images, prior)
    assert mixed.dtype == depth.dtype == torch.float32
    assert not torch.equal(full, mixed)
    torch.testing.assert_close(mixed, full, rtol=0.0, atol=0.1 * float(full.abs().max()))
    with torch.no_grad():
        assert torch.equal(model.use_precision("auto").encode(images), full)
    with pytest.raises(UsageError, match="precision"):
        model.use_precision("float16")  # type: ignore[arg-type]


def test_density_equals_the_heads_reference() -> None:
    torch.manual_seed(0)
    model = ViPOcc(SMALL).eval()
    features = torch.randn(2, 16, 64, 96)
    points = torch.randn(2, 500, 3) * 5 + torch.tensor([0.0, 0.0, 10.0])
    assert isinstance(model.head, MLPHead)
    expected = model.head.reference(features, PointQuery.of_points(points, intrinsics()))[..., 0]
    torch.testing.assert_close(model.density(features, points, intrinsics()), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.density(features, points, intrinsics(), chunk=90), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"encoder": {"width": 0.5}},
        {"field": {"near": 80.0}},
        {"depth_branch": {"min_depth": 100.0}},
        {"decoder": {"widths": [1, 2, 3]}},
        {"encoder": {"name": "vgg"}},
        {"renderer": {"samples": 1}},
        {"renderer": {"chunks": 1}},
    ],
)
def test_impossible_configurations_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        validate(values, ModelConfig)
