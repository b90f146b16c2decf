"""What is written for the browser is what was put in."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vipocc.apps.view import layers
from vipocc.apps.view.frames import Box
from vipocc.apps.view.page import shell, standalone
from vipocc.apps.view.scene import Cubes, Lines, Picture, Points, Scene, surface
from vipocc.errors import UsageError
from vipocc.pictures import INVENTED, MISSED


def surface_reference(occupied: np.ndarray) -> np.ndarray:
    found = np.zeros_like(occupied)
    for at in np.argwhere(occupied):
        for axis in range(3):
            for step in (-1, 1):
                beside = at.copy()
                beside[axis] += step
                inside = (beside >= 0).all() and (beside < occupied.shape).all()
                found[tuple(at)] |= not (inside and occupied[tuple(beside)])
    return found


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0))
def test_the_surface_is_what_a_free_cell_touches(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    occupied = rng.random(tuple(rng.integers(1, 6, 3))) < share
    np.testing.assert_array_equal(surface(occupied), surface_reference(occupied))


def numbers(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_layers_come_back_from_the_page_s_data() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([-4.0, -1.0, 3.0]) + rng.integers(0, 300, (50, 3)) * np.array([0.2, 0.1, 0.3])
    points = rng.uniform(-80, 80, (40, 3))
    colours = rng.integers(0, 255, (50, 3)).astype(np.uint8)
    ends = rng.uniform(-9, 9, (7, 2, 3))
    image = np.full((20, 30, 3), (200, 40, 90), np.uint8)
    corners = rng.uniform(-1, 1, (4, 3))
    scene = Scene(
        "a <title>",
        [
            Cubes("cells", centres, colours, (0.2, 0.1, 0.3), note="why"),
            Points("points", points, colours[:40], shown=False),
            Lines("lines", ends, (1, 2, 3)),
            Picture("image", image, corners),
        ],
        {"fact": "</script>"},
    )
    cubes, dots, lines, picture = scene.as_dict()["layers"]
    back = np.array(cubes["origin"]) + numbers(cubes["index"], "<u2").reshape(-1, 3) * np.array(cubes["steps"])
    np.testing.assert_allclose(back, centres, atol=1e-9)
    np.testing.assert_array_equal(numbers(cubes["colours"], "u1").reshape(-1, 3), colours)
    np.testing.assert_allclose(numbers(dots["index"], "<i2").reshape(-1, 3) * dots["step"], points, atol=0.0051)
    np.testing.assert_allclose(numbers(lines["ends"], "<f4").reshape(-1, 2, 3), ends, atol=1e-5)
    with Image.open(io.BytesIO(base64.b64decode(picture["source"].partition(",")[2]))) as decoded:
        assert decoded.size == (30, 20)
        np.testing.assert_allclose(np.asarray(decoded)[10, 15], (200, 40, 90), atol=4)
    assert (cubes["note"], dots["shown"], lines["count"]) == ("why", False, 7)
    text = standalone([scene])
    assert "<title>a &lt;title&gt;</title>" in text
    assert text.count("</script>") == 2, "the data does not end its element"
    assert "http" not in text.replace("http://www.w3.org", ""), "nothing is fetched"
    assert '"count":9' in shell("drive", 9)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Points("p", np.full((2, 3), np.nan), np.zeros((2, 3), np.uint8)), "finite positions"),
        (Points("p", np.zeros((2, 2)), np.zeros((2, 3), np.uint8)), "finite positions"),
        (Points("p", np.zeros((2, 3)), np.zeros((1, 3), np.uint8)), "2 colours"),
        (
            Cubes("c", np.array([[0.0, 0, 0], [9e5, 0, 0]]), np.zeros((2, 3), np.uint8), (0.1, 0.1, 0.1)),
            "too far apart",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(layer: Points | Cubes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Scene("t", [layer]).as_dict()


def test_points_beyond_the_range_are_left_out() -> None:
    layer = Points("p", np.array([[0.0, 0, 1], [0, 0, 400.0]]), np.zeros((2, 3), np.uint8))
    assert Scene("t", [layer]).as_dict()["layers"][0]["count"] == 1


def test_a_box_of_cells() -> None:
    centres = Box((-1, 1), (0, 0.5), (3, 4), 0.5).centres()
    assert centres.shape == (4, 1, 2, 3)
    np.testing.assert_allclose(centres[0, 0, 0], (-0.75, 0.25, 3.25))
    for bad in (Box(x=(1, 1)), Box(cell=0.001), Box(z=(9, 3))):
        with pytest.raises(UsageError, match="--cell"):
            bad.centres()


def test_errors_are_coloured_by_kind() -> None:
    centres = Box((0, 4), (0, 1), (0, 1), 1.0).centres()
    predicted = np.array([True, True, False, True]).reshape(4, 1, 1)
    truth = np.array([True, False, True, False]).reshape(4, 1, 1)
    judged = np.array([True, True, True, False]).reshape(4, 1, 1)
    found = layers.differences(predicted, truth, judged, centres, 1.0)
    by_place = {
        float(c[0]): tuple(int(v) for v in colour) for c, colour in zip(found.centres, found.colours, strict=True)
    }
    assert by_place == {0.5: layers.RIGHT, 1.5: INVENTED, 2.5: MISSED}


def test_depth_points_project_back_onto_their_pixels() -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(2, 70, (12, 16))
    depth[0, 0], depth[2, 2] = np.nan, 90.0
    image = rng.integers(0, 255, (12, 16, 3)).astype(np.uint8)
    intrinsics = np.array([[20.0, 0, 7.5], [0, 21.0, 5.5], [0, 0, 1]])
    found = layers.depth_points("d", depth, image, intrinsics, np.eye(4), step=2)
    assert len(found.points) == 6 * 8 - 2
    pixels = found.points @ intrinsics.T
    u, v = (np.rint(pixels[:, i] / pixels[:, 2]).astype(int) for i in (0, 1))
    np.testing.assert_allclose(found.points[:, 2], depth[v, u])
    np.testing.assert_array_equal(found.colours, image[v, u])


def test_a_box_has_twelve_edges() -> None:
    pose = np.eye(4)
    pose[:3, 3] = (1, 2, 3)
    ends = layers.boxes([(pose, np.array([2.0, 4.0, 6.0]))]).ends
    assert ends.shape == (12, 2, 3)
    assert sorted(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).round(9)) == [2.0] * 4 + [4.0] * 4 + [6.0] * 4
    np.testing.assert_allclose(ends.reshape(-1, 3).mean(axis=0), (1, 2, 3))
    assert layers.boxes([]).ends.shape == (0, 2, 3)


def test_a_camera_s_corners_are_its_image_s() -> None:
    intrinsics = np.array([[10.0, 0, 4.5], [0, 10.0, 1.5], [0, 0, 1]])
    corners = layers.camera_corners(intrinsics, (4, 10), np.eye(4))
    pixels = corners @ intrinsics.T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], [[-0.5, -0.5], [9.5, -0.5], [9.5, 3.5], [-0.5, 3.5]])
    assert layers.cameras([(np.zeros(3), corners)]).ends.shape == (8, 2, 3)
