from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import yaml
from model_cases import SMALL, intrinsics

from vipocc.errors import CheckpointError, DeviceError, MissingInputError
from vipocc.model.checkpoint import find_checkpoint, load_into, read_config, read_weights
from vipocc.model.network import ViPOcc
from vipocc.model.weights import load_weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint") / "made" / "step_1"
    ViPOcc(SMALL, "official").save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_round_trip_keeps_every_tensor_and_the_convention(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    torch.manual_seed(0)
    original, model = ViPOcc(SMALL, "official").eval(), ViPOcc.from_pretrained(saved)
    assert model.convention == "official"
    assert model.config == SMALL
    assert not model.training
    for name, tensor in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    with torch.no_grad():
        features = model.encode(torch.zeros(1, 3, 64, 96))
        assert torch.equal(features, original.encode(torch.zeros(1, 3, 64, 96)))
        assert torch.equal(
            model.render_depth(features, intrinsics(1), (4, 6)), original.render_depth(features, intrinsics(1), (4, 6))
        )


def test_the_whole_configuration_is_kept(tmp_path: Path) -> None:
    model = ViPOcc(SMALL)
    values = {"model": SMALL.model_dump(mode="json"), "data": {"convention": "centre"}, "training": {"epochs": 3}}
    model.save_pretrained(tmp_path, values)
    assert read_config(tmp_path) == values
    assert ViPOcc.from_pretrained(tmp_path).config == SMALL


def test_loading_needs_no_network(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, unexpected)
    monkeypatch.setattr(socket, "getaddrinfo", unexpected)
    values = yaml.safe_load((copy / "config.yaml").read_text())
    values["model"]["encoder"]["pretrained"] = "/nowhere.pth"
    (copy / "config.yaml").write_text(yaml.safe_dump(values))
    ViPOcc.from_pretrained(copy)


def test_the_configuration_survives_loading_and_saving_again(tmp_path: Path) -> None:
    values = {"model": SMALL.model_dump(mode="json"), "data": {"convention": "centre"}, "training": {"epochs": 3}}
    ViPOcc(SMALL).save_pretrained(tmp_path / "first", values)
    model = ViPOcc.from_pretrained(tmp_path / "first")
    model.save_pretrained(tmp_path / "second")
    assert read_config(tmp_path / "second") == values
    assert (tmp_path / "second" / "README.md").read_text() == (tmp_path / "first" / "README.md").read_text()
    model.config = SMALL.model_copy(update={"renderer": SMALL.renderer.model_copy(update={"samples": 5})})
    model.save_pretrained(tmp_path / "third")
    assert read_config(tmp_path / "third").keys() == {"model", "data"}
    assert ViPOcc.from_pretrained(tmp_path / "third").config.renderer.samples == 5


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_weights_are_one_sentence(copy: Path, keep: float) -> None:
    path = copy / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match="truncated or damaged") as caught:
        ViPOcc.from_pretrained(copy)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_shape_names_the_tensor_and_both_shapes(saved: Path) -> None:
    wider = SMALL.model_copy(update={"field": SMALL.field.model_copy(update={"hidden": 20})})
    with pytest.raises(CheckpointError, match=r"head.hidden.weight is \[16, 55\] but the model's is \[20, 55\]"):
        load_into(ViPOcc(wider), saved)


def without_residual(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in read_weights(folder).items() if "residual" not in name}


def test_missing_and_unknown_tensors_are_named(saved: Path) -> None:
    official = SMALL.depth_branch.model_copy(update={"decoder": "official"})
    model = ViPOcc(SMALL.model_copy(update={"depth_branch": official}))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"depth_branch.residual.\w+ .* unknown"):
        load_into(model, saved)
    with pytest.raises(CheckpointError, match=r"depth_branch.residual.weight \[1, 16, 1, 1\] is missing"):
        load_weights(ViPOcc(SMALL), without_residual(saved), "there", fix="none")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("damage", ["absent", "empty", "not yaml", "unknown key", "no convention", "bad convention"])
def test_damaged_configuration_is_one_sentence(copy: Path, damage: str) -> None:
    path = copy / "config.yaml"
    values = yaml.safe_load(path.read_text())
    if damage == "absent":
        path.unlink()
    elif damage in ("empty", "not yaml"):
        path.write_text("" if damage == "empty" else "{[")
    else:
        if damage == "unknown key":
            values["model"]["colour"] = 1
        elif damage == "no convention":
            del values["data"]
        else:
            values["data"]["convention"] = "middle"
        path.write_text(yaml.safe_dump(values))
    with pytest.raises(CheckpointError) as caught:
        ViPOcc.from_pretrained(copy)
    assert str(path) in str(caught.value)


def test_absent_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        ViPOcc.from_pretrained(copy)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_an_absent_device(saved: Path) -> None:
    with pytest.raises(DeviceError, match="cuda"):
        ViPOcc.from_pretrained(saved, "cuda")


def make_run(runs: Path, name: str, steps: list[int], best: str | None = None) -> Path:
    checkpoints = runs / name / "checkpoints"
    checkpoints.mkdir(parents=True)
    for step in steps:
        (checkpoints / f"step_{step}").mkdir()
        (checkpoints / f"step_{step}" / "model.safetensors").touch()
    (checkpoints / ".step_9000.partial").mkdir()
    if best:
        (checkpoints / "best").write_text(f"{best}\n")
    return checkpoints


def test_find_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="vipocc train"):
        find_checkpoint(tmp_path / "runs")
    old = make_run(tmp_path, "20260101-000000-demo", [5, 900, 1000], "step_900")
    new = make_run(tmp_path, "20260102-000000-demo", [10], None)
    make_run(tmp_path, "20260103-000000-demo", [])
    assert find_checkpoint(tmp_path, "last") == new / "step_10"
    assert find_checkpoint(tmp_path, "best", old.parent.name) == old / "step_900"
    assert find_checkpoint(tmp_path, "last", old.parent.name) == old / "step_1000"
    with pytest.raises(MissingInputError, match="never validated"):
        find_checkpoint(tmp_path)
    with pytest.raises(MissingInputError, match="20260103"):
        find_checkpoint(tmp_path, "last", "20260103-000000-demo")
    (new / "best").write_text("step_7")
    with pytest.raises(MissingInputError, match="gone"):
        find_checkpoint(tmp_path)
