"""Worlds by name, and what sets held-out drives apart from those that are trained on."""

import itertools

import cv2
import numpy as np
import pytest
import yaml

from vipocc import config as configuration
from vipocc.cli import run
from vipocc.data_manifests.synthetic.config import WorldConfig
from vipocc.data_manifests.synthetic.generate import estimate, split_lines
from vipocc.data_manifests.synthetic.layout import _GRASS, _LEAVES, _SUN, _WALLS, build, drives
from vipocc.data_manifests.synthetic.scene import LABELS
from vipocc.data_manifests.synthetic.worlds import WORLDS, named
from vipocc.errors import UsageError

SWEEPS = 300


def test_the_default_world_is_as_large_as_promised():
    world = WorldConfig()
    assert named("default").config == world
    assert (world.drives, world.frames) == (10, 3000)
    assert min(world.val_frames, world.test_frames) >= 340
    seconds, size = estimate(world, jobs=2)
    assert seconds < 20 * 60
    assert size < 8e9
    assert estimate(world, jobs=16)[0] < 4 * 60


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_first_forty_held_out_keys_have_all_300_sweeps(split):
    world = WorldConfig()
    lines = split_lines(world, split)
    rows = [int(line.split()[1]) - 1 for line in lines]
    frames = world.test_frames if split == "test" else world.val_frames
    assert sum(row + SWEEPS <= frames for row in rows) >= 40
    assert len(rows) == 340 - 11


def test_named_worlds_grow():
    frames = [named(name).config.frames for name in ("tiny", "small", "default", "large")]
    assert frames == sorted(set(frames))
    sizes = [estimate(WORLDS[name].config)[1] for name in ("tiny", "small", "default", "large")]
    assert sizes == sorted(sizes)
    with pytest.raises(UsageError, match="use one of tiny, small, default, large"):
        named("huge")


def test_presets_use_named_worlds():
    assert configuration.load("demo").data.world == named("small").config
    assert configuration.load("synthetic").data.world == named("default").config


def test_init_takes_a_world_by_name_and_what_is_set_by_itself_wins(tmp_path, capsys):
    here = ["-C", str(tmp_path)]
    options = ["--preset", "synthetic", "--world", "tiny", "--scale", "0.2", "-o", "data.world.test_frames=30"]
    assert run(["init", "--dataset", "synthetic", *options, *here]) == 0
    assert "world: 4 drives, 102 frames" in capsys.readouterr().out
    assert run(["config", "show", *here]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["data"]["world"]
    expected = {"train_drives": 2, "val_frames": 24, "test_frames": 30, "scale": 0.2, "lidar_points": 10_000}
    assert {key: shown[key] for key in expected} == expected


def test_init_refuses_an_unknown_world_and_a_world_of_another_dataset(tmp_path, capsys):
    assert run(["init", "--dataset", "synthetic", "--world", "huge", "-C", str(tmp_path / "w")]) == 2
    assert "no world 'huge'" in capsys.readouterr().err
    options = ["--dataset", "kitti-360", "--root", str(tmp_path), "--world", "tiny"]
    assert run(["init", *options, "-C", str(tmp_path / "w")]) == 2
    assert "--world" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_held_out_palettes_are_apart():
    for palettes, least in ((_WALLS, 0.1), (_LEAVES, 0.02)):
        for a, b in itertools.combinations(palettes, 2):
            gaps = [np.linalg.norm(np.subtract(one, other)) for one in palettes[a] for other in palettes[b]]
            assert min(gaps) >= (least if "train" in (a, b) else 0.02), (a, b)
    for a, b in itertools.combinations(_GRASS.values(), 2):
        assert np.linalg.norm(np.subtract(a, b)) > 0.035


def test_no_two_splits_share_a_height_of_the_sun():
    bands = sorted(_SUN.values())
    assert all(low[1] + np.deg2rad(2.0) < high[0] for low, high in itertools.pairwise(bands))


@pytest.fixture(scope="module")
def scenes():
    """The ten drives of the default world, cut to forty frames."""
    world = WorldConfig(train_frames=40, val_frames=40, test_frames=40)
    return {name: (split, build(world, i)) for i, (name, split, _) in enumerate(drives(world))}


def test_every_drive_is_a_street_of_its_own(scenes):
    for (_, a), (_, b) in itertools.combinations(scenes.values(), 2):
        assert abs(a.street.half_width - b.street.half_width) > 1e-4
        assert len(a.label) != len(b.label) or not np.allclose(a.poses, b.poses)
        length = min(len(a.street.xy), len(b.street.xy))
        assert np.abs(a.street.xy[:length] - b.street.xy[:length]).max() > 5.0


def test_held_out_drives_are_lit_and_painted_differently(scenes):
    """As built: the sun's direction, and the mean colour of the walls."""
    train = [scene for split, scene in scenes.values() if split == "train"]
    for split, scene in scenes.values():
        if split == "train":
            continue
        for other in train:
            angle = np.rad2deg(np.arccos(np.clip(np.dot(scene.look["sun"], other.look["sun"]), -1, 1)))
            assert angle > 2.5
            assert scene.look["grass"] != other.look["grass"]
        low, high = _SUN[split]
        assert low <= np.arcsin(scene.look["sun"][2]) <= high


def test_an_object_never_jumps():
    """An id is one object for the whole drive: from frame to frame it moves as cars and people do."""
    world = WorldConfig(train_drives=0, val_drives=0, test_drives=1, test_frames=340)
    scene = build(world, 0)
    steps = np.linalg.norm(np.diff(scene.poses[scene.moving, :, :2], axis=1), axis=2)
    labels = np.array(LABELS)[scene.label[scene.moving]]
    assert set(labels) == {"car", "person"}
    assert steps[labels == "car"].max() < 2.5
    assert steps[labels == "person"].max() < 0.3


def test_the_contact_sheet_is_a_command(world, tmp_path, capsys):
    root, config = world
    here = ["-C", str(tmp_path)]
    values = [f"-odata.world.{key}={value}" for key, value in config.model_dump(mode="json").items()]
    assert run(["init", "--dataset", "synthetic", "--root", str(root), *values, *here]) == 0
    assert run(["data", "contact-sheet", "--width", "400", *here]) == 0
    picture = tmp_path / "reports" / "contact_sheet.png"
    assert str(picture) in capsys.readouterr().out
    assert cv2.imread(str(picture)).shape[1] == 400
    assert run(["data", "contact-sheet", "-o", "data.world.seed=9", *here]) == 2
    assert "not generated yet" in capsys.readouterr().err
