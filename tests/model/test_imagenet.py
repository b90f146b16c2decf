from __future__ import annotations

import hashlib
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from vipocc.config import validate
from vipocc.errors import CheckpointError, ConfigError
from vipocc.model import imagenet
from vipocc.model.config import EncoderConfig, ModelConfig
from vipocc.model.encoder import pretrained_encoder
from vipocc.model.network import ViPOcc

RESNET18 = EncoderConfig(name="resnet18", pretrained="imagenet")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found: dict[str, torch.Tensor] = torchvision.models.resnet18(weights=None).state_dict()
    return found


@pytest.fixture
def served(tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of ResNet-18's weights in the place of the one that torchvision names, and torch's folder elsewhere."""
    torch.save(state, tmp_path / "made.pth")
    digits = hashlib.sha256((tmp_path / "made.pth").read_bytes()).hexdigest()[:8]
    source = (tmp_path / "made.pth").rename(tmp_path / f"resnet18-{digits}.pth")
    monkeypatch.setitem(imagenet._EDITIONS, ("resnet18", "imagenet"), SimpleNamespace(url=source.as_uri()))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return source


@pytest.mark.parametrize(
    ("name", "pretrained", "file"),
    [
        ("resnet50", "imagenet", "resnet50-11ad3fa6.pth"),
        ("resnet50", "imagenet-v1", "resnet50-0676ba61.pth"),
        ("resnet18", "imagenet", "resnet18-f37072fd.pth"),
        ("resnet18", "imagenet-v1", "resnet18-f37072fd.pth"),
    ],
)
def test_the_editions_are_those_of_the_released_systems(name: str, pretrained: str, file: str) -> None:
    # ViPOcc takes version 2 for ResNet-50 (of ResNet-18 there is version 1 only), BTS version 1.
    config = validate({"name": name, "pretrained": pretrained}, EncoderConfig)
    assert imagenet.imagenet_file(config).name == file


def test_weights_are_fetched_once(served: Path, state: dict[str, torch.Tensor]) -> None:
    first = pretrained_encoder(RESNET18, "model.encoder")
    served.unlink()
    second = pretrained_encoder(RESNET18, "model.encoder")
    for encoder in (first, second):
        assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())
    kept = imagenet.imagenet_file(RESNET18)
    assert sorted(path.name for path in kept.parent.iterdir()) == [served.name]


def test_a_file_fetched_by_hand_is_found_where_the_message_says(served: Path, tmp_path: Path) -> None:
    elsewhere = served.rename(tmp_path / "by-hand")
    with pytest.raises(CheckpointError, match="fetch that file by hand") as caught:
        pretrained_encoder(RESNET18, "model.encoder")
    place = imagenet.imagenet_file(RESNET18)
    assert f"put it at {place}," in str(caught.value)
    assert served.name in str(caught.value)
    shutil.copy(elsewhere, place)
    pretrained_encoder(RESNET18, "model.encoder")


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_damaged_download_is_told_by_its_checksum(served: Path, kept: int) -> None:
    place = imagenet.imagenet_file(RESNET18)
    place.parent.mkdir(parents=True)
    place.write_bytes(served.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"checksum.*delete this file") as caught:
        pretrained_encoder(RESNET18, "model.encoder")
    assert str(place) in str(caught.value)


def test_without_network_the_message_names_file_place_and_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(socket.socket, "connect", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no route to host.*-o model.encoder.pretrained=none.*PATH") as caught:
        ViPOcc(validate({}, ModelConfig))
    assert f"put it at {tmp_path / 'hub' / 'checkpoints' / 'resnet50-11ad3fa6.pth'}," in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"-o model.depth_branch.encoder.pretrained=none"):
        ViPOcc(validate({"encoder": {"pretrained": "none"}}, ModelConfig))
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_encoder_weights_from_a_file(tmp_path: Path, state: dict[str, torch.Tensor], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    encoder = pretrained_encoder(EncoderConfig(name="resnet18", pretrained=str(path)), "model.encoder")
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"not weights"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unusable_encoder_weights_are_one_sentence(tmp_path: Path, content: bytes | None, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"-o model.encoder.pretrained=none") as caught:
        pretrained_encoder(EncoderConfig(name="resnet18", pretrained=str(path)), "model.encoder")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_edition_is_answered_with_those_there_are() -> None:
    with pytest.raises(CheckpointError, match="imagenet and imagenet-v1 are known"):
        pretrained_encoder(EncoderConfig(name="resnet18", pretrained="imagenet-v3"), "model.encoder")


def test_encoder_weights_of_another_architecture_name_tensors(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"layer1.0.conv1.weight is \[64, 64, 3, 3\] but .* \[64, 64, 1, 1\]"):
        pretrained_encoder(EncoderConfig(name="resnet50", pretrained=str(path)), "model.encoder")


@pytest.mark.parametrize("edition", ["imagenet", "imagenet-v1"])
def test_other_widths_have_no_imagenet_weights(edition: str) -> None:
    with pytest.raises(ConfigError, match="width other than 1"):
        validate({"width": 0.5, "pretrained": edition}, EncoderConfig)
