from __future__ import annotations

from typing import Any

import pytest
import torch
from model_cases import SMALL, directions, intrinsics, rays, views
from toy_heads import TOYS, OverCall, register

from vipocc.config import validate
from vipocc.errors import ConfigError, UsageError
from vipocc.model.config import FieldConfig, HeadConfig, ModelConfig, PixelNeRFConfig
from vipocc.model.decoder import Pyramid
from vipocc.model.encoder import ResNetEncoder
from vipocc.model.field import (
    MLPHead,
    PointQuery,
    density_at,
    depth_code,
    positional_encoding,
    sample_features_reference,
)
from vipocc.model.heads.interface import HeadInputs
from vipocc.model.heads.pixelnerf import PixelNeRFHead
from vipocc.model.heads.registry import head_class, head_kinds
from vipocc.model.network import ViPOcc
from vipocc.model.renderer import sample_distances

FORMS = {
    "adapted": PixelNeRFConfig(width=16, blocks=2, conditioned_blocks=1),
    "published": PixelNeRFConfig(width=16, blocks=3, conditioned_blocks=2, conditioning="add", view_directions=True),
    "published, 2 views": PixelNeRFConfig(
        width=16, blocks=3, conditioned_blocks=2, conditioning="add", view_directions=True, views=2
    ),
    "softplus": PixelNeRFConfig(width=16, blocks=1, conditioned_blocks=1, density="softplus", views=2),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def model_with(head: HeadConfig, **changes: Any) -> ViPOcc:
    torch.manual_seed(0)
    return ViPOcc(SMALL.model_copy(update={"head": head, **changes})).eval()


def toy(kind: str, **changes: Any) -> ViPOcc:
    return model_with(HeadConfig(kind=kind, pixelnerf=FORMS["adapted"]), **changes)


def encoded(model: ViPOcc, number: int = 2, seed: int = 0) -> HeadInputs:
    """Two samples of so many source views and a label map."""
    generator = torch.Generator().manual_seed(seed)
    seen = views(2, number, seed)
    pose = seen.view_from_key.clone()
    pose[:, 0] = torch.eye(4)
    label = torch.randint(0, 4, (2, 1, 32, 48), generator=generator, dtype=torch.uint8)
    return model.encode_views(seen.images, seen.intrinsics_ndc, pose, {"label": label})


def points(count: int = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, count, 3, generator=generator) * 4.0 + torch.tensor([0.0, 0.0, 10.0])


@pytest.mark.parametrize("kind", TOYS)
def test_heads_of_other_shapes_render_and_learn(kind: str) -> None:
    model = toy(kind)
    rendered = model.render(encoded(model), intrinsics(), rays(), views())
    assert rendered.distance.shape == (2, 30)
    assert rendered.colours is not None
    assert rendered.colours.shape == (2, 30, 3, 3)
    torch.testing.assert_close(rendered.weights.sum(-1), torch.ones(2, 30), rtol=0, atol=1e-5)
    rendered.distance.sum().backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert model.encoder.conv1.weight.grad is not None


@pytest.mark.parametrize("kind", [*TOYS, "mlp", "pixelnerf"])
@pytest.mark.parametrize("central", [False, True])
def test_chunks_change_no_value_of_any_head(kind: str, central: bool) -> None:
    model = toy(kind)
    model.head.predicts_colour = False  # the colours are another test's
    with torch.no_grad():
        inputs = encoded(model)
        prepared = model._prepare(inputs, intrinsics())
        distances = sample_distances(3.0, 80.0, 7, (2, 30))
        some = rays(central=central)
        if central:
            query = PointQuery.of_central_rays(some.directions, distances, intrinsics())
        else:
            query = PointQuery.of_rays(some.origins, some.directions, distances, intrinsics())
        whole = density_at(model.head, prepared, query)
        for chunk in (3, 50, 100):
            torch.testing.assert_close(density_at(model.head, prepared, query, chunk), whole, rtol=1e-5, atol=1e-6)
        assert whole.std() > 1e-4


@pytest.mark.parametrize("kind", [*TOYS, "pixelnerf"])
def test_rendered_depth_is_that_of_one_call(kind: str) -> None:
    config = SMALL.renderer.model_copy(update={"chunk": 2 * 16 * 100})
    several, one = toy(kind, renderer=config), toy(kind)
    with torch.no_grad():
        parts, whole = (
            model.render_depth(encoded(model), intrinsics(), (24, 32), jitter=torch.Generator().manual_seed(1))
            for model in (several, one)
        )
    # Jitter is drawn part by part, so only its mid-bin twin can be compared across chunk sizes.
    assert parts.shape == whole.shape == (2, 1, 24, 32)
    with torch.no_grad():
        parts, whole = (model.render_depth(encoded(model), intrinsics(), (24, 32)) for model in (several, one))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_a_head_that_gathers_sees_all_rays_of_an_image_at_the_distances_that_are_rendered() -> None:
    model = toy("over-call", renderer=SMALL.renderer.model_copy(update={"chunk": 2 * 16 * 100}))
    seen: list[torch.Tensor] = []
    rendered: list[torch.Tensor] = []
    head = model.head
    assert isinstance(head, OverCall)
    gather, forward = head.gather, head.forward

    def spy_gather(prepared: Any, queries: Any) -> Any:
        kept = list(queries)
        seen.extend(query.z for query in kept)
        return gather(prepared, kept)

    def spy_forward(prepared: Any, query: PointQuery) -> torch.Tensor:
        rendered.append(query.z)
        return forward(prepared, query)

    head.gather, head.forward = spy_gather, spy_forward  # type: ignore[method-assign]
    model.render_depth(encoded(model), intrinsics(), (24, 32), jitter=torch.Generator().manual_seed(1))
    assert len(seen) == len(rendered) == 8
    assert all(torch.equal(a, b) for a, b in zip(seen, rendered, strict=True))


def test_two_views_are_both_looked_at() -> None:
    model = toy("two-views")
    with torch.no_grad():
        inputs = encoded(model)
        first = model.density(inputs, points(), intrinsics())
        other = inputs.features.clone()
        other[:, 1] += 1.0
        changed = HeadInputs(other, inputs.intrinsics_ndc, inputs.view_from_key)
        assert not torch.allclose(model.density(changed, points(), intrinsics()), first)
        # A sample that one of the two sees is no reason to leave its ray out.
        prepared = model._prepare(inputs, intrinsics())
        query = PointQuery.of_points(points(), intrinsics())
        unseen = model.head.unseen(prepared, query)
    assert (query.unseen & ~unseen).any()
    assert not (unseen & ~query.unseen).any()


def test_labels_decide() -> None:
    model = toy("labels")
    with torch.no_grad():
        inputs = encoded(model)
        first = model.density(inputs, points(), intrinsics())
        other = HeadInputs(
            inputs.features, inputs.intrinsics_ndc, inputs.view_from_key, None, {"label": inputs.maps["label"] ^ 1}
        )
        assert not torch.allclose(model.density(other, points(), intrinsics()), first)


@pytest.mark.parametrize("central", [False, True])
def test_samples_of_a_ray_see_each_other_and_no_other_ray(central: bool) -> None:
    model = toy("over-ray")
    with torch.no_grad():
        inputs = encoded(model)
        some, unit = rays(central=central), rays(seed=1).directions
        moved = some.directions.clone()
        moved[:, 3] = unit[:, 3]
        first = model.render(inputs, intrinsics(), some).weights
        second = model.render(inputs, intrinsics(), type(some)(some.origins, moved, central)).weights
    same = torch.ones(30, dtype=torch.bool)
    same[3] = False
    torch.testing.assert_close(first[:, same], second[:, same], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(first[:, 3], second[:, 3])
    with torch.no_grad():
        distances = sample_distances(3.0, 80.0, 7, (2, 30))
        query = PointQuery.of_rays(some.origins, some.directions, distances, intrinsics())
        last_moved = distances.clone()
        last_moved[..., -1] = 79.0
        other = PointQuery.of_rays(some.origins, some.directions, last_moved, intrinsics())
        prepared = model._prepare(inputs, intrinsics())
        densities = [query.along_rays(density_at(model.head, prepared, one)) for one in (query, other)]
    assert not torch.allclose(densities[0][..., 0], densities[1][..., 0]), "the first sample sees the last"


def test_what_a_head_lacks_is_one_error() -> None:
    features = torch.randn(2, 16, 64, 96)
    with pytest.raises(UsageError, match=r"needs at least 2 source views and was given 1.*encode_views"):
        toy("two-views").density(features, points(), intrinsics())
    with pytest.raises(UsageError, match=r"per-pixel map 'label'.*-o 'model.head.maps.label=\{store"):
        toy("labels").density(features, points(), intrinsics())


def test_heads_are_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert head_kinds() == ("mlp", "pixelnerf", *TOYS)
    assert head_class("mlp") is MLPHead
    with pytest.raises(ConfigError, match=r"head.kind' cannot be 'pixelnerv'; .*did you mean 'pixelnerf'"):
        validate({"head": {"kind": "pixelnerv"}}, ModelConfig)
    with pytest.raises(ConfigError, match=r"unknown configuration key 'head.pixelnerf.widht'; did you mean"):
        validate({"head": {"pixelnerf": {"widht": 3}}}, ModelConfig)
    with pytest.raises(ConfigError, match=r"there is no density head 'nonsense'.*over-ray"):
        head_class("nonsense")
    assert toy("labels").head.channels == 16
    with pytest.raises(AssertionError, match="options are the head's to check"):
        ViPOcc(SMALL.model_copy(update={"head": HeadConfig(kind="labels", options={"unknown": 1})}))


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_golden_parameter_counts_of_pixelnerf() -> None:
    # comparison_methods 4.1 and 10.5: coarse and fine network of the adaptation, the published network, its encoder.
    assert parameters(PixelNeRFHead(PixelNeRFConfig(), FieldConfig(), 512)) == 2_911_236
    assert parameters(PixelNeRFHead(PixelNeRFConfig(blocks=3), FieldConfig(), 512)) == 1_860_612
    published = PixelNeRFConfig(conditioning="add", view_directions=True)
    assert parameters(PixelNeRFHead(published, FieldConfig(), 512)) == 3_438_596
    values = {
        "encoder": {"name": "resnet34", "pretrained": "none"},
        "decoder": {"kind": "pyramid"},
        "head": {"kind": "pixelnerf", "pixelnerf": {"width": 8}},
        "depth_branch": {"kind": "none"},
    }
    model = ViPOcc(validate(values, ModelConfig))
    assert parameters(model.encoder) == 8_170_304
    assert model.decoder.channels == 512
    assert parameters(model.decoder) == 0
    with torch.no_grad():
        assert model.eval().encode(torch.rand(1, 3, 64, 96)).shape == (1, 512, 32, 48)


def test_the_pyramid_stacks_enlarged_levels() -> None:
    encoder = ResNetEncoder(SMALL.encoder).eval()
    with torch.no_grad():
        five = encoder(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
        encoder.drop_deepest()
        levels = encoder(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(five[:4], levels, strict=True))
    pyramid = Pyramid(encoder.channels)
    stacked = pyramid(levels)
    assert stacked.shape == (1, pyramid.channels, 32, 48)
    start = 0
    for level in levels:
        part = stacked[:, start : start + level.shape[1]]
        start += level.shape[1]
        for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            torch.testing.assert_close(part[..., corner[0], corner[1]], level[..., corner[0], corner[1]])


@pytest.mark.parametrize("form", FORMS)
def test_pixelnerf_gives_density_and_colour(form: str) -> None:
    model = model_with(HeadConfig(kind="pixelnerf", pixelnerf=FORMS[form]))
    inputs = encoded(model, FORMS[form].views)
    for seen in (views(), None):
        rendered = model.render(inputs, intrinsics(), rays(), seen)
        assert rendered.colours is not None
        assert rendered.invalid is not None
        assert rendered.colours.shape == (2, 30, 1, 3)
        assert rendered.invalid.shape == (2, 30, 16, 1)
    assert 0 <= rendered.colours.min() < rendered.colours.max() <= 1
    prepared = model._prepare(inputs, intrinsics())
    distances = sample_distances(3.0, 80.0, 16, (2, 30))
    query = PointQuery.of_rays(rays().origins, rays().directions, distances, intrinsics())
    sigma, colours = model.head.radiance(prepared, query)
    assert torch.equal(sigma, model.head(prepared, query))
    assert (sigma >= 0).all()
    expected = (rendered.weights[..., None] * query.along_rays(colours)).sum(2)
    torch.testing.assert_close(rendered.colours[:, :, 0], expected)
    if FORMS[form].views == 1:
        assert torch.equal(rendered.invalid[..., 0], query.along_rays(query.unseen))
    rendered.colours.sum().backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("form", FORMS)
def test_pixelnerf_gives_the_same_along_central_rays(form: str) -> None:
    model = model_with(HeadConfig(kind="pixelnerf", pixelnerf=FORMS[form]))
    with torch.no_grad():
        inputs = encoded(model, FORMS[form].views)
        general, central = (model.render(inputs, intrinsics(), rays(central=value)) for value in (False, True))
    assert general.colours is not None
    torch.testing.assert_close(central.distance, general.distance, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(central.colours, general.colours, rtol=1e-4, atol=1e-5)


def test_pixelnerf_reads_directions_only_when_told() -> None:
    unit = directions(2, 40, torch.Generator().manual_seed(0))
    places = points(40)
    for form, differs in (("adapted", False), ("published", True)):
        model = model_with(HeadConfig(kind="pixelnerf", pixelnerf=FORMS[form]))
        for block in model.head.blocks:  # type: ignore[union-attr]
            torch.nn.init.normal_(block.second.weight, std=0.3)  # type: ignore[union-attr]
        with torch.no_grad():
            prepared = model._prepare(encoded(model, 1), intrinsics())
            from_key = PointQuery.of_points(places, intrinsics())
            along = PointQuery.of_rays(places - unit, unit, torch.ones(2, 40, 1), intrinsics())
            torch.testing.assert_close(along.points, from_key.points)
            raw = [model.head._network(prepared, query) for query in (from_key, along)]  # type: ignore[operator]
        assert torch.allclose(*raw, rtol=1e-4, atol=1e-4) != differs
    torch.testing.assert_close(from_key.viewing[:, :, 0], torch.nn.functional.normalize(places, dim=-1))
    torch.testing.assert_close(along.viewing[:, :, 0], unit)


def test_pixelnerf_averages_views_that_are_the_same_to_one() -> None:
    form = FORMS["published"].model_copy(update={"views": 3})
    model = model_with(HeadConfig(kind="pixelnerf", pixelnerf=form))
    with torch.no_grad():
        one = encoded(model, 1)
        three = HeadInputs(
            *(values.repeat_interleave(3, dim=1) for values in (one.features, one.intrinsics_ndc, one.view_from_key))
        )
        torch.testing.assert_close(
            model.density(three, points(), intrinsics()),
            model.density(one, points(), intrinsics()),
            rtol=1e-4,
            atol=1e-4,
        )


def test_split_keeps_rays_whole_and_loses_nothing() -> None:
    some = rays()
    query = PointQuery.of_rays(some.origins, some.directions, sample_distances(3.0, 80.0, 7, (2, 30)), intrinsics())
    for pixels in (1, 7, 20, 1000):
        found = list(query.split(pixels))
        assert all(part.z.shape[1] % 7 == 0 for part in found)
        assert all(part.z.shape[1] <= max(pixels, 7) for part in found)
        for name in ("points", "xy", "z", "directions"):
            assert torch.equal(torch.cat([getattr(part, name) for part in found], 1), getattr(query, name))


@pytest.mark.parametrize("form", FORMS)
def test_pixelnerf_is_the_network_of_its_description(form: str) -> None:
    """Point by point and view by view, from comparison_methods 4.1."""
    config = FORMS[form]
    model = model_with(HeadConfig(kind="pixelnerf", pixelnerf=config)).double()
    head = model.head
    assert isinstance(head, PixelNeRFHead)
    for block in head.blocks:
        torch.nn.init.normal_(block.second.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    weights = {name: tensor.detach() for name, tensor in head.named_parameters()}
    inputs = encoded_in_double(model, config.views)
    some, distances = rays(count=4), sample_distances(3.0, 80.0, 3, (2, 4)).double()
    origins, unit = some.origins.double(), some.directions.double()
    key = intrinsics().double()
    query = PointQuery.of_rays(origins, unit, distances, key)
    sigma, colours = head.radiance(model._prepare(inputs, key), query)

    def layer(name: str, x: torch.Tensor) -> torch.Tensor:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    for sample, ray, at in ((0, 0, 0), (0, 3, 2), (1, 2, 1)):
        point = origins[sample, ray] + distances[sample, ray, at] * unit[sample, ray]
        states = []
        for view in range(config.views):
            pose = inputs.view_from_key[sample, view]
            local = pose[:3, :3] @ point + pose[:3, 3]
            pixel = inputs.intrinsics_ndc[sample, view] @ local
            z = pixel[2].clamp(min=1e-3)
            xy = pixel[:2] / z
            feature = sample_features_reference(inputs.features[sample : sample + 1, view], xy[None, None])[0, 0]
            code = positional_encoding(torch.cat([xy, depth_code(z)[None]]))
            if config.view_directions:
                code = torch.cat([code, pose[:3, :3] @ unit[sample, ray]])
            x = layer("input", torch.cat([feature, code]) if config.conditioning == "concat" else code)
            for number in range(config.conditioned_blocks):
                if config.conditioning == "add":
                    x = x + layer(f"features.{number}", feature)
                inner = layer(f"blocks.{number}.first", torch.relu(x))
                x = x + layer(f"blocks.{number}.second", torch.relu(inner))
            states.append(x)
        x = torch.stack(states).mean(0)
        for number in range(config.conditioned_blocks, config.blocks):
            x = x + layer(f"blocks.{number}.second", torch.relu(layer(f"blocks.{number}.first", torch.relu(x))))
        raw = layer("output", torch.relu(x))
        density = torch.relu(raw[0]) if config.density == "relu" else torch.nn.functional.softplus(raw[0])
        torch.testing.assert_close(query.along_rays(sigma)[sample, ray, at], density, rtol=1e-9, atol=1e-9)
        found = query.along_rays(colours)[sample, ray, at]
        torch.testing.assert_close(found, torch.sigmoid(raw[1:]), rtol=1e-9, atol=1e-9)
    assert sigma.detach().std() > 1e-3


def encoded_in_double(model: ViPOcc, number: int) -> HeadInputs:
    seen = views(2, number)
    pose = seen.view_from_key.double()
    pose[:, 0] = torch.eye(4)
    if number > 1:
        turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.1, 0.2], [0.1, 0.0, -0.3], [-0.2, 0.3, 0.0]]).double())
        pose[:, 1, :3, :3] = turn
    return model.encode_views(seen.images.double(), seen.intrinsics_ndc.double(), pose)
