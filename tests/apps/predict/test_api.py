from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predict_cases import street, tiny_checkpoint, write_phone

import vipocc
from vipocc.cli import run
from vipocc.errors import CheckpointError, DataError, UsageError
from vipocc.geometry.cameras import Pinhole
from vipocc.model.exporting import programs
from vipocc.model.heads.interface import HeadNeeds

CAMERA = Pinhole(276.28, 276.28, 340.77, 119.13, 704, 188)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> vipocc.Model:
    return vipocc.load(checkpoint)


def test_points_of_any_shape_are_asked_for(model: vipocc.Model) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-4, 0, 4], [4, 1, 20], (3, 5, 3))
    density = model.density(points, street(), CAMERA)
    assert density.shape == (3, 5)
    assert density.dtype == np.float32
    occupied = model.occupancy(points, street(), CAMERA, threshold=float(np.median(density)))
    np.testing.assert_array_equal(occupied, density > np.median(density))
    assert 0 < occupied.sum() < 15
    assert model.occupancy(np.zeros((0, 3)), street(), CAMERA).shape == (0,)
    with pytest.raises(UsageError, match=r"\[\.\.\., 3\]"):
        model.density(np.zeros((3, 2)), street(), CAMERA)


def test_it_says_what_the_command_writes(checkpoint: Path, model: vipocc.Model, tmp_path: Path) -> None:
    Image.fromarray(street()).save(tmp_path / "street.png")
    out = tmp_path / "out"
    more = ("--checkpoint", str(checkpoint), "--focal", "300", "--cell", "0.5")
    assert run(["predict", str(tmp_path / "street.png"), "-o", str(out), *more]) == 0
    scene = model.look(tmp_path / "street.png", 300.0)
    np.testing.assert_array_equal(scene.depth, np.load(out / "street" / "depth.npy"))
    held = np.load(out / "street" / "occupancy.npz")
    points = np.stack(np.meshgrid(held["x"], held["y"], held["z"], indexing="ij"), -1)
    in_camera = points @ held["camera_from_grid"][:3, :3].T
    np.testing.assert_allclose(scene.density(in_camera), held["density"], rtol=1e-4, atol=1e-6)


def test_a_picture_is_a_file_an_image_or_an_array(model: vipocc.Model, tmp_path: Path) -> None:
    Image.fromarray(street()).save(tmp_path / "street.png")
    depths = [
        model.depth(given, CAMERA)
        for given in (street(), Image.fromarray(street()), tmp_path / "street.png", str(tmp_path / "street.png"))
    ]
    for other in depths[1:]:
        np.testing.assert_array_equal(depths[0], other)
    assert model.depth(street(), CAMERA, of_picture=True).shape == (188, 704)
    np.testing.assert_array_equal(depths[0], model.depth(street(), CAMERA.matrix))


def test_a_guessed_camera_is_warned_of_and_a_known_one_is_not(model: vipocc.Model, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="angle of view"):
        model.look(street(200, 500))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = model.look(write_phone(tmp_path / "phone.jpg"))
    assert "EXIF" in scene.camera_origin
    assert 0 < scene.seen.mean() < 1
    assert scene.view.shape == (64, 192, 3)


@pytest.mark.parametrize(
    ("image", "intrinsics", "kind"),
    [
        (np.zeros((3, 188, 704), np.uint8), None, UsageError),
        (np.zeros((188, 704, 3), np.float32), None, UsageError),
        (street(), np.eye(2), UsageError),
        (street(), np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]), UsageError),
        (street(), 1e6, DataError),
        ("nowhere.png", None, DataError),
    ],
)
def test_what_is_no_picture_or_camera_is_refused(
    model: vipocc.Model, image: object, intrinsics: object, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        model.look(image, intrinsics)  # type: ignore[arg-type]


def test_a_checkpoint_that_is_not_there_is_told() -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        vipocc.load("/nowhere/at/all")


def test_importing_is_cheap_and_names_are_listed() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import vipocc; took = time.perf_counter() - t; "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules; "
        "assert {'load', 'open_store', 'samples'} <= set(dir(vipocc)); assert took < 1.0, took"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("branch", ["inverse_residual", "depth", "none"])
def test_what_is_exported_is_the_model_in_parts(tmp_path: Path, branch: str) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint", f"model.depth_branch.kind={branch}")
    network = vipocc.ViPOcc.from_pretrained(folder)
    parts = programs(network, (64, 192))
    image, intrinsics = example_image()
    points = example_points(50)
    with torch.no_grad():
        found = parts["query"].module(parts["encoder"].module(image), intrinsics, points)
        torch.testing.assert_close(found, network.density(network.encode(image), points, intrinsics))
        if branch == "depth":
            torch.testing.assert_close(parts["depth"].module(image), network.refine_depth(image))
    assert ("depth" in parts) == (branch != "none")


def test_a_head_that_needs_more_is_not_exported(tmp_path: Path) -> None:
    model = vipocc.ViPOcc.from_pretrained(tiny_checkpoint(tmp_path))
    model.head.needs = HeadNeeds(maps=("labels",))
    with pytest.raises(UsageError, match="one image"):
        programs(model, (64, 192))


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["inverse_residual", "depth", "none"])
def test_exported_programs_say_what_the_model_says(tmp_path: Path, branch: str) -> None:
    folder = tiny_checkpoint(tmp_path / "checkpoint", f"model.depth_branch.kind={branch}")
    assert run(["export", str(folder), "-o", str(tmp_path / "programs")]) == 0
    network = vipocc.ViPOcc.from_pretrained(folder)
    loaded = {path.stem: torch.export.load(path).module() for path in (tmp_path / "programs").glob("*.pt2")}
    assert set(loaded) == {"encoder", "query"} | ({"depth"} if branch != "none" else set())
    image, intrinsics = example_image()
    with torch.no_grad():
        for count in (2, 333):
            points = example_points(count)
            expected = network.density(network.encode(image), points, intrinsics)
            found = loaded["query"](loaded["encoder"](image), intrinsics, points)
            torch.testing.assert_close(found, expected)
        if branch == "inverse_residual":
            prior = torch.rand(1, 1, 64, 192, generator=torch.Generator().manual_seed(2)) * 40 + 3
            torch.testing.assert_close(loaded["depth"](image, prior), network.refine_depth(image, prior))
        elif branch == "depth":
            torch.testing.assert_close(loaded["depth"](image), network.refine_depth(image))


def test_programs_that_are_there_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "export.json").write_text("{}")
    assert run(["export", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_onnx_programs_say_what_the_model_says(tmp_path: Path, checkpoint: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    assert run(["export", str(checkpoint), "-o", str(tmp_path), "--format", "onnx"]) == 0
    network = vipocc.ViPOcc.from_pretrained(checkpoint)
    loaded = {
        path.stem: runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in tmp_path.glob("*.onnx")
    }
    image, intrinsics = example_image()
    features = loaded["encoder"].run(None, {"image": image.numpy()})[0]
    with torch.no_grad():
        for count in (2, 333, 5000):
            points = example_points(count)
            expected = network.density(network.encode(image), points, intrinsics).numpy()
            given = {"features": features, "intrinsics_ndc": intrinsics.numpy(), "points": points.numpy()}
            # Far outside the image angles of the code are large, and float32 rounds them either way.
            np.testing.assert_allclose(loaded["query"].run(None, given)[0], expected, rtol=1e-3, atol=1e-4)
        prior = torch.rand(1, 1, 64, 192) * 40 + 3
        found = loaded["depth"].run(None, {"image": image.numpy(), "prior": prior.numpy()})[0]
        np.testing.assert_allclose(found, network.refine_depth(image, prior).numpy(), rtol=1e-4)


def example_image() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand(1, 3, 64, 192, generator=torch.Generator().manual_seed(0))
    return image, torch.tensor([[[0.785, 0.0, -0.03], [0.0, 2.94, 0.27], [0.0, 0.0, 1.0]]])


def example_points(count: int) -> torch.Tensor:
    unit = torch.rand(1, count, 3, generator=torch.Generator().manual_seed(1))
    return unit * torch.tensor([8.0, 1.0, 16.0]) + torch.tensor([-4.0, 0.0, 4.0])
