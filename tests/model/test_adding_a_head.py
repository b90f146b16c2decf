"""What docs/adding-a-head.md shows works as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import SMALL, intrinsics, rays, views

from vipocc.model.config import HeadConfig
from vipocc.model.heads import interface, registry
from vipocc.model.network import ViPOcc

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-head.md").read_text(encoding="utf-8")


def test_the_example_trains_and_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_package"}
    exec(compile(code, "my_package.py", "exec"), names)

    class Point:
        name = "my-head"

        def load(self) -> Any:
            return names["MyHead"]

    monkeypatch.setattr(registry, "entry_points", lambda **_: [Point()])
    torch.manual_seed(0)
    model = ViPOcc(SMALL.model_copy(update={"head": HeadConfig(kind="my-head", options={"labels": 4})}))
    seen = views(2, 1)
    label = torch.randint(0, 4, (2, 1, 64, 96), dtype=torch.uint8)
    inputs = model.encode_keys(seen.images[:, 0], intrinsics(), {"label": label})
    for central in (False, True):
        rendered = model.render(inputs, intrinsics(), rays(central=central), views())
        assert rendered.distance.shape == (2, 30)
    rendered.distance.sum().backward()
    assert all(parameter.grad is not None for parameter in model.head.parameters())
    with torch.no_grad():
        other = model.encode_keys(seen.images[:, 0], intrinsics(), {"label": 3 - label})
        assert not torch.allclose(model.render(other, intrinsics(), rays()).distance, rendered.distance)


def test_the_page_names_what_there_is() -> None:
    needs = set(re.findall(r"`needs\.(\w+)`", PAGE))
    assert needs == set(interface.HeadNeeds.__dataclass_fields__)
    methods = set(re.findall(r"^\| `(\w+)\(prepared|^\| `(\w+)\(features", PAGE, flags=re.MULTILINE))
    named = {name for pair in methods for name in pair if name}
    assert named == {"prepare", "gather", "forward", "radiance", "unseen"}
    assert all(hasattr(interface.DensityHead, name) for name in named | {"from_config", "predicts_colour"})
    assert f'entry-points."{registry.GROUP}"' in PAGE
