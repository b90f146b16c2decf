"""Depth turned into occupancy, against arithmetic by hand, its plain twin and the synthetic world's exact truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vipocc.data_manifests.manifest import FrameKey
from vipocc.errors import MissingInputError, UsageError
from vipocc.evaluation.occupancy import slice_points
from vipocc.evaluation.predictors.depth_shell import (
    DepthShell,
    OncePerBatch,
    depth_to_occupancy,
    depth_to_occupancy_reference,
    shells,
)
from vipocc.evaluation.predictors.entrants import FREE, Entrants
from vipocc.evaluation.predictors.interface import Batch
from vipocc.evaluation.predictors.sources import ReadAhead
from vipocc.evaluation.report import Frame, Kind
from vipocc.geometry.ndc import intrinsics_to_ndc

#: Looks straight ahead; x and y of a point at z = 1 are its normalised coordinates.
PLAIN = torch.eye(3)


def at(x: float, y: float, z: float) -> list[float]:
    """The point at depth z that projects to (x, y)."""
    return [x * z, y * z, z]


def test_a_point_is_held_against_the_depth_of_its_nearest_pixel() -> None:
    depth = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    # Corners aligned, three columns are centred on x = -1, 0, 1 and two rows on y = -1, 1.
    for row, y in enumerate((-0.9, 0.9)):
        for column, x in enumerate((-0.6, 0.4, 0.6)):
            surface = float(depth[row, column])
            points = torch.tensor([at(x, y, surface + d) for d in (-0.01, 0.01, 3.99, 4.01)])
            assert depth_to_occupancy(depth, points, PLAIN).tolist() == [0, 1, 1, 1]
            assert depth_to_occupancy(depth, points, PLAIN, 4.0).tolist() == [0, 1, 1, 0]


def test_the_surface_itself_is_occupied_and_the_far_side_of_the_shell_is_free() -> None:
    points = torch.tensor([at(0, 0, 8.0), at(0, 0, 12.0)])
    assert depth_to_occupancy(torch.full((4, 4), 8.0), points, PLAIN, 4.0).tolist() == [1, 0]


def test_pixel_centres_lie_elsewhere_when_edges_are_aligned() -> None:
    depth = torch.tensor([[1.0, 9.0, 9.0, 9.0]]).expand(4, 4)
    # Of four columns the first ends at x = -2/3 if corners are aligned, at x = -1/2 if edges are.
    between = torch.tensor([at(-0.6, 0.0, 5.0)])
    assert depth_to_occupancy(depth, between, PLAIN).item() == 0
    assert depth_to_occupancy(depth, between, PLAIN, align_corners=False).item() == 1


def test_outside_the_image_the_border_stands_and_behind_the_camera_nothing_is() -> None:
    depth = torch.tensor([[3.0, 7.0]])
    points = torch.tensor([at(-5.0, 0.0, 4.0), at(5.0, 9.0, 4.0), at(0.0, 0.0, -4.0), [0.0, 0.0, 0.0]])
    assert depth_to_occupancy(depth, points, PLAIN).tolist() == [1, 0, 0, 0]


def test_no_depth_is_no_answer_and_no_surface_is_free() -> None:
    depth = torch.tensor([[math.nan, 0.0, -1.0, math.inf]])
    points = torch.tensor([at(x, 0.0, 4.0) for x in (-1.0, -0.3, 0.3, 1.0)])
    found = depth_to_occupancy(depth, points, PLAIN, 4.0)
    assert found[:3].isnan().all()
    assert found[3] == 0
    assert depth_to_occupancy(depth, -points, PLAIN).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("thickness", [None, 4.0, 0.3])
def test_it_equals_its_plain_twin(align_corners: bool, thickness: float | None) -> None:
    rng = np.random.default_rng(5)
    depth = torch.from_numpy(rng.uniform(2, 25, (2, 37, 53)).astype(np.float32))
    depth[torch.from_numpy(rng.random((2, 37, 53)) < 0.1)] = math.nan
    pixels = np.array([[40.0, 1.0, 25.0], [0.0, 38.0, 19.0], [0.0, 0.0, 1.0]], np.float32)
    matrix = torch.from_numpy(intrinsics_to_ndc(np.stack([pixels, 1.3 * pixels]), (37, 53), "official"))
    points = torch.cat([torch.from_numpy(slice_points()), torch.from_numpy(rng.normal(0, 9, (500, 3)).astype("f4"))])
    arguments = (depth, points, matrix, thickness)
    found = depth_to_occupancy(*arguments, align_corners=align_corners)
    assert torch.equal(
        found[1].nan_to_num(7),
        depth_to_occupancy(depth[1], points, matrix[1], thickness, align_corners=align_corners).nan_to_num(7),
    )
    twin = depth_to_occupancy_reference(*arguments, align_corners=align_corners)
    assert torch.equal(found.nan_to_num(7), twin.nan_to_num(7))
    assert {0.0, 1.0, 7.0} == set(found.nan_to_num(7).flatten().tolist())


def test_what_has_other_shapes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"depth \[\.\.\., H, W\]"):
        depth_to_occupancy(torch.ones(1, 4, 4), torch.ones(3, 3), PLAIN)


class Wall:
    """A depth predictor that sees a wall, and counts how often it is asked."""

    kind: Kind = "prior"
    note = "a wall"

    def __init__(self, metres: float, name: str = "wall") -> None:
        self.metres, self.name, self.asked = metres, name, 0

    def missing(self, key: FrameKey) -> str | None:
        return "no wall" if key.row == 1 else None

    def depth(self, batch: Batch) -> Sequence[Tensor]:
        self.asked += 1
        # Frames may come in different sizes.
        return [torch.full((3 + at, 4), self.metres + at) for at in range(len(batch.keys))]


def batch(count: int = 2) -> Batch:
    keys = [FrameKey("drive", "image_00", row) for row in range(count)]
    frames = [Frame(*key, 10 + key.row) for key in keys]
    return Batch(keys, frames, torch.zeros(count, 3, 4, 4), PLAIN.expand(count, 3, 3))


def test_both_published_rows_come_of_one_computation() -> None:
    wall, points = Wall(8.0), torch.tensor([at(0, 0, 7.5), at(0, 0, 8.5), at(0, 0, 12.5), at(0, 0, 14.0)])
    rows = shells(wall, convention="official")
    assert [row.name for row in rows] == ["wall", "wall+4m"]
    assert [row.kind for row in rows] == ["baseline", "baseline"]
    assert [row.missing(FrameKey("drive", "image_00", n)) for n in (0, 1) for row in rows] == [None] * 2 + [
        "no wall"
    ] * 2
    assert all("a wall" in row.note for row in rows)
    once = batch()
    assert [row.occupancy(once, points).tolist() for row in rows] == [
        [[0, 1, 1, 1], [0, 0, 1, 1]],
        [[0, 1, 0, 0], [0, 0, 1, 0]],
    ]
    assert wall.asked == 1
    rows[0].occupancy(batch(), points)
    assert wall.asked == 2


def test_the_convention_decides_where_pixels_are() -> None:
    class Edge(Wall):
        def depth(self, batch: Batch) -> Sequence[Tensor]:
            return [torch.tensor([[1.0, 9.0, 9.0, 9.0]])]

    between = torch.tensor([at(-0.6, 0.0, 5.0)])
    assert DepthShell(Edge(0), convention="official").occupancy(batch(1), between).item() == 0
    assert DepthShell(Edge(0), convention="centre").occupancy(batch(1), between).item() == 1


def test_baselines_are_chosen_by_name() -> None:
    sources = {"prior": lambda: Wall(8.0, "prior"), "rendered": lambda: Wall(9.0, "rendered")}

    def names(*baselines: str, held: object = sources) -> list[str]:
        return [one.name for one in Entrants(baselines=baselines).depth_baselines(held, {}, "centre")]  # type: ignore[arg-type]

    assert names() == list(FREE)
    assert names(held={}) == []
    assert names("none") == []
    assert names("rendered+4m", "prior", "rendered+2.5m", "rendered+4.0m") == ["rendered+4m", "prior", "rendered+2.5m"]
    for unknown in ("priors", "prior+4", "prior+m", "prior + 4m", "lidar"):
        with pytest.raises(UsageError, match="use --baseline prior, rendered, branch"):
            Entrants(baselines=(unknown,))
    with pytest.raises(UsageError, match="exclude each other"):
        Entrants(baselines=("none", "prior"))
    with pytest.raises(MissingInputError, match=r"baseline branch\+4m .*; run this"):
        Entrants(baselines=("branch+4m",)).depth_baselines(sources, {"branch": "run this"}, "centre")  # type: ignore[arg-type]


def test_a_network_is_evaluated_unless_others_predictions_are_all_that_is_asked_for() -> None:
    assert Entrants().wants_network(None, None)
    assert Entrants(baselines=("prior",)).wants_network(None, None)
    theirs = Entrants(predictions=("theirs",), baselines=("prior", "prior+4m"))
    assert not theirs.wants_network(None, None)
    assert theirs.wants_network("mine", None)
    assert theirs.wants_network(None, Path("mine"))
    assert Entrants(predictions=("theirs",), baselines=("rendered",)).wants_network(None, None)


def test_priors_are_read_before_they_are_asked_for_and_never_mixed_up() -> None:
    keys = [FrameKey("drive", "image_00", row) for row in range(30)]
    read: list[int] = []

    class Stored:
        def has(self, key: FrameKey) -> bool:
            return key.row % 7 != 2

        def read(self, key: FrameKey) -> Any:
            read.append(key.row)
            return np.full((2, 2), key.row, np.float32)

    there = [key for key in keys if Stored().has(key)]
    ahead = ReadAhead(Stored(), there[:20] + keys[2:3], ahead=4)
    assert [ahead.has(key) for key in keys] == [Stored().has(key) for key in keys]
    assert [int(ahead.read(key)[0, 0]) for key in there] == [key.row for key in there]
    assert sorted(read) == [key.row for key in there]  # each once
    again = [there[7], there[3], there[3], there[19], there[0]]
    assert [int(ahead.read(key)[0, 0]) for key in again] == [key.row for key in again]


def test_once_per_batch_keeps_what_a_row_says_of_itself() -> None:
    once = OncePerBatch(Wall(8.0))
    assert (once.name, once.kind, once.note) == ("wall", "prior", "a wall")
    assert once.missing(FrameKey("drive", "image_00", 1)) == "no wall"


@pytest.mark.parametrize(("ahead", "row"), [(4.0, 123), (8.0, 110), (12.0, 106), (20.0, 102)])
def test_kitti_360_looks_at_the_published_rows_of_the_image(ahead: float, row: int) -> None:
    """The whole benchmark looks at some twenty rows of the depth map (comparison_methods.md 5.3)."""
    raw = np.array([[552.554261, 0, 682.049453], [0, 552.554261, 238.769549], [0, 0, 1]])
    ndc = torch.from_numpy(intrinsics_to_ndc(raw, (376, 1408), "official"))
    cells = slice_points().reshape(160, 80, 3)
    level = cells[..., 2] / np.cos(np.deg2rad(5.0)) + 0.375 * -np.tan(np.deg2rad(5.0))
    at_row = cells[np.abs(level[:, 0] - ahead).argmin()]
    places = []
    for candidate in range(row - 3, row + 4):
        depth = torch.full((192, 640), 100.0)
        depth[candidate] = 1.0
        if depth_to_occupancy(depth, torch.from_numpy(at_row), ndc).any():
            places.append(candidate)
    assert places == [row]
