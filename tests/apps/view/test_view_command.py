"""`vipocc view` on a small synthetic world: what it shows, over HTTP and as one file."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vipocc import config
from vipocc.apps.view import run as view_run
from vipocc.apps.view.server import KEPT, SceneServer
from vipocc.cli import run
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.errors import DataError, UsageError
from vipocc.model.network import ViPOcc
from vipocc.workspace import Workspace

WORLD = (
    "data.world.train_drives=1", "data.world.train_frames=5", "data.world.val_frames=3", "data.world.test_frames=3",
    "data.world.scale=0.12", "data.world.lidar_points=640", "data.world.antialias=false", "data.world.shadows=false",
    "data.fisheye=false",
)  # fmt: skip
SMALL = ("--x", "-3", "3", "--z", "4", "10", "--cell", "0.5")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with prepared frames, simulated depth and a checkpoint that was never trained."""
    folder = tmp_path_factory.mktemp("view") / "ws"
    words = [part for text in WORLD for part in ("-o", text)]
    assert run(["init", "--dataset", "synthetic", "-C", str(folder), *words]) == 0
    assert run(["priors", "depth", "-C", str(folder), "--split", "test"]) == 0
    workspace = Workspace.open(folder)
    chosen = config.load(workspace.preset, overrides=workspace.overrides)
    ViPOcc(chosen.model, chosen.data.convention).save_pretrained(folder / "checkpoint", config.as_dict(chosen))
    return folder


def scene_of(page: str) -> dict[str, Any]:
    data = page.partition('<script type="application/json" id="page">')[2].partition("</script>")[0]
    found: dict[str, Any] = json.loads(data)["scenes"][0]
    return found


def layer(scene: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in scene["layers"] if one["name"] == name)


def test_one_file_shows_the_frame_with_its_truth(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "view.html"
    words = ["view", "-C", str(place), "--html", str(there), "--frames", "1", *SMALL]
    assert run([*words, "--checkpoint", str(place / "checkpoint")]) == 0, capsys.readouterr().err
    assert "opens in any browser" in capsys.readouterr().out
    scene = scene_of(there.read_text())
    names = {one["name"] for one in scene["layers"]}
    assert names >= {"prediction", "truth", "errors", "LiDAR", "boxes", "cameras", "prior depth", "image"}
    assert layer(scene, "cameras")["count"] == 2 * 8, "two pinhole cameras, eight lines each"

    # The cells of the layer "truth" are those whose centres the exact truth calls occupied.
    drive, _, frame = scene["title"].partition(", frame ")
    exact = ExactTruth(Workspace.open(place).root)
    from vipocc.apps.view.frames import Box
    from vipocc.apps.view.scene import surface
    from vipocc.data_manifests.ground_truth.occupancy import level_from_world
    from vipocc.geometry.poses import invert, transform_points

    centres = Box((-3, 3), Box.y, (4, 10), 0.5).centres()
    pose = exact.world_from_camera(drive, int(frame), "image_00")
    world = transform_points(invert(level_from_world(pose)), centres.reshape(-1, 3))
    expected = centres[surface(exact.occupancy_at(world, drive, int(frame)).reshape(centres.shape[:3]))]
    truth = layer(scene, "truth")
    index = np.frombuffer(base64.b64decode(truth["index"]), "<u2").reshape(-1, 3)
    np.testing.assert_allclose(np.array(truth["origin"]) + index * np.array(truth["steps"]), expected, atol=1e-9)
    assert len(expected) > 10


def test_without_a_model_the_data_is_shown(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "view.html"
    assert run(["view", "-C", str(place), "--html", str(there), "--frames", "1", *SMALL]) == 0
    assert "nothing was trained here yet" in capsys.readouterr().out
    scene = scene_of(there.read_text())
    assert not {"prediction", "errors"} & {one["name"] for one in scene["layers"]}
    assert layer(scene, "truth")["shown"] is True
    assert scene["facts"]["prediction"] == "none: no model"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--sequence", "none"), "--sequence with one of"),
        (("--frame", "99999"), "smaller --frame"),
        (("--run", "none"), "vipocc train"),
        (("--cell", "0.02", "--x", "-500", "500"), "--cell"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    place: Path, tmp_path: Path, words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["view", "-C", str(place), "--html", str(tmp_path / "view.html"), *words]) == 2
    said = capsys.readouterr().err.strip()
    assert why in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def get(address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            body = answer.read()
            return answer.status, gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_server_gives_scenes_when_they_are_asked_for(place: Path) -> None:
    workspace = Workspace.open(place)
    chosen = config.load(workspace.preset, overrides=workspace.overrides)
    said: list[str] = []
    caught: list[tuple[int, bytes]] = []

    def ask(server: SceneServer) -> None:
        def look() -> None:
            for path in ("", "scene/1.json", "scene/999.json", "scene/-1.json", "../etc/passwd", "scene/1"):
                caught.append(get(server.address + path))
            with pytest.raises(UsageError, match="another --port"):
                SceneServer(lambda number: None, 1, "t", port=server.server_address[1])  # type: ignore[arg-type, return-value]
            server.shutdown()

        threading.Thread(target=look).start()

    box: dict[str, Any] = {"x": (-3.0, 3.0), "z": (4.0, 10.0), "cell": 0.5, "no_model": True}
    shown = view_run.of_dataset(workspace, chosen, say=said.append, **box)
    view_run.serve(shown, port=0, say=said.append, ready=ask)
    assert [code for code, _ in caught] == [200, 200, 404, 404, 404, 404]
    assert b"<canvas" in caught[0][1]
    assert "frame" in json.loads(caught[1][1])["title"]
    assert any("ssh -L" in line for line in said)


def test_a_frame_that_fails_is_told_and_the_others_go_on() -> None:
    made: list[int] = []

    def make(number: int) -> Any:
        made.append(number)
        if number == 1:
            raise DataError("the scan is truncated", where="scan.bin", fix="download it again")
        from vipocc.apps.view.scene import Scene

        return Scene(f"frame {number}", [])

    with SceneServer(make, 30, "drive", port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code, body = get(f"{server.address}scene/1.json")
        assert (code, b"scan.bin" in body) == (500, True)
        for number in (0, 0, *range(2, KEPT + 4), 0):
            assert json.loads(get(f"{server.address}scene/{number}.json")[1])["title"] == f"frame {number}"
        assert made.count(0) == 2, "kept while it is recent, forgotten afterwards"
        server.shutdown()


def test_predictions_are_shown_without_a_workspace(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (94, 352, 3)).astype(np.uint8)).save(
        tmp_path / "street.png"
    )
    out = tmp_path / "predictions"
    words = [
        "--checkpoint",
        str(place / "checkpoint"),
        "--focal",
        "138",
        "--x",
        "-2",
        "2",
        "--z",
        "4",
        "8",
        "--cell",
        "0.5",
    ]
    monkeypatch.chdir(tmp_path)
    assert run(["predict", "street.png", "-o", str(out), *words]) == 0, capsys.readouterr().err
    assert run(["view", str(out), "--html", str(tmp_path / "view.html")]) == 0, capsys.readouterr().err
    scene = scene_of((tmp_path / "view.html").read_text())
    assert scene["title"] == "street"
    with np.load(out / "street" / "occupancy.npz") as held:
        from vipocc.apps.view.scene import surface

        occupied, seen = held["occupied"], held["in_view"]
        assert layer(scene, "occupied")["count"] == surface(occupied & seen).sum()
    assert {one["name"] for one in scene["layers"]} >= {"occupied", "cameras", "image", "depth"}
    (out / "street" / "occupancy.npz").write_bytes(b"PK")
    capsys.readouterr()
    assert run(["view", str(out), "--html", str(tmp_path / "again.html")]) == 2
    assert "predict it again with --overwrite" in capsys.readouterr().err
    assert run(["view", str(place), "--html", str(tmp_path / "again.html")]) == 2
    assert "name a folder that `vipocc predict` wrote" in capsys.readouterr().err


def test_a_truncated_image_is_refused_by_name(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # No frame of val is prepared: the dataset's own image is read, and OpenCV would fill what is lacking with grey.
    copy = Path(shutil.copytree(place, tmp_path / "ws"))
    words = ["view", "-C", str(copy), "--split", "val", "--frames", "1", "--html", str(tmp_path / "v.html"), *SMALL]
    assert run(words) == 0, capsys.readouterr().err
    assert layer(scene_of((tmp_path / "v.html").read_text()), "image")["source"]
    (tmp_path / "v.html").unlink()
    for path in (Workspace.open(copy).root).rglob("image_00/**/*.png"):
        path.write_bytes(path.read_bytes()[:-200])
    capsys.readouterr()
    assert run(words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "truncated" in said
    assert "image_00" in said
    assert not (tmp_path / "v.html").exists()
