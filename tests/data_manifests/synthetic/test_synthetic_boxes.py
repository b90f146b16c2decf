"""The synthetic world's boxes through the adapter: object maps hold the exact cells of cars and people."""

from __future__ import annotations

import numpy as np

from vipocc.data_manifests.datasets import adapter
from vipocc.data_manifests.ground_truth.boxes import object_map, objects_among
from vipocc.data_manifests.ground_truth.occupancy import level_from_world
from vipocc.data_manifests.synthetic.exact import ExactTruth


def test_every_exact_cell_of_an_object_is_the_object_s(world) -> None:
    root, _ = world
    reader, truth, seen = adapter("synthetic"), ExactTruth(root), 0
    for sequence, table in reader.index(root).items():
        boxes_at = reader.boxes(root, sequence)
        assert boxes_at is not None
        for row, frame_id in enumerate(table.frame_ids.tolist()):
            boxes = objects_among(boxes_at(frame_id))
            assert {box.label for box in boxes} <= {"car", "person"}
            exact = truth.slice_objects(sequence, frame_id)
            level = level_from_world(table.cameras["image_00"].world_from_camera[row])
            found = object_map(boxes, level, truth.occupancy(sequence, frame_id).occupied)
            inside = np.isin(exact, [box.instance for box in boxes])
            assert np.isin(found[inside], np.arange(1, 255)).all()
            # Every number stands for one object: that of all its exact cells.
            owners = {int(number): set(exact[inside & (found == number)]) for number in np.unique(found[inside])}
            assert all(len(owner) == 1 for owner in owners.values())
            np.testing.assert_array_equal(
                found == 255, truth.occupancy(sequence, frame_id).occupied & (found % 255 == 0)
            )
            seen += len(owners)
    assert seen >= 3


def test_a_folder_without_exact_truth_has_no_boxes(tmp_path) -> None:
    reader = adapter("synthetic")
    assert reader.boxes(tmp_path, "drive") is None
    assert reader.box_files(tmp_path, "drive") == ()
