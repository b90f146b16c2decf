"""The ray caster and the inside test against plain computations, street coordinates, noise."""

import numpy as np
import pytest
from small_worlds import small_config

from vipocc.data_manifests.synthetic.layout import build
from vipocc.data_manifests.synthetic.materials import Material, fractal, noise
from vipocc.data_manifests.synthetic.mesh import Hits, World
from vipocc.data_manifests.synthetic.render import _turned
from vipocc.data_manifests.synthetic.scene import FIRST_OBJECT
from vipocc.data_manifests.synthetic.shading import radiance
from vipocc.data_manifests.synthetic.shapes import NAMES, inside, shape
from vipocc.data_manifests.synthetic.street import KERB_HEIGHT


@pytest.fixture(scope="module")
def scene():
    return build(small_config(train_frames=30), 0)


def moeller_trumbore_reference(corners, origin, direction):
    """Distance along each ray to each triangle, inf for a miss: [T]."""
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = np.cross(direction, edge_2)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / np.sum(edge_1 * p, axis=1)
        t = origin - corners[:, 0]
        u = np.sum(t * p, axis=1) * inverse
        q = np.cross(t, edge_1)
        v = (q @ direction) * inverse
        distance = np.sum(edge_2 * q, axis=1) * inverse
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
    return np.where(hit, distance, np.inf)


def test_casting_equals_the_plain_intersection(scene):
    world = World(scene).at(12)
    corners = world.faces.corners.astype(np.float64)
    rng = np.random.default_rng(3)
    origin = scene.world_from_imu[12, :3, 3] - scene.origin + [0, 0, 0.8]
    directions = rng.normal(size=(24, 3)) * [1, 1, 0.15]
    hits = world.cast(origin.astype(np.float32), directions.astype(np.float32))
    for direction, distance in zip(directions, hits.distance, strict=True):
        expected = moeller_trumbore_reference(corners, origin, direction).min()
        assert distance == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(hits.distance).sum() > 12


def test_moving_faces_are_hit_where_they_are(scene):
    world = World(scene)
    tried = 0
    for mover in np.flatnonzero(scene.moving):
        for frame in (0, 20):
            # From just in front of its chest or windscreen, unless another object stands there.
            centre, size, yaw = scene.box(int(mover), frame)
            ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
            start = centre + (size[0] / 2 + 0.3) * ahead + np.array([0, 0, 0.15 * size[2]])
            if scene.object_at(start[None], frame)[0]:
                continue
            hits = world.at(frame).cast(start.astype(np.float32), -ahead[None].astype(np.float32))
            assert world.faces.instance[hits.face[0]] == mover + FIRST_OBJECT
            assert 0.2 < hits.distance[0] < 0.3 + size[0]
            tried += 1
    assert tried >= 4


@pytest.mark.parametrize("name", NAMES)
def test_inside_agrees_with_counting_crossings(name):
    template = shape(name)
    assert np.abs(template.vertices).max() <= 0.5 + 1e-9
    points = np.random.default_rng(1).uniform(-0.6, 0.6, (400, 3))
    corners = template.vertices[template.faces]
    direction = np.array([0.31, 0.17, 0.93])
    crossings = [np.isfinite(moeller_trumbore_reference(corners, p, direction)).sum() for p in points]
    np.testing.assert_array_equal(inside(points, template), np.array(crossings) % 2 == 1)
    # Closed and outward: the divergence theorem gives a positive volume inside the unit cube.
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.1 < volume <= 1.0 + 1e-9


def test_street_coordinates_return_where_they_came_from(scene):
    street = scene.street
    rng = np.random.default_rng(2)
    s, d = rng.uniform(street.start + 5, street.end - 5, 300), rng.uniform(-12, 12, 300)
    xy = np.array([street.place(a, b)[:2] for a, b in zip(s, d, strict=True)])
    got_s, got_d = street.coordinates(xy)
    np.testing.assert_allclose(got_d, d, atol=0.05)
    np.testing.assert_allclose(got_s, s, atol=0.15)


def test_the_ground_is_solid_below_its_surface(scene):
    street = scene.street
    world = World(scene).at(0)
    rng = np.random.default_rng(4)
    s, d = rng.uniform(0, 40, 500), rng.uniform(-20, 20, 500)
    xy = np.array([street.place(a, b)[:2] for a, b in zip(s, d, strict=True)])
    below = np.insert(xy, 2, -0.2, axis=1)
    hits = world.cast(below.astype(np.float32), np.tile(np.float32([0, 0, 1]), (500, 1)))
    surface = -0.2 + hits.distance
    # The rest of the rays meet what stands in the ground first: wheels, trunks, the undersides of paths.
    ground = np.abs(surface[:, None] - [0.0, KERB_HEIGHT]).min(1) < 1e-3
    assert ground.mean() > 0.8
    for shift, expected in ((-0.01, True), (0.01, False)):
        points = np.insert(xy[ground], 2, surface[ground] + shift, axis=1)
        assert np.mean(street.below_ground(points) == expected) > 0.98


def test_no_solid_is_ever_where_the_car_drives():
    config = small_config(train_drives=4, train_frames=60, test_drives=2, test_frames=60, scale=0.5)
    grid = np.meshgrid(np.linspace(-1.0, 3.0, 9), np.linspace(-0.9, 0.9, 7), np.linspace(0.3, -0.5, 3))
    car = np.stack(grid, -1).reshape(-1, 3)
    for index in range(config.drives):
        drive = build(config, index)
        for frame in range(0, 60, 2):
            pose = drive.world_from_imu[frame]
            points = car @ pose[:3, :3].T + pose[:3, 3] - drive.origin
            assert not drive.object_at(points, frame).any(), (index, frame)


def test_noise_is_smooth_repeats_and_has_its_wavelength():
    x = np.linspace(0, 50, 5000, dtype=np.float32)
    values = noise(x, np.full_like(x, 3.3), 2.0)
    assert np.abs(np.diff(values)).max() < 0.1
    assert 0.3 < values.std() < 0.8
    crossings = np.sum(np.diff(np.sign(values)) != 0)
    assert 50 / 2.0 * 0.6 < crossings / 2 < 50 / 2.0 * 1.6
    np.testing.assert_allclose(noise(x + 256.0, np.full_like(x, 3.3), 2.0), values, atol=0.02)


def test_shading_does_not_depend_on_how_many_rays_are_shaded_at_a_time(scene):
    world = World(scene).at(3)
    pose = scene.world_from_imu[3]
    origin = (pose[:3, 3] - scene.origin + [0, 0, 0.7]).astype(np.float32)
    rays = np.random.default_rng(5).normal((1, 0, 0), (0.1, 0.6, 0.3), (3000, 3)) @ pose[:3, :3].T
    directions = np.ascontiguousarray(rays, np.float32)
    hits = world.cast(origin, directions)
    assert 0.1 < np.mean(hits.face < 0) < 0.9, "sky and surfaces"
    whole = radiance(world, origin, directions, hits, 0.003, True)
    assert np.all(whole > 0)
    np.testing.assert_array_equal(radiance(world, origin, directions, hits, 0.003, True, run=64), whole)
    # One ray at a time is the plain way: nothing is sorted, nothing is gathered.
    for i in range(0, 3000, 100):
        part = Hits(hits.distance[i : i + 1], hits.face[i : i + 1], hits.weights[i : i + 1])
        alone = radiance(world, origin, directions[i : i + 1], part, 0.003, True)
        np.testing.assert_allclose(alone[0], whole[i], rtol=1e-4, atol=1e-5)


def test_directions_are_turned_as_by_the_plain_product():
    rng = np.random.default_rng(6)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    directions = rng.normal(size=(500, 3)).astype(np.float32)
    turned = _turned(directions, rotation)
    assert turned.dtype == np.float32
    assert turned.flags.c_contiguous
    np.testing.assert_allclose(turned, directions.astype(np.float64) @ rotation.T, atol=1e-6)


def test_detail_that_a_pixel_cannot_show_fades():
    rng = np.random.default_rng(0)
    u, v = rng.uniform(0, 100, (2, 4000)).astype(np.float32)
    seed, kind = np.full(4000, 0.5, np.float32), Material.GRASS
    near, far, farther = (
        fractal(u, v, seed, kind, np.full(4000, size, np.float32)).std() for size in (0.005, 0.5, 30.0)
    )
    assert near > far > farther == 0.0
