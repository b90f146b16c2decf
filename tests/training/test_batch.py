import itertools
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vipocc.training.batch import Batch, mirror, share_choices, to_batch, vary_colours, vary_colours_reference
from vipocc.training.rays import patch_colours, patch_pixels, patch_rays

H, W = 24, 40


def make_batch(flip: list[bool]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    n = len(flip)
    poses = torch.eye(4).repeat(n, 4, 1, 1)
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.1, 0.2], [0.1, 0.0, -0.3], [-0.2, 0.3, 0.0]]))
    poses[:, 1, :3, :3] = turn
    poses[:, 1:, :3, 3] = torch.randn(n, 3, 3, generator=generator)
    intrinsics = torch.tensor([[0.78, 0.0, -0.13], [0.0, 2.9, 0.27], [0.0, 0.0, 1.0]]).repeat(n, 4, 1, 1)
    raw = {
        "images": torch.randint(0, 256, (n, 4, H, W, 3), dtype=torch.uint8, generator=generator),
        "intrinsics": intrinsics,
        "key_from_view": poses,
        "render_views": torch.tensor([[1, 2]] * n),
        "centres": torch.randint(4, 20, (n, 6, 2), generator=generator, dtype=torch.int32),
        "patch_views": torch.randint(0, 4, (n, 6), generator=generator),
        "depth_centres": torch.randint(4, 20, (n, 3, 2), generator=generator, dtype=torch.int32),
        "flip": torch.tensor(flip),
        "prior_depth": torch.rand(n, 2, H, W, generator=generator).half() * 40,
    }
    return to_batch(raw, torch.device("cpu"))


def test_images_become_channels_first_in_the_unit_range() -> None:
    batch = make_batch([False])
    assert batch.images.shape == (1, 4, 3, H, W)
    assert batch.images.permute(0, 1, 3, 4, 2).is_contiguous(), "the channels of a pixel lie side by side"
    assert 0 <= float(batch.images.min()) < float(batch.images.max()) <= 1
    assert batch.size == (H, W)


def test_only_the_chosen_samples_are_mirrored_and_twice_is_as_before() -> None:
    batch = make_batch([True, False])
    once = mirror(batch)
    twice = mirror(once)
    for name in ("images", "intrinsics", "key_from_view", "centres", "depth_centres", "prior_depth"):
        before, after, again = getattr(batch, name), getattr(once, name), getattr(twice, name)
        assert torch.equal(before[1], after[1])
        assert not torch.equal(before[0], after[0])
        torch.testing.assert_close(before, again, rtol=0, atol=0)


def test_mirrored_geometry_projects_to_mirrored_pixels() -> None:
    batch = make_batch([True])
    mirrored = mirror(batch)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 4 + torch.tensor([-2.0, -2.0, 6.0])
    for view in range(4):

        def project(of: Batch, at: torch.Tensor, view: int = view) -> torch.Tensor:
            local = torch.linalg.inv(of.key_from_view[0, view]) @ torch.cat([at, torch.ones(50, 1)], 1).T
            pixel = of.intrinsics[0, view] @ local[:3]
            return (pixel[:2] / pixel[2]).T

        straight, seen = project(batch, points), project(mirrored, points * torch.tensor([-1.0, 1.0, 1.0]))
        torch.testing.assert_close(seen, straight * torch.tensor([-1.0, 1.0]), rtol=0, atol=2e-5)


def test_mirrored_patches_show_the_same_colours_along_mirrored_rays() -> None:
    batch = make_batch([True])
    mirrored = mirror(batch)
    seen = []
    for of in (batch, mirrored):
        pixels = patch_pixels(of.centres, 8)
        rays = patch_rays(pixels, of.patch_views, of.intrinsics, of.key_from_view, of.size, "centre")
        seen.append((patch_colours(of.images, pixels, of.patch_views), rays))
    (colours, rays), (mirrored_colours, mirrored_rays) = seen
    assert torch.equal(mirrored_colours.flip(-2), colours), "columns of a patch run the other way"
    sign = torch.tensor([-1.0, 1.0, 1.0])
    grid = mirrored_rays.directions.reshape(1, 6, 8, 8, 3).flip(-2) * sign
    torch.testing.assert_close(grid, rays.directions.reshape(1, 6, 8, 8, 3), rtol=0, atol=1e-6)
    origins = mirrored_rays.origins.reshape(1, 6, 8, 8, 3) * sign
    torch.testing.assert_close(origins, rays.origins.reshape(1, 6, 8, 8, 3), rtol=0, atol=1e-6)


def test_shared_choices_are_those_of_the_first_sample() -> None:
    shared = share_choices(make_batch([True, False]))
    for name in ("centres", "patch_views", "depth_centres", "render_views", "mirrored"):
        values = getattr(shared, name)
        assert torch.equal(values[0], values[1])


def test_colours_vary_alike_in_all_views_of_a_sample() -> None:
    images = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).expand(2, 3, 3, 8, 8)
    neutral = [1.0, 1.0, 1.0, 0.0]
    factors = torch.tensor([[*neutral, 0, 1, 2, 3], [0.8, 1.2, 0.9, 0.05, 2, 0, 3, 1]])
    varied = vary_colours(images, factors)
    torch.testing.assert_close(varied[0], images[0], rtol=0, atol=1e-5)
    assert not torch.allclose(varied[1], images[1], atol=0.02)
    assert torch.equal(varied[1, 0], varied[1, 2])
    assert 0 <= float(varied.min()) <= float(varied.max()) <= 1


def test_colours_vary_as_by_torchvision_in_every_order() -> None:
    generator = torch.Generator().manual_seed(0)
    orders = torch.tensor(list(itertools.permutations(range(4))), dtype=torch.float32)
    images = torch.rand(24, 2, 3, 9, 11, generator=generator)
    images[:, 0, :, 0] = torch.randint(0, 2, (24, 3, 11), generator=generator).float()  # pure colours, black, white
    images[:, 0, :, 1] = images[:, 0, :1, 1]  # greys
    images[:, 0, 0, 2] = images[:, 0, 1, 2]  # two channels alike
    changes = torch.cat([torch.rand(24, 3, generator=generator), torch.rand(24, 1, generator=generator) - 0.5], dim=1)
    changes[:, :3] = 0.5 + changes[:, :3]
    factors = torch.cat([changes, orders], dim=1)
    expected = vary_colours_reference(images, factors)
    torch.testing.assert_close(vary_colours(images, factors), expected, rtol=0, atol=1e-5)
    swapped = torch.cat([changes, orders.flip(0)], dim=1)
    assert (vary_colours(images, swapped) - expected).abs().amax(dim=(1, 2, 3, 4)).median() > 0.01, "the order matters"


def test_colours_vary_without_asking_for_values() -> None:
    """A value that the host asks for is one that it waits for; a fake tensor has none to give."""
    with FakeTensorMode():
        images, factors = torch.empty(2, 3, 3, 8, 8), torch.empty(2, 8)
        assert vary_colours(images, factors).shape == images.shape
        with pytest.raises(Exception, match=r"DataDependent|tolist|_local_scalar_dense"):
            vary_colours_reference(images, factors)


@pytest.mark.gpu
def test_a_batch_is_prepared_on_the_gpu_without_waiting_for_it() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = make_batch([True, False])
    factors = torch.tensor([[0.9, 1.1, 1.2, -0.07, 3, 1, 0, 2], [1.2, 0.8, 0.9, 0.05, 0, 2, 3, 1]])
    raw = {
        "images": torch.randint(0, 256, (2, 4, H, W, 3), dtype=torch.uint8, generator=generator),
        "intrinsics": batch.intrinsics,
        "key_from_view": batch.key_from_view,
        "render_views": batch.render_views,
        "centres": batch.centres,
        "patch_views": batch.patch_views,
        "depth_centres": batch.depth_centres,
        "flip": batch.mirrored,
        "prior_depth": batch.prior_depth.half() if batch.prior_depth is not None else torch.empty(0),
    }

    def prepared(tensors: dict[str, torch.Tensor], colours: torch.Tensor, device: torch.device) -> Batch:
        made = mirror(to_batch(tensors, device))
        return replace(made, images=vary_colours(made.images, colours))

    expected = prepared(raw, factors, torch.device("cpu"))
    device = torch.device("cuda")
    there = {name: values.to(device) for name, values in raw.items()}, factors.to(device)
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = prepared(*there, device)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for name in ("images", "intrinsics", "key_from_view", "centres", "depth_centres", "prior_depth"):
        torch.testing.assert_close(getattr(made, name).cpu(), getattr(expected, name), rtol=0, atol=1e-5)
