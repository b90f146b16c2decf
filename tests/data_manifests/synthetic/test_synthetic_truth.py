"""The exact truth of the synthetic world agrees with its images, its sweeps and with geometry."""

import io
import itertools
import shutil

import cv2
import numpy as np
import pytest
from kitti_files import Files

from vipocc.data_manifests.synthetic.drive import pack_truth, unpack_truth
from vipocc.data_manifests.synthetic.exact import ExactTruth
from vipocc.errors import DataError, MissingInputError

DRIVE = "synthetic_drive_0000_sync"


@pytest.fixture(params=["world", "larger_world"])
def scene(request):
    root, _ = request.getfixturevalue(request.param)
    return Files(root), ExactTruth(root)


def lidar_agreement(files, truth, tilt=0.0):
    """Share of LiDAR points seen by camera 0 that lie on the exact depth map, and their number."""
    world_from_camera = files.world_from_pose(DRIVE, 1) @ files.pose_from["image_00"]
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    points = np.insert(files.sweep(DRIVE, 1)[:, :3].astype(float), 3, 1.0, axis=1)
    points = points @ (np.linalg.inv(files.pose_from["image_00"]) @ files.pose_from_velo @ turn).T
    points = points[points[:, 2] > 1.0]
    # The LiDAR looks over what hides things from the camera: leave those points out, with 0.1 m for the noise.
    nearer = points[:, :3] * (1.0 - 0.1 / np.linalg.norm(points[:, :3], axis=1, keepdims=True))
    points = points[truth.visible_at(nearer @ world_from_camera[:3, :3].T + world_from_camera[:3, 3], DRIVE, 1)]
    px = points[:, :3] @ files.k.T
    col, row = np.rint(px[:, :2] / px[:, 2:]).astype(int).T
    inner = (col > 0) & (col < files.width - 1) & (row > 0) & (row < files.height - 1)
    col, row, z = col[inner], row[inner], points[inner, 2]
    depth = truth.depth(DRIVE, "image_00", 1)
    around = np.stack([depth[row + i, col + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    # Where the 3x3 neighbourhood spans more than a metre there is an edge, or a surface seen at a grazing angle.
    plain = around.max(0) - around.min(0) < 1.0
    low, high = around.min(0)[plain] - 0.05, around.max(0)[plain] + 0.05
    return np.mean((z[plain] > low) & (z[plain] < high)), plain.sum()


def test_lidar_points_lie_on_the_exact_depth(scene):
    files, truth = scene
    depth = truth.depth(DRIVE, "image_00", 1)
    assert depth.shape == (files.height, files.width)
    assert depth.dtype == np.float32
    agreement, count = lidar_agreement(files, truth)
    assert count > 300
    assert agreement > 0.98
    turned, _ = lidar_agreement(files, truth, tilt=np.deg2rad(3.0))
    assert turned < 0.8


def test_the_right_image_warped_by_exact_depth_is_the_left_one(scene):
    files, truth = scene
    left, right = (files.image(DRIVE, c, 2).astype(np.float32) for c in ("image_00", "image_01"))
    depth, other = (truth.depth(DRIVE, c, 2) for c in ("image_00", "image_01"))
    x, y = np.meshgrid(np.arange(files.width, dtype=np.float32), np.arange(files.height, dtype=np.float32))
    there = (x - files.k[0, 0] * 0.594 / depth).astype(np.float32)
    warped = cv2.remap(right, there, y, cv2.INTER_LINEAR)
    other_depth = cv2.remap(np.where(np.isfinite(other), other, 0), there, y, cv2.INTER_NEAREST)
    seen = (there > 1) & np.isfinite(depth) & (np.abs(other_depth - depth) < 0.02 * depth)
    assert seen.mean() > 0.4
    error = np.abs(warped - left).mean(-1)
    unwarped = np.abs(right - left).mean(-1)
    assert error[seen].mean() < 0.5 * unwarped[seen].mean()
    assert np.median(error[seen]) < 6.0


def test_the_next_frame_warped_by_depth_and_poses_is_this_one(scene):
    files, truth = scene
    this, following = (files.image(DRIVE, "image_00", i).astype(np.float32) for i in (1, 2))
    depth = truth.depth(DRIVE, "image_00", 1)
    a, b = (files.world_from_pose(DRIVE, i) @ files.pose_from["image_00"] for i in (1, 2))
    x, y = np.meshgrid(np.arange(files.width), np.arange(files.height))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(files.k).T
    points = np.insert(rays * np.where(np.isfinite(depth), depth, 1e4)[..., None], 3, 1.0, axis=-1)
    there = points @ (np.linalg.inv(b) @ a).T
    px = there[..., :3] @ files.k.T
    px = (px[..., :2] / px[..., 2:]).astype(np.float32)
    warped = cv2.remap(following, px, None, cv2.INTER_LINEAR)
    other = cv2.remap(truth.depth(DRIVE, "image_00", 2), px, None, cv2.INTER_NEAREST)
    seen = np.isfinite(depth) & (np.abs(other - there[..., 2]) < 0.05 * there[..., 2])
    assert seen.mean() > 0.4
    assert np.median(np.abs(warped - this).mean(-1)[seen]) < 7.0


@pytest.mark.parametrize("camera", ["image_02", "image_03"])
def test_the_virtual_view_of_a_fisheye_is_a_pinhole_picture_of_the_world(larger_world, camera):
    from vipocc.data_manifests.synthetic.mesh import World
    from vipocc.data_manifests.synthetic.render import take, views
    from vipocc.geometry.cameras import Mei, fisheye_table
    from vipocc.geometry.poses import from_rotation, virtual_rotation

    files, truth = Files(larger_world[0]), ExactTruth(larger_world[0])
    values = files.fisheye(camera)
    size = {"width": int(values.pop("image_width")), "height": int(values.pop("image_height"))}
    model = Mei(**values, **size)
    turn = virtual_rotation(-15.0)
    table = fisheye_table(files.k, (files.height, files.width), model, turn, "centre")
    raw = files.image(DRIVE, camera, 1)
    resampled = cv2.remap(raw, table, None, cv2.INTER_LINEAR)
    assert resampled.max(-1).min() > 0, "part of the virtual view was not rendered"
    assert np.mean(raw.max(-1) == 0) > 0.7, "what the virtual view does not need stays black"

    drawn = truth.scene(DRIVE)
    pose = files.world_from_pose(DRIVE, 1) @ files.pose_from[camera] @ from_rotation(turn)
    pose[:3, 3] -= drawn.origin
    view = views(truth.rig, False)["image_00"]
    direct = take(World(drawn).at(0), view, pose, np.random.default_rng(0), 0.0, True, True).image
    # The same picture but for the fisheye's coarser pixels: blur before comparing.
    a, b = (cv2.GaussianBlur(i.astype(np.float32), (0, 0), 2.5) for i in (resampled, direct))
    shifted = np.roll(b, 8, axis=1)
    assert np.abs(a - b).mean() < 0.5 * np.abs(a - shifted).mean()
    assert np.median(np.abs(a - b)) < 5.0


def test_full_fisheyes_fill_their_circle():
    from vipocc.data_manifests.synthetic.render import views
    from vipocc.data_manifests.synthetic.rig import rig

    some, whole = (views(rig(0.15), full)["image_02"] for full in (False, True))
    assert 2000 < len(some.pixels) < 0.3 * len(whole.pixels)
    assert 0.5 < len(whole.pixels) / 211**2 < 0.85


def test_lidar_points_lie_on_the_boundary_of_the_occupied(scene):
    files, truth = scene
    velo = files.world_from_pose(DRIVE, 1) @ files.pose_from_velo
    points = files.sweep(DRIVE, 1)[:, :3].astype(float)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)

    def occupied(shift):
        return truth.occupancy_at((points + shift * unit) @ velo[:3, :3].T + velo[:3, 3], DRIVE, 1)

    assert np.mean(occupied(-0.08)) < 0.01
    assert np.mean(occupied(+0.08)) > 0.95
    cameras = [truth.world_from_camera(DRIVE, i, c)[:3, 3] for i in (1, 2) for c in files.pose_from]
    assert not truth.occupancy_at(np.array(cameras), DRIVE, 1).any()


def test_visibility_ends_at_the_surface(scene):
    files, truth = scene
    depth = truth.depth(DRIVE, "image_00", 1)
    pose = files.world_from_pose(DRIVE, 1) @ files.pose_from["image_00"]
    row, col = np.nonzero(depth < 60.0)
    rays = np.stack([col, row, np.ones_like(row)], -1) @ np.linalg.inv(files.k).T
    for share, expected in ((0.99, True), (1.01, False)):
        points = rays * (share * depth[row, col])[:, None] @ pose[:3, :3].T + pose[:3, 3]
        assert np.mean(truth.visible_at(points, DRIVE, 1) == expected) > 0.999


def test_the_slice_is_the_published_grid(scene):
    files, truth = scene
    points = truth.slice_points(DRIVE, 1)
    assert points.shape == (160, 80, 3)
    pose = files.world_from_pose(DRIVE, 1) @ files.pose_from["image_00"]
    camera = (points - pose[:3, 3]) @ pose[:3, :3]
    level = camera @ np.array([[1, 0, 0], [0, 0.9961947, 0.0871557], [0, -0.0871557, 0.9961947]]).T
    np.testing.assert_allclose(level[0, 0], [-4, 0.375, 20], atol=1e-5)
    np.testing.assert_allclose(level[-1, -1], [4, 0.375, 4], atol=1e-5)
    # Parallel to the road: the plane stays at the height of the camera less 0.375 m.
    assert np.abs(points[..., 2] - (pose[2, 3] - 0.375)).max() < 0.3


def test_occupied_cells_are_hidden_and_belong_to_objects(scene):
    _, truth = scene
    occupied, visible = truth.occupancy(DRIVE, 1)
    assert occupied.shape == visible.shape == (160, 80)
    assert 0.005 < occupied.mean() < 0.6
    assert not np.any(occupied & visible)
    assert np.mean(~occupied & ~visible) > 0.02, "there is free space to infer behind things"
    np.testing.assert_array_equal(truth.slice_objects(DRIVE, 1) > 0, occupied)


def test_pixels_of_cars_lie_in_their_boxes(scene):
    files, truth = scene
    found = 0
    for frame_id in (1, 2):
        ids, table = truth.instances(DRIVE, "image_00", frame_id)
        depth = truth.depth(DRIVE, "image_00", frame_id)
        pose = files.world_from_pose(DRIVE, frame_id) @ files.pose_from["image_00"]
        assert {0, *(i.id for i in table)} >= set(np.unique(ids))
        for car in (i for i in table if i.label == "car" and i.area > 30):
            row, col = np.nonzero(ids == car.id)
            assert len(row) == car.area
            rays = np.stack([col, row, np.ones_like(row)], -1) @ np.linalg.inv(files.k).T
            points = rays * depth[row, col, None] @ pose[:3, :3].T + pose[:3, 3] - car.box.centre
            cos, sin = np.cos(car.box.yaw), np.sin(car.box.yaw)
            local = points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            assert np.all(np.abs(local) < car.box.size / 2 + 0.03)
            assert 3.5 < car.box.size[0] < 5.3
            assert 1.6 < car.box.size[1] < 2.5
            assert 1.3 < car.box.size[2] < 2.2
            found += 1
    assert found >= 2


def test_what_moves_keeps_its_id_over_the_frames_and_in_both_cameras(scene):
    files, truth = scene
    ids, _ = files.poses(DRIVE)
    seen = {}
    for frame_id, camera in itertools.product(ids, ("image_00", "image_01")):
        mask, table = truth.instances(DRIVE, camera, frame_id)
        depth = truth.depth(DRIVE, camera, frame_id)
        pose = files.world_from_pose(DRIVE, frame_id) @ files.pose_from[camera]
        for one in (i for i in table if i.moving):
            row, col = np.nonzero(mask == one.id)
            rays = np.stack([col, row, np.ones_like(row)], -1) @ np.linalg.inv(files.k).T
            points = rays * depth[row, col, None] @ pose[:3, :3].T + pose[:3, 3] - one.box.centre
            cos, sin = np.cos(one.box.yaw), np.sin(one.box.yaw)
            local = points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            assert np.all(np.abs(local) < one.box.size / 2 + 0.03), "its pixels lie in the box of its id"
            seen.setdefault(one.id, {})[frame_id, camera] = (one.label, one.box)
    twice = set(itertools.product(ids[:2], ("image_00", "image_01")))
    both = [i for i, places in seen.items() if set(places) >= twice]
    assert both, "both cameras see something that moves, in two frames"
    for places in seen.values():
        assert len({label for label, _ in places.values()}) == 1
        for frame_id in ids:
            boxes = [box for (at, _), (_, box) in places.items() if at == frame_id]
            assert len({tuple(box.centre) for box in boxes}) <= 1, "both cameras are at one instant"
    first, last = (seen[both[0]][i, "image_00"][1].centre for i in ids[:2])
    assert 0.0 < np.linalg.norm(last - first) < 2.5


def test_moving_objects_move_and_the_others_do_not(world):
    truth = ExactTruth(world[0])
    first, last = ({i.id: i for i in truth.boxes(DRIVE, f)} for f in (1, 4))
    moving = [i for i in first.values() if i.moving]
    assert {i.label for i in moving} <= {"car", "person"}
    assert len(moving) >= 2
    for one in first.values():
        still = np.allclose(one.box.centre, last[one.id].box.centre)
        assert still != one.moving
    assert {i.id for i in truth.boxes(DRIVE, 1, moving_only=True)} == {i.id for i in moving}


def test_packing_keeps_depth_to_a_part_in_100000_and_the_sky():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 300.0, (7, 9)).astype(np.float32)
    depth[0] = np.inf
    ids = rng.integers(0, 60_000, (7, 9)).astype(np.uint16)
    got, got_ids = unpack_truth(io.BytesIO(pack_truth(depth, ids)))
    assert np.all(np.isinf(got[0]))
    np.testing.assert_allclose(got[1:], depth[1:], rtol=1e-5)
    np.testing.assert_array_equal(got_ids, ids)


def test_absent_and_damaged_truth_is_one_sentence(world, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(world[0], root)
    truth = ExactTruth(root)
    with pytest.raises(MissingInputError, match="image_02"):
        truth.depth(DRIVE, "image_02", 1)
    with pytest.raises(DataError, match="no frame 99"):
        truth.occupancy(DRIVE, 99)
    with pytest.raises(MissingInputError, match="drive_0009"):
        truth.boxes("synthetic_drive_0009_sync", 1)
    file = root / "exact" / DRIVE / "image_00" / "0000000001.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match=r"0000000001\.npz"):
        truth.depth(DRIVE, "image_00", 1)
    (root / "exact" / DRIVE / "scene.npz").write_bytes(b"not a scene")
    with pytest.raises(DataError, match=r"scene\.npz"):
        ExactTruth(root).occupancy(DRIVE, 1)
    with pytest.raises(MissingInputError, match="no synthetic world"):
        ExactTruth(tmp_path)
