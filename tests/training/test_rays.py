import numpy as np
import pytest
import torch

from vipocc.errors import ConfigError, DataError
from vipocc.geometry.poses import virtual_rotation
from vipocc.training import rays

SIZE = (24, 40)
EIGHT = ["key", "key", "other", "other", "key_fisheye", "key_fisheye", "other_fisheye", "other_fisheye"]


def test_eight_views_split_into_the_published_sets() -> None:
    first, second = rays.split_views(EIGHT, [5, 6, 5, 6, 15, 16, 15, 16])
    assert (first.loss, first.render) == ((0, 3, 4, 7), (1, 2, 5, 6))
    assert (second.loss, second.render) == ((1, 2, 5, 6), (0, 3, 4, 7))


def test_a_stereo_pair_splits_crosswise() -> None:
    first, second = rays.split_views(EIGHT[:4], [5, 6, 5, 6])
    assert (first.loss, first.render) == ((0, 3), (1, 2))
    assert (second.loss, second.render) == ((1, 2), (0, 3))


def test_the_split_follows_time_steps_and_not_positions() -> None:
    first, _ = rays.split_views(["a", "b", "b", "a"], [1, 4, 3, 2])
    assert (first.loss, first.render) == ((0, 1), (2, 3))


def test_a_camera_with_one_time_step_only_renders() -> None:
    for split in rays.split_views(["a", "a", "b", "c", "c"], [0, 1, 0, 7, 7]):
        assert {2, 3, 4} <= set(split.render)
        assert not {2, 3, 4} & set(split.loss)
        assert len(split.loss) == 1


def test_a_sample_without_a_pair_is_refused() -> None:
    with pytest.raises(DataError, match="no camera with two time steps"):
        rays.split_views(["a", "b"], [0, 0])


def test_the_coin_takes_either_crosswise_split() -> None:
    rows = [5, 6, 5, 6, 15, 16, 15, 16]
    for rule in ("crosswise", "official"):
        drawn = {rays.choose_split(np.random.default_rng(seed), EIGHT, rows, rule) for seed in range(20)}
        assert drawn == set(rays.split_views(EIGHT, rows)), "eight views split alike by both rules"


def test_the_released_split_of_a_stereo_pair_draws_two_render_views() -> None:
    drawn = [rays.choose_split(np.random.default_rng(seed), EIGHT[:4], [5, 6, 5, 6], "official") for seed in range(600)]
    for split in drawn:
        assert len(split.render) == 2
        assert sorted(split.loss + split.render) == [0, 1, 2, 3]
        assert split.loss == tuple(sorted(split.loss))
        assert split.render == tuple(sorted(split.render))
    counts = [sum(split.render == pair for split in drawn) for pair in {split.render for split in drawn}]
    assert len(counts) == 6, "every pair, also two time steps of one camera"
    assert min(counts) > 60
    crosswise = {rays.choose_split(np.random.default_rng(seed), EIGHT[:4], [5, 6, 5, 6]) for seed in range(20)}
    assert {split.render for split in crosswise} == {(0, 3), (1, 2)}


def test_two_views_cannot_be_split_as_released() -> None:
    with pytest.raises(DataError, match=r"2 views cannot be split.*view_split=crosswise"):
        rays.choose_split(np.random.default_rng(0), EIGHT[:2], [5, 6], "official")


def test_exclusive_bounds_never_draw_the_last_row_and_column() -> None:
    centres = rays.uniform_centres(np.random.default_rng(0), 400_000, (192, 640), 8, "exclusive")
    corners = centres - 4
    assert corners.min(0).tolist() == [0, 0]
    assert corners.max(0).tolist() == [631, 183]
    assert rays.uniform_centres(np.random.default_rng(0), 5, (9, 9), 8, "exclusive").tolist() == [[4, 4]] * 5
    with pytest.raises(ConfigError, match="patch_size"):
        rays.uniform_centres(np.random.default_rng(0), 1, (8, 40), 8, "exclusive")


def test_uniform_patches_reach_every_border_and_stay_inside() -> None:
    centres = rays.uniform_centres(np.random.default_rng(0), 20_000, SIZE, 8)
    pixels = rays.patch_pixels(torch.from_numpy(centres)[None].long(), 8)
    assert pixels.amin((0, 1, 2, 3)).tolist() == [0, 0]
    assert pixels.amax((0, 1, 2, 3)).tolist() == [SIZE[1] - 1, SIZE[0] - 1]


def test_patches_larger_than_the_image_are_refused() -> None:
    with pytest.raises(ConfigError, match="patch_size"):
        rays.uniform_centres(np.random.default_rng(0), 1, (6, 40), 8)


def test_a_patch_covers_centre_minus_four_to_centre_plus_three() -> None:
    pixels = rays.patch_pixels(torch.tensor([[[10, 7]]]), 8)[0, 0]
    assert pixels[0, 0].tolist() == [6, 3]
    assert pixels[7, 7].tolist() == [13, 10]
    assert pixels[0, 7].tolist() == [13, 3], "rows come before columns"


def test_each_loss_view_gets_its_share_of_its_own_anchors() -> None:
    anchors = [np.stack([np.full(64, 4 + view), np.arange(64)], axis=-1).astype(np.uint16) for view in range(8)]
    centres, views = rays.choose_patches(
        np.random.default_rng(3),
        (0, 3, 4, 7),
        [*anchors[:4], None, None, None, None],
        count=64,
        share="even",
        size=(80, 80),
        patch=8,
    )
    assert np.bincount(views).tolist() == [16, 0, 0, 16, 16, 0, 0, 16]
    for view in (0, 3):
        chosen = centres[views == view]
        assert (chosen[:, 0] == 4 + view).all()
        assert len(np.unique(chosen[:, 1])) == 16, "no anchor is taken twice"


def test_a_random_share_covers_all_loss_views() -> None:
    share = rays.share_patches(np.random.default_rng(0), 64, 4, "random")
    assert share.sum() == 64
    assert (share > 0).all()
    assert rays.share_patches(np.random.default_rng(0), 10, 4, "even").tolist() == [3, 3, 2, 2]


def test_more_patches_than_anchors_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"65 patches .* 64 anchors.*training\.patches"):
        rays.choose_anchors(np.random.default_rng(0), np.zeros((64, 2)), 65)


@pytest.fixture
def scene() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    intrinsics = torch.tensor([[0.78, 0.0, -0.03], [0.0, 2.9, 0.27], [0.0, 0.0, 1.0]]).repeat(2, 4, 1, 1)
    intrinsics[1, :, 0, 0] = 1.1
    poses = torch.eye(4).repeat(2, 4, 1, 1)
    poses[:, 1:, :3, 3] = torch.randn(2, 3, 3, generator=generator)
    poses[:, 2, :3, :3] = torch.from_numpy(virtual_rotation(-15.0, 4.0)).float()
    corner = torch.randint(0, 12, (2, 5, 2), generator=generator)
    return {
        "images": torch.rand(2, 4, 3, *SIZE, generator=generator),
        "intrinsics": intrinsics,
        "poses": poses,
        "pixels": rays.patch_pixels(corner + 4, 8),
        "views": torch.randint(0, 4, (2, 5), generator=generator),
    }


@pytest.mark.parametrize("convention", ["centre", "official"])
def test_rays_equal_the_reference(scene: dict[str, torch.Tensor], convention: str) -> None:
    arguments = (
        scene["pixels"],
        scene["views"],
        scene["intrinsics"].double(),
        scene["poses"].double(),
        SIZE,
        convention,
    )
    fast, plain = rays.patch_rays(*arguments), rays.patch_rays_reference(*arguments)
    torch.testing.assert_close(fast.origins, plain.origins, rtol=0, atol=1e-12)
    torch.testing.assert_close(fast.directions, plain.directions, rtol=0, atol=1e-12)


def test_colours_equal_the_reference_and_lie_where_the_rays_point(scene: dict[str, torch.Tensor]) -> None:
    colours = rays.patch_colours(scene["images"], scene["pixels"], scene["views"])
    assert torch.equal(colours, rays.patch_colours_reference(scene["images"], scene["pixels"], scene["views"]))
    # A point on each ray, projected back into its own view, falls on the pixel whose colour is the target.
    followed = rays.patch_rays(scene["pixels"], scene["views"], scene["intrinsics"], scene["poses"], SIZE, "centre")
    points = (followed.origins + 12.0 * followed.directions).reshape(2, 5, 64, 3)
    for sample in range(2):
        for patch in range(5):
            view = int(scene["views"][sample, patch])
            pose = scene["poses"][sample, view]
            local = (points[sample, patch] - pose[:3, 3]) @ pose[:3, :3]
            projected = local @ scene["intrinsics"][sample, view].T
            grid = (projected[:, :2] / projected[:, 2:])[None, None]
            seen = torch.nn.functional.grid_sample(
                scene["images"][sample, view][None], grid, align_corners=False, padding_mode="border"
            )[0, :, 0].T
            torch.testing.assert_close(seen, colours[sample, patch].reshape(64, 3), rtol=0, atol=1e-4)


def test_values_of_patches_are_gathered_in_the_same_order(scene: dict[str, torch.Tensor]) -> None:
    values = rays.patch_values(scene["images"][:, 0, :1], scene["pixels"])
    colours = rays.patch_colours(scene["images"], scene["pixels"], torch.zeros_like(scene["views"]))
    assert torch.equal(values, colours[..., 0])


def test_depth_factors_are_the_z_of_rays_of_the_key_view(scene: dict[str, torch.Tensor]) -> None:
    views = torch.zeros_like(scene["views"])
    followed = rays.patch_rays(scene["pixels"], views, scene["intrinsics"], scene["poses"], SIZE, "centre")
    factors = rays.patch_depth_factors(scene["pixels"], scene["intrinsics"][:, 0], SIZE, "centre")
    torch.testing.assert_close(factors.flatten(1), followed.directions[..., 2])
