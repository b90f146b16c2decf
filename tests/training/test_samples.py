from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import FRAMES, SEQUENCE, SIZE, TinyWorld
from torch.utils.data import default_collate

from vipocc.data_manifests.manifest import Manifest
from vipocc.data_manifests.views import sample_views
from vipocc.errors import DataError, MissingInputError
from vipocc.training.inputs import training_inputs
from vipocc.training.samples import TrainingSamples, epoch_order
from vipocc.training.stream import RunBatches
from vipocc.training.table import sample_table


def open_samples(world: TinyWorld, *overrides: str) -> TrainingSamples:
    config = world.configured(*overrides)
    manifest = Manifest.load(world.workspace.manifest)
    table = sample_table(manifest, "train", config.data)
    paths = training_inputs(world.workspace, manifest, table, config)
    return TrainingSamples(table, paths, config.training, config.data.image_size, config.seed)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def test_the_table_holds_every_key_with_its_views_in_published_order(shared_world: TinyWorld) -> None:
    config, manifest = shared_world.config, Manifest.load(shared_world.workspace.manifest)
    table = sample_table(manifest, "train", config.data)
    assert len(table) == len(manifest.keys("train")) == 12
    listed = set()
    for index in range(len(table)):
        views = [(table.groups[int(g)], int(r)) for g, r in zip(table.group[index], table.row[index], strict=True)]
        sequence, camera = views[0][0].split("/")
        key = next(
            key
            for key in manifest.keys("train")
            if (key.sequence, key.camera, key.row) == (sequence, camera, views[0][1])
        )
        assert views == [(f"{sequence}/{view.camera}", view.row) for view in sample_views(manifest, key, config.data)]
        listed.add(key)
    assert len(listed) == 12


def test_relative_poses_are_metric_and_begin_with_the_identity(shared_world: TinyWorld) -> None:
    manifest = Manifest.load(shared_world.workspace.manifest)
    table = sample_table(manifest, "train", shared_world.config.data)
    left = next(i for i in range(len(table)) if table.groups[int(table.group[i, 0])].endswith("image_00"))
    poses = table.key_from_view[left]
    torch.testing.assert_close(poses[0], torch.eye(4))
    torch.testing.assert_close(poses[1, :3, 3], torch.tensor([0.0, 0.0, 0.8]))
    torch.testing.assert_close(poses[3, :3, 3], torch.tensor([0.6, 0.0, 0.8]))
    turn = np.deg2rad(15)
    torch.testing.assert_close(poses[4, :3, 2], torch.tensor([0.0, np.sin(turn), np.cos(turn)], dtype=torch.float32))


def test_a_split_without_keys_is_one_error(shared_world: TinyWorld) -> None:
    manifest = Manifest.load(shared_world.workspace.manifest)
    with pytest.raises(DataError, match="lists no test sample"):
        sample_table(manifest, "test", shared_world.config.data)


def test_a_sample_is_what_the_stores_hold(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world)
    sample = samples[3]
    index = int(sample["index"])
    assert sample["images"].dtype == np.uint8
    assert sample["images"].shape == (8, *SIZE, 3)
    assert sample["prior_depth"].dtype == np.float16
    for view in range(8):
        name, row = samples.table.groups[int(samples.table.group[index, view])], int(samples.table.row[index, view])
        assert np.array_equal(sample["images"][view], samples._frames.read(name, row, "rgb"))
    assert samples._depth is not None
    name, row = samples.table.groups[int(samples.table.group[index, 0])], int(samples.table.row[index, 0])
    assert np.array_equal(sample["prior_depth"], samples._depth.read_many(name, [row, row + 1], "depth"))


def test_patches_sit_at_anchors_of_their_own_view_and_elsewhere_in_fisheyes(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world)
    assert samples._anchors is not None
    loss_sets = set()
    for position in range(24):
        sample = samples[position]
        group, row = (table[int(sample["index"])] for table in (samples.table.group, samples.table.row))
        loss_sets.add(tuple(sorted(set(sample["patch_views"].tolist()))))
        assert np.bincount(sample["patch_views"], minlength=8).max() == 2
        assert set(sample["render_views"].tolist()).isdisjoint(sample["patch_views"].tolist())
        for view in set(sample["patch_views"].tolist()):
            name = samples.table.groups[int(group[view])]
            chosen = sample["centres"][sample["patch_views"] == view]
            if name.endswith(("image_00", "image_01")):
                draws = samples._anchors.read(name, int(row[view]), "anchors")
                assert any(all((draw == centre).all(1).any() for centre in chosen) for draw in draws)
            else:
                assert not samples._anchors.has(name)
            assert (chosen >= 4).all()
            assert (chosen <= np.array([SIZE[1] - 4, SIZE[0] - 4])).all()
        draws = samples._anchors.read(samples.table.groups[int(group[0])], int(row[0]), "anchors")
        assert any(all((draw == centre).all(1).any() for centre in sample["depth_centres"]) for draw in draws)
    assert loss_sets == {(0, 3, 4, 7), (1, 2, 5, 6)}


def test_the_uniform_sampler_reads_no_anchors(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world, "training.sampler=uniform", "training.depth_sampler=uniform")
    assert samples.paths.anchors is None
    assert samples[0]["centres"].shape == (8, 2)


def test_without_depth_losses_no_depth_is_read(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world, "training.loss.depth=0", "training.loss.temporal=0")
    assert samples.paths.depth is None
    assert "prior_depth" not in samples[0]


def test_draws_depend_on_seed_epoch_and_index_alone(shared_world: TinyWorld) -> None:
    first, second = open_samples(shared_world), open_samples(shared_world)
    second[5], second[0]
    assert same(first[2], second[2])
    other = open_samples(shared_world, "seed=1")
    order = [first.place(position)[1] for position in range(12)]
    assert sorted(order) == list(range(12))
    assert order != [other.place(position)[1] for position in range(12)]
    again = next(position for position in range(12, 24) if first.place(position)[1] == order[2])
    assert first.place(again)[0] == 1
    assert not np.array_equal(first[2]["centres"], first[again]["centres"]), "another epoch draws other patches"


def test_orders_of_epochs_are_permutations_that_differ() -> None:
    orders = [epoch_order(0, epoch, 50).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


PLAIN = ("training.sampler=uniform", "training.depth_sampler=uniform")


@pytest.mark.parametrize(
    "overrides",
    [(), PLAIN, ("training.colour_jitter=true",), ("training.loss.depth=0", "training.loss.temporal=0")],
    ids=["as_it_is", "uniform", "colours", "no_depth"],
)
def test_a_batch_is_its_samples_read_one_by_one(shared_world: TinyWorld, overrides: tuple[str, ...]) -> None:
    samples = open_samples(shared_world, *overrides)
    for share in RunBatches(9, 17, 4):
        batch = samples.batch(share).tensors()
        expected = default_collate([samples[position] for position in share.positions])
        assert batch.keys() == expected.keys()
        for name, value in expected.items():
            assert batch[name].dtype == value.dtype
            torch.testing.assert_close(batch[name], value, rtol=0, atol=0, equal_nan=True)


def test_shared_patches_are_those_of_the_global_batchs_first_sample(shared_world: TinyWorld) -> None:
    samples = open_samples(shared_world, "training.shared_patches=true", *PLAIN)
    for share in RunBatches(0, 4, 4, rank=1, world=2):
        batch, first = samples.batch(share).tensors(), samples[share.first]
        for position in (0, 1):
            for name in ("render_views", "centres", "patch_views", "depth_centres", "flip"):
                assert np.array_equal(batch[name][position], first[name])
            own = samples[share.positions[position]]
            assert np.array_equal(batch["images"][position], own["images"])
            assert int(batch["index"][position]) == int(own["index"])


def test_what_is_missing_is_one_error_with_its_commands(world: TinyWorld) -> None:
    manifest = Manifest.load(world.workspace.manifest)
    table = sample_table(manifest, "train", world.config.data)
    for kind in ("frames", "depth", "anchors"):
        world.workspace.store(kind).rename(world.workspace.path / kind)
    with pytest.raises(MissingInputError) as error:
        training_inputs(world.workspace, manifest, table, world.config, auto=False)
    text = str(error.value)
    # Keys at rows 0 to 5 of both cameras touch rows 0 to 6 of both, and rows 2 to 8 of the fisheyes.
    for part in (
        "12 samples", "28 prepared images (about 310 kB)", "14 pseudo-depth maps (about 73 kB)", "14 images' anchors",
        "`vipocc data prepare --split train`", "`vipocc priors depth --split train`",
        "`vipocc priors sam --split train`", "how long",
    ):  # fmt: skip
        assert part in text
    assert "\n" not in text
    (world.workspace.path / "frames").rename(world.workspace.store("frames"))
    (world.workspace.path / "depth").rename(world.workspace.store("depth"))
    with pytest.raises(MissingInputError) as error:
        training_inputs(world.workspace, manifest, table, world.config)
    assert "priors sam" in str(error.value)
    assert "priors depth" not in str(error.value)


def test_stores_of_something_else_are_refused(world: TinyWorld) -> None:
    manifest = Manifest.load(world.workspace.manifest)
    table = sample_table(manifest, "train", world.config.data)

    def refused(text: str, *overrides: str, of: Manifest = manifest) -> None:
        with pytest.raises(OSError, match=text):
            training_inputs(world.workspace, of, table, world.configured(*overrides))

    refused(r"images of 64x96, not of 96x320.*image_size", "data.image_size=[96,320]")
    refused(r"patches of 8 pixels, not of 10", "training.patch_size=10")
    refused("of dataset 'synthetic', not 'kitti-360'", of=Manifest("kitti-360", manifest.root, manifest._tables))
    moved = replace(manifest.table(SEQUENCE), frame_ids=np.arange(FRAMES))
    refused("other frames", of=Manifest("synthetic", manifest.root, {SEQUENCE: moved}))
