"""The DDAD adapter on the real sample and on small trees, from the JSON files to the stores."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from ddad_tree import CAMERAS, SCENE, SECOND, SIZE, START, STEP, TRAIN, YAWS, DdadTree, edit, make_ddad

from vipocc import cli, config
from vipocc.config import root_schema
from vipocc.data_manifests import stage
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.datasets.ddad import ADAPTER
from vipocc.data_manifests.ground_truth.depth_raster import pixel_hits, sparse_depth
from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import view_offsets
from vipocc.errors import DataError
from vipocc.geometry.cameras import Pinhole
from vipocc.geometry.ndc import resize_intrinsics
from vipocc.geometry.poses import relative
from vipocc.model.network import ViPOcc
from vipocc.stores import StoreReader, verify
from vipocc.workspace import Workspace


@pytest.fixture(scope="module")
def real(sample_data: Path) -> Manifest:
    root = sample_data / "DDAD"
    return Manifest("ddad", root, ADAPTER.index(root))


@pytest.fixture
def tree(tmp_path: Path) -> DdadTree:
    return make_ddad(tmp_path / "root")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> DdadTree:
    """A tree that no test may change; it has a training scene too."""
    return make_ddad(tmp_path_factory.mktemp("ddad") / "root", {TRAIN: 2, SCENE: 5, SECOND: 3})


def run(*arguments: str) -> int:
    return cli.run(list(arguments))


# The real sample: three consecutive samples of scene 000150.


def test_real_scene(real: Manifest) -> None:
    assert real.sequences == [SCENE]
    assert real.frame_ids(SCENE).tolist() == [0, 1, 2]
    assert tuple(real.cameras(SCENE)) == CAMERAS
    assert all(real.has_image(SCENE, camera).all() for camera in CAMERAS)
    assert real.has_lidar(SCENE).all()
    assert real.image_path(SCENE, "CAMERA_05", 1).name == "15616458250936520.jpg"
    model = real.camera_model(SCENE, "CAMERA_01")
    assert model == Pinhole(
        2181.530254382263, 2181.6034466840038, 928.0218817103168, 615.9567879463117, 1936, 1216
    )  # fmt: skip


def test_real_timestamps_are_of_2019_and_ten_hertz(real: Manifest) -> None:
    """The file says 2464-11-12 01:04:09.936530 and steps of a second: it counts 0.1 microseconds as microseconds."""
    seconds = real.timestamps(SCENE)
    assert seconds[0] == pytest.approx(1561645824.993653, abs=1e-6)
    np.testing.assert_allclose(np.diff(seconds), 0.1, atol=1e-5)
    way = np.linalg.norm(np.diff(real.world_from_camera(SCENE, "CAMERA_01")[:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(way / np.diff(seconds), 12.7, atol=0.1)  # m/s: a street, where 1.27 would be a walk


def test_real_poses_are_of_the_sensors(real: Manifest, sample_data: Path) -> None:
    """Poses of one sample differ from one another as the calibration's extrinsics do, but for the way in between."""
    path = next((sample_data / "DDAD/ddad_train_val" / SCENE / "calibration").glob("*.json"))
    values = json.loads(path.read_text())
    places = {
        name: np.array([one["translation"][axis] for axis in "xyz"])
        for name, one in zip(values["names"], values["extrinsics"], strict=True)
    }
    for row in range(3):
        front = real.world_from_camera(SCENE, "CAMERA_01")[row]
        for camera in CAMERAS[1:]:
            between = relative(front, real.world_from_camera(SCENE, camera)[row])[:3, 3]
            expected = np.linalg.norm(places[camera] - places["CAMERA_01"])
            assert np.linalg.norm(between) == pytest.approx(expected, abs=0.01)
        # The cloud is dated 8 to 9 ms after the images: at 12.7 m/s the way is a few centimetres to a decimetre.
        off = np.linalg.norm(relative(front, real.world_from_lidar(SCENE)[row])[:3, 3])
        assert abs(off - np.linalg.norm(places["CAMERA_01"] - places["LIDAR"])) < 0.1


def test_real_sweeps_fall_on_each_other(real: Manifest) -> None:
    """A sweep moved by its poses into the next sample's camera has the depth of that sample's own sweep."""
    camera, lidar = real.world_from_camera(SCENE, "CAMERA_01"), real.world_from_lidar(SCENE)
    model = real.camera_model(SCENE, "CAMERA_01")
    size = (152, 242)
    intrinsics = resize_intrinsics(model.matrix, (model.height, model.width), size, "centre")
    paths = [real.lidar_path(SCENE, row) for row in (0, 1)]
    first, second = (ADAPTER.read_scan(path) for path in paths if path is not None)
    own = sparse_depth(second, relative(camera[1], lidar[1]), intrinsics, size)

    def difference(camera_from_first: np.ndarray) -> float:
        other = sparse_depth(first, camera_from_first, intrinsics, size)
        both = np.isfinite(own) & np.isfinite(other)
        assert both.sum() > 1000
        return float(np.mean(np.abs(own - other)[both] / own[both]))

    assert difference(relative(camera[1], lidar[0])) < 0.04
    assert difference(relative(camera[1], lidar[1])) > 0.07  # as if the car had stood still


@pytest.mark.parametrize(("row", "hits", "pixels", "median"), [(0, 5155, 5148, 26.098), (1, 5562, 5554, 25.525)])
def test_real_depth_in_the_front_camera(real: Manifest, row: int, hits: int, pixels: int, median: float) -> None:
    path = real.lidar_path(SCENE, row)
    assert path is not None
    points = ADAPTER.read_scan(path)
    assert points.dtype == np.float32
    assert points.shape == ((47_230, 3), (49_469, 3))[row]
    model = real.camera_model(SCENE, "CAMERA_01")
    camera_from_lidar = relative(real.world_from_camera(SCENE, "CAMERA_01")[row], real.world_from_lidar(SCENE)[row])
    size = (model.height, model.width)
    assert len(pixel_hits(points, camera_from_lidar, model.matrix, size).depth) == pytest.approx(hits, abs=3)
    depth = sparse_depth(points, camera_from_lidar, model.matrix, size)
    assert np.isfinite(depth).sum() == pytest.approx(pixels, abs=3)
    assert np.nanmedian(depth) == pytest.approx(median, abs=0.01)


def test_real_masks_are_of_the_raw_size(real: Manifest) -> None:
    seen = {}
    for camera in CAMERAS:
        path = ADAPTER.mask(real.root, SCENE, camera)
        assert path is not None
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        model = real.camera_model(SCENE, camera)
        assert mask.shape == (model.height, model.width)
        assert set(np.unique(mask).tolist()) <= {0, 255}
        seen[camera] = float((mask > 0).mean())
    assert seen["CAMERA_01"] == 1.0
    assert 0.7 < min(seen.values()) < 0.75


def test_real_sample_from_folder_to_stores(
    sample_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-C", str(tmp_path)]
    assert run("init", "--dataset", "ddad", "--root", str(sample_data / "DDAD"), *options) == 0
    capsys.readouterr()
    assert run("data", "check", "--json", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["listed"]["val"], report["usable"]["val"]) == (3950, 3)
    assert "test split is not public" in json.dumps(report)
    assert "DDAD.tar" in json.dumps(report)
    assert run("data", "prepare", "--kinds", "frames,lidar", "--split", "val", *options) == 0
    stores = tmp_path / "stores/ddad"
    frames, lidar = StoreReader(stores / "frames.zarr"), StoreReader(stores / "lidar.zarr")
    assert frames.groups() == lidar.groups() == [f"{SCENE}/CAMERA_01"]
    image = frames.read(f"{SCENE}/CAMERA_01", 1, "rgb")
    assert image.shape == (192, 640, 3)
    assert image.mean() == pytest.approx(94.92, abs=0.5)
    depth = lidar.read(f"{SCENE}/CAMERA_01", 0, "depth")
    assert np.isfinite(depth).sum() == pytest.approx(5088, abs=5)
    assert np.nanmedian(depth) == pytest.approx(26.035, abs=0.02)
    assert verify(stores / "lidar.zarr", deep=True, root=sample_data / "DDAD").sound
    capsys.readouterr()
    assert run("data", "prepare", "--kinds", "frames,lidar", "--split", "val", *options) == 0
    assert capsys.readouterr().err == ""


# Small trees.


def test_poses_and_times_are_those_that_were_written(pristine: DdadTree) -> None:
    tables = ADAPTER.index(pristine.root)
    assert sorted(tables) == [TRAIN, SCENE, SECOND]
    table = tables[SCENE]
    for camera, yaw in YAWS.items():
        pose = table.cameras[camera].world_from_camera[2]
        np.testing.assert_allclose(pose[:3, 3], [100 + 2 * STEP + 1.5, -2000, 1.5], atol=1e-9)
        axis = [np.cos(np.deg2rad(yaw)), np.sin(np.deg2rad(yaw)), 0]
        np.testing.assert_allclose(pose[:3, 2], axis, atol=1e-12)
        np.testing.assert_allclose(pose[:3, 1], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(
        table.world_from_lidar[1], [[1, 0, 0, 101.42], [0, 1, 0, -2000], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    # One scene counts 0.1 microseconds, the other microseconds.
    for scene in (SCENE, SECOND):
        expected = START / 1e6 + 60 * int(scene) + 0.1 * np.arange(len(tables[scene].timestamp))
        np.testing.assert_allclose(tables[scene].timestamp, expected, rtol=0, atol=1e-6)


def test_root_may_be_either_folder(pristine: DdadTree) -> None:
    outer, inner = ADAPTER.index(pristine.root), ADAPTER.index(pristine.base)
    assert outer[SCENE].cameras["CAMERA_01"].paths[0].as_py().startswith(f"ddad_train_val/{SCENE}/rgb/")
    assert inner[SCENE].cameras["CAMERA_01"].paths[0].as_py().startswith(f"{SCENE}/rgb/")
    for root, tables in ((pristine.root, outer), (pristine.base, inner)):
        assert (root / tables[SCENE].lidar_paths[4].as_py()).is_file()
        assert all((root / name).is_file() for name in ADAPTER.lidar_files(root, SCENE))


def test_absent_files_are_absent_and_strange_ones_counted(tree: DdadTree) -> None:
    tree.image("CAMERA_06", 2).unlink()
    tree.scan(1).unlink()
    (tree.image("CAMERA_05", 0).parent / "other.jpg").write_bytes(b"x")
    manifest = Manifest("ddad", tree.root, ADAPTER.index(tree.root))
    assert manifest.has_image(SCENE, "CAMERA_06").tolist() == [True, True, False, True, True]
    assert manifest.has_lidar(SCENE).tolist() == [True, False, True, True, True]
    assert manifest.table(SCENE).cameras["CAMERA_05"].unposed == 1


def test_packaged_split_lists_the_published_number(tree: DdadTree) -> None:
    lists = ADAPTER.lists(tree.root, DataConfig())
    assert {split: lists.count(split) for split in ("train", "val", "test")} == {"train": 0, "val": 3950, "test": 0}
    assert {side for _, side in lists.frames["val"]} == {"l"}
    assert [len(lists.frames["val"][scene, "l"]) for scene in (SCENE, SECOND)] == [50, 50]
    assert min(map(len, lists.frames["val"].values())) >= 50
    assert {scene for scene, _ in lists.frames["val"]} == {f"{scene:06d}" for scene in range(150, 200)}


def test_whole_validation_split(tmp_path: Path) -> None:
    """29 scenes of 100 samples and 21 of 50 are 3,950; another sum is refused once all scenes are here."""
    counts = {f"{scene:06d}": 100 if scene < 179 else 50 for scene in range(150, 200)}
    tree = make_ddad(tmp_path / "root", counts, files=False)
    frames = ADAPTER.lists(tree.root, DataConfig()).frames["val"]
    assert {scene: len(ids) for (scene, _), ids in frames.items()} == counts
    edit(tree.scene("000199"), lambda scene: scene.update(samples=scene["samples"][:49]))
    assert ADAPTER.lists(tree.root, DataConfig()).count("val") == 3950  # a scene's cut end is listed, and found absent
    edit(tree.scene("000150"), lambda scene: scene.update(samples=scene["samples"][:50]))
    with pytest.raises(DataError, match=r"the scenes of val hold 3,900 samples, where DDAD's hold 3,950.*DDAD\.tar"):
        ADAPTER.lists(tree.root, DataConfig())


def test_lists_of_one_s_own(tree: DdadTree, tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train_files.txt").write_text(f"{SCENE} 0000000001 l\n{SECOND} 0000000000 l\n")
    workspace = Workspace.create(tmp_path / "workspace", "ddad", tree.root)
    whole = root_schema()(data=DataConfig(split=str(folder), image_size=(32, 96)))
    manifest = stage.ensure_indexed(workspace, whole)
    assert {group: rows.tolist() for group, rows in manifest.needed("train").items()} == {
        (SCENE, "CAMERA_01"): [1, 2],
        (SECOND, "CAMERA_01"): [0, 1],
    }
    assert view_offsets("ddad", "CAMERA_01", whole.data) == [("CAMERA_01", 0), ("CAMERA_01", 1)]
    (folder / "train_files.txt").write_text(f"{SCENE} 0000000001 r\n")
    with pytest.raises(DataError, match="right camera, which ddad has not"):
        stage.ensure_indexed(workspace, whole)


def test_cameras_are_prepared_on_request(tree: DdadTree, tmp_path: Path) -> None:
    options = ["-C", str(tmp_path / "w"), "-o", "data.image_size=[32,96]"]
    assert run("init", "--dataset", "ddad", "--root", str(tree.root), *options) == 0
    arguments = ["data", "prepare", "--split", "val", "--kinds", "frames,lidar", *options]
    assert run(*arguments) == 0
    store = tmp_path / "w/stores/ddad/frames.zarr"
    assert StoreReader(store).groups() == [f"{scene}/CAMERA_01" for scene in (SCENE, SECOND)]
    tree.image("CAMERA_07", 3).unlink()
    assert run(*arguments, "--cameras", "every") == 0
    reader = StoreReader(store)
    assert reader.groups() == [f"{scene}/{camera}" for scene in (SCENE, SECOND) for camera in CAMERAS]
    assert np.flatnonzero(reader.rows(f"{SCENE}/CAMERA_07")).tolist() == [0, 1, 2, 4]
    raw = cv2.cvtColor(cv2.imread(str(tree.image("CAMERA_09", 1))), cv2.COLOR_BGR2RGB)
    expected = cv2.resize(raw, (96, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(reader.read(f"{SCENE}/CAMERA_09", 1, "rgb"), expected)


def test_lidar_follows_the_poses_of_one_sample(tree: DdadTree, tmp_path: Path) -> None:
    """The cloud's pose is 12 cm ahead of the images': its points are that much farther from the camera."""
    options = ["-C", str(tmp_path / "w"), "-o", f"data.image_size=[{SIZE[0]},{SIZE[1]}]"]
    assert run("init", "--dataset", "ddad", "--root", str(tree.root), *options) == 0
    assert run("data", "prepare", "--split", "val", "--kinds", "lidar", *options) == 0
    depth = StoreReader(tmp_path / "w/stores/ddad/lidar.zarr").read(f"{SCENE}/CAMERA_01", 0, "depth")
    ahead = depth[:, 47:49]  # the ring is 10 m away straight ahead, the camera 1.5 m in front of the car's origin
    assert np.isfinite(ahead).any()
    np.testing.assert_allclose(ahead[np.isfinite(ahead)], 10 + 0.12 - 1.5, atol=0.1)


def test_state_sees_new_files_and_changed_json(tree: DdadTree) -> None:
    states = [ADAPTER.state(tree.root)]
    assert ADAPTER.state(tree.root) == states[0]
    tree.image("CAMERA_01", 4, SCENE).unlink()
    states.append(ADAPTER.state(tree.root))
    tree.scan(4).unlink()
    states.append(ADAPTER.state(tree.root))
    for path in (tree.scene(SECOND), tree.calibration(), tree.scenes):
        path.write_text(path.read_text() + "\n")
        states.append(ADAPTER.state(tree.root))
    assert len(set(states)) == len(states)


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["priors", "depth", "--split", "train"],
        ["priors", "sam", "--split", "train"],
        ["data", "prepare", "--split", "train"],
        ["data", "prepare", "--split", "test"],
    ],
)
def test_empty_splits_are_one_sentence(
    tree: DdadTree, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-C", str(tmp_path / "w")]
    assert run("init", "--dataset", "ddad", "--root", str(tree.root), *options) == 0
    capsys.readouterr()
    assert run(*command, *options) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "data.split" in said
    assert not (tmp_path / "w/stores").exists()


def test_what_reports_say() -> None:
    reader = adapter("ddad")
    assert reader.summary()["licence"].startswith("CC BY-NC-SA 4.0")
    assert any("not public" in note for note in reader.notes)
    assert "DDAD.tar" in reader.download("scans", SCENE)
    assert "DDAD.tar" in reader.way_out("ddad_train_val/000150/rgb/CAMERA_01/1.png")
    assert "occupancy" not in reader.products
    assert reader.mask(Path("nowhere"), SCENE, "CAMERA_01") is None


def test_evaluation_says_that_test_truth_is_not_public(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = make_ddad(tmp_path / "root", {SCENE: 1})
    trained = config.load("demo", overrides=["data.image_size=[64,96]"])
    ViPOcc(trained.model, trained.data.convention).save_pretrained(tmp_path / "checkpoint", config.as_dict(trained))
    options = ["-C", str(tmp_path / "w")]
    assert run("init", "--dataset", "ddad", "--root", str(tree.root), "--preset", "demo", *options) == 0
    evaluate = ["eval", "depth", "--device", "cpu", "--checkpoint", str(tmp_path / "checkpoint"), *options]
    capsys.readouterr()
    for split in ((), ("--split", "val")):  # no frames of test are listed: the report is of val, and says so
        assert run(*evaluate, *split) == 0
        said = capsys.readouterr().out
        assert "# depth on ddad val, protocol ddad" in said
        assert "test split is not public" in said
    for report in (tmp_path / "w/reports").glob("*/report.json"):
        assert any("test split is not public" in note for note in json.loads(report.read_text())["notes"])
