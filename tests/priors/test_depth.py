from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vipocc.errors import CheckpointError, ConfigError, DeviceError, NonFiniteError
from vipocc.priors.config import DepthConfig
from vipocc.priors.depth.depth_anything import DepthAnything, depth_fingerprint
from vipocc.priors.depth.positions import use_published_positions
from vipocc.priors.depth.preprocessing import (
    Preprocessor,
    native_size,
    network_size,
    postprocess,
    preprocess_reference,
)
from vipocc.priors.tiny import make_tiny_depth


@pytest.mark.parametrize(
    ("size", "expected"),
    [((192, 640), (518, 1722)), ((376, 1408), (518, 1946)), ((518, 518), (518, 518)), ((640, 192), (1722, 518))],
)
def test_network_size_is_the_published_one(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*size) == expected


@pytest.mark.parametrize("size", [(96, 320), (100, 333), (1000, 1001), (37, 2000)])
def test_network_size_bounds_the_short_side_from_below(size: tuple[int, int]) -> None:
    height, width = network_size(*size)
    assert min(height, width) >= 518
    assert height % 14 == width % 14 == 0
    assert abs(width / height / (size[1] / size[0]) - 1) < 0.03


def test_preprocessing_equals_the_formula_in_double_precision(images: np.ndarray) -> None:
    # The published order on the values themselves: /255, cubic, normalise, planes.
    image = images[1]
    plain = cv2.resize(image / 255.0, (1722, 518), interpolation=cv2.INTER_CUBIC)
    plain = (plain - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    given = preprocess_reference(images[1:2], (518, 1722))
    assert given.shape == (1, 3, 518, 1722)
    assert given.dtype == torch.float32
    np.testing.assert_allclose(given[0].numpy(), plain.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(518, 1722), (56, 182), (98, 322), (154, 518)])
def test_preprocessing_by_matrices_equals_cv2(images: np.ndarray, size: tuple[int, int]) -> None:
    fast = Preprocessor((96, 320), size, torch.device("cpu"))(torch.from_numpy(images))
    plain = preprocess_reference(images, size)
    assert fast.dtype == torch.float32
    np.testing.assert_allclose(fast.numpy(), plain.numpy(), rtol=1e-6, atol=1e-7)


def test_native_size_is_the_images_own() -> None:
    assert native_size(192, 640) == (196, 644)
    assert native_size(376, 1408) == (378, 1414)
    assert native_size(3, 28) == (14, 28)


def test_postprocessing_keeps_the_corners() -> None:
    depth = torch.rand(2, 37, 123)
    back = postprocess(depth, 96, 320)
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        torch.testing.assert_close(back[:, y, x], depth[:, y, x])


def config(tiny: dict[str, Path], **changes: object) -> DepthConfig:
    given = {"model": str(tiny["depth"]), "short_side": 56, "stored": "float32", **changes}
    return DepthConfig(**given)  # type: ignore[arg-type]


def test_depth_varies_and_stays_within_the_cap(tiny: dict[str, Path], images: np.ndarray) -> None:
    depth = DepthAnything(config(tiny))(images)
    assert depth.shape == images.shape[:3]
    assert depth.dtype == np.float32
    assert depth.min() > 0
    assert depth.max() < 80
    assert depth.std() > 2
    assert np.abs(depth[0] - depth[1]).mean() > 0.5


def test_a_batch_gives_what_single_images_give(tiny: dict[str, Path], images: np.ndarray) -> None:
    together = DepthAnything(config(tiny, batch_size=3))(images)
    alone = DepthAnything(config(tiny, batch_size=1))(images)
    np.testing.assert_allclose(together, alone, rtol=2e-4)


def test_the_saved_and_loaded_model_gives_what_transformers_gives(tiny: dict[str, Path], images: np.ndarray) -> None:
    from transformers import DepthAnythingForDepthEstimation

    model = DepthAnythingForDepthEstimation.from_pretrained(tiny["depth"]).eval()
    use_published_positions(model)
    with torch.no_grad():
        plain = postprocess(model(preprocess_reference(images, (56, 182))).predicted_depth, 96, 320).numpy()
    first, second = DepthAnything(config(tiny))(images), DepthAnything(config(tiny))(images)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, plain, rtol=2e-4)


def test_the_tiny_model_is_the_same_for_a_seed(tmp_path: Path, tiny: dict[str, Path]) -> None:
    state = torch.random.get_rng_state()
    again, other = make_tiny_depth(tmp_path / "again"), make_tiny_depth(tmp_path / "other", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [load_file(folder / "model.safetensors") for folder in (tiny["depth"], again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_fingerprint_names_model_digest_licence_and_preprocessing(tmp_path: Path, tiny: dict[str, Path]) -> None:
    folder = shutil.copytree(tiny["depth"], tmp_path / "Depth-Anything-V2-Metric-Outdoor-Small-hf")
    first = depth_fingerprint(DepthConfig(model=str(folder)))
    assert first["licence"] == "apache-2.0"
    assert first["max_depth"] == 80.0
    assert first["model"] == folder.name
    assert len(first["digest"]) == 32
    assert "518" not in first["preprocessing"]
    assert first["short_side"] == 518
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [depth]\n---\n# card\n")
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    second = depth_fingerprint(DepthConfig(model=str(folder)))
    assert second["licence"] == "cc-by-nc-4.0"
    assert second["digest"] != first["digest"]


def test_the_revision_of_a_hub_snapshot_is_recorded(tmp_path: Path, tiny: dict[str, Path]) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = shutil.copytree(tiny["depth"], tmp_path / "models--a--b" / "snapshots" / commit)
    assert depth_fingerprint(DepthConfig(model=str(folder)))["revision"] == commit


def test_a_hub_id_in_the_cache_is_found_offline(
    tmp_path: Path, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--depth"
    shutil.copytree(tiny["depth"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = depth_fingerprint(DepthConfig(model="someone/depth"))
    assert (found["model"], found["revision"]) == ("someone/depth", commit)


def test_a_hub_id_that_cannot_be_fetched_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        DepthAnything(DepthConfig(model="nobody/no-such-model"))
    message = str(caught.value)
    assert "nobody/no-such-model" in message
    assert "hf download nobody/no-such-model" in message
    assert "--model FOLDER" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "damage", ["absent", "empty", "truncated", "incomplete", "reshaped", "other", "relative", "json"]
)
def test_a_wrong_or_damaged_model_is_one_sentence(tmp_path: Path, tiny: dict[str, Path], damage: str) -> None:
    folder = tmp_path / "model"
    if damage == "empty":
        folder.mkdir()
    elif damage == "other":
        shutil.copytree(tiny["segmenter"], folder)
    elif damage != "absent":
        shutil.copytree(tiny["depth"], folder)
    file, settings = folder / "model.safetensors", folder / "config.json"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage in ("incomplete", "reshaped"):
        weights = load_file(file)
        kept = weights.pop("head.conv1.weight")
        save_file(weights if damage == "incomplete" else {**weights, "head.conv1.weight": kept[:-1].clone()}, file)
    elif damage == "relative":
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "depth_estimation_type": "relative"}))
    elif damage == "json":
        settings.write_text("{")
    with pytest.raises(CheckpointError) as caught:
        DepthAnything(DepthConfig(model=str(folder), short_side=56))
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert caught.value.fix
    if damage in ("incomplete", "reshaped"):
        assert "head.conv1.weight" in message


def test_numbers_that_are_not_finite_are_an_error(tmp_path: Path, tiny: dict[str, Path], images: np.ndarray) -> None:
    folder = shutil.copytree(tiny["depth"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["head.conv3.bias"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match="not finite for image 0"):
        DepthAnything(DepthConfig(model=str(folder), short_side=56))(images)


def test_bfloat16_and_cuda_need_a_gpu(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from vipocc.priors.devices import resolve_devices

    with pytest.raises(DeviceError, match="bfloat16 needs a CUDA device"):
        DepthAnything(config(tiny, dtype="bfloat16"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_devices("auto") == ("cpu",)
    for asked in ("cuda", "cuda:1"):
        with pytest.raises(DeviceError, match="no CUDA device"):
            resolve_devices(asked)


def test_a_short_side_below_one_patch_is_refused(tmp_path: Path, tiny: dict[str, Path]) -> None:
    folder = shutil.copytree(tiny["depth"], tmp_path / "model")
    settings = folder / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "patch_size": 16}))
    with pytest.raises(ConfigError, match="less than one patch"):
        depth_fingerprint(DepthConfig(model=str(folder), short_side=14))


@pytest.mark.gpu
def test_bfloat16_is_close_to_float32_on_cuda(tiny: dict[str, Path], images: np.ndarray) -> None:
    full = DepthAnything(config(tiny), "cuda")(images)
    half = DepthAnything(config(tiny, dtype="bfloat16"), "cuda")(images)
    assert np.median(np.abs(half / full - 1)) < 0.02
