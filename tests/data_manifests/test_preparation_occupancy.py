"""Occupancy ground truth in its store: two rules, objects, devices, and what is made again when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from kitti_tree import DRIVE, Tree

from vipocc import cli
from vipocc import config as configuration
from vipocc.data_manifests import stage
from vipocc.data_manifests.config import DataConfig
from vipocc.data_manifests.ground_truth.occupancy import level_from_world, occupancy_ground_truth_reference, slice_grid
from vipocc.data_manifests.ground_truth.rules import rule_digests
from vipocc.data_manifests.manifest import FrameKey
from vipocc.data_manifests.preparation import OccupancyComputer, occupancy_group, sweep_rows
from vipocc.errors import DataError, DeviceError, UsageError
from vipocc.evaluation.occupancy import SliceTruth, lidar_truth
from vipocc.evaluation.protocols import slice_protocol
from vipocc.geometry.poses import invert
from vipocc.stores import StoreReader, Unit
from vipocc.workspace import Workspace

ROW = 11  # frame 12, the only test frame


@pytest.fixture
def workspace(tree: Tree, tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "workspace", "kitti-360", tree.root)


def configured(data: DataConfig, **more: Any) -> Any:
    return configuration.root_schema()(data=data.model_copy(update={"sweeps": 4, **more}))


def car(number: int, x: float, left: float, timestamp: int = -1) -> str:
    """A car 4 m long, 2 m wide, and high enough to reach the slice, at world x and so far left of the road's middle."""
    transform = f"4 0 0 {x} 0 2 0 {2000 + left} 0 0 8 100 0 0 0 1"
    corners = " ".join(f"{x} {y} {z}" for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5))
    return (
        f"<object{number}><transform><rows>4</rows><cols>4</cols><dt>f</dt><data>{transform}</data></transform>"
        f"<vertices><rows>8</rows><cols>3</cols><dt>f</dt><data>{corners}</data></vertices>"
        f"<semanticId>13</semanticId><instanceId>{number}</instanceId><timestamp>{timestamp}</timestamp></object{number}>"
    )


def write_boxes(tree: Tree, *cars: str) -> Path:
    path = tree.root / "data_3d_bboxes/train" / f"{DRIVE}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0"?><opencv_storage>{"".join(cars)}</opencv_storage>')
    return path


def test_both_rules_in_one_store_under_names_of_their_own(workspace: Workspace, config: DataConfig, tree: Tree) -> None:
    found = {}
    for rule in ("official", "paper"):
        whole = configured(config, occupancy_rule=rule)
        manifest = stage.ensure_prepared(workspace, whole, "test", ("occupancy",))
        window = sweep_rows(manifest, DRIVE, ROW, 4)
        level = level_from_world(manifest.world_from_camera(DRIVE, "image_00")[ROW])
        points = [np.fromfile(tree.scan(DRIVE, int(k) + 1), np.float32).reshape(-1, 4)[:, :3] for k in window]
        transforms = level @ manifest.world_from_lidar(DRIVE)[window]
        expected = occupancy_ground_truth_reference(points, transforms, rule=rule)
        reader = StoreReader(workspace.store("occupancy"))
        found[rule] = np.asarray(reader.read(occupancy_group(whole.data, DRIVE), ROW, "occupied"))
        np.testing.assert_array_equal(found[rule], expected.occupied)
    assert (found["official"] != found["paper"]).any()
    assert reader.groups() == [f"slice-4-paper/{DRIVE}", f"slice-4/{DRIVE}"]
    attributes = dict(zarr.open_group(workspace.store("occupancy"), mode="r").attrs)
    assert attributes["rules"] == rule_digests()
    assert slice_protocol(4, "paper").truth_rule_digest == rule_digests()["paper"]
    for rule, protocol in (("official", slice_protocol(4)), ("paper", slice_protocol(4, "paper"))):
        truth = lidar_truth(reader, protocol)(FrameKey(DRIVE, "image_00", ROW))
        assert isinstance(truth, SliceTruth)
        np.testing.assert_array_equal(truth.occupied, found[rule])


def test_no_boxes_do_not_look_like_no_objects(workspace: Workspace, config: DataConfig, tree: Tree) -> None:
    whole, key = configured(config), FrameKey(DRIVE, "image_00", ROW)
    group = occupancy_group(whole.data, DRIVE)

    def truth() -> SliceTruth:
        stage.ensure_prepared(workspace, whole, "test", ("occupancy",))
        read = lidar_truth(StoreReader(workspace.store("occupancy")), slice_protocol(4))(key)
        assert isinstance(read, SliceTruth)
        return read

    nothing = truth()
    assert nothing.objects is None
    assert nothing.no_objects == f"{DRIVE} had no 3D boxes when it was prepared"
    # The download arrives: the row is made again by itself.
    write_boxes(tree)
    empty = truth()
    assert empty.objects is not None
    assert not empty.objects.any()
    # The camera of frame 12 is at x = 1013.5 and looks along x; its left is the world's left.
    write_boxes(
        tree, car(1, 1013.5 + 10, 2.0), car(2, 1013.5 + 10, 30.0), car(3, 1013.5 + 15, -2.0, 12), car(4, 0, 0, 13)
    )
    some = truth()
    assert some.objects is not None
    assert some.objects.any()
    held = np.asarray(StoreReader(workspace.store("occupancy")).read(group, ROW, "object"))
    manifest = stage.ensure_indexed(workspace, whole)
    world_from_level = invert(level_from_world(manifest.world_from_camera(DRIVE, "image_00")[ROW]))
    world = slice_grid() @ world_from_level[:3, :3].T + world_from_level[:3, 3]
    for number, (x, y) in {1: (1023.5, 2002.0), 2: (1028.5, 1998.0)}.items():
        inside = (np.abs(world[:, 0] - x) <= 2) & (np.abs(world[:, 1] - y) <= 1)
        assert inside.any()
        np.testing.assert_array_equal(held.reshape(-1) == number, inside)
    np.testing.assert_array_equal(some.occupied & ~np.isin(held, (1, 2)), held == 255)


def test_training_reads_no_boxes_and_keeps_what_was_made_with_them(
    workspace: Workspace, config: DataConfig, tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from vipocc.data_manifests.datasets.kitti_360 import Kitti360

    whole = configured(config)
    row, group = 5, occupancy_group(whole.data, DRIVE)

    def known() -> int:
        return int(StoreReader(workspace.store("occupancy")).read(group, row, "objects_known"))

    write_boxes(tree, car(1, 1010.0, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(Kitti360, "boxes", lambda *_: pytest.fail("training opened the boxes"))
        stage.ensure_validation(workspace, whole)
        assert known() == 0
        stage.ensure_prepared(workspace, whole, "val", ("frames", "lidar"))
        capsys.readouterr()
        stage.ensure_validation(workspace, whole)
        assert capsys.readouterr().err == ""
    stage.ensure_prepared(workspace, whole, "val", ("occupancy",))
    assert "preparing 1 rows of occupancy" in capsys.readouterr().err
    assert known() == 1
    stage.ensure_validation(workspace, whole)
    assert capsys.readouterr().err == ""
    assert known() == 1


def test_bad_boxes_are_one_sentence_and_nothing_is_written(
    workspace: Workspace, config: DataConfig, tree: Tree
) -> None:
    path = write_boxes(tree, car(1, 1010.0, 0.0))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"not a whole XML file.*3D Bounding Boxes") as caught:
        stage.ensure_prepared(workspace, configured(config), "test", ("occupancy",))
    assert str(path) in str(caught.value)
    assert not workspace.store("occupancy").exists()


def test_the_torch_way_makes_the_same_rows(workspace: Workspace, config: DataConfig, tree: Tree) -> None:
    """A device that is not plain `cpu` goes through torch; `cpu:0` is one that every machine has."""
    write_boxes(tree, car(1, 1010.0, 0.0))
    for rule in ("official", "paper"):
        whole = configured(config, occupancy_rule=rule)
        stage.ensure_indexed(workspace, whole)
        unit, made = Unit(occupancy_group(whole.data, DRIVE), 0), []
        for device in ("cpu", "cpu:0"):
            computer = OccupancyComputer(workspace.manifest, "kitti-360", tree.root, whole.data)
            computer.open(device)
            made.append(computer.compute(unit, [3, 4, ROW]))
            computer.close()
        assert made[0].keys() == made[1].keys()
        for name, values in made[0].items():
            np.testing.assert_array_equal(values, made[1][name])
        assert made[0]["occupied"].shape == (3, 160, 80)
        assert made[0]["sweeps"].tolist() == [4, 4, 4]
        assert made[0]["objects_known"].tolist() == [1, 1, 1]


def test_devices_that_cannot_be_used(workspace: Workspace, config: DataConfig, capsys: Any) -> None:
    for name, kind, said in (("cuda:63", DeviceError, "no device cuda:63"), ("mps", UsageError, "'mps'")):
        with pytest.raises(kind, match=said):
            stage.ensure_prepared(workspace, configured(config), "test", ("occupancy",), device=name)
    assert cli.run(["data", "prepare", "-C", str(workspace.path), "--device", "cuda:63"]) == 2
    assert "--device cpu" in capsys.readouterr().err
    assert not workspace.store("occupancy").exists()
